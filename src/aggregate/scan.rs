//! The native engine: parallel raw-batch cursors over a work queue of many small ranges.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bson::oid::ObjectId;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::{FindOptions, Hint};
use mongodb::{Collection, Database};
use tokio::task::JoinSet;

use super::balance::Cuts;
use super::covered::Covered;
use super::fold::{Folder, Wanted};
use super::incremental::coverage::Coverage;
use super::instant;
use super::moment::Moment;
use super::partial::Partial;
use super::reports::plan::Plan;
use super::spill::Spill;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::mongo::client::told;
use crate::mongo::sources::event_id;

/// Hours of a day's ranges: about equal work for cursors that take the next one when they are done.
const HOURS: [&str; 12] = ["T02", "T04", "T06", "T08", "T10", "T12", "T14", "T16", "T18", "T20", "T22", "T23"];
/// Documents of up to so many bytes are read whole.
const SMALL: i64 = 512;
/// More dates than this are read by the run of days.
const MANY_DAYS: usize = 62;
/// Offsets of one range of a whole-collection read, at least, and the most ranges of one partition.
const OFFSETS: i64 = 200_000;
const MOST_RANGES: i64 = 256;

/// A date here marks what a tombstone deleted; no event leaves one.
const DELETED: &str = "_millpond.deleted";

/// What a scan counts.
#[derive(Debug, Clone)]
pub struct Scope {
    pub covered: Arc<Covered>,
    /// `None`: every date.
    pub dates: Option<Arc<BTreeSet<i32>>>,
    /// Microseconds since 1970: what may count as the latest date.
    pub limit: i64,
    /// What kept Partials hold, by date.
    pub kept: Arc<BTreeMap<i32, Coverage>>,
    /// Positions beyond which documents are counted.
    pub marks: Arc<Vec<Coverage>>,
}

impl Scope {
    /// All dates, no kept one.
    #[must_use]
    pub fn new(covered: Arc<Covered>, limit: i64) -> Self {
        Self { covered, dates: None, limit, kept: Arc::default(), marks: Arc::default() }
    }
}

impl Wanted for Scope {
    fn date(&self, date: i32) -> bool {
        self.dates.as_ref().is_none_or(|dates| dates.contains(&date))
    }

    fn limit(&self) -> i64 {
        self.limit
    }

    fn covered(&self, id: &[u8; 12]) -> Option<bool> {
        self.covered.holds(id)
    }

    fn kept(&self, date: i32, id: &[u8; 12]) -> bool {
        self.kept.get(&date).is_some_and(|kept| kept.holds(id))
    }

    fn marks(&self) -> &[Coverage] {
        &self.marks
    }
}

/// The ranges of the dates asked for, through the time index: texts by bare date text, BSON dates apart, and of the days
/// to each side the texts whose offset may bring them here; cut at hours, or at `cuts`. `lists`: some time is a list, of
/// which an index holds each item: it is no time, and must not be met once for each range.
#[must_use]
pub fn date_ranges(field: &str, dates: &BTreeSet<i32>, lists: bool, cuts: Option<&Cuts>) -> VecDeque<Document> {
    let mut ranges = VecDeque::new();
    let mut add = |range: Document, offset: Option<String>| {
        let mut all = vec![doc! {field: range}];
        if let Some(offset) = offset {
            all.push(doc! {field: {"$regex": offset}});
        }
        if lists {
            all.push(doc! {field: {"$not": {"$type": "array"}}});
        }
        ranges.push_back(if all.len() == 1 {
            all.remove(0)
        } else {
            doc! {"$and": all}
        });
    };
    // The longest first: no cursor is left alone with one at the end. From -12:00 to +14:00: an afternoon before, a morning
    // and two hours after.
    let mut sides: BTreeMap<i32, (&str, &str)> = BTreeMap::new();
    for (date, low, high) in dates.iter().flat_map(|date| [(date - 1, "12", "24"), (date + 1, "00", "14")]) {
        // A day between two dates is the side of both, and must be read once.
        let side = sides.entry(date).or_insert((low, high));
        *side = (side.0.min(low), side.1.max(high));
    }
    for (date, (low, high)) in sides {
        let text = instant::text(date);
        if dates.contains(&date) || text.len() != 10 {
            continue;
        }
        for separator in [" ", "T", "t"] {
            // Positive and anchored: MongoDB judges it by the index alone, and soon. With its separator, since a collation may
            // take two of them for one and read the same range twice.
            let offset = format!("^.{{10}}{separator}.{{8}}([.][0-9]+)?[+-]");
            let range = doc! {"$gte": format!("{text}{separator}{low}"), "$lt": format!("{text}{separator}{high}")};
            add(range, Some(offset));
        }
    }
    let moment = |date: i32| bson::DateTime::from_millis(i64::from(date) * 86_400_000);
    // Few dates are cut by hours, many are taken together: a question costs more than a day without events.
    let longest = i32::try_from(dates.len() / MANY_DAYS).unwrap_or(i32::MAX).saturating_add(1);
    for (first, last) in runs(dates, longest) {
        let (day, after) = (instant::text(first), instant::bound(last + 1));
        let mut low = day.clone();
        let inner: Vec<String> = match cuts {
            Some(cuts) => cuts.between(&day, &after),
            None if longest == 1 => HOURS.iter().map(|hour| format!("{day}{hour}")).collect(),
            None => Vec::new(),
        };
        for high in inner.into_iter().chain([after]) {
            add(doc! {"$gte": &low, "$lt": &high}, None);
            low = high;
        }
        let (mut low, after) = (moment(first), moment(last + 1));
        for high in cuts.map_or_else(Vec::new, |cuts| cuts.moments(low, after)).into_iter().chain([after]) {
            add(doc! {"$gte": low, "$lt": high}, None);
            low = high;
        }
    }
    ranges
}

/// Whether some document has a list in `field`, as far as the index knows.
///
/// # Errors
/// As [`told`].
pub async fn lists(database: &Database, collection: &str, field: &str) -> Result<bool> {
    let find = doc! {"find": collection, "filter": {field: {"$gte": ""}}, "limit": 1};
    let plan = database.run_command(doc! {"explain": find, "verbosity": "queryPlanner"}).await;
    let plan = plan.map_err(|error| told(format!("aggregate: plan of {collection}"), error))?;
    // Without an index there is no telling, and no harm: a whole scan meets each document once a range all the same.
    Ok(!plan.to_string().contains("\"isMultiKey\": false"))
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

/// About how many documents there are, markers left out.
///
/// # Errors
/// As [`told`].
pub async fn documents(events: &Collection<Document>, covered: &Covered) -> Result<u64> {
    let what = |error| told(format!("aggregate: count {}", events.name()), error);
    let whole = events.estimated_document_count().await.map_err(what)?;
    let markers = match covered.replaced_by {
        Some(_) => events.count_documents(doc! {DELETED: {"$type": "date"}}).await.map_err(what)?,
        None => 0,
    };
    Ok(whole.saturating_sub(markers))
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

/// What a scan asks for: the fields of the reports, or documents as they are where these are small, which costs the
/// server less than to cut them (666k of 228 bytes: 5.8 s whole, 7.1 s cut).
///
/// # Errors
/// As [`told`].
pub async fn fields(database: &Database, collection: &str, plan: &Plan) -> Result<Option<Document>> {
    let Some(fields) = plan.fields() else { return Ok(None) };
    let stats = database.run_command(doc! {"collStats": collection}).await;
    let stats = stats.map_err(|error| told(format!("aggregate: size of {collection}"), error))?;
    let size = stats.get("avgObjSize").and_then(|size| size.as_i32().map(i64::from).or_else(|| size.as_i64()));
    if size.unwrap_or(0) <= SMALL {
        return Ok(None);
    }
    Ok(Some(fields.iter().map(|field| (field.clone(), bson::Bson::Int32(1))).collect()))
}

/// How the cursors of a scan ask.
#[derive(Debug, Clone)]
pub struct Question {
    pub plan: Arc<Plan>,
    /// `None`: documents as they are.
    pub fields: Option<Document>,
    pub moment: Moment,
}

/// Reads the ranges with so many tasks, and merges what they fold; what is too much for the memory is put aside meanwhile.
///
/// # Errors
/// As [`told`]; `Cancelled`; as [`Spill::put`] and [`Spill::total`]. No task goes on then.
pub async fn run(
    events: &Collection<Document>,
    question: &Question,
    ranges: VecDeque<Document>,
    scope: &Scope,
    (cursors, spill): (usize, &Arc<Spill>),
    control: &Arc<Control>,
) -> Result<Partial> {
    let queue = Arc::new(Mutex::new(ranges));
    let mut tasks = JoinSet::new();
    for _ in 0..cursors {
        let (queue, events, scope) = (Arc::clone(&queue), events.clone(), scope.clone());
        let (question, control) = (question.clone(), Arc::clone(control));
        let mut folder = Folder::new(Arc::clone(&question.plan), Arc::clone(spill), spill.share(cursors));
        tasks.spawn(async move {
            loop {
                let range = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(range) = range else {
                    folder.partial.settle();
                    return Ok::<_, Error>(folder.partial);
                };
                read(&events, &question, range, &scope, &control, &mut folder).await?;
            }
        });
    }
    let mut partials = Vec::with_capacity(cursors);
    while let Some(ended) = tasks.join_next().await {
        partials.push(ended.map_err(|error| Error::bug("aggregate: a cursor's task panicked").because(error))??);
    }
    let plan = &question.plan;
    // Once one cursor had to, all do: what is counted by parts must not be seen elsewhere too.
    if spill.used() > 0 {
        for partial in &mut partials {
            spill.put(partial, plan)?;
        }
    }
    // The others are added to the largest, whose texts are numbered as they are.
    partials.sort_unstable_by_key(|partial| Reverse(partial.heap()));
    let mut partials = partials.into_iter();
    let mut whole = partials.next().unwrap_or_default();
    partials.for_each(|partial| whole.merge(partial));
    spill.total(&mut whole, plan)?;
    // Once, or each report would sort a copy.
    whole.settle();
    Ok(whole)
}

async fn read(
    events: &Collection<Document>,
    question: &Question,
    range: Document,
    scope: &Scope,
    control: &Control,
    folder: &mut Folder,
) -> Result<()> {
    let what = || format!("aggregate: read {}", events.name());
    let Question { fields, moment, .. } = question;
    // The planner might scan the collection for each of many small ranges: the index is named.
    let hint = range.contains_key("_id").then(|| Hint::Keys(doc! {"_id": 1}));
    let mut options = FindOptions::builder().batch_size(10_000).projection(fields.clone()).hint(hint).build();
    options.read_concern = moment.concern();
    let mut session = moment.session().await.map_err(|error| moment.meant(what(), error))?;
    let batches = events.find(range).with_options(options).session(&mut session).batch().await;
    let mut batches = batches.map_err(|error| moment.meant(what(), error))?;
    let mut batches = batches.stream(&mut session);
    while let Some(batch) = batches.try_next().await.map_err(|error| moment.meant(what(), error))? {
        control.check("aggregate: read documents")?;
        let mut documents = Vec::new();
        for document in batch.doc_slices().map_err(|error| told(what(), error))? {
            let document = document.map_err(|error| Error::bug(what()).because(error))?;
            documents.push(document.as_document().ok_or_else(|| Error::bug(what()))?.as_bytes());
        }
        folder.batch(&documents, scope)?;
        control.add_read(documents.len() as u64);
        #[cfg(feature = "sabotage")]
        crate::sabotage::step("aggregate.while_reading");
    }
    Ok(())
}
