//! What folding events gives, and how two of them are merged: in any split and any order the rows are the same. `fold` is in
//! [`super::fold`], `finish` in [`super::rows`].
//!
//! Per date and report, each key has a row: its events, and what each metric keeps of them. Keys are interned where they
//! belong, so that a key's number is its row; what distinct counts see is interned once for all, so that their sets are of
//! pairs of small numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::element::Element;
use super::interned::Interned;
use super::reports::definition::Definition;
use super::reports::plan::Plan;
use super::states::{State, Taken};

/// Samples kept of documents with unusable keys.
const SAMPLES: usize = 20;

/// One report on one date.
#[derive(Debug, Default, Clone)]
pub struct Groups {
    /// A key's number is its row.
    pub keys: Interned,
    /// By row.
    pub events: Vec<u64>,
    /// By metric.
    pub states: Vec<State>,
    /// Events without a usable key, by reason.
    pub excluded: BTreeMap<&'static str, u64>,
}

/// One date.
#[derive(Debug, Default, Clone)]
pub struct DatePartial {
    pub counted: u64,
    /// By input of the plan: events that count, whose value was of no use to a metric.
    pub unfit: Vec<u64>,
    pub reports: Vec<Groups>,
    /// By report, the rows that new events changed; `None`: it was not kept.
    pub touched: Option<Vec<Vec<bool>>>,
}

/// What folding events gives.
#[derive(Debug, Default, Clone)]
pub struct Partial {
    /// What distinct counts have seen.
    pub values: Interned,
    pub dates: BTreeMap<i32, DatePartial>,
    pub scanned: u64,
    pub counted: u64,
    pub excluded: BTreeMap<&'static str, u64>,
    /// Documents that no known source wrote.
    pub foreign: u64,
    /// Documents of known sources by the date that their time is written with: what an index can count.
    pub written: BTreeMap<i32, u64>,
    /// Dates that events are written with which count on another one.
    pub shifted: BTreeSet<i32>,
    /// Dates of events that were left to another run, and of those that a kept Partial holds already.
    pub left: BTreeSet<i32>,
    pub known: BTreeSet<i32>,
    /// By [`super::fold::Wanted::marks`]: documents beyond.
    pub beyond: Vec<u64>,
    /// The latest date met that was not asked for and is not beyond [`super::fold::Wanted::limit`].
    pub later: Option<i32>,
    /// A few documents whose key or value could not be used: column, reason, document.
    pub samples: BTreeSet<(String, &'static str, String)>,
}

impl Partial {
    /// Of no event yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// By input of the plan: events that count, whose value was of no use to a metric.
    #[must_use]
    pub fn unfit(&self, plan: &Plan) -> Vec<u64> {
        let mut all = vec![0; plan.inputs.len()];
        self.dates.values().for_each(|date| add_each(&mut all, &date.unfit));
        all
    }

    /// Counts an event that no report counts.
    pub fn exclude(&mut self, reason: &'static str) {
        *self.excluded.entry(reason).or_default() += 1;
    }

    /// Keeps a document as a sample.
    pub fn sample(&mut self, column: &str, reason: &'static str, document: Element<'_>) {
        // Not one for each of a million: whoever mends the data needs a place to begin.
        if self.samples.len() < SAMPLES {
            self.samples.insert((column.to_owned(), reason, document.to_string()));
        }
    }

    /// Brings the sets of distinct values into order: worth doing before a merge, on the thread that folded.
    pub fn settle(&mut self) {
        for groups in self.dates.values_mut().flat_map(|date| &mut date.reports) {
            groups.settle();
        }
    }

    /// Adds another Partial of the same plan to this one.
    pub fn merge(&mut self, other: Self) {
        let values = self.values.adopt(&other.values);
        self.scanned += other.scanned;
        self.counted += other.counted;
        self.foreign += other.foreign;
        self.later = self.later.max(other.later);
        self.samples.extend(other.samples.into_iter().take(SAMPLES.saturating_sub(self.samples.len())));
        add(&mut self.excluded, other.excluded);
        self.shifted.extend(other.shifted);
        self.left.extend(other.left);
        self.known.extend(other.known);
        add_each(&mut self.beyond, &other.beyond);
        for (date, documents) in other.written {
            *self.written.entry(date).or_default() += documents;
        }
        for (date, theirs) in other.dates {
            let ours = self.dates.entry(date).or_default();
            ours.counted += theirs.counted;
            add_each(&mut ours.unfit, &theirs.unfit);
            if ours.reports.is_empty() {
                ours.reports = theirs.reports.iter().map(Groups::empty).collect();
            }
            for (ours, theirs) in ours.reports.iter_mut().zip(theirs.reports) {
                ours.merge(theirs, &values);
            }
        }
    }

    /// Forgets all rows and what was seen; the books stay.
    pub fn forget_rows(&mut self, plan: &Plan) {
        self.values = Interned::default();
        for groups in self.dates.values_mut() {
            for (groups, report) in groups.reports.iter_mut().zip(&plan.reports) {
                let excluded = std::mem::take(&mut groups.excluded);
                *groups = Groups { excluded, ..Groups::new(report) };
            }
        }
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn heap(&self) -> usize {
        let groups = self.dates.values().flat_map(|date| &date.reports);
        self.values.heap() + groups.map(Groups::heap).sum::<usize>()
    }
}

impl DatePartial {
    /// Of no event yet.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            counted: 0,
            unfit: vec![0; plan.inputs.len()],
            reports: plan.reports.iter().map(Groups::new).collect(),
            touched: None,
        }
    }
}

impl Groups {
    /// Of no event yet.
    #[must_use]
    pub fn new(report: &Definition) -> Self {
        Self { states: report.metrics.iter().map(State::new).collect(), ..Self::default() }
    }

    /// Of the same report, of no event.
    #[must_use]
    pub fn empty(&self) -> Self {
        Self { states: self.states.iter().map(State::empty).collect(), ..Self::default() }
    }

    /// The row of a key; there is room for it in every state.
    pub fn row(&mut self, key: &str) -> u32 {
        let row = self.keys.number(key);
        if row as usize == self.events.len() {
            self.events.push(0);
            self.states.iter_mut().for_each(|state| state.reach(row as usize + 1));
        }
        row
    }

    /// Its `rows` in that order, but for what was seen of distinct values.
    #[must_use]
    pub fn picked(&self, rows: &[u32]) -> Self {
        let mut picked = self.empty();
        for row in rows {
            let new = picked.row(self.keys.text(*row));
            picked.events[new as usize] = self.events[*row as usize];
        }
        for (picked, state) in picked.states.iter_mut().zip(&self.states) {
            picked.fill(state, rows);
        }
        picked
    }

    /// Counts one event; `taken` says by metric what is taken of it.
    pub fn count<'t>(&mut self, key: &str, taken: impl Iterator<Item = Option<&'t Taken<'t>>>) {
        let row = self.row(key);
        self.events[row as usize] += 1;
        for (state, taken) in self.states.iter_mut().zip(taken) {
            if let Some(taken) = taken {
                state.take(row, taken);
            }
        }
    }

    /// Adds another's rows; `values` numbers its distinct values as ours are.
    pub fn merge(&mut self, other: Self, values: &[u32]) {
        let rows = self.keys.adopt(&other.keys);
        let reached = self.keys.len();
        self.events.resize(reached, 0);
        rows.iter().zip(other.events).for_each(|(row, events)| self.events[*row as usize] += events);
        for (ours, theirs) in self.states.iter_mut().zip(other.states) {
            ours.reach(reached);
            ours.merge(theirs, &rows, values);
        }
        add(&mut self.excluded, other.excluded);
    }

    /// Brings the sets of distinct values into order.
    pub fn settle(&mut self) {
        for state in &mut self.states {
            if let State::Distinct(distinct) = state {
                distinct.seen.settle();
            }
        }
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn heap(&self) -> usize {
        self.keys.heap() + 8 * self.events.capacity() + self.states.iter().map(State::heap).sum::<usize>()
    }
}

/// Adds number by number.
pub(super) fn add_each(ours: &mut Vec<u64>, theirs: &[u64]) {
    ours.resize(ours.len().max(theirs.len()), 0);
    ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours += theirs);
}

fn add(ours: &mut BTreeMap<&'static str, u64>, theirs: BTreeMap<&'static str, u64>) {
    for (reason, count) in theirs {
        *ours.entry(reason).or_default() += count;
    }
}
