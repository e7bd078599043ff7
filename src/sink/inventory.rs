//! A collection's kept positions beside the topic's logs, for people, and moved by an operator. Nothing fences a sink:
//! a position that moved since it was looked at is left alone, and that is an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::Database;
use serde::Serialize;

use super::recreated::{self, Older};
use super::store;
use crate::bridge::reset::To;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::native::Spec;
use crate::kafka::{Cluster, PartitionEnds, Properties, Role, Topic};
use crate::mongo::client::{self, majority, told};
use crate::mongo::positions::{POSITIONS, whole};
use crate::mongo::sources::{self, SOURCES};

/// Whose positions are shown or moved.
#[derive(Clone)]
pub struct Where {
    /// The cluster that the sink reads; without it, only what is kept is shown.
    pub source: Option<Properties>,
    /// Holds credentials: never shown (no `Debug`).
    pub mongo_uri: String,
    pub database: String,
    pub collection: String,
    /// Which topic, where the collection holds several.
    pub topic: Option<String>,
}

/// What to move.
#[derive(Clone)]
pub struct ResetSettings {
    pub place: Where,
    pub to: To,
    /// Empty: all of them.
    pub partitions: Vec<i32>,
    /// Otherwise only said.
    pub write: bool,
}

/// The positions of a collection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inventory {
    pub database: String,
    pub collection: String,
    pub positions: Vec<Place>,
    pub warnings: Vec<String>,
}

/// One partition of one source. What is not known is null.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Place {
    pub cluster: String,
    pub topic: String,
    pub topic_id: Option<String>,
    pub id: String,
    pub partition: i32,
    /// The next offset to read.
    pub next: i64,
    /// An earlier topic, left behind.
    pub closed: bool,
    pub start: Option<i64>,
    pub end: Option<i64>,
    pub lag: Option<i64>,
    /// What does not fit; empty where all does.
    pub problem: String,
    #[serde(skip)]
    tag: i64,
    #[serde(skip)]
    uuid: Option<Bson>,
}

/// What was moved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reset {
    pub database: String,
    pub collection: String,
    pub topic: String,
    pub written: bool,
    pub positions: Vec<Moved>,
}

/// One partition, before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moved {
    pub partition: i32,
    /// Null: no position was kept.
    pub before: Option<i64>,
    pub after: i64,
    /// Offsets that are read again; their events are found present.
    pub repeats: i64,
    /// Offsets that the topic still has and that no run will read.
    pub skips: i64,
    pub problem: String,
}

/// Shows the positions of a collection.
///
/// # Errors
/// `Config` when it keeps none; as [`client::connect`] and [`Cluster::connect`].
pub fn show(place: &Where, control: &Arc<Control>) -> Result<Inventory> {
    super::on_a_runtime(control, async {
        let database = client::connect(&place.mongo_uri).await?.database(&place.database);
        let mut positions = read(&database, place).await?;
        let uuid = store::uuid(&database, &place.collection).await?;
        let mut warnings = Vec::new();
        if let Some(properties) = &place.source {
            let cluster = tokio::task::block_in_place(|| Cluster::connect(properties, Role::Source, control))?;
            let topics: Vec<String> = positions.iter().map(|kept| kept.topic.clone()).collect();
            for name in topics.iter().filter(|name| place.topic.as_ref().is_none_or(|wanted| wanted == *name)) {
                tokio::task::block_in_place(|| compare(&cluster, name, &mut positions))?;
            }
            if positions.iter().any(|kept| kept.cluster != cluster.id) {
                warnings.push(format!("source is cluster {}: logs of other clusters are not compared", cluster.id));
            }
        }
        for kept in positions.iter_mut().filter(|kept| kept.uuid != uuid) {
            kept.problem = "the collection was recreated since".into();
        }
        Ok(Inventory { database: place.database.clone(), collection: place.collection.clone(), positions, warnings })
    })
}

/// Moves the positions of a collection, or says what would become of them.
///
/// # Errors
/// `Config` for a partition or offset that is not there, `External` when a run moved one meanwhile; as [`show`].
pub fn reset(settings: &ResetSettings, control: &Arc<Control>) -> Result<Reset> {
    super::on_a_runtime(control, async {
        let place = &settings.place;
        let Some(properties) = &place.source else {
            return Err(Error::config("positions reset: source is not given")
                .hint("give the cluster that the sink reads: positions are checked against its logs"));
        };
        let cluster = tokio::task::block_in_place(|| Cluster::connect(properties, Role::Source, control))?;
        let database = client::connect(&place.mongo_uri).await?.database(&place.database);
        let all = read(&database, place).await?;
        let name = topic_of(place, &all, &cluster)?;
        let topic = tokio::task::block_in_place(|| cluster.topic(&name))?;
        let mine: Vec<&Place> = all.iter().filter(|kept| kept.topic == name && kept.cluster == cluster.id).collect();
        let tag = i64::from(sources::tag(&cluster.id, topic.id.as_deref(), &name));
        let partitions = chosen(settings, &topic)?;
        let ends = tokio::task::block_in_place(|| cluster.ends(&name, &partitions))?;
        let mut positions = Vec::with_capacity(ends.len());
        for end in &ends {
            let kept = mine.iter().find(|kept| kept.partition == end.partition && kept.tag == tag && !kept.closed);
            let older = mine.iter().find(|kept| kept.partition == end.partition && kept.tag != tag && !kept.closed);
            let moved =
                || moved(settings, &cluster, &name, end, kept.map(|kept| kept.next), older.map(|kept| kept.next));
            positions.push(tokio::task::block_in_place(moved)?);
        }
        if settings.write {
            write(settings, &database, &cluster, &topic, &mine, &positions).await?;
        }
        Ok(Reset {
            database: place.database.clone(),
            collection: place.collection.clone(),
            topic: name,
            written: settings.write,
            positions,
        })
    })
}

async fn read(database: &Database, place: &Where) -> Result<Vec<Place>> {
    let all = |name: &'static str, filter: Document| async move {
        let found: std::result::Result<Vec<Document>, _> = async {
            database.collection::<Document>(name).find(filter).sort(doc! {"_id": 1}).await?.try_collect().await
        }
        .await;
        found.map_err(|error| told(format!("positions: read {}.{name}", database.name()), error))
    };
    let sources = all(SOURCES, doc! {}).await?;
    let mut positions = Vec::new();
    for kept in all(POSITIONS, doc! {"_id.collection": &place.collection}).await? {
        let Ok(id) = kept.get_document("_id") else { continue };
        let (Ok(tag), Ok(partition)) = (id.get_i64("source"), id.get_i32("partition")) else { continue };
        let Some(next) = whole(kept.get("next")) else { continue };
        let source = sources.iter().find(|source| source.get_i64("_id").is_ok_and(|known| known == tag));
        let text = |name: &str| source.and_then(|source| source.get_str(name).ok()).map(str::to_owned);
        positions.push(Place {
            cluster: text("cluster").unwrap_or_default(),
            topic: text("topic").or_else(|| kept.get_str("topic").ok().map(str::to_owned)).unwrap_or_default(),
            topic_id: text("topic_id"),
            id: kept.get_str("id").unwrap_or("kafka").to_owned(),
            partition,
            next,
            closed: kept.get_bool("closed").unwrap_or(false),
            tag,
            uuid: kept.get("collection_uuid").cloned(),
            ..Place::default()
        });
    }
    if positions.is_empty() {
        return Err(Error::config(format!(
            "positions: collection {}.{} keeps none",
            database.name(),
            place.collection
        ))
        .hint("check --database and --collection; a first run begins at its start="));
    }
    Ok(positions)
}

/// Puts the log of a topic beside its positions.
fn compare(cluster: &Cluster, name: &str, positions: &mut [Place]) -> Result<()> {
    let Some(topic) = cluster.find_topic(name)? else {
        for kept in positions.iter_mut().filter(|kept| kept.topic == name && kept.cluster == cluster.id) {
            kept.problem = "the topic does not exist".into();
        }
        return Ok(());
    };
    let ends = cluster.ends(name, &(0..topic.partitions).collect::<Vec<_>>())?;
    let mine = |kept: &&mut Place| kept.topic == name && kept.cluster == cluster.id && !kept.closed;
    for kept in positions.iter_mut().filter(mine) {
        if kept.topic_id != topic.id {
            kept.problem = format!("the topic was recreated (id {})", topic.id.as_deref().unwrap_or("none"));
            continue;
        }
        let Some(end) = ends.iter().find(|end| end.partition == kept.partition) else {
            kept.problem = "the topic has no such partition".into();
            continue;
        };
        kept.start = Some(end.start);
        kept.end = Some(end.last_stable);
        kept.lag = Some((end.last_stable - kept.next.max(end.start)).max(0));
        if kept.next < end.start {
            kept.problem = format!("offsets {}..{} were deleted before they were read", kept.next, end.start);
        } else if kept.next > end.high_watermark {
            kept.problem = format!("the position lies past the log's end {}", end.high_watermark);
        }
    }
    Ok(())
}

fn topic_of(place: &Where, all: &[Place], cluster: &Cluster) -> Result<String> {
    let mut names: Vec<&str> =
        all.iter().filter(|kept| kept.cluster == cluster.id).map(|kept| kept.topic.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    match (&place.topic, names.as_slice()) {
        (Some(wanted), names) if names.contains(&wanted.as_str()) => Ok(wanted.clone()),
        (None, [only]) => Ok((*only).to_owned()),
        (wanted, names) => Err(Error::config(format!(
            "positions reset: collection {} holds {} of cluster {}",
            place.collection,
            if names.is_empty() { "no topic".to_owned() } else { format!("topics {}", names.join(", ")) },
            cluster.id
        ))
        .hint(if wanted.is_some() {
            "check --topic and --source"
        } else {
            "name one: --topic; and check --source"
        })),
    }
}

fn chosen(settings: &ResetSettings, topic: &Topic) -> Result<Vec<i32>> {
    if let Some(unknown) = settings.partitions.iter().find(|partition| !(0..topic.partitions).contains(*partition)) {
        return Err(Error::config(format!(
            "positions reset: topic {} has no partition {unknown}, it has {}",
            topic.name, topic.partitions
        ))
        .hint("`millpond positions show` lists them"));
    }
    let mut chosen = settings.partitions.clone();
    if chosen.is_empty() {
        chosen.extend(0..topic.partitions);
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

fn moved(
    settings: &ResetSettings,
    cluster: &Cluster,
    name: &str,
    end: &PartitionEnds,
    kept: Option<i64>,
    older: Option<i64>,
) -> Result<Moved> {
    let place = format!("topic {name} partition {}", end.partition);
    if let Some(next) = kept.filter(|next| *next > end.high_watermark) {
        return Err(Error::position(format!(
            "positions reset: {place}: the position {next} lies past the log's end {}",
            end.high_watermark
        ))
        .hint(
            "these offsets come again for other events, whose _ids are taken: restore the topic, or store it in \
               another collection",
        ));
    }
    let fits = kept.is_some_and(|next| next >= end.start);
    let after = match settings.to {
        To::Kept => kept.filter(|_| fits).unwrap_or(end.start),
        To::Earliest => end.start,
        To::Latest => end.last_stable,
        To::Offset(offset) => offset,
        To::TimestampMs(time) => {
            let found = cluster.offsets(name, &[end.partition], Spec::TimestampMs(time), true)?;
            found.first().map(|found| found.1).filter(|offset| *offset >= 0).unwrap_or(end.last_stable)
        }
    };
    if after < end.start || after > end.high_watermark {
        return Err(Error::config(format!(
            "positions reset: {place}: offset {after} is not in its log {}..{}",
            end.start, end.high_watermark
        ))
        .hint("give an offset from start to end, or --partition"));
    }
    let read = kept.unwrap_or(end.start).max(end.start);
    let problem = match (kept, older) {
        (Some(next), _) if !fits => format!("offsets {next}..{} were deleted before they were read", end.start),
        (None, Some(next)) => format!("the topic was recreated: offsets {next}.. of the older one are gone"),
        _ => String::new(),
    };
    Ok(Moved {
        partition: end.partition,
        before: kept.or(older),
        after,
        repeats: (read - after).max(0),
        skips: (after - read).max(0),
        problem,
    })
}

async fn write(
    settings: &ResetSettings,
    database: &Database,
    cluster: &Cluster,
    topic: &Topic,
    mine: &[&Place],
    positions: &[Moved],
) -> Result<()> {
    let collection = &settings.place.collection;
    let wanted = store::Wanted { collection, index: false, letters_expire: false };
    let uuid = store::ensure(database, &wanted).await?.uuid;
    let tag = i64::from(sources::register(database, &cluster.id, topic.id.as_deref(), &topic.name).await?);
    let identity = mine.first().map_or("kafka", |kept| kept.id.as_str());
    let kept = database.collection::<Document>(POSITIONS);
    let what = |partition: i32| format!("positions reset: topic {} partition {partition}", topic.name);
    for moved in positions {
        let id = doc! {"collection": collection, "source": tag, "partition": moved.partition};
        let before =
            mine.iter().find(|kept| kept.partition == moved.partition && kept.tag == tag).map(|kept| kept.next);
        let whole = doc! {"next": moved.after, "collection_uuid": &uuid, "id": identity, "topic": &topic.name};
        let done = match before {
            Some(before) => {
                let filter = doc! {"_id": &id, "next": before};
                kept.replace_one(filter, whole).write_concern(majority()).await.map(|done| done.matched_count)
            }
            None => {
                let mut whole = whole;
                whole.insert("_id", id);
                kept.insert_one(whole).write_concern(majority()).await.map(|_| 1)
            }
        };
        if done.map_err(|error| told(what(moved.partition), error))? != 1 {
            return Err(Error::external(format!("{}: it moved meanwhile", what(moved.partition)))
                .hint("end the sinks of this collection first"));
        }
    }
    let mut older: BTreeMap<i64, BTreeMap<i32, i64>> = BTreeMap::new();
    for kept in mine.iter().filter(|kept| kept.tag != tag) {
        older.entry(kept.tag).or_default().insert(kept.partition, kept.next);
    }
    let older: Vec<Older> = older.into_iter().map(|(tag, next)| Older { tag, id: String::new(), next }).collect();
    recreated::close(database, collection, &older).await
}
