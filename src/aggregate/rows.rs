//! `finish`: Partial → rows, ordered by date and key (binary), and the frames that users get.

use polars::prelude::{Column, DataFrame, DataType, IntoColumn, NamedFrom, Series, TimeUnit};

use super::partial::{Partial, REPORTS};
use crate::error::{Error, Result};

/// One row of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished<'a> {
    pub date: i32,
    pub key: &'a str,
    pub views: i64,
    pub visitors: i64,
    pub last_micros: i64,
}

/// The rows of report `report`, ordered by date and key.
///
/// # Errors
/// `Bug` when the sum of views and exclusions is not what was counted (I1).
pub fn finish(partial: &Partial, report: usize) -> Result<Vec<Finished<'_>>> {
    let mut rows = Vec::new();
    for (date, groups) in &partial.dates {
        let counted = groups.counted;
        let groups = &groups.reports[report];
        let visitors = groups.visitors.counts();
        let placed: u64 =
            groups.rows.values().map(|row| row.views).sum::<u64>() + groups.excluded.values().sum::<u64>();
        if placed != counted {
            return Err(Error::bug(format!(
                "aggregate: the books of {} on {} do not balance: {placed} placed, {counted} counted",
                REPORTS[report].0,
                super::instant::text(*date)
            )));
        }
        let first = rows.len();
        for (key, row) in &groups.rows {
            rows.push(Finished {
                date: *date,
                key: partial.keys.text(*key),
                views: i64::try_from(row.views).unwrap_or(i64::MAX),
                visitors: visitors.get(key).copied().unwrap_or(0),
                last_micros: row.last_micros,
            });
        }
        rows[first..].sort_unstable_by(|a, b| a.key.cmp(b.key));
    }
    Ok(rows)
}

/// The rows as a frame, in the table's column order without `created_at`.
///
/// # Errors
/// `Bug`, as Polars says.
pub fn frame(report: usize, rows: &[Finished<'_>]) -> Result<DataFrame> {
    let bug = |error: polars::error::PolarsError| Error::bug("aggregate: build a frame").because(error);
    let integers = |name: &str, of: &dyn Fn(&Finished<'_>) -> i64| -> Column {
        Series::new(name.into(), rows.iter().map(of).collect::<Vec<i64>>()).into_column()
    };
    let mut columns: Vec<Column> =
        vec![Series::new(REPORTS[report].1.into(), rows.iter().map(|row| row.key).collect::<Vec<_>>()).into_column()];
    columns.push(integers("view_count", &|row| row.views));
    if report < 2 {
        columns.push(integers("unique_visitors", &|row| row.visitors));
    }
    if report == 0 {
        let times = integers("last_view_time", &|row| row.last_micros);
        columns.push(times.cast(&DataType::Datetime(TimeUnit::Microseconds, None)).map_err(bug)?);
    }
    let dates = Series::new("report_date".into(), rows.iter().map(|row| row.date).collect::<Vec<i32>>()).into_column();
    columns.push(dates.cast(&DataType::Date).map_err(bug)?);
    DataFrame::new(rows.len(), columns).map_err(bug)
}
