//! The kernel past one machine: `fold` where a task runs, `merge` where its like meet, and what travels between them. It
//! refuses to know who schedules them; [`super::reading`] asks an [`Engine`] in the place of its own cursors, so that all
//! around it (moments, retries, books, publication) is the same.
//!
//! A task's Partial is cut by hash as a spilled one is: a key's row goes where its hash says, each pair of key and
//! distinct value where theirs does. No part shares a pair with another, so parts are merged and counted apart, and what
//! comes back are rows.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use bson::{Document, Timestamp, doc};
use mongodb::{Collection, Database};
use serde::{Deserialize, Serialize};

use super::arrow;
use super::balance::{self, Source};
use super::covered::{Covered, Sources};
use super::interned::Interned;
use super::moment::Moment;
use super::partial::Partial;
use super::reports::plan::Plan;
use super::scan::{self, Question, Scope};
use super::settings::AggregateSettings;
use super::spill::{Cut, Spill};
use super::states::State;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::mongo::client;

/// Documents whose rows one merge may have to hold, about.
const MERGED: u64 = 2_000_000;
/// Parts for each merge, since who takes which part is left to a hash; of many merges none has more than it can bear, and
/// every task writes every part.
const PARTS: usize = 4;
const MANY_PARTS: usize = 256;
/// Cursors of a task: while one folds, the server has work for the other.
const CURSORS: usize = 2;

/// Whoever runs tasks elsewhere.
pub trait Engine: Debug + Send + Sync {
    /// Its name in the ledger.
    fn name(&self) -> &str;
    /// Makes it ready; returns how many tasks run at once, and how many tasks and merges are wanted whatever there is to
    /// read.
    ///
    /// # Errors
    /// `Config` and `External`, as it says.
    fn open(&self) -> Result<(usize, Option<usize>, Option<usize>)>;
    /// Has every task's ranges folded by [`fold`] and each part merged by a [`Merger`], so many of them; returns what the
    /// merges give. One merge may be left to the caller.
    ///
    /// # Errors
    /// What the tasks said.
    fn run(&self, order: &str, tasks: &[Vec<u8>], merges: usize) -> Result<Vec<Vec<u8>>, Failure>;
}

/// Why a task or a run of them failed.
#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    /// The server no longer remembers the moment.
    pub forgotten: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, forgotten: false }
    }
}

/// What all tasks of a reading have in common.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    definition: String,
    /// As [`Covered::sources`].
    sources: Sources,
    replaced_by: Option<String>,
    dates: Option<BTreeSet<i32>>,
    limit: i64,
    fields: Option<Vec<String>>,
    /// The cluster time of a snapshot.
    time: Option<(u32, u32)>,
    parts: usize,
}

/// Has the dates of a scope read elsewhere: what [`scan::run`] does here.
///
/// # Errors
/// `Config` for documents that only a snapshot reads twice alike, on a server without; as [`Engine::run`].
pub async fn run(
    engine: &Arc<dyn Engine>,
    (database, events): (&Database, &Collection<Document>),
    settings: &AggregateSettings,
    question: &Question,
    scope: &Scope,
    control: &Arc<Control>,
) -> Result<Partial> {
    let Question { plan, moment, fields } = question;
    let Covered { sources, replaced_by, .. } = &*scope.covered;
    // A task may run twice, and must read the same.
    let unfixed = replaced_by.is_some() || super::reading::has_other_writers(events, &scope.covered, moment).await?;
    if unfixed && !moment.is_snapshot() {
        let why = moment.without;
        return Err(Error::config(format!(
            "aggregate: {}: documents that no position fixes, and {why}",
            events.name()
        ))
        .hint("read them from a replica set of MongoDB 5.0 or newer, or with engine=\"native\""));
    }
    let source = Source {
        database,
        events,
        time_field: &settings.time_field,
        covered: &scope.covered,
        moment,
        wanted: scope.dates.as_deref(),
    };
    let opened = Arc::clone(engine);
    let (width, asked, asked_merges) = blocking(move || opened.open()).await??;
    let balanced = balance::tasks(&source, width, asked).await?;
    let mut whole = Partial::new();
    if balanced.tasks.is_empty() {
        return Ok(whole);
    }
    let most = width.max(balanced.tasks.len() / 4);
    let worth = usize::try_from(balanced.documents.div_ceil(MERGED)).unwrap_or(most).clamp(1, most);
    let merges = asked_merges.unwrap_or(worth).max(1);
    let order = Order {
        definition: plan.name.clone(),
        sources: sources.clone(),
        replaced_by: replaced_by.clone(),
        dates: scope.dates.as_deref().cloned(),
        limit: scope.limit,
        fields: fields.as_ref().map(|fields| fields.keys().cloned().collect()),
        time: moment.time().map(|time| (time.time, time.increment)),
        parts: if merges == 1 { 1 } else { (merges * PARTS).min(merges.max(MANY_PARTS)) },
    };
    let order =
        serde_json::to_string(&order).map_err(|error| Error::bug("aggregate: write an order").because(error))?;
    let tasks = balanced.tasks.into_iter().map(|ranges| {
        let bytes = bson::serialize_to_vec(&doc! {"ranges": ranges});
        bytes.map_err(|error| Error::bug("aggregate: write ranges").because(error))
    });
    let tasks: Vec<Vec<u8>> = tasks.collect::<Result<_>>()?;
    let engine = Arc::clone(engine);
    let answers = blocking(move || engine.run(&order, &tasks, merges)).await?.map_err(|failure| {
        if failure.forgotten {
            moment.forget();
        }
        failure.error
    })?;
    control.check("aggregate: merge")?;
    for bytes in answers {
        whole.merge(arrow::read(&bytes, plan)?);
    }
    control.add_read(whole.scanned);
    Ok(whole)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::bug("aggregate: an engine's task panicked").because(error))
}

fn plan(settings: &AggregateSettings) -> Arc<Plan> {
    Arc::new(Plan::new(settings.reports.clone(), &settings.time_field, settings.functions.clone()))
}

/// Folds the ranges of one task; returns its parts, each with its number. The books are in one of the first part.
///
/// # Errors
/// By domain: see [`crate::error::Domain`].
pub fn fold(
    settings: &AggregateSettings,
    order: &str,
    ranges: &[u8],
    control: &Arc<Control>,
) -> Result<Vec<(usize, Vec<u8>)>, Failure> {
    let order: Order =
        serde_json::from_str(order).map_err(|error| Error::bug("aggregate: read an order").because(error))?;
    let ranges: Document =
        bson::deserialize_from_slice(ranges).map_err(|error| Error::bug("aggregate: read ranges").because(error))?;
    let ranges = ranges.get_array("ranges").into_iter().flatten();
    let ranges = ranges.filter_map(|range| range.as_document().cloned()).collect();
    let plan = plan(settings);
    if plan.name != order.definition {
        return Err(Error::config("aggregate: a task has other definitions than its driver")
            .hint("put the same millpond onto driver and executors")
            .into());
    }
    let mut forgotten = false;
    let folded = super::on_runtime(control, "aggregate", async {
        let database = client::connect(&settings.mongo_uri).await?.database(&settings.database);
        let time = order.time.map(|(time, increment)| Timestamp { time, increment });
        let moment = Moment::at(database.client(), time);
        let covered = Covered { sources: order.sources, replaced_by: order.replaced_by, ..Covered::default() };
        let scope = Scope { dates: order.dates.map(Arc::new), ..Scope::new(covered.into(), order.limit) };
        let fields = order.fields.map(|fields| fields.into_iter().map(|field| (field, 1.into())).collect());
        let question = Question { plan: Arc::clone(&plan), fields, moment };
        let events = database.collection(&settings.collection);
        // Its ranges are few enough, see `balance`.
        let spill = Arc::new(Spill::new(u64::MAX));
        let read = scan::run(&events, &question, ranges, &scope, (CURSORS, &spill), control).await;
        forgotten = question.moment.is_forgotten();
        read
    });
    let mut partial = folded.map_err(|error| Failure { error, forgotten })?;
    let cut = Cut::of(&partial, order.parts);
    let mut parts = Vec::new();
    for number in 0..order.parts {
        let part = cut.part(number);
        if !part.dates.is_empty() {
            parts.push((number, arrow::write(&part, &plan)?));
        }
    }
    partial.forget_rows(&plan);
    parts.push((0, arrow::write(&partial, &plan)?));
    Ok(parts)
}

/// Merges parts of the same number, or of some numbers.
#[derive(Debug)]
pub struct Merger {
    plan: Arc<Plan>,
    whole: Partial,
}

impl Merger {
    /// Of nothing yet.
    #[must_use]
    pub fn new(settings: &AggregateSettings) -> Self {
        let plan = plan(settings);
        Self { whole: Partial::new(), plan }
    }

    /// Adds a part.
    ///
    /// # Errors
    /// As [`arrow::read`].
    pub fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.whole.merge(arrow::read(bytes, &self.plan)?);
        Ok(())
    }

    /// Rows: what was distinct is counted, since no other merge has any of it.
    ///
    /// # Errors
    /// As [`arrow::write`].
    pub fn done(mut self) -> Result<Vec<u8>> {
        let groups = self.whole.dates.values_mut().flat_map(|date| &mut date.reports);
        for state in groups.flat_map(|groups| &mut groups.states) {
            if let State::Distinct(distinct) = state {
                distinct.settle_for_good();
            }
        }
        self.whole.values = Interned::default();
        arrow::write(&self.whole, &self.plan)
    }
}
