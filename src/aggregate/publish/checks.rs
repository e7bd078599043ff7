//! What must hold before a report is committed: rows in a range, a share of NULLs, a change against the report before.
//! One that fails keeps everything unpublished.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use tokio_postgres::{Row, Transaction};

use super::report::{DATE, Report, Table};
use super::{failed, texts};
use crate::aggregate::instant;
use crate::error::{Error, Result};
use crate::postgres::columns::{Kind, quoted};

/// Failures that a message tells.
const TOLD: usize = 10;

/// Which report a change is measured against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// The newest earlier date of the table.
    #[default]
    DateBefore,
    /// What this run replaces.
    Replaced,
}

/// A condition on each date of one table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    pub table: String,
    pub min_rows: Option<u64>,
    pub max_rows: Option<u64>,
    /// Of `max_null_share` (default: the first key) and `max_change` (default: the number of rows).
    pub column: Option<String>,
    /// Of a key: events without one, of all events; of a metric: rows.
    pub max_null_share: Option<f64>,
    /// 0.5: half as much, or half more.
    pub max_change: Option<f64>,
    #[serde(default)]
    pub against: Against,
}

/// What a table holds of a date.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    rows: u64,
    filled: u64,
    total: f64,
}

impl Held {
    fn of(row: &Row, from: usize) -> Self {
        let number = |at: usize| u64::try_from(row.get::<_, i64>(at)).unwrap_or(0);
        Self { rows: number(from), filled: number(from + 1), total: row.get(from + 2) }
    }
}

impl Check {
    /// Checks what needs no server.
    ///
    /// # Errors
    /// `Config` naming table, column or bound.
    pub fn refuse_unfit(&self, tables: &[Table]) -> Result<()> {
        let what = format!("checks: table {}", self.table);
        let Some(table) = tables.iter().find(|table| table.name == self.table) else {
            let known: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
            return Err(
                Error::config(format!("{what}: no report of this run")).hint(format!("one of {}", known.join(", ")))
            );
        };
        let bad = |what: String, hint: &str| Err(Error::config(what).hint(hint));
        if self.min_rows.is_none()
            && self.max_rows.is_none()
            && self.max_null_share.is_none()
            && self.max_change.is_none()
        {
            return bad(format!("{what}: nothing is checked"), "give min_rows, max_rows, max_null_share or max_change");
        }
        if self.min_rows.zip(self.max_rows).is_some_and(|(min, max)| min > max) {
            return bad(format!("{what}: min_rows is above max_rows"), "swap them");
        }
        if self.max_null_share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return bad(format!("{what}: max_null_share is no share"), "give a number from 0 to 1");
        }
        if self.max_change.is_some_and(|change| !change.is_finite() || change < 0.0) {
            return bad(format!("{what}: max_change is no ratio"), "0.5 allows half as much and half more");
        }
        let Some(column) = &self.column else { return Ok(()) };
        if self.max_null_share.is_none() && self.max_change.is_none() {
            return bad(format!("{what}: column is of no use"), "it goes with max_null_share or max_change");
        }
        match kind_of(table, column) {
            None => bad(format!("{what}: column {column} is neither key nor metric"), "name one of the table's"),
            Some(kind) if self.max_change.is_some() && !kind.is_number() => bad(
                format!("{what}: column {column} is no number"),
                "max_change adds it up; leave column out to count rows",
            ),
            Some(_) => Ok(()),
        }
    }
}

fn kind_of(table: &Table, name: &str) -> Option<Kind> {
    table.keys.iter().chain(&table.metrics).find(|column| column.name == name).map(|column| column.kind)
}

/// The checks of one report while it is published.
pub struct Running<'a> {
    checks: Vec<&'a Check>,
    report: &'a Report,
    /// With its schema, as SQL.
    table: &'a str,
    dates: &'a BTreeSet<i32>,
    replaced: Vec<BTreeMap<i32, Held>>,
}

impl<'a> Running<'a> {
    /// Those of `checks` that are about this report.
    #[must_use]
    pub fn of(checks: &'a [Check], report: &'a Report, table: &'a str, dates: &'a BTreeSet<i32>) -> Self {
        let checks = checks.iter().filter(|check| check.table == report.table.name).collect();
        Self { checks, report, table, dates, replaced: Vec::new() }
    }

    /// Looks at what is about to be replaced, where a check wants to know.
    ///
    /// # Errors
    /// As [`crate::postgres::told`].
    pub async fn look_before(&mut self, transaction: &Transaction<'_>) -> Result<()> {
        for check in self.checks.clone() {
            let wanted = check.max_change.is_some() && check.against == Against::Replaced;
            let held = if wanted { self.held(transaction, check).await? } else { BTreeMap::new() };
            self.replaced.push(held);
        }
        Ok(())
    }

    /// Judges what now stands in the table; adds what fails, and returns how many conditions were judged.
    ///
    /// # Errors
    /// As [`crate::postgres::told`].
    pub async fn judge(&self, transaction: &Transaction<'_>, failures: &mut Vec<String>) -> Result<u64> {
        let mut judged = 0;
        for (check, replaced) in self.checks.iter().zip(&self.replaced) {
            let now = self.held(transaction, check).await?;
            let before = match check.against {
                Against::DateBefore if check.max_change.is_some() => self.date_before(transaction, check).await?,
                _ => replaced.clone(),
            };
            for date in self.dates {
                let held = now.get(date).copied().unwrap_or_default();
                let mut fail = |what: String| {
                    failures.push(format!("{} of {}: {what}", self.report.table.name, instant::text(*date)));
                };
                if check.min_rows.is_some() || check.max_rows.is_some() {
                    judged += 1;
                    self.judge_rows(check, held, &mut fail);
                }
                if let Some(most) = check.max_null_share {
                    judged += 1;
                    self.judge_nulls(check, *date, held, most, &mut fail);
                }
                if let Some((most, before)) = check.max_change.zip(before.get(date).filter(|held| held.rows > 0)) {
                    judged += 1;
                    judge_change(check, held, *before, most, &mut fail);
                }
            }
        }
        Ok(judged)
    }

    #[expect(clippy::unused_self, reason = "beside its sisters")]
    fn judge_rows(&self, check: &Check, held: Held, fail: &mut impl FnMut(String)) {
        if let Some(least) = check.min_rows.filter(|least| held.rows < *least) {
            fail(format!("{} rows, at least {least} wanted", held.rows));
        }
        if let Some(most) = check.max_rows.filter(|most| held.rows > *most) {
            fail(format!("{} rows, at most {most} wanted", held.rows));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a share")]
    fn judge_nulls(&self, check: &Check, date: i32, held: Held, most: f64, fail: &mut impl FnMut(String)) {
        let keys = &self.report.table.keys;
        let column = check.column.as_ref().or_else(|| keys.first().map(|key| &key.name));
        let of_key = column.is_none_or(|column| keys.iter().any(|key| key.name == *column));
        let (nulls, all, what) = if of_key {
            let day = self.report.days.get(&date).copied().unwrap_or_default();
            (day.null_keys, day.counted, "events")
        } else {
            (held.rows - held.filled, held.rows, "rows")
        };
        let share = if all == 0 { 0.0 } else { nulls as f64 / all as f64 };
        if share > most {
            let column = column.map_or("the key", String::as_str);
            fail(format!("{column} is NULL in {nulls} of {all} {what} ({share:.4}), at most {most} wanted"));
        }
    }

    /// What the table holds of each date.
    async fn held(&self, transaction: &Transaction<'_>, check: &Check) -> Result<BTreeMap<i32, Held>> {
        let query = format!(
            "SELECT {DATE}::text, {} FROM {} WHERE {DATE} = ANY($1::text[]::date[]) GROUP BY 1",
            self.measured(check),
            self.table
        );
        self.ask(transaction, &query).await
    }

    /// What it holds of the newest date before each.
    async fn date_before(&self, transaction: &Transaction<'_>, check: &Check) -> Result<BTreeMap<i32, Held>> {
        let (measured, table) = (self.measured(check), self.table);
        let query = format!(
            "SELECT day::text, before.* FROM unnest($1::text[]::date[]) AS day CROSS JOIN LATERAL (
                SELECT {measured} FROM {table}
                WHERE {DATE} = (SELECT max({DATE}) FROM {table} WHERE {DATE} < day)) AS before"
        );
        self.ask(transaction, &query).await
    }

    fn measured(&self, check: &Check) -> String {
        let column = check.column.as_deref();
        let filled = column.map_or_else(|| "*".to_owned(), quoted);
        let number = column.filter(|column| kind_of(&self.report.table, column).is_some_and(Kind::is_number));
        let total = number.map_or_else(|| "0".to_owned(), |column| format!("coalesce(sum({}), 0)", quoted(column)));
        format!("count(*), count({filled}), {total}::double precision")
    }

    async fn ask(&self, transaction: &Transaction<'_>, query: &str) -> Result<BTreeMap<i32, Held>> {
        let what = || format!("postgres: check {}", self.report.table.name);
        let rows = transaction.query(query, &[&texts(self.dates)]).await.map_err(failed(what()))?;
        let held = rows.iter().map(|row| Some((instant::date(row.get::<_, String>(0).as_bytes())?, Held::of(row, 1))));
        held.collect::<Option<_>>().ok_or_else(|| Error::bug(what()))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn judge_change(check: &Check, held: Held, before: Held, most: f64, fail: &mut impl FnMut(String)) {
    let of = |held: Held| if check.column.is_some() { held.total } else { held.rows as f64 };
    let (now, before) = (of(held), of(before));
    // Written so that a change from 0, or to what is no number, is one beyond every bound.
    let within = (now - before).abs() <= most * before.abs();
    if !within {
        let column = check.column.as_deref().unwrap_or("rows");
        let which = if check.against == Against::Replaced { "in the report replaced" } else { "on the date before" };
        fail(format!("{column} is {now}, {before} {which}: changed by more than {most}"));
    }
}

/// Ends a run of which something failed.
///
/// # Errors
/// `Data` naming table, date and condition of each failure.
pub fn refuse(failures: &[String]) -> Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let more = failures.len().saturating_sub(TOLD);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    let told: Vec<&str> = failures.iter().take(TOLD).map(String::as_str).collect();
    Err(Error::data(format!("aggregate: checks failed, nothing was published: {}{more}", told.join("; ")))
        .hint("look at the rows with postgres_dsn=None; mend the data, or change the check"))
}
