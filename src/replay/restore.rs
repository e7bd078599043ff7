//! A letter becomes the event that should have been written: its own key, headers and time, and the value that the
//! corrected transform makes. What the target would refuse is decided before anything is handed to a producer.

use super::letter::{Letter, Origin};
use crate::bridge::record;
use crate::bridge::rules::Became;
use crate::bridge::target::Target;
use crate::bridge::transform::Ready;
use crate::json::Reason;
use crate::kafka::partitioner;

/// An event for the target topic.
pub struct Event {
    pub partition: i32,
    /// -1 for none.
    pub timestamp_ms: i64,
    pub value: Option<Vec<u8>>,
}

/// Why a letter fails again: a reason by name, and what exactly was found.
pub type Refusal = (String, String);

/// Decides what becomes of a letter, `None` for one that the transform leaves out; `source_partitions` is the count of the
/// topic that its event came from.
///
/// # Errors
/// Why it stays a letter.
pub fn restore(
    target: &Target,
    transform: &Ready,
    letter: &Letter,
    source_partitions: i32,
    now_ms: i64,
) -> Result<Option<Event>, Refusal> {
    let refuse = |reason: &str, detail: String| Err((reason.to_owned(), detail));
    let Some(origin) = &letter.origin else {
        return refuse("no_letter", "the headers of a dead letter of millpond are missing".into());
    };
    let time = origin.timestamp_ms;
    let age = now_ms.saturating_sub(time);
    // As in a bridge: -1 is no time at all.
    if time != -1 && (time == 0 || age > target.before_ms || age.saturating_neg() > target.after_ms) {
        return refuse(Reason::Timestamp.as_str(), format!("record timestamp {time}"));
    }
    if let Some(retention) = target.retention_ms.filter(|retention| time >= 0 && age > *retention) {
        return refuse("expired", format!("{age} ms old, {} deletes after {retention} ms", target.topic.name));
    }
    let mut out = Vec::new();
    let value = match &letter.value {
        None => None,
        Some(raw) => match transform.apply(raw, &mut out) {
            Ok(Became::Changed) => Some(out),
            Ok(Became::Same) => Some(raw.clone()),
            Ok(Became::Filtered) => return Ok(None),
            Err(again) => return refuse(again.reason.as_str(), again.detail),
        },
    };
    let size = record::batch_size_of(letter.key.as_deref(), value.as_deref(), &letter.headers);
    if i64::try_from(size).unwrap_or(i64::MAX) > target.max_bytes {
        let detail = format!("{size} bytes, {} takes {}", target.topic.name, target.max_bytes);
        return refuse(Reason::TooLarge.as_str(), detail);
    }
    let partition = partition(target.topic.partitions, source_partitions, origin, letter.key.as_deref());
    Ok(Some(Event { partition, timestamp_ms: time, value }))
}

/// The partition that the bridge would have chosen.
fn partition(count: i32, source_partitions: i32, origin: &Origin, key: Option<&[u8]>) -> i32 {
    if count == source_partitions {
        return origin.partition.min(count - 1);
    }
    key.map_or(origin.partition % count, |key| partitioner::partition_of(key, count))
}
