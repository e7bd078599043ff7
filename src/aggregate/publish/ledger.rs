//! `millpond_runs`: one row for each publication, written in its transaction. What it says is what the tables hold.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Transaction;

use super::failed;
use super::tables::Place;
use crate::aggregate::instant;
use crate::aggregate::settings::AggregateBooks;
use crate::error::{Error, Result};

/// The ledger's name.
pub const NAME: &str = "millpond_runs";
/// Makes it. Who published later than a run read is a handful of rows by the index, however long the ledger.
pub const CREATE: &str = "CREATE TABLE millpond_runs (
    run_id TEXT PRIMARY KEY, job TEXT NOT NULL, dates DATE[] NOT NULL, positions JSONB NOT NULL,
    read_at TIMESTAMPTZ NOT NULL, scanned BIGINT NOT NULL, counted BIGINT NOT NULL, excluded JSONB NOT NULL,
    rows JSONB NOT NULL, engine TEXT NOT NULL, version TEXT NOT NULL, definition TEXT NOT NULL,
    seconds DOUBLE PRECISION NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    source TEXT, time_field TEXT, excluded_keys JSONB, superseded DATE[], repeatable BOOLEAN, definitions JSONB,
    mode TEXT, kept BIGINT, full_scans JSONB, by_date JSONB);
    CREATE INDEX millpond_runs_read_at ON millpond_runs (read_at)";

/// Columns and how the catalog spells their types; those with a third word came after the first version.
const COLUMNS: [(&str, &str, &str); 24] = [
    ("run_id", "text", ""),
    ("job", "text", ""),
    ("dates", "date[]", ""),
    ("positions", "jsonb", ""),
    ("read_at", "timestamp with time zone", ""),
    ("scanned", "bigint", ""),
    ("counted", "bigint", ""),
    ("excluded", "jsonb", ""),
    ("rows", "jsonb", ""),
    ("engine", "text", ""),
    ("version", "text", ""),
    ("definition", "text", ""),
    ("seconds", "double precision", ""),
    ("created_at", "timestamp with time zone", ""),
    ("source", "text", "TEXT"),
    ("time_field", "text", "TEXT"),
    ("excluded_keys", "jsonb", "JSONB"),
    ("superseded", "date[]", "DATE[]"),
    ("repeatable", "boolean", "BOOLEAN"),
    ("definitions", "jsonb", "JSONB"),
    ("mode", "text", "TEXT"),
    ("kept", "bigint", "BIGINT"),
    ("full_scans", "jsonb", "JSONB"),
    ("by_date", "jsonb", "JSONB"),
];

/// A column of the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    /// As the catalog spells its type.
    pub kind: &'static str,
    /// As DDL says it, where it was added after the first version.
    pub added: Option<&'static str>,
}

/// The columns.
pub fn columns() -> impl Iterator<Item = Entry> {
    COLUMNS.iter().map(|(name, kind, added)| Entry { name, kind, added: (!added.is_empty()).then_some(*added) })
}

/// By table, the dates of which a report of a later reading stands.
///
/// # Errors
/// As [`crate::postgres::told`].
pub async fn newer(
    transaction: &Transaction<'_>,
    place: &Place,
    books: &AggregateBooks,
    dates: &BTreeSet<i32>,
) -> Result<BTreeMap<String, BTreeSet<i32>>> {
    let texts: Vec<String> = dates.iter().map(|date| instant::text(*date)).collect();
    let tables: Vec<&str> = place.oids.keys().map(String::as_str).collect();
    let query = format!(
        "SELECT DISTINCT t, d::text FROM {}, unnest(dates) AS d, unnest($3::text[]) AS t
         WHERE read_at > $1::text::timestamptz AND d = ANY($2::text[]::date[]) AND jsonb_exists(rows, t)",
        place.of(NAME)
    );
    let found = transaction.query(&query, &[&books.read_at, &texts, &tables]).await;
    let mut newer: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for row in found.map_err(failed("postgres: read millpond_runs"))? {
        let date = instant::date(row.get::<_, String>(1).as_bytes());
        newer.entry(row.get(0)).or_default().extend(date);
    }
    Ok(newer)
}

/// The tables whose last publication was made by another definition.
///
/// # Errors
/// As [`crate::postgres::told`].
pub async fn redefined(transaction: &Transaction<'_>, place: &Place, books: &AggregateBooks) -> Result<Vec<String>> {
    let query = format!(
        "SELECT t FROM jsonb_object_keys($1::text::jsonb) AS t CROSS JOIN LATERAL (
            SELECT definitions ->> t AS last FROM {} WHERE jsonb_exists(definitions, t) ORDER BY read_at DESC LIMIT 1)
         AS before WHERE last <> $1::text::jsonb ->> t ORDER BY t",
        place.of(NAME)
    );
    let found = transaction.query(&query, &[&json(&books.definitions)?]).await;
    Ok(found.map_err(failed("postgres: read millpond_runs"))?.iter().map(|row| row.get(0)).collect())
}

/// Writes the row of a run: `dates` are those published, `created` is the publication's time in microseconds since 1970.
///
/// # Errors
/// As [`crate::postgres::told`].
pub async fn write(
    transaction: &Transaction<'_>,
    place: &Place,
    books: &AggregateBooks,
    dates: &[String],
    created: i64,
) -> Result<()> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let statement = format!(
        "INSERT INTO {} (run_id, job, dates, positions, read_at, scanned, counted, excluded, rows, engine, version,
            definition, seconds, created_at, source, time_field, excluded_keys, superseded, repeatable, definitions,
            mode, kept, full_scans, by_date)
         VALUES ($1, $2, $3::text[]::date[], $4::text::jsonb, $5::text::timestamptz, $6, $7, $8::text::jsonb,
            $9::text::jsonb, $10, $11, $12, $13, timestamptz 'epoch' + $14::bigint * interval '1 microsecond', $15, $16,
            $17::text::jsonb, $18::text[]::date[], $19, $20::text::jsonb, $21, $22, $23::text::jsonb, $24::text::jsonb)",
        place.of(NAME)
    );
    transaction
        .execute(
            &statement,
            &[
                &books.run_id,
                &books.job,
                &dates,
                &json(&books.positions)?,
                &books.read_at,
                &number(books.scanned),
                &number(books.counted),
                &json(&books.excluded)?,
                &json(&books.rows)?,
                &books.engine,
                &env!("CARGO_PKG_VERSION"),
                &books.definition,
                &books.seconds,
                &created,
                &books.source,
                &books.time_field,
                &json(&books.excluded_keys)?,
                &books.superseded,
                &books.repeatable,
                &json(&books.definitions)?,
                &books.mode,
                &number(books.kept),
                &json(&books.full_scans)?,
                &json(&books.by_date)?,
            ],
        )
        .await
        .map_err(failed("postgres: write millpond_runs"))?;
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::bug("aggregate: write the ledger").because(error))
}
