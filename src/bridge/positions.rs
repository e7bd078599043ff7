//! Kept positions: the compacted topic `millpond.positions.<job>` on the target cluster, written in the same
//! transaction as the events they cover. Nothing else in a bridge is remembered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::message::{BorrowedMessage, Message};
use serde::{Deserialize, Serialize};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::native::Spec;
use crate::kafka::{Cluster, topics};

/// How long a transaction of ours may stay open before the broker ends it.
#[must_use]
pub fn transaction_timeout_ms() -> u64 {
    #[cfg(feature = "sabotage")]
    if let Some(shorter) = crate::sabotage::timeout_ms() {
        return shorter;
    }
    60_000
}

/// Whose position a record is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub cluster: String,
    pub topic: String,
    pub partition: i32,
}

/// The position of one source partition and what it was true of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The next offset to read.
    pub next: i64,
    pub source_topic_id: Option<String>,
    pub target_topic: String,
    pub target_topic_id: Option<String>,
    pub dead_letter_topic: Option<String>,
    pub dead_letter_topic_id: Option<String>,
    /// What was deleted from both by then: sums of their logs' starts.
    #[serde(default)]
    pub target_start: i64,
    #[serde(default)]
    pub dead_letter_start: i64,
    /// Names the transform and its options.
    pub transform: String,
    /// Running totals of I1 since the job began.
    pub read: u64,
    pub written: u64,
    pub filtered: u64,
    pub dead_lettered: u64,
}

/// All that a positions topic holds.
pub type Positions = BTreeMap<Key, Kept>;

/// The name of a job's positions topic.
#[must_use]
pub fn topic_name(job: &str) -> String {
    format!("millpond.positions.{job}")
}

/// Makes the positions topic when absent, grows it to `partitions`, and refuses one whose cleanup would lose positions.
/// Returns how many partitions it has: those of a source that was made again with fewer stay.
///
/// # Errors
/// `Config` when its cleanup.policy is not exactly `compact`; as [`topics::create`].
pub fn ensure(cluster: &Cluster, name: &str, partitions: i32, control: &Control) -> Result<i32> {
    if cluster.find_topic(name)?.is_none() {
        let config = [("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("segment.ms", "86400000")];
        topics::create(cluster, name, partitions, &config, control)?;
    }
    let found = cluster.topic(name)?.partitions;
    if found < partitions {
        topics::grow(cluster, name, partitions, control)?;
    }
    let policy = cluster.topic_settings(name)?.remove("cleanup.policy").unwrap_or_default();
    if policy != "compact" {
        return Err(Error::config(format!(
            "target: topic {name} has cleanup.policy={policy}: positions would be deleted"
        ))
        .hint(format!("set cleanup.policy=compact on {name}")));
    }
    Ok(found.max(partitions))
}

/// Reads every position up to all that any transaction has written by now.
///
/// # Errors
/// As [`read_settled`]; `Position` for what is no position.
pub fn read(cluster: &Cluster, name: &str, partitions: &[i32], control: &Control) -> Result<Positions> {
    let what = format!("target: read positions from topic {name}");
    let mut found = Positions::new();
    read_settled(cluster, name, partitions, control, |message| {
        let (Some(key), Some(value)) = (message.key(), message.payload()) else { return Ok(true) };
        let parsed = serde_json::from_slice(key).and_then(|key: Key| Ok((key, serde_json::from_slice(value)?)));
        let (key, kept) = parsed.map_err(|error| {
            Error::position(format!(
                "{what}: partition {} offset {} is no position",
                message.partition(),
                message.offset()
            ))
            .hint("another program writes to this topic, or a newer millpond did: use another job name")
            .because(error)
        })?;
        found.insert(key, kept);
        Ok(true)
    })?;
    Ok(found)
}

/// Reads every committed record up to all that any transaction has written by now.
///
/// The high watermark is asked uncommitted and the last stable offset awaited: a transaction of an older run that is
/// still being ended would otherwise be invisible, and its events copied again.
///
/// # Errors
/// `External` when a transaction stays open for longer than its time-out and a minute.
pub fn read_settled(
    cluster: &Cluster,
    name: &str,
    partitions: &[i32],
    control: &Control,
    take: impl FnMut(&BorrowedMessage<'_>) -> Result<bool>,
) -> Result<()> {
    let what = format!("target: read topic {name}");
    let high = cluster.offsets(name, partitions, Spec::Latest, false)?;
    let deadline = Instant::now() + Duration::from_millis(transaction_timeout_ms()) + Duration::from_secs(60);
    loop {
        let stable = cluster.offsets(name, partitions, Spec::Latest, true)?;
        let Some(((partition, _), _)) = high.iter().zip(&stable).find(|(high, stable)| stable.1 < high.1) else {
            break;
        };
        if Instant::now() > deadline {
            return Err(Error::external(format!("{what}: a transaction on partition {partition} stays open"))
                .hint("an older run's transaction hangs: kafka-transactions.sh find-hanging names it"));
        }
        control.sleep(&what, Duration::from_millis(50))?;
    }
    let starts = cluster.offsets(name, partitions, Spec::Earliest, false)?;
    let ranges: Vec<_> = starts.iter().zip(&high).map(|(start, high)| (start.0, start.1, high.1)).collect();
    cluster.read(name, &ranges, take)
}

/// Whether a topic holds an event that a `read_committed` consumer sees; records of aborted transactions do not count.
///
/// # Errors
/// As [`read`].
pub fn holds_events(cluster: &Cluster, topic: &str, partitions: i32) -> Result<bool> {
    let all: Vec<i32> = (0..partitions).collect();
    let ranges: Vec<_> =
        cluster.ends(topic, &all)?.iter().map(|end| (end.partition, end.start, end.last_stable)).collect();
    let mut found = false;
    cluster.read(topic, &ranges, |_| {
        found = true;
        Ok(false)
    })?;
    Ok(found)
}
