//! Publication: one PostgreSQL transaction for all tables and dates of a run, so that a reader sees the old generation
//! or the new one, never a mixture (I2).
//!
//! | module | owns |
//! |---|---|
//! | [`report`] | reports as data: a table, its columns, its rows |
//! | [`tables`] | what is made when absent, and refused when it does not fit |
//! | [`checks`] | what must hold before the commit |
//! | [`ledger`] | `millpond_runs` |

pub mod checks;
pub mod ledger;
pub mod report;
pub mod tables;

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use self::checks::Check;
use self::report::{CREATED, DATE, Report, Table};
use self::tables::Place;
use super::instant;
use super::settings::AggregateBooks;
use crate::error::{Error, Result};
use crate::postgres::columns::{Kind, quoted};
use crate::postgres::{self, copy, told};

/// With more dates than this, one exclusive lock on the table instead of one per date.
const MANY_DATES: usize = 500;

fn failed(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Error {
    let what = what.into();
    move |error| told(what, error)
}

/// A place to publish to, found fit before anything is read.
pub struct Publisher {
    client: Client,
    place: Place,
    checks: Vec<Check>,
}

impl Publisher {
    /// Connects, makes the tables when absent, and refuses those that do not fit.
    ///
    /// # Errors
    /// As [`postgres::connect`] and [`tables::ensure`]; `Config` for a check of what no table holds.
    pub async fn open(dsn: &str, schema: Option<&str>, tables: &[Table], checks: &[Check]) -> Result<Self> {
        for table in tables {
            table.check()?;
        }
        for check in checks {
            check.refuse_unfit(tables)?;
        }
        let mut client = postgres::connect(dsn).await?;
        let place = tables::ensure(&mut client, schema, tables).await?;
        Ok(Self { client, place, checks: checks.to_vec() })
    }

    /// Replaces the rows of `dates` in all tables and writes the ledger; a date that a later reading has published stays.
    /// Tells the books the rows per table, the dates left alone and the checks made.
    ///
    /// # Errors
    /// As [`told`]; `Data` when a check fails, or a trigger drops rows. Nothing is published then.
    pub async fn publish(
        &mut self,
        books: &mut AggregateBooks,
        dates: &BTreeSet<i32>,
        reports: &[Report],
    ) -> Result<()> {
        let what = "postgres: publish";
        let place = &self.place;
        #[cfg_attr(not(feature = "sabotage"), expect(unused_mut, reason = "a mutant commits in the middle"))]
        let mut transaction = begin(&mut self.client, what).await?;
        lock(&transaction, place, dates).await?;
        // After the locks: the time of the publication, not of the wait for it.
        let created: i64 = transaction
            .query_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", &[])
            .await
            .map_err(failed(what))?
            .get(0);
        let newer = ledger::newer(&transaction, place, books, dates).await?;
        let of = |report: &Report| -> BTreeSet<i32> {
            newer
                .get(&report.table.name)
                .map_or_else(|| dates.clone(), |newer| dates.difference(newer).copied().collect())
        };
        books.superseded = texts(newer.values().flatten());
        let mut published = BTreeSet::new();
        let mut failures = Vec::new();
        for report in reports {
            let mine = of(report);
            let table = place.of(&report.table.name);
            let mut checks = checks::Running::of(&self.checks, report, &table, &mine);
            checks.look_before(&transaction).await?;
            transaction
                .execute(&format!("DELETE FROM {table} WHERE {DATE} = ANY($1::text[]::date[])"), &[&texts(&mine)])
                .await
                .map_err(failed(format!("postgres: replace rows of {}", report.table.name)))?;
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("aggregate.after_delete");
            #[cfg(feature = "sabotage")]
            if crate::sabotage::is("delete_and_insert_in_two_transactions") {
                transaction.commit().await.map_err(failed(what))?;
                transaction = begin(&mut self.client, what).await?;
            }
            let copied = copy(&transaction, &table, report, &mine, created).await?;
            books.rows.insert(report.table.name.clone(), copied);
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("aggregate.after_copy");
            books.checks += checks.judge(&transaction, &mut failures).await?;
            published.extend(mine);
        }
        checks::refuse(&failures)?;
        for table in ledger::redefined(&transaction, place, books).await? {
            books
                .warnings
                .push(format!("{table}: its definition has changed; dates that this run leaves are of the old one"));
        }
        ledger::write(&transaction, place, books, &texts(&published), created).await?;
        #[cfg(feature = "sabotage")]
        crate::sabotage::step("aggregate.before_commit");
        transaction.commit().await.map_err(unanswered)?;
        #[cfg(feature = "sabotage")]
        crate::sabotage::step("aggregate.after_commit");
        books.published = true;
        Ok(())
    }
}

/// What an error of a commit means: without the server's word it may have happened, or not.
fn unanswered(error: tokio_postgres::Error) -> Error {
    let what = "postgres: commit";
    let shutdown = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::TRANSACTION_RESOLUTION_UNKNOWN];
    if error.code().is_some_and(|code| !shutdown.contains(code)) {
        return told(what, error);
    }
    Error::external(format!("{what}: no answer came, its outcome is not known"))
        .hint("the reports stand whole, all of them old or all of them new: run it again, which is safe")
        .because(error)
}

fn texts<'a>(dates: impl IntoIterator<Item = &'a i32>) -> Vec<String> {
    dates.into_iter().collect::<BTreeSet<_>>().into_iter().map(|date| instant::text(*date)).collect()
}

async fn copy(
    transaction: &Transaction<'_>,
    table: &str,
    report: &Report,
    dates: &BTreeSet<i32>,
    created: i64,
) -> Result<u64> {
    let what = || format!("postgres: copy into {table}");
    let columns = report.table.columns();
    let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).chain([CREATED.to_owned()]).collect();
    let kinds: Vec<Kind> = columns.iter().map(|column| column.kind).collect();
    let place = copy::Place { table, columns: &names.join(", ") };
    let source = copy::Source { frame: &report.frame, kinds: &kinds, created };
    let placed = report.frame.column(DATE).and_then(|column| column.date()).map(|dates| dates.physical().clone());
    let placed = placed.map_err(|error| Error::bug(what()).because(error))?;
    let wanted = |row: usize| placed.get(row).is_some_and(|date| dates.contains(&date));
    let (sent, taken) = copy::rows(transaction, place, source, wanted).await?;
    if sent != taken {
        return Err(Error::data(format!("{}: of {sent} rows the server kept {taken}", what()))
            .hint("does the table have a trigger that drops rows?"));
    }
    Ok(taken)
}

/// READ COMMITTED whatever the default is: what a lock was awaited for must be seen after it. And a commit that is told
/// has reached the disk, whatever the role's default.
async fn begin<'a>(client: &'a mut Client, what: &str) -> Result<Transaction<'a>> {
    let begin = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(false);
    let transaction = begin.start().await.map_err(failed(what))?;
    let session = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD';
        SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'";
    transaction.batch_execute(session).await.map_err(failed(what))?;
    Ok(transaction)
}

/// By table and date, not by job: two jobs that replace the same rows under different locks would both keep theirs.
/// Tables and dates in one order for all, so that no two runs wait for each other.
async fn lock(transaction: &Transaction<'_>, place: &Place, dates: &BTreeSet<i32>) -> Result<()> {
    let what = "postgres: lock tables and dates";
    let classes: BTreeSet<i32> = place.oids.values().map(|oid| i32::from_ne_bytes(oid.to_ne_bytes())).collect();
    let days: Vec<i32> = dates.iter().copied().collect();
    for class in classes {
        // 1969-12-31 is day -1, which stands for the whole table.
        if dates.len() > MANY_DATES || dates.contains(&-1) {
            transaction.execute("SELECT pg_advisory_xact_lock($1, -1)", &[&class]).await.map_err(failed(what))?;
            continue;
        }
        transaction.execute("SELECT pg_advisory_xact_lock_shared($1, -1)", &[&class]).await.map_err(failed(what))?;
        let each = "SELECT pg_advisory_xact_lock($1, day) FROM unnest($2::int[]) AS day";
        transaction.execute(each, &[&class, &days]).await.map_err(failed(what))?;
    }
    Ok(())
}

/// What ends a run when no server is written: the rows that would have been.
#[must_use]
pub fn unpublished(reports: &[Report]) -> BTreeMap<String, u64> {
    reports.iter().map(|report| (report.table.name.clone(), report.frame.height() as u64)).collect()
}
