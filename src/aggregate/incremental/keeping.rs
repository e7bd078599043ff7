//! What a run leaves for the next one: Partials, what they cover, and the watermark.

use std::collections::{BTreeMap, BTreeSet};

use super::coverage::Coverage;
use super::keep::{Change, Keep, NewRow};
use super::merged::Merged;
use super::run::Fresh;
use super::shelf::Shelf;
use super::store::Mark;
use super::{Store, base};
use crate::aggregate::dates;
use crate::aggregate::partial::Partial;
use crate::aggregate::reading::{At, Dated};
use crate::aggregate::reports::plan::Plan;
use crate::aggregate::settings::{Dates, Mode};
use crate::error::Result;

/// Collects it.
pub(super) struct Keeping<'a> {
    at: &'a At<'a>,
    store: &'a Store<'a>,
    now: &'a Coverage,
    shelf: &'a Shelf,
    documents: Option<i64>,
    keep: Keep,
    /// Whether dates that are written cover what the mark says.
    front: bool,
}

/// A date's Partial, written.
///
/// # Errors
/// As [`base::write`] and [`Shelf::put`].
pub(super) fn written(partial: &Partial, date: i32, plan: &Plan, shelf: &Shelf) -> Result<Change> {
    let (bytes, visitors) = base::write(partial, date, plan)?;
    Ok(Change::Base { bytes: shelf.put(bytes)?, visitors })
}

impl<'a> Keeping<'a> {
    pub(super) fn of(
        (at, store): (&'a At<'a>, &'a Store<'a>),
        now: &'a Coverage,
        below: (i64, i64),
        shelf: &'a Shelf,
    ) -> Self {
        let before = store.kept.mark.as_ref();
        let tables = store.place.as_ref().map(|(_, place)| place.oids.clone()).unwrap_or_default();
        // While sinks write, the server's count is none that could be compared with a later one.
        let documents = (below.0 == below.1).then_some(below.0);
        let same = before.filter(|mark| mark.collection == at.covered.collection);
        let stay = same.filter(|mark| mark.tables == tables);
        let stay = (stay.and_then(|mark| mark.reported.clone()), stay.and_then(|mark| mark.reported_documents));
        let changed = at.settings.dates == Dates::Changed;
        let (reported, reported_documents) = if changed { (Some(now.clone()), documents) } else { stay.clone() };
        let mark = Mark {
            run_id: String::new(),
            collection: at.covered.collection.clone(),
            tables,
            reported,
            reported_documents,
            covered: same.and_then(|mark| mark.covered.clone()),
            covered_documents: same.and_then(|mark| mark.covered_documents),
        };
        let published = store.kept.rows.iter().map(|(date, row)| (*date, row.published.clone())).collect();
        let days = i32::try_from(at.settings.keep_partials_days).unwrap_or(i32::MAX);
        let before = before.map(|mark| mark.run_id.clone());
        let keep = Keep { before, mark, moves: changed, stay, published, rows: BTreeMap::new(), anew: false, days };
        Self { at, store, now, shelf, documents, keep, front: false }
    }

    fn keeps(&self) -> bool {
        self.at.settings.keep_partials_days > 0
    }

    fn advance(&mut self) {
        self.front = true;
        self.keep.mark.covered = Some(self.now.clone());
        self.keep.mark.covered_documents = self.documents;
    }

    /// New events were read: when all since the mark, then dates without any of them cover what they did, and these.
    pub(super) fn from(&mut self, fresh: &Fresh, front: Option<&Coverage>, concerned: &BTreeSet<i32>) {
        if !self.keeps() {
            return;
        }
        let Some(front) = front else {
            // What it covered is not known any more: only what is made now is kept.
            self.keep.anew = true;
            return self.advance();
        };
        if !fresh.from.within(front) {
            return;
        }
        let (before, documents) = (front.clone(), self.keep.mark.covered_documents);
        self.advance();
        let kept = &self.store.kept.rows;
        let others = kept.iter().filter(|(date, row)| row.covered.is_none() && !concerned.contains(date));
        for (date, row) in others.filter(|(_, row)| row.why.is_none()) {
            let left = fresh.partial.left.contains(date);
            let new = fresh.partial.written.get(date).copied().unwrap_or(0);
            if !left && new == 0 {
                continue;
            }
            // New events that nobody asked for: it covers what it did. Without them it covers what the mark does, and some
            // that count on another date are written with this one.
            let new = if left { 0 } else { i64::try_from(new).unwrap_or(i64::MAX) };
            let row = NewRow {
                change: Change::Left,
                covered: left.then(|| before.clone()),
                covered_documents: if left { documents } else { None },
                documents: row.documents + new,
                counted: row.counted,
                checked: false,
                shifted: row.shifted || fresh.partial.shifted.contains(date),
            };
            self.keep.rows.insert(*date, row);
        }
    }

    fn add(&mut self, date: i32, change: Change, (documents, counted): (i64, u64), checked: bool, shifted: bool) {
        let (covered, covered_documents) =
            if self.front { (None, None) } else { (Some(self.now.clone()), self.documents) };
        let counted = i64::try_from(counted).unwrap_or(i64::MAX);
        self.keep
            .rows
            .insert(date, NewRow { change, covered, covered_documents, documents, counted, checked, shifted });
    }

    /// A date that was read as a whole.
    pub(super) fn scanned(&mut self, date: i32, partial: &Partial, spilled: bool) {
        let there = self.store.kept.rows.contains_key(&date);
        if !self.keeps() || (self.at.settings.mode == Mode::Full && !there) {
            return;
        }
        let documents = i64::try_from(partial.written.get(&date).copied().unwrap_or(0)).unwrap_or(i64::MAX);
        let counted = partial.dates.get(&date).map_or(0, |day| day.counted);
        let change = if spilled {
            Change::Void("its partial is larger than memory_limit".into())
        } else {
            written(partial, date, self.at.plan, self.shelf).unwrap_or_else(|error| Change::Void(error.what))
        };
        self.add(date, change, (documents, counted), true, partial.shifted.contains(&date));
    }

    /// A kept date with its new events.
    pub(super) fn merged(&mut self, date: i32, one: &Merged, fresh: &Partial, checked: bool) {
        let row = &self.store.kept.rows[&date];
        let new = i64::try_from(fresh.written.get(&date).copied().unwrap_or(0)).unwrap_or(i64::MAX);
        let change = match &one.change {
            Some(change) => change.clone(),
            // As it is, and covered by the mark: nothing is to be written.
            None if self.front && row.covered.is_none() && new == 0 && !checked => return,
            None => Change::Left,
        };
        let shifted = row.shifted || fresh.shifted.contains(&date);
        self.add(date, change, (row.documents + new, one.day.counted), checked, shifted);
    }

    /// Whole dates, or all of them.
    pub(super) fn whole(&mut self, front: Option<&Coverage>, dated: &Dated) {
        if !self.keeps() {
            return;
        }
        if dated.wanted.is_none() || front.is_none() {
            // Nothing that was kept is to be relied on any more, or all of it is made anew.
            self.keep.anew = true;
            self.advance();
        }
        // Garbage in the future would push all others out.
        let limit = dates::limit(self.at.settings).div_euclid(86_400_000_000);
        let sane = dated.partial.dates.keys().filter(|date| i64::from(**date) <= limit);
        let newest = sane.max().copied().unwrap_or(0);
        let mut all: BTreeSet<i32> = dated.wanted.clone().unwrap_or_default();
        all.extend(dated.partial.dates.keys());
        let days = self.keep.days;
        for date in all.into_iter().filter(|date| newest.saturating_sub(*date) <= days) {
            self.scanned(date, &dated.partial, dated.spilled > 0);
        }
    }

    /// With the dates that turned out to be of no use and were not made again.
    pub(super) fn done(mut self, void: &BTreeMap<i32, String>) -> Keep {
        if self.keep.anew {
            return self.keep;
        }
        for (date, why) in void {
            let made = self.keep.rows.get(date).is_some_and(|row| !matches!(row.change, Change::Left));
            if let Some(row) = self.store.kept.rows.get(date).filter(|_| !made) {
                let books = (row.documents, u64::try_from(row.counted).unwrap_or(0));
                self.add(*date, Change::Void(why.clone()), books, false, row.shifted);
            }
        }
        self.keep
    }
}
