//! One reading of the source: positions, dates and documents, all as they were at one [`Moment`]. A reading that breaks
//! is begun again as a whole, at a moment of its own; what was read of a broken one counts for nothing (I1, I2).

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Document, doc};
use futures_util::future::try_join_all;
use mongodb::options::{FindOptions, Hint};
use mongodb::{Collection, Database};
use tokio::sync::OnceCell;

use super::balance::Source;
use super::covered::{self, Covered};
use super::dates;
use super::incremental::{self, Increment, Store};
use super::moment::Moment;
use super::natural;
use super::partial::Partial;
use super::ranges::{self, DateRanges};
use super::remote;
use super::reports::plan::Plan;
use super::scan::{self, Question, Scope};
use super::settings::{AggregateSettings, Dates};
use super::spill::Spill;
use crate::control::{Control, Level};
use crate::error::{Error, Result};

/// How often a reading is begun before its error is told: a new primary is elected meanwhile.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// What was read.
pub struct Reading {
    pub moment: Moment,
    pub covered: Arc<Covered>,
    pub dated: Dated,
    /// What kept Partials had to do with it.
    pub increment: Increment,
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
    store: &Store<'_>,
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
            let covered = Arc::new(covered::read(database, events.name(), &moment).await?);
            let question = OnceCell::new();
            let at = At { database, events: &events, settings, plan, moment, covered, control, question };
            let (dated, increment) = incremental::read(&at, named, store).await?;
            let At { moment, covered, .. } = at;
            Ok::<_, Error>(Reading { moment, covered, dated, increment })
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
    let covered = covered::read(database, events.name(), &moment).await?;
    Ok(!has_other_writers(events, &covered, &moment).await?)
}

/// Whether some document is of no known source.
pub(crate) async fn has_other_writers(
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
    let mut ranges = vec![ranges::no_object_id()];
    let mut low = doc! {"$gte": bound(0, 0)};
    for tag in tags {
        low.insert("$lt", bound(tag, 0));
        ranges.push(doc! {"_id": low});
        low = doc! {"$gt": bound(tag, 0xff)};
    }
    ranges.push(doc! {"_id": low});
    let look = |range: Document| async {
        let options =
            FindOptions::builder().projection(doc! {"_id": 1}).limit(1).hint(Hint::Keys(doc! {"_id": 1})).build();
        let found = async { moment.find(events, range, options).await?.next().await }.await;
        found.map_err(|error| moment.meant(format!("aggregate: look at _id of {}", events.name()), error))
    };
    let found = try_join_all(ranges.into_iter().map(look)).await?;
    Ok(found.iter().any(Option::is_some))
}

/// What one attempt reads, at its moment.
pub struct At<'a> {
    pub database: &'a Database,
    pub events: &'a Collection<Document>,
    pub settings: &'a AggregateSettings,
    pub plan: &'a Arc<Plan>,
    pub moment: Moment,
    pub covered: Arc<Covered>,
    pub control: &'a Arc<Control>,
    pub question: OnceCell<Question>,
}

/// What dates hold.
pub struct Dated {
    /// The dates asked for; `None` for all that there are.
    pub wanted: Option<BTreeSet<i32>>,
    pub partial: Partial,
    /// When the first document was asked for.
    pub planned: Instant,
    /// Bytes that were put aside.
    pub spilled: u64,
}

impl At<'_> {
    /// The dates asked for; `None` for all that there are.
    ///
    /// # Errors
    /// As [`dates::latest`].
    pub async fn wanted(&self, named: Option<&BTreeSet<i32>>) -> Result<Option<BTreeSet<i32>>> {
        Ok(match (&self.settings.dates, named) {
            (Dates::All | Dates::Changed, _) => None,
            (_, Some(dates)) => Some(dates.clone()),
            (_, None) => {
                let latest = dates::latest(self.events, self.settings, &self.covered, &self.moment).await?;
                Some(latest.map_or_else(BTreeSet::new, |date| self.until(date)))
            }
        })
    }

    /// A latest date with those before it that are wanted too.
    #[must_use]
    pub fn until(&self, date: i32) -> BTreeSet<i32> {
        let back = i32::try_from(self.settings.lookback_days).unwrap_or(i32::MAX);
        (date.saturating_sub(back)..=date).collect()
    }

    /// What the dates would be, now that a date was met which no index shows.
    #[must_use]
    pub fn later(&self, wanted: Option<&BTreeSet<i32>>, partial: &Partial) -> Option<BTreeSet<i32>> {
        // A text of the date that seemed the latest lies on the next one, by an offset to the west.
        let newest = wanted?.last()?;
        let later = partial.later.filter(|later| self.settings.dates == Dates::Latest && later > newest)?;
        Some(self.until(later))
    }

    /// Reads whole dates, and a later one than seemed the latest where that is met.
    ///
    /// # Errors
    /// As [`Self::dated`].
    pub async fn dated_or_later(&self, mut wanted: Option<BTreeSet<i32>>) -> Result<Dated> {
        let planned = Instant::now();
        loop {
            let dated = self.dated(wanted.clone()).await?;
            match self.later(wanted.as_ref(), &dated.partial) {
                None => return Ok(Dated { planned, ..dated }),
                later => wanted = later,
            }
        }
    }

    /// Reads whole dates, here or elsewhere.
    ///
    /// # Errors
    /// As [`scan::run`] and [`remote::run`].
    pub async fn dated(&self, wanted: Option<BTreeSet<i32>>) -> Result<Dated> {
        let planned = Instant::now();
        let field = &self.settings.time_field;
        let scope = Scope { dates: wanted.clone().map(Arc::new), ..self.scope() };
        if let Some(engine) = &self.settings.engine {
            let (question, place) = (self.question().await?, (self.database, self.events));
            let partial = remote::run(engine, place, self.settings, question, &scope, self.control).await?;
            return Ok(Dated { wanted, partial, planned, spilled: 0 });
        }
        let source = Source {
            database: self.database,
            events: self.events,
            time_field: field,
            covered: &self.covered,
            moment: &self.moment,
            wanted: wanted.as_ref(),
        };
        let (cursors, cores) = self.cursors();
        // After the moment was taken: an index knows of every list that it shows.
        let access = ranges::access(self.database, self.events.name(), field);
        let (access, pays, question) = tokio::try_join!(access, natural::pays(&source, cores), self.question())?;
        if let Some(asked) = natural::asked(&source, access, pays) {
            let spill = Arc::new(Spill::new(self.settings.memory_limit));
            let readers = (cursors, &spill);
            if let Some(partial) = natural::run(self.events, question, asked, &scope, readers, self.control).await? {
                return Ok(Dated { wanted, partial, planned, spilled: spill.used() });
            }
        }
        let ranges = match &wanted {
            None => ranges::all_ranges(self.events, &self.covered, &self.moment).await?,
            Some(dates) => DateRanges { field, dates, lists: access.lists }.all(None),
        };
        let (partial, spilled) = self.scan(ranges, &scope).await?;
        Ok(Dated { wanted, partial, planned, spilled })
    }

    /// How many cursors read, and for how many cores.
    fn cursors(&self) -> (usize, usize) {
        let cores = std::thread::available_parallelism().map_or(2, NonZero::get);
        match self.settings.cursors {
            // One more than there are cores: while one folds, the server has work.
            0 => ((cores + 1).min(16), cores),
            asked => (asked.min(64), asked.min(64)),
        }
    }

    /// All dates, no kept one.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope::new(Arc::clone(&self.covered), dates::limit(self.settings))
    }

    /// How documents are asked for, which is asked once.
    ///
    /// # Errors
    /// As [`scan::fields`].
    pub async fn question(&self) -> Result<&Question> {
        self.question
            .get_or_try_init(|| async {
                let fields = scan::fields(self.database, self.events.name(), self.plan).await?;
                Ok(Question { plan: Arc::clone(self.plan), fields, moment: self.moment.clone() })
            })
            .await
    }

    /// Reads ranges; also returns the bytes that were put aside.
    ///
    /// # Errors
    /// As [`scan::run`].
    pub async fn scan(&self, ranges: VecDeque<Document>, scope: &Scope) -> Result<(Partial, u64)> {
        if ranges.is_empty() {
            return Ok((Partial::new(), 0));
        }
        let question = self.question().await?;
        let (cursors, _) = self.cursors();
        let spill = Arc::new(Spill::new(self.settings.memory_limit));
        let partial = scan::run(self.events, question, ranges, scope, (cursors, &spill), self.control).await?;
        Ok((partial, spill.used()))
    }
}
