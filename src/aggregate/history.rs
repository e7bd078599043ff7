//! What was published, and from what: the ledger read back, beside the tables and the positions of today. It writes
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use tokio_postgres::Client;

use super::incremental::store;
use super::moment::Moment;
use super::publish::report::{CREATED, DATE};
use super::publish::{ledger, tables};
use super::{covered, instant, on_runtime};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::mongo::client;
use crate::postgres::columns::quoted;
use crate::postgres::{self, told};

/// Which ledger.
#[derive(Clone)]
pub struct Where {
    /// Holds credentials: never shown (no `Debug`).
    pub postgres_dsn: String,
    pub schema: Option<String>,
}

/// Which of its rows: the newest, `limit` of them.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    pub job: Option<String>,
    pub date: Option<String>,
    pub limit: u64,
}

/// A report of a date, as it stands.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    pub table: String,
    /// Rows of the date.
    pub rows: u64,
    /// The ledger's row of the publication that made them; `None` when no run published this date.
    pub run: Option<Value>,
    /// Whether all rows are of that publication; `None` when that is not known.
    pub untouched: Option<bool>,
    /// By `cluster/topic/partition`: events stored since, of whatever date; `None` when that is not known.
    pub newer: Option<BTreeMap<String, i64>>,
}

/// The first rows of a report of a date.
#[derive(Debug, Clone, Serialize)]
pub struct Top {
    pub table: String,
    /// `None`: the table is empty.
    pub date: Option<String>,
    /// The column that says what they are rows of, and the one they are ordered by.
    pub key: String,
    pub metric: String,
    /// Rows of the date.
    pub count: u64,
    /// The first of them, each by column.
    pub rows: Vec<Value>,
    /// Date and sum of the metric, for the two weeks up to the date; `None` when that took too long.
    pub days: Option<Vec<(String, f64)>>,
}

/// The newest publications first, each as its row of the ledger.
///
/// # Errors
/// By domain: see [`crate::error::Domain`].
pub fn runs(place: &Where, chosen: &Chosen, control: &Arc<Control>) -> Result<Vec<Value>> {
    on_runtime(control, "runs", async {
        let date = chosen.date.as_deref().map(checked).transpose()?;
        let (client, schema) = open(place).await?;
        let limit = i64::try_from(chosen.limit).unwrap_or(i64::MAX);
        let from = ledger_of(&schema);
        let query = format!(
            "SELECT row_to_json(r)::text FROM (SELECT * FROM {from} WHERE ($1::text IS NULL OR job = $1)
                AND ($2::text IS NULL OR $2::text::date = ANY(dates)) ORDER BY read_at DESC, created_at DESC LIMIT $3) AS r"
        );
        let rows = client.query(&query, &[&chosen.job, &date, &limit]).await;
        let rows = rows.map_err(|error| told("postgres: read millpond_runs", error))?;
        rows.iter().map(|row| parsed(row.get(0))).collect()
    })
}

/// What stands of a date: in `table`, or in each table that the ledger names for it.
///
/// # Errors
/// By domain: see [`crate::error::Domain`]; `Config` for a table that is not there.
pub fn explain(
    place: &Where,
    date: &str,
    table: Option<&str>,
    mongo_uri: Option<&str>,
    control: &Arc<Control>,
) -> Result<Vec<Standing>> {
    on_runtime(control, "explain", async {
        let date = checked(date)?;
        let (client, schema) = open(place).await?;
        let from = ledger_of(&schema);
        // The publication that stands is that of the latest reading: an older one leaves it alone.
        let query = format!(
            "SELECT DISTINCT ON (t) t, row_to_json(r)::text FROM {from} AS r, jsonb_object_keys(r.rows) AS t
             WHERE $1::text::date = ANY(r.dates) AND ($2::text IS NULL OR t = $2) ORDER BY t, r.read_at DESC,
                r.created_at DESC"
        );
        let rows = client.query(&query, &[&date, &table]).await;
        let rows = rows.map_err(|error| told("postgres: read millpond_runs", error))?;
        let runs: BTreeMap<String, Value> =
            rows.iter().map(|row| Ok((row.get(0), parsed(row.get(1))?))).collect::<Result<_>>()?;
        let names: BTreeSet<String> = runs.keys().cloned().chain(table.map(str::to_owned)).collect();
        let mut standing = Vec::new();
        for table in names {
            let run = runs.get(&table).cloned();
            let (rows, untouched) = held(&client, &schema, &table, &date, run.as_ref()).await?;
            let newer = match (&run, mongo_uri) {
                (Some(run), Some(uri)) => newer(uri, run).await?,
                _ => None,
            };
            standing.push(Standing { table, rows, run, untouched, newer });
        }
        Ok(standing)
    })
}

/// The first `limit` rows of a report, of `date` or of its latest one, by its first number.
///
/// # Errors
/// By domain: see [`crate::error::Domain`]; `Config` for a table that is not there or holds no number.
pub fn top(place: &Where, table: &str, date: Option<&str>, limit: u32, control: &Arc<Control>) -> Result<Top> {
    on_runtime(control, "top", async {
        let what = || format!("postgres: look at {table}");
        let (client, schema) = open(place).await?;
        let bounded =
            client.batch_execute("SET statement_timeout = '4s'; SET default_transaction_read_only = on").await;
        bounded.map_err(|error| told(what(), error))?;
        let from = format!("{}.{}", quoted(&schema), quoted(table));
        let query = "SELECT attname::text, atttypid::regtype::text FROM pg_attribute
             WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
        let columns = client.query(query, &[&from]).await.map_err(|error| told(what(), error))?;
        let is_number = |of: &str| matches!(of, "bigint" | "integer" | "numeric" | "double precision");
        let (Some(key), Some(metric)) = (
            columns.first().map(|column| column.get::<_, String>(0)),
            columns.iter().find(|column| is_number(column.get(1))).map(|column| column.get::<_, String>(0)),
        ) else {
            return Err(Error::config(format!("{}: it is no report", what())).hint("name a table of millpond_runs"));
        };
        let date = if let Some(date) = date {
            Some(checked(date)?)
        } else {
            let latest = client.query_one(&format!("SELECT max({DATE})::text FROM {from}"), &[]).await;
            latest.map_err(|error| told(what(), error))?.get(0)
        };
        let (by, name) = (quoted(&metric), quoted(&key));
        let query = format!(
            "SELECT row_to_json(r)::text FROM (SELECT * FROM {from} WHERE {DATE} = $1::text::date
                ORDER BY {by} DESC NULLS LAST, {name} LIMIT $2) AS r"
        );
        let rows = client.query(&query, &[&date, &i64::from(limit)]).await.map_err(|error| told(what(), error))?;
        let rows = rows.iter().map(|row| parsed(row.get(0))).collect::<Result<_>>()?;
        let query = format!("SELECT count(*) FROM {from} WHERE {DATE} = $1::text::date");
        let count = client.query_one(&query, &[&date]).await.map_err(|error| told(what(), error))?.get::<_, i64>(0);
        let query = format!(
            "SELECT {DATE}::text, COALESCE(sum({by}), 0)::float8 FROM {from}
             WHERE {DATE} > $1::text::date - 14 AND {DATE} <= $1::text::date GROUP BY {DATE} ORDER BY {DATE}"
        );
        let days = client.query(&query, &[&date]).await.ok();
        let days = days.map(|days| days.iter().map(|day| (day.get(0), day.get(1))).collect());
        Ok(Top { table: table.to_owned(), date, key, metric, count: u64::try_from(count).unwrap_or(0), rows, days })
    })
}

fn ledger_of(schema: &str) -> String {
    format!("{}.{}", quoted(schema), ledger::NAME)
}

fn checked(date: &str) -> Result<String> {
    let date = instant::date(date.as_bytes()).map(instant::text);
    date.ok_or_else(|| Error::config("date: no date").hint("give YYYY-MM-DD"))
}

fn parsed(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| Error::bug("postgres: read millpond_runs").because(error))
}

async fn open(place: &Where) -> Result<(Client, String)> {
    let client = postgres::connect(&place.postgres_dsn).await?;
    let schema = tables::enter(&client, place.schema.as_deref()).await?;
    let what = "postgres: look for millpond_runs";
    let session = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'";
    client.batch_execute(session).await.map_err(|error| told(what, error))?;
    let query = "SELECT to_regclass($1) IS NOT NULL";
    let there = client.query_one(query, &[&ledger_of(&schema)]).await.map_err(|error| told(what, error))?;
    if !there.get::<_, bool>(0) {
        return Err(Error::config(format!(
            "postgres: schema {schema} has no millpond_runs: nothing was published there"
        ))
        .hint("give schema=, or publish a report first"));
    }
    Ok((client, schema))
}

/// How many rows of the date stand in a table, and whether a run's publication made all of them.
async fn held(
    client: &Client,
    schema: &str,
    table: &str,
    date: &str,
    run: Option<&Value>,
) -> Result<(u64, Option<bool>)> {
    let what = || format!("postgres: look at {table}");
    let text = |name: &str| run.and_then(|run| run.get(name)).and_then(Value::as_str);
    // The first version wrote another time into the ledger than into the rows.
    let made = text("source").and(text(CREATED));
    let query = format!(
        "SELECT count(*), count(*) FILTER (WHERE {CREATED} = ($2::text::timestamptz AT TIME ZONE 'UTC'))
         FROM {}.{} WHERE {DATE} = $1::text::date",
        quoted(schema),
        quoted(table)
    );
    let row = client.query_one(&query, &[&date, &made]).await.map_err(|error| told(what(), error))?;
    let (rows, of_run): (i64, i64) = (row.get(0), row.get(1));
    let mut untouched = made.map(|_| rows == of_run);
    if let (Some("incremental"), Some(job), Some(definition)) = (text("mode"), text("job"), text("definition")) {
        // It left rows of earlier publications: what it found and left is kept with the date's Partial.
        untouched = as_left(client, schema, table, (date, job, definition)).await?;
    }
    Ok((u64::try_from(rows).unwrap_or(0), untouched))
}

/// Whether a table holds of a date what an incremental run left there; `None` when that is not known.
async fn as_left(
    client: &Client,
    schema: &str,
    table: &str,
    (date, job, definition): (&str, &str, &str),
) -> Result<Option<bool>> {
    let what = |error| told(format!("postgres: look at {table}"), error);
    let partials = format!("{}.{}", quoted(schema), store::PARTIALS);
    let query = "SELECT coalesce(has_table_privilege(to_regclass($1), 'SELECT'), false)";
    if !client.query_one(query, &[&partials]).await.map_err(what)?.get::<_, bool>(0) {
        return Ok(None);
    }
    let query = format!(
        "SELECT bool_or(published -> $2 = (SELECT jsonb_build_object('rows', count(*), 'sum',
            coalesce(sum(xmin::text::bigint), 0)::bigint) FROM {}.{} WHERE {DATE} = $1::text::date))
         FROM {partials} WHERE date = $1::text::date AND published -> $2 IS NOT NULL AND job = $3 AND definition = $4",
        quoted(schema),
        quoted(table)
    );
    let found = client.query_one(&query, &[&date, &table, &job, &definition]).await;
    Ok(found.map_err(what)?.get(0))
}

/// The events that each partition of a run's source has been stored since.
async fn newer(mongo_uri: &str, run: &Value) -> Result<Option<BTreeMap<String, i64>>> {
    let source = run.get("source").and_then(Value::as_str).and_then(|source| source.split_once('.'));
    let (Some((database, collection)), Some(then)) = (source, run.get("positions").and_then(Value::as_object)) else {
        return Ok(None);
    };
    let client = client::connect(mongo_uri).await?;
    let moment = Moment::passing(&client).await?;
    let now = covered::read(&client.database(database), collection, &moment).await?.named;
    // Other programs' documents have no positions: what of them is new cannot be told.
    let known = run.get("repeatable").and_then(Value::as_bool) == Some(true) && !(now.is_empty() && then.is_empty());
    Ok(known.then(|| since(&now, then)))
}

fn since(now: &BTreeMap<String, i64>, then: &Map<String, Value>) -> BTreeMap<String, i64> {
    let then = |partition: &str| then.get(partition).and_then(Value::as_i64).unwrap_or(0);
    now.iter().map(|(partition, next)| (partition.clone(), (next - then(partition)).max(0))).collect()
}
