//! Where libpq looks for what a DSN does not say: a service file, the environment, the defaults; and a password in
//! `~/.pgpass`. A file that libpq would pass over with a warning is refused here.
//! <https://www.postgresql.org/docs/16/libpq-pgservice.html>, <https://www.postgresql.org/docs/16/libpq-pgpass.html>

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::dsn::{self, Pairs};
use super::options::{Fate, PARAMETERS, Parameter};
use crate::error::{Error, Result};

/// Debian's place of the service file for all; `PGSYSCONFDIR` names another.
const SYSTEM: &str = "/etc/postgresql-common";

/// What surrounds a process, as far as libpq looks at it. No `Debug`: it may hold a password.
#[derive(Clone, Default)]
pub struct Surroundings {
    pub variables: BTreeMap<String, String>,
    pub home: Option<PathBuf>,
    pub user: Option<String>,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn here() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let variables = variables.filter(|(name, _)| name.starts_with("PG"));
        Self {
            variables: variables.map(|(name, value)| (name, value.to_string_lossy().into_owned())).collect(),
            home: std::env::home_dir(),
            user: whoami::username().ok(),
        }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A file of libpq's in the home directory.
    #[must_use]
    pub fn at_home(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name))
    }
}

/// A value, and whether the user named it: what is only a default may be missing.
#[derive(Clone)]
struct Value {
    text: String,
    origin: &'static str,
}

/// Every parameter that has a value. No `Debug`: it holds a password.
#[derive(Clone, Default)]
pub struct Found {
    values: BTreeMap<&'static str, Value>,
}

impl Found {
    /// The value of a parameter; an empty one is none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.text.as_str()).filter(|text| !text.is_empty())
    }

    /// The value of one that libpq reads as a whole number.
    ///
    /// # Errors
    /// `Config` naming it.
    pub fn number(&self, name: &str) -> Result<Option<i64>> {
        self.get(name)
            .map(|text| text.trim().parse().map_err(|_| self.unreadable(name, "give a whole number")))
            .transpose()
    }

    /// A value that cannot be read, and where it came from.
    #[must_use]
    pub fn unreadable(&self, name: &str, hint: impl Into<String>) -> Error {
        let origin = self.values.get(name).map_or("the DSN", |value| value.origin);
        Error::config(format!("postgres: the value of {name} in {origin} cannot be read")).hint(hint)
    }
}

/// Fills what the DSN leaves open, in libpq's order: service, environment.
///
/// # Errors
/// `Config` naming what is refused, or a service that is not defined.
pub fn resolve(text: &str, around: &Surroundings) -> Result<Found> {
    let mut found = Found::default();
    for (name, value) in dsn::parse(text)? {
        found.values.insert(name, Value { text: value, origin: "the DSN" });
    }
    let named = found.get("service").map(str::to_owned).or_else(|| around.variable("PGSERVICE").map(str::to_owned));
    if let Some(service) = named {
        for (name, value) in of_service(&service, found.get("servicefile"), around)? {
            found.values.entry(name).or_insert(Value { text: value, origin: "the service file" });
        }
    }
    for parameter in PARAMETERS {
        if let Some(value) = around.variables.get(parameter.variable) {
            let value = Value { text: value.clone(), origin: parameter.variable };
            found.values.entry(parameter.name).or_insert(value);
        }
    }
    // The older word for it gives way to the newer.
    if let Some(old) = found.values.get("requiressl").cloned() {
        let text = if old.text == "1" { "require" } else { "prefer" }.to_owned();
        found.values.entry("sslmode").or_insert(Value { text, origin: old.origin });
    }
    for parameter in PARAMETERS {
        found.refuse_unfit(parameter)?;
    }
    Ok(found)
}

impl Found {
    fn refuse_unfit(&self, parameter: &Parameter) -> Result<()> {
        let name = parameter.name;
        let Some(value) = self.get(name) else { return Ok(()) };
        let origin = self.values.get(name).map_or("the DSN", |value| value.origin);
        match parameter.fate {
            Fate::Honoured => Ok(()),
            Fate::Only(values) if values.contains(&value.to_lowercase().as_str()) => Ok(()),
            Fate::Only(values) => Err(Error::config(format!(
                "postgres: only {} is supported as {name}, and {origin} gives another",
                values.join(" or ")
            ))
            .hint("leave it out")),
            Fate::Refused(why) => Err(Error::config(format!("postgres: {name} ({origin}) is not supported"))
                .hint(format!("leave it out: {why}"))),
        }
    }
}

fn of_service(service: &str, file: Option<&str>, around: &Surroundings) -> Result<Pairs> {
    let named = file.or_else(|| around.variable("PGSERVICEFILE")).map(PathBuf::from);
    let first = named.clone().or_else(|| around.at_home(".pg_service.conf"));
    let system = Path::new(around.variable("PGSYSCONFDIR").unwrap_or(SYSTEM)).join("pg_service.conf");
    for path in first.into_iter().chain([system]) {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(_) if named.as_ref() != Some(&path) && !path.exists() => continue,
            Err(error) => {
                return Err(Error::config(format!("postgres: service file {} cannot be read", path.display()))
                    .hint("check PGSERVICEFILE, and who may read it")
                    .because(error));
            }
        };
        if let Some(found) = section(&text, service, &path)? {
            return Ok(found);
        }
    }
    Err(Error::config(format!("postgres: service {service} is not defined"))
        .hint("define [it] in ~/.pg_service.conf, or in the file that PGSERVICEFILE names"))
}

fn section(text: &str, service: &str, path: &Path) -> Result<Option<Pairs>> {
    let mut found: Option<Pairs> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let broken = |why: &str| {
            Error::config(format!("postgres: service file {} line {}: {why}", path.display(), number + 1))
                .hint("write keyword=value")
        };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            found = (name == service).then(Pairs::new);
            continue;
        }
        let Some(pairs) = &mut found else { continue };
        if line.starts_with("ldap://") {
            return Err(broken("a service kept in LDAP is not looked up"));
        }
        let (name, value) = line.split_once('=').ok_or_else(|| broken("no ="))?;
        let name = dsn::keyword(name)?;
        if name.starts_with("service") {
            return Err(broken("a service within a service"));
        }
        // The first one of a keyword counts, as for libpq.
        if pairs.iter().all(|(known, _)| *known != name) {
            pairs.push((name, value.to_owned()));
        }
    }
    Ok(found)
}

/// Whom a password is for.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// A host's name, or else its address.
    pub host: &'a str,
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

/// The password that a password file has for an account.
///
/// # Errors
/// `Config` for a file that others may read, or one that was named and is not there.
pub fn password(found: &Found, around: &Surroundings, account: Account<'_>) -> Result<Option<String>> {
    let named = found.get("passfile").map(PathBuf::from);
    let Some(path) = named.clone().or_else(|| around.at_home(".pgpass")) else { return Ok(None) };
    let what = || format!("postgres: password file {}", path.display());
    let status = match std::fs::metadata(&path) {
        Ok(status) => status,
        Err(_) if named.is_none() => return Ok(None),
        Err(error) => {
            return Err(Error::config(format!("{}: cannot be read", what())).hint("check passfile").because(error));
        }
    };
    if !status.is_file() || status.permissions().mode() & 0o077 != 0 {
        return Err(Error::config(format!("{}: others may read it, or it is no file", what()))
            .hint(format!("chmod 0600 {}", path.display())));
    }
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|error| Error::config(format!("{}: cannot be read", what())).because(error))?;
    let port = account.port.to_string();
    // A socket in its usual place is called localhost.
    let socket = account.host == "/tmp" || account.host == "/var/run/postgresql";
    let wanted = [if socket { "localhost" } else { account.host }, &port, account.database, account.user];
    Ok(text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for wanted in wanted {
            let (field, after) = field(rest);
            let (any, after) = (&rest[..rest.len() - after?.len()] == "*:", after?);
            if !any && field != wanted {
                return None;
            }
            rest = after;
        }
        Some(field(rest).0)
    }))
}

/// A field up to the next colon, unescaped, and what follows the colon.
fn field(text: &str) -> (String, Option<&str>) {
    let mut out = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => out.extend(characters.next().map(|(_, character)| character)),
            ':' => return (out, Some(&text[at + 1..])),
            _ => out.push(character),
        }
    }
    (out, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(variables: &[(&str, &str)]) -> Surroundings {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Surroundings { variables: variables.collect(), ..Surroundings::default() }
    }

    #[test]
    fn the_dsn_wins_over_the_environment() {
        let found =
            resolve("host=h", &around(&[("PGHOST", "e"), ("PGPORT", "7"), ("PGREQUIRESSL", "1")])).expect("read");
        assert_eq!(
            (found.get("host"), found.get("port"), found.get("sslmode")),
            (Some("h"), Some("7"), Some("require"))
        );
        let error = resolve("host=h", &around(&[("PGREQUIREAUTH", "gss")])).err().expect("refused");
        assert!(error.what.contains("PGREQUIREAUTH") && error.what.contains("require_auth"));
        assert!(resolve("host=h gssencmode=require", &around(&[])).is_err());
        assert!(resolve("host=h gssencmode=disable client_encoding=UTF8", &around(&[])).is_ok());
    }

    #[test]
    fn a_service_is_read_as_libpq_reads_it() {
        let text = "# all\n[other]\nhost=o\n\n[mine]\nhost=m\nport=1\nport=2\npassword= a=b \n[mine]\nuser=u";
        let pairs = section(text, "mine", Path::new("f")).expect("read").expect("there");
        assert_eq!(pairs, [("host", "m".to_owned()), ("port", "1".to_owned()), ("password", " a=b".to_owned())]);
        assert!(section("[mine]\nservice=x", "mine", Path::new("f")).is_err());
        assert_eq!(section("[a]\nhost=x", "mine", Path::new("f")).expect("read"), None);
    }

    #[test]
    fn fields_of_a_password_file_may_be_escaped() {
        assert_eq!(field("a\\:b\\\\:rest"), ("a:b\\".to_owned(), Some("rest")));
        assert_eq!(field("last"), ("last".to_owned(), None));
    }
}
