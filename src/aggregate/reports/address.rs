//! Parts of a web address: `scheme://user@host:port/path?query#fragment`, as RFC 3986 takes a text apart. Nothing is
//! normalised but what is said; a text without `//` has no host.

use std::borrow::Cow;

/// The host in lower case, without user, port and brackets; `None` where there is none.
#[must_use]
pub fn domain(text: &str) -> Option<Cow<'_, str>> {
    let (authority, _) = split(text);
    let authority = authority?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => host.split_once(':').map_or(host, |(host, _)| host),
    };
    let lower = || host.chars().any(|letter| !letter.is_ascii_lowercase() && letter.is_alphabetic());
    match host {
        "" => None,
        host if lower() => Some(Cow::Owned(host.to_lowercase())),
        host => Some(Cow::Borrowed(host)),
    }
}

/// What stands between the host and `?` or `#`; empty for an address that ends with its host.
#[must_use]
pub fn path(text: &str) -> &str {
    let (_, rest) = split(text);
    rest.find(['?', '#']).map_or(rest, |end| &rest[..end])
}

/// The first value of a parameter: `+` is a blank, `%xx` a byte, what is then no UTF-8 becomes U+FFFD.
#[must_use]
pub fn query<'a>(text: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let text = text.split_once('#').map_or(text, |(text, _)| text);
    let (_, query) = text.split_once('?')?;
    query.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (!pair.is_empty() && decoded(found) == name).then(|| decoded(value))
    })
}

/// The authority, where there is one, and what follows it.
fn split(text: &str) -> (Option<&str>, &str) {
    let scheme = |scheme: &&str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter))
    };
    let rest = match text.split_once(':') {
        Some((before, rest)) if scheme(&before) => rest,
        _ => text,
    };
    match rest.strip_prefix("//") {
        None => (None, rest),
        Some(rest) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            (Some(&rest[..end]), &rest[end..])
        }
    }
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| text.as_bytes().get(at).and_then(|digit| char::from(*digit).to_digit(16));
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.as_bytes().get(at) {
        let escaped = (*byte == b'%').then(|| Some(digit(at + 1)? << 4 | digit(at + 2)?)).flatten();
        bytes.push(match escaped {
            Some(escaped) => u8::try_from(escaped).unwrap_or(b'?'),
            None if *byte == b'+' => b' ',
            None => *byte,
        });
        at += if escaped.is_some() { 3 } else { 1 };
    }
    Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let all = |text| (domain(text).map(Cow::into_owned), path(text).to_owned());
        for (text, host, wanted) in [
            ("https://Google.com/search?q=1#top", Some("google.com"), "/search"),
            ("http://me:secret@shop.example:8080", Some("shop.example"), ""),
            ("https://[2001:DB8::1]:443/a", Some("2001:db8::1"), "/a"),
            ("//cdn.example/a/b", Some("cdn.example"), "/a/b"),
            ("https://ÄRZTE.example?x", Some("ärzte.example"), ""),
            ("google.com/x", None, "google.com/x"),
            ("mailto:a@b.c", None, "a@b.c"),
            ("/a/b?x=1", None, "/a/b"),
            ("", None, ""),
            ("https://", None, ""),
            ("https:///x", None, "/x"),
        ] {
            assert_eq!(all(text), (host.map(str::to_owned), wanted.to_owned()), "{text}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let of = |text, name| query(text, name).map(Cow::into_owned);
        assert_eq!(of("https://a/?x=1&x=2&y=a+b%20c%C3%A9#?z=3", "x").as_deref(), Some("1"));
        assert_eq!(of("?y=a+b%20c%C3%A9", "y").as_deref(), Some("a b cé"));
        assert_eq!(of("?utm%5Fsource=s", "utm_source").as_deref(), Some("s"));
        assert_eq!(of("?a&b=", "a").as_deref(), Some(""));
        assert_eq!(of("?a=%ff%zz", "a").as_deref(), Some("\u{fffd}%zz"));
        assert_eq!(of("https://a/x#?a=1", "a"), None);
        assert_eq!(of("a=1", "a"), None);
    }
}
