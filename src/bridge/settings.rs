//! What a bridge run is told, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::kafka::statistics::Summary;
use crate::shard::Shard;

pub use super::gaps::Gap;
pub use super::transform::Transform;
pub use crate::kafka::Properties;

/// Where a partition begins that has no kept position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// The first event at or after this time.
    TimestampMs(i64),
}

/// What a run does where a kept position no longer fits the source's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnGap {
    /// `PositionError`: the choice is the operator's.
    #[default]
    Fail,
    /// Go on from the log's start, and report what was skipped.
    Earliest,
}

/// Where dead letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetterTopic {
    /// `<target_topic>.dead_letters`.
    Default,
    /// The first dead letter ends the run with `DataError`.
    None,
    Named(String),
}

/// The arguments of [`crate::bridge::bridge`]; `python/` checks types, `bridge()` checks meaning, before any I/O.
#[derive(Debug, Clone)]
pub struct BridgeSettings {
    pub source: Properties,
    pub target: Properties,
    pub source_topic: String,
    pub target_topic: String,
    /// Default: `<source_topic>-to-<target_topic>`, with characters that a topic name cannot hold replaced by `-`.
    pub job: Option<String>,
    pub transform: Transform,
    pub shard: Shard,
    /// `None`: earliest, and refuse a target that already holds events while no position is kept.
    pub start: Option<Start>,
    pub max_events: Option<u64>,
    pub max_seconds: Option<f64>,
    /// Over all lanes of the run; `None` for no limit.
    pub max_events_per_second: Option<f64>,
    /// As above; bytes of key and value.
    pub max_bytes_per_second: Option<f64>,
    /// Whether the result holds what the clients counted.
    pub statistics: bool,
    pub dead_letter_topic: DeadLetterTopic,
    pub max_dead_letters: Option<u64>,
    pub on_gap: OnGap,
    /// How long a run waits at its start for transactions that are open on the source, seconds; `None`: not at all.
    pub wait_for_open_transactions: Option<f64>,
    /// Milliseconds; -1 is unlimited. Used when we create the target topic.
    pub target_retention_ms: i64,
    /// Checks of an existing target topic that are waived: `log_append_time`, `compaction`, `retention`.
    pub allow: Vec<String>,
    /// Whether statistics of the transaction batches etc. are kept small: events per transaction at most.
    pub transaction_events: u64,
    /// Bytes per transaction at most.
    pub transaction_bytes: u64,
}

/// One partition at the end of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartitionPosition {
    pub partition: i32,
    /// The next offset to read.
    pub next: i64,
    /// From the position to the last stable offset.
    pub lag: i64,
    /// High watermark − last stable offset: events of transactions still open.
    pub held_back: i64,
}

/// The books of a bridge run (I1): `read = written + filtered + dead_lettered`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BridgeResult {
    pub job: String,
    pub source_topic: String,
    pub target_topic: String,
    pub read: u64,
    pub written: u64,
    pub filtered: u64,
    pub dead_lettered: u64,
    pub dead_letters_by_reason: BTreeMap<String, u64>,
    pub transactions: u64,
    pub bytes: u64,
    pub seconds: f64,
    /// Why the run ended: `end`, `max_events`, `max_seconds`.
    pub ended: String,
    /// Events that remain, from the positions to the last stable offsets at the end of the run. Exact for a source that
    /// was written without transactions and is not compacted; else an upper bound, since holes and control records count.
    pub lag: i64,
    pub held_back: i64,
    /// What was skipped under `on_gap="earliest"`.
    pub gaps: Vec<Gap>,
    pub positions: Vec<PartitionPosition>,
    /// By `source` and `target`, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistics: Option<BTreeMap<&'static str, Summary>>,
    pub warnings: Vec<String>,
}

impl BridgeSettings {
    /// The job's name: given, or made from the two topics.
    #[must_use]
    pub fn job_name(&self) -> String {
        self.job.clone().unwrap_or_else(|| format!("{}-to-{}", self.source_topic, self.target_topic))
    }

    /// These settings with places for statistics, when they are asked for.
    #[must_use]
    pub fn counting(&self) -> Self {
        let mut settings = self.clone();
        if settings.statistics {
            settings.source.statistics = Some(Arc::default());
            settings.target.statistics = Some(Arc::default());
        }
        settings
    }

    /// Checks what needs no server.
    ///
    /// # Errors
    /// `Config` naming the argument.
    pub fn check(&self) -> Result<()> {
        topic_name("source_topic", &self.source_topic)?;
        topic_name("target_topic", &self.target_topic)?;
        topic_name("job", &format!("millpond.positions.{}", self.job_name()))?;
        if let DeadLetterTopic::Named(name) = &self.dead_letter_topic {
            topic_name("dead_letter_topic", name)?;
            if name == &self.target_topic {
                return Err(Error::config(format!("dead_letter_topic: {name} is the target topic itself")));
            }
        }
        if self.max_seconds.is_some_and(|seconds| !seconds.is_finite() || seconds <= 0.0 || seconds > 1e9) {
            return Err(Error::config("max_seconds: must be above 0 and finite"));
        }
        rates(self.max_events_per_second, self.max_bytes_per_second)?;
        for name in &self.allow {
            if !["log_append_time", "compaction", "retention"].contains(&name.as_str()) {
                return Err(Error::config(format!("allow: unknown check {name}"))
                    .hint("there are log_append_time, compaction, retention"));
            }
        }
        Ok(())
    }
}

/// Refuses limits of a throttle that are none.
///
/// # Errors
/// `Config` naming the argument.
pub fn rates(events_per_second: Option<f64>, bytes_per_second: Option<f64>) -> Result<()> {
    for (name, limit) in [("max_events_per_second", events_per_second), ("max_bytes_per_second", bytes_per_second)] {
        if limit.is_some_and(|limit| !limit.is_finite() || !(1e-3..=1e15).contains(&limit)) {
            return Err(Error::config(format!("{name}: must be above 0 and finite")).hint("leave it out for no limit"));
        }
    }
    Ok(())
}

/// Refuses what Kafka would not take as a topic's name.
///
/// # Errors
/// `Config` naming the argument.
pub fn topic_name(argument: &str, name: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.chars().all(legal) {
        return Err(Error::config(format!("{argument}: {name:?} cannot be in a topic's name"))
            .hint("letters, digits, '.', '_' and '-', at most 249"));
    }
    Ok(())
}
