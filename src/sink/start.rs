//! Where each partition begins. MongoDB's position is authoritative; the consumer group's
//! offsets are committed for lag tools only.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::gaps::Gaps;
use super::reader::Part;
use super::recreated::{self, Older};
use super::settings::{SinkSettings, Start};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::native::Spec;
use crate::kafka::{Cluster, PromptConsumer, Topic, settings as kafka_settings};

/// Decides where each partition of this shard begins.
///
/// # Errors
/// `Position` for a gap.
pub fn parts(
    settings: &SinkSettings,
    cluster: &Cluster,
    topic: &Topic,
    kept: &BTreeMap<i32, i64>,
    older: &[Older],
    gaps: &mut Gaps,
    control: &Control,
) -> Result<Vec<Part>> {
    let mine: Vec<i32> = (0..topic.partitions).filter(|partition| settings.shard.owns(*partition)).collect();
    let ends = cluster.ends(&topic.name, &mine)?;
    recreated::accept(older, topic, &ends, &settings.collection, gaps, control)?;
    let group = if settings.start == Start::Group { group_offsets(cluster, settings, &mine)? } else { BTreeMap::new() };
    let mut parts = Vec::with_capacity(mine.len());
    for end in ends {
        let next = match kept.get(&end.partition) {
            Some(next) => gaps.resume(cluster, &topic.name, &end, *next, control)?,
            None => match settings.start {
                Start::Earliest => end.start,
                Start::Latest => end.last_stable,
                Start::Group => {
                    let next = *group.get(&end.partition).unwrap_or(&end.start);
                    gaps.resume(cluster, &topic.name, &end, next, control)?
                }
                Start::TimestampMs(time) => {
                    let found = cluster.offsets(&topic.name, &[end.partition], Spec::TimestampMs(time), true)?;
                    found.first().map(|found| found.1).filter(|offset| *offset >= 0).unwrap_or(end.last_stable)
                }
            },
        };
        control.add_total(u64::try_from(end.last_stable - next).unwrap_or(0));
        parts.push(Part { partition: end.partition, next, end: end.last_stable.max(next) });
    }
    Ok(parts)
}

fn group_consumer(cluster: &Cluster, settings: &SinkSettings) -> Result<PromptConsumer> {
    let config = kafka_settings::consumer(&cluster.properties, &settings.group(), 1024, 256);
    PromptConsumer::open(config, &cluster.properties, cluster.role)
}

fn group_offsets(cluster: &Cluster, settings: &SinkSettings, partitions: &[i32]) -> Result<BTreeMap<i32, i64>> {
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition(&settings.topic, *partition);
    }
    let found = group_consumer(cluster, settings)?
        .committed_offsets(asked, Duration::from_secs(8))
        .map_err(|error| Error::external(format!("source: offsets of group {}", settings.group())).because(error))?;
    Ok(found
        .elements()
        .iter()
        .filter_map(|entry| match entry.offset() {
            Offset::Offset(offset) => Some((entry.partition(), offset)),
            _ => None,
        })
        .collect())
}

/// Tells the consumer group how far we are, for tools that show lag.
///
/// # Errors
/// Any: the caller makes a warning of it.
pub fn commit_group(consumer: &PromptConsumer, settings: &SinkSettings, next: &BTreeMap<i32, i64>) -> Result<()> {
    let what = || Error::external(format!("source: offsets of group {}", settings.group()));
    let mut offsets = TopicPartitionList::new();
    for (partition, next) in next {
        offsets
            .add_partition_offset(&settings.topic, *partition, Offset::Offset(*next))
            .map_err(|error| what().because(error))?;
    }
    consumer.commit(&offsets, CommitMode::Sync).map_err(|error| what().because(error))
}
