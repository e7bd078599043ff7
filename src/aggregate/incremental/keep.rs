//! What a publication keeps beside its reports, written in its transaction.

use std::collections::BTreeMap;

use tokio_postgres::Transaction;

use super::base;
use super::coverage::Coverage;
use super::shelf::Placed;
use super::store::{MARKS, MINE, Mark, Owner, PARTIALS, sum};
use crate::aggregate::instant;
use crate::aggregate::publish::tables::Place;
use crate::aggregate::publish::touched::Stamps;
use crate::error::Result;
use crate::postgres::told;

/// What becomes of a kept date.
#[derive(Debug, Clone)]
pub enum Change {
    /// Made by a scan, or written together.
    Base { bytes: Placed, visitors: u64 },
    /// More events beside the base that stands.
    More { bytes: Placed },
    /// Left where it is, by itself.
    Left,
    /// Of no use any more, and why.
    Void(String),
}

/// A date to be written.
#[derive(Debug, Clone)]
pub struct NewRow {
    pub change: Change,
    /// `None`: as the mark.
    pub covered: Option<Coverage>,
    pub covered_documents: Option<i64>,
    pub documents: i64,
    pub counted: i64,
    /// Compared with the collection's index by this run.
    pub checked: bool,
    /// As [`super::store::Row::shifted`].
    pub shifted: bool,
}

/// What a publication keeps beside its reports.
#[derive(Debug, Clone)]
pub struct Keep {
    /// The run that wrote the mark which was read.
    pub before: Option<String>,
    pub mark: Mark,
    /// Whether the run asked for what has changed.
    pub moves: bool,
    /// What becomes of [`Mark::reported`] when some date was left to a later report.
    pub stay: (Option<Coverage>, Option<i64>),
    pub rows: BTreeMap<i32, NewRow>,
    /// What report tables hold of each date: before the publication, then after it.
    pub published: Stamps,
    /// Rows that are not written here go.
    pub anew: bool,
    /// Dates older than the newest one by more than this go.
    pub days: i32,
}

impl Keep {
    /// Writes mark and rows, unless another run of the job was faster: then nothing, and false.
    ///
    /// # Errors
    /// As [`told`].
    pub async fn write(
        &self,
        transaction: &Transaction<'_>,
        place: &Place,
        owner: &Owner,
        (definitions, run_id): (&BTreeMap<String, String>, &String),
    ) -> Result<bool> {
        let what = |error| told("postgres: write millpond_watermarks", error);
        let (marks, partials) = (place.of(MARKS), place.of(PARTIALS));
        let Owner { job, source, time_field, definition } = owner;
        // The lock by which runs of one job wait for each other; a first row waits for another first row.
        let first = format!(
            "INSERT INTO {marks} (job, source, time_field, definition, definitions, tables, collection, run_id)
             VALUES ($1, $2, $3, $4, '{{}}', '{{}}', '', '') ON CONFLICT DO NOTHING"
        );
        transaction.execute(&first, &[job, source, time_field, definition]).await.map_err(what)?;
        let query = format!("SELECT run_id FROM {marks} WHERE {MINE} FOR UPDATE");
        let now: String =
            transaction.query_one(&query, &[job, source, time_field, definition]).await.map_err(what)?.get(0);
        let overtaken = now != self.before.clone().unwrap_or_default();
        #[cfg(feature = "sabotage")]
        let overtaken = overtaken && !crate::sabotage::is("any_run_keeps");
        if overtaken {
            return Ok(false);
        }
        let json = |value: &BTreeMap<String, String>| serde_json::json!(value).to_string();
        let mark = &self.mark;
        let text = |coverage: &Option<Coverage>| coverage.as_ref().map(Coverage::to_json);
        let update = format!(
            "UPDATE {marks} SET definitions = $5::text::jsonb, tables = $6::text::jsonb, collection = $7,
                reported = $8::text::jsonb, reported_documents = $9, covered = $10::text::jsonb,
                covered_documents = $11, run_id = $12, moved_at = now() WHERE {MINE}"
        );
        let tables = serde_json::json!(mark.tables).to_string();
        transaction
            .execute(
                &update,
                &[
                    job,
                    source,
                    time_field,
                    definition,
                    &json(definitions),
                    &tables,
                    &mark.collection,
                    &text(&mark.reported),
                    &mark.reported_documents,
                    &text(&mark.covered),
                    &mark.covered_documents,
                    run_id,
                ],
            )
            .await
            .map_err(what)?;
        #[cfg(feature = "sabotage")]
        crate::sabotage::step("aggregate.after_mark");
        let what = |error| told("postgres: write millpond_partials", error);
        if self.anew {
            let delete = format!("DELETE FROM {partials} WHERE {MINE}");
            transaction.execute(&delete, &[job, source, time_field, definition]).await.map_err(what)?;
        }
        for (date, row) in &self.rows {
            self.write_row(transaction, &partials, owner, (*date, row), run_id).await?;
        }
        // The newest date by the clock, since one that lies in the future would push all others out.
        let prune = format!(
            "DELETE FROM {partials} WHERE {MINE} AND date < (SELECT max(date) FROM {partials}
                WHERE {MINE} AND date <= current_date + 1) - $5::int"
        );
        transaction.execute(&prune, &[job, source, time_field, definition, &self.days]).await.map_err(what)?;
        Ok(true)
    }

    async fn write_row(
        &self,
        transaction: &Transaction<'_>,
        partials: &str,
        owner: &Owner,
        (date, row): (i32, &NewRow),
        run_id: &String,
    ) -> Result<()> {
        let what = |error| told("postgres: write millpond_partials", error);
        let Owner { job, source, time_field, definition } = owner;
        let covered = row.covered.as_ref().map(Coverage::to_json);
        let (base, more, why, visitors) = match &row.change {
            Change::Base { bytes, visitors } => (Some(bytes.bytes()?), None, None, *visitors),
            Change::More { bytes } => (None, Some(bytes.bytes()?), None, 0),
            Change::Left => (None, None, None, 0),
            Change::Void(why) => (None, None, Some(why), 0),
        };
        let set = match &row.change {
            // What is not named stays where it lies: the server does not even copy it.
            Change::More { .. } => "more = x.more, more_sum = x.more_sum",
            Change::Left => "why = x.why",
            Change::Base { .. } | Change::Void(_) => {
                "base = x.base, base_sum = x.base_sum, more = NULL, more_sum = NULL, why = x.why, \
                 version = x.version, visitors = x.visitors, made_at = now()"
            }
        };
        let statement = format!(
            "INSERT INTO {partials} AS t (job, source, time_field, definition, date, version, covered,
                covered_documents, documents, counted, visitors, why, base, base_sum, more, more_sum, run_id,
                published, shifted)
             VALUES ($1, $2, $3, $4, $5::text::date, $6, $7::text::jsonb, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                $17, $19::text::jsonb, $20)
             ON CONFLICT (job, source, time_field, definition, date) DO UPDATE SET {}, covered = excluded.covered,
                covered_documents = excluded.covered_documents, documents = excluded.documents,
                counted = excluded.counted, run_id = excluded.run_id, shifted = excluded.shifted,
                checked_at = CASE WHEN $18 THEN now() ELSE t.checked_at END,
                published = coalesce(excluded.published, t.published)",
            set.replace("x.", "excluded.")
        );
        let published = self.published.get(&date).map(|tables| serde_json::json!(tables).to_string());
        let (base, more) = (base.as_deref(), more.as_deref());
        let visitors = i64::try_from(visitors).unwrap_or(i64::MAX);
        transaction
            .execute(
                &statement,
                &[
                    job,
                    source,
                    time_field,
                    definition,
                    &instant::text(date),
                    &base::VERSION,
                    &covered,
                    &row.covered_documents,
                    &row.documents,
                    &row.counted,
                    &visitors,
                    &why,
                    &base,
                    &base.map(sum),
                    &more,
                    &more.map(sum),
                    run_id,
                    &row.checked,
                    &published,
                    &row.shifted,
                ],
            )
            .await
            .map_err(what)?;
        Ok(())
    }
}
