//! `metadata="<field>"`: where an event came from, stored beside it.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, doc};

use crate::kafka::native::{self, RawHeader, Record};

/// Bytes as BSON holds them.
#[must_use]
pub fn binary(bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() })
}

/// A header as `{key, value}`; a name that is not UTF-8 stays bytes.
#[must_use]
pub fn header((name, value): &RawHeader) -> Bson {
    let key = std::str::from_utf8(name).map_or_else(|_| binary(name), |name| Bson::String(name.to_owned()));
    Bson::Document(doc! {"key": key, "value": value.as_deref().map(binary)})
}

/// The raw BSON element `field: {topic, partition, offset, timestamp, key, headers}`.
#[must_use]
pub fn element(field: &str, record: Record<'_>) -> Vec<u8> {
    let place = (record.topic(), record.partition(), record.offset());
    let place = (place.0.as_str(), place.1, place.2);
    described(field, place, record.timestamp().to_millis(), record.key(), &native::headers(record))
}

/// The same of what is known of an event.
#[must_use]
pub fn described(
    field: &str,
    (topic, partition, offset): (&str, i32, i64),
    timestamp_ms: Option<i64>,
    key: Option<&[u8]>,
    headers: &[RawHeader],
) -> Vec<u8> {
    let headers: Vec<Bson> = headers.iter().map(header).collect();
    let whole = doc! {
        field: {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "timestamp": timestamp_ms.map(bson::DateTime::from_millis),
            "key": key.map(binary),
            "headers": headers,
        }
    };
    let bytes = whole.to_vec().unwrap_or_default();
    // Without the length in front and the end mark behind: an element of another document.
    bytes.get(4..bytes.len().saturating_sub(1)).unwrap_or_default().to_vec()
}
