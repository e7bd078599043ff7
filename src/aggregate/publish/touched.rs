//! Rows that new events changed, replaced alone: where the table holds of a date just what this job's last publication
//! left there. Whether it does is told by the transactions that wrote its rows; anybody's update, insert or delete shows.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};
use tokio_postgres::Transaction;
use tokio_postgres::types::ToSql;

use super::report::{DATE, Report};
use super::{Clock, copy, failed, texts};
use crate::aggregate::instant;
use crate::error::{Error, Result};
use crate::postgres::columns::quoted;

/// What a table held of a date when a publication was over: its rows, and the sum of the transactions that wrote them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub rows: i64,
    pub sum: i64,
}

/// By date and table.
pub type Stamps = BTreeMap<i32, BTreeMap<String, Stamp>>;

/// Replaces the changed rows of those dates of which the table is as `before` says, and returns these dates; `after` is told
/// what the table holds then.
///
/// # Errors
/// As [`crate::postgres::told`].
pub async fn replace(
    transaction: &Transaction<'_>,
    table: &str,
    report: &Report,
    dates: &BTreeSet<i32>,
    (before, after): (&Stamps, &mut Stamps),
    clock: Clock,
) -> Result<BTreeSet<i32>> {
    let name = &report.table.name;
    let mut done = BTreeSet::new();
    if !report.table.keys.iter().all(|key| key.kind.is_text()) {
        return Ok(done);
    }
    let stamp = |date: &i32| before.get(date).and_then(|tables| tables.get(name)).copied();
    let hopeful: BTreeSet<i32> =
        dates.iter().filter(|date| report.changed.contains_key(date) && stamp(date).is_some()).copied().collect();
    if hopeful.is_empty() {
        return Ok(done);
    }
    let what = || format!("postgres: replace rows of {name}");
    // A number is made of each transaction, not of each row.
    let query = format!(
        "SELECT d::text, sum(n)::bigint, sum(n * x::text::bigint)::bigint FROM (
            SELECT {DATE} AS d, xmin AS x, count(*) AS n FROM {table} WHERE {DATE} = ANY($1::text[]::date[])
            GROUP BY 1, 2) AS written GROUP BY 1"
    );
    let found = transaction.query(&query, &[&texts(&hopeful)]).await.map_err(failed(what()))?;
    let mut now: BTreeMap<i32, Stamp> = BTreeMap::new();
    for row in found {
        if let Some(date) = instant::date(row.get::<_, String>(0).as_bytes()) {
            now.insert(date, Stamp { rows: row.get(1), sum: row.get(2) });
        }
    }
    // Thousands of keys against thousands of rows: neither one by one nor sorted, whatever the planner knows of a table.
    let hash = "SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = off";
    transaction.batch_execute(hash).await.map_err(failed(what()))?;
    let held = |date: &i32| now.get(date).copied().unwrap_or_default();
    let mut rows: Vec<(i32, usize)> = Vec::new();
    let mut asis = Vec::new();
    for date in hopeful {
        let Some((first, changed)) = report.changed.get(&date).filter(|_| stamp(&date) == Some(held(&date))) else {
            continue;
        };
        let of_date = changed.iter().enumerate().filter(|(_, changed)| **changed).map(|(row, _)| (date, first + row));
        let before = rows.len();
        rows.extend(of_date);
        asis.push((date, changed.len(), rows.len() - before));
    }
    let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let gone = if rows.is_empty() { BTreeMap::new() } else { delete(transaction, table, report, &rows).await? };
    for (date, total, new) in asis {
        let (held, gone, new) = (held(&date), gone.get(&date).copied().unwrap_or_default(), signed(new));
        if held.rows - gone.rows + new != signed(total) {
            // Not as it was thought to be: the whole date is replaced.
            continue;
        }
        let stamp = Stamp { rows: signed(total), sum: held.sum - gone.sum + new * clock.xid };
        after.entry(date).or_default().insert(name.clone(), stamp);
        done.insert(date);
    }
    let wanted: HashSet<usize> = rows.iter().filter(|(date, _)| done.contains(date)).map(|(_, row)| *row).collect();
    if !wanted.is_empty() {
        copy(transaction, table, report, |row| wanted.contains(&row), clock.created).await?;
    }
    Ok(done)
}

/// Deletes rows by their keys; by date, how many stood there and the sum of the transactions that wrote them.
async fn delete(
    transaction: &Transaction<'_>,
    table: &str,
    report: &Report,
    rows: &[(i32, usize)],
) -> Result<BTreeMap<i32, Stamp>> {
    let what = format!("postgres: replace rows of {}", report.table.name);
    let bug = || Error::bug(what.clone());
    let mut columns: Vec<Vec<String>> = Vec::new();
    for key in &report.table.keys {
        let column = report.frame.column(&key.name).map_err(|error| bug().because(error))?;
        let values = column.str().map_err(|error| bug().because(error))?;
        columns.push(rows.iter().map(|(_, row)| values.get(*row).unwrap_or_default().to_owned()).collect());
    }
    let days: Vec<i32> = rows.iter().map(|(date, _)| *date).collect();
    let arrays: Vec<String> = (0..columns.len()).map(|at| format!("${}::text[]", at + 2)).collect();
    let names: Vec<String> = (0..columns.len()).map(|at| format!("k{at}")).collect();
    let same: Vec<String> =
        report.table.keys.iter().zip(&names).map(|(key, name)| format!("t.{} = x.{name}", quoted(&key.name))).collect();
    let statement = format!(
        "WITH gone AS (DELETE FROM {table} AS t USING unnest($1::int[], {}) AS x(day, {})
            WHERE t.{DATE} = date '1970-01-01' + x.day AND {}
            RETURNING x.day, t.xmin AS writer),
         written AS (SELECT day, writer, count(*) AS n FROM gone GROUP BY 1, 2)
         SELECT day, sum(n)::bigint, sum(n * writer::text::bigint)::bigint FROM written GROUP BY 1",
        arrays.join(", "),
        names.join(", "),
        same.join(" AND ")
    );
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&days];
    parameters.extend(columns.iter().map(|column| column as &(dyn ToSql + Sync)));
    let gone = transaction.query(&statement, &parameters).await.map_err(failed(what.clone()))?;
    Ok(gone.iter().map(|row| (row.get(0), Stamp { rows: row.get(1), sum: row.get(2) })).collect())
}

/// What a table holds of dates that were replaced as a whole.
///
/// # Errors
/// `Bug` for a frame without its dates.
pub fn stamp_whole(report: &Report, dates: &BTreeSet<i32>, clock: Clock, after: &mut Stamps) -> Result<()> {
    let column = report.frame.column(DATE).and_then(|column| column.date()).map(|dates| dates.physical().clone());
    let placed = column.map_err(|error| Error::bug("aggregate: dates of a frame").because(error))?;
    let mut counts: BTreeMap<i32, i64> = dates.iter().map(|date| (*date, 0)).collect();
    for date in placed.iter().flatten() {
        if let Some(count) = counts.get_mut(&date) {
            *count += 1;
        }
    }
    for (date, rows) in counts {
        after.entry(date).or_default().insert(report.table.name.clone(), Stamp { rows, sum: rows * clock.xid });
    }
    Ok(())
}
