//! Which documents are asked for, as filters of ranges.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bson::oid::ObjectId;
use bson::{Document, doc};
use mongodb::options::FindOptions;
use mongodb::{Collection, Database};

use super::balance::Cuts;
use super::covered::Covered;
use super::instant;
use super::moment::Moment;
use super::scan::DELETED;
use crate::error::Result;
use crate::mongo::client::told;
use crate::mongo::sources::event_id;

/// Hours of a day's ranges: about equal work for cursors that take the next one when they are done.
const HOURS: [&str; 12] = ["T02", "T04", "T06", "T08", "T10", "T12", "T14", "T16", "T18", "T20", "T22", "T23"];
/// More dates than this are read by the run of days.
const MANY_DAYS: usize = 62;
/// Offsets of one range of a whole-collection read, at least, and the most ranges of one partition.
const OFFSETS: i64 = 200_000;
const MOST_RANGES: i64 = 256;

/// Filters for the documents of some dates, which together meet each of them once.
pub struct DateRanges<'a> {
    pub field: &'a str,
    pub dates: &'a BTreeSet<i32>,
    /// Some time is a list, of which an index holds each item: it is no time, and must not be met once for each range.
    pub lists: bool,
}

impl DateRanges<'_> {
    /// All of them, through the time index: texts by bare date text, BSON dates apart, and [`Self::beside`]; cut at hours, or
    /// at `cuts`.
    #[must_use]
    pub fn all(&self, cuts: Option<&Cuts>) -> VecDeque<Document> {
        // The longest first: no cursor is left alone with one at the end.
        let mut ranges = self.beside();
        // Few dates are cut by hours, many are taken together: a question costs more than a day without events.
        let longest = i32::try_from(self.dates.len() / MANY_DAYS).unwrap_or(i32::MAX).saturating_add(1);
        for (first, last) in runs(self.dates, longest) {
            let (day, after) = (instant::text(first), instant::bound(last + 1));
            let mut low = day.clone();
            let inner: Vec<String> = match cuts {
                Some(cuts) => cuts.between(&day, &after),
                None if longest == 1 => HOURS.iter().map(|hour| format!("{day}{hour}")).collect(),
                None => Vec::new(),
            };
            for high in inner.into_iter().chain([after]) {
                ranges.push_back(self.once(vec![doc! {self.field: {"$gte": &low, "$lt": &high}}]));
                low = high;
            }
            let (mut low, after) = (midnight(first), midnight(last + 1));
            for high in cuts.map_or_else(Vec::new, |cuts| cuts.moments(low, after)).into_iter().chain([after]) {
                ranges.push_back(self.once(vec![doc! {self.field: {"$gte": low, "$lt": high}}]));
                low = high;
            }
        }
        ranges
    }

    /// The texts of the dates, uncut.
    #[must_use]
    pub fn texts(&self) -> Vec<Document> {
        let runs = runs(self.dates, i32::MAX).into_iter();
        let texts = runs.map(|(first, last)| doc! {"$gte": instant::text(first), "$lt": instant::bound(last + 1)});
        texts.map(|range| self.once(vec![doc! {self.field: range}])).collect()
    }

    /// The BSON dates of the dates, uncut.
    #[must_use]
    pub fn moments(&self) -> Vec<Document> {
        let runs = runs(self.dates, i32::MAX).into_iter();
        let moments = runs.map(|(first, last)| doc! {"$gte": midnight(first), "$lt": midnight(last + 1)});
        moments.map(|range| self.once(vec![doc! {self.field: range}])).collect()
    }

    /// Of the days to each side, the texts whose offset may bring them to the dates.
    #[must_use]
    pub fn beside(&self) -> VecDeque<Document> {
        let sides = sides(self.dates);
        sides.iter().flat_map(|side| side.texts(self.field)).map(|all| self.once(all)).collect()
    }

    fn once(&self, mut all: Vec<Document>) -> Document {
        if self.lists {
            all.push(doc! {self.field: {"$not": {"$type": "array"}}});
        }
        if all.len() == 1 {
            all.remove(0)
        } else {
            doc! {"$and": all}
        }
    }
}

const fn midnight(date: i32) -> bson::DateTime {
    bson::DateTime::from_millis(date as i64 * 86_400_000)
}

/// Hours of a day beside the dates, from which an offset may bring texts to them.
struct Side {
    day: String,
    low: &'static str,
    high: &'static str,
}

fn sides(dates: &BTreeSet<i32>) -> Vec<Side> {
    // From -12:00 to +14:00: an afternoon before, a morning and two hours after.
    let mut hours: BTreeMap<i32, (&str, &str)> = BTreeMap::new();
    for (date, low, high) in dates.iter().flat_map(|date| [(date - 1, "12", "24"), (date + 1, "00", "14")]) {
        // A day between two dates is the side of both, and must be read once.
        let side = hours.entry(date).or_insert((low, high));
        *side = (side.0.min(low), side.1.max(high));
    }
    let beside = hours.into_iter().filter(|(date, _)| !dates.contains(date));
    let sides = beside.map(|(date, (low, high))| Side { day: instant::text(date), low, high });
    sides.filter(|side| side.day.len() == 10).collect()
}

impl Side {
    /// What texts with an offset fit, all of it, by separator.
    fn texts(&self, field: &str) -> [Vec<Document>; 3] {
        let Self { day, low, high } = self;
        [" ", "T", "t"].map(|separator| {
            // Positive and anchored: MongoDB judges it by the index alone, and soon. With its separator, since a collation may
            // take two of them for one and read the same range twice.
            let offset = format!("^.{{10}}{separator}.{{8}}([.][0-9]+)?[+-]");
            let range = doc! {"$gte": format!("{day}{separator}{low}"), "$lt": format!("{day}{separator}{high}")};
            vec![doc! {field: range}, doc! {field: {"$regex": offset}}]
        })
    }
}

/// What an index on a field of times is good for.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// There is one.
    pub indexed: bool,
    /// Some document has a list there, as far as the index knows.
    pub lists: bool,
}

/// Asks how times would be found.
///
/// # Errors
/// As [`told`].
pub async fn access(database: &Database, collection: &str, field: &str) -> Result<Access> {
    let find = doc! {"find": collection, "filter": {field: {"$gte": ""}}, "limit": 1};
    let plan = database.run_command(doc! {"explain": find, "verbosity": "queryPlanner"}).await;
    let plan = plan.map_err(|error| told(format!("aggregate: plan of {collection}"), error))?.to_string();
    // Without an index there is no telling, and no harm: a whole scan meets each document once a range all the same.
    Ok(Access { indexed: plan.contains("\"IXSCAN\""), lists: !plan.contains("\"isMultiKey\": false") })
}

/// Dates that follow each other, in runs of up to `longest`: first and last.
fn runs(dates: &BTreeSet<i32>, longest: i32) -> Vec<(i32, i32)> {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for date in dates {
        match runs.last_mut() {
            Some((first, last)) if *last + 1 == *date && *date - *first < longest => *last = *date,
            _ => runs.push((*date, *date)),
        }
    }
    runs
}

/// The ranges of the whole collection, through the `_id` index: each known source by partition and offset, and all that
/// lies between them. Their number is bounded, however high the offsets are.
///
/// # Errors
/// `Bug` for a position that fits into no `_id`; as [`told`].
pub async fn all_ranges(
    events: &Collection<Document>,
    covered: &Covered,
    moment: &Moment,
) -> Result<VecDeque<Document>> {
    let mut ranges = VecDeque::new();
    let mut others = vec![no_object_id()];
    let between = |low: ObjectId, high: ObjectId| doc! {"_id": {"$gte": low, "$lt": high}};
    let id = |tag, partition: u16, offset| event_id(tag, i32::from(partition), offset).map(ObjectId::from_bytes);
    // Where the unread rest begins; `None` once the last `_id` of all was passed.
    let mut low = Some(ObjectId::from_bytes([0; 12]));
    for (tag, partitions) in covered.sources.iter().collect::<BTreeMap<_, _>>() {
        for (partition, next) in partitions.iter().collect::<BTreeMap<_, _>>() {
            let (begin, end) = (id(*tag, *partition, 0)?, id(*tag, *partition, (1 << 48) - 1)?);
            if let Some(low) = low.filter(|low| *low < begin) {
                others.push(between(low, begin));
            }
            let mut from = first_offset(events, begin, end, moment).await?.min(*next);
            ranges.push_back(between(begin, id(*tag, *partition, from)?));
            let step = OFFSETS.max((*next - from) / MOST_RANGES);
            while from + step < *next {
                ranges.push_back(between(id(*tag, *partition, from)?, id(*tag, *partition, from + step)?));
                from += step;
            }
            ranges.push_back(doc! {"_id": {"$gte": id(*tag, *partition, from)?, "$lte": end}});
            low = after(end);
        }
    }
    others.extend(low.map(|low| doc! {"_id": {"$gte": low, "$lte": ObjectId::from_bytes([0xff; 12])}}));
    ranges.extend(others);
    if covered.replaced_by.is_some() {
        for range in &mut ranges {
            range.insert(DELETED, doc! {"$not": {"$type": "date"}});
        }
    }
    Ok(ranges)
}

/// Every other type by its number: a negation would walk the whole index.
pub(super) fn no_object_id() -> Document {
    doc! {"_id": {"$type": [-1, 1, 2, 3, 5, 6, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 127]}}
}

/// The offset of the first document from `begin` to `end`; 0 when there is none.
async fn first_offset(events: &Collection<Document>, begin: ObjectId, end: ObjectId, moment: &Moment) -> Result<i64> {
    let first = FindOptions::builder().projection(doc! {"_id": 1}).sort(doc! {"_id": 1}).limit(1).build();
    let found = async { moment.find(events, doc! {"_id": {"$gte": begin, "$lte": end}}, first).await?.next().await };
    let found =
        found.await.map_err(|error| moment.meant(format!("aggregate: the first _id of {}", events.name()), error))?;
    let bytes = found.and_then(|document| document.get_object_id("_id").ok()).map(|id| id.bytes());
    Ok(bytes.map_or(0, |id| i64::from_be_bytes([0, 0, id[6], id[7], id[8], id[9], id[10], id[11]])))
}

/// The next `_id` after `id`.
fn after(id: ObjectId) -> Option<ObjectId> {
    let mut bytes = id.bytes();
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(ObjectId::from_bytes(bytes));
        }
    }
    None
}
