//! Transactions on the source that are still open: waited for when asked, and named. What they hold back lies between
//! the last stable offset, where every run ends, and the high watermark.
//!
//! librdkafka cannot ask a broker for its producers (KIP-664): since when a transaction is open is told by its first
//! record, who holds it by `kafka-transactions.sh describe-producers`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Timestamp;
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::settings::BridgeSettings;
use crate::control::{Control, Level};
use crate::error::Result;
use crate::kafka::{Cluster, PartitionEnds, PromptConsumer, Topic, settings as properties};

/// Partitions that a message names one by one.
const NAMED: usize = 16;
/// How long the first records of open transactions may take to be read; without them less is said.
const LOOK: Duration = Duration::from_secs(2);

/// Waits up to `wait_for_open_transactions` for the transactions that are open now; says what is left.
///
/// # Errors
/// As [`Cluster::ends`]; `Cancelled`.
pub fn wait(
    settings: &BridgeSettings,
    source: &Cluster,
    topic: &Topic,
    deadline: Option<Instant>,
    control: &Control,
) -> Result<Option<String>> {
    let Some(seconds) = settings.wait_for_open_transactions else { return Ok(None) };
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(seconds);
    let until = deadline.map_or(until, |deadline| deadline.min(until));
    let mine: Vec<i32> = (0..topic.partitions).filter(|partition| settings.shard.owns(*partition)).collect();
    let first = source.ends(&topic.name, &mine)?;
    let mut open: Vec<PartitionEnds> =
        first.iter().filter(|end| end.last_stable < end.high_watermark).copied().collect();
    if open.is_empty() {
        return Ok(None);
    }
    control.log(Level::Info, format!("bridge: topic {}: waits up to {seconds} s for open transactions", topic.name));
    while !open.is_empty() {
        if Instant::now() >= until {
            let waited = began.elapsed().as_secs_f64();
            let told = format!("waited {waited:.1} s for open transactions; {}", held_back(source, topic, &open));
            control.log(Level::Warning, format!("bridge: {told}"));
            return Ok(Some(told));
        }
        control.sleep("bridge: wait for open transactions", Duration::from_millis(200))?;
        let partitions: Vec<i32> = open.iter().map(|end| end.partition).collect();
        let now = source.ends(&topic.name, &partitions)?;
        open.retain_mut(|end| {
            // As far as the log reached at first: what was begun meanwhile is the next run's.
            if let Some(now) = now.iter().find(|now| now.partition == end.partition) {
                end.last_stable = now.last_stable;
            }
            end.last_stable < end.high_watermark
        });
    }
    Ok(None)
}

/// Names what open transactions hold back: topic, partitions, how much, since when.
#[must_use]
pub fn held_back(source: &Cluster, topic: &Topic, ends: &[PartitionEnds]) -> String {
    let held: Vec<&PartitionEnds> = ends.iter().filter(|end| end.last_stable < end.high_watermark).collect();
    let all: i64 = held.iter().map(|end| end.high_watermark - end.last_stable).sum();
    let since = first_records(source, topic, held.iter().take(NAMED).copied()).unwrap_or_default();
    let each: Vec<String> = held
        .iter()
        .take(NAMED)
        .map(|end| {
            let since = since.get(&end.partition).map(|time| format!(" since {time}")).unwrap_or_default();
            format!("partition {}: {}{since}", end.partition, end.high_watermark - end.last_stable)
        })
        .collect();
    let more = if held.len() > NAMED { format!(", and {} partitions more", held.len() - NAMED) } else { String::new() };
    let first = held.first().map_or(0, |end| end.partition);
    format!(
        "topic {name}: {all} offsets are held back by open transactions ({}{more}); `kafka-transactions.sh describe-producers --topic {name} --partition {first}` names the producer",
        each.join(", "),
        name = topic.name
    )
}

/// The times of the first records of the oldest open transactions: they stand at the last stable offsets.
fn first_records<'a>(
    source: &Cluster,
    topic: &Topic,
    ends: impl Iterator<Item = &'a PartitionEnds>,
) -> Option<BTreeMap<i32, String>> {
    let mut config = properties::consumer(&source.properties, "millpond-metadata", 1024, 256);
    config.set("isolation.level", "read_uncommitted");
    let consumer = PromptConsumer::open(config, &source.properties, source.role).ok()?;
    let mut assignment = TopicPartitionList::new();
    let mut left = 0;
    for end in ends {
        assignment.add_partition_offset(&topic.name, end.partition, Offset::Offset(end.last_stable)).ok()?;
        left += 1;
    }
    consumer.assign(&assignment).ok()?;
    let until = Instant::now() + LOOK;
    let mut found = BTreeMap::new();
    while found.len() < left && Instant::now() < until {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let (Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms)) = message.timestamp() else { continue };
            if let Ok(time) = jiff::Timestamp::from_millisecond(ms) {
                found.entry(message.partition()).or_insert_with(|| format!("{time:.0}"));
            }
        }
    }
    Some(found)
}
