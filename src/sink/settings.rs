//! What a sink run is told, and what it answers.

use std::collections::BTreeMap;

use mongodb::options::{Compressor, WriteConcern};
use serde::Serialize;

use super::identity::{BESIDE, Identity};
use crate::bridge::gaps::Gap;
use crate::bridge::settings::{OnGap, PartitionPosition, Properties, rates};
use crate::error::{Error, Result};
use crate::shard::Shard;

/// Where a partition begins that has no kept position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// The committed offsets of the consumer group: migration from a running consumer.
    Group,
    TimestampMs(i64),
}

/// The arguments of [`crate::sink::sink`]; `python/` checks types, `sink()` checks meaning, before any I/O.
#[derive(Clone)]
pub struct SinkSettings {
    pub source: Properties,
    /// Holds credentials: never shown (no `Debug`).
    pub mongo_uri: String,
    pub topic: String,
    pub database: String,
    pub collection: String,
    /// Default: `millpond-<database>.<collection>`.
    pub group_id: Option<String>,
    pub batch_size: usize,
    pub identity: Identity,
    pub shard: Shard,
    pub start: Start,
    pub max_events: Option<u64>,
    pub max_seconds: Option<f64>,
    /// Over the whole run; `None` for no limit.
    pub max_events_per_second: Option<f64>,
    /// As above; bytes of key and value.
    pub max_bytes_per_second: Option<f64>,
    pub max_dead_letters: Option<u64>,
    pub on_gap: OnGap,
    pub ensure_indexes: bool,
    /// How far an insert must have got; `None`: as the URI says, or a majority.
    pub write_concern: Option<WriteConcern>,
    /// Instead of those that the URI names, if any.
    pub compressors: Vec<Compressor>,
    /// Seconds after which dead letters expire; `None` keeps them.
    pub dead_letter_ttl: Option<u64>,
    /// Store `{topic, partition, offset, timestamp, key, headers}` under this field.
    pub metadata: Option<String>,
    /// Batches on their way to the server at once.
    pub in_flight: usize,
}

/// The books of a sink run (I1):
/// `read = inserted + already_present + replaced + superseded + deleted + dead_lettered`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SinkResult {
    pub topic: String,
    pub database: String,
    pub collection: String,
    pub read: u64,
    pub inserted: u64,
    pub already_present: u64,
    pub replaced: u64,
    pub superseded: u64,
    pub deleted: u64,
    pub dead_lettered: u64,
    pub dead_letters_by_reason: BTreeMap<String, u64>,
    pub batches: u64,
    pub bytes: u64,
    pub seconds: f64,
    /// Why the run ended: `end`, `max_events`, `max_seconds`.
    pub ended: String,
    pub lag: i64,
    pub held_back: i64,
    pub positions: Vec<PartitionPosition>,
    /// What was skipped under `on_gap="earliest"`.
    pub gaps: Vec<Gap>,
    /// How far an insert had got before it counted.
    pub write_concern: String,
    pub warnings: Vec<String>,
}

impl SinkSettings {
    /// The consumer group whose offsets are committed for lag tools.
    #[must_use]
    pub fn group(&self) -> String {
        self.group_id.clone().unwrap_or_else(|| format!("millpond-{}.{}", self.database, self.collection))
    }

    /// Checks what needs no server.
    ///
    /// # Errors
    /// `Config` naming the argument.
    pub fn check(&self) -> Result<()> {
        crate::bridge::settings::topic_name("topic", &self.topic)?;
        if self.database.is_empty() || self.database.contains(['/', '\\', '.', ' ', '"', '$', '\0']) {
            return Err(Error::config(format!("database: {:?} cannot be a database's name", self.database)));
        }
        let taken = |field: &str| field.is_empty() || field.contains('\0') || field == "_id" || field == "_source_id";
        if self.metadata.as_deref().is_some_and(taken) {
            return Err(Error::config("metadata: no usable field name").hint("not _id, not _source_id, no NUL"));
        }
        if self.identity.versioned() && self.metadata.as_deref() == Some(BESIDE) {
            return Err(Error::config(format!("metadata: {BESIDE} holds the version")).hint("give another name"));
        }
        rates(self.max_events_per_second, self.max_bytes_per_second)?;
        if self.dead_letter_ttl.is_some_and(|seconds| !(60..=i32::MAX as u64).contains(&seconds)) {
            return Err(Error::config("dead_letter_ttl: not from a minute to 68 years")
                .hint("leave it out to keep dead letters for ever"));
        }
        if !(1..=100_000).contains(&self.batch_size) {
            return Err(Error::config("batch_size: not from 1 to 100,000"));
        }
        if !(1..=64).contains(&self.in_flight) {
            return Err(Error::config("in_flight: not from 1 to 64"));
        }
        Ok(())
    }
}
