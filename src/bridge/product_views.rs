//! `PRODUCT_VIEWS`: both raw shapes of a tracker's event become the seven fields of a stored one (design section 3).
//!
//! First the whole message is judged (UTF-8, grammar, depth, duplicate keys), then `no_field`, then each field in its
//! order; surrogates, types and times are judged only in what is kept.

use std::cell::RefCell;

use jiff::tz::TimeZone;

use super::time_text;
use crate::error::{Error, Result};
use crate::json::{DeadLetter, Kind, Reason, Tape, Token, text};

/// The fields of a stored event, and the names that each is taken from: the first that is not null wins.
const FIELDS: [(&str, &[&str]); 7] = [
    ("product_id", &["product_id"]),
    ("device_id", &["device_id"]),
    ("store_id", &["store_id"]),
    ("referrer_url", &["referrer_url"]),
    ("local_time", &["local_time"]),
    ("remote_ip", &["remote_ip", "ip"]),
    ("timestamp", &["timestamp", "time_stamp"]),
];
const LOCAL_TIME: usize = 4;
const TIMESTAMP: usize = 6;

thread_local! {
    static TAPE: RefCell<Tape> = RefCell::default();
}

/// The built-in transform, ready for a run.
#[derive(Debug, Clone)]
pub struct ProductViews {
    zone: Option<TimeZone>,
}

type Found = [[Option<Token>; 2]; FIELDS.len()];

impl ProductViews {
    /// With `local_time_zone` (an IANA name) a missing time is derived from `local_time`; without, it stays null.
    ///
    /// # Errors
    /// `Config` for a zone that does not exist.
    pub fn new(local_time_zone: Option<&str>) -> Result<Self> {
        let zone = local_time_zone
            .map(|name| {
                TimeZone::get(name).map_err(|_| {
                    Error::config(format!("transform: local_time_zone {name:?} is unknown"))
                        .hint("give an IANA name such as Asia/Ho_Chi_Minh")
                })
            })
            .transpose()?;
        Ok(Self { zone })
    }

    /// Appends the stored form of a raw event to `out`.
    ///
    /// # Errors
    /// Why the event is a dead letter; `out` then holds rubbish.
    pub fn transform(&self, value: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
        TAPE.with_borrow_mut(|tape| {
            tape.read(value)?;
            let found = find(tape, value)?;
            self.write(value, &found, out)
        })
    }

    fn write(&self, value: &[u8], found: &Found, out: &mut Vec<u8>) -> Result<(), DeadLetter> {
        for (field, (name, _)) in FIELDS.iter().enumerate() {
            out.push(if field == 0 { b'{' } else { b',' });
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            match winner(&found[field]) {
                Some(token) if field == TIMESTAMP => time(value, token, out)?,
                Some(token) => string(name, value, token, out)?,
                None if field == TIMESTAMP => self.derived(value, &found[LOCAL_TIME], out),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn derived(&self, value: &[u8], local_time: &[Option<Token>; 2], out: &mut Vec<u8>) {
        if let (Some(zone), Some(token)) = (&self.zone, winner(local_time))
            && token.kind == Kind::String
        {
            let mut clock = Vec::with_capacity(32);
            if text::decode(token.text(value), &mut clock).is_ok() && time_text::from_wall_clock(&clock, zone, out) {
                return;
            }
        }
        out.extend_from_slice(b"null");
    }
}

fn winner(candidates: &[Option<Token>; 2]) -> Option<&Token> {
    candidates.iter().flatten().find(|token| token.kind != Kind::Null)
}

fn find(tape: &Tape, value: &[u8]) -> Result<Found, DeadLetter> {
    let mut found: Found = Default::default();
    let mut any = false;
    let mut member = 1;
    let end = tape.tokens[0].next as usize;
    let mut decoded = Vec::new();
    while member < end {
        let (key, content) = (tape.tokens[member], tape.tokens[member + 1]);
        let mut name = key.text(value);
        if key.escaped {
            decoded.clear();
            // A name with half a surrogate pair is none of ours.
            name = if text::decode(name, &mut decoded).is_ok() { &decoded } else { b"" };
        }
        for (field, (_, names)) in FIELDS.iter().enumerate() {
            if let Some(place) = names.iter().position(|candidate| candidate.as_bytes() == name) {
                found[field][place] = Some(content);
                any = true;
                break;
            }
        }
        member = content.next as usize;
    }
    if any { Ok(found) } else { Err(DeadLetter::new(Reason::NoField, "none of the fields of an event is there")) }
}

/// A string field: strings stay, numbers become their spelling, byte for byte.
fn string(name: &str, value: &[u8], token: &Token, out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let raw = token.text(value);
    match token.kind {
        Kind::String if !token.escaped => {
            out.push(b'"');
            out.extend_from_slice(raw);
            out.push(b'"');
        }
        Kind::String => {
            let mut decoded = Vec::with_capacity(raw.len());
            text::decode(raw, &mut decoded)
                .map_err(|letter| DeadLetter::new(letter.reason, format!("{name}: {}", letter.detail)))?;
            text::encode(&decoded, out);
        }
        Kind::Number => {
            out.push(b'"');
            out.extend_from_slice(raw);
            out.push(b'"');
        }
        _ => return Err(DeadLetter::new(Reason::Type, format!("{name} is neither a string nor a number"))),
    }
    Ok(())
}

fn time(value: &[u8], token: &Token, out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let raw = token.text(value);
    match token.kind {
        Kind::Number => time_text::from_number(raw, out),
        Kind::String if token.escaped => {
            let mut decoded = Vec::with_capacity(raw.len());
            text::decode(raw, &mut decoded)?;
            time_text::from_text(&decoded, out)
        }
        Kind::String => time_text::from_text(raw, out),
        _ => Err(DeadLetter::new(Reason::Type, "the time is neither a string nor a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(raw: &str) -> std::result::Result<String, Reason> {
        let mut out = Vec::new();
        let views = ProductViews::new(None).expect("no zone");
        views.transform(raw.as_bytes(), &mut out).map_err(|letter| letter.reason)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    fn timestamp(raw: &str) -> std::result::Result<String, Reason> {
        let stored = stored(&format!(r#"{{"product_id":1,"time_stamp":{raw}}}"#))?;
        let value: serde_json::Value = serde_json::from_str(&stored).expect("JSON");
        Ok(value["timestamp"].as_str().unwrap_or("null").to_owned())
    }

    #[test]
    fn seven_fields_in_order_always() {
        assert_eq!(
            stored(r#"{"time_stamp":1761881000,"ip":"1.2.3.4","product_id":12345678901234567890.0,"x":[{}],"device_id":null}"#).as_deref(),
            Ok(concat!(
                r#"{"product_id":"12345678901234567890.0","device_id":null,"store_id":null,"referrer_url":null,"#,
                r#""local_time":null,"remote_ip":"1.2.3.4","timestamp":"2025-10-31T03:23:20Z"}"#
            ))
        );
        assert!(
            stored(r#"{"product_id":"\u0041\u000a\u001f\/\"é"}"#)
                .expect("kept")
                .starts_with("{\"product_id\":\"A\\n\\u001f/\\\"é\",")
        );
    }

    #[test]
    fn times() {
        for (raw, wanted) in [
            ("1761881000123", "2025-10-31T03:23:20.123Z"),
            ("\"1761881000\"", "2025-10-31T03:23:20Z"),
            ("\"2025-10-31t03:22:11.500z\"", "2025-10-31T03:22:11.5Z"),
            ("\"2025-10-31 03:22:11+07:00\"", "2025-10-30T20:22:11Z"),
            ("\"2024-02-29T23:59:59.123456789-00:00\"", "2024-02-29T23:59:59.123456789Z"),
            ("1.761881e9", "2025-10-31T03:23:20Z"),
            ("null", "null"),
        ] {
            assert_eq!(timestamp(raw).as_deref(), Ok(wanted), "{raw}");
        }
        for raw in ["0", "1", "-1761881000", "17618810001", "\"176188100\"", "1e300", "10000000000000"] {
            assert_eq!(timestamp(raw), Err(Reason::TimeUnit), "{raw}");
        }
        for raw in [
            "\"\"",
            "\"2025-10-31\"",
            "\"2025-10-31T03:22:11\"",
            "\"2025-10-31T03:22:60Z\"",
            "\"2025-02-29T00:00:00Z\"",
            "\"0000-12-31T00:00:00Z\"",
            "\"0001-01-01T00:00:00+00:01\"",
            "\"9999-12-31T23:59:59-00:01\"",
            "\"2025-10-31T03:22:11.1234567890Z\"",
            "\"2025-10-31T03:22:11+24:00\"",
            "\"2025-10-31T03:22:11.Z\"",
            "\"N/A\"",
        ] {
            assert_eq!(timestamp(raw), Err(Reason::BadTime), "{raw}");
        }
        assert_eq!(timestamp("true"), Err(Reason::Type));
    }

    #[test]
    fn winners_and_refusals() {
        assert_eq!(stored(r#"{"timestamp":"N/A","time_stamp":1761881000}"#), Err(Reason::BadTime));
        assert!(stored(r#"{"timestamp":null,"time_stamp":1761881000}"#).expect("kept").contains("2025-10-31"));
        assert_eq!(stored(r#"{"id":1,"option":[]}"#), Err(Reason::NoField));
        assert_eq!(stored(r#"{"product_id":true}"#), Err(Reason::Type));
        assert_eq!(stored(r#"{"product_id":"\ud800"}"#), Err(Reason::LoneSurrogate));
        assert!(stored(r#"{"product_id":"1","email_address":"\ud800"}"#).is_ok());
        assert_eq!(stored(r#"{"product_id":"1","x":{"a":1,"a":2}}"#), Err(Reason::DuplicateKey));
    }

    #[test]
    fn wall_clocks_where_a_zone_is_given() {
        let views = ProductViews::new(Some("Asia/Ho_Chi_Minh")).expect("zone");
        let mut out = Vec::new();
        views.transform(br#"{"local_time":"2025-10-31 03:22:11.50"}"#, &mut out).expect("kept");
        assert!(String::from_utf8_lossy(&out).contains(r#""timestamp":"2025-10-30T20:22:11.5Z""#));
        out.clear();
        views.transform(br#"{"local_time":"yesterday"}"#, &mut out).expect("kept");
        assert!(String::from_utf8_lossy(&out).contains(r#""timestamp":null"#));
        assert!(ProductViews::new(Some("Asia/Nowhere")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn civil_dates_round_trip(days in -800_000_i64..3_000_000) {
            let (year, month, day) = time_text::civil_from_days(days);
            proptest::prop_assert_eq!(time_text::days_from_civil(year, month, day), days);
        }
    }
}
