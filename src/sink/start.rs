//! Where each partition begins, and the gaps that are refused. MongoDB's position is authoritative; the consumer group's
//! offsets are committed for lag tools only.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::Database;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::reader::Part;
use super::settings::{SinkSettings, Start};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::native::Spec;
use crate::kafka::{Cluster, PartitionEnds, PromptConsumer, Topic, settings as kafka_settings};
use crate::mongo::client::told;
use crate::mongo::positions::POSITIONS;
use crate::mongo::sources::SOURCES;

/// Refuses a topic that was deleted and made again since this collection was fed from it.
///
/// # Errors
/// `Position` naming both ids.
pub async fn refuse_recreated(database: &Database, collection: &str, cluster: &str, topic: &Topic) -> Result<()> {
    let filter = doc! {"cluster": cluster, "topic": &topic.name, "topic_id": {"$ne": topic.id.as_deref()}};
    let sources: Vec<Document> =
        async { database.collection::<Document>(SOURCES).find(filter).await?.try_collect().await }
            .await
            .map_err(|error| told("sink: read the sources", error))?;
    for older in sources {
        let tag = older.get_i64("_id").unwrap_or(-1);
        let mine = doc! {"_id.collection": collection, "_id.source": tag};
        let fed = database
            .collection::<Document>(POSITIONS)
            .find_one(mine)
            .await
            .map_err(|error| told("sink: read the positions", error))?;
        if fed.is_some() {
            return Err(Error::position(format!(
                "sink: topic {} was recreated (id {}, collection {collection} was fed from id {})",
                topic.name,
                topic.id.as_deref().unwrap_or("none"),
                older.get_str("topic_id").unwrap_or("none")
            ))
            .hint(format!(
                "events of the older one that were not stored are gone; to go on, delete its positions from {POSITIONS}"
            )));
        }
    }
    Ok(())
}

/// Decides where each partition of this shard begins.
///
/// # Errors
/// `Position` for a gap.
pub fn parts(
    settings: &SinkSettings,
    cluster: &Cluster,
    topic: &Topic,
    kept: &BTreeMap<i32, i64>,
    control: &Control,
) -> Result<Vec<Part>> {
    let mine: Vec<i32> = (0..topic.partitions).filter(|partition| settings.shard.owns(*partition)).collect();
    let ends = cluster.ends(&topic.name, &mine)?;
    let group = if settings.start == Start::Group { group_offsets(cluster, settings, &mine)? } else { BTreeMap::new() };
    let mut parts = Vec::with_capacity(mine.len());
    for end in ends {
        let next = match kept.get(&end.partition) {
            Some(next) => resume(cluster, topic, &end, *next, control)?,
            None => match settings.start {
                Start::Earliest => end.start,
                Start::Latest => end.last_stable,
                Start::Group => {
                    resume(cluster, topic, &end, *group.get(&end.partition).unwrap_or(&end.start), control)?
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

fn resume(cluster: &Cluster, topic: &Topic, end: &PartitionEnds, next: i64, control: &Control) -> Result<i64> {
    let place = format!("topic {} partition {}", topic.name, end.partition);
    if next < end.start {
        return Err(Error::position(format!(
            "sink: {place}: offsets {next}..{} were deleted before they were read",
            end.start
        ))
        .hint(format!(
            "two ways on: restore the topic, or accept the loss by deleting the partition's position from {POSITIONS}"
        )));
    }
    if next > end.high_watermark {
        control.sleep("sink: ask a log end again", Duration::from_secs(1))?;
        let again = cluster.ends(&topic.name, &[end.partition])?;
        if again.first().is_none_or(|again| next > again.high_watermark) {
            return Err(Error::position(format!(
                "sink: {place}: the position {next} lies past the log's end {}",
                end.high_watermark
            ))
            .hint("events were lost or the topic was emptied: restore it, or delete the partition's position"));
        }
    }
    Ok(next)
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
