//! A DSN in libpq's URL or key=value form: the TLS options are taken out, the rest is tokio-postgres' to read.

use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use crate::error::{Error, Result};
use crate::kafka::settings::distance;

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// A parsed DSN. No `Debug`: it holds a password.
#[derive(Clone)]
pub struct Dsn {
    pub config: Config,
    pub mode: Mode,
    pub root: Option<String>,
    pub certificate: Option<String>,
    pub key: Option<String>,
}

const OURS: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

/// Parses either form.
///
/// # Errors
/// `Config` naming what is not understood; never its value.
pub fn parse(text: &str) -> Result<Dsn> {
    let (rest, ours) = if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        from_url(text)
    } else {
        from_pairs(text)
    };
    let find = |name: &str| ours.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let mode = match find("sslmode").as_deref() {
        None | Some("prefer" | "allow") => Mode::Prefer,
        Some("disable") => Mode::Disable,
        Some("require") => Mode::Require,
        Some("verify-ca") => Mode::VerifyCa,
        Some("verify-full") => Mode::VerifyFull,
        Some(_) => {
            return Err(Error::config("postgres: sslmode is unknown")
                .hint("disable, allow, prefer, require, verify-ca or verify-full"));
        }
    };
    refuse_unreadable(text)?;
    let mut config: Config = rest.parse().map_err(|_| {
        // The parser's text may quote the password.
        Error::config("postgres: the DSN cannot be read")
            .hint("postgresql://user:password@host:port/database?sslmode=…, or host=… port=… dbname=… user=…")
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(Error::config("postgres: the DSN names no host").hint("host=… or postgresql://user@host/database"));
    }
    config.ssl_mode(match mode {
        Mode::Disable => SslMode::Disable,
        Mode::Prefer => SslMode::Prefer,
        Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
    });
    Ok(Dsn { config, mode, root: find("sslrootcert"), certificate: find("sslcert"), key: find("sslkey") })
}

/// What libpq knows, and we do not.
const NOT_OURS: [&str; 21] = [
    "service",
    "servicefile",
    "passfile",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "sslcertmode",
    "sslcompression",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "requiressl",
    "requirepeer",
    "require_auth",
    "ssl",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "client_encoding",
    "fallback_application_name",
    "replication",
];
/// What tokio-postgres reads.
const READ: [&str; 17] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// Names the first option that cannot be read. Only words that libpq knows, or near ones, are shown: a broken DSN may have
/// a piece of its password where a name should be (I6).
fn refuse_unreadable(text: &str) -> Result<()> {
    for (name, value) in options(text) {
        if OURS.contains(&name.as_str()) {
            continue;
        }
        if READ.contains(&name.as_str()) && quoted(&name, &value).parse::<Config>().is_ok() {
            continue;
        }
        let known = || READ.iter().chain(&NOT_OURS).chain(&OURS);
        let near = known().min_by_key(|known| distance(&name, known)).copied().unwrap_or_default();
        if READ.contains(&name.as_str()) {
            return Err(Error::config(format!("postgres: the value of {name} in the DSN cannot be read"))
                .hint(format!("see libpq's documentation of {name}")));
        }
        if NOT_OURS.contains(&name.as_str()) {
            return Err(Error::config(format!("postgres: {name} in the DSN is not supported")).hint("leave it out"));
        }
        if distance(&name, near) <= 2 {
            return Err(Error::config(format!("postgres: unknown option {name} in the DSN"))
                .hint(format!("did you mean {near}?")));
        }
    }
    Ok(())
}

/// The options of either form, decoded.
fn options(text: &str) -> Vec<(String, String)> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        let query = text.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        return pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.to_owned(), percent_decoded(value)))
            .collect();
    }
    pairs(text)
}

type Split = (String, Vec<(String, String)>);

fn from_url(text: &str) -> Split {
    let Some((base, query)) = text.split_once('?') else { return (text.to_owned(), Vec::new()) };
    let mut ours = Vec::new();
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if OURS.contains(&name) {
            ours.push((name.to_owned(), percent_decoded(value)));
        } else {
            rest.push(pair);
        }
    }
    let query = rest.join("&");
    (if query.is_empty() { base.to_owned() } else { format!("{base}?{query}") }, ours)
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn from_pairs(text: &str) -> Split {
    let (ours, rest): (Vec<_>, Vec<_>) = pairs(text).into_iter().partition(|(name, _)| OURS.contains(&name.as_str()));
    (rest.iter().map(|(name, value)| quoted(name, value)).collect(), ours)
}

/// One pair as libpq reads it back, with a blank behind it.
fn quoted(name: &str, value: &str) -> String {
    format!("{name}='{}' ", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// `name = value` pairs, values without their quotes; what is no pair is a name of its own.
fn pairs(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left = text.trim_start();
    while !left.is_empty() {
        let Some((name, tail)) = left.split_once('=') else {
            found.push((left.trim().to_owned(), String::new()));
            break;
        };
        let tail = tail.trim_start();
        let (value, after) = tail.split_at(value_length(tail));
        let plain = value.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')).unwrap_or(value);
        found.push((name.trim().to_owned(), unescaped(plain)));
        left = after.trim_start();
    }
    found
}

fn unescaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        out.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    out
}

fn value_length(text: &str) -> usize {
    let quoted = text.starts_with('\'');
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(usize::from(quoted)) {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if quoted && character == '\'' {
            return at + 1;
        } else if !quoted && character.is_whitespace() {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_keep_their_tls_options() {
        let url = parse("postgresql://u:p%40ss@h:5433/d?sslmode=verify-full&sslrootcert=%2Fca.pem&connect_timeout=3")
            .expect("read");
        assert_eq!((url.mode, url.root.as_deref()), (Mode::VerifyFull, Some("/ca.pem")));
        assert_eq!(url.config.get_ports(), [5433]);
        let pairs = parse("host=h dbname='my db' password='a\\'b' sslmode = require user=u").expect("read");
        assert_eq!((pairs.mode, pairs.config.get_dbname()), (Mode::Require, Some("my db")));
        assert_eq!(pairs.config.get_password(), Some(&b"a'b"[..]));
        assert!(parse("postgresql://h/d?sslmode=maybe").is_err());
        let error = parse("postgresql://u:s3cret@h:port/d").err().expect("refused");
        assert!(!format!("{error:?}").contains("s3cret"));
    }
}
