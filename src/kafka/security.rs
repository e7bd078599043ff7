//! Credentials and certificates: what contradicts itself is refused before any connection, by name and never by value
//! (I6). librdkafka would send no credentials, or speak no TLS, and say so in a log line at most.

use super::properties::Properties;
use super::settings::Role;
use super::tls;
use crate::error::{Error, Result};

const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];
/// Asked of a token endpoint by `millpond.oauth`; librdkafka itself is built without an HTTP client.
const OF_ENDPOINTS: [&str; 3] = ["sasl.oauthbearer.method", "sasl.oauthbearer.grant.type", "https.ca."];

/// Checks the security properties of one side.
///
/// # Errors
/// `Config` naming the property.
pub fn check(properties: &Properties, role: Role) -> Result<()> {
    let side = role.name();
    let wrong = |what: &str, hint: &str| Err(Error::config(format!("{side}: {what}")).hint(hint));
    let given = |prefix: &str| properties.keys().find(|name| name.starts_with(prefix)).map(String::as_str);
    if !properties.sasl()
        && let Some(name) = given("sasl.")
    {
        return wrong(
            &format!("property {name} is set, and security.protocol sends no credentials"),
            "set security.protocol to SASL_SSL (or SASL_PLAINTEXT), or leave the sasl properties out",
        );
    }
    if !properties.tls()
        && let Some(name) = given("ssl.")
    {
        return wrong(
            &format!("property {name} is set, and security.protocol speaks no TLS"),
            "set security.protocol to SSL or SASL_SSL, or leave the ssl properties out",
        );
    }
    if properties.sasl() {
        let mechanism = properties.mechanism().map(str::to_ascii_uppercase);
        let choice = format!("give one of {}", MECHANISMS.join(", "));
        match mechanism.as_deref() {
            None => return wrong("sasl.mechanism is missing", &choice),
            Some("GSSAPI") => return wrong("sasl.mechanism: Kerberos is not available in this build", &choice),
            Some("OAUTHBEARER") => {
                if properties.tokens.is_none() {
                    return wrong(
                        "sasl.mechanism=OAUTHBEARER has no source of tokens",
                        "give a callable as oauth_cb, or sasl.oauthbearer.method=oidc with client id, secret and \
                         token.endpoint.url",
                    );
                }
            }
            Some(known) if MECHANISMS.contains(&known) => {
                for name in ["sasl.username", "sasl.password"] {
                    if properties.get(name).is_none_or(String::is_empty) {
                        return wrong(&format!("{name} is missing"), "the mechanism needs both a name and a password");
                    }
                }
            }
            Some(_) => return wrong("sasl.mechanism: no such mechanism", &choice),
        }
    }
    if properties.tokens.is_some() && properties.mechanism() != Some("OAUTHBEARER") {
        return wrong(
            "oauth_cb is given, and sasl.mechanism is not OAUTHBEARER",
            "set sasl.mechanism=OAUTHBEARER and security.protocol=SASL_SSL, or leave oauth_cb out",
        );
    }
    for name in OF_ENDPOINTS {
        if let Some(name) = given(name) {
            return wrong(
                &format!("property {name} has no sasl.oauthbearer.method=oidc to serve"),
                "client credentials are the one way supported: method oidc, grant.type client_credentials",
            );
        }
    }
    if properties.get("enable.sasl.oauthbearer.unsecure.jwt").is_some_and(|value| value == "true") {
        return wrong(
            "enable.sasl.oauthbearer.unsecure.jwt makes tokens that nobody signed",
            "for a test's broker, return such a token from oauth_cb",
        );
    }
    if properties.tls() { tls::check(properties, side) } else { Ok(()) }
}

/// What to check when a broker refused the credentials.
#[must_use]
pub fn refused_hint(properties: &Properties) -> &'static str {
    match properties.mechanism() {
        Some("OAUTHBEARER") => {
            "check the token: its audience, issuer, scope and expiry, the broker's clock, and sasl.mechanism"
        }
        _ => "check sasl.username, sasl.password, sasl.mechanism and security.protocol",
    }
}

/// Whether certificates, or the names in them, go unchecked, by which property; only if said so.
#[must_use]
pub fn unchecked(properties: &Properties) -> Option<&'static str> {
    if !properties.tls() {
        return None;
    }
    let says = |name: &str, value: &str| properties.get(name).is_some_and(|given| given.eq_ignore_ascii_case(value));
    if ["false", "f", "0"].iter().any(|no| says("enable.ssl.certificate.verification", no)) {
        return Some("enable.ssl.certificate.verification");
    }
    says("ssl.endpoint.identification.algorithm", "none").then_some("ssl.endpoint.identification.algorithm")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(given: &[(&str, &str)]) -> Option<String> {
        let properties: Properties = given.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        check(&properties, Role::Source).err().map(|error| format!("{} {}", error.what, error.hint))
    }

    #[test]
    fn contradictions_are_named_and_values_are_not() {
        let sasl = ("security.protocol", "SASL_SSL");
        for (given, named) in [
            (vec![("sasl.password", "s3cret")], "sasl.password"),
            (vec![("ssl.ca.location", "/s3cret"), ("security.protocol", "sasl_plaintext")], "ssl.ca.location"),
            (vec![sasl], "sasl.mechanism is missing"),
            (vec![sasl, ("sasl.mechanism", "GSSAPI")], "Kerberos"),
            (vec![sasl, ("sasl.mechanism", "s3cret")], "no such mechanism"),
            (vec![sasl, ("sasl.mechanism", "PLAIN"), ("sasl.username", "u")], "sasl.password"),
            (vec![sasl, ("sasl.mechanism", "OAUTHBEARER")], "oauth_cb"),
            (vec![("https.ca.location", "s3cret")], "https.ca.location"),
        ] {
            let told = refusal(&given).unwrap_or_default();
            assert!(told.contains(named) && !told.contains("s3cret"), "{given:?}: {told}");
        }
        assert_eq!(refusal(&[sasl, ("sasl.mechanism", "PLAIN"), ("sasl.username", "u"), ("sasl.password", "p")]), None);
    }

    #[test]
    fn certificates_go_unchecked_only_if_said_so() {
        let with = |name: &str, value: &str| -> Properties {
            [("security.protocol", "ssl"), (name, value)].map(|(n, v)| (n.to_owned(), v.to_owned())).into()
        };
        assert_eq!(unchecked(&with("client.id", "x")), None);
        assert!(unchecked(&with("enable.ssl.certificate.verification", "false")).is_some());
        assert!(unchecked(&with("ssl.endpoint.identification.algorithm", "none")).is_some());
        assert_eq!(unchecked(&with("enable.ssl.certificate.verification", "true")), None);
    }
}
