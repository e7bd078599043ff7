//! `metadata="<field>"`: where an event came from, stored beside it.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, doc};

use super::identity::Arrival;
use crate::kafka::native::RawHeader;

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
pub fn element(field: &str, record: &impl Arrival) -> Vec<u8> {
    let headers: Vec<Bson> = record.headers().iter().map(header).collect();
    let time = record.timestamp_ms();
    let whole = doc! {
        field: {
            "topic": record.topic(),
            "partition": record.partition(),
            "offset": record.offset(),
            "timestamp": (time >= 0).then(|| bson::DateTime::from_millis(time)),
            "key": record.key().map(binary),
            "headers": headers,
        }
    };
    let bytes = whole.to_vec().unwrap_or_default();
    // Without the length in front and the end mark behind: an element of another document.
    bytes.get(4..bytes.len().saturating_sub(1)).unwrap_or_default().to_vec()
}
