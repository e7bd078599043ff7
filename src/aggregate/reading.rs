//! One reading of the source: positions, dates and documents, all as they were at one [`Moment`]. A reading that breaks
//! is begun again as a whole, at a moment of its own; what was read of a broken one counts for nothing (I1, I2).

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Document, doc};
use mongodb::options::{FindOptions, Hint};
use mongodb::{Collection, Database};

use super::dates;
use super::moment::Moment;
use super::partial::Partial;
use super::remote;
use super::reports::plan::Plan;
use super::scan::{self, Covered, Question, Scope};
use super::settings::{AggregateSettings, Dates};
use super::spill::Spill;
use crate::control::{Control, Level};
use crate::error::Result;

/// How often a reading is begun before its error is told: a new primary is elected meanwhile.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// What was read.
pub struct Reading {
    pub moment: Moment,
    pub covered: Arc<Covered>,
    /// The dates asked for; `None` for all that there are.
    pub wanted: Option<BTreeSet<i32>>,
    pub partial: Partial,
    /// When the first document was asked for.
    pub planned: Instant,
    /// Bytes that were put aside.
    pub spilled: u64,
}

/// Reads what the settings ask for; `named` are the dates that they name.
///
/// # Errors
/// By domain: see [`crate::error::Domain`]. `External` when the source could not be read at one moment.
pub async fn read(
    database: &Database,
    settings: &AggregateSettings,
    plan: &Arc<Plan>,
    named: Option<&BTreeSet<i32>>,
    control: &Arc<Control>,
) -> Result<Reading> {
    let events: Collection<Document> = database.collection(&settings.collection);
    let mut pass = None;
    let mut tries = 0;
    loop {
        tries += 1;
        let before = control.progress().read;
        let mut forgotten = None;
        let attempt = async {
            let moment = match pass {
                Some(why) => Moment::passing(database.client()).await?.let_pass(why),
                None => Moment::now(&events).await?,
            };
            forgotten = Some(moment.clone());
            once(database, &events, settings, plan, named, moment, control).await
        };
        let error = match attempt.await {
            Ok(reading) => return Ok(reading),
            Err(error) => error,
        };
        if !error.retryable() || tries == TRIES {
            return Err(error);
        }
        control.take_back(control.progress().read - before);
        control.log(Level::Warning, format!("{error}: the reading begins again"));
        control.check("aggregate: read again")?;
        tokio::time::sleep(PAUSE).await;
        if forgotten.is_some_and(|moment| moment.is_forgotten()) && positions_suffice(database, &events).await? {
            pass = Some("the reading took longer than the server remembers");
        }
    }
}

/// Whether positions alone determine what is read, so that it may take as long as it takes.
async fn positions_suffice(database: &Database, events: &Collection<Document>) -> Result<bool> {
    let moment = Moment::passing(database.client()).await?;
    let covered = scan::covered(database, events.name(), &moment).await?;
    Ok(!has_other_writers(events, &covered, &moment).await?)
}

/// Whether some document is of no known source.
pub(super) async fn has_other_writers(
    events: &Collection<Document>,
    covered: &Covered,
    moment: &Moment,
) -> Result<bool> {
    let bound = |tag: u32, rest: u8| {
        let mut id = [rest; 12];
        id[..4].copy_from_slice(&tag.to_be_bytes());
        ObjectId::from_bytes(id)
    };
    let mut tags: Vec<u32> = covered.sources.keys().copied().collect();
    tags.sort_unstable();
    let mut ranges = vec![scan::no_object_id()];
    let mut low = doc! {"$gte": bound(0, 0)};
    for tag in tags {
        low.insert("$lt", bound(tag, 0));
        ranges.push(doc! {"_id": low});
        low = doc! {"$gt": bound(tag, 0xff)};
    }
    ranges.push(doc! {"_id": low});
    for range in ranges {
        let options =
            FindOptions::builder().projection(doc! {"_id": 1}).limit(1).hint(Hint::Keys(doc! {"_id": 1})).build();
        let found = async { moment.find(events, range, options).await?.next().await }.await;
        let found =
            found.map_err(|error| moment.meant(format!("aggregate: look at _id of {}", events.name()), error))?;
        if found.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn once(
    database: &Database,
    events: &Collection<Document>,
    settings: &AggregateSettings,
    plan: &Arc<Plan>,
    named: Option<&BTreeSet<i32>>,
    moment: Moment,
    control: &Arc<Control>,
) -> Result<Reading> {
    let covered = Arc::new(scan::covered(database, events.name(), &moment).await?);
    let back = i32::try_from(settings.lookback_days).unwrap_or(i32::MAX);
    let until = |date: i32| (date.saturating_sub(back)..=date).collect::<BTreeSet<i32>>();
    let mut wanted = match (&settings.dates, named) {
        (Dates::All, _) => None,
        (_, Some(dates)) => Some(dates.clone()),
        (_, None) => Some(dates::latest(events, settings, &covered, &moment).await?.map_or_else(BTreeSet::new, until)),
    };
    let planned = Instant::now();
    // After the moment was taken: an index knows of every list that it shows.
    let lists = wanted.is_some() && scan::lists(database, events.name(), &settings.time_field).await?;
    let fields = scan::fields(database, events.name(), plan).await?;
    let question = Question { plan: Arc::clone(plan), fields, moment };
    // One more than there are cores: while one folds, the server has work.
    let cores = std::thread::available_parallelism().map_or(2, NonZero::get);
    let cursors = if settings.cursors == 0 { (cores + 1).min(16) } else { settings.cursors.min(64) };
    let (partial, spilled) = loop {
        let spill = Arc::new(Spill::new(settings.memory_limit));
        let dates = wanted.clone().map(Arc::new);
        let scope = Scope { covered: Arc::clone(&covered), dates, limit: dates::limit(settings) };
        let partial = if let Some(engine) = &settings.engine {
            remote::run(engine, (database, events), settings, &question, &scope, control).await?
        } else {
            let ranges = match &wanted {
                None => scan::all_ranges(events, &covered, &question.moment).await?,
                Some(dates) => scan::date_ranges(&settings.time_field, dates, lists, None),
            };
            scan::run(events, &question, ranges, &scope, (cursors, &spill), control).await?
        };
        let newest = wanted.as_ref().and_then(|dates| dates.last().copied());
        match partial.later {
            // A text of the date that seemed the latest lies on the next one, by an offset to the west.
            Some(later) if settings.dates == Dates::Latest && newest.is_some_and(|newest| later > newest) => {
                wanted = Some(until(later));
            }
            _ => break (partial, spill.used()),
        }
    };
    Ok(Reading { moment: question.moment, covered, wanted, partial, planned, spilled })
}
