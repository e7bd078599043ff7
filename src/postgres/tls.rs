//! TLS as libpq makes it: by `sslmode`, with the certificates named or those in `~/.postgresql`. A file that was named and
//! cannot be used is an error, and so is a server that is not the one meant: never a downgrade.
//! <https://www.postgresql.org/docs/16/libpq-ssl.html>

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode, SslVersion};
use openssl::x509::store::{X509Lookup, X509StoreBuilder};
use openssl::x509::verify::X509VerifyFlags;
use postgres_openssl::MakeTlsConnector;

use super::places::{Found, Surroundings};
use super::settings::Mode;
use crate::error::{Error, Result};

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Roots {
    /// Nobody is asked.
    None,
    File(PathBuf),
    System,
}

/// What TLS is made with. No `Debug`: it may hold a key's password.
#[derive(Clone)]
pub struct Tls {
    roots: Roots,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    password: Option<String>,
    revoked: Option<PathBuf>,
    revoked_directory: Option<PathBuf>,
    versions: [Option<SslVersion>; 2],
    /// Whether the host's name is told to the server, and asked of its certificate.
    names: bool,
    full: bool,
}

/// OpenSSL's own text is a dump of its internals; it may quote what it read.
fn broken<E>(what: &str, hint: &str) -> impl FnOnce(E) -> Error {
    let error = Error::config(format!("postgres: {what}")).hint(hint);
    move |_| error
}

impl Tls {
    /// Reads the parameters that begin with `ssl`.
    ///
    /// # Errors
    /// `Config` naming one that cannot be honoured, or a file that is missing.
    pub fn read(found: &Found, around: &Surroundings) -> Result<(Mode, Self)> {
        let system = found.get("sslrootcert") == Some("system");
        let mode = match found.get("sslmode") {
            None if system => Mode::VerifyFull,
            None | Some("prefer") => Mode::Prefer,
            Some("disable") => Mode::Disable,
            Some("allow") => Mode::Allow,
            Some("require") => Mode::Require,
            Some("verify-ca") => Mode::VerifyCa,
            Some("verify-full") => Mode::VerifyFull,
            Some(_) => {
                return Err(found.unreadable("sslmode", "disable, allow, prefer, require, verify-ca or verify-full"));
            }
        };
        if system && mode != Mode::VerifyFull {
            return Err(Error::config("postgres: sslrootcert=system goes with sslmode=verify-full only")
                .hint("anybody can have a certificate that the system trusts: the name has to be checked"));
        }
        let default =
            |name: &str| around.at_home(".postgresql").map(|home| home.join(name)).filter(|path| path.exists());
        let named = |name: &str| -> Result<Option<PathBuf>> {
            match found.get(name).map(PathBuf::from) {
                Some(path) if mode != Mode::Disable && !path.exists() => {
                    Err(Error::config(format!("postgres: {name}: there is no {}", path.display()))
                        .hint("check the path"))
                }
                other => Ok(other),
            }
        };
        let roots = if system { None } else { named("sslrootcert")?.or_else(|| default("root.crt")) };
        let roots = match roots {
            _ if system => Roots::System,
            Some(path) => Roots::File(path),
            None if matches!(mode, Mode::VerifyCa | Mode::VerifyFull) => {
                return Err(Error::config("postgres: nobody is trusted to vouch for the server: no sslrootcert")
                    .hint("sslrootcert=<file>, ~/.postgresql/root.crt, or sslrootcert=system"));
            }
            None => Roots::None,
        };
        let shown = found.get("sslcertmode") != Some("disable");
        let certificate = named("sslcert")?.or_else(|| default("postgresql.crt")).filter(|_| shown);
        let key = named("sslkey")?.or_else(|| default("postgresql.key")).filter(|_| certificate.is_some());
        if mode != Mode::Disable && certificate.is_some() && key.is_none() {
            return Err(Error::config("postgres: sslcert has no sslkey").hint("give sslkey=<file>"));
        }
        let version = |name: &str, default| match found.get(name).map(str::to_lowercase).as_deref() {
            None => Ok(default),
            Some("tlsv1") => Ok(Some(SslVersion::TLS1)),
            Some("tlsv1.1") => Ok(Some(SslVersion::TLS1_1)),
            Some("tlsv1.2") => Ok(Some(SslVersion::TLS1_2)),
            Some("tlsv1.3") => Ok(Some(SslVersion::TLS1_3)),
            Some(_) => Err(found.unreadable(name, "TLSv1.2 or TLSv1.3")),
        };
        let tls = Self {
            roots,
            certificate,
            key,
            password: found.get("sslpassword").map(str::to_owned),
            revoked: named("sslcrl")?.or_else(|| default("root.crl")),
            revoked_directory: named("sslcrldir")?,
            versions: [
                version("ssl_min_protocol_version", Some(SslVersion::TLS1_2))?,
                version("ssl_max_protocol_version", None)?,
            ],
            names: found.number("sslsni")? != Some(0),
            full: mode == Mode::VerifyFull,
        };
        Ok((mode, tls))
    }

    /// What makes connections.
    ///
    /// # Errors
    /// `Config` for a file that cannot be read, or is not PEM.
    pub fn connector(&self) -> Result<MakeTlsConnector> {
        const PEM: &str = "check that the file is PEM, and who may read it";
        let mut builder =
            SslConnector::builder(SslMethod::tls_client()).map_err(broken("TLS cannot be set up", "report it"))?;
        // A store of its own: the connector's would trust whom SSL_CERT_FILE names as well.
        let mut store = X509StoreBuilder::new().map_err(broken("TLS cannot be set up", "report it"))?;
        let mut files = Vec::new();
        match &self.roots {
            Roots::None => {}
            Roots::File(path) => files.push(path.clone()),
            Roots::System => {
                let found = openssl_probe::probe();
                files.extend(found.cert_file);
                for directory in found.cert_dir {
                    look_up(&mut store, &directory, "sslrootcert=system cannot be read")?;
                }
            }
        }
        for file in files {
            let lookup = store.add_lookup(X509Lookup::file()).map_err(broken("sslrootcert cannot be read", PEM))?;
            let read = lookup.load_cert_file(&file, SslFiletype::PEM);
            read.map_err(broken("sslrootcert cannot be read", PEM))?;
        }
        if let Some(file) = &self.revoked {
            let lookup = store.add_lookup(X509Lookup::file()).map_err(broken("sslcrl cannot be read", PEM))?;
            lookup.load_crl_file(file, SslFiletype::PEM).map_err(broken("sslcrl cannot be read", PEM))?;
        }
        if let Some(directory) = &self.revoked_directory {
            look_up(&mut store, directory, "sslcrldir cannot be read")?;
        }
        if self.revoked.is_some() || self.revoked_directory.is_some() {
            let flags = X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL;
            store.set_flags(flags).map_err(broken("sslcrl cannot be used", PEM))?;
        }
        builder.set_cert_store(store.build());
        let verify = if self.roots == Roots::None { SslVerifyMode::NONE } else { SslVerifyMode::PEER };
        builder.set_verify(verify);
        if let Some((certificate, key)) = self.certificate.as_ref().zip(self.key.as_ref()) {
            builder.set_certificate_chain_file(certificate).map_err(broken("sslcert cannot be read", PEM))?;
            let key = self.private_key(key)?;
            builder.set_private_key(&key).map_err(broken("sslkey is not that of sslcert", "give the pair"))?;
        }
        let bad = "ssl_min_protocol_version and ssl_max_protocol_version cannot be used";
        let [least, most] = self.versions;
        builder.set_min_proto_version(least).map_err(broken(bad, "TLSv1.2 or TLSv1.3"))?;
        builder.set_max_proto_version(most).map_err(broken(bad, "TLSv1.2 or TLSv1.3"))?;
        let mut connector = MakeTlsConnector::new(builder.build());
        let (names, full) = (self.names, self.full);
        connector.set_callback(move |session, _| {
            session.set_verify_hostname(full);
            session.set_use_server_name_indication(names);
            Ok(())
        });
        Ok(connector)
    }

    fn private_key(&self, path: &Path) -> Result<PKey<openssl::pkey::Private>> {
        let what = "sslkey cannot be read";
        let status = std::fs::metadata(path).map_err(broken(what, "check the path"))?;
        // As libpq: what belongs to root may be read by a group.
        let others = if status.uid() == 0 { 0o037 } else { 0o077 };
        if !status.is_file() || status.mode() & others != 0 {
            return Err(Error::config(format!(
                "postgres: sslkey: others may read {}, or it is no file",
                path.display()
            ))
            .hint(format!("chmod 0600 {}", path.display())));
        }
        let text = std::fs::read(path).map_err(broken(what, "check who may read it"))?;
        // With a password of its own, always: OpenSSL would ask the terminal for one.
        let password = self.password.as_deref().unwrap_or_default().as_bytes();
        let hint = "check that it is PEM; an encrypted one needs sslpassword";
        PKey::private_key_from_pem_passphrase(&text, password).map_err(broken(what, hint))
    }
}

fn look_up(store: &mut X509StoreBuilder, directory: &Path, what: &str) -> Result<()> {
    let hint = "a directory that `openssl rehash` has made ready";
    let path = directory.to_str().ok_or_else(|| Error::config(format!("postgres: {what}")).hint(hint))?;
    let lookup = store.add_lookup(X509Lookup::hash_dir()).map_err(broken(what, hint))?;
    lookup.add_dir(path, SslFiletype::PEM).map_err(broken(what, hint))
}
