//! Whether the collection still holds what was read of it: by the server's own count, which costs nothing, and by the
//! indexes, which cost a look at each key of a date. No document is read.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;
use mongodb::options::{AggregateOptions, FindOptions, Hint};

use crate::aggregate::instant::{self, Instant};
use crate::aggregate::moment::Moment;
use crate::error::Result;
use crate::mongo::client::told;
use crate::mongo::positions;

/// How often the server is asked again while sinks write.
const TRIES: u32 = 3;

/// The documents below positions, by the server's count less those in `beyond`: at least and at most. Both are one number
/// unless sinks write meanwhile. What lies beyond is counted once, since a sink may be far ahead.
///
/// # Errors
/// As [`told`].
pub async fn below(events: &Collection<Document>, beyond: &[Document]) -> Result<(i64, i64)> {
    let what = |error| told(format!("aggregate: count {}", events.name()), error);
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let mut before = signed(events.estimated_document_count().await.map_err(what)?);
    let mut tries = 1;
    loop {
        let ahead = signed(in_ranges(events, beyond).await.map_err(what)?);
        let after = signed(events.estimated_document_count().await.map_err(what)?);
        if before == after || tries == TRIES {
            return Ok((before.min(after) - ahead, before.max(after) - ahead));
        }
        (before, tries) = (after, tries + 1);
    }
}

async fn in_ranges(
    events: &Collection<Document>,
    ranges: &[Document],
) -> std::result::Result<u64, mongodb::error::Error> {
    if ranges.is_empty() {
        return Ok(0);
    }
    let hint = AggregateOptions::builder().hint(Hint::Keys(doc! {"_id": 1})).build();
    let pipeline = [doc! {"$match": {"$or": ranges}}, doc! {"$count": "n"}];
    let found = events.aggregate(pipeline).with_options(hint).await?.try_next().await?;
    Ok(number(found.as_ref()))
}

fn number(found: Option<&Document>) -> u64 {
    let count = positions::whole(found.and_then(|found| found.get("n")));
    u64::try_from(count.unwrap_or(0)).unwrap_or(0)
}

/// The documents whose time is written with a date, by the index of the time.
///
/// # Errors
/// As [`Moment::meant`].
pub async fn on_date(events: &Collection<Document>, moment: &Moment, field: &str, date: i32) -> Result<i64> {
    let text = instant::text(date);
    let mut after = text.clone();
    // The next character: no text that begins with the date lies above.
    if let Some(last) = after.pop() {
        after.extend(char::from_u32(u32::from(last) + 1));
    }
    let day = |date: i32| bson::DateTime::from_millis(i64::from(date) * 86_400_000);
    let mut count = 0;
    for range in [doc! {"$gte": &text, "$lt": &after}, doc! {"$gte": day(date), "$lt": day(date + 1)}] {
        let pipeline = [doc! {"$match": {field: range}}, doc! {"$count": "n"}];
        let found = moment.pipeline(events, pipeline.to_vec()).await;
        let found = found.map_err(|error| moment.meant(format!("aggregate: count {}", events.name()), error))?;
        count += i64::try_from(number(found.first())).unwrap_or(i64::MAX);
    }
    Ok(count)
}

/// The documents that a filter finds, at a moment.
///
/// # Errors
/// As [`Moment::meant`].
pub async fn in_moment(events: &Collection<Document>, moment: &Moment, filter: Document) -> Result<i64> {
    let found = moment.pipeline(events, vec![doc! {"$match": filter}, doc! {"$count": "n"}]).await;
    let found = found.map_err(|error| moment.meant(format!("audit: count {}", events.name()), error))?;
    Ok(i64::try_from(number(found.first())).unwrap_or(i64::MAX))
}

/// The documents of ranges by the date that their time is written with.
///
/// # Errors
/// As [`Moment::meant`].
pub async fn written(
    events: &Collection<Document>,
    moment: &Moment,
    field: &str,
    ranges: &[Document],
) -> Result<BTreeMap<i32, i64>> {
    let what = |error| moment.meant(format!("aggregate: read {}", events.name()), error);
    let mut dates = BTreeMap::new();
    for range in ranges {
        let options = FindOptions::builder().projection(doc! {field: 1}).hint(Hint::Keys(doc! {"_id": 1})).build();
        let mut found = moment.find(events, range.clone(), options).await.map_err(what)?;
        while let Some(document) = found.next().await.map_err(what)? {
            let date = match document.get(field) {
                Some(Bson::String(text)) => text.as_bytes().get(..10).and_then(instant::date),
                Some(Bson::DateTime(time)) => {
                    let micros = time.timestamp_millis().checked_mul(1_000);
                    micros.and_then(Instant::from_micros).map(|instant| instant.date)
                }
                _ => None,
            };
            if let Some(date) = date {
                *dates.entry(date).or_insert(0) += 1;
            }
        }
    }
    Ok(dates)
}
