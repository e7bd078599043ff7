//! Which dates a run reports: from the words of the user, and for `latest` from the index.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;

use super::instant::{self, Instant};
use super::settings::{AggregateSettings, Dates};
use crate::error::{Error, Result};
use crate::mongo::client::told;

/// Values stepped over at the top of the index before we ask for help.
const GARBAGE: i64 = 1_000;
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
                .hint("\"latest\", \"all\", YYYY-MM-DD, a list of dates, or \"first..last\"")
        })
    };
    Ok(match dates {
        Dates::All | Dates::Latest => None,
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

/// The newest date not beyond now and the skew allowed; `None` for a collection without a readable time.
///
/// # Errors
/// `Data` when more than a thousand values at the top of the index are unreadable or in the future.
pub async fn latest(events: &Collection<Document>, settings: &AggregateSettings) -> Result<Option<i32>> {
    let field = settings.time_field.as_str();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let limit = i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
        + i64::try_from(settings.max_future_skew_seconds).unwrap_or(0) * 1_000_000;
    let dates =
        top(events, field, doc! {field: {"$type": "date", "$lte": bson::DateTime::from_millis(limit / 1_000)}}, 1)
            .await?;
    let mut best = dates.first().and_then(|time| read(time, limit));
    let texts = top(events, field, doc! {field: {"$type": "string"}}, GARBAGE).await?;
    let full = i64::try_from(texts.len()).unwrap_or(0) == GARBAGE;
    let Some(found) = texts.iter().find_map(|time| read(time, limit)) else {
        if full {
            return Err(Error::data(format!(
                "aggregate: the {GARBAGE} newest values of {field} are unreadable or in the future"
            ))
            .hint("mend them, or name the dates"));
        }
        return Ok(best);
    };
    best = best.max(Some(found));
    // Text order is not time order: an offset can put a text near the top on another date than its own digits say.
    let near = doc! {field: {"$type": "string", "$gte": instant::text(found - 1), "$not": {"$regex": "Z$"}}};
    for time in top(events, field, near, GARBAGE).await? {
        best = best.max(read(&time, limit));
    }
    Ok(best)
}

fn read(time: &Bson, limit: i64) -> Option<i32> {
    let instant = match time {
        Bson::String(text) => Instant::read(text.as_bytes()),
        Bson::DateTime(time) => time.timestamp_millis().checked_mul(1_000).and_then(Instant::from_micros),
        _ => None,
    };
    instant.filter(|instant| instant.micros <= limit).map(|instant| instant.date)
}

async fn top(events: &Collection<Document>, field: &str, filter: Document, limit: i64) -> Result<Vec<Bson>> {
    let found: Vec<Document> = async {
        events
            .find(filter)
            .projection(doc! {field: 1, "_id": 0})
            .sort(doc! {field: -1})
            .limit(limit)
            .await?
            .try_collect()
            .await
    }
    .await
    .map_err(|error| told(format!("aggregate: the newest {field} of {}", events.name()), error))?;
    Ok(found.into_iter().filter_map(|mut document| document.remove(field)).collect())
}
