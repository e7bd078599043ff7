//! Dead letters larger than their topic takes, which happens when compression alone brought the event under the source's
//! limit: what does not fit is left out and said so. Topic, partition and offset are always there, to fetch it again.

use super::record::batch_size;
use crate::kafka::native::{self, RawHeader, Record};

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
pub fn kept(record: Record<'_>, said: usize, limit: i64) -> Kept {
    let limit = usize::try_from(limit).unwrap_or(0).saturating_sub(OWN_HEADERS + said);
    let content = record.value_len() + record.key_len();
    if content + OWN_HEADERS < limit && !native::has_headers(record) {
        return Kept { value: true, rest: true };
    }
    Kept { value: batch_size(record, record.value()) <= limit, rest: batch_size(record, None) <= limit }
}

/// Says what a letter leaves out: `millpond.omitted` and `millpond.value_bytes`.
#[must_use]
pub fn told(record: Record<'_>, kept: Kept) -> [RawHeader; 2] {
    let omitted = if kept.rest { "value" } else { "value,key,headers" };
    [
        (b"millpond.omitted".to_vec(), Some(omitted.into())),
        (b"millpond.value_bytes".to_vec(), Some(record.value_len().to_string().into_bytes())),
    ]
}
