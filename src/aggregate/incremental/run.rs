//! One attempt: what is new, which kept dates can be relied on, and all of it together.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Instant;

use bson::Document;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::coverage::Coverage;
use super::keeping::Keeping;
use super::merged::Merged;
use super::shelf::Shelf;
use super::store::Row;
use super::{Increment, Store, base, counts, store};
use crate::aggregate::partial::Partial;
use crate::aggregate::reading::{At, Dated};
use crate::aggregate::scan::Scope;
use crate::aggregate::settings::{Dates, Mode};
use crate::error::{Error, Result};

/// Offsets that are worth no scan, however few documents a date has.
const FEW: i64 = 50_000;
/// Documents of a date that are counted by the index whenever it is used: some milliseconds.
const SMALL: i64 = 50_000;

/// One attempt.
pub(super) struct Run<'a> {
    at: &'a At<'a>,
    store: &'a Store<'a>,
    /// The positions of its moment.
    now: Coverage,
    /// What the mark's dates cover; `None` where that is not to be relied on.
    front: Option<Coverage>,
    /// Up to where every event lies in a report.
    reported: Option<Coverage>,
    /// What lies beyond `now`, as ranges of `_id`.
    beyond: Vec<Document>,
    /// Documents below `now`, by the server: at least and at most.
    below: (i64, i64),
    /// Compared with the index.
    checked: BTreeSet<i32>,
    /// Why kept dates cannot be used.
    void: BTreeMap<i32, String>,
    warnings: Vec<String>,
    shelf: Arc<Shelf>,
}

/// New events.
pub(super) struct Fresh {
    /// All events beyond it were read.
    pub(super) from: Coverage,
    pub(super) partial: Arc<Partial>,
    marks: Arc<Vec<Coverage>>,
}

impl<'a> Run<'a> {
    pub(super) async fn new(at: &'a At<'a>, store: &'a Store<'a>) -> Result<Self> {
        let now = Coverage::of(&at.covered);
        let tables = store.place.as_ref().map(|(_, place)| place.oids.clone()).unwrap_or_default();
        let mark = store.kept.mark.as_ref().filter(|mark| mark.collection == at.covered.collection);
        let fits = |coverage: &Coverage| coverage.within(&now);
        let front = mark.and_then(|mark| mark.covered.clone()).filter(fits);
        // Reports that were dropped hold nothing.
        let reported = mark.filter(|mark| mark.tables == tables).and_then(|mark| mark.reported.clone()).filter(fits);
        let beyond = now.beyond(at.covered.sources.keys().copied())?;
        let below = counts::below(at.events, &beyond).await?;
        let (checked, void, warnings) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
        // Beside what is merged: a part of the limit is enough for what is written soon.
        let shelf = Arc::new(Shelf::new(at.settings.memory_limit / 8));
        Ok(Self { at, store, now, front, reported, beyond, below, checked, void, warnings, shelf })
    }

    fn covers(&self, row: &Row) -> Option<Coverage> {
        let mark = self.store.kept.mark.as_ref()?;
        let covered = row.covered.as_ref().or(self.front.as_ref())?;
        (mark.collection == self.at.covered.collection && covered.within(&self.now)).then(|| covered.clone())
    }

    /// Why a kept date cannot be used; `Ok` with what it covers.
    fn usable(&self, date: i32) -> std::result::Result<Coverage, String> {
        let Some(row) = self.store.kept.rows.get(&date) else { return Err(self.none()) };
        if let Some(why) = self.void.get(&date).or(row.why.as_ref()) {
            return Err(why.clone());
        }
        if row.version != base::VERSION {
            return Err("its partial is of another version of millpond".into());
        }
        self.covers(row).ok_or_else(|| "positions went back, or the collection is another one".into())
    }

    fn none(&self) -> String {
        if self.store.kept.mark.is_some() {
            "no partial of the date is kept".into()
        } else {
            "no partial of these reports is kept: it is the first run of this definition".into()
        }
    }

    pub(super) async fn read(mut self, named: Option<&BTreeSet<i32>>) -> Result<(Dated, Increment)> {
        let planned = Instant::now();
        let mut wanted = self.at.wanted(named).await?;
        let changed = self.at.settings.dates == Dates::Changed;
        loop {
            let from = match (changed, &wanted) {
                (true, _) => match &self.reported {
                    Some(reported) => Ok(self.front.as_ref().map_or_else(|| reported.clone(), |f| reported.least(f))),
                    None => Err("no watermark of this job and definition is kept: all dates are made".into()),
                },
                (false, Some(dates)) => self.from(dates),
                (false, None) => Err("dates=\"all\" reads all".into()),
            };
            let from: Coverage = match from {
                Ok(from) => from,
                Err(why) => return self.whole(wanted, why, planned).await,
            };
            let Some(fresh) = self.fresh(from, wanted.as_ref()).await? else {
                let why = "there are more new events than memory_limit holds".to_owned();
                return self.whole(if changed { None } else { wanted }, why, planned).await;
            };
            if let Some(later) = self.at.later(wanted.as_ref(), &fresh.partial) {
                wanted = Some(later);
                continue;
            }
            let mut concerned = wanted.clone().unwrap_or_else(|| {
                fresh.partial.dates.keys().chain(&fresh.partial.known).copied().collect::<BTreeSet<_>>()
            });
            if !self.check(&fresh, &mut concerned).await? {
                let why = "documents came or went below the watermark on dates that are not kept: all dates are made";
                self.warnings.push(why.into());
                return self.whole(None, why.into(), planned).await;
            }
            let merged = self.merged(&fresh, &concerned).await?;
            let rest: BTreeSet<i32> = concerned.iter().filter(|date| !merged.contains_key(date)).copied().collect();
            let mut scanned = None;
            if !rest.is_empty() {
                let found = self.at.dated(Some(rest.clone())).await?;
                if let Some(later) = self.at.later(wanted.as_ref(), &found.partial) {
                    wanted = Some(later);
                    continue;
                }
                scanned = Some(found);
            }
            return Ok(self.assembled(&fresh, concerned, merged, scanned, planned));
        }
    }

    /// Where reading begins for dates of which some are kept.
    fn from(&self, dates: &BTreeSet<i32>) -> std::result::Result<Coverage, String> {
        if self.at.settings.mode == Mode::Full {
            return Err(String::new());
        }
        let mut from: Option<Coverage> = None;
        let mut documents = FEW;
        let mut why = None;
        for date in dates {
            match self.usable(*date) {
                Ok(covered) => {
                    documents += self.store.kept.rows[date].documents;
                    from = Some(from.map_or_else(|| covered.clone(), |from| from.least(&covered)));
                }
                Err(reason) => why = Some(reason),
            }
        }
        let Some(from) = from else { return Err(why.unwrap_or_else(|| self.none())) };
        if from.offsets_to(&self.now) > documents {
            return Err("more events have come since than the kept dates have".into());
        }
        Ok(from)
    }

    /// The events beyond `from`; `None` when they are too many for the memory.
    async fn fresh(&self, from: Coverage, wanted: Option<&BTreeSet<i32>>) -> Result<Option<Fresh>> {
        let mut kept = BTreeMap::new();
        let mut marks: Vec<Coverage> = self.reported.iter().chain(&self.front).cloned().collect();
        for date in self.store.kept.rows.keys() {
            if let Ok(covered) = self.usable(*date)
                && from.within(&covered)
            {
                marks.push(covered.clone());
                kept.insert(*date, covered);
            }
        }
        let mut distinct: Vec<Coverage> = Vec::new();
        for mark in marks.into_iter().filter(|mark| from.within(mark)) {
            if !distinct.contains(&mark) {
                distinct.push(mark);
            }
        }
        let marks = Arc::new(distinct);
        let dates = wanted.cloned().map(Arc::new);
        let scope = Scope { dates, kept: Arc::new(kept), marks: Arc::clone(&marks), ..self.at.scope() };
        let (partial, spilled) = self.at.scan(from.ranges_to(&self.now)?, &scope).await?;
        Ok((spilled == 0).then(|| Fresh { from, partial: Arc::new(partial), marks }))
    }

    /// Whether as many documents are there as were read, of all (by the server's count) and of each date that is small or was
    /// not looked at for a day (by the index). Dates that hold others are not used, and made as a whole; false when
    /// something below the watermark changed on dates that nobody knows.
    async fn check(&mut self, fresh: &Fresh, concerned: &mut BTreeSet<i32>) -> Result<bool> {
        let at = self.at;
        let kept = &self.store.kept;
        let mark = kept.mark.as_ref();
        // By what is covered: how many documents more, or fewer, there are than were read.
        let off = |coverage: &Coverage, documents: Option<i64>| -> i64 {
            let place = fresh.marks.iter().position(|known| known == coverage);
            let (Some(documents), Some(place)) = (documents, place) else { return 0 };
            let beyond = fresh.partial.beyond.get(place).copied().unwrap_or(0);
            let expected = documents.saturating_add(i64::try_from(beyond).unwrap_or(i64::MAX));
            let (least, most) = self.below;
            if expected < least { least - expected } else { most.min(expected) - expected }
        };
        let unexplained = match (&self.reported, mark) {
            (Some(reported), Some(mark)) if at.settings.dates == Dates::Changed => {
                off(reported, mark.reported_documents)
            }
            _ => 0,
        };
        let mut asked = BTreeSet::new();
        for (date, row) in &kept.rows {
            let Ok(covered) = self.usable(*date) else { continue };
            if !fresh.from.within(&covered) || at.settings.mode == Mode::Full && unexplained == 0 {
                continue;
            }
            let documents = if row.covered.is_some() {
                row.covered_documents
            } else {
                mark.and_then(|mark| mark.covered_documents)
            };
            let due = concerned.contains(date) && (row.documents <= SMALL || !row.checked);
            if due || unexplained != 0 || off(&covered, documents) != 0 {
                asked.insert(*date);
            }
        }
        if asked.is_empty() {
            return Ok(unexplained == 0);
        }
        let field = &at.settings.time_field;
        let ahead = counts::written(at.events, &at.moment, field, &self.beyond).await?;
        let mut explained = 0;
        for date in asked {
            let there = counts::on_date(at.events, &at.moment, field, date).await?;
            let there = there - ahead.get(&date).copied().unwrap_or(0);
            let new = fresh.partial.written.get(&date).copied().unwrap_or(0);
            let expected = kept.rows[&date].documents + i64::try_from(new).unwrap_or(i64::MAX);
            self.checked.insert(date);
            if there == expected {
                continue;
            }
            explained += there - expected;
            let why = format!("counts differ: {there} documents are on the date, {expected} were read");
            // An event that is written with one date and counts on the next may be the one.
            let beside = i32::from(kept.rows[&date].shifted || fresh.partial.shifted.contains(&date));
            for date in (date - beside..=date + beside).filter(|date| kept.rows.contains_key(date)) {
                self.void.insert(date, why.clone());
                if at.settings.dates == Dates::Changed {
                    concerned.insert(date);
                }
            }
        }
        Ok(unexplained == 0 || unexplained == explained)
    }

    /// The concerned dates of which a Partial is kept, with their new events.
    async fn merged(&mut self, fresh: &Fresh, concerned: &BTreeSet<i32>) -> Result<BTreeMap<i32, Merged>> {
        let mut merged = BTreeMap::new();
        let Ok((client, place)) = self.store.place else { return Ok(merged) };
        if self.at.settings.mode == Mode::Full {
            return Ok(merged);
        }
        let usable = concerned.iter().filter(|date| self.usable(**date).is_ok_and(|kept| fresh.from.within(&kept)));
        let usable: Vec<i32> = usable.copied().collect();
        // Each is in memory as a whole for a moment: as many at once as there are cores, within the limit.
        let limit = self.at.settings.memory_limit;
        let room = limit.saturating_sub(u64::try_from(fresh.partial.heap()).unwrap_or(u64::MAX));
        let takes = |date: &i32| self.store.kept.rows[date].takes;
        let (usable, large): (Vec<i32>, Vec<i32>) = usable.into_iter().partition(|date| takes(date) <= room);
        let cores = u64::try_from(std::thread::available_parallelism().map_or(2, NonZero::get)).unwrap_or(2);
        let most = usable.iter().map(takes).max().unwrap_or(0).max(1);
        let at_once = usize::try_from(cores.min(room / most)).unwrap_or(1).max(1);
        let (plan, owner, rows, aside) = (self.at.plan, &self.store.owner, &self.store.kept.rows, &self.shelf);
        let one = |date: i32| async move {
            let found = store::bytes(client, place, owner, (date, &rows[&date].run_id)).await?;
            let (plan, partial, aside) = (Arc::clone(plan), Arc::clone(&fresh.partial), Arc::clone(aside));
            let made = move || found.and_then(|bytes| Merged::of(&bytes, date, &partial, &plan, &aside));
            let made = tokio::task::spawn_blocking(made).await;
            Ok::<_, Error>((date, made.map_err(|error| Error::bug("aggregate: merge kept partials").because(error))?))
        };
        let made: Vec<_> = stream::iter(usable).map(one).buffer_unordered(at_once).try_collect().await?;
        for (date, one) in made {
            match one {
                Ok(one) => _ = merged.insert(date, one),
                Err(why) => _ = self.void.insert(date, why),
            }
        }
        for date in large {
            self.void.insert(date, "its partial is larger than memory_limit".into());
        }
        Ok(merged)
    }

    /// All that was read for a run that used kept Partials, or might have.
    fn assembled(
        self,
        fresh: &Fresh,
        concerned: BTreeSet<i32>,
        merged: BTreeMap<i32, Merged>,
        scanned: Option<Dated>,
        planned: Instant,
    ) -> (Dated, Increment) {
        let incremental = self.at.settings.mode == Mode::Incremental;
        let mut increment = Increment { incremental, ..Increment::default() };
        let mut whole = Partial::new();
        let mut spilled = 0;
        let mut keeping = Keeping::of((self.at, self.store), &self.now, self.below, &self.shelf);
        keeping.from(fresh, self.front.as_ref(), &concerned);
        if let Some(found) = scanned {
            spilled = found.spilled;
            for date in found.wanted.iter().flatten() {
                if incremental {
                    let why = self.usable(*date).err();
                    let why = why.unwrap_or_else(|| "its partial covers less than the others".into());
                    increment.full_scans.insert(*date, why);
                }
                keeping.scanned(*date, &found.partial, found.spilled > 0);
            }
            whole.merge(found.partial);
        }
        increment.read = whole.scanned + fresh.partial.scanned;
        // Of a date that was read as a whole every new event is known already.
        let mut of_scanned = 0;
        for (date, day) in &fresh.partial.dates {
            if !merged.contains_key(date) {
                of_scanned += day.counted;
            }
        }
        whole.scanned += fresh.partial.scanned;
        for (reason, count) in &fresh.partial.excluded {
            *whole.excluded.entry(reason).or_default() += count;
        }
        if of_scanned > 0 {
            *whole.excluded.entry("of_scanned_date").or_default() += of_scanned;
        }
        whole.samples.extend(fresh.partial.samples.iter().cloned());
        for (date, one) in merged {
            increment.kept += one.kept;
            whole.scanned += one.kept;
            whole.counted += one.day.counted;
            keeping.merged(date, &one, &fresh.partial, self.checked.contains(&date));
            whole.dates.insert(date, one.day);
        }
        if incremental && increment.full_scans.len() == concerned.len() && !concerned.is_empty() {
            increment.incremental = false;
            increment.why_full = increment.full_scans.values().next().cloned();
        }
        increment.keep = Some(keeping.done(&self.void));
        increment.warnings = self.warnings;
        (Dated { wanted: Some(concerned), partial: whole, planned, spilled }, increment)
    }

    /// All documents of the dates; `None`: of all dates.
    async fn whole(self, wanted: Option<BTreeSet<i32>>, why: String, planned: Instant) -> Result<(Dated, Increment)> {
        let mut dated = self.at.dated_or_later(wanted).await?;
        dated.planned = planned;
        let mut keeping = Keeping::of((self.at, self.store), &self.now, self.below, &self.shelf);
        keeping.whole(self.front.as_ref(), &dated);
        let increment = Increment {
            read: dated.partial.scanned,
            why_full: (!why.is_empty()).then_some(why),
            keep: Some(keeping.done(&self.void)),
            warnings: self.warnings,
            ..Increment::default()
        };
        Ok((dated, increment))
    }
}
