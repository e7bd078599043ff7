//! Which dates a run reports: from the words of the user, and for `latest` from the index.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use bson::{Bson, Document, doc};
use mongodb::Collection;
use mongodb::options::FindOptions;

use super::covered::Covered;
use super::instant::{self, Instant};
use super::moment::Moment;
use super::settings::{AggregateSettings, Dates};
use crate::error::{Error, Result};

/// Values stepped over at the top of the index before we ask for help.
const GARBAGE: u32 = 1_000;
/// The longest range: ten thousand dates work, a typo in a year does not run for ever.
const LONGEST: i32 = 40_000;

/// The dates asked for; `None` for all of them.
///
/// # Errors
/// `Config` for what is no date.
pub fn named(dates: &Dates) -> Result<Option<BTreeSet<i32>>> {
    let one = |text: &str| {
        instant::date(text.as_bytes()).ok_or_else(|| {
            Error::config(format!("dates: {text:?} is no date"))
                .hint("\"latest\", \"all\", \"changed\", YYYY-MM-DD, a list of dates, or \"first..last\"")
        })
    };
    Ok(match dates {
        Dates::All | Dates::Changed | Dates::Latest => None,
        Dates::List(list) if list.is_empty() => {
            return Err(Error::config("dates: the list is empty").hint("give at least one date"));
        }
        Dates::List(list) => Some(list.iter().map(|text| one(text)).collect::<Result<_>>()?),
        Dates::Range(first, last) => {
            let (first, last) = (one(first)?, one(last)?);
            if first > last || last - first > LONGEST {
                return Err(Error::config("dates: the range ends before it begins, or is longer than a century")
                    .hint("give it as \"first..last\", both ends in"));
            }
            Some((first..=last).collect())
        }
    })
}

/// The newest date not beyond now and the skew allowed, of the events that a report would count; `None` for a collection
/// without a readable time. An offset to the west can put a text of this very date on the next: the scan of the date
/// meets it, see [`super::partial::Partial::later`].
///
/// # Errors
/// `Data` when more than a thousand values at the top of the index are unreadable or in the future.
pub async fn latest(
    events: &Collection<Document>,
    settings: &AggregateSettings,
    covered: &Covered,
    moment: &Moment,
) -> Result<Option<i32>> {
    let top = Top { events, field: &settings.time_field, limit: limit(settings), covered, moment };
    let moments = doc! {"$type": "date", "$lte": bson::DateTime::from_millis(top.limit / 1_000)};
    let moment = top.newest(moments).await?.map(|(date, _)| date);
    let Some((date, mut text)) = top.newest(doc! {"$type": "string"}).await? else { return Ok(moment) };
    let mut best = Some(date).max(moment);
    // Text order is not time order: an offset to the east puts the top text on the day before its own. Below it, only texts
    // of another offset can be later.
    let mut offsets = Vec::new();
    while let Some(date) = best {
        offsets.push(offset_of(&text));
        let below = doc! {"$type": "string", "$gte": instant::bound(date + 1), "$not": {"$regex": offsets.join("|")}};
        let Some((date, next)) = top.newest(below).await? else { break };
        best = best.max(Some(date));
        text = next;
    }
    Ok(best)
}

/// The last microsecond since 1970 that `latest` may report.
#[must_use]
pub fn limit(settings: &AggregateSettings) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX).saturating_add(
        i64::try_from(settings.max_future_skew_seconds).unwrap_or(i64::MAX / 1_000_000).saturating_mul(1_000_000),
    )
}

/// What texts of the same offset have in common.
fn offset_of(text: &str) -> String {
    let clock = text.get(10..).unwrap_or_default();
    match clock.find(['+', '-']) {
        None => "^.{10}[^+-]*$".to_owned(),
        Some(at) => format!("\\{}$", &clock[at..]),
    }
}

/// The top of the time index.
struct Top<'a> {
    events: &'a Collection<Document>,
    field: &'a str,
    /// Microseconds since 1970.
    limit: i64,
    covered: &'a Covered,
    moment: &'a Moment,
}

impl Top<'_> {
    /// The first readable date from the top, and its text where it is one.
    async fn newest(&self, filter: Document) -> Result<Option<(i32, String)>> {
        let what = || format!("aggregate: the newest {} of {}", self.field, self.events.name());
        let (field, mut garbage) = (self.field, 0);
        let told = |error| self.moment.meant(what(), error);
        // The server's own second batch is 16 MB, of which a date behind some garbage needs one document.
        let downwards =
            FindOptions::builder().projection(doc! {field: 1}).sort(doc! {field: -1}).batch_size(101).build();
        let mut found = self.moment.find(self.events, doc! {field: filter}, downwards).await.map_err(told)?;
        while let Some(document) = found.next().await.map_err(told)? {
            let id = document.get_object_id("_id").ok().map(|id| id.bytes());
            // On its way only: no report counts it yet.
            if id.is_some_and(|id| self.covered.holds(&id) == Some(false)) {
                continue;
            }
            match document.get(field).and_then(|time| read(time, self.limit)) {
                Some(date) => return Ok(Some((date, document.get_str(field).unwrap_or_default().to_owned()))),
                None => garbage += 1,
            }
            if garbage > GARBAGE {
                return Err(Error::data(format!(
                    "aggregate: over {GARBAGE} newest values of {field} are unreadable or in the future"
                ))
                .hint("mend them, or name the dates"));
            }
        }
        Ok(None)
    }
}

fn read(time: &Bson, limit: i64) -> Option<i32> {
    let instant = match time {
        Bson::String(text) => Instant::read(text.as_bytes()),
        Bson::DateTime(time) => time.timestamp_millis().checked_mul(1_000).and_then(Instant::from_micros),
        _ => None,
    };
    instant.filter(|instant| instant.micros <= limit).map(|instant| instant.date)
}
