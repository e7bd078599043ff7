//! The native engine: parallel raw-batch cursors over a work queue of many small ranges.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bson::oid::ObjectId;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Collection, Database};

use super::instant;
use super::partial::{Partial, Wanted};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::mongo::client::told;
use crate::mongo::positions::POSITIONS;
use crate::mongo::sources::{SOURCES, event_id};

/// Hours of a day's ranges: about equal work for cursors that take the next one when they are done.
const HOURS: [&str; 12] = ["T02", "T04", "T06", "T08", "T10", "T12", "T14", "T16", "T18", "T20", "T22", "T23"];
/// Offsets of one range of a whole-collection read.
const OFFSETS: i64 = 200_000;

/// How far each source is stored: a report is a function of this.
#[derive(Debug, Default, Clone)]
pub struct Covered {
    /// tag → partition → next offset.
    pub sources: HashMap<u32, HashMap<u16, i64>>,
    /// `cluster/topic/partition` → next offset.
    pub named: std::collections::BTreeMap<String, i64>,
}

/// What a scan counts.
#[derive(Debug, Clone)]
pub struct Scope {
    pub covered: Arc<Covered>,
    /// `None`: every date.
    pub dates: Option<Arc<BTreeSet<i32>>>,
}

impl Wanted for Scope {
    fn date(&self, date: i32) -> bool {
        self.dates.as_ref().is_none_or(|dates| dates.contains(&date))
    }

    fn covered(&self, id: &[u8; 12]) -> Option<bool> {
        self.covered.holds(id)
    }
}

impl Covered {
    /// `Some(true)` below its source's position, `Some(false)` beyond it, `None` for an unknown source.
    #[must_use]
    pub fn holds(&self, id: &[u8; 12]) -> Option<bool> {
        let partitions = self.sources.get(&u32::from_be_bytes([id[0], id[1], id[2], id[3]]))?;
        let offset = i64::from_be_bytes([0, 0, id[6], id[7], id[8], id[9], id[10], id[11]]);
        let next = partitions.get(&u16::from_be_bytes([id[4], id[5]])).copied().unwrap_or(0);
        Some(offset < next)
    }
}

/// Reads positions and sources of a collection.
///
/// # Errors
/// As [`told`].
pub async fn covered(database: &Database, collection: &str) -> Result<Covered> {
    let read = |name: &'static str, filter: Document| async move {
        let found: Result<Vec<Document>, _> =
            async { database.collection::<Document>(name).find(filter).await?.try_collect().await }.await;
        found.map_err(|error| told(format!("aggregate: read {}.{name}", database.name()), error))
    };
    let mut covered = Covered::default();
    let sources = read(SOURCES, doc! {}).await?;
    for kept in read(POSITIONS, doc! {"_id.collection": collection}).await? {
        let (Ok(id), Ok(next)) = (kept.get_document("_id"), kept.get_i64("next")) else { continue };
        let (Ok(tag), Ok(partition)) = (id.get_i64("source"), id.get_i32("partition")) else { continue };
        let (Ok(tag), Ok(partition)) = (u32::try_from(tag), u16::try_from(partition)) else { continue };
        covered.sources.entry(tag).or_default().insert(partition, next);
        let source = sources.iter().find(|source| source.get_i64("_id").is_ok_and(|id| id == i64::from(tag)));
        let text = |name: &str| source.and_then(|source| source.get_str(name).ok()).unwrap_or("?");
        covered.named.insert(format!("{}/{}/{partition}", text("cluster"), text("topic")), next);
    }
    Ok(covered)
}

/// The ranges of the dates asked for, through the time index: texts by bare date text, BSON dates apart, and of the days
/// to each side the texts that do not end in `Z`, whose offset may bring them here.
#[must_use]
pub fn date_ranges(field: &str, dates: &BTreeSet<i32>) -> VecDeque<Document> {
    let mut ranges = VecDeque::new();
    let mut sides = BTreeSet::new();
    for date in dates {
        let (day, after) = (instant::text(*date), instant::text(date + 1));
        let mut low = day.clone();
        for high in HOURS.iter().map(|hour| format!("{day}{hour}")).chain([after]) {
            ranges.push_back(doc! {field: {"$gte": &low, "$lt": &high}});
            low = high;
        }
        let millis = i64::from(*date) * 86_400_000;
        let moment = |ms: i64| bson::DateTime::from_millis(ms);
        ranges.push_back(doc! {field: {"$gte": moment(millis), "$lt": moment(millis + 86_400_000)}});
        sides.extend([date - 1, date + 1].into_iter().filter(|side| !dates.contains(side)));
    }
    for side in sides {
        let range = doc! {"$gte": instant::text(side), "$lt": instant::text(side + 1), "$not": {"$regex": "Z$"}};
        ranges.push_back(doc! {field: range});
    }
    ranges
}

/// The ranges of the whole collection, through the `_id` index: each known source by partition and offset, and all that
/// lies between them.
///
/// # Errors
/// `Bug` for a position that fits into no `_id`.
pub fn all_ranges(covered: &Covered) -> Result<VecDeque<Document>> {
    let mut ranges = VecDeque::new();
    let mut tags: Vec<u32> = covered.sources.keys().copied().collect();
    tags.sort_unstable();
    let id = |tag, partition, offset| event_id(tag, partition, offset).map(ObjectId::from_bytes);
    let mut others = vec![doc! {"_id": {"$not": {"$type": "objectId"}}}];
    let mut low = ObjectId::from_bytes([0; 12]);
    for tag in &tags {
        others.push(doc! {"_id": {"$gte": low, "$lt": id(*tag, 0, 0)?}});
        let partitions = &covered.sources[tag];
        let last = partitions.keys().max().copied().unwrap_or(0);
        for partition in 0..=last {
            let next = partitions.get(&partition).copied().unwrap_or(0);
            let place = i32::from(partition);
            let mut from = 0;
            while from + OFFSETS < next {
                ranges
                    .push_back(doc! {"_id": {"$gte": id(*tag, place, from)?, "$lt": id(*tag, place, from + OFFSETS)?}});
                from += OFFSETS;
            }
            let end = doc! {"$gte": id(*tag, place, from)?, "$lte": id(*tag, place, (1 << 48) - 1)?};
            ranges.push_back(doc! {"_id": end});
        }
        low = id(*tag, i32::from(last), (1 << 48) - 1)?;
        others.push(doc! {"_id": {"$gt": low, "$lt": ObjectId::from_bytes(next_tag(*tag))}});
        low = ObjectId::from_bytes(next_tag(*tag));
    }
    if tags.last() != Some(&u32::MAX) {
        others.push(doc! {"_id": {"$gte": low, "$lte": ObjectId::from_bytes([0xff; 12])}});
    }
    ranges.extend(others);
    Ok(ranges)
}

fn next_tag(tag: u32) -> [u8; 12] {
    let mut id = [0; 12];
    id[..4].copy_from_slice(&tag.saturating_add(1).to_be_bytes());
    if tag == u32::MAX { [0xff; 12] } else { id }
}

/// Reads the ranges with `cursors` tasks, and merges what they fold.
///
/// # Errors
/// As [`told`]; `Cancelled`.
pub async fn run(
    events: &Collection<Document>,
    field: &str,
    ranges: VecDeque<Document>,
    scope: &Scope,
    cursors: usize,
    control: &Arc<Control>,
) -> Result<Partial> {
    let queue = Arc::new(Mutex::new(ranges));
    let tasks: Vec<_> = (0..cursors)
        .map(|_| {
            let (queue, events, scope) = (Arc::clone(&queue), events.clone(), scope.clone());
            let (field, control) = (field.to_owned(), Arc::clone(control));
            tokio::spawn(async move {
                let mut partial = Partial::default();
                loop {
                    let range = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(range) = range else { return Ok(partial) };
                    read(&events, &field, range, &scope, &control, &mut partial).await?;
                }
            })
        })
        .collect();
    let mut whole: Option<Partial> = None;
    for task in tasks {
        let partial: Partial =
            task.await.map_err(|error| Error::bug("aggregate: a cursor's task panicked").because(error))??;
        match &mut whole {
            None => whole = Some(partial),
            Some(whole) => whole.merge(partial),
        }
    }
    Ok(whole.unwrap_or_default())
}

async fn read(
    events: &Collection<Document>,
    field: &str,
    range: Document,
    scope: &Scope,
    control: &Control,
    partial: &mut Partial,
) -> Result<()> {
    let what = || format!("aggregate: read {}", events.name());
    let mut projection = doc! {"product_id": 1, "device_id": 1, "store_id": 1, "referrer_url": 1};
    projection.insert(field, 1);
    let by_id = range.contains_key("_id");
    let find = events.find(range).projection(projection).batch_size(10_000);
    // The planner might scan the collection for each of many small ranges: the index is named.
    let find = if by_id { find.hint(mongodb::options::Hint::Keys(doc! {"_id": 1})) } else { find };
    let mut batches = find.batch().await.map_err(|error| told(what(), error))?;
    while let Some(batch) = batches.try_next().await.map_err(|error| told(what(), error))? {
        control.check("aggregate: read documents")?;
        let before = partial.scanned;
        let documents = batch.doc_slices().map_err(|error| told(what(), error))?;
        for document in documents {
            let document = document.map_err(|error| Error::bug(what()).because(error))?;
            let raw = document.as_document().ok_or_else(|| Error::bug(what()))?;
            partial.fold(raw.as_bytes(), field.as_bytes(), scope);
        }
        control.add_read(partial.scanned - before);
    }
    Ok(())
}
