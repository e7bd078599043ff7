//! MongoDB → daily product, country and referrer reports → PostgreSQL, atomically (design section 6).
//!
//! | module | owns |
//! |---|---|
//! | [`settings`] | what a run is told and answers |
//! | [`dates`] | which dates are reported |
//! | [`moment`], [`reading`] | one moment for all that is read, and a reading begun again when it breaks |
//! | [`scan`], [`covered`] | parallel cursors over a work queue of ranges; what the positions cover |
//! | [`incremental`] | kept Partials, and the events beyond them |
//! | [`element`], [`instant`] | fields and times of raw documents |
//! | [`reports`] | reports as data: definitions, and what they say about one event |
//! | [`fold`], [`partial`], [`rows`] | the kernel: fold, merge, finish |
//! | [`states`], [`exact`] | what metrics keep of events; sums without rounding |
//! | [`arrow`], [`spill`] | a Partial to Arrow and back; those beyond `memory_limit` |
//! | [`remote`], [`balance`] | the kernel past one machine: what travels, and ranges of equal work |
//! | [`interned`], [`visitors`] | texts by number, and exact sets of pairs of them |
//! | [`publish`] | one transaction for all tables and dates |
//! | [`history`] | what was published, and what has arrived since |

pub mod arrow;
pub mod balance;
pub mod covered;
pub mod dates;
pub mod element;
pub mod exact;
pub mod fold;
pub mod history;
pub mod incremental;
pub mod instant;
pub mod interned;
pub mod moment;
pub mod natural;
pub mod partial;
pub mod publish;
pub mod ranges;
pub mod reading;
pub mod remote;
pub mod reports;
pub mod rows;
pub mod scan;
pub mod settings;
pub mod spill;
pub mod states;
pub mod visitors;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Bson, Document};
use futures_util::TryStreamExt;
use mongodb::Collection;
pub use settings::{AggregateResult, AggregateSettings};

use self::covered::Covered;
use self::incremental::Store;
use self::incremental::store::{Kept, Owner};
use self::moment::Moment;
use self::partial::Partial;
use self::publish::Publisher;
use self::publish::report::{Day, Report, Table};
use self::reading::{Dated, Reading};
use self::reports::definition::name;
use self::reports::plan::{Form, Plan};
use self::settings::{AggregateBooks, Dates, Sample};
use crate::control::{Control, Level};
use crate::error::{Error, Result};
use crate::mongo::client::{self, told};

/// Makes the reports of the dates asked for and publishes them in one transaction.
///
/// # Errors
/// By domain: see [`crate::error::Domain`].
pub fn aggregate(settings: &AggregateSettings, control: &Arc<Control>) -> Result<AggregateResult> {
    on_runtime(control, "aggregate", run(settings, control))
}

/// Drives `work` until it ends, or a second beyond a request to stop.
pub(crate) fn on_runtime<T>(control: &Arc<Control>, verb: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("aggregate")
        .enable_all()
        .build()
        .map_err(|error| Error::external(format!("{verb}: start a runtime")).because(error))?;
    let result = runtime.block_on(async {
        let stopped = async {
            while !control.stopping() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            tokio::time::sleep(Duration::from_millis(1_000)).await;
        };
        tokio::select! {
            result = work => result,
            // A transaction that is not committed is rolled back by the server.
            () = stopped => Err(Error::cancelled(format!("{verb}: stopped on request"))),
        }
    });
    runtime.shutdown_background();
    result
}

async fn run(settings: &AggregateSettings, control: &Arc<Control>) -> Result<AggregateResult> {
    let began = Instant::now();
    let named = dates::named(&settings.dates)?;
    settings.check()?;
    let plan = Arc::new(Plan::new(settings.reports.clone(), &settings.time_field, settings.functions.clone()));
    let tables: Vec<Table> = plan.reports.iter().map(reports::definition::Definition::target).collect();
    let mut books = begun(settings, &plan);
    let owner = Owner {
        job: books.job.clone(),
        source: books.source.clone(),
        time_field: books.time_field.clone(),
        definition: plan.name.clone(),
    };
    let open = async {
        let Some(dsn) = &settings.postgres_dsn else { return Ok(None) };
        let mut publisher = Publisher::open(dsn, settings.schema.as_deref(), &tables, &settings.checks).await?;
        let kept = publisher.kept(&owner).await?;
        Ok(Some((publisher, kept)))
    };
    let source = async {
        let database = client::connect(&settings.mongo_uri).await?.database(&settings.database);
        let events: Collection<Document> = database.collection(&settings.collection);
        require_index(&events, settings).await?;
        Ok((database, events))
    };
    // Each takes some milliseconds of waiting.
    let (opened, (database, events)) = tokio::try_join!(open, source)?;
    let (mut publisher, kept) = opened.unzip();
    #[cfg(feature = "sabotage")]
    crate::sabotage::step("aggregate.after_kept");
    let none = || Err("nothing is kept without postgres_dsn".to_owned());
    let (place, kept) = match kept.unwrap_or_else(none) {
        Ok(kept) => (publisher.as_ref().map(Publisher::server).ok_or_else(String::new), kept),
        Err(why) => (Err(why), Kept::default()),
    };
    let store = Store { place, owner: owner.clone(), kept };
    let reading = reading::read(&database, settings, &plan, named.as_ref(), &store, control).await?;
    drop(store);
    let Reading { moment, covered, dated: Dated { wanted, partial, planned, spilled }, mut increment } = reading;
    let planned = (planned - began).as_secs_f64();
    books.read_at = moment.read_at.clone();
    books.snapshot = moment.is_snapshot();
    books.positions = covered.named.clone();
    books.spilled = spilled;
    books.tell(&mut increment);
    let scanned = began.elapsed().as_secs_f64();
    keep_books(&mut books, &plan, &partial, &covered, &moment)?;
    if wanted.is_some() && settings.dates != Dates::Changed {
        let whole = scan::documents(&events, &covered).await?;
        let placed = if increment.incremental { partial.counted } else { partial.scanned };
        let unplaced = whole.saturating_sub(placed);
        books.unplaced = Some(unplaced);
        if wanted.as_ref().is_some_and(BTreeSet::is_empty) && unplaced > 0 {
            books.warnings.push(format!(
                "no date: none of {unplaced} documents up to the positions has a readable time in {} that is not in the \
                 future",
                books.time_field
            ));
        }
    }
    let mut dates: BTreeSet<i32> = wanted.unwrap_or_default();
    dates.extend(partial.dates.keys());
    let reports = finished(&partial, &plan)?;
    control.check("aggregate: publish")?;
    let merged = began.elapsed().as_secs_f64();
    books.dates = dates.iter().map(|date| instant::text(*date)).collect();
    books.seconds = merged;
    match &mut publisher {
        Some(publisher) if !dates.is_empty() => {
            publisher.publish(&mut books, &dates, &reports, (&owner, increment.keep.as_mut())).await?;
        }
        _ => books.rows = publish::unpublished(&reports),
    }
    if let (Some(publisher), Some(keep), true) = (&mut publisher, &mut increment.keep, dates.is_empty()) {
        publisher.keep(&mut books, &owner, keep).await?;
        books.nothing_new = settings.dates == Dates::Changed;
        control.log(Level::Info, "aggregate: no date has new events: nothing is published");
    }
    books.seconds = began.elapsed().as_secs_f64();
    let ends = [
        ("plan", 0.0, planned),
        ("scan", planned, scanned),
        ("merge", scanned, merged),
        ("publish", merged, books.seconds),
    ];
    books.phases = ends.iter().map(|(name, from, to)| ((*name).to_owned(), to - from)).collect();
    control.add_written(partial.counted);
    let tables = reports.into_iter().map(|report| (report.table.name, report.frame)).collect();
    Ok(AggregateResult { books, tables })
}

/// The books of a run that has read nothing yet.
fn begun(settings: &AggregateSettings, plan: &Plan) -> AggregateBooks {
    AggregateBooks {
        run_id: uuid::Uuid::new_v4().to_string(),
        job: settings.job.clone().unwrap_or_else(|| format!("{}.{}", settings.database, settings.collection)),
        engine: settings.engine.as_ref().map_or("native", |engine| engine.name()).into(),
        source: format!("{}.{}", settings.database, settings.collection),
        time_field: settings.time_field.clone(),
        definition: plan.name.clone(),
        definitions: plan
            .reports
            .iter()
            .map(|report| (report.table.clone(), name(std::slice::from_ref(report))))
            .collect(),
        ..AggregateBooks::default()
    }
}

/// The rows of every report.
///
/// # Errors
/// As [`rows::finish`].
pub(crate) fn finished(partial: &Partial, plan: &Plan) -> Result<Vec<Report>> {
    let one = |(report, definition): (usize, &reports::definition::Definition)| {
        let (frame, changed) = rows::finish(partial, report, definition)?;
        let days = partial.dates.iter().map(|(date, groups)| {
            let null_keys = groups.reports[report].excluded.get("null_key").copied().unwrap_or(0);
            (*date, Day { counted: groups.counted, null_keys })
        });
        Ok(Report { table: definition.target(), frame, days: days.collect(), changed })
    };
    plan.reports.iter().enumerate().map(one).collect()
}

fn now() -> String {
    // Microseconds, so that PostgreSQL keeps it whole.
    let now = jiff::Timestamp::now();
    format!("{now:.6}")
}

async fn require_index(events: &Collection<Document>, settings: &AggregateSettings) -> Result<()> {
    if settings.allow_scan {
        return Ok(());
    }
    let field = settings.time_field.as_str();
    let what = || format!("aggregate: indexes of {}.{}", settings.database, settings.collection);
    let indexes: Vec<mongodb::IndexModel> = match events.list_indexes().await {
        Ok(cursor) => cursor.try_collect().await.map_err(|error| told(what(), error))?,
        // CommandNotSupportedOnView
        Err(error) if client::code(&error) == Some(166) => {
            return Err(Error::config(format!("{}: it is a view", what())).hint("name the collection under it"));
        }
        // NamespaceNotFound
        Err(error) if client::code(&error) == Some(26) => {
            return Err(Error::config(format!(
                "aggregate: collection {}.{} does not exist",
                settings.database, settings.collection
            ))
            .hint("check the names; the sink makes it"));
        }
        Err(error) => return Err(told(what(), error)),
    };
    // A hashed or a partial one does not hold the times in their order, all of them.
    let ordered = |index: &mongodb::IndexModel| {
        let partial = index.options.as_ref().is_some_and(|options| options.partial_filter_expression.is_some());
        !partial
            && index.keys.iter().next().is_some_and(|(name, order)| name == field && !matches!(order, Bson::String(_)))
    };
    if indexes.iter().any(ordered) {
        return Ok(());
    }
    Err(Error::config(format!("{}: none begins with {field}", what()))
        .hint(format!("db.{}.createIndex({{{field:?}: 1}}), or allow_scan=True", settings.collection)))
}

/// I1: scanned = counted + excluded.
fn keep_books(
    books: &mut AggregateBooks,
    plan: &Plan,
    partial: &Partial,
    covered: &Covered,
    moment: &Moment,
) -> Result<()> {
    books.scanned = partial.scanned;
    books.counted = partial.counted;
    books.excluded = partial.excluded.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
    let excluded: u64 = partial.excluded.values().sum();
    if partial.scanned != partial.counted + excluded {
        return Err(Error::bug(format!(
            "aggregate: the books do not balance: scanned {} != counted {} + excluded {excluded}",
            partial.scanned, partial.counted
        )));
    }
    for (day, date) in &partial.dates {
        let told = books.by_date.entry(instant::text(*day)).or_default();
        told.counted = date.counted;
        for (report, groups) in plan.reports.iter().zip(&date.reports) {
            let excluded: u64 = groups.excluded.values().sum();
            if excluded > 0 {
                told.excluded.insert(report.table.clone(), excluded);
            }
            let reasons = books.excluded_keys.entry(report.table.clone()).or_default();
            for (reason, count) in &groups.excluded {
                *reasons.entry((*reason).to_owned()).or_default() += count;
            }
        }
    }
    for (table, reasons) in &books.excluded_keys {
        if partial.counted > 0 && reasons.values().sum::<u64>() == partial.counted {
            let told: Vec<String> = reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            books.warnings.push(format!("{table} has no row: every event is excluded ({})", told.join(", ")));
        }
    }
    for (field, reason, document) in &partial.samples {
        books.samples.push(Sample { field: field.clone(), reason, document: document.clone() });
    }
    books.repeatable = partial.foreign == 0 && covered.replaced_by.is_none();
    if !books.repeatable && !moment.is_snapshot() {
        let which = match &covered.replaced_by {
            Some(id) => format!("documents that are replaced (id={id:?})"),
            None => format!("{} documents of other writers", partial.foreign),
        };
        let why = moment.without;
        books.warnings.push(format!("{which} were read without a snapshot ({why}): the run is not repeatable"));
    }
    for (input, unfit) in plan.inputs.iter().zip(partial.unfit(plan)).filter(|(_, unfit)| *unfit > 0) {
        let (label, of) = (&input.label, if matches!(input.form, Form::Interned(_)) { "visitors" } else { "values" });
        books.warnings.push(format!("{unfit} events with an unusable {label} count as views, not as {of}"));
    }
    Ok(())
}
