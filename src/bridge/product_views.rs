//! `PRODUCT_VIEWS`: both raw shapes of a tracker's event become the seven fields of a stored one (design section 3).
//!
//! Rules like any others, but for two things: an event that has none of the fields is refused, and a missing time may be
//! derived from the shop's clock.

use jiff::tz::TimeZone;
use serde_json::Value;

use super::rules::convert::{Type, spelling};
use super::rules::definition::{Definition, Field, Make, ProductViews};
use super::rules::filter::Filter;
use super::rules::path::Path;
use super::rules::table::{TOP, Table};
use super::time_text;
use crate::error::{Error, Result};
use crate::json::{Kind, Token};

/// The name by which it is asked for.
pub const NAME: &str = "product_views";
/// The field that a clock may stand in for.
pub const TIMESTAMP: &str = "timestamp";
/// The shop's clock.
pub const LOCAL_TIME: &str = "local_time";
/// The fields of a stored event, and the names that each is taken from: the first that is not null wins.
const FIELDS: [(&str, &[&str], Type); 7] = [
    ("product_id", &["product_id"], Type::String),
    ("device_id", &["device_id"], Type::String),
    ("store_id", &["store_id"], Type::String),
    ("referrer_url", &["referrer_url"], Type::String),
    (LOCAL_TIME, &[LOCAL_TIME], Type::String),
    ("remote_ip", &["remote_ip", "ip"], Type::String),
    (TIMESTAMP, &[TIMESTAMP, "time_stamp"], Type::Timestamp),
];

/// Reads the options: `local_time_zone`, `keep_unknown`, `drop_if`.
///
/// # Errors
/// `Config` naming the place.
pub fn read(value: Value) -> Result<Definition> {
    let mut table = Table::open(TOP, value, &["name", "local_time_zone", "keep_unknown", "drop_if"])?;
    table.choice("name", &[(NAME, ())])?;
    let local_time_zone = table.text("local_time_zone")?;
    local_time_zone.as_deref().map(zone).transpose()?;
    Ok(Definition {
        keep_unknown: table.flag("keep_unknown")?,
        drop_if: Filter::read_all(&table.place("drop_if"), table.list("drop_if")?)?,
        ..definition(local_time_zone)
    })
}

/// The built-in definition. With `local_time_zone` (an IANA name) a missing time is derived from `local_time`; without,
/// it stays null.
#[must_use]
pub fn definition(local_time_zone: Option<String>) -> Definition {
    let fields = FIELDS.iter().map(|(name, from, kind)| Field {
        name: (*name).to_owned(),
        from: from.iter().map(|name| Path::member(name)).collect(),
        make: Make::Type(*kind),
        required: false,
        default: None,
    });
    let product_views = Some(ProductViews { local_time_zone });
    Definition { product_views, fields: fields.collect(), keep_unknown: false, drop_if: Vec::new() }
}

/// The zone of an IANA name.
///
/// # Errors
/// `Config` when there is none.
pub fn zone(name: &str) -> Result<TimeZone> {
    TimeZone::get(name).map_err(|_| {
        Error::config(format!("transform: local_time_zone {name:?} is unknown"))
            .hint("give an IANA name such as Asia/Ho_Chi_Minh")
    })
}

/// Appends the instant that the shop's clock shows, or returns false when it shows none.
pub fn derived(clock: &Token, message: &[u8], zone: &TimeZone, out: &mut Vec<u8>) -> bool {
    let text = (clock.kind == Kind::String).then(|| spelling(clock, message).ok()).flatten();
    text.is_some_and(|text| time_text::from_wall_clock(&text, zone, out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::rules::Rules;
    use crate::json::Reason;

    fn stored(raw: &str) -> std::result::Result<String, Reason> {
        stored_in(None, raw)
    }

    fn stored_in(zone: Option<&str>, raw: &str) -> std::result::Result<String, Reason> {
        let mut out = Vec::new();
        let rules = Rules::new(&definition(zone.map(str::to_owned))).expect("a known zone");
        rules.apply(raw.as_bytes(), &mut out).map_err(|letter| letter.reason)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    fn timestamp(raw: &str) -> std::result::Result<String, Reason> {
        let stored = stored(&format!(r#"{{"product_id":1,"time_stamp":{raw}}}"#))?;
        let value: Value = serde_json::from_str(&stored).expect("JSON");
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
        let stored = |raw| stored_in(Some("Asia/Ho_Chi_Minh"), raw).expect("kept");
        let kept = stored(r#"{"local_time":"2025-10-31 03:22:11.50"}"#);
        assert!(kept.contains(r#""timestamp":"2025-10-30T20:22:11.5Z""#));
        assert!(stored(r#"{"local_time":"yesterday"}"#).contains(r#""timestamp":null"#));
        assert!(zone("Asia/Nowhere").is_err());
    }

    proptest::proptest! {
        #[test]
        fn civil_dates_round_trip(days in -800_000_i64..3_000_000) {
            let (year, month, day) = time_text::civil_from_days(days);
            proptest::prop_assert_eq!(time_text::days_from_civil(year, month, day), days);
        }
    }
}
