//! Publication: one PostgreSQL transaction for all tables and dates of a run, so that a reader sees the old generation
//! or the new one, never a mixture (I2).

pub mod report;

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, IsolationLevel, Row, Transaction};

use super::instant;
use super::partial::{KEY_LENGTH, REPORTS};
use super::rows::Finished;
use super::settings::AggregateBooks;
use crate::error::{Error, Result};
use crate::postgres::copy::{self, Value};
use crate::postgres::told;

/// Serialises the making of tables among all runs: "millpond" as a number.
const DDL_LOCK: i64 = 0x6d69_6c6c_706f_6e64;
/// With more dates than this, one exclusive lock on the table instead of one per date.
const MANY_DATES: usize = 500;

const TABLES: [&str; 3] = [
    "CREATE TABLE product_views_daily (product_id VARCHAR(255) NOT NULL, view_count BIGINT, unique_visitors BIGINT,
        last_view_time TIMESTAMP, report_date DATE NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)",
    "CREATE TABLE country_views_daily (store_id VARCHAR(255) NOT NULL, view_count BIGINT, unique_visitors BIGINT,
        report_date DATE NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)",
    "CREATE TABLE referrer_views_daily (referrer_url TEXT NOT NULL, view_count BIGINT,
        report_date DATE NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)",
];
const COLUMNS: [&[(&str, &str)]; 3] = [
    &[
        ("product_id", "character varying"),
        ("view_count", "bigint"),
        ("unique_visitors", "bigint"),
        ("last_view_time", "timestamp without time zone"),
        ("report_date", "date"),
        ("created_at", "timestamp without time zone"),
    ],
    &[
        ("store_id", "character varying"),
        ("view_count", "bigint"),
        ("unique_visitors", "bigint"),
        ("report_date", "date"),
        ("created_at", "timestamp without time zone"),
    ],
    &[
        ("referrer_url", "text"),
        ("view_count", "bigint"),
        ("report_date", "date"),
        ("created_at", "timestamp without time zone"),
    ],
];
const VIEWS: [&str; 3] = ["top_products_daily", "top_countries_daily", "top_referrers_daily"];
const LEDGER: &str = "CREATE TABLE IF NOT EXISTS millpond_runs (
    run_id TEXT PRIMARY KEY, job TEXT NOT NULL, dates DATE[] NOT NULL, positions JSONB NOT NULL,
    read_at TIMESTAMPTZ NOT NULL, scanned BIGINT NOT NULL, counted BIGINT NOT NULL, excluded JSONB NOT NULL,
    rows JSONB NOT NULL, engine TEXT NOT NULL, version TEXT NOT NULL, definition TEXT NOT NULL,
    seconds DOUBLE PRECISION NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT now())";

fn failed(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Error {
    let what = what.into();
    move |error| told(what, error)
}

/// Makes tables, indexes, views and ledger when absent, in the first schema of the search path, and refuses tables of
/// other columns.
///
/// # Errors
/// `Config` with the difference, or for a missing right.
pub async fn ensure(client: &mut Client) -> Result<()> {
    let what = "postgres: make the report tables";
    let transaction = begin(client, what).await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&DDL_LOCK]).await.map_err(failed(what))?;
    for (report, (table, key)) in REPORTS.iter().enumerate() {
        let what = format!("postgres: table {table}");
        let found = transaction
            .query(
                "SELECT column_name::text, data_type::text, coalesce(character_maximum_length, 2147483647)::int,
                    is_nullable = 'NO' AND column_default IS NULL AND is_generated = 'NEVER' AND is_identity = 'NO'
                 FROM information_schema.columns
                 WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position",
                &[table],
            )
            .await
            .map_err(failed(what.clone()))?;
        if found.is_empty() {
            transaction.batch_execute(TABLES[report]).await.map_err(failed(what.clone()))?;
            let index = format!("CREATE INDEX {table}_report_date ON {table} (report_date)");
            transaction.batch_execute(&index).await.map_err(failed(what.clone()))?;
        } else {
            refuse_unfit(report, &what, &found)?;
        }
        let view = VIEWS[report];
        let exists = transaction
            .query_one("SELECT to_regclass(quote_ident(current_schema()) || '.' || $1::text) IS NOT NULL", &[&view])
            .await
            .map_err(failed(what.clone()))?;
        if !exists.get::<_, bool>(0) {
            let text = format!(
                "CREATE VIEW {view} AS SELECT t.*, rank() OVER (PARTITION BY report_date ORDER BY view_count DESC, \
                 {key} COLLATE \"C\") AS rank FROM {table} t"
            );
            transaction.batch_execute(&text).await.map_err(failed(what))?;
        }
    }
    let ledger = transaction
        .query_one("SELECT to_regclass(quote_ident(current_schema()) || '.millpond_runs') IS NULL", &[])
        .await
        .map_err(failed(what))?;
    if ledger.get::<_, bool>(0) {
        transaction.batch_execute(LEDGER).await.map_err(failed("postgres: table millpond_runs"))?;
        // Who published later than a run read: a handful of rows, however long the ledger.
        let index = "CREATE INDEX millpond_runs_read_at ON millpond_runs (read_at)";
        transaction.batch_execute(index).await.map_err(failed("postgres: table millpond_runs"))?;
    }
    transaction.commit().await.map_err(failed(what))
}

/// A table of the same name must hold what we write: the columns, and keys of up to 255 code points.
fn refuse_unfit(report: usize, what: &str, found: &[Row]) -> Result<()> {
    let ours = |name: &str| COLUMNS[report].iter().any(|(ours, _)| *ours == name);
    if let Some(extra) = found.iter().find(|row| row.get::<_, bool>(3) && !ours(row.get(0))) {
        let name: String = extra.get(0);
        return Err(Error::config(format!("{what}: column {name} is not ours and has to be filled"))
            .hint("give it a default, or set another search_path in the DSN"));
    }
    let found: BTreeMap<String, (String, i32)> =
        found.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    for (name, kind) in COLUMNS[report] {
        let is = match found.get(*name) {
            Some((found, length)) if found == kind && usize::try_from(*length).unwrap_or(0) >= KEY_LENGTH => continue,
            Some((found, length)) if found == kind => format!("{found}({length}), not {kind}({KEY_LENGTH})"),
            Some((found, _)) => format!("{found}, not {kind}"),
            None => format!("missing, not {kind}"),
        };
        return Err(Error::config(format!("{what}: column {name} is {is}"))
            .hint("rename the table, or set another search_path in the DSN"));
    }
    Ok(())
}

/// Replaces the rows of `dates` in all tables and writes the ledger; a date that a later reading has published stays.
/// Returns the rows per table and the dates left alone.
///
/// # Errors
/// As [`told`]; nothing is published then.
pub async fn publish(
    client: &mut Client,
    books: &AggregateBooks,
    dates: &BTreeSet<i32>,
    reports: &[Vec<Finished<'_>>],
) -> Result<(BTreeMap<String, u64>, BTreeSet<i32>)> {
    let what = "postgres: publish";
    #[cfg_attr(not(feature = "sabotage"), expect(unused_mut, reason = "a mutant commits in the middle"))]
    let mut transaction = begin(client, what).await?;
    lock(&transaction, dates).await?;
    // After the locks: the time of the publication, not of the wait for it.
    let created: i64 = transaction
        .query_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", &[])
        .await
        .map_err(failed(what))?
        .get(0);
    let superseded = newer(&transaction, books, dates).await?;
    let mine: BTreeSet<i32> = dates.difference(&superseded).copied().collect();
    let texts: Vec<String> = mine.iter().map(|date| instant::text(*date)).collect();
    let mut rows = BTreeMap::new();
    for (report, (table, key)) in REPORTS.iter().enumerate() {
        transaction
            .execute(&format!("DELETE FROM {table} WHERE report_date = ANY($1::text[]::date[])"), &[&texts])
            .await
            .map_err(failed(format!("postgres: replace rows of {table}")))?;
        #[cfg(feature = "sabotage")]
        if crate::sabotage::is("delete_and_insert_in_two_transactions") {
            transaction.commit().await.map_err(failed(what))?;
            transaction = begin(client, what).await?;
        }
        let columns = match report {
            0 => format!("{key}, view_count, unique_visitors, last_view_time, report_date, created_at"),
            1 => format!("{key}, view_count, unique_visitors, report_date, created_at"),
            _ => format!("{key}, view_count, report_date, created_at"),
        };
        let values = reports[report].iter().filter(|row| mine.contains(&row.date)).map(|row| {
            let mut values = vec![Value::Text(row.key), Value::Integer(row.views)];
            if report < 2 {
                values.push(Value::Integer(row.visitors));
            }
            if report == 0 {
                values.push(Value::Timestamp(Some(row.last_micros)));
            }
            values.push(Value::Date(row.date));
            values.push(Value::Timestamp(Some(created)));
            values
        });
        let copied = copy::rows(&transaction, table, &columns, values).await?;
        rows.insert((*table).to_owned(), copied);
    }
    ledger(&transaction, books, &texts, &rows).await?;
    #[cfg(feature = "sabotage")]
    crate::sabotage::step("aggregate.before_commit");
    transaction.commit().await.map_err(failed(what))?;
    #[cfg(feature = "sabotage")]
    crate::sabotage::step("aggregate.after_commit");
    Ok((rows, superseded))
}

/// READ COMMITTED whatever the default is: what a lock was awaited for must be seen after it.
async fn begin<'a>(client: &'a mut Client, what: &str) -> Result<Transaction<'a>> {
    let begin = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(false);
    let transaction = begin.start().await.map_err(failed(what))?;
    let session = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'";
    transaction.batch_execute(session).await.map_err(failed(what))?;
    Ok(transaction)
}

/// By table and date, not by job: two jobs that replace the same rows under different locks would both keep theirs.
async fn lock(transaction: &Transaction<'_>, dates: &BTreeSet<i32>) -> Result<()> {
    let what = "postgres: lock tables and dates";
    for (table, _) in REPORTS {
        let row = transaction
            .query_one("SELECT $1::text::regclass::oid::bigint::text", &[&table])
            .await
            .map_err(failed(what))?;
        let oid: i64 = row.get::<_, String>(0).parse().map_err(|_| Error::bug(what))?;
        let class = i32::from_ne_bytes(u32::try_from(oid).map_err(|_| Error::bug(what))?.to_ne_bytes());
        // 1969-12-31 is day -1, which stands for the whole table.
        if dates.len() > MANY_DATES || dates.contains(&-1) {
            transaction.execute("SELECT pg_advisory_xact_lock($1, -1)", &[&class]).await.map_err(failed(what))?;
            continue;
        }
        transaction.execute("SELECT pg_advisory_xact_lock_shared($1, -1)", &[&class]).await.map_err(failed(what))?;
        for date in dates {
            transaction.execute("SELECT pg_advisory_xact_lock($1, $2)", &[&class, date]).await.map_err(failed(what))?;
        }
    }
    Ok(())
}

async fn newer(transaction: &Transaction<'_>, books: &AggregateBooks, dates: &BTreeSet<i32>) -> Result<BTreeSet<i32>> {
    let texts: Vec<String> = dates.iter().map(|date| instant::text(*date)).collect();
    let found = transaction
        .query(
            "SELECT DISTINCT d::text FROM millpond_runs, unnest(dates) AS d
             WHERE read_at > $1::text::timestamptz AND d = ANY($2::text[]::date[])",
            &[&books.read_at, &texts],
        )
        .await
        .map_err(failed("postgres: read millpond_runs"))?;
    Ok(found.iter().filter_map(|row| instant::date(row.get::<_, String>(0).as_bytes())).collect())
}

async fn ledger(
    transaction: &Transaction<'_>,
    books: &AggregateBooks,
    dates: &[String],
    rows: &BTreeMap<String, u64>,
) -> Result<()> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    transaction
        .execute(
            "INSERT INTO millpond_runs (run_id, job, dates, positions, read_at, scanned, counted, excluded, rows, engine,
                version, definition, seconds)
             VALUES ($1, $2, $3::text[]::date[], $4::text::jsonb, $5::text::timestamptz, $6, $7, $8::text::jsonb,
                $9::text::jsonb, $10, $11, $12, $13)",
            &[
                &books.run_id, &books.job, &dates, &json(&books.positions)?, &books.read_at, &number(books.scanned),
                &number(books.counted), &json(&books.excluded)?, &json(rows)?, &books.engine, &env!("CARGO_PKG_VERSION"),
                &definition(), &books.seconds,
            ],
        )
        .await
        .map_err(failed("postgres: write millpond_runs"))?;
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::bug("aggregate: write the ledger").because(error))
}

/// Names the reports' definition: whoever changes it changes this.
#[must_use]
pub fn definition() -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(format!("{TABLES:?}{REPORTS:?}").as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
