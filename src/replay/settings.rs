//! What a replay is told, and what it answers.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bridge::settings::{Properties, Transform, topic_name};
use crate::error::{Error, Result};

/// Which letters are sent; what is left out chooses all.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    pub reasons: Vec<String>,
    /// When they became letters, from and to (both in), milliseconds since 1970.
    pub since_ms: Option<i64>,
    pub until_ms: Option<i64>,
    /// Where their events came from.
    pub source_topic: Option<String>,
    pub partition: Option<i32>,
    /// Offsets of their events in the source, both in.
    pub first_offset: Option<i64>,
    pub last_offset: Option<i64>,
}

/// The arguments of [`crate::replay::replay`].
#[derive(Debug, Clone)]
pub struct ReplaySettings {
    pub target: Properties,
    pub target_topic: String,
    /// Default: `<target_topic>.dead_letters`.
    pub dead_letter_topic: Option<String>,
    /// The job that wrote the letters. Default: by the letter, `<source_topic>-to-<target_topic>`.
    pub job: Option<String>,
    pub transform: Transform,
    pub chosen: Chosen,
    /// As in a bridge.
    pub allow: Vec<String>,
    pub transaction_letters: u64,
}

/// A letter that failed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Where the letter stays.
    pub partition: i32,
    pub offset: i64,
    /// Where its event came from: `topic/partition/offset`; empty when it does not say.
    pub source: String,
    pub reason: String,
    pub detail: String,
}

/// The books of a replay: `chosen = written + filtered + already_replayed + failed`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReplayResult {
    pub target_topic: String,
    pub dead_letter_topic: String,
    /// Letters looked at.
    pub read: u64,
    pub chosen: u64,
    pub written: u64,
    /// Left out by the transform: nothing was written, and no mark is kept.
    pub filtered: u64,
    pub already_replayed: u64,
    /// Letters that fail again; they stay where they are.
    pub failed: u64,
    pub failed_by_reason: BTreeMap<String, u64>,
    /// The first of them.
    pub failures: Vec<Failure>,
    pub transactions: u64,
    pub bytes: u64,
    pub seconds: f64,
    pub warnings: Vec<String>,
}

impl ReplaySettings {
    /// The dead-letter topic: given, or made from the target's name.
    #[must_use]
    pub fn letters(&self) -> String {
        self.dead_letter_topic.clone().unwrap_or_else(|| format!("{}.dead_letters", self.target_topic))
    }

    /// The topic that keeps which letters were replayed.
    #[must_use]
    pub fn marks(&self) -> String {
        format!("millpond.replayed.{}", self.letters())
    }

    /// Checks what needs no server.
    ///
    /// # Errors
    /// `Config` naming the argument.
    pub fn check(&self) -> Result<()> {
        topic_name("target_topic", &self.target_topic)?;
        topic_name("dead_letter_topic", &self.letters())?;
        topic_name("dead_letter_topic", &self.marks())?;
        if self.letters() == self.target_topic {
            return Err(Error::config("dead_letter_topic: it is the target topic itself")
                .hint("leave it out for <target_topic>.dead_letters"));
        }
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
}
