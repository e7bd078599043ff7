//! TLS, looked at twice: files and the own certificate before any connection, and, once a handshake of librdkafka failed,
//! one handshake of ours, whose outcome comes as codes and not as text. It speaks no Kafka and sends no credentials but
//! the client certificate.

use std::net::{IpAddr, TcpStream};

use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslMethod, SslRef, SslVerifyMode};
use openssl::x509::X509;

use super::properties::Properties;
use crate::error::{Error, Result};
use crate::handshake::{self, Alert, Fault, Outcome};

/// What this client shows of itself.
struct Identity {
    /// The property that names the certificate.
    property: &'static str,
    certificate: X509,
    chain: Vec<X509>,
    key: PKey<Private>,
}

fn wrong(side: &str, property: &str, what: &str, hint: &str) -> Error {
    Error::config(format!("{side}: {property}: {what}")).hint(hint)
}

fn file(properties: &Properties, property: &'static str, side: &str) -> Result<Option<Vec<u8>>> {
    let Some(path) = properties.get(property) else { return Ok(None) };
    std::fs::read(path).map(Some).map_err(|error| {
        wrong(side, property, &format!("the file cannot be read ({})", error.kind()), "check its path")
    })
}

/// Checks files, the own certificate's time and its key, without any connection.
///
/// # Errors
/// `Config` naming the property.
pub fn check(properties: &Properties, side: &str) -> Result<()> {
    if properties.get("ssl.ca.location").is_some_and(|path| path != "probe") {
        let path = &properties["ssl.ca.location"];
        if !std::path::Path::new(path).is_dir() {
            let pem = file(properties, "ssl.ca.location", side)?.unwrap_or_default();
            if X509::stack_from_pem(&pem).map_or(true, |found| found.is_empty()) {
                return Err(wrong(side, "ssl.ca.location", "holds no certificate", "give the CA's certificate as PEM"));
            }
        }
    }
    let Some(own) = identity(properties, side)? else { return Ok(()) };
    if let Some((told, hint)) = handshake::out_of_time(&own.certificate) {
        return Err(wrong(side, own.property, &told, hint));
    }
    let mine = own.certificate.public_key().is_ok_and(|public| public.public_eq(&own.key));
    if mine {
        Ok(())
    } else {
        Err(wrong(side, own.property, "the private key is another one's", "give the pair's key"))
    }
}

fn identity(properties: &Properties, side: &str) -> Result<Option<Identity>> {
    if let Some(der) = file(properties, "ssl.keystore.location", side)? {
        let password = properties.get("ssl.keystore.password").map_or("", String::as_str);
        let opened = Pkcs12::from_der(&der).and_then(|store| store.parse2(&password.replace('\0', "")));
        let store = opened.map_err(|_| {
            wrong(side, "ssl.keystore.location", "no PKCS#12 store, or another password", "check ssl.keystore.password")
        })?;
        let (Some(certificate), Some(key)) = (store.cert, store.pkey) else {
            return Err(wrong(side, "ssl.keystore.location", "holds no certificate and key", "check the store"));
        };
        let chain = store.ca.map(|stack| stack.into_iter().collect()).unwrap_or_default();
        return Ok(Some(Identity { property: "ssl.keystore.location", certificate, chain, key }));
    }
    let pem = |file_of: &'static str, text_of: &'static str| -> Result<Option<(&'static str, Vec<u8>)>> {
        let text = properties.get(text_of).map(|text| (text_of, text.clone().into_bytes()));
        Ok(file(properties, file_of, side)?.map(|bytes| (file_of, bytes)).or(text))
    };
    let certificate = pem("ssl.certificate.location", "ssl.certificate.pem")?;
    let key = pem("ssl.key.location", "ssl.key.pem")?;
    let ((property, certificate), (key_property, key)) = match (certificate, key) {
        (None, None) => return Ok(None),
        (Some((property, _)), None) => {
            return Err(wrong(side, property, "the certificate has no key", "give ssl.key.location as well"));
        }
        (None, Some((property, _))) => {
            return Err(wrong(side, property, "the key has no certificate", "give ssl.certificate.location as well"));
        }
        (Some(certificate), Some(key)) => (certificate, key),
    };
    let mut chain = X509::stack_from_pem(&certificate)
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| wrong(side, property, "holds no certificate", "give it as PEM"))?;
    let password = properties.get("ssl.key.password").map_or("", String::as_str);
    let key = PKey::private_key_from_pem_passphrase(&key, password.as_bytes())
        .map_err(|_| wrong(side, key_property, "no PEM key, or another password", "check ssl.key.password"))?;
    let certificate = chain.remove(0);
    Ok(Some(Identity { property, certificate, chain, key }))
}

/// After a failed connection: why TLS fails with the first server that can be reached, or `None` when it does not.
///
/// # Errors
/// `Config` saying what is wrong with whose certificate.
pub fn diagnose(properties: &Properties, side: &str) -> Result<()> {
    let Some((server, stream)) = properties.servers().split(',').find_map(reach) else { return Ok(()) };
    let Ok(context) = context(properties, side) else { return Ok(()) };
    let Ok(mut ssl) = Ssl::new(&context) else { return Ok(()) };
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host).trim_matches(['[', ']']);
    let checks_name = super::security::unchecked(properties).is_none();
    let named = match host.parse::<IpAddr>() {
        Ok(ip) if checks_name => ssl.param_mut().set_ip(ip),
        Ok(_) => Ok(()),
        Err(_) if checks_name => ssl.set_hostname(host).and_then(|()| ssl.param_mut().set_host(host)),
        Err(_) => ssl.set_hostname(host),
    };
    if named.is_err() {
        return Ok(());
    }
    let outcome = handshake::attempt(ssl, stream);
    match &outcome {
        Outcome::Made(after) => judge_alert(after, server, side),
        Outcome::Broken(broken, reasons) => {
            judge(broken.ssl(), server, side)?;
            judge_alert(reasons, server, side)
        }
        Outcome::HungUp | Outcome::Unknown => Ok(()),
    }
}

fn reach(server: &str) -> Option<(&str, TcpStream)> {
    // librdkafka takes a protocol before the name.
    let server = server.trim().rsplit("://").next()?;
    Some((server, handshake::reach(server)?))
}

fn context(properties: &Properties, side: &str) -> Result<SslContext> {
    let bug = |error: openssl::error::ErrorStack| Error::bug("kafka: a TLS context").because(error);
    let mut builder: SslContextBuilder = SslContext::builder(SslMethod::tls_client()).map_err(bug)?;
    let unchecked = super::security::unchecked(properties) == Some("enable.ssl.certificate.verification");
    builder.set_verify(if unchecked { SslVerifyMode::NONE } else { SslVerifyMode::PEER });
    let authorities = match (properties.get("ssl.ca.location"), properties.get("ssl.ca.pem")) {
        (Some(path), _) if path != "probe" => std::fs::read(path).ok(),
        (_, Some(text)) => Some(text.clone().into_bytes()),
        _ => openssl_probe::probe().cert_file.and_then(|path| std::fs::read(path).ok()),
    };
    for authority in X509::stack_from_pem(&authorities.unwrap_or_default()).unwrap_or_default() {
        builder.cert_store_mut().add_cert(authority).map_err(bug)?;
    }
    if let Some(own) = identity(properties, side)? {
        builder.set_certificate(&own.certificate).map_err(bug)?;
        builder.set_private_key(&own.key).map_err(bug)?;
        for link in own.chain {
            builder.add_extra_chain_cert(link).map_err(bug)?;
        }
    }
    Ok(builder.build())
}

/// What we refused in the server's certificate.
fn judge(ssl: &SslRef, server: &str, side: &str) -> Result<()> {
    let Some(fault) = handshake::fault(ssl) else { return Ok(()) };
    let hint = match fault.kind {
        Fault::OtherName => "connect by a name in it; ssl.endpoint.identification.algorithm=none would check no name",
        Fault::NotYet => "is this machine's clock right?",
        Fault::Expired => "have a new one installed on the broker",
        Fault::UnknownAuthority => "give that authority's PEM file as ssl.ca.location",
        Fault::Other => "check ssl.ca.location and the broker's certificate",
    };
    Err(Error::config(format!("{side}: {server}: the broker's certificate {}", fault.told)).hint(hint))
}

/// What the server said, or that it speaks no TLS.
fn judge_alert(reasons: &[i32], server: &str, side: &str) -> Result<()> {
    let Some(alert) = handshake::alert(reasons) else { return Ok(()) };
    let hint = match alert {
        Alert::WantsCertificate => "give ssl.certificate.location and ssl.key.location",
        Alert::CertificateExpired => "have a new one issued",
        Alert::CertificateRefused => {
            "give one that an authority of the broker signed (ssl.certificate.location, ssl.key.location)"
        }
        Alert::Refused => {
            "does it ask for a client certificate? else check ssl.cipher.suites and the versions of TLS on both sides"
        }
        Alert::NoTls => "check the port and security.protocol",
    };
    Err(Error::config(format!("{side}: {server} {}", alert.told())).hint(hint))
}
