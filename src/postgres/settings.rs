//! What a connection is made with: hosts, account, TLS, times. Everything is read before a server is asked; what cannot be
//! honoured is refused by name.

use std::net::IpAddr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::ChannelBinding;

use super::places::{self, Account, Found, Surroundings};
use super::tls::Tls;
use crate::error::{Error, Result};

/// How long one host may take to answer.
const CONNECT: Duration = Duration::from_secs(8);
const PORT: u16 = 5_432;

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// One server that may be asked. No `Debug`: it holds a password.
#[derive(Clone)]
pub struct Host {
    /// A name, an address, or the directory of a Unix socket.
    pub name: String,
    pub address: Option<IpAddr>,
    pub port: u16,
    pub password: Option<String>,
}

impl Host {
    /// Whether it is a Unix socket, over which there is no TLS.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.address.is_none() && self.name.starts_with('/')
    }
}

/// A connection's settings. No `Debug`: they hold passwords.
#[derive(Clone)]
pub struct Settings {
    pub hosts: Vec<Host>,
    /// All but host, port, password and TLS.
    pub config: Config,
    pub mode: Mode,
    pub tls: Tls,
    /// For one host.
    pub timeout: Duration,
    /// A server of which this SQL is true is passed over.
    pub pass_over: Option<&'static str>,
}

/// Reads a DSN and what libpq would add to it.
///
/// # Errors
/// `Config` naming what cannot be read or honoured; never its value.
pub fn read(text: &str, around: &Surroundings) -> Result<Settings> {
    let found = places::resolve(text, around)?;
    let user = found.get("user").map(str::to_owned).or_else(|| around.user.clone());
    let user = user.ok_or_else(|| Error::config("postgres: no user is named").hint("user=… or PGUSER"))?;
    let database = found.get("dbname").unwrap_or(&user).to_owned();
    let mut hosts = hosts(&found)?;
    for host in &mut hosts {
        let account = Account { host: &host.name, port: host.port, database: &database, user: &user };
        host.password = match found.get("password") {
            Some(password) => Some(password.to_owned()),
            None => places::password(&found, around, account)?,
        };
    }
    let mut config = Config::new();
    config.user(user).dbname(database);
    if let Some(options) = found.get("options") {
        config.options(options);
    }
    let name = found.get("application_name").or_else(|| found.get("fallback_application_name"));
    config.application_name(name.unwrap_or("millpond"));
    config.channel_binding(match found.get("channel_binding") {
        None | Some("prefer") => ChannelBinding::Prefer,
        Some("disable") => ChannelBinding::Disable,
        Some("require") => ChannelBinding::Require,
        Some(_) => return Err(found.unreadable("channel_binding", "disable, prefer or require")),
    });
    keepalives(&found, &mut config)?;
    let timeout = match found.number("connect_timeout")? {
        // For libpq 0 is no limit; a run has one.
        None | Some(..=0) => CONNECT,
        // As there: one second is too short to be meant.
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(2).max(2)),
    };
    config.connect_timeout(timeout);
    let pass_over = match found.get("target_session_attrs") {
        None | Some("any") => None,
        Some("read-write") => Some("current_setting('transaction_read_only')::boolean OR pg_is_in_recovery()"),
        Some("primary") => Some("pg_is_in_recovery()"),
        Some("read-only" | "standby" | "prefer-standby") => {
            return Err(Error::config("postgres: target_session_attrs asks for a server that takes no reports")
                .hint("read-write, primary or any"));
        }
        Some(_) => return Err(found.unreadable("target_session_attrs", "read-write, primary or any")),
    };
    match found.get("load_balance_hosts") {
        None | Some("disable") => {}
        Some("random") => shuffle(&mut hosts),
        Some(_) => return Err(found.unreadable("load_balance_hosts", "disable or random")),
    }
    let (mode, tls) = Tls::read(&found, around)?;
    if mode == Mode::VerifyFull && found.get("host").is_none() {
        return Err(Error::config("postgres: sslmode=verify-full needs the host's name, and hostaddr is none")
            .hint("give host= beside hostaddr="));
    }
    Ok(Settings { hosts, config, mode, tls, timeout, pass_over })
}

fn hosts(found: &Found) -> Result<Vec<Host>> {
    let list = |name: &str| found.get(name).map(|text| text.split(',').map(str::trim).collect::<Vec<_>>());
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port").unwrap_or_default());
    let count = addresses.as_ref().or(names.as_ref()).map(Vec::len).ok_or_else(no_host)?;
    let lists = [names.as_ref(), addresses.as_ref(), (ports.len() > 1).then_some(&ports)];
    if lists.iter().flatten().any(|list| list.len() != count) {
        return Err(Error::config("postgres: host, hostaddr and port of the DSN are lists of different lengths")
            .hint("as many of each, or one port for all"));
    }
    let at = |list: &Option<Vec<&str>>, index: usize| {
        list.as_ref().and_then(|list| list.get(index)).map(|text| (*text).to_owned()).filter(|text| !text.is_empty())
    };
    (0..count)
        .map(|index| {
            let address = at(&addresses, index)
                .map(|text| text.parse().map_err(|_| found.unreadable("hostaddr", "an address, as 10.0.0.1 or ::1")));
            let address: Option<IpAddr> = address.transpose()?;
            let name = at(&names, index).or_else(|| address.map(|address| address.to_string())).ok_or_else(no_host)?;
            if name.starts_with('@') {
                return Err(
                    Error::config("postgres: an abstract Unix socket is not supported").hint("name a directory")
                );
            }
            let port = ports.get(index).or_else(|| ports.first()).filter(|port| !port.is_empty());
            let port =
                port.map_or(Ok(PORT), |port| port.parse().map_err(|_| found.unreadable("port", "1 to 65535")))?;
            Ok(Host { name, address, port, password: None })
        })
        .collect()
}

fn no_host() -> Error {
    Error::config("postgres: the DSN names no host, nor do a service or PGHOST")
        .hint("host=… or postgresql://user@host/database; a Unix socket by its directory")
}

fn keepalives(found: &Found, config: &mut Config) -> Result<()> {
    let seconds = |name: &str| -> Result<Option<u64>> {
        Ok(found.number(name)?.and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0))
    };
    if let Some(on) = found.number("keepalives")? {
        config.keepalives(on != 0);
    }
    if let Some(idle) = seconds("keepalives_idle")? {
        config.keepalives_idle(Duration::from_secs(idle));
    }
    if let Some(interval) = seconds("keepalives_interval")? {
        config.keepalives_interval(Duration::from_secs(interval));
    }
    if let Some(count) = seconds("keepalives_count")? {
        config.keepalives_retries(u32::try_from(count).unwrap_or(u32::MAX));
    }
    if let Some(millis) = seconds("tcp_user_timeout")? {
        config.tcp_user_timeout(Duration::from_millis(millis));
    }
    Ok(())
}

/// Each run begins with another one.
fn shuffle(hosts: &mut [Host]) {
    for last in (1..hosts.len()).rev() {
        let random = usize::try_from(uuid::Uuid::new_v4().as_u128() % (last as u128 + 1)).unwrap_or(0);
        hosts.swap(last, random);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let around = Surroundings { user: Some("me".into()), ..Surroundings::default() };
        match read(text, &around) {
            Ok(settings) => {
                let hosts = settings.hosts.iter().map(|host| format!("{}:{}", host.name, host.port));
                format!("{} {}", hosts.collect::<Vec<_>>().join(" "), settings.config.get_dbname().unwrap_or(""))
            }
            Err(error) => error.what,
        }
    }

    #[test]
    fn hosts_and_ports_are_lists() {
        assert_eq!(told("host=a,b port=1,2"), "a:1 b:2 me");
        assert_eq!(told("host=a,b port=7 dbname=d"), "a:7 b:7 d");
        assert_eq!(told("hostaddr=::1,10.0.0.1"), "::1:5432 10.0.0.1:5432 me");
        assert_eq!(told("host=/run/x user=u"), "/run/x:5432 u");
        assert!(told("host=a,b port=1,2,3").contains("different lengths"));
        assert!(told("dbname=x").contains("no host"));
        assert!(told("host=a target_session_attrs=standby").contains("target_session_attrs"));
        assert!(told("hostaddr=10.0.0.1 sslmode=verify-full sslrootcert=system").contains("hostaddr"));
    }
}
