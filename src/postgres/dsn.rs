//! The two forms of a DSN, libpq's grammar of each: a URI, and `keyword=value` pairs. It refuses to judge what they say;
//! messages name keywords and never a value (I6).
//! <https://www.postgresql.org/docs/16/libpq-connect.html#LIBPQ-CONNSTRING>

use super::options::{self, PARAMETERS};
use crate::error::{Error, Result};
use crate::kafka::settings::distance;

/// Keywords and values, in the order written; a later one of the same keyword wins.
pub type Pairs = Vec<(&'static str, String)>;

fn unreadable(why: &str) -> Error {
    Error::config(format!("postgres: the DSN cannot be read: {why}")).hint(
        "postgresql://user:password@host:port/database?sslmode=… with %-escapes, or host=… port=… dbname=… user=…",
    )
}

/// Parses either form.
///
/// # Errors
/// `Config` naming what is not understood; never its value.
pub fn parse(text: &str) -> Result<Pairs> {
    match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        Some(rest) => from_uri(rest),
        None => from_pairs(text),
    }
}

/// The keyword that a text names. Only words that libpq knows, or near ones, are shown: a broken DSN may have a piece of
/// its password where a name should be.
///
/// # Errors
/// `Config` for an unknown one.
pub fn keyword(name: &str) -> Result<&'static str> {
    if let Some(known) = options::find(name) {
        return Ok(known.name);
    }
    let near = PARAMETERS.iter().map(|known| known.name).min_by_key(|known| distance(name, known));
    match near.filter(|near| distance(name, near) <= 2 && name.is_ascii()) {
        Some(near) => {
            Err(Error::config(format!("postgres: unknown option {name} in the DSN"))
                .hint(format!("did you mean {near}?")))
        }
        None => Err(unreadable("an option of it is none that libpq knows")),
    }
}

fn from_uri(text: &str) -> Result<Pairs> {
    let mut found = Pairs::new();
    let mut add = |name: &'static str, value: &str| -> Result<()> {
        if !value.is_empty() {
            found.push((name, decoded(value)?));
        }
        Ok(())
    };
    let mut rest = text;
    if let Some(at) = rest.find(['@', '/']).filter(|at| rest[*at..].starts_with('@')) {
        let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
        add("user", user)?;
        add("password", password)?;
        rest = &rest[at + 1..];
    }
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    loop {
        let host;
        if let Some(bracketed) = rest.strip_prefix('[') {
            let (inner, after) =
                bracketed.split_once(']').ok_or_else(|| unreadable("a [ of an address is not closed"))?;
            (host, rest) = (inner, after);
        } else {
            let end = rest.find([':', '/', '?', ',']).unwrap_or(rest.len());
            (host, rest) = rest.split_at(end);
        }
        let mut port = "";
        if let Some(after) = rest.strip_prefix(':') {
            let end = after.find(['/', '?', ',']).unwrap_or(after.len());
            (port, rest) = after.split_at(end);
        }
        hosts.push(host);
        ports.push(port);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => break,
        }
    }
    if hosts.iter().any(|host| !host.is_empty()) {
        add("host", &hosts.join(","))?;
    }
    if ports.iter().any(|port| !port.is_empty()) {
        add("port", &ports.join(","))?;
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    match path.strip_prefix('/') {
        Some(name) => add("dbname", name)?,
        None if path.is_empty() => {}
        None => return Err(unreadable("something stands behind the address that is no /database")),
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| unreadable("a parameter of the URI has no ="))?;
        if value.contains('=') {
            return Err(unreadable("a parameter of the URI has two ="));
        }
        let (name, value) = (decoded(name)?, decoded(value)?);
        // What JDBC says, and libpq reads too.
        if name == "ssl" {
            if value != "true" {
                return Err(Error::config("postgres: the value of ssl in the DSN cannot be read")
                    .hint("sslmode=require, verify-ca or verify-full"));
            }
            found.push(("sslmode", "require".into()));
            continue;
        }
        found.push((keyword(&name)?, value));
    }
    Ok(found)
}

fn decoded(text: &str) -> Result<String> {
    let broken = || unreadable("a % is not followed by two hexadecimal digits of UTF-8");
    let mut out = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    out.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        let code = part.get(..2).filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit())).ok_or_else(broken)?;
        let byte = u8::from_str_radix(code, 16).ok().filter(|byte| *byte != 0).ok_or_else(broken)?;
        out.push(byte);
        out.extend(part[2..].bytes());
    }
    String::from_utf8(out).map_err(|_| broken())
}

fn from_pairs(text: &str) -> Result<Pairs> {
    let mut found = Pairs::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(|| unreadable("a word of it has no ="))?;
        let name = name.trim_end();
        if name.contains(char::is_whitespace) {
            return Err(unreadable("a word of it has no ="));
        }
        let name = keyword(name)?;
        let (value, after) = value(after.trim_start())?;
        found.push((name, value));
        rest = after.trim_start();
    }
    Ok(found)
}

/// A value, unescaped, and what follows it.
fn value(text: &str) -> Result<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut out = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => out.extend(characters.next().map(|(_, character)| character)),
            '\'' if quoted => return Ok((out, &text[at + 1..])),
            _ if !quoted && character.is_whitespace() => return Ok((out, &text[at..])),
            _ => out.push(character),
        }
    }
    if quoted { Err(unreadable("a ' is not closed")) } else { Ok((out, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        parse(text).expect("read").iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn both_forms_say_the_same() {
        let uri = "postgresql://u%40x:p%40s%2Fs@h:5433,[::1]:1/my%20db?sslmode=verify-full&connect_timeout=3&ssl=true";
        assert_eq!(
            of(uri),
            [
                "user=u@x",
                "password=p@s/s",
                "host=h,::1",
                "port=5433,1",
                "dbname=my db",
                "sslmode=verify-full",
                "connect_timeout=3",
                "sslmode=require"
            ]
        );
        assert_eq!(of("postgres:///d?host=%2Ftmp"), ["dbname=d", "host=/tmp"]);
        assert_eq!(
            of(" host = 'a b'\tpassword='a\\'b\\\\' user=x\\ y dbname="),
            ["host=a b", "password=a'b\\", "user=x y", "dbname="]
        );
        assert_eq!(of("postgresql://"), [""; 0]);
    }

    #[test]
    fn what_cannot_be_read_is_not_shown() {
        let broken = [
            "postgresql://h/d?sslmode",
            "postgresql://h/d?host=a=s3cret",
            "postgresql://u:%zzs3cret@h/d",
            "postgresql://[::1/s3cret",
            "s3cret",
            "host=h s3cret",
            "password='s3cret",
            "s3cret=1",
            "postgresql://h/d?s3cret=1",
            "postgresql://u:s3c%00ret@h",
        ];
        for text in broken {
            let error = parse(text).expect_err(text);
            assert!(!format!("{error:?}").contains("s3c"), "{text}: {error:?}");
        }
        assert!(parse("postgresql://h?sslmod=require").expect_err("near").hint.contains("sslmode"));
    }
}
