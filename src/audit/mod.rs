//! Events → documents → reports, compared end to end: from books and the counts of indexes, and by reading where these do
//! not agree, or everywhere. It repairs nothing and writes nothing.
//!
//! | module | owns |
//! |---|---|
//! | [`stored`] | a topic's events beside documents and dead letters |
//! | [`reports`] | documents beside the rows of reports |

pub mod reports;
pub mod stored;

use std::sync::Arc;
use std::time::Instant;

use bson::Document;
use mongodb::{Collection, Database};
use serde::Serialize;

use crate::aggregate::covered::Covered;
use crate::aggregate::moment::Moment;
use crate::aggregate::reports::plan::Plan;
use crate::aggregate::{AggregateSettings, covered, on_runtime};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::Properties;
use crate::mongo::client;

/// Findings that are told one by one.
const TOLD: usize = 100;

/// What is compared.
#[derive(Clone)]
pub struct AuditSettings {
    /// Where documents and reports are, and how reports are made.
    pub aggregate: AggregateSettings,
    /// The cluster whose topics the sink reads; without it, documents are not compared with events.
    pub target: Option<Properties>,
    /// The bridge whose books are compared.
    pub job: Option<String>,
    /// The field under which the sink stores an event's place.
    pub metadata: Option<String>,
    /// Everything is read.
    pub deep: bool,
}

/// What does not agree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `bridge`, `sink` or `report`.
    pub stage: &'static str,
    /// `lost`, `extra`, `edited`, `rows`, `count`.
    pub kind: &'static str,
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub table: Option<String>,
    pub date: Option<String>,
    pub text: String,
}

impl Finding {
    fn place(&self) -> (Option<&str>, Option<i32>, Option<i64>) {
        (self.topic.as_deref(), self.partition, self.offset)
    }
}

/// All findings, the first ones by themselves.
#[derive(Debug, Default)]
pub struct Findings {
    pub all: Vec<Finding>,
    pub count: u64,
    /// Of all that is lost, however much that is, the first by topic, partition and offset.
    pub first_hole: Option<Finding>,
}

impl Findings {
    /// Adds one.
    pub fn add(&mut self, finding: Finding) {
        self.count += 1;
        if finding.kind == "lost" && self.first_hole.as_ref().is_none_or(|first| finding.place() < first.place()) {
            self.first_hole = Some(finding.clone());
        }
        if self.all.len() < TOLD {
            self.all.push(finding);
        }
    }
}

/// What was compared, and what does not agree.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Audit {
    /// Nothing was found.
    pub balanced: bool,
    pub deep: bool,
    /// The bridge's totals, where its job was named.
    pub bridge: Option<stored::Totals>,
    pub partitions: Vec<stored::Partition>,
    /// Documents that no sink wrote, and those beyond the positions: a sink that is on its way, or nobody's.
    pub other_writers: bool,
    pub ahead: u64,
    pub reports: Vec<reports::Standing>,
    /// How many; `findings` names up to a hundred of them.
    pub found: u64,
    pub findings: Vec<Finding>,
    /// The first event, by topic, partition and offset, that has neither document nor dead letter.
    pub first_hole: Option<Finding>,
    pub notes: Vec<String>,
    pub seconds: f64,
}

/// Compares everything that the settings name.
///
/// # Errors
/// By domain: see [`crate::error::Domain`]. What does not agree is no error.
pub fn audit(settings: &AuditSettings, control: &Arc<Control>) -> Result<Audit> {
    on_runtime(control, "audit", run(settings, control))
}

/// The documents, as they are at one moment.
struct Opened {
    database: Database,
    events: Collection<Document>,
    moment: Moment,
    covered: Arc<Covered>,
    plan: Arc<Plan>,
    began: Instant,
}

impl Opened {
    async fn now(with: &AggregateSettings) -> Result<Self> {
        let began = Instant::now();
        let database = client::connect(&with.mongo_uri).await?.database(&with.database);
        let events: Collection<Document> = database.collection(&with.collection);
        let moment = Moment::now(&events).await?;
        let covered = Arc::new(covered::read(&database, &with.collection, &moment).await?);
        let plan = Arc::new(Plan::new(with.reports.clone(), &with.time_field, with.functions.clone()));
        Ok(Self { database, events, moment, covered, plan, began })
    }

    fn reports<'a>(&'a self, settings: &'a AuditSettings) -> reports::Reports<'a> {
        let Self { database, events, moment, covered, plan, .. } = self;
        reports::Reports { settings, database, events, plan, moment, covered }
    }

    fn told(&self, audit: Audit, findings: Findings) -> Audit {
        Audit {
            first_hole: findings.first_hole,
            found: findings.count,
            balanced: findings.count == 0,
            findings: findings.all,
            seconds: self.began.elapsed().as_secs_f64(),
            ..audit
        }
    }
}

async fn run(settings: &AuditSettings, control: &Arc<Control>) -> Result<Audit> {
    let with = &settings.aggregate;
    let mut audit = Audit { deep: settings.deep, ..Audit::default() };
    let mut findings = Findings::default();
    let opened = Opened::now(with).await?;
    let Opened { database, events, moment, covered, .. } = &opened;
    if let Some(id) = &covered.replaced_by {
        return Err(Error::config(format!(
            "audit: documents of {}.{} are replaced by later events (id={id:?}): no count says what should be there",
            with.database, with.collection
        ))
        .hint("audit what a sink of id=\"kafka\" stores"));
    }
    let stored = stored::Stored { settings, database, events, moment, covered };
    stored.compare(&mut audit, &mut findings, control).await?;
    if let Some(dsn) = &with.postgres_dsn {
        opened.reports(settings).compare(dsn, &mut audit, &mut findings, control).await?;
    }
    Ok(opened.told(audit, findings))
}

/// Compares the reports of one date with a full recomputation at the positions that the ledger names.
///
/// # Errors
/// As [`audit`].
pub fn audit_report(settings: &AuditSettings, date: i32, control: &Arc<Control>) -> Result<Audit> {
    on_runtime(control, "audit", async {
        let Some(dsn) = &settings.aggregate.postgres_dsn else {
            return Err(Error::config("audit: postgres_dsn is missing").hint("it says where the reports are"));
        };
        let mut audit = Audit { deep: true, ..Audit::default() };
        let mut findings = Findings::default();
        let opened = Opened::now(&settings.aggregate).await?;
        opened.reports(settings).one(dsn, date, &mut audit, &mut findings, control).await?;
        Ok(opened.told(audit, findings))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hole_is_the_first_of_all_not_of_those_that_are_named() {
        let mut findings = Findings::default();
        let mut add = |kind, topic: &str, partition, offset| {
            let (partition, offset) = (Some(partition), Some(offset));
            findings.add(Finding { kind, topic: Some(topic.to_owned()), partition, offset, ..Finding::default() });
        };
        (0..2 * TOLD).for_each(|i| add("lost", "c/b", 0, i64::try_from(i).unwrap_or(0)));
        add("edited", "c/a", 0, 3);
        add("lost", "c/a", 2, 9);
        add("lost", "c/a", 2, 7);
        let first = findings.first_hole.expect("something is lost");
        assert_eq!(first.place(), (Some("c/a"), Some(2), Some(7)));
        assert_eq!((findings.all.len(), findings.count), (TOLD, 203));
    }
}
