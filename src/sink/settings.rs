//! What a sink run is told, and what it answers.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bridge::settings::{PartitionPosition, Properties};
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
    pub shard: Shard,
    pub start: Start,
    pub max_events: Option<u64>,
    pub max_seconds: Option<f64>,
    pub max_dead_letters: Option<u64>,
    pub ensure_indexes: bool,
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
    pub warnings: Vec<String>,
}
