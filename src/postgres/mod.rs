//! PostgreSQL connections: libpq's URL and key=value forms, TLS by `sslmode` with certificates, never a downgrade.
//!
//! What is not understood is refused loudly: tokio-postgres alone knows fewer modes than libpq and would go on in the
//! clear. Messages never show the DSN (I6).

pub mod columns;
pub mod copy;
pub mod dsn;
pub mod numeric;

use std::time::Duration;

use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use postgres_openssl::MakeTlsConnector;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};

use self::dsn::{Dsn, Mode};
use crate::error::{Error, Result};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(8);

/// Connects.
///
/// # Errors
/// `Config` for an unusable DSN or refused credentials, `External` when the server does not answer within 8 seconds.
pub async fn connect(text: &str) -> Result<Client> {
    let dsn = dsn::parse(text)?;
    let mut config: Config = dsn.config.clone();
    if config.get_connect_timeout().is_none_or(|time| *time > CONNECT) {
        config.connect_timeout(CONNECT);
    }
    if config.get_application_name().is_none() {
        config.application_name("millpond");
    }
    let attempt = async {
        let (client, connection) =
            config.connect(tls(&dsn)?).await.map_err(|error| told("postgres: connect", error))?;
        // Ends by itself when the client is dropped; its error reaches whoever waits for an answer.
        tokio::spawn(async move { connection.await.ok() });
        Ok(client)
    };
    tokio::time::timeout(CONNECT, attempt).await.map_err(|_| {
        Error::external("postgres: connect: no answer").hint("check host, port and that the server runs")
    })?
}

fn tls(dsn: &Dsn) -> Result<MakeTlsConnector> {
    // OpenSSL's own text is a dump of its internals.
    let broken = |what: &'static str| {
        move |_: openssl::error::ErrorStack| {
            Error::config(format!("postgres: {what}")).hint("check the path, and that the file is PEM")
        }
    };
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(broken("TLS"))?;
    let verify = matches!(dsn.mode, Mode::VerifyCa | Mode::VerifyFull) || dsn.root.is_some();
    if let Some(root) = &dsn.root {
        builder.set_ca_file(root).map_err(broken("sslrootcert cannot be read"))?;
    } else if verify {
        // SAFETY is openssl-probe's: it only reads the environment here.
        let found = openssl_probe::probe();
        if let Some(file) = found.cert_file {
            builder.set_ca_file(file).map_err(broken("the system's certificates cannot be read"))?;
        }
    }
    if let Some(certificate) = &dsn.certificate {
        builder.set_certificate_chain_file(certificate).map_err(broken("sslcert cannot be read"))?;
    }
    if let Some(key) = &dsn.key {
        builder.set_private_key_file(key, SslFiletype::PEM).map_err(broken("sslkey cannot be read"))?;
    }
    builder.set_verify(if verify { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
    let mut connector = MakeTlsConnector::new(builder.build());
    let full = dsn.mode == Mode::VerifyFull;
    connector.set_callback(move |session, _| {
        session.set_verify_hostname(full);
        Ok(())
    });
    Ok(connector)
}

/// What an error of the server or the connection means for the caller.
#[must_use]
pub fn told(what: impl Into<String>, error: tokio_postgres::Error) -> Error {
    let what = what.into();
    let Some(code) = error.code().cloned() else {
        if error.to_string().contains("password missing") {
            return Error::config(format!("{what}: the server asks for a password")).hint("give one in the DSN");
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
    // Data exceptions and violated constraints: the same rows would be refused again.
    if code.code().starts_with("22") || code.code().starts_with("23") {
        return Error::data(what).hint("does the table have a constraint of its own?");
    }
    if code.code().starts_with("42") || code.code().starts_with("3F") || code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return Error::config(what);
    }
    Error::external(what)
}
