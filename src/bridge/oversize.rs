//! Dead letters larger than their topic takes, which happens when compression alone brought the event under the source's
//! limit: what does not fit is left out and said so. Topic, partition and offset are always there, to fetch it again.

use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};

use super::record::batch_size;

/// The names and lengths of the headers that a letter gets, without what they say.
const OWN_HEADERS: usize = 1_024;

/// What a letter keeps of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub value: bool,
    /// Key and headers.
    pub rest: bool,
}

/// Decides what fits into a record of `limit` bytes beside headers that say so many bytes.
#[must_use]
pub fn kept(message: &BorrowedMessage<'_>, said: usize, limit: i64) -> Kept {
    let limit = usize::try_from(limit).unwrap_or(0).saturating_sub(OWN_HEADERS + said);
    let content = message.payload_len() + message.key_len();
    if content + OWN_HEADERS < limit && message.headers().is_none() {
        return Kept { value: true, rest: true };
    }
    Kept { value: batch_size(message, message.payload()) <= limit, rest: batch_size(message, None) <= limit }
}

/// Says what a letter leaves out: `millpond.omitted` and `millpond.value_bytes`.
#[must_use]
pub fn tell(headers: OwnedHeaders, message: &BorrowedMessage<'_>, kept: Kept) -> OwnedHeaders {
    let omitted = if kept.rest { "value" } else { "value,key,headers" };
    headers
        .insert(Header { key: "millpond.omitted", value: Some(omitted) })
        .insert(Header { key: "millpond.value_bytes", value: Some(&message.payload_len().to_string()) })
}
