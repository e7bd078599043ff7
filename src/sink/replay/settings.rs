//! What a replay of stored dead letters is told, and what it answers.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};
use serde::Serialize;

use crate::bridge::settings::Transform;
use crate::error::{Error, Result};
use crate::replay::settings::Chosen;

/// The arguments of [`super::replay`].
#[derive(Clone)]
pub struct ReplaySettings {
    /// Holds credentials: never shown (no `Debug`).
    pub mongo_uri: String,
    pub database: String,
    /// The collection of the events, not that of the letters.
    pub collection: String,
    pub transform: Transform,
    /// As the sink's.
    pub metadata: Option<String>,
    /// Which letters; the times are those of their events.
    pub chosen: Chosen,
    pub batch_size: usize,
}

/// A letter that failed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The letter's `_id`, in hex digits.
    pub id: String,
    /// Where its event came from: `topic/partition/offset`.
    pub source: String,
    pub reason: String,
    pub detail: String,
}

/// The books of a replay:
/// `chosen = inserted + already_present + replaced + superseded + deleted + filtered + already_replayed + failed`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReplayResult {
    /// The name under which `millpond_replays` and the letters know this replay.
    pub run: String,
    pub database: String,
    pub collection: String,
    pub dead_letter_collection: String,
    pub chosen: u64,
    pub inserted: u64,
    pub already_present: u64,
    pub replaced: u64,
    pub superseded: u64,
    pub deleted: u64,
    /// Left out by the transform: nothing was written, and another replay may want it.
    pub filtered: u64,
    pub already_replayed: u64,
    /// They stay what they are.
    pub failed: u64,
    pub failed_by_reason: BTreeMap<String, u64>,
    /// The first of them.
    pub failures: Vec<Failure>,
    pub seconds: f64,
    pub warnings: Vec<String>,
}

impl ReplayResult {
    /// I1: every letter chosen ended in exactly one place.
    ///
    /// # Errors
    /// `Bug` when it did not.
    pub fn balance(&self) -> Result<()> {
        let stored = self.inserted + self.already_present + self.replaced + self.superseded + self.deleted;
        let placed = stored + self.filtered + self.already_replayed + self.failed;
        if self.chosen == placed {
            return Ok(());
        }
        Err(Error::bug(format!("replay: the books do not balance: chosen {} != {placed} placed", self.chosen)))
    }
}

impl ReplaySettings {
    /// Checks what needs no server.
    ///
    /// # Errors
    /// `Config` naming the argument.
    pub fn check(&self) -> Result<()> {
        let chosen = &self.chosen;
        for (from, to, names) in
            [(chosen.since_ms, chosen.until_ms, "since, until"), (chosen.first_offset, chosen.last_offset, "offsets")]
        {
            if from.zip(to).is_some_and(|(from, to)| from > to) {
                return Err(Error::config(format!("{names}: the end lies before the beginning"))
                    .hint("both ends are in the range"));
            }
        }
        Ok(())
    }

    /// Finds the first pieces of the letters that are chosen.
    #[must_use]
    pub fn filter(&self) -> Document {
        let chosen = &self.chosen;
        let mut filter = doc! {"_id": {"$type": "objectId"}};
        if !chosen.reasons.is_empty() {
            filter.insert("reason", doc! {"$in": &chosen.reasons});
        }
        if let Some(topic) = &chosen.source_topic {
            filter.insert("topic", topic);
        }
        if let Some(partition) = chosen.partition {
            filter.insert("partition", partition);
        }
        let mut range = |name: &str, first: Option<Bson>, last: Option<Bson>| {
            let mut within = Document::new();
            within.extend(first.map(|first| ("$gte".to_owned(), first)));
            within.extend(last.map(|last| ("$lte".to_owned(), last)));
            if !within.is_empty() {
                filter.insert(name, within);
            }
        };
        range("offset", chosen.first_offset.map(Bson::Int64), chosen.last_offset.map(Bson::Int64));
        let date = |ms| Bson::DateTime(bson::DateTime::from_millis(ms));
        range("timestamp", chosen.since_ms.map(date), chosen.until_ms.map(date));
        filter
    }
}
