//! PostgreSQL connections as libpq makes them: its forms of a DSN, its places for what a DSN leaves open, its `sslmode`.
//!
//! | module | owns |
//! |---|---|
//! | [`dsn`] | the grammar of URI and pairs |
//! | [`options`] | every parameter of libpq, and what becomes of it |
//! | [`places`] | service file, environment, password file |
//! | [`settings`] | hosts, account, times |
//! | [`tls`] | certificates and whom to trust |
//! | [`columns`], [`copy`], [`numeric`] | types, and rows in binary |
//!
//! What is not understood is refused loudly: tokio-postgres alone knows fewer modes than libpq and would go on in the
//! clear. Messages never show the DSN (I6).

pub mod columns;
pub mod copy;
pub mod dsn;
pub mod numeric;
pub mod options;
pub mod places;
pub mod settings;
pub mod tls;

use std::error::Error as _;

use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use self::places::Surroundings;
use self::settings::{Host, Mode, Settings};
use crate::error::{Error, Result};

const CONNECT: &str = "postgres: connect";

/// Connects to the first host that answers and will have us.
///
/// # Errors
/// `Config` for an unusable DSN, refused credentials, or a server that is not the one meant; `External` when none answers
/// in time.
pub async fn connect(text: &str) -> Result<Client> {
    let settings = settings::read(text, &Surroundings::here())?;
    let mut told = Error::config(format!("{CONNECT}: the DSN names no host"));
    for host in &settings.hosts {
        let attempt = async {
            let client = to_host(&settings, host).await?;
            if let Some(condition) = settings.pass_over {
                refuse_read_only(&client, condition).await?;
            }
            Ok(client)
        };
        let ended = tokio::time::timeout(settings.timeout, attempt).await.unwrap_or_else(|_| {
            Err(Error::external(format!("{CONNECT}: no answer")).hint("check host, port and that the server runs"))
        });
        match ended {
            Ok(client) => return Ok(client),
            // A server that answered and refused has decided: the next host is for one that did not.
            Err(error) if !error.retryable() => return Err(error),
            Err(error) => told = error,
        }
    }
    Err(told)
}

/// In which order a host is asked, with TLS and without, by the mode.
async fn to_host(settings: &Settings, host: &Host) -> Result<Client> {
    let mode = if host.is_socket() { Mode::Disable } else { settings.mode };
    match mode {
        Mode::Disable => once(settings, host, SslMode::Disable).await.map_err(|error| told(CONNECT, error)),
        Mode::Require | Mode::VerifyCa | Mode::VerifyFull => {
            encrypted(settings, host, SslMode::Require).await?.map_err(|error| told(CONNECT, error))
        }
        Mode::Prefer => match encrypted(settings, host, SslMode::Prefer).await? {
            // The server takes this role without TLS only. A handshake that failed is no such answer, and stays an error.
            Err(error) if is_unwelcome(&error) => {
                let again = once(settings, host, SslMode::Disable).await;
                again.map_err(|_| told(CONNECT, error))
            }
            other => other.map_err(|error| told(CONNECT, error)),
        },
        Mode::Allow => match once(settings, host, SslMode::Disable).await {
            Err(error) if is_unwelcome(&error) => {
                let again = encrypted(settings, host, SslMode::Require).await?;
                again.map_err(|_| told(CONNECT, error))
            }
            other => other.map_err(|error| told(CONNECT, error)),
        },
    }
}

/// `pg_hba.conf` has no line for this role, host and kind of connection.
fn is_unwelcome(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

type Attempt = std::result::Result<Client, tokio_postgres::Error>;

async fn once(settings: &Settings, host: &Host, mode: SslMode) -> Attempt {
    let (client, connection) = configured(settings, host, mode).connect(NoTls).await?;
    // Ends by itself when the client is dropped; its error reaches whoever waits for an answer.
    tokio::spawn(async move { connection.await.ok() });
    Ok(client)
}

async fn encrypted(settings: &Settings, host: &Host, mode: SslMode) -> Result<Attempt> {
    let connector = settings.tls.connector()?;
    Ok(match configured(settings, host, mode).connect(connector).await {
        Ok((client, connection)) => {
            tokio::spawn(async move { connection.await.ok() });
            Ok(client)
        }
        Err(error) => Err(error),
    })
}

fn configured(settings: &Settings, host: &Host, mode: SslMode) -> tokio_postgres::Config {
    let mut config = settings.config.clone();
    config.host(&host.name).port(host.port).ssl_mode(mode);
    if let Some(address) = host.address {
        config.hostaddr(address);
    }
    if let Some(password) = &host.password {
        config.password(password);
    }
    config
}

async fn refuse_read_only(client: &Client, condition: &str) -> Result<()> {
    let row = client.query_one(&format!("SELECT {condition}"), &[]).await.map_err(|error| told(CONNECT, error))?;
    if row.get(0) {
        return Err(Error::external(format!("{CONNECT}: no host takes writes"))
            .hint("target_session_attrs asks for one that does; a retry after a failover may find it"));
    }
    Ok(())
}

/// What TLS said, where it was TLS that failed; the driver keeps it to itself.
fn tls_failure(what: &str, error: &tokio_postgres::Error) -> Option<Error> {
    let source = error.source()?;
    // The driver's words for a server that answers the question for TLS with no.
    if source.to_string() == "server does not support TLS" {
        return Some(
            Error::config(format!("{CONNECT}: the server does not speak TLS"))
                .hint("turn ssl on there, or ask for less than sslmode=require"),
        );
    }
    let mut next = Some(source);
    while let Some(cause) = next {
        // What the other side says after the handshake comes as an error of the stream.
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls: Option<&openssl::ssl::Error> =
            cause.downcast_ref().or_else(|| inner.and_then(|inner| inner.downcast_ref()));
        if let Some(tls) = tls {
            // A connection that broke has no other reason. Of TLS 1.3 the client is done before its certificate is judged,
            // and what the server says of it may go under.
            let reason = tls.ssl_error().and_then(|stack| stack.errors().first()?.reason());
            let reason = reason.filter(|reason| *reason != "unexpected eof while reading");
            let Some(reason) = reason else {
                return Some(Error::external(format!("{what}: the TLS connection broke ({source})")).hint(
                    "check that the server runs and the network, and in its log whether it refused sslcert; a retry goes on",
                ));
            };
            let text = source.to_string();
            let detail =
                text.rsplit(": ").next().filter(|detail| !detail.contains(':') && !detail.contains("routines"));
            let detail = detail.map_or_else(String::new, |detail| format!(" ({detail})"));
            return Some(
                Error::config(format!("{CONNECT}: TLS: {reason}{detail}"))
                    .hint("check sslrootcert, sslcrl, sslcert, and that host is a name in the server's certificate"),
            );
        }
        next = cause.source();
    }
    None
}

/// What an error of the server or the connection means for the caller.
#[must_use]
pub fn told(what: impl Into<String>, error: tokio_postgres::Error) -> Error {
    let what = what.into();
    let Some(code) = error.code().cloned() else {
        if let Some(error) = tls_failure(&what, &error) {
            return error;
        }
        if error.source().is_some_and(|source| source.to_string() == "password missing") {
            return Error::config(format!("{what}: the server asks for a password"))
                .hint("give one in the DSN, in PGPASSWORD, or in ~/.pgpass");
        }
        return Error::external(what)
            .hint("check that the server runs and the network; a retry goes on")
            .because(error);
    };
    let message = error.as_db_error().map_or_else(String::new, |db| db.message().to_owned());
    let what = format!("{what}: {message} ({})", code.code());
    if code == SqlState::INVALID_PASSWORD || code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        return Error::config(what).hint("check user and password");
    }
    if code == SqlState::INVALID_CATALOG_NAME {
        return Error::config(what).hint("create the database, or name another");
    }
    if code == SqlState::INSUFFICIENT_PRIVILEGE {
        return Error::config(what)
            .hint("GRANT CREATE, USAGE ON SCHEMA, and INSERT, DELETE, SELECT ON the tables, to this role");
    }
    // A limit of the server's, as the size of an index's row: another try meets it again.
    if code.code().starts_with("54") {
        return Error::data(what).hint("does the table have an index of its own that cannot hold such keys?");
    }
    // Data exceptions and violated constraints: the same rows would be refused again.
    if code.code().starts_with("22") || code.code().starts_with("23") {
        return Error::data(what).hint("does the table have a constraint of its own?");
    }
    if code.code().starts_with("42") || code.code().starts_with("3F") || code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return Error::config(what);
    }
    Error::external(what)
}
