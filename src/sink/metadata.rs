//! `metadata="<field>"`: where an event came from, stored beside it.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, doc};
use rdkafka::message::{BorrowedMessage, Headers, Message};

/// The raw BSON element `field: {topic, partition, offset, timestamp, key, headers}`.
#[must_use]
pub fn element(field: &str, message: &BorrowedMessage<'_>) -> Vec<u8> {
    let binary = |bytes: &[u8]| Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() });
    let headers: Vec<Bson> = message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| Bson::Document(doc! {"key": header.key, "value": header.value.map(binary)}))
            .collect()
    });
    let whole = doc! {
        field: {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp": message.timestamp().to_millis().map(bson::DateTime::from_millis),
            "key": message.key().map(binary),
            "headers": headers,
        }
    };
    let bytes = whole.to_vec().unwrap_or_default();
    // Without the length in front and the end mark behind: an element of another document.
    bytes.get(4..bytes.len().saturating_sub(1)).unwrap_or_default().to_vec()
}
