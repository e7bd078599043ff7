//! Rows that new events changed, replaced alone: where the table holds of a date just what this job's last publication
//! left there. Whether it does is told by the transactions that wrote its rows; anybody's update, insert or delete shows.

use std::collections::{BTreeMap, BTreeSet};

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
    let query = format!(
        "SELECT {DATE}::text, count(*), sum(xmin::text::bigint)::bigint FROM {table}
         WHERE {DATE} = ANY($1::text[]::date[]) GROUP BY 1"
    );
    let found = transaction.query(&query, &[&texts(&hopeful)]).await.map_err(failed(what()))?;
    let mut now: BTreeMap<i32, Stamp> = BTreeMap::new();
    for row in found {
        if let Some(date) = instant::date(row.get::<_, String>(0).as_bytes()) {
            now.insert(date, Stamp { rows: row.get(1), sum: row.get(2) });
        }
    }
    // Thousands of keys against thousands of rows: never one by one.
    transaction.batch_execute("SET LOCAL enable_nestloop = off").await.map_err(failed(what()))?;
    for date in hopeful {
        let held = now.get(&date).copied().unwrap_or_default();
        let Some((first, changed)) = report.changed.get(&date).filter(|_| stamp(&date) == Some(held)) else { continue };
        let rows: Vec<usize> =
            changed.iter().enumerate().filter(|(_, changed)| **changed).map(|(row, _)| first + row).collect();
        let total = i64::try_from(changed.len()).unwrap_or(i64::MAX);
        let (gone, sum) =
            if rows.is_empty() { (0, 0) } else { delete(transaction, table, report, date, &rows).await? };
        let new = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        if held.rows - gone + new != total {
            // Not as it was thought to be: the whole date is replaced.
            continue;
        }
        if new > 0 {
            let wanted: BTreeSet<usize> = rows.into_iter().collect();
            copy(transaction, table, report, |row| wanted.contains(&row), clock.created).await?;
        }
        after
            .entry(date)
            .or_default()
            .insert(name.clone(), Stamp { rows: total, sum: held.sum - sum + new * clock.xid });
        done.insert(date);
    }
    Ok(done)
}

async fn delete(
    transaction: &Transaction<'_>,
    table: &str,
    report: &Report,
    date: i32,
    rows: &[usize],
) -> Result<(i64, i64)> {
    let what = format!("postgres: replace rows of {}", report.table.name);
    let bug = || Error::bug(what.clone());
    let mut columns: Vec<Vec<String>> = Vec::new();
    for key in &report.table.keys {
        let column = report.frame.column(&key.name).map_err(|error| bug().because(error))?;
        let values = column.str().map_err(|error| bug().because(error))?;
        columns.push(rows.iter().map(|row| values.get(*row).unwrap_or_default().to_owned()).collect());
    }
    let arrays: Vec<String> = (0..columns.len()).map(|at| format!("${}::text[]", at + 2)).collect();
    let names: Vec<String> = (0..columns.len()).map(|at| format!("k{at}")).collect();
    let same: Vec<String> =
        report.table.keys.iter().zip(&names).map(|(key, name)| format!("t.{} = x.{name}", quoted(&key.name))).collect();
    let statement = format!(
        "WITH gone AS (DELETE FROM {table} AS t USING unnest({}) AS x({}) WHERE t.{DATE} = $1::text::date AND {}
            RETURNING t.xmin::text::bigint AS writer)
         SELECT count(*), coalesce(sum(writer), 0)::bigint FROM gone",
        arrays.join(", "),
        names.join(", "),
        same.join(" AND ")
    );
    let date = instant::text(date);
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&date];
    parameters.extend(columns.iter().map(|column| column as &(dyn ToSql + Sync)));
    let row = transaction.query_one(&statement, &parameters).await.map_err(failed(what.clone()))?;
    Ok((row.get(0), row.get(1)))
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
