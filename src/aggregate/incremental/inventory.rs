//! Kept Partials and watermarks, for people: shown, and removed.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use tokio_postgres::Client;

use super::store::{MARKS, PARTIALS};
use crate::aggregate::history::Where;
use crate::aggregate::publish::tables;
use crate::aggregate::{instant, on_runtime};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::postgres::columns::quoted;
use crate::postgres::{self, told};

/// Which of them.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    /// Those of one job.
    pub job: Option<String>,
    /// To be removed: those of earlier dates.
    pub before: Option<String>,
    /// To be removed: all of them, and the watermarks' memory of what they cover.
    pub all: bool,
}

/// What is kept.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Shown {
    /// Each job's positions, up to which every event lies in a report, as rows of `millpond_watermarks`.
    pub watermarks: Vec<Value>,
    /// Rows of `millpond_partials`, with the size of their bytes instead of these.
    pub partials: Vec<Value>,
}

/// What went.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Pruned {
    pub partials: u64,
    pub bytes: i64,
}

async fn open(place: &Where) -> Result<(Client, String, bool)> {
    let client = postgres::connect(&place.postgres_dsn).await?;
    let schema = tables::enter(&client, place.schema.as_deref()).await?;
    let name = format!("{}.{PARTIALS}", quoted(&schema));
    let query = "SELECT to_regclass($1) IS NOT NULL";
    let there = client.query_one(query, &[&name]).await.map_err(|e| told("postgres: look for millpond_partials", e))?;
    let there = there.get(0);
    Ok((client, schema, there))
}

fn rows(found: &[tokio_postgres::Row]) -> Result<Vec<Value>> {
    let parsed = |row: &tokio_postgres::Row| serde_json::from_str(row.get(0));
    let rows = found.iter().map(parsed).collect::<std::result::Result<_, _>>();
    rows.map_err(|error| Error::bug("postgres: read millpond_partials").because(error))
}

/// Shows them.
///
/// # Errors
/// By domain: see [`crate::error::Domain`].
pub fn show(place: &Where, chosen: &Chosen, control: &Arc<Control>) -> Result<Shown> {
    on_runtime(control, "partials", async {
        let (client, schema, there) = open(place).await?;
        if !there {
            return Ok(Shown::default());
        }
        let what = |error| told("postgres: read millpond_partials", error);
        let marks = format!(
            "SELECT to_jsonb(m)::text FROM {}.{MARKS} AS m WHERE $1::text IS NULL OR job = $1 ORDER BY moved_at DESC",
            quoted(&schema)
        );
        let partials = format!(
            "SELECT (to_jsonb(p) || jsonb_build_object('bytes', coalesce(length(base), 0) + coalesce(length(more), 0)))::text
             FROM (SELECT job, source, time_field, definition, date, version, covered, documents, counted, visitors, why,
                    run_id, made_at, checked_at, base, more FROM {}.{PARTIALS}) AS t,
                LATERAL (SELECT t.job, t.source, t.time_field, t.definition, t.date, t.version, t.covered, t.documents,
                    t.counted, t.visitors, t.why, t.run_id, t.made_at, t.checked_at) AS p
             WHERE $1::text IS NULL OR t.job = $1 ORDER BY t.job, t.definition, t.date",
            quoted(&schema)
        );
        Ok(Shown {
            watermarks: rows(&client.query(&marks, &[&chosen.job]).await.map_err(what)?)?,
            partials: rows(&client.query(&partials, &[&chosen.job]).await.map_err(what)?)?,
        })
    })
}

/// Removes those that are chosen: the dates are read as a whole when they are reported next.
///
/// # Errors
/// `Config` when nothing says which; by domain: see [`crate::error::Domain`].
pub fn prune(place: &Where, chosen: &Chosen, control: &Arc<Control>) -> Result<Pruned> {
    on_runtime(control, "partials", async {
        let before = chosen.before.as_deref().map(|text| {
            let date = instant::date(text.as_bytes()).map(instant::text);
            date.ok_or_else(|| Error::config("before: no date").hint("give YYYY-MM-DD"))
        });
        let before = before.transpose()?;
        if before.is_none() && !chosen.all {
            return Err(Error::config("partials prune: nothing says which").hint("give before=, or all=True"));
        }
        let (client, schema, there) = open(place).await?;
        if !there {
            return Ok(Pruned::default());
        }
        let query = format!(
            "WITH gone AS (DELETE FROM {}.{PARTIALS} WHERE ($1::text IS NULL OR job = $1)
                AND ($2::text IS NULL OR date < $2::text::date)
                RETURNING coalesce(length(base), 0) + coalesce(length(more), 0) AS bytes)
             SELECT count(*), coalesce(sum(bytes), 0)::bigint FROM gone",
            quoted(&schema)
        );
        let row = client.query_one(&query, &[&chosen.job, &before]).await;
        let row = row.map_err(|error| told("postgres: remove of millpond_partials", error))?;
        Ok(Pruned { partials: u64::try_from(row.get::<_, i64>(0)).unwrap_or(0), bytes: row.get(1) })
    })
}
