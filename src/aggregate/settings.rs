//! What an aggregate run is told, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use polars::frame::DataFrame;
use serde::{Deserialize, Serialize};

use super::incremental::Increment;
use super::instant;
use super::publish::checks::Check;
use super::remote::Engine;
use super::reports::calls::Functions;
use super::reports::definition::Definition;
use crate::error::{Error, Result};

/// What [`AggregateSettings::memory_limit`] is when nothing is said.
pub const MEMORY_LIMIT: u64 = 1 << 30;
/// What [`AggregateSettings::keep_partials_days`] is when nothing is said.
pub const KEEP_DAYS: u32 = 35;
/// Below it even small runs would be cut into pieces.
const LEAST_MEMORY: u64 = 1 << 16;
/// The longest look back, in days: a century.
const LONGEST: u32 = 40_000;

/// Which dates to report, as the user wrote them; `lookback_days` is applied on top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dates {
    Latest,
    All,
    /// Those that received events since the last run that asked for this.
    Changed,
    /// `YYYY-MM-DD`, in any order, duplicates allowed.
    List(Vec<String>),
    /// `YYYY-MM-DD..YYYY-MM-DD`, both ends in.
    Range(String, String),
}

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All documents of the dates.
    Full,
    /// The documents beyond the kept Partials of the dates; all of those that have none.
    Incremental,
}

/// The arguments of [`crate::aggregate::aggregate`]; `python/` checks types, `aggregate()` checks meaning.
#[derive(Clone)]
pub struct AggregateSettings {
    /// Holds credentials: never shown (no `Debug`).
    pub mongo_uri: String,
    /// Holds credentials. `None` computes and writes nothing.
    pub postgres_dsn: Option<String>,
    /// Where the reports are kept; default: the first schema of the search path.
    pub schema: Option<String>,
    /// What must hold before the commit.
    pub checks: Vec<Check>,
    pub database: String,
    pub collection: String,
    pub dates: Dates,
    pub mode: Mode,
    /// Partials of dates older than the newest one by more than this are not kept.
    pub keep_partials_days: u32,
    /// What is made.
    pub reports: Vec<Definition>,
    /// Who reads elsewhere; `None` reads here.
    pub engine: Option<Arc<dyn Engine>>,
    /// Who runs the functions that these call.
    pub functions: Option<Arc<dyn Functions>>,
    /// With `Dates::Latest`: that many dates before the latest one as well.
    pub lookback_days: u32,
    pub time_field: String,
    /// Default: `<database>.<collection>`.
    pub job: Option<String>,
    pub allow_scan: bool,
    /// Seconds that `latest` may lie in the future.
    pub max_future_skew_seconds: u64,
    /// Cursors at once; 0 picks by cores.
    pub cursors: usize,
    /// Bytes that keys, metrics and distinct values may take; what is more goes to a temporary file.
    pub memory_limit: u64,
}

impl AggregateSettings {
    /// Checks what needs no server.
    ///
    /// # Errors
    /// `Config` naming the argument.
    pub fn check(&self) -> Result<()> {
        if self.lookback_days > 0 && self.dates != Dates::Latest {
            return Err(Error::config("lookback_days: only with dates=\"latest\"").hint("give a range of dates"));
        }
        if self.lookback_days > LONGEST {
            return Err(Error::config(format!("lookback_days: over {LONGEST}")).hint("give fewer days"));
        }
        if self.keep_partials_days > LONGEST {
            return Err(Error::config(format!("keep_partials_days: over {LONGEST}")).hint("give fewer days"));
        }
        if self.postgres_dsn.is_none() && self.dates == Dates::Changed {
            return Err(Error::config(
                "dates: \"changed\" keeps in PostgreSQL how far it is, and postgres_dsn is None",
            )
            .hint("give postgres_dsn; or dates=\"latest\", \"all\", or dates"));
        }
        if self.engine.is_some() && self.dates == Dates::Changed {
            return Err(Error::config("dates: \"changed\" is read by engine=\"native\" alone").hint("leave engine out"));
        }
        if self.memory_limit < LEAST_MEMORY {
            return Err(Error::config(format!("memory_limit: below {LEAST_MEMORY} bytes")).hint("give more"));
        }
        if self.postgres_dsn.is_none() && !self.checks.is_empty() {
            return Err(Error::config("checks: nothing is published without postgres_dsn").hint("leave them out"));
        }
        if self.time_field.is_empty() || self.time_field.contains(['.', '$', '\0']) {
            return Err(Error::config("time_field: no name of a top-level field").hint("for example timestamp"));
        }
        Ok(())
    }
}

/// A document with an unusable key or value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// The column of the key, or what the metric is made of.
    pub field: String,
    /// `key_type` or `key_unfit`.
    pub reason: &'static str,
    /// Its `_id`.
    pub document: String,
}

/// What a run counted of a date.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    pub counted: u64,
    /// Per report table, events without a usable key.
    pub excluded: BTreeMap<String, u64>,
}

/// What a run answers besides its frames (I1): `scanned = counted + excluded`.
#[allow(clippy::struct_excessive_bools, reason = "answers by name, none of which excludes another")]
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AggregateBooks {
    pub run_id: String,
    pub job: String,
    pub engine: String,
    /// `database.collection`.
    pub source: String,
    pub time_field: String,
    /// Names what the reports are made of.
    pub definition: String,
    /// By table, the same.
    pub definitions: BTreeMap<String, String>,
    /// Dates reported, ascending.
    pub dates: Vec<String>,
    /// Dates left alone, in some table, since a report of later `read_at` stands.
    pub superseded: Vec<String>,
    /// The moment of the reading, by the server's clock where it has one.
    pub read_at: String,
    /// Whether every document was read as it was at that moment.
    pub snapshot: bool,
    /// `incremental` when a kept Partial was used, or no new event was found; otherwise `full`.
    pub mode: String,
    /// Why no kept Partial was used; `None` when one was, or none was wanted.
    pub why_full: Option<String>,
    /// Dates that were read as a whole beside kept ones, and why.
    pub full_scans: BTreeMap<String, String>,
    /// Documents read by this run, and events that kept Partials brought; together `scanned`.
    pub read: u64,
    pub kept: u64,
    /// Dates whose Partials are kept now.
    pub partials: u64,
    /// Whether `dates="changed"` goes on from `positions` next time.
    pub watermark: bool,
    /// Nothing has come since the last run: nothing was published.
    pub nothing_new: bool,
    pub scanned: u64,
    pub counted: u64,
    /// By reason: `missing_time`, `malformed_time`, `beyond_position`, `other_date`, …
    pub excluded: BTreeMap<String, u64>,
    /// Per report table: keys excluded after aggregation, by reason (`null_key`, `key_type`, `key_unfit`), in events.
    pub excluded_keys: BTreeMap<String, BTreeMap<String, u64>>,
    /// By date the same, and what it counted: in the ledger only, where the results of long runs would be too long.
    #[serde(skip)]
    pub by_date: BTreeMap<String, Counted>,
    /// A few of the documents whose keys or devices could not be used, by `_id`.
    pub samples: Vec<Sample>,
    /// A dated run: about how many documents it did not read, whose time may be missing or unreadable.
    pub unplaced: Option<u64>,
    /// Conditions judged before the commit, by check and date; all of them held.
    pub checks: u64,
    /// Per table, the rows published.
    pub rows: BTreeMap<String, u64>,
    /// `cluster/topic/partition` → next offset covered.
    pub positions: BTreeMap<String, i64>,
    /// Bytes that went to a temporary file, since they were beyond `memory_limit`.
    pub spilled: u64,
    /// Whether the positions alone determine the result.
    pub repeatable: bool,
    pub published: bool,
    pub seconds: f64,
    /// Seconds by phase: `plan`, `scan`, `merge`, `publish`.
    pub phases: BTreeMap<String, f64>,
    pub warnings: Vec<String>,
}

impl AggregateBooks {
    /// Takes over what kept Partials had to do with a run.
    pub fn tell(&mut self, increment: &mut Increment) {
        self.mode = if increment.incremental { "incremental" } else { "full" }.into();
        self.why_full = increment.why_full.take();
        self.full_scans = increment.full_scans.iter().map(|(date, why)| (instant::text(*date), why.clone())).collect();
        self.read = increment.read;
        self.kept = increment.kept;
        self.warnings.append(&mut increment.warnings);
    }
}

/// The books and, per table, the rows of all dates as one frame in the table's column order without `created_at`.
#[derive(Debug, Clone, Default)]
pub struct AggregateResult {
    pub books: AggregateBooks,
    pub tables: BTreeMap<String, DataFrame>,
}
