//! Publication: one PostgreSQL transaction for all tables and dates of a run, so that a reader sees the old generation
//! or the new one, never a mixture (I2).
//!
//! | module | owns |
//! |---|---|
//! | [`report`] | reports as data: a table, its columns, its rows |
//! | [`touched`] | rows that new events changed, replaced alone |
//! | [`tables`] | what is made when absent, and refused when it does not fit |
//! | [`checks`] | what must hold before the commit |
//! | [`ledger`] | `millpond_runs` |

pub mod checks;
pub mod ledger;
pub mod report;
pub mod tables;
pub mod touched;

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, IsolationLevel, Transaction};

use self::checks::Check;
use self::report::{CREATED, DATE, Report, Table};
use self::tables::Place;
use self::touched::Stamps;
use super::incremental::keep::Keep;
use super::incremental::store::{self, Kept, Owner, Tables};
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

/// When and in which transaction a publication writes.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Microseconds since 1970.
    created: i64,
    /// The number of the transaction, as rows tell it.
    xid: i64,
}

/// A place to publish to, found fit before anything is read.
pub struct Publisher {
    client: Client,
    place: Place,
    checks: Vec<Check>,
    /// The tables for what is kept are to be made first.
    keeps_nothing_yet: bool,
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
        Ok(Self { client, place, checks: checks.to_vec(), keeps_nothing_yet: false })
    }

    /// What is kept between the runs of a job, or why nothing can be.
    ///
    /// # Errors
    /// As [`told`].
    pub async fn kept(&mut self, owner: &Owner) -> Result<Result<Kept, String>> {
        match store::look(&self.client, &self.place).await? {
            Tables::Unfit(why) => Ok(Err(why)),
            Tables::There => store::read(&self.client, &self.place, owner).await.map(Ok),
            Tables::Absent => {
                self.keeps_nothing_yet = true;
                Ok(Ok(Kept::default()))
            }
        }
    }

    /// Makes the tables for what is kept, once there is something.
    async fn ensure_kept(&mut self) -> Result<()> {
        if std::mem::take(&mut self.keeps_nothing_yet) {
            store::make(&mut self.client).await?;
        }
        Ok(())
    }

    /// The server, and where its tables are.
    #[must_use]
    pub const fn server(&self) -> (&Client, &Place) {
        (&self.client, &self.place)
    }

    /// Keeps what a run leaves when it publishes nothing.
    ///
    /// # Errors
    /// As [`told`].
    pub async fn keep(&mut self, books: &mut AggregateBooks, owner: &Owner, keep: &mut Keep) -> Result<()> {
        self.ensure_kept().await?;
        let transaction = begin(&mut self.client, "postgres: keep").await?;
        write(&transaction, &self.place, books, owner, keep).await?;
        transaction.commit().await.map_err(unanswered)
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
        (owner, keep): (&Owner, Option<&mut Keep>),
    ) -> Result<()> {
        #[cfg(feature = "sabotage")]
        let mut keep = keep;
        let what = "postgres: publish";
        if keep.is_some() {
            self.ensure_kept().await?;
        }
        let place = &self.place;
        #[cfg_attr(not(feature = "sabotage"), expect(unused_mut, reason = "mutants commit in the middle"))]
        let mut transaction = begin(&mut self.client, what).await?;
        lock(&transaction, place, dates).await?;
        // After the locks: the time of the publication, not of the wait for it.
        let query = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, txid_current() % 4294967296";
        let row = transaction.query_one(query, &[]).await.map_err(failed(what))?;
        let clock = Clock { created: row.get(0), xid: row.get(1) };
        let created = clock.created;
        let newer = ledger::newer(&transaction, place, books, dates).await?;
        let of = |report: &Report| -> BTreeSet<i32> {
            newer
                .get(&report.table.name)
                .map_or_else(|| dates.clone(), |newer| dates.difference(newer).copied().collect())
        };
        books.superseded = texts(newer.values().flatten());
        #[cfg(feature = "sabotage")]
        if crate::sabotage::is("keep_before_reports")
            && let Some(keep) = &mut keep
        {
            write(&transaction, place, books, owner, keep).await?;
            transaction.commit().await.map_err(failed(what))?;
            transaction = begin(&mut self.client, what).await?;
        }
        let before = keep.as_ref().map(|keep| keep.published.clone()).unwrap_or_default();
        // A date that is left to a later report holds nothing of this job's.
        let mut after: Stamps = dates.iter().map(|date| (*date, BTreeMap::new())).collect();
        let mut published = BTreeSet::new();
        let mut failures = Vec::new();
        for report in reports {
            let mine = of(report);
            let table = place.of(&report.table.name);
            let mut checks = checks::Running::of(&self.checks, report, &table, &mine);
            checks.look_before(&transaction).await?;
            let partly = touched::replace(&transaction, &table, report, &mine, (&before, &mut after), clock).await?;
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("aggregate.after_touched");
            let whole: BTreeSet<i32> = mine.difference(&partly).copied().collect();
            if !whole.is_empty() {
                let delete = format!("DELETE FROM {table} WHERE {DATE} = ANY($1::text[]::date[])");
                let deleted = transaction.execute(&delete, &[&texts(&whole)]).await;
                deleted.map_err(failed(format!("postgres: replace rows of {}", report.table.name)))?;
            }
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("aggregate.after_delete");
            #[cfg(feature = "sabotage")]
            if crate::sabotage::is("delete_and_insert_in_two_transactions") {
                transaction.commit().await.map_err(failed(what))?;
                transaction = begin(&mut self.client, what).await?;
            }
            let copied = match whole.len() {
                0 => 0,
                _ => copy_dates(&transaction, &table, report, &whole, created).await?,
            };
            place.index(&transaction, &report.table.name).await?;
            touched::stamp_whole(report, &whole, clock, &mut after)?;
            let stood = partly.iter().filter_map(|date| report.changed.get(date)).map(|(_, rows)| rows.len() as u64);
            books.rows.insert(report.table.name.clone(), copied + stood.sum::<u64>());
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
        store::forget_others(&transaction, place, &books.definitions).await?;
        if let Some(keep) = keep {
            keep.published = after;
            write(&transaction, place, books, owner, keep).await?;
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("aggregate.after_keep");
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

async fn write(
    transaction: &Transaction<'_>,
    place: &Place,
    books: &mut AggregateBooks,
    owner: &Owner,
    keep: &mut Keep,
) -> Result<()> {
    if !books.superseded.is_empty() {
        (keep.mark.reported, keep.mark.reported_documents) = keep.stay.clone();
    }
    let kept = keep.write(transaction, place, owner, (&books.definitions, &books.run_id)).await?;
    books.watermark = kept && books.superseded.is_empty() && keep.moves;
    books.partials = if kept { keep.rows.len() as u64 } else { 0 };
    if !kept {
        books
            .warnings
            .push("another run of this job published meanwhile: its partials are kept, not this run's".into());
    }
    Ok(())
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

/// Copies a report's rows of `dates`; returns how many the server took.
pub(crate) async fn copy_dates(
    transaction: &Transaction<'_>,
    table: &str,
    report: &Report,
    dates: &BTreeSet<i32>,
    created: i64,
) -> Result<u64> {
    let placed = report.frame.column(DATE).and_then(|column| column.date()).map(|dates| dates.physical().clone());
    let placed = placed.map_err(|error| Error::bug(format!("postgres: copy into {table}")).because(error))?;
    let wanted = |row: usize| placed.get(row).is_some_and(|date| dates.contains(&date));
    copy(transaction, table, report, wanted, created).await
}

async fn copy(
    transaction: &Transaction<'_>,
    table: &str,
    report: &Report,
    wanted: impl Fn(usize) -> bool,
    created: i64,
) -> Result<u64> {
    let columns = report.table.columns();
    let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).chain([CREATED.to_owned()]).collect();
    let kinds: Vec<Kind> = columns.iter().map(|column| column.kind).collect();
    let place = copy::Place { table, columns: &names.join(", ") };
    let source = copy::Source { frame: &report.frame, kinds: &kinds, created };
    let (sent, taken) = copy::rows(transaction, place, source, wanted).await?;
    if sent != taken {
        return Err(Error::data(format!("postgres: copy into {table}: of {sent} rows the server kept {taken}"))
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
    let classes: Vec<i32> = classes.into_iter().collect();
    // 1969-12-31 is day -1, which stands for the whole table. An index is made beside nobody who writes.
    if dates.len() > MANY_DATES || dates.contains(&-1) || place.is_bare() {
        let each = "SELECT pg_advisory_xact_lock(class, -1) FROM unnest($1::int[]) AS class";
        transaction.execute(each, &[&classes]).await.map_err(failed(what))?;
        return Ok(());
    }
    // One after the other, as they stand here: a table, then its dates.
    let pairs = classes.iter().flat_map(|class| std::iter::once(-1).chain(days.clone()).map(|day| (*class, day)));
    let (classes, days): (Vec<i32>, Vec<i32>) = pairs.unzip();
    let each = "SELECT CASE day WHEN -1 THEN pg_advisory_xact_lock_shared(class, day)::text
            ELSE pg_advisory_xact_lock(class, day)::text END
        FROM unnest($1::int[], $2::int[]) AS pair(class, day)";
    transaction.execute(each, &[&classes, &days]).await.map_err(failed(what))?;
    Ok(())
}

/// What ends a run when no server is written: the rows that would have been.
#[must_use]
pub fn unpublished(reports: &[Report]) -> BTreeMap<String, u64> {
    reports.iter().map(|report| (report.table.name.clone(), report.frame.height() as u64)).collect()
}
