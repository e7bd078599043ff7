//! A topic that was deleted and made again: another source, with a tag and positions of its own.
//!
//! [`older`] finds what the collection holds of earlier ones at a start. Positions of an older one that was left behind are
//! kept, since reports count its documents by them; they say `closed`. [`Watch`] sees to it that nothing of another topic is
//! stored under the `_id`s of this one: the client goes on in it at the offset where it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::Database;
use rdkafka::consumer::Consumer;
use tokio::sync::Mutex;

use super::gaps::Gaps;
use super::settings::SinkSettings;
use crate::bridge::gaps::Gap;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::native::{self, TopicId};
use crate::kafka::{Cluster, PartitionEnds, Topic};
use crate::mongo::client::{majority, told};
use crate::mongo::positions::{POSITIONS, whole};
use crate::mongo::sources::SOURCES;

/// How long a look at the topic may take.
const LOOK: Duration = Duration::from_secs(2);

/// An earlier topic of the same name.
#[derive(Debug)]
pub struct Older {
    pub tag: i64,
    pub id: String,
    /// By partition of this shard, what was stored of it.
    pub next: BTreeMap<i32, i64>,
}

/// The earlier topics of this name that fed the collection and were not left behind yet, as far as this shard goes.
///
/// # Errors
/// As [`told`].
pub async fn older(database: &Database, settings: &SinkSettings, cluster: &str, topic: &Topic) -> Result<Vec<Older>> {
    let filter = doc! {"cluster": cluster, "topic": &topic.name, "topic_id": {"$ne": topic.id.as_deref()}};
    let sources: Vec<Document> =
        async { database.collection::<Document>(SOURCES).find(filter).await?.try_collect().await }
            .await
            .map_err(|error| told("sink: read the sources", error))?;
    let mut all = Vec::new();
    for source in sources {
        let tag = source.get_i64("_id").unwrap_or(-1);
        let filter = doc! {"_id.collection": &settings.collection, "_id.source": tag, "closed": {"$ne": true}};
        let kept: Vec<Document> =
            async { database.collection::<Document>(POSITIONS).find(filter).await?.try_collect().await }
                .await
                .map_err(|error| told("sink: read the positions", error))?;
        let next: BTreeMap<i32, i64> = kept
            .iter()
            .filter_map(|kept| {
                let partition = kept.get_document("_id").ok()?.get_i32("partition").ok()?;
                Some((partition, whole(kept.get("next"))?))
            })
            .filter(|(partition, _)| settings.shard.owns(*partition))
            .collect();
        if !kept.is_empty() {
            all.push(Older { tag, id: source.get_str("topic_id").unwrap_or("none").to_owned(), next });
        }
    }
    Ok(all)
}

/// Takes the loss of what was not stored of earlier topics, if the run may.
///
/// # Errors
/// `Position` telling both ways on.
pub fn accept(
    older: &[Older],
    topic: &Topic,
    ends: &[PartitionEnds],
    collection: &str,
    gaps: &mut Gaps,
    control: &Control,
) -> Result<()> {
    for earlier in older {
        for (partition, next) in &earlier.next {
            let to = ends.iter().find(|end| end.partition == *partition).map_or(0, |end| end.start);
            let told = format!(
                "the topic was recreated (id {}, collection {collection} was fed from id {}): offsets {next}.. of the \
                 older one are gone",
                topic.id.as_deref().unwrap_or("none"),
                earlier.id
            );
            gaps.take(&topic.name, Gap { partition: *partition, from: *next, to }, &told, control)?;
        }
    }
    Ok(())
}

/// Says of the positions of earlier topics that they were left behind.
///
/// # Errors
/// As [`told`].
pub async fn close(database: &Database, collection: &str, older: &[Older]) -> Result<()> {
    let positions = database.collection::<Document>(POSITIONS);
    for earlier in older {
        let partitions: Vec<i32> = earlier.next.keys().copied().collect();
        let filter =
            doc! {"_id.collection": collection, "_id.source": earlier.tag, "_id.partition": {"$in": partitions}};
        let update = doc! {"$set": {"closed": true}};
        let done = positions.update_many(filter, update).write_concern(majority()).await;
        done.map_err(|error| told("sink: close the positions of an earlier topic", error))?;
    }
    Ok(())
}

/// Looks whether the topic is still the one that the run began with. One look serves every batch that was read before it.
pub struct Watch {
    cluster: Arc<Cluster>,
    topic: Topic,
    looked: Mutex<Option<Instant>>,
}

impl Watch {
    /// For a run over `topic`.
    #[must_use]
    pub fn new(cluster: &Arc<Cluster>, topic: &Topic) -> Self {
        Self { cluster: Arc::clone(cluster), topic: topic.clone(), looked: Mutex::new(None) }
    }

    /// What was read until `read` came from the topic that the run began with. Ids never come back.
    ///
    /// # Errors
    /// `Position` when it was recreated since.
    pub async fn vouch(&self, read: Instant) -> Result<()> {
        let Some(before) = &self.topic.id else { return Ok(()) };
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|looked| looked >= read) {
            return Ok(());
        }
        let began = Instant::now();
        let (cluster, name) = (Arc::clone(&self.cluster), self.topic.name.clone());
        let found = tokio::task::spawn_blocking(move || native::topic_id(cluster.client.client(), &name, LOOK)).await;
        match found {
            Ok(Ok(TopicId::Known(now))) if now != *before => Err(Error::position(format!(
                "sink: topic {} was recreated (id {now}) while it was being read",
                self.topic.name
            ))
            .hint("run it again: it tells what was lost, and the ways on")),
            // A source that does not answer now, or is gone, was not another one.
            _ => {
                *looked = Some(began);
                Ok(())
            }
        }
    }
}
