//! How far each source of a collection is stored: what the sinks keep beside the events, read.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bson::{Document, doc};
use foldhash::fast::FixedState;
use mongodb::Database;
use mongodb::options::FindOptions;

use super::moment::Moment;
use crate::error::Result;
use crate::mongo::positions::POSITIONS;
use crate::mongo::sources::SOURCES;

/// partition → next offset.
pub type Offsets = HashMap<u16, i64, FixedState>;
/// By tag; asked for each document.
pub type Sources = HashMap<u32, Offsets, FixedState>;

/// How far each source is stored: a report is a function of this.
#[derive(Debug, Default, Clone)]
pub struct Covered {
    pub sources: Sources,
    /// tag → `cluster/topic`.
    pub topics: HashMap<u32, String>,
    /// `cluster/topic/partition` → next offset.
    pub named: BTreeMap<String, i64>,
    /// The sink's `key` or `field:…`, where later events replace documents: then no position says what a report covers, every
    /// document counts, and the markers of tombstones are none.
    pub replaced_by: Option<String>,
    /// The collection's UUID, as the positions name it; several where some are of an earlier one.
    pub collection: String,
}

impl Covered {
    /// The same no further than positions by `cluster/topic/partition`, as a ledger has them.
    #[must_use]
    pub fn upto(&self, positions: &BTreeMap<String, i64>) -> Self {
        let mut earlier = self.clone();
        for (tag, partitions) in &mut earlier.sources {
            let Some(topic) = self.topics.get(tag) else { continue };
            for (partition, next) in partitions {
                *next = (*next).min(positions.get(&format!("{topic}/{partition}")).copied().unwrap_or(0));
            }
        }
        earlier
    }

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
pub async fn read(database: &Database, collection: &str, moment: &Moment) -> Result<Covered> {
    let find = |name: &'static str, filter: Document| async move {
        let found =
            async { moment.find(&database.collection(name), filter, FindOptions::default()).await?.all().await };
        found.await.map_err(|error| moment.meant(format!("aggregate: read {}.{name}", database.name()), error))
    };
    let mut covered = Covered::default();
    let mut uuids = BTreeSet::new();
    let (sources, positions) =
        tokio::try_join!(find(SOURCES, doc! {}), find(POSITIONS, doc! {"_id.collection": collection}))?;
    for tag in sources.iter().filter_map(|source| source.get_i64("_id").ok()) {
        // Known, though a sink may have died before its first position: then nothing of it is covered yet.
        covered.sources.entry(u32::try_from(tag).unwrap_or_default()).or_default();
    }
    for kept in positions {
        let (Ok(id), Ok(next)) = (kept.get_document("_id"), kept.get_i64("next")) else { continue };
        let (Ok(tag), Ok(partition)) = (id.get_i64("source"), id.get_i32("partition")) else { continue };
        let (Ok(tag), Ok(partition)) = (u32::try_from(tag), u16::try_from(partition)) else { continue };
        covered.sources.entry(tag).or_default().insert(partition, next);
        let source = sources.iter().find(|source| source.get_i64("_id").is_ok_and(|id| id == i64::from(tag)));
        let text = |name: &str| source.and_then(|source| source.get_str(name).ok()).unwrap_or("?");
        if let Some(uuid) = kept.get("collection_uuid") {
            uuids.insert(uuid.to_string());
        }
        let topic = format!("{}/{}", text("cluster"), text("topic"));
        covered.named.insert(format!("{topic}/{partition}"), next);
        covered.topics.insert(tag, topic);
        if let Ok(id) = kept.get_str("id")
            && id != "kafka"
        {
            covered.replaced_by = Some(id.to_owned());
        }
    }
    covered.collection = uuids.into_iter().collect::<Vec<_>>().join(" ");
    if covered.replaced_by.is_some() {
        covered.sources.clear();
    }
    Ok(covered)
}
