//! TLS of a MongoDB connection, looked at twice: the files that the URI names before any connection, and, once the driver
//! found no server, one handshake of ours that says why. The driver's own text is a dump.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use mongodb::options::{ClientOptions, ServerAddress, Tls, TlsOptions};
use openssl::pkey::PKey;
use openssl::ssl::{Ssl, SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use openssl::x509::X509;

use crate::error::{Error, Result};
use crate::handshake::{self, Alert, Fault, Outcome};

fn wrong(option: &str, what: &str, hint: &str) -> Error {
    Error::config(format!("mongodb: {option}: {what}")).hint(hint)
}

fn file(option: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| wrong(option, &format!("the file cannot be read ({})", error.kind()), "check its path"))
}

const fn options(client: &ClientOptions) -> Option<&TlsOptions> {
    match &client.tls {
        Some(Tls::Enabled(options)) => Some(options),
        _ => None,
    }
}

/// The URI without `tlsAllowInvalidHostnames`, which the driver's reader does not know, and whether it was true there.
#[must_use]
pub fn names_unchecked(uri: &str) -> (String, bool) {
    let Some((place, query)) = uri.split_once('?') else { return (uri.to_owned(), false) };
    let (mut unchecked, mut kept) = (false, Vec::new());
    for option in query.split('&') {
        match option.split_once('=') {
            Some((name, value)) if name.eq_ignore_ascii_case("tlsAllowInvalidHostnames") => {
                unchecked = value.eq_ignore_ascii_case("true");
            }
            _ => kept.push(option),
        }
    }
    (format!("{place}?{}", kept.join("&")), unchecked)
}

/// Checks the files, and the own certificate's time and key, without any connection.
///
/// # Errors
/// `Config` naming the option.
pub fn check(client: &ClientOptions) -> Result<()> {
    let Some(options) = options(client) else { return Ok(()) };
    if let Some(path) = &options.ca_file_path {
        let found = X509::stack_from_pem(&file("tlsCAFile", path)?);
        if found.map_or(true, |found| found.is_empty()) {
            return Err(wrong("tlsCAFile", "holds no certificate", "give the authority's certificate as PEM"));
        }
    }
    if let Some(path) = &options.cert_key_file_path {
        let option = "tlsCertificateKeyFile";
        let pem = file(option, path)?;
        let certificate = X509::from_pem(&pem)
            .map_err(|_| wrong(option, "holds no certificate", "give certificate and key in one PEM file"))?;
        // With a password of its own, always: OpenSSL would ask the terminal for one.
        let key = PKey::private_key_from_pem_passphrase(&pem, b"").map_err(|_| {
            wrong(option, "holds no private key without a password", "give certificate and key in one PEM file")
        })?;
        if let Some((told, hint)) = handshake::out_of_time(&certificate) {
            return Err(wrong(option, &told, hint));
        }
        if !certificate.public_key().is_ok_and(|public| public.public_eq(&key)) {
            return Err(wrong(option, "the private key is another one's", "give the pair's key"));
        }
    }
    Ok(())
}

/// After the driver found no server: why TLS fails with the first one that can be reached.
///
/// # Errors
/// `Config` saying what is wrong with whose certificate.
pub fn diagnose(client: &ClientOptions) -> Result<()> {
    let Some(options) = options(client) else { return Ok(()) };
    let places = client.hosts.iter().filter_map(|address| match address {
        ServerAddress::Tcp { host, port } => Some((host.clone(), format!("{host}:{}", port.unwrap_or(27_017)))),
        _ => None,
    });
    let Some((host, server, stream)) =
        places.into_iter().find_map(|(host, server)| handshake::reach(&server).map(|stream| (host, server, stream)))
    else {
        return Ok(());
    };
    let Some(ssl) = session(options, &host) else { return Ok(()) };
    let outcome = handshake::attempt(ssl, stream);
    if let Outcome::Broken(broken, _) = &outcome
        && let Some(fault) = handshake::fault(broken.ssl())
    {
        let hint = match fault.kind {
            Fault::OtherName => "connect by a name in it; tlsAllowInvalidHostnames=true would check no name",
            Fault::NotYet => "is this machine's clock right?",
            Fault::Expired => "have a new one installed on the server",
            Fault::UnknownAuthority => "give that authority's PEM file as tlsCAFile",
            Fault::Other => "check tlsCAFile and the server's certificate",
        };
        return Err(Error::config(format!("mongodb: {server}: the server's certificate {}", fault.told)).hint(hint));
    }
    if matches!(outcome, Outcome::HungUp) {
        let (what, hint) = if options.cert_key_file_path.is_some() {
            ("the client certificate was not accepted", "give one that an authority of the server signed")
        } else {
            ("no client certificate was shown", "does the server ask for one? give tlsCertificateKeyFile")
        };
        return Err(Error::config(format!("mongodb: {server} hangs up after the TLS handshake: {what}")).hint(hint));
    }
    let (Outcome::Broken(_, reasons) | Outcome::Made(reasons)) = &outcome else { return Ok(()) };
    let Some(alert) = handshake::alert(reasons) else { return Ok(()) };
    let hint = match alert {
        Alert::WantsCertificate => "give tlsCertificateKeyFile",
        Alert::CertificateExpired => "have a new one issued",
        Alert::CertificateRefused => "give one that an authority of the server signed (tlsCertificateKeyFile)",
        Alert::Refused => "does it ask for a client certificate? else check the versions of TLS on both sides",
        Alert::NoTls => "check the port, and tls= in the URI",
    };
    Err(Error::config(format!("mongodb: {server} {}", alert.told())).hint(hint))
}

fn session(options: &TlsOptions, host: &str) -> Option<Ssl> {
    // As the driver makes it.
    let mut builder = SslConnector::builder(SslMethod::tls_client()).ok()?;
    let probe = openssl_probe::probe();
    builder.load_verify_locations(probe.cert_file.as_deref(), probe.cert_dir.first().map(PathBuf::as_path)).ok();
    if options.allow_invalid_certificates == Some(true) {
        builder.set_verify(SslVerifyMode::NONE);
    }
    if let Some(path) = &options.ca_file_path {
        builder.set_ca_file(path).ok()?;
    }
    if let Some(path) = &options.cert_key_file_path {
        builder.set_certificate_file(path, SslFiletype::PEM).ok()?;
        builder.set_private_key_file(path, SslFiletype::PEM).ok()?;
    }
    let named = options.allow_invalid_hostnames != Some(true);
    let name = host.trim_matches(['[', ']']);
    let sni = name.parse::<IpAddr>().is_err();
    builder.build().configure().ok()?.use_server_name_indication(sni).verify_hostname(named).into_ssl(name).ok()
}

#[cfg(test)]
mod tests {
    use super::names_unchecked;

    #[test]
    fn one_option_is_taken_out_of_a_uri() {
        let read = |uri| names_unchecked(uri);
        assert_eq!(read("mongodb://h/"), ("mongodb://h/".into(), false));
        assert_eq!(read("mongodb://h/?tls=true"), ("mongodb://h/?tls=true".into(), false));
        let uri = "mongodb://h/d?tls=true&tlsallowinvalidHostnames=true&w=1";
        assert_eq!(read(uri), ("mongodb://h/d?tls=true&w=1".into(), true));
        assert_eq!(read("mongodb://h/?tlsAllowInvalidHostnames=false"), ("mongodb://h/?".into(), false));
    }
}
