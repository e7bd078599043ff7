//! A Partial to Arrow and back: IPC streams one after another, compressed. First the values that distinct counts have seen,
//! with the books as metadata; then by report its rows (date, key, events, and a column for each metric that keeps one),
//! and for each distinct count the pairs of row and value.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::Arc;

use polars_arrow::array::{Array, BinaryArray, PrimitiveArray, StaticArray, Utf8Array};
use polars_arrow::datatypes::{ArrowSchema, Field, Metadata};
use polars_arrow::io::ipc::read::{StreamReader, StreamState, read_stream_metadata};
use polars_arrow::io::ipc::write::{Compression, StreamWriter, WriteOptions};
use polars_arrow::record_batch::RecordBatchT;
use serde::{Deserialize, Serialize};

use super::exact::Sum;
use super::partial::{DatePartial, Groups, Partial};
use super::reports::number::Number;
use super::reports::plan::{FILTERED, Plan};
use super::reports::value::{KEY_TYPE, KEY_UNFIT, NULL_KEY};
use super::states::State;
use crate::error::{Error, Result};

/// Another layout is another number.
const VERSION: u32 = 2;
const BOOKS: &str = "millpond.partial";
/// Every reason that a Partial may hold.
const REASONS: [&str; 11] = [
    NULL_KEY,
    KEY_TYPE,
    KEY_UNFIT,
    FILTERED,
    "malformed_document",
    "beyond_position",
    "missing_time",
    "malformed_time",
    "other_date",
    "in_partial",
    "of_scanned_date",
];

/// What is no column.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Books {
    version: u32,
    definition: String,
    scanned: u64,
    counted: u64,
    excluded: BTreeMap<String, u64>,
    foreign: u64,
    later: Option<i32>,
    samples: BTreeSet<(String, String, String)>,
    dates: BTreeMap<i32, Day>,
}

/// What is no column of a date.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Day {
    counted: u64,
    unfit: Vec<u64>,
    /// By report, the events without a usable key by reason.
    excluded: Vec<BTreeMap<String, u64>>,
}

impl Day {
    pub(super) fn of(day: &DatePartial) -> Self {
        let excluded = day.reports.iter().map(|groups| named(&groups.excluded)).collect();
        Self { counted: day.counted, unfit: day.unfit.clone(), excluded }
    }

    /// The date's Partial without its rows.
    pub(super) fn read(self, plan: &Plan) -> Result<DatePartial> {
        let mut made = DatePartial { counted: self.counted, unfit: self.unfit, ..DatePartial::new(plan) };
        for (groups, excluded) in made.reports.iter_mut().zip(self.excluded) {
            groups.excluded = known(excluded)?;
        }
        Ok(made)
    }
}

fn named(reasons: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    reasons.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect()
}

fn reason(told: &str) -> Result<&'static str> {
    REASONS.iter().find(|known| **known == told).copied().ok_or_else(damaged)
}

fn known(told: BTreeMap<String, u64>) -> Result<BTreeMap<&'static str, u64>> {
    told.into_iter().map(|(told, count)| Ok((reason(&told)?, count))).collect()
}

/// Soon made and read: what spills comes back at once.
const LZ4: Compression = Compression::LZ4;

/// Columns by name.
pub(super) type Columns = Vec<(String, Box<dyn Array>)>;
/// Columns as they stand in a stream.
pub(super) type Batch = Vec<Box<dyn Array>>;

/// Writes a Partial of a plan.
///
/// # Errors
/// `Bug`, as Arrow says.
pub fn write(partial: &Partial, plan: &Plan) -> Result<Vec<u8>> {
    let books = Books {
        version: VERSION,
        definition: plan.name.clone(),
        scanned: partial.scanned,
        counted: partial.counted,
        excluded: named(&partial.excluded),
        foreign: partial.foreign,
        later: partial.later,
        samples: partial
            .samples
            .iter()
            .map(|(field, reason, id)| (field.clone(), (*reason).into(), id.clone()))
            .collect(),
        dates: partial.dates.iter().map(|(date, day)| (*date, Day::of(day))).collect(),
    };
    let books = serde_json::to_string(&books).map_err(bug)?;
    let mut out = Vec::new();
    let values = Utf8Array::<i64>::from_iter_values(partial.values.texts());
    stream(&mut out, vec![("value".into(), values.boxed())], Some(books), LZ4)?;
    for at in 0..plan.reports.len() {
        let groups: Vec<(i32, &Groups)> = partial.dates.iter().map(|(date, all)| (*date, &all.reports[at])).collect();
        stream(&mut out, rows(&groups, plan.reports[at].metrics.len()), None, LZ4)?;
        for metric in 0..plan.reports[at].metrics.len() {
            if let Some(pairs) = pairs(&groups, metric) {
                stream(&mut out, pairs, None, LZ4)?;
            }
        }
    }
    Ok(out)
}

pub(super) fn rows(groups: &[(i32, &Groups)], metrics: usize) -> Columns {
    let all = || groups.iter().map(|(_, groups)| *groups);
    let dates = groups.iter().flat_map(|(date, groups)| std::iter::repeat_n(*date, groups.events.len()));
    let mut columns: Columns = vec![
        ("date".into(), PrimitiveArray::<i32>::from_vec(dates.collect()).boxed()),
        ("key".into(), Utf8Array::<i64>::from_iter_values(all().flat_map(|groups| groups.keys.texts())).boxed()),
        ("events".into(), PrimitiveArray::from_vec(all().flat_map(|groups| groups.events.clone()).collect()).boxed()),
    ];
    for at in 0..metrics {
        let of = || all().map(|groups| (&groups.states[at], groups.events.len()));
        let column = match of().next().map(|(state, _)| state) {
            None | Some(State::Count) => continue,
            Some(State::Distinct(_)) => {
                let counts = of().flat_map(|(state, rows)| {
                    let mut counted = if let State::Distinct(one) = state { one.counted.clone() } else { Vec::new() };
                    counted.resize(rows, 0);
                    counted
                });
                PrimitiveArray::<u64>::from_vec(counts.collect()).boxed()
            }
            Some(State::Wholes(_)) => {
                let wholes =
                    of().flat_map(|(state, _)| if let State::Wholes(one) = state { &one.values[..] } else { &[] });
                PrimitiveArray::<i64>::from(wholes.copied().collect::<Vec<_>>()).boxed()
            }
            Some(State::Texts(_)) => {
                let texts =
                    of().flat_map(|(state, _)| if let State::Texts(one) = state { &one.values[..] } else { &[] });
                Utf8Array::<i64>::from(texts.map(Option::as_deref).collect::<Vec<_>>()).boxed()
            }
            Some(State::Numbers(_)) => {
                let numbers =
                    of().flat_map(|(state, _)| if let State::Numbers(one) = state { &one.values[..] } else { &[] });
                BinaryArray::<i64>::from(numbers.map(|number| number.map(|one| one.to_bytes())).collect::<Vec<_>>())
                    .boxed()
            }
            Some(State::Sums(_)) => {
                let sums = of().flat_map(|(state, _)| if let State::Sums(one) = state { &one[..] } else { &[] });
                BinaryArray::<i64>::from(sums.map(|sum| Some(sum.to_bytes())).collect::<Vec<_>>()).boxed()
            }
        };
        columns.push((format!("{at}"), column));
    }
    columns
}

fn pairs(groups: &[(i32, &Groups)], metric: usize) -> Option<Columns> {
    let (mut rows, mut values, mut first, mut any) = (Vec::new(), Vec::new(), 0_u32, false);
    for (_, groups) in groups {
        if let State::Distinct(distinct) = &groups.states[metric] {
            any = true;
            for pair in distinct.seen.pairs() {
                rows.push((pair >> 32) as u32 + first);
                values.push((pair & 0xffff_ffff) as u32);
            }
        }
        first += u32::try_from(groups.events.len()).unwrap_or(u32::MAX);
    }
    let column = |numbers| PrimitiveArray::<u32>::from_vec(numbers).boxed();
    any.then(|| vec![("row".into(), column(rows)), ("value".into(), column(values))])
}

/// Appends one stream of one batch; `books` go into its metadata.
pub(super) fn stream(
    out: &mut Vec<u8>,
    columns: Columns,
    books: Option<String>,
    compression: Compression,
) -> Result<()> {
    let field = |(name, array): &(String, Box<dyn Array>)| {
        let field = Field::new(name.as_str().into(), array.dtype().clone(), true);
        (field.name.clone(), field)
    };
    let schema: ArrowSchema = columns.iter().map(field).collect();
    let height = columns.first().map_or(0, |(_, array)| array.len());
    let arrays: Vec<Box<dyn Array>> = columns.into_iter().map(|(_, array)| array).collect();
    let mut writer = StreamWriter::new(out, WriteOptions { compression: Some(compression) });
    if let Some(books) = books {
        writer.set_custom_schema_metadata(Arc::new(Metadata::from([(BOOKS.into(), books.into())])));
    }
    writer.start(&schema, None).map_err(bug)?;
    let batch = RecordBatchT::try_new(height, Arc::new(schema), arrays).map_err(bug)?;
    writer.write(&batch, None).map_err(bug)?;
    writer.finish().map_err(bug)
}

/// Reads what [`write`] wrote for the same plan.
///
/// # Errors
/// `Data` for bytes of another version or definition, and for damaged ones.
pub fn read(bytes: &[u8], plan: &Plan) -> Result<Partial> {
    let mut bytes = Cursor::new(bytes);
    let (values, books) = batch(&mut bytes)?;
    let books: Books = serde_json::from_str(&books.ok_or_else(damaged)?).map_err(|_| damaged())?;
    if books.version != VERSION || books.definition != plan.name {
        return Err(Error::data("aggregate: a partial of another version or definition").hint("make it again"));
    }
    let mut partial = Partial {
        scanned: books.scanned,
        counted: books.counted,
        excluded: known(books.excluded)?,
        foreign: books.foreign,
        later: books.later,
        ..Partial::default()
    };
    for (field, told, id) in books.samples {
        partial.samples.insert((field, reason(&told)?, id));
    }
    for value in of::<Utf8Array<i64>>(&values, 0)?.values_iter() {
        partial.values.number(value);
    }
    for (date, day) in books.dates {
        partial.dates.insert(date, day.read(plan)?);
    }
    for at in 0..plan.reports.len() {
        let (columns, _) = batch(&mut bytes)?;
        let places = fill(&mut partial, at, &columns)?;
        for metric in 0..plan.reports[at].metrics.len() {
            let distinct = State::new(&plan.reports[at].metrics[metric]);
            // As it was written: no date, no stream.
            if !matches!(distinct, State::Distinct(_)) || partial.dates.is_empty() {
                continue;
            }
            let (columns, _) = batch(&mut bytes)?;
            let (rows, values) = (of::<PrimitiveArray<u32>>(&columns, 0)?, of::<PrimitiveArray<u32>>(&columns, 1)?);
            for (row, value) in rows.values_iter().zip(values.values_iter()) {
                let (date, row) = places.get(*row as usize).ok_or_else(damaged)?;
                let groups = partial.dates.get_mut(date).and_then(|all| all.reports.get_mut(at)).ok_or_else(damaged)?;
                if *value as usize >= partial.values.len() {
                    return Err(damaged());
                }
                if let State::Distinct(distinct) = &mut groups.states[metric] {
                    distinct.seen.add(*row, *value);
                }
            }
        }
    }
    partial.settle();
    Ok(partial)
}

/// Fills the rows of one report out of what [`rows`] made; returns the date and the row of each.
pub(super) fn fill(partial: &mut Partial, at: usize, columns: &[Box<dyn Array>]) -> Result<Vec<(i32, u32)>> {
    let dates = of::<PrimitiveArray<i32>>(columns, 0)?;
    let keys = of::<Utf8Array<i64>>(columns, 1)?;
    let events = of::<PrimitiveArray<u64>>(columns, 2)?;
    let mut places = Vec::with_capacity(dates.len());
    for (i, date) in dates.values_iter().enumerate() {
        let groups = partial.dates.get_mut(date).and_then(|all| all.reports.get_mut(at)).ok_or_else(damaged)?;
        let row = groups.row(keys.value(i));
        groups.events[row as usize] = events.value(i);
        places.push((*date, row));
        let mut column = 3;
        for state in &mut groups.states {
            let row = row as usize;
            match state {
                State::Count => continue,
                State::Distinct(distinct) => {
                    let count = of::<PrimitiveArray<u64>>(columns, column)?.value(i);
                    if count > 0 {
                        distinct.counted.resize(row + 1, 0);
                        distinct.counted[row] = count;
                    }
                }
                State::Wholes(extreme) => extreme.values[row] = of::<PrimitiveArray<i64>>(columns, column)?.get(i),
                State::Texts(extreme) => {
                    extreme.values[row] = of::<Utf8Array<i64>>(columns, column)?.get(i).map(Into::into);
                }
                State::Numbers(extreme) => {
                    let number = of::<BinaryArray<i64>>(columns, column)?.get(i).map(Number::from_bytes);
                    extreme.values[row] = number.map(|number| number.ok_or_else(damaged)).transpose()?;
                }
                State::Sums(sums) => {
                    let bytes = of::<BinaryArray<i64>>(columns, column)?.value(i);
                    sums[row] = Sum::from_bytes(bytes).ok_or_else(damaged)?;
                }
            }
            column += 1;
        }
    }
    Ok(places)
}

/// Reads what [`stream`] wrote.
pub(super) fn batch(bytes: &mut Cursor<&[u8]>) -> Result<(Batch, Option<String>)> {
    let metadata = read_stream_metadata(bytes).map_err(|error| damaged().because(error))?;
    let books = metadata.custom_schema_metadata.as_ref().and_then(|told| told.get(BOOKS)).map(ToString::to_string);
    let mut reader = StreamReader::new(&mut *bytes, metadata, None);
    let Some(Ok(StreamState::Some(batch))) = reader.next() else { return Err(damaged()) };
    // The mark of the end.
    if reader.next().is_some() {
        return Err(damaged());
    }
    Ok((batch.into_arrays(), books))
}

/// A column of its type.
pub(super) fn of<T: 'static>(columns: &[Box<dyn Array>], at: usize) -> Result<&T> {
    columns.get(at).and_then(|column| column.as_any().downcast_ref()).ok_or_else(damaged)
}

/// What all that cannot be read is.
pub(super) fn damaged() -> Error {
    Error::data("aggregate: a partial is damaged").hint("make it again")
}

/// What Arrow says.
pub(super) fn bug(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::bug("aggregate: write a partial").because(error)
}
