//! Kept positions: the compacted topic `millpond.positions.<job>` on the target cluster, written in the same
//! transaction as the events they cover. Nothing else in a bridge is remembered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::native::Spec;
use crate::kafka::{Cluster, Context, settings, topics};

/// How long a transaction of ours may stay open before the broker ends it.
pub const TRANSACTION_TIMEOUT_MS: u64 = 60_000;

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
///
/// # Errors
/// `Config` when its cleanup.policy is not exactly `compact`; as [`topics::create`].
pub fn ensure(cluster: &Cluster, name: &str, partitions: i32, control: &Control) -> Result<()> {
    match cluster.find_topic(name)? {
        None => topics::create(
            cluster,
            name,
            partitions,
            &[("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("segment.ms", "86400000")],
            control,
        )?,
        Some(topic) if topic.partitions < partitions => topics::grow(cluster, name, partitions, control)?,
        Some(_) => {}
    }
    let policy = cluster.topic_settings(name)?.remove("cleanup.policy").unwrap_or_default();
    if policy != "compact" {
        return Err(Error::config(format!(
            "target: topic {name} has cleanup.policy={policy}: positions would be deleted"
        ))
        .hint(format!("set cleanup.policy=compact on {name}")));
    }
    Ok(())
}

/// Reads every position up to all that any transaction has written by now.
///
/// The high watermark is asked uncommitted and the last stable offset awaited: a transaction of an older run that is
/// still being ended would otherwise be invisible, and its events copied again.
///
/// # Errors
/// `External` when a transaction stays open for longer than its time-out and a minute.
pub fn read(cluster: &Cluster, name: &str, partitions: &[i32], control: &Control) -> Result<Positions> {
    let what = format!("target: read positions from topic {name}");
    let high = cluster.offsets(name, partitions, Spec::Latest, false)?;
    let deadline = Instant::now() + Duration::from_millis(TRANSACTION_TIMEOUT_MS) + Duration::from_secs(60);
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
    let mut found = Positions::new();
    read_to(cluster, name, &high, control, |message| {
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

/// Whether a topic holds an event that a `read_committed` consumer sees; records of aborted transactions do not count.
///
/// # Errors
/// As [`read`].
pub fn holds_events(cluster: &Cluster, topic: &str, partitions: i32, control: &Control) -> Result<bool> {
    let all: Vec<i32> = (0..partitions).collect();
    let ends = cluster.ends(topic, &all)?;
    let until: Vec<_> = ends.iter().filter(|e| e.start < e.last_stable).map(|e| (e.partition, e.last_stable)).collect();
    let mut found = false;
    read_to(cluster, topic, &until, control, |_| {
        found = true;
        Ok(false)
    })?;
    Ok(found)
}

/// Reads committed records of each partition from its start to the given end, until `take` says no more.
fn read_to(
    cluster: &Cluster,
    topic: &str,
    until: &[(i32, i64)],
    control: &Control,
    mut take: impl FnMut(&rdkafka::message::BorrowedMessage<'_>) -> Result<bool>,
) -> Result<()> {
    let what = format!("{}: read topic {topic}", cluster.role.name());
    let mut open: BTreeMap<i32, i64> = until.iter().copied().filter(|(_, end)| *end > 0).collect();
    if open.is_empty() {
        return Ok(());
    }
    let consumer: BaseConsumer<Context> = settings::consumer(&cluster.properties, "millpond-positions", 4096)
        .create_with_context(Context::default())
        .map_err(|error| settings::refused(cluster.role.name(), &error))?;
    let mut assignment = TopicPartitionList::new();
    for partition in open.keys() {
        assignment
            .add_partition_offset(topic, *partition, Offset::Beginning)
            .map_err(|error| Error::bug(what.clone()).because(error))?;
    }
    consumer.assign(&assignment).map_err(|error| Error::external(what.clone()).because(error))?;
    let deadline = Instant::now() + Duration::from_secs(120);
    while !open.is_empty() {
        control.check(&what)?;
        match consumer.poll(Duration::from_millis(100)) {
            None => {
                if Instant::now() > deadline {
                    return Err(Error::external(format!("{what}: partitions {:?} do not answer", open.keys())));
                }
            }
            Some(Ok(message)) => {
                if !take(&message)? {
                    return Ok(());
                }
                if open.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                    open.remove(&message.partition());
                }
            }
            // The end of a log that ends in a commit marker is told by EOF only; it fires at the last stable offset.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => {
                if Instant::now() > deadline {
                    return Err(Error::external(what).because(error));
                }
            }
        }
    }
    Ok(())
}
