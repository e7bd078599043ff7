//! `finish`: Partial → rows, ordered by date and key (texts binary), as the frames that users and tables get.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use polars::prelude::{
    BooleanChunked, Column, DataFrame, DataType, IntoColumn, IntoSeries, NamedFrom, Series, TimeUnit,
};

use super::instant;
use super::partial::{Groups, Partial};
use super::publish::report::DATE;
use super::reports::definition::{Definition, Key};
use super::reports::metric::{Measure, Metric};
use super::reports::number::Number;
use super::states::State;
use crate::error::{Error, Result};
use crate::postgres::columns::Kind;

/// Where the rows of a date begin, and which of them new events changed.
pub type Changed = BTreeMap<i32, (usize, Vec<bool>)>;

/// The rows of report `report`, which `definition` defines, ordered by date and key: its keys, its metrics, the date. And of
/// dates that were kept, which rows have changed.
///
/// # Errors
/// `Bug` when the sum of events and exclusions is not what was counted (I1); `Data` for a sum beyond its column.
pub fn finish(partial: &Partial, report: usize, definition: &Definition) -> Result<(DataFrame, Changed)> {
    let mut dates = Vec::new();
    let mut changed = Changed::new();
    let mut ordered = Vec::new();
    for (date, day) in &partial.dates {
        let counted = day.counted;
        let groups = &day.reports[report];
        let placed: u64 = groups.events.iter().sum::<u64>() + groups.excluded.values().sum::<u64>();
        if placed != counted {
            return Err(Error::bug(format!(
                "aggregate: the books of {} on {} do not balance: {placed} placed, {counted} counted",
                definition.table,
                instant::text(*date)
            )));
        }
        let rows = order(groups, &definition.keys);
        if let Some(touched) = &day.touched {
            let of_row = |row: &u32| touched[report].get(*row as usize).copied().unwrap_or(false);
            changed.insert(*date, (dates.len(), rows.iter().map(of_row).collect()));
        }
        dates.extend(std::iter::repeat_n(*date, rows.len()));
        ordered.push((groups, rows));
    }
    let mut columns = Vec::new();
    for (at, key) in definition.keys.iter().enumerate() {
        let texts = ordered.iter().flat_map(|(groups, rows)| rows.iter().map(move |row| groups.keys.text(*row)));
        let texts = texts.map(|text| part(text, at, definition.keys.len()));
        columns.push(keys(key, texts)?);
    }
    for (at, metric) in definition.metrics.iter().enumerate() {
        let mut cells = Cells::new(metric.kind);
        for (groups, rows) in &ordered {
            cells.extend(groups, rows, at, metric).map_err(|()| {
                Error::data(format!("aggregate: {}: {} is beyond a BIGINT", definition.table, metric.name))
                    .hint("give it the type \"numeric\"")
            })?;
        }
        columns.push(cells.column(&metric.name, metric.kind)?);
    }
    columns.push(Cells::Wholes(dates.iter().map(|date| Some(i64::from(*date))).collect()).column(DATE, Kind::Date)?);
    Ok((DataFrame::new(dates.len(), columns).map_err(bug)?, changed))
}

fn bug(error: polars::error::PolarsError) -> Error {
    Error::bug("aggregate: build a frame").because(error)
}

/// One column's part of a key.
fn part(text: &str, at: usize, columns: usize) -> &str {
    if columns == 1 { text } else { text.split('\0').nth(at).unwrap_or_default() }
}

fn order(groups: &Groups, keys: &[Key]) -> Vec<u32> {
    let all = 0..u32::try_from(groups.events.len()).unwrap_or(u32::MAX);
    if keys.iter().all(|key| key.kind.is_text()) {
        // NUL is below all that a key holds: joined texts stand as their columns do.
        return groups.keys.sorted(all);
    }
    let mut rows: Vec<u32> = all.collect();
    rows.sort_unstable_by(|one, other| {
        let (one, other) = (groups.keys.text(*one).split('\0'), groups.keys.text(*other).split('\0'));
        let columns = one.zip(other).zip(keys).map(|((one, other), key)| match key.kind {
            Kind::Varchar(_) | Kind::Text => one.cmp(other),
            _ => match (Number::read(one), Number::read(other)) {
                (Some(one), Some(other)) => one.compare(&other),
                _ => one.cmp(other),
            },
        });
        columns.fold(Ordering::Equal, Ordering::then)
    });
    rows
}

fn keys<'a>(key: &Key, texts: impl Iterator<Item = &'a str>) -> Result<Column> {
    match key.kind {
        Kind::Varchar(_) | Kind::Text | Kind::Numeric => {
            Ok(Series::new(key.name.as_str().into(), texts.collect::<Vec<&str>>()).into_column())
        }
        kind => Cells::Wholes(texts.map(|text| text.parse().ok()).collect()).column(&key.name, kind),
    }
}

/// The cells of one metric.
enum Cells {
    Wholes(Vec<Option<i64>>),
    Doubles(Vec<Option<f64>>),
    Texts(Vec<Option<String>>),
}

impl Cells {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Double => Self::Doubles(Vec::new()),
            Kind::Varchar(_) | Kind::Text | Kind::Numeric => Self::Texts(Vec::new()),
            _ => Self::Wholes(Vec::new()),
        }
    }

    /// Appends the cells of one date; fails for a whole number of over 64 bits.
    fn extend(&mut self, groups: &Groups, rows: &[u32], at: usize, metric: &Metric) -> Result<(), ()> {
        let wide = |count: u64| Some(i64::try_from(count).unwrap_or(i64::MAX));
        let rows = rows.iter().map(|row| *row as usize);
        match (self, &groups.states[at]) {
            (Self::Wholes(cells), State::Count) => cells.extend(rows.map(|row| wide(groups.events[row]))),
            (Self::Wholes(cells), State::Distinct(distinct)) => {
                let counts = distinct.counts(groups.events.len());
                cells.extend(rows.map(|row| wide(counts[row])));
            }
            (Self::Wholes(cells), State::Wholes(extreme)) => cells.extend(rows.map(|row| extreme.values[row])),
            (Self::Doubles(cells), State::Numbers(extreme)) => {
                cells.extend(rows.map(|row| extreme.values[row].map(|number| number.double())));
            }
            (Self::Texts(cells), State::Numbers(extreme)) => {
                cells.extend(rows.map(|row| extreme.values[row].map(|number| number.plain())));
            }
            (Self::Texts(cells), State::Texts(extreme)) => {
                cells.extend(rows.map(|row| extreme.values[row].as_deref().map(str::to_owned)));
            }
            (Self::Doubles(cells), State::Sums(sums)) if matches!(metric.measure, Measure::Mean(_)) => {
                cells.extend(rows.map(|row| sums[row].mean()));
            }
            (Self::Doubles(cells), State::Sums(sums)) => {
                cells.extend(rows.map(|row| (sums[row].count > 0).then(|| sums[row].double())));
            }
            (Self::Texts(cells), State::Sums(sums)) => {
                cells.extend(rows.map(|row| (sums[row].count > 0).then(|| sums[row].numeric())));
            }
            (Self::Wholes(cells), State::Sums(sums)) => {
                for row in rows {
                    let sum = (sums[row].count > 0).then(|| sums[row].numeric().parse());
                    cells.push(sum.transpose().map_err(|_| ())?);
                }
            }
            _ => return Err(()),
        }
        Ok(())
    }

    fn column(self, name: &str, kind: Kind) -> Result<Column> {
        let name = || name.into();
        let series = match self {
            Self::Doubles(cells) => Series::new(name(), cells),
            Self::Texts(cells) => Series::new(name(), cells),
            Self::Wholes(cells) if kind == Kind::Boolean => {
                let truths = cells.into_iter().map(|cell| cell.map(|whole| whole != 0));
                truths.collect::<BooleanChunked>().with_name(name()).into_series()
            }
            Self::Wholes(cells) => {
                let wholes = Series::new(name(), cells);
                match kind {
                    Kind::Timestamp => wholes.cast(&DataType::Datetime(TimeUnit::Microseconds, None)).map_err(bug)?,
                    Kind::Date => {
                        wholes.cast(&DataType::Int32).and_then(|days| days.cast(&DataType::Date)).map_err(bug)?
                    }
                    _ => wholes,
                }
            }
        };
        Ok(series.into_column())
    }
}
