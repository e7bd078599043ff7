//! Connecting to MongoDB, and what the driver's errors mean. Messages never show the connection string (I6).

use std::time::Duration;

use bson::doc;
use mongodb::Client;
use mongodb::error::{Error as DriverError, ErrorKind, WriteFailure};
use mongodb::options::{Acknowledgment, ClientOptions, Compressor, Tls, WriteConcern};

use super::tls;
use crate::error::{Error, Result};

/// How long a server may be looked for.
const SELECT: Duration = Duration::from_secs(8);

/// A write concern of majority with a time-out, so that a lost majority is an error and not a wait for ever.
#[must_use]
pub fn majority() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).w_timeout(Duration::from_secs(30)).build()
}

/// A client, and how far its URI wants writes to get.
pub struct Connection {
    pub client: Client,
    pub concern: Option<WriteConcern>,
}

/// Connects and asks the server for an answer.
///
/// # Errors
/// As [`open`].
pub async fn connect(uri: &str) -> Result<Client> {
    open(uri, &[]).await.map(|connection| connection.client)
}

/// Connects, with these compressors instead of those that the URI names, and asks the server for an answer.
///
/// # Errors
/// `Config` for an unusable URI, certificates or refused credentials, `External` when no server answers within eight
/// seconds.
pub async fn open(uri: &str, compressors: &[Compressor]) -> Result<Connection> {
    let (uri, unchecked) = tls::names_unchecked(uri);
    let mut options = ClientOptions::parse(uri).await.map_err(|error| match *error.kind {
        ErrorKind::DnsResolve { .. } => Error::external("mongodb: the host name of the URI does not resolve"),
        // The driver's text may quote parts of the URI.
        _ => Error::config(format!("mongodb: the URI cannot be used{}", named_option(&error)))
            .hint("give mongodb://user:password@host:port/?replicaSet=… ; see the driver's list of options"),
    })?;
    if let (true, Some(Tls::Enabled(with))) = (unchecked, &mut options.tls) {
        with.allow_invalid_hostnames = Some(true);
    }
    tls::check(&options)?;
    options.server_selection_timeout = Some(options.server_selection_timeout.unwrap_or(SELECT).min(SELECT));
    options.connect_timeout = Some(options.connect_timeout.unwrap_or(SELECT).min(SELECT));
    options.app_name.get_or_insert_with(|| "millpond".into());
    let concern = options.write_concern.replace(majority());
    if !compressors.is_empty() {
        options.compressors = Some(compressors.to_vec());
    }
    // Ours, whatever the URI says: a secondary may not have yet what positions say is there, and each read has a concern
    // of its own.
    options.selection_criteria = None;
    options.read_concern = None;
    // All that we write may be written twice and is sent again by ourselves; the server keeps no record of attempts then,
    // which is a tenth of an insert's time.
    options.retry_writes.get_or_insert(false);
    let client = Client::with_options(options.clone()).map_err(|error| told("mongodb: make a client", error))?;
    let answer = client.database("admin").run_command(doc! {"ping": 1}).await;
    if let Err(error) = answer {
        if matches!(*error.kind, ErrorKind::ServerSelection { .. }) {
            tokio::task::spawn_blocking(move || tls::diagnose(&options))
                .await
                .map_err(|error| Error::bug("mongodb: a TLS handshake").because(error))??;
        }
        return Err(told("mongodb: connect", error));
    }
    Ok(Connection { client, concern })
}

/// An option's name from the driver's text, which is safe to show; its value is not.
fn named_option(error: &DriverError) -> String {
    let text = error.to_string();
    let known = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric()) && word.len() > 3;
    text.split_once("option ")
        .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| !word.is_empty()))
        .filter(known)
        .map_or_else(String::new, |word| format!(" (option {word})"))
}

/// The server's code of an error, where there is one.
#[must_use]
pub fn code(error: &DriverError) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => Some(concern.code),
        _ => None,
    }
}

/// An error in one line; the driver's own text adds a dump of the server's whole answer.
fn said(error: &DriverError) -> String {
    match &*error.kind {
        ErrorKind::Command(command) => format!("{} ({}): {}", command.code_name, command.code, command.message),
        ErrorKind::Write(WriteFailure::WriteError(write)) => format!("code {}: {}", write.code, write.message),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => {
            format!("{} ({}): {}", concern.code_name, concern.code, concern.message)
        }
        kind => kind.to_string(),
    }
}

/// What an error of the driver means for the caller.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "map_err hands it over")]
pub fn told(what: impl Into<String>, error: DriverError) -> Error {
    let what = what.into();
    let refused = || {
        Error::config(format!("{what}: the server refused the credentials")).hint("check user, password and authSource")
    };
    let because = || format!("{what}: {}", said(&error));
    match &*error.kind {
        ErrorKind::Authentication { .. } => refused(),
        ErrorKind::InvalidArgument { .. }
        | ErrorKind::InvalidTlsConfig { .. }
        | ErrorKind::IncompatibleServer { .. } => Error::config(because()),
        _ => match code(&error) {
            Some(18) => refused(),
            Some(13) => Error::config(because()).hint("grant the role readWrite on the database"),
            // BSONObjectTooLarge: it will not be smaller the next time.
            Some(10_334) => Error::data(because()),
            _ if error.to_string().contains("SCRAM failure") => refused(),
            _ => Error::external(because()).hint("check that mongod runs and has a primary; a retry goes on"),
        },
    }
}
