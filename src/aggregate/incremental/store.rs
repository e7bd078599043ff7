//! `millpond_watermarks` and `millpond_partials`: what is kept between runs, written in the transaction that publishes.
//! It refuses to judge: what fits is decided by who reads.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio_postgres::{Client, Row as SqlRow, Transaction};

use super::coverage::Coverage;
use crate::aggregate::instant;
use crate::aggregate::publish::tables::{DDL_LOCK, Place};
use crate::aggregate::publish::touched::Stamp;
use crate::error::Result;
use crate::postgres::told;

/// The tables' names.
pub const MARKS: &str = "millpond_watermarks";
pub const PARTIALS: &str = "millpond_partials";
const CREATE: &str = "CREATE TABLE IF NOT EXISTS millpond_watermarks (
    job TEXT, source TEXT, time_field TEXT, definition TEXT, definitions JSONB NOT NULL, tables JSONB NOT NULL,
    collection TEXT NOT NULL, reported JSONB, reported_documents BIGINT, covered JSONB, covered_documents BIGINT,
    run_id TEXT NOT NULL, moved_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (job, source, time_field, definition));
    CREATE TABLE IF NOT EXISTS millpond_partials (
    job TEXT, source TEXT, time_field TEXT, definition TEXT, date DATE, version INT NOT NULL, covered JSONB,
    covered_documents BIGINT, documents BIGINT NOT NULL, counted BIGINT NOT NULL, visitors BIGINT NOT NULL, why TEXT,
    base BYTEA, base_sum BIGINT, more BYTEA, more_sum BIGINT, checked_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    published JSONB, shifted BOOLEAN NOT NULL, run_id TEXT NOT NULL, made_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (job, source, time_field, definition, date));
    ALTER TABLE millpond_partials ALTER base SET STORAGE EXTERNAL, ALTER more SET STORAGE EXTERNAL";
/// The rows of an [`Owner`], whose words are the first four parameters.
pub(super) const MINE: &str = "job = $1 AND source = $2 AND time_field = $3 AND definition = $4";

/// Bytes of memory, by those of a row, its distinct values, and its events, which are pairs of a key and a value in two
/// reports or so: 60 MB for 500,000 events of 400,000 visitors, which are kept in 0.6 MB. An estimate, not a bound.
const UNPACKED: &str = "8 * (coalesce(octet_length(base), 0)::bigint + coalesce(octet_length(more), 0))
    + 96 * visitors + 32 * counted";

/// Whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub job: String,
    /// `database.collection`.
    pub source: String,
    pub time_field: String,
    pub definition: String,
}

/// How far a job is.
#[derive(Debug, Clone)]
pub struct Mark {
    pub run_id: String,
    /// The collection's UUID, as the positions name it.
    pub collection: String,
    /// By report table, its oid.
    pub tables: BTreeMap<String, u32>,
    /// Every event below lies in a report of its date; `None` before the first run of `dates="changed"`.
    pub reported: Option<Coverage>,
    /// Documents below, by the server's count.
    pub reported_documents: Option<i64>,
    /// What the kept dates cover that say nothing else.
    pub covered: Option<Coverage>,
    pub covered_documents: Option<i64>,
}

/// A kept date, without its bytes.
#[derive(Debug, Clone)]
pub struct Row {
    pub version: i32,
    /// `None`: as [`Mark::covered`].
    pub covered: Option<Coverage>,
    pub covered_documents: Option<i64>,
    /// Documents whose time is written with the date.
    pub documents: i64,
    pub counted: i64,
    /// Why it cannot be used.
    pub why: Option<String>,
    /// Whether it was compared with the collection's index within a day.
    pub checked: bool,
    /// Some event is written with the date and counts on another one.
    pub shifted: bool,
    /// The run that wrote it.
    pub run_id: String,
    /// About how many bytes it takes while new events are merged into it.
    pub takes: u64,
    /// By report table, what that held of the date when it was published.
    pub published: BTreeMap<String, Stamp>,
}

/// All that is kept for a job.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    pub mark: Option<Mark>,
    pub rows: BTreeMap<i32, Row>,
}

/// The bytes of a date.
#[derive(Debug, Clone)]
pub struct Bytes {
    pub base: Vec<u8>,
    pub more: Option<Vec<u8>>,
}

/// Whether the tables can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tables {
    There,
    /// Not yet, and this role may make them.
    Absent,
    /// No, and why.
    Unfit(String),
}

/// Looks for the tables.
///
/// # Errors
/// As [`told`].
pub async fn look(client: &Client, place: &Place) -> Result<Tables> {
    let names = [place.of(MARKS), place.of(PARTIALS)];
    let query =
        "SELECT bool_and(to_regclass(t) IS NOT NULL), coalesce(bool_and(has_table_privilege(to_regclass(t), r)),
            false), has_schema_privilege($2, 'CREATE')
        FROM unnest($1::text[]) AS t, unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS r";
    let row = client.query_one(query, &[&names.as_slice(), &place.schema]).await;
    let row = row.map_err(|error| told("postgres: look for millpond_partials", error))?;
    let (there, rights, may): (bool, bool, bool) = (row.get(0), row.get(1), row.get(2));
    let needed = || format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {}, {} TO this role", names[0], names[1]);
    Ok(match (there, rights, may) {
        (true, true, _) => Tables::There,
        (true, false, _) => Tables::Unfit(format!("this role may not write millpond_partials: {}", needed())),
        (false, _, true) => Tables::Absent,
        (false, ..) => Tables::Unfit(format!(
            "this role may not make {MARKS} and {PARTIALS} in schema {}: let its owner run once, then {}",
            place.schema,
            needed()
        )),
    })
}

/// Makes the tables.
///
/// # Errors
/// As [`told`].
pub async fn make(client: &mut Client) -> Result<()> {
    let what = |error| told("postgres: make millpond_partials", error);
    let transaction = client.transaction().await.map_err(what)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&DDL_LOCK]).await.map_err(what)?;
    transaction.batch_execute(CREATE).await.map_err(what)?;
    transaction.commit().await.map_err(what)
}

fn coverage(row: &SqlRow, at: usize) -> Option<Coverage> {
    row.get::<_, Option<String>>(at).as_deref().and_then(Coverage::from_json)
}

/// Reads what is kept, without bytes.
///
/// # Errors
/// As [`told`].
pub async fn read(client: &Client, place: &Place, owner: &Owner) -> Result<Kept> {
    let what = "postgres: read millpond_watermarks";
    let Owner { job, source, time_field, definition } = owner;
    let query = format!(
        "SELECT run_id, collection, tables::text, reported::text, reported_documents, covered::text, covered_documents
         FROM {} WHERE {MINE}",
        place.of(MARKS)
    );
    let found = client.query_opt(&query, &[job, source, time_field, definition]).await.map_err(|e| told(what, e))?;
    let mark = found.map(|row| Mark {
        run_id: row.get(0),
        collection: row.get(1),
        tables: serde_json::from_str(row.get(2)).unwrap_or_default(),
        reported: coverage(&row, 3),
        reported_documents: row.get(4),
        covered: coverage(&row, 5),
        covered_documents: row.get(6),
    });
    let query = format!(
        "SELECT date::text, version, covered::text, covered_documents, documents, counted, why,
            checked_at > now() - interval '1 day', covered IS NOT NULL, published::text, shifted,
            {UNPACKED}, run_id
         FROM {} WHERE {MINE}",
        place.of(PARTIALS)
    );
    let found = client.query(&query, &[job, source, time_field, definition]).await;
    let mut rows = BTreeMap::new();
    for row in found.map_err(|error| told("postgres: read millpond_partials", error))? {
        let Some(date) = instant::date(row.get::<_, String>(0).as_bytes()) else { continue };
        let mut kept = Row {
            version: row.get(1),
            covered: coverage(&row, 2),
            covered_documents: row.get(3),
            documents: row.get(4),
            counted: row.get(5),
            why: row.get(6),
            checked: row.get(7),
            shifted: row.get(10),
            run_id: row.get(12),
            takes: u64::try_from(row.get::<_, i64>(11)).unwrap_or(0),
            published: row
                .get::<_, Option<&str>>(9)
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default(),
        };
        if row.get::<_, bool>(8) && kept.covered.is_none() {
            kept.why = Some(DAMAGED.into());
        }
        rows.insert(date, kept);
    }
    Ok(Kept { mark, rows })
}

/// What is said of bytes that cannot be read.
pub const DAMAGED: &str = "the kept partial is damaged";

/// The bytes of a date as that run wrote them, or why there are none that can be used: what another run has written
/// meanwhile holds events that [`Row::covered`] does not name.
///
/// # Errors
/// As [`told`].
pub async fn bytes(
    client: &Client,
    place: &Place,
    owner: &Owner,
    (date, run_id): (i32, &str),
) -> Result<std::result::Result<Bytes, String>> {
    let Owner { job, source, time_field, definition } = owner;
    let query = format!(
        "SELECT base, base_sum, more, more_sum, run_id FROM {} WHERE {MINE} AND date = $5::text::date",
        place.of(PARTIALS)
    );
    let found = client.query_opt(&query, &[job, source, time_field, definition, &instant::text(date)]).await;
    let Some(row) = found.map_err(|error| told("postgres: read millpond_partials", error))? else {
        return Ok(Err("no partial of the date is kept".to_owned()));
    };
    let other = row.get::<_, &str>(4) != run_id;
    #[cfg(feature = "sabotage")]
    let other = other && !crate::sabotage::is("partials_of_any_run");
    if other {
        return Ok(Err("another run of this job made its partial anew meanwhile".to_owned()));
    }
    let (base, more): (Option<&[u8]>, Option<&[u8]>) = (row.get(0), row.get(2));
    let fits = |bytes: Option<&[u8]>, at| bytes.map(sum) == row.get::<_, Option<i64>>(at);
    Ok(match base {
        Some(base) if fits(Some(base), 1) && fits(more, 3) => {
            Ok(Bytes { base: base.to_vec(), more: more.map(<[u8]>::to_vec) })
        }
        _ => Err(DAMAGED.to_owned()),
    })
}

/// A checksum.
pub(super) fn sum(bytes: &[u8]) -> i64 {
    i64::from(crc32fast::hash(bytes))
}

/// Whoever publishes a table by another definition takes from the older one's job that every event lies in a report.
///
/// # Errors
/// As [`told`].
pub async fn forget_others(
    transaction: &Transaction<'_>,
    place: &Place,
    definitions: &BTreeMap<String, String>,
) -> Result<()> {
    let what = |error| told("postgres: write millpond_watermarks", error);
    let query = "SELECT to_regclass($1) IS NOT NULL AND has_table_privilege(to_regclass($1), 'UPDATE')
        AND has_table_privilege(to_regclass($1), 'SELECT')";
    if !transaction
        .query_one(query, &[&place.of(MARKS)])
        .await
        .map_err(what)?
        .get::<_, Option<bool>>(0)
        .unwrap_or(false)
    {
        return Ok(());
    }
    let statement = format!(
        "UPDATE {} AS m SET reported = NULL WHERE reported IS NOT NULL AND EXISTS (
            SELECT FROM jsonb_each_text(m.definitions) AS o JOIN jsonb_each_text($1::text::jsonb) AS n USING (key)
            WHERE o.value <> n.value)",
        place.of(MARKS)
    );
    let mine = definitions.iter().map(|(table, name)| (table.clone(), name.clone())).collect::<Value>().to_string();
    transaction.execute(&statement, &[&mine]).await.map_err(what)?;
    Ok(())
}
