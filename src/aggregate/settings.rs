//! What an aggregate run is told, and what it answers.

use std::collections::BTreeMap;

use polars::frame::DataFrame;
use serde::Serialize;

/// Which dates to report, as the user wrote them; `lookback_days` is applied on top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dates {
    Latest,
    All,
    /// `YYYY-MM-DD`, in any order, duplicates allowed.
    List(Vec<String>),
    /// `YYYY-MM-DD..YYYY-MM-DD`, both ends in.
    Range(String, String),
}

/// The arguments of [`crate::aggregate::aggregate`]; `python/` checks types, `aggregate()` checks meaning.
#[derive(Clone)]
pub struct AggregateSettings {
    /// Holds credentials: never shown (no `Debug`).
    pub mongo_uri: String,
    /// Holds credentials. `None` computes and writes nothing.
    pub postgres_dsn: Option<String>,
    pub database: String,
    pub collection: String,
    pub dates: Dates,
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
}

/// What a run answers besides its frames (I1): `scanned = counted + excluded`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AggregateBooks {
    pub run_id: String,
    pub job: String,
    pub engine: String,
    /// Dates reported, ascending.
    pub dates: Vec<String>,
    /// Dates left alone since a report of later `read_at` stands.
    pub superseded: Vec<String>,
    pub read_at: String,
    pub scanned: u64,
    pub counted: u64,
    /// By reason: `missing_time`, `malformed_time`, `beyond_position`, `other_date`, …
    pub excluded: BTreeMap<String, u64>,
    /// Per report table: keys excluded after aggregation, by reason (`null_key`, `key_type`, `key_unfit`), in events.
    pub excluded_keys: BTreeMap<String, BTreeMap<String, u64>>,
    /// Per table, the rows published.
    pub rows: BTreeMap<String, u64>,
    /// `cluster/topic/partition` → next offset covered.
    pub positions: BTreeMap<String, i64>,
    pub repeatable: bool,
    pub published: bool,
    pub seconds: f64,
    /// Seconds by phase: `plan`, `scan`, `merge`, `publish`.
    pub phases: BTreeMap<String, f64>,
    pub warnings: Vec<String>,
}

/// The books and, per table, the rows of all dates as one frame in the table's column order without `created_at`.
#[derive(Debug, Clone, Default)]
pub struct AggregateResult {
    pub books: AggregateBooks,
    pub tables: BTreeMap<String, DataFrame>,
}
