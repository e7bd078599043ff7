//! One TLS handshake of ours, after a client library failed in its own: what went wrong comes as codes and not as text.
//! It sends no credentials but the client certificate. [`crate::kafka::tls`] and [`crate::mongo::tls`] say what it means in
//! the words of their settings.

use std::io::{ErrorKind, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::ssl::{HandshakeError, MidHandshakeSslStream, Ssl, SslRef};
use openssl::x509::X509;

/// How long one server may take for each step.
const STEP: Duration = Duration::from_secs(2);
/// A server that refuses a client certificate says so after a TLS 1.3 handshake, in its first answer.
const AFTER: Duration = Duration::from_millis(700);
/// Alerts come as reason codes from here on.
const ALERT: i32 = 1_000;
/// The peer speaks something else (`SSL_R_WRONG_VERSION_NUMBER`, `SSL_R_PACKET_LENGTH_TOO_LONG`, and records of no kind).
const NO_TLS: [i32; 4] = [267, 198, 443, 110];

/// What became of the handshake.
pub enum Outcome {
    /// It was made; the codes are those of the server's first words after it.
    Made(Vec<i32>),
    /// It was made, and then the server hung up without a word.
    HungUp,
    /// It was not, for what this end judged or for what the server's codes say.
    Broken(Box<MidHandshakeSslStream<TcpStream>>, Vec<i32>),
    Unknown,
}

/// What is wrong with a server's certificate.
pub struct Judged {
    pub kind: Fault,
    /// Behind "the certificate".
    pub told: &'static str,
}

/// The kinds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    OtherName,
    NotYet,
    Expired,
    UnknownAuthority,
    Other,
}

/// What a server says about ours, or about TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    WantsCertificate,
    CertificateExpired,
    CertificateRefused,
    Refused,
    NoTls,
}

impl Alert {
    /// Behind the server's name.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::WantsCertificate => "asks for a client certificate",
            Self::CertificateExpired => "says that the client certificate has expired or was revoked",
            Self::CertificateRefused => "refused the client certificate",
            Self::Refused => "refused the handshake",
            Self::NoTls => "speaks no TLS on this port",
        }
    }
}

/// A connection to `host:port`, if there is one.
#[must_use]
pub fn reach(server: &str) -> Option<TcpStream> {
    let address = server.to_socket_addrs().ok()?.next()?;
    let stream = TcpStream::connect_timeout(&address, STEP).ok()?;
    stream.set_read_timeout(Some(STEP)).and_then(|()| stream.set_write_timeout(Some(STEP))).ok()?;
    Some(stream)
}

/// Makes the handshake.
#[must_use]
pub fn attempt(ssl: Ssl, stream: TcpStream) -> Outcome {
    match ssl.connect(stream) {
        Ok(mut stream) => {
            let _ = stream.get_ref().set_read_timeout(Some(AFTER));
            match stream.read(&mut [0; 1]) {
                Ok(0) => Outcome::HungUp,
                Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                    Outcome::HungUp
                }
                Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    let codes = error.into_inner().and_then(|inner| inner.downcast::<openssl::ssl::Error>().ok());
                    // A connection that just ends comes as OpenSSL's own error, in which there is no code.
                    let codes = reasons(codes.as_ref().and_then(|error| error.ssl_error()));
                    if codes.is_empty() { Outcome::HungUp } else { Outcome::Made(codes) }
                }
                _ => Outcome::Made(Vec::new()),
            }
        }
        Err(HandshakeError::Failure(broken)) => {
            let codes = reasons(broken.error().ssl_error());
            Outcome::Broken(Box::new(broken), codes)
        }
        Err(_) => Outcome::Unknown,
    }
}

fn reasons(stack: Option<&ErrorStack>) -> Vec<i32> {
    stack.iter().flat_map(|stack| stack.errors().iter().map(openssl::error::Error::reason_code)).collect()
}

/// What this end found wrong with the server's certificate.
#[must_use]
pub fn fault(ssl: &SslRef) -> Option<Judged> {
    let said = ssl.verify_result();
    let (kind, told) = match said.as_raw() {
        0 => return None,
        62 | 64 => (Fault::OtherName, "is made out to other names"),
        9 => (Fault::NotYet, "is not valid yet"),
        10 => (Fault::Expired, "has expired"),
        2 | 18..=21 => (Fault::UnknownAuthority, "is signed by an authority unknown here"),
        _ => (Fault::Other, said.error_string()),
    };
    Some(Judged { kind, told })
}

/// What the server's codes say.
#[must_use]
pub fn alert(reasons: &[i32]) -> Option<Alert> {
    let said = |alert: i32| reasons.contains(&(ALERT + alert));
    if said(116) {
        Some(Alert::WantsCertificate)
    } else if said(45) || said(44) {
        Some(Alert::CertificateExpired)
    } else if said(48) || said(42) || said(43) || said(46) || said(49) {
        Some(Alert::CertificateRefused)
    } else if said(40) {
        Some(Alert::Refused)
    } else {
        reasons.iter().any(|reason| NO_TLS.contains(reason)).then_some(Alert::NoTls)
    }
}

/// Why a client certificate cannot be used now, and what to do.
#[must_use]
pub fn out_of_time(certificate: &X509) -> Option<(String, &'static str)> {
    let now = Asn1Time::days_from_now(0).ok()?;
    if certificate.not_after() < now {
        let told = format!("the client certificate expired at {}", certificate.not_after());
        return Some((told, "have a new one issued"));
    }
    if certificate.not_before() > now {
        let told = format!("the client certificate is valid from {} on", certificate.not_before());
        return Some((told, "is this machine's clock right?"));
    }
    None
}
