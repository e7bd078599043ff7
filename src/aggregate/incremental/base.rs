//! One date's Partial as it is kept: rows by key and values by text in order, so that new events find theirs without a
//! table of all, and of each row's distinct values the numbers alone, to be looked at only where new ones come.
//!
//! A stream of the values ([`Texts`]), then for each report its rows and for each distinct count of it a cell a row: ascending
//! numbers as differences, seven bits a byte.

use std::io::Cursor;

use polars_arrow::array::BinaryArray;
use polars_arrow::datatypes::ArrowDataType;
use polars_arrow::io::ipc::write::Compression;
use polars_arrow::offset::OffsetsBuffer;
use serde::{Deserialize, Serialize};

use super::texts::{self, Texts};
use crate::aggregate::arrow::{Batch, Day, batch, bug, damaged, fill, of, rows, stream};
use crate::aggregate::partial::{DatePartial, Groups, Partial, add_each};
use crate::aggregate::reports::plan::Plan;
use crate::aggregate::states::State;
use crate::aggregate::visitors::Visitors;
use crate::error::Result;

/// Another layout, or another meaning of what it holds, is another number.
pub const VERSION: i32 = 2;
/// A value that is not there.
const NONE: u32 = u32::MAX;

#[derive(Debug, Serialize, Deserialize)]
struct Books {
    version: i32,
    definition: String,
    date: i32,
    values: u64,
    day: Day,
}

/// One date of a Partial as bytes, and how many distinct values it has; nothing of it was put aside, and it is settled.
///
/// # Errors
/// `Bug`, as Arrow says.
pub fn write(partial: &Partial, date: i32, plan: &Plan) -> Result<(Vec<u8>, u64)> {
    let none = DatePartial::new(plan);
    let day = partial.dates.get(&date).unwrap_or(&none);
    let (values, ranks) = ranked(partial, day);
    let count = values.len() as u64;
    let books = Books { version: VERSION, definition: plan.name.clone(), date, values: count, day: Day::of(day) };
    let books = serde_json::to_string(&books).map_err(bug)?;
    #[allow(clippy::default_trait_access, reason = "the level is of a crate that this one does not name")]
    let dense = || Compression::ZSTD(Default::default());
    let kept_texts = || {
        let mut out = Vec::new();
        let texts = texts::packed(values.iter().map(|number| partial.values.text(*number)))?;
        stream(&mut out, vec![("value".into(), texts.boxed())], Some(books), dense())?;
        Ok(out)
    };
    let report = |groups: &Groups| {
        let mut out = Vec::new();
        let order = groups.keys.sorted(0..u32::try_from(groups.events.len()).unwrap_or(NONE));
        let mut picked = groups.picked(&order);
        let mut cells = Vec::new();
        for (at, state) in groups.states.iter().enumerate() {
            let State::Distinct(distinct) = state else { continue };
            let (column, counts) = packed(distinct.seen.pairs(), &order, &ranks)?;
            cells.push((format!("{at}"), column.boxed()));
            if let State::Distinct(picked) = &mut picked.states[at] {
                picked.counted = counts;
            }
        }
        stream(&mut out, rows(&[(date, &picked)], groups.states.len()), None, dense())?;
        if !cells.is_empty() {
            stream(&mut out, cells, None, dense())?;
        }
        Ok(out)
    };
    // Compression is most of it: each report's on a thread of its own.
    let parts: Vec<Result<Vec<u8>>> = std::thread::scope(|scope| {
        let report = &report;
        let reports: Vec<_> = day.reports.iter().map(|groups| scope.spawn(move || report(groups))).collect();
        let ended = reports.into_iter().map(|thread| thread.join().map_err(|_| bug("a thread panicked"))?);
        std::iter::once(kept_texts()).chain(ended).collect()
    });
    let out = parts.into_iter().collect::<Result<Vec<_>>>()?.concat();
    Ok((out, count))
}

/// The numbers of the values that a date has seen, by text; and the place of each number among them.
fn ranked(partial: &Partial, day: &DatePartial) -> (Vec<u32>, Vec<u32>) {
    let mut ranks = vec![NONE; partial.values.len()];
    for state in day.reports.iter().flat_map(|groups| &groups.states) {
        if let State::Distinct(distinct) = state {
            distinct.seen.pairs().iter().for_each(|pair| ranks[(pair & 0xffff_ffff) as usize] = 0);
        }
    }
    let used = ranks.iter().zip(0_u32..).filter(|(rank, _)| **rank == 0).map(|(_, number)| number);
    let order = partial.values.sorted(used);
    for (number, rank) in order.iter().zip(0..) {
        ranks[*number as usize] = rank;
    }
    (order, ranks)
}

/// A cell for each row, and how many values it holds.
fn packed(pairs: &[u64], order: &[u32], ranks: &[u32]) -> Result<(BinaryArray<i64>, Vec<u64>)> {
    let mut starts = vec![0; order.len() + 1];
    for pair in pairs {
        starts[(pair >> 32) as usize + 1] += 1;
    }
    for row in 1..starts.len() {
        starts[row] += starts[row - 1];
    }
    let (mut bytes, mut offsets, mut counts) = (Vec::new(), vec![0_i64], Vec::with_capacity(order.len()));
    let mut mine: Vec<u32> = Vec::new();
    for row in order {
        let row = *row as usize;
        mine.clear();
        mine.extend(pairs[starts[row]..starts[row + 1]].iter().map(|pair| ranks[(pair & 0xffff_ffff) as usize]));
        mine.sort_unstable();
        let mut before = 0;
        for rank in &mine {
            texts::put(&mut bytes, rank - before);
            before = *rank;
        }
        offsets.push(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        counts.push(mine.len() as u64);
    }
    let offsets = OffsetsBuffer::try_from(offsets).map_err(bug)?;
    Ok((BinaryArray::try_new(ArrowDataType::LargeBinary, offsets, bytes.into(), None).map_err(bug)?, counts))
}

/// The numbers of a cell.
fn unpacked(mut cell: &[u8]) -> impl Iterator<Item = u32> {
    let mut rank = 0_u32;
    std::iter::from_fn(move || {
        rank = rank.wrapping_add(texts::take(&mut cell)?);
        Some(rank)
    })
}

/// A kept date, read.
pub struct Base {
    date: i32,
    values: Texts,
    /// How many these are.
    count: u64,
    /// Its rows, whose distinct values are counted only.
    day: DatePartial,
    /// By report, its rows, and the cells of its distinct counts by metric.
    cells: Vec<(usize, Vec<Option<BinaryArray<i64>>>)>,
}

impl Base {
    /// Reads what [`write`] wrote for the same plan and date.
    ///
    /// # Errors
    /// `Data` for bytes of another version, definition or date, and for damaged ones.
    pub fn read(bytes: &[u8], date: i32, plan: &Plan) -> Result<Self> {
        let mut bytes = Cursor::new(bytes);
        let (values, books) = batch(&mut bytes)?;
        let books: Books = serde_json::from_str(&books.ok_or_else(damaged)?).map_err(|_| damaged())?;
        if (books.version, books.definition.as_str(), books.date) != (VERSION, plan.name.as_str(), date) {
            return Err(damaged());
        }
        let mut partial = Partial::new();
        let count = books.values;
        partial.dates.insert(date, books.day.read(plan)?);
        let mut cells = Vec::new();
        for (at, report) in plan.reports.iter().enumerate() {
            let (columns, _) = batch(&mut bytes)?;
            let rows = fill(&mut partial, at, &columns)?.len();
            let groups = &partial.dates[&date].reports[at];
            let mut left: Batch = Vec::new();
            if groups.states.iter().any(|state| matches!(state, State::Distinct(_))) {
                left = batch(&mut bytes)?.0;
            }
            let mut left = left.into_iter();
            let of_metric = groups.states.iter().take(report.metrics.len()).map(|state| {
                let State::Distinct(_) = state else { return Ok(None) };
                let column = left.next().ok_or_else(damaged)?;
                let column: BinaryArray<i64> = of::<BinaryArray<i64>>(&[column], 0)?.clone();
                if column.len() == rows { Ok(Some(column)) } else { Err(damaged()) }
            });
            let of_metric = of_metric.collect::<Result<_>>()?;
            cells.push((rows, of_metric));
        }
        let values = Texts::new(of::<BinaryArray<i64>>(&values, 0)?.clone());
        let day = partial.dates.remove(&date).ok_or_else(damaged)?;
        Ok(Self { date, values, count, day, cells })
    }

    /// Events that count.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.day.counted
    }

    /// The rows with those of more events of the date, which are settled: distinct values are counted only. `new` are the
    /// events among them that are not published yet.
    #[must_use]
    pub fn with(mut self, more: &Partial, new: &Partial) -> DatePartial {
        self.add(more);
        let new = new.dates.get(&self.date);
        let touched = self.day.reports.iter_mut().enumerate().map(|(at, groups)| {
            let mut touched = vec![false; groups.events.len()];
            for key in new.iter().flat_map(|day| day.reports[at].keys.texts()) {
                touched[groups.keys.number(key) as usize] = true;
            }
            touched
        });
        self.day.touched = Some(touched.collect());
        self.day
    }

    fn add(&mut self, more: &Partial) {
        let Some(theirs) = more.dates.get(&self.date) else { return };
        let ranks: Vec<u32> = more.values.texts().map(|text| self.values.rank(text).unwrap_or(NONE)).collect();
        self.day.counted += theirs.counted;
        add_each(&mut self.day.unfit, &theirs.unfit);
        for ((ours, theirs), (known, cells)) in self.day.reports.iter_mut().zip(&theirs.reports).zip(&self.cells) {
            let mut theirs = theirs.clone();
            let places = ours.keys.adopt(&theirs.keys);
            for (state, cells) in theirs.states.iter_mut().zip(cells) {
                let (State::Distinct(distinct), Some(cells)) = (state, cells) else { continue };
                let mut new = vec![0; places.len()];
                for of_row in distinct.seen.pairs().chunk_by(|one, other| one >> 32 == other >> 32) {
                    let row = (of_row[0] >> 32) as usize;
                    let place = places[row] as usize;
                    let held = if place < *known { held(cells.value(place), of_row, &ranks) } else { 0 };
                    new[row] = of_row.len() as u64 - held;
                }
                distinct.seen = Visitors::default();
                distinct.counted = new;
            }
            ours.merge(theirs, &[]);
        }
    }

    /// The Partial that it was, with all that its rows have seen.
    ///
    /// # Errors
    /// As [`Texts::each`].
    pub fn whole(mut self) -> Result<Partial> {
        let mut whole = Partial { scanned: self.day.counted, counted: self.day.counted, ..Partial::new() };
        self.values.each(self.count, |value| _ = whole.values.number(value))?;
        for (groups, (_, cells)) in self.day.reports.iter_mut().zip(&self.cells) {
            for (state, cells) in groups.states.iter_mut().zip(cells) {
                let (State::Distinct(distinct), Some(cells)) = (state, cells) else { continue };
                let mut pairs = Vec::new();
                for (cell, row) in cells.values_iter().zip(0_u64..) {
                    pairs.extend(unpacked(cell).map(|rank| row << 32 | u64::from(rank)));
                }
                distinct.seen = Visitors::ascending(pairs);
                distinct.counted = Vec::new();
            }
        }
        whole.dates.insert(self.date, self.day);
        Ok(whole)
    }
}

/// How many of a row's new values a cell holds.
fn held(cell: &[u8], pairs: &[u64], ranks: &[u32]) -> u64 {
    let mut wanted: Vec<u32> = pairs.iter().map(|pair| ranks[(pair & 0xffff_ffff) as usize]).collect();
    wanted.retain(|rank| *rank != NONE);
    wanted.sort_unstable();
    let mut wanted = wanted.into_iter().peekable();
    let mut held = 0;
    for rank in unpacked(cell) {
        while wanted.next_if(|wanted| *wanted < rank).is_some() {}
        match wanted.next_if_eq(&rank) {
            Some(_) => held += 1,
            None if wanted.peek().is_none() => break,
            None => {}
        }
    }
    held
}

/// One date of a Partial by itself, with values of its own.
#[must_use]
pub fn only(partial: &Partial, date: i32) -> Partial {
    let mut made = Partial::new();
    let Some(day) = partial.dates.get(&date) else { return made };
    (made.scanned, made.counted) = (day.counted, day.counted);
    let mut numbers = vec![NONE; partial.values.len()];
    let mut reports: Vec<Groups> = Vec::with_capacity(day.reports.len());
    for groups in &day.reports {
        let mut groups = groups.clone();
        for state in &mut groups.states {
            let State::Distinct(distinct) = state else { continue };
            let mut seen = Visitors::default();
            for pair in distinct.seen.pairs() {
                let number = &mut numbers[(pair & 0xffff_ffff) as usize];
                if *number == NONE {
                    *number = made.values.number(partial.values.text((pair & 0xffff_ffff) as u32));
                }
                seen.add((pair >> 32) as u32, *number);
            }
            seen.settle();
            distinct.seen = seen;
        }
        reports.push(groups);
    }
    made.dates.insert(date, DatePartial { counted: day.counted, unfit: day.unfit.clone(), reports, touched: None });
    made
}
