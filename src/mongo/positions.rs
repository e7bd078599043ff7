//! `millpond_positions`: how far each partition of a source is stored in a collection. Moved with `$max` and majority,
//! so that no writer, however late, moves one back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use mongodb::Database;

use super::client::{majority, told};
use crate::error::{Error, Result};

/// How long a position is tried to be raised.
const DEADLINE: Duration = Duration::from_secs(30);

/// The collection's name.
pub const POSITIONS: &str = "millpond_positions";

/// Where the positions of one source in one collection are kept.
#[derive(Debug, Clone)]
pub struct Place {
    pub collection: String,
    pub tag: u32,
    pub topic: String,
    /// How ids are made: `kafka`, `key`, `field:…`.
    pub identity: String,
    /// The collection's UUID: a dropped and recreated one has another.
    pub uuid: Bson,
}

/// Reads the positions by partition.
///
/// # Errors
/// `Position` when they were kept for a collection that has been recreated since.
pub async fn read(database: &Database, place: &Place) -> Result<BTreeMap<i32, i64>> {
    let what = format!("mongodb: read {}.{POSITIONS}", database.name());
    let filter = doc! {"_id.collection": &place.collection, "_id.source": i64::from(place.tag)};
    let found: Vec<Document> =
        async { database.collection::<Document>(POSITIONS).find(filter).await?.try_collect().await }
            .await
            .map_err(|error| told(what.clone(), error))?;
    let mut positions = BTreeMap::new();
    for kept in found {
        let id = kept.get_document("_id").map_err(|error| Error::bug(what.clone()).because(error))?;
        let partition = id.get_i32("partition").map_err(|error| Error::bug(what.clone()).because(error))?;
        let next = whole(kept.get("next"))
            .ok_or_else(|| Error::position(format!("{what}: next of partition {partition} is no offset")))?;
        if kept.get("collection_uuid") != Some(&place.uuid) {
            return Err(Error::position(format!(
                "sink: collection {} was recreated since topic {} partition {partition} was stored up to offset {next}",
                place.collection, place.topic
            ))
            .hint(format!(
                "`millpond positions reset --database {} --collection {}` goes on from there in the new one; with --to earliest \
                 what the topic still has is stored again",
                database.name(),
                place.collection
            )));
        }
        positions.insert(partition, next);
    }
    Ok(positions)
}

/// A whole number, also of the types that a shell writes.
#[must_use]
pub fn whole(value: Option<&Bson>) -> Option<i64> {
    match value? {
        Bson::Int64(number) => Some(*number),
        Bson::Int32(number) => Some(i64::from(*number)),
        #[allow(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
        Bson::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(*number as i64),
        _ => None,
    }
}

/// Raises positions by partition, all at once: each costs the time of a majority's answer.
///
/// # Errors
/// As [`told`].
pub async fn raise(database: &Database, place: &Place, positions: &BTreeMap<i32, i64>) -> Result<()> {
    try_join_all(positions.iter().map(|(partition, next)| raise_one(database, place, *partition, *next))).await?;
    Ok(())
}

async fn raise_one(database: &Database, place: &Place, partition: i32, next: i64) -> Result<()> {
    let id = doc! {"collection": &place.collection, "source": i64::from(place.tag), "partition": partition};
    let update = doc! {
        "$max": {"next": next},
        "$setOnInsert": {"collection_uuid": &place.uuid, "id": &place.identity, "topic": &place.topic},
    };
    let what = || format!("mongodb: raise the position of topic {} partition {partition} to {next}", place.topic);
    let (began, mut attempts) = (Instant::now(), 0);
    loop {
        let positions = database.collection::<Document>(POSITIONS);
        let done = positions.update_one(doc! {"_id": &id}, update.clone()).upsert(true).write_concern(majority()).await;
        match done {
            Ok(_) => return Ok(()),
            Err(error) => {
                let error = told(what(), error);
                attempts += 1;
                // Two writers that upsert at once: the second sees a duplicate key, and finds the document next time.
                if !error.retryable() || began.elapsed() > DEADLINE {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(100 * attempts.min(10))).await;
            }
        }
    }
}
