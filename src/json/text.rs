//! Strings: decoding escapes, and writing JSON strings with as few escapes as the grammar allows.

use super::reason::{DeadLetter, Reason};

/// Decodes the text between a string's quotes and appends it.
///
/// # Errors
/// `lone_surrogate`: half a surrogate pair is no character.
pub fn decode(raw: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let mut at = 0;
    while let Some(step) = memchr::memchr(b'\\', &raw[at..]) {
        out.extend_from_slice(&raw[at..at + step]);
        at += step;
        let (unit, length) = escape(&raw[at..]);
        at += length;
        let scalar = match unit {
            0xd800..=0xdbff if raw[at..].starts_with(b"\\u") => {
                let (low, length) = escape(&raw[at..]);
                if !(0xdc00..=0xdfff).contains(&low) {
                    return Err(lone(unit));
                }
                at += length;
                0x1_0000 + ((u32::from(unit) - 0xd800) << 10) + (u32::from(low) - 0xdc00)
            }
            0xd800..=0xdfff => return Err(lone(unit)),
            unit => u32::from(unit),
        };
        let character = char::from_u32(scalar).ok_or_else(|| lone(unit))?;
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out.extend_from_slice(&raw[at..]);
    Ok(())
}

fn lone(unit: u16) -> DeadLetter {
    DeadLetter::new(Reason::LoneSurrogate, format!("\\u{unit:04x} without its other half"))
}

/// The UTF-16 code unit of an escape, and the escape's length. The grammar was checked before.
fn escape(raw: &[u8]) -> (u16, usize) {
    match raw.get(1) {
        Some(b'u') => {
            let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or(0);
            let unit = raw[2..6].iter().fold(0, |unit, byte| unit * 16 + digit(byte));
            (u16::try_from(unit).unwrap_or(0xfffd), 6)
        }
        Some(b'b') => (8, 2),
        Some(b'f') => (12, 2),
        Some(b'n') => (10, 2),
        Some(b'r') => (13, 2),
        Some(b't') => (9, 2),
        Some(other) => (u16::from(*other), 2),
        None => (0xfffd, 1),
    }
}

/// A string as code units, lone surrogates kept: two names are the same when these are.
#[must_use]
pub fn code_units(raw: &[u8]) -> Vec<u16> {
    let mut units = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        if raw[at] == b'\\' {
            let (unit, length) = escape(&raw[at..]);
            units.push(unit);
            at += length;
        } else {
            let run = memchr::memchr(b'\\', &raw[at..]).unwrap_or(raw.len() - at);
            units.extend(String::from_utf8_lossy(&raw[at..at + run]).encode_utf16());
            at += run;
        }
    }
    units
}

/// Appends a JSON string with the escapes that the grammar demands and no others.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            8 => out.extend_from_slice(b"\\b"),
            9 => out.extend_from_slice(b"\\t"),
            10 => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            13 => out.extend_from_slice(b"\\r"),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_halves_and_round_trips() {
        let decoded = |raw: &str| {
            let mut out = Vec::new();
            decode(raw.as_bytes(), &mut out).map(|()| out)
        };
        assert_eq!(decoded(r"\ud83d\ude00\u0000\/").as_deref(), Ok("😀\0/".as_bytes()));
        for half in [r"\ud800", r"\udc00", r"\ud800\u0041", r"\ud800x", r"\udc00\ud800"] {
            assert_eq!(decoded(half).map_err(|letter| letter.reason), Err(Reason::LoneSurrogate), "{half}");
        }
        assert_eq!(code_units(br"\u0061b"), code_units(b"ab"));
    }

    proptest::proptest! {
        #[test]
        fn encode_is_undone_by_serde_json(text in ".*") {
            let mut out = Vec::new();
            encode(text.as_bytes(), &mut out);
            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("valid"), text);
        }
    }
}
