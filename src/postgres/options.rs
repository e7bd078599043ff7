//! The connection parameters of libpq, as data: their names, their environment variables, and what becomes of each here.
//! <https://www.postgresql.org/docs/16/libpq-connect.html#LIBPQ-PARAMKEYWORDS>

/// What becomes of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Does what libpq's does.
    Honoured,
    /// Only these values, which ask for nothing; anything else is refused.
    Only(&'static [&'static str]),
    /// Refused, and why.
    Refused(&'static str),
}

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    pub name: &'static str,
    /// Empty: none.
    pub variable: &'static str,
    pub fate: Fate,
}

const fn parameter(name: &'static str, variable: &'static str, fate: Fate) -> Parameter {
    Parameter { name, variable, fate }
}

use Fate::{Honoured, Only, Refused};

const GSS: Fate = Refused("there is no Kerberos here: use a password or a certificate");
const OAUTH: Fate = Refused("logins by OAuth are not supported: use a password or a certificate");
const NO: &[&str] = &["0", "false", "off", "no"];

/// All that libpq knows.
pub const PARAMETERS: &[Parameter] = &[
    parameter("host", "PGHOST", Honoured),
    parameter("hostaddr", "PGHOSTADDR", Honoured),
    parameter("port", "PGPORT", Honoured),
    parameter("dbname", "PGDATABASE", Honoured),
    parameter("user", "PGUSER", Honoured),
    parameter("password", "PGPASSWORD", Honoured),
    parameter("passfile", "PGPASSFILE", Honoured),
    parameter("service", "PGSERVICE", Honoured),
    parameter("servicefile", "PGSERVICEFILE", Honoured),
    parameter("options", "PGOPTIONS", Honoured),
    parameter("application_name", "PGAPPNAME", Honoured),
    parameter("fallback_application_name", "", Honoured),
    parameter("connect_timeout", "PGCONNECT_TIMEOUT", Honoured),
    parameter("tcp_user_timeout", "", Honoured),
    parameter("keepalives", "", Honoured),
    parameter("keepalives_idle", "", Honoured),
    parameter("keepalives_interval", "", Honoured),
    parameter("keepalives_count", "", Honoured),
    parameter("target_session_attrs", "PGTARGETSESSIONATTRS", Honoured),
    parameter("load_balance_hosts", "PGLOADBALANCEHOSTS", Honoured),
    parameter("channel_binding", "PGCHANNELBINDING", Honoured),
    parameter("sslmode", "PGSSLMODE", Honoured),
    parameter("requiressl", "PGREQUIRESSL", Honoured),
    parameter("sslrootcert", "PGSSLROOTCERT", Honoured),
    parameter("sslcert", "PGSSLCERT", Honoured),
    parameter("sslkey", "PGSSLKEY", Honoured),
    parameter("sslpassword", "", Honoured),
    parameter("sslcertmode", "PGSSLCERTMODE", Only(&["allow", "disable"])),
    parameter("sslcrl", "PGSSLCRL", Honoured),
    parameter("sslcrldir", "PGSSLCRLDIR", Honoured),
    parameter("sslsni", "PGSSLSNI", Honoured),
    parameter("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Honoured),
    parameter("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Honoured),
    parameter("sslnegotiation", "PGSSLNEGOTIATION", Only(&["postgres"])),
    parameter("sslcompression", "PGSSLCOMPRESSION", Only(NO)),
    parameter("sslkeylogfile", "", Refused("it writes a connection's secrets to a file")),
    parameter("client_encoding", "PGCLIENTENCODING", Only(&["utf8", "utf-8", "unicode", "auto"])),
    parameter("replication", "", Only(NO)),
    parameter("min_protocol_version", "PGMINPROTOCOLVERSION", Only(&["3.0"])),
    parameter("max_protocol_version", "PGMAXPROTOCOLVERSION", Only(&["3.0", "latest"])),
    parameter(
        "require_auth",
        "PGREQUIREAUTH",
        Refused("how the server asks cannot be held to a list; use verify-full"),
    ),
    parameter("requirepeer", "PGREQUIREPEER", Refused("the owner of a socket is not looked at; use TLS")),
    parameter("gssencmode", "PGGSSENCMODE", Only(&["disable", "prefer"])),
    parameter("gssdelegation", "PGGSSDELEGATION", Only(NO)),
    parameter("krbsrvname", "PGKRBSRVNAME", GSS),
    parameter("gsslib", "PGGSSLIB", GSS),
    parameter("scram_client_key", "", Refused("give the password itself")),
    parameter("scram_server_key", "", Refused("give the password itself")),
    parameter("oauth_issuer", "", OAUTH),
    parameter("oauth_client_id", "", OAUTH),
    parameter("oauth_client_secret", "", OAUTH),
    parameter("oauth_scope", "", OAUTH),
];

/// The parameter of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}
