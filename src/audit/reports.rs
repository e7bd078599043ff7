//! Documents beside the rows of reports: first what the ledger's books, the tables and the index of the time say of each
//! date; a date of which they do not agree is counted again from its documents, at the positions of its report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bson::Document;
use mongodb::{Collection, Database};
use serde::Serialize;
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use super::{Audit, AuditSettings, Finding, Findings};
use crate::aggregate::covered::Covered;
use crate::aggregate::incremental::{counts, coverage::Coverage};
use crate::aggregate::moment::Moment;
use crate::aggregate::publish::ledger;
use crate::aggregate::publish::report::{CREATED, DATE, Report};
use crate::aggregate::publish::{self, tables};
use crate::aggregate::reading::At;
use crate::aggregate::reports::metric::Measure;
use crate::aggregate::reports::plan::Plan;
use crate::aggregate::settings::Counted;
use crate::aggregate::{finished, instant};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::postgres::columns::quoted;
use crate::postgres::{self, told};

/// New events since a report, of which the dates are looked at; with more of them a report is not compared by counts.
const MOST_NEW: i64 = 1_000_000;
/// Keys that are named of rows that differ.
const SAMPLES: i64 = 5;

/// A report of a date.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Standing {
    pub table: String,
    pub date: String,
    pub run: String,
    /// Documents of the date, by the index; null where they were not counted.
    pub documents: Option<i64>,
    /// Events that the books count, and those of them without a usable key.
    pub counted: Option<u64>,
    pub excluded: Option<u64>,
    /// Events that the rows count; null for a report without a count.
    pub in_rows: Option<i64>,
    /// Whether its rows were compared with a full recomputation.
    pub recounted: bool,
}

/// The ledger's row of the publication that stands.
struct Made {
    run: String,
    positions: BTreeMap<String, i64>,
    by_date: Option<BTreeMap<String, Counted>>,
    repeatable: bool,
    definition: Option<String>,
}

/// What is compared.
pub struct Reports<'a> {
    pub settings: &'a AuditSettings,
    pub database: &'a Database,
    pub events: &'a Collection<Document>,
    pub plan: &'a Arc<Plan>,
    pub moment: &'a Moment,
    pub covered: &'a Arc<Covered>,
}

type Stands = BTreeMap<i32, BTreeMap<String, Made>>;

impl Reports<'_> {
    /// Compares every report that stands.
    ///
    /// # Errors
    /// As [`told`] and [`At::dated`].
    pub async fn compare(
        &self,
        dsn: &str,
        audit: &mut Audit,
        findings: &mut Findings,
        control: &Arc<Control>,
    ) -> Result<()> {
        let (mut client, schema) = self.open(dsn).await?;
        let stands = self.stands(&client, &schema, None, audit).await?;
        let rows = self.rows(&client, &schema).await?;
        let field = &self.settings.aggregate.time_field;
        let mut newer: BTreeMap<BTreeMap<String, i64>, Option<BTreeMap<i32, i64>>> = BTreeMap::new();
        let mut suspects = BTreeMap::new();
        for (date, by_table) in stands {
            control.check("audit: compare reports")?;
            let there = counts::on_date(self.events, self.moment, field, date).await?;
            let mut suspect = self.settings.deep;
            for (table, made) in &by_table {
                let mut one = self.standing(date, table, made, rows.get(&(table.clone(), date)).copied().flatten());
                if !newer.contains_key(&made.positions) {
                    newer.insert(made.positions.clone(), self.newer(&made.positions).await?);
                }
                let since = &newer[&made.positions];
                one.documents = since.as_ref().map(|since| there - since.get(&date).copied().unwrap_or(0));
                if let (Some(documents), Some(counted)) = (one.documents, one.counted) {
                    suspect |= documents != i64::try_from(counted).unwrap_or(i64::MAX);
                }
                if let (Some(in_rows), Some(counted), Some(excluded)) = (one.in_rows, one.counted, one.excluded)
                    && u64::try_from(in_rows).ok() != counted.checked_sub(excluded)
                {
                    findings.add(self.differs(date, table, "count", format!(
                        "its rows count {in_rows} events, its books {counted} and {excluded} of them without a usable key"
                    )));
                }
                audit.reports.push(one);
            }
            if suspect {
                suspects.insert(date, by_table);
            }
        }
        self.recount(&mut client, &schema, suspects, audit, findings, control).await
    }

    /// Compares the reports of one date with a full recomputation.
    ///
    /// # Errors
    /// As [`Self::compare`]; `Config` when no report of the date stands.
    pub async fn one(
        &self,
        dsn: &str,
        date: i32,
        audit: &mut Audit,
        findings: &mut Findings,
        control: &Arc<Control>,
    ) -> Result<()> {
        let (mut client, schema) = self.open(dsn).await?;
        let stands = self.stands(&client, &schema, Some(date), audit).await?;
        if stands.is_empty() {
            return Err(Error::config(format!("audit: no report of {} was published", instant::text(date)))
                .hint("check date, schema, database, collection and time_field: `millpond runs` lists what was"));
        }
        let rows = self.rows(&client, &schema).await?;
        for (date, by_table) in &stands {
            for (table, made) in by_table {
                let in_rows = rows.get(&(table.clone(), *date)).copied().flatten();
                audit.reports.push(self.standing(*date, table, made, in_rows));
            }
        }
        self.recount(&mut client, &schema, stands, audit, findings, control).await
    }

    fn standing(&self, date: i32, table: &str, made: &Made, in_rows: Option<i64>) -> Standing {
        let date = instant::text(date);
        let books = made.by_date.as_ref().map(|all| all.get(&date).cloned().unwrap_or_default());
        let counts = self.plan.reports.iter().any(|report| report.table == table && count_of(report).is_some());
        Standing {
            table: table.to_owned(),
            run: made.run.clone(),
            counted: books.as_ref().map(|books| books.counted),
            excluded: books.as_ref().map(|books| books.excluded.get(table).copied().unwrap_or(0)),
            in_rows: counts.then(|| in_rows.unwrap_or(0)),
            date,
            ..Standing::default()
        }
    }

    async fn open(&self, dsn: &str) -> Result<(Client, String)> {
        let client = postgres::connect(dsn).await?;
        let schema = tables::enter(&client, self.settings.aggregate.schema.as_deref()).await?;
        let session = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'";
        client.batch_execute(session).await.map_err(|error| told("postgres: audit", error))?;
        Ok((client, schema))
    }

    /// By date and table, the publication that stands: that of the latest reading.
    async fn stands(&self, client: &Client, schema: &str, date: Option<i32>, audit: &mut Audit) -> Result<Stands> {
        let with = &self.settings.aggregate;
        let tables: Vec<&str> = self.plan.reports.iter().map(|report| report.table.as_str()).collect();
        let query = format!(
            "SELECT DISTINCT ON (t, d) t, d::text, r.run_id, r.positions::text, to_jsonb(r) ->> 'by_date',
                coalesce((to_jsonb(r) ->> 'repeatable')::boolean, false), to_jsonb(r) -> 'definitions' ->> t,
                to_jsonb(r) ->> 'source', to_jsonb(r) ->> 'time_field'
             FROM {}.{} AS r, jsonb_object_keys(r.rows) AS t, unnest(r.dates) AS d
             WHERE t = ANY($1) AND ($2::text IS NULL OR d = $2::text::date) ORDER BY t, d, r.read_at DESC, r.created_at DESC",
            quoted(schema),
            ledger::NAME
        );
        let found = client.query(&query, &[&tables, &date.map(instant::text)]).await;
        let mut stands = Stands::new();
        let mut others = BTreeSet::new();
        for row in found.map_err(|error| told("postgres: read millpond_runs", error))? {
            let Some(date) = instant::date(row.get::<_, String>(1).as_bytes()) else { continue };
            let table: String = row.get(0);
            let (source, field): (Option<String>, Option<String>) = (row.get(7), row.get(8));
            let ours = source.is_none_or(|source| source == format!("{}.{}", with.database, with.collection))
                && field.is_none_or(|field| field == with.time_field);
            let made = Made {
                run: row.get(2),
                positions: serde_json::from_str(row.get(3)).unwrap_or_default(),
                by_date: row.get::<_, Option<&str>>(4).and_then(|text| serde_json::from_str(text).ok()),
                repeatable: row.get(5),
                definition: row.get(6),
            };
            let definition = self.plan.reports.iter().find(|report| report.table == table);
            let name = definition.map(|one| crate::aggregate::reports::definition::name(std::slice::from_ref(one)));
            if !ours || made.definition != name {
                others.insert(table);
                continue;
            }
            stands.entry(date).or_default().insert(table, made);
        }
        for table in others {
            audit.notes.push(format!(
                "some dates of {table} are of another collection, time_field or definition: they were not compared"
            ));
        }
        Ok(stands)
    }

    /// By table and date, the events that rows count.
    async fn rows(&self, client: &Client, schema: &str) -> Result<BTreeMap<(String, i32), Option<i64>>> {
        let mut all = BTreeMap::new();
        for report in &self.plan.reports {
            let Some(count) = count_of(report) else { continue };
            let query = format!(
                "SELECT {DATE}::text, sum({})::bigint FROM {}.{} GROUP BY 1",
                quoted(count),
                quoted(schema),
                quoted(&report.table)
            );
            let found = client.query(&query, &[]).await;
            for row in found.map_err(|error| told(format!("postgres: read {}", report.table), error))? {
                if let Some(date) = instant::date(row.get::<_, String>(0).as_bytes()) {
                    all.insert((report.table.clone(), date), row.get(1));
                }
            }
        }
        Ok(all)
    }

    /// By date, the documents beyond positions; `None` when they are too many.
    async fn newer(&self, positions: &BTreeMap<String, i64>) -> Result<Option<BTreeMap<i32, i64>>> {
        let then = Coverage::of(&self.covered.upto(positions));
        if then.offsets_to(&Coverage::of(self.covered)) > MOST_NEW {
            return Ok(None);
        }
        let beyond = then.beyond(self.covered.sources.keys().copied())?;
        counts::written(self.events, self.moment, &self.settings.aggregate.time_field, &beyond).await.map(Some)
    }

    /// Counts dates again at the positions of their reports, and compares row by row.
    async fn recount(
        &self,
        client: &mut Client,
        schema: &str,
        dates: Stands,
        audit: &mut Audit,
        findings: &mut Findings,
        control: &Arc<Control>,
    ) -> Result<()> {
        // By positions, so that each date is read once where its tables were published together.
        let mut reads: BTreeMap<BTreeMap<String, i64>, BTreeMap<i32, BTreeSet<String>>> = BTreeMap::new();
        for (date, by_table) in dates {
            for (table, made) in by_table {
                if !made.repeatable {
                    audit.notes.push(format!(
                        "{table} of {}: compared with the documents of now, since its report is not repeatable",
                        instant::text(date)
                    ));
                }
                let positions = if made.repeatable { made.positions } else { self.covered.named.clone() };
                reads.entry(positions).or_default().entry(date).or_default().insert(table);
            }
        }
        for (positions, dates) in reads {
            let at = At {
                database: self.database,
                events: self.events,
                settings: &self.settings.aggregate,
                plan: self.plan,
                moment: self.moment.clone(),
                covered: Arc::new(self.covered.upto(&positions)),
                control,
                question: OnceCell::new(),
            };
            let again = at.dated(Some(dates.keys().copied().collect())).await?;
            for report in finished(&again.partial, self.plan)? {
                for (date, _) in dates.iter().filter(|(_, tables)| tables.contains(&report.table.name)) {
                    self.compare_rows(client, schema, &report, *date, findings).await?;
                    let text = instant::text(*date);
                    let told =
                        audit.reports.iter_mut().filter(|one| one.table == report.table.name && one.date == text);
                    told.for_each(|one| one.recounted = true);
                }
            }
        }
        Ok(())
    }

    async fn compare_rows(
        &self,
        client: &mut Client,
        schema: &str,
        report: &Report,
        date: i32,
        findings: &mut Findings,
    ) -> Result<()> {
        let what = |error| told(format!("postgres: compare {}", report.table.name), error);
        let table = format!("{}.{}", quoted(schema), quoted(&report.table.name));
        let names: Vec<String> = report.table.columns().iter().map(|column| quoted(&column.name)).collect();
        let names = names.join(", ");
        let keys: Vec<String> = report.table.keys.iter().map(|key| format!("{}::text", quoted(&key.name))).collect();
        // Rolled back at its end.
        let transaction = client.transaction().await.map_err(what)?;
        let make = format!(
            "CREATE TEMP TABLE millpond_audit ON COMMIT DROP AS SELECT {names}, {CREATED} FROM {table} LIMIT 0"
        );
        transaction.batch_execute(&make).await.map_err(what)?;
        publish::copy_dates(&transaction, "millpond_audit", report, &BTreeSet::from([date]), 0).await?;
        let text = instant::text(date);
        for (from, without, kind) in [
            ("millpond_audit", table.as_str(), "are missing"),
            (table.as_str(), "millpond_audit", "should not be there"),
        ] {
            let query = format!(
                "WITH d AS (SELECT {names} FROM {from} WHERE {DATE} = $1::text::date
                    EXCEPT ALL SELECT {names} FROM {without} WHERE {DATE} = $1::text::date)
                 SELECT (SELECT count(*) FROM d), ARRAY(SELECT concat_ws('/', {}) FROM d ORDER BY 1 LIMIT {SAMPLES})",
                keys.join(", ")
            );
            let row = transaction.query_one(&query, &[&text]).await.map_err(what)?;
            let (count, samples): (i64, Vec<String>) = (row.get(0), row.get(1));
            if count > 0 {
                let told = format!("{count} rows {kind}, of {}", samples.join(", "));
                findings.add(self.differs(date, &report.table.name, "rows", told));
            }
        }
        transaction.rollback().await.map_err(what)
    }

    #[expect(clippy::unused_self, reason = "beside its sisters")]
    fn differs(&self, date: i32, table: &str, kind: &'static str, text: String) -> Finding {
        let date = Some(instant::text(date));
        Finding { stage: "report", kind, table: Some(table.to_owned()), date, text, ..Finding::default() }
    }
}

/// The column that counts events.
fn count_of(report: &crate::aggregate::reports::definition::Definition) -> Option<&str> {
    let count = report.metrics.iter().find(|metric| matches!(metric.measure, Measure::Count));
    count.map(|metric| metric.name.as_str())
}
