//! The native engine: parallel raw-batch cursors over a work queue of many small ranges; [`super::natural`] is the other
//! way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::{FindOptions, Hint};
use mongodb::{Collection, Database};
use tokio::task::JoinSet;

use super::covered::Covered;
use super::fold::{Folder, Wanted};
use super::incremental::coverage::Coverage;
use super::moment::Moment;
use super::partial::Partial;
use super::reports::plan::Plan;
use super::spill::Spill;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::mongo::client::told;

/// Documents of up to so many bytes are read whole.
const SMALL: u64 = 512;
/// A date here marks what a tombstone deleted; no event leaves one.
pub(super) const DELETED: &str = "_millpond.deleted";

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

/// What a scan asks for: the fields of the reports, or documents as they are where these are small, which costs the
/// server less than to cut them (666k of 228 bytes: 5.8 s whole, 7.1 s cut).
///
/// # Errors
/// As [`told`].
pub async fn fields(database: &Database, collection: &str, plan: &Plan) -> Result<Option<Document>> {
    let Some(fields) = plan.fields() else { return Ok(None) };
    let Size { documents, bytes } = size(database, collection).await?;
    if bytes <= documents * SMALL {
        return Ok(None);
    }
    Ok(Some(fields.iter().map(|field| (field.clone(), bson::Bson::Int32(1))).collect()))
}

/// How large a collection is, about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) documents: u64,
    /// Of the documents as they are, not as they lie on disk.
    pub(super) bytes: u64,
}

/// Asks how large a collection is.
///
/// # Errors
/// As [`told`].
pub(super) async fn size(database: &Database, collection: &str) -> Result<Size> {
    let stats = database.run_command(doc! {"collStats": collection}).await;
    let stats = stats.map_err(|error| told(format!("aggregate: size of {collection}"), error))?;
    let of = |name: &str| {
        let number = stats.get(name).and_then(|number| number.as_i32().map(i64::from).or_else(|| number.as_i64()));
        number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
    };
    Ok(Size { documents: of("count"), bytes: of("size") })
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
/// As [`told`]; `Cancelled`; as [`merged`]. No task goes on then.
pub async fn run(
    events: &Collection<Document>,
    question: &Question,
    ranges: VecDeque<Document>,
    scope: &Scope,
    (cursors, spill): (usize, &Arc<Spill>),
    control: &Arc<Control>,
) -> Result<Partial> {
    let mut tasks = JoinSet::new();
    Readers { events, question, scope, spill, cursors, control }.start(&mut tasks, ranges, cursors);
    merged(ended(tasks).await?, &question.plan, spill)
}

/// What all cursors of a scan have in common.
#[derive(Clone, Copy)]
pub(super) struct Readers<'a> {
    pub(super) events: &'a Collection<Document>,
    pub(super) question: &'a Question,
    pub(super) scope: &'a Scope,
    pub(super) spill: &'a Arc<Spill>,
    /// How many share the memory.
    pub(super) cursors: usize,
    pub(super) control: &'a Arc<Control>,
}

impl Readers<'_> {
    /// Starts so many that take ranges one after the other.
    pub(super) fn start(self, tasks: &mut JoinSet<Result<Partial>>, ranges: VecDeque<Document>, cursors: usize) {
        let queue = Arc::new(Mutex::new(ranges));
        for _ in 0..cursors {
            let (queue, mut reader) = (Arc::clone(&queue), self.one());
            tasks.spawn(async move {
                loop {
                    let range = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(range) = range else { return Ok(reader.done()) };
                    // The planner might scan the collection for each of many small ranges: the index is named.
                    let hint = range.contains_key("_id").then(|| doc! {"_id": 1});
                    reader.read(range, hint, |batch| (batch.len(), true)).await?;
                }
            });
        }
    }

    /// One of them.
    pub(super) fn one(self) -> Reader {
        let Self { events, question, scope, spill, cursors, control } = self;
        let folder = Folder::new(Arc::clone(&question.plan), Arc::clone(spill), spill.share(cursors));
        let (events, question, scope) = (events.clone(), question.clone(), scope.clone());
        Reader { events, question, scope, control: Arc::clone(control), folder }
    }
}

/// What all tasks have folded.
///
/// # Errors
/// That of the first one that fails. No task goes on then.
pub(super) async fn ended(mut tasks: JoinSet<Result<Partial>>) -> Result<Vec<Partial>> {
    let mut partials = Vec::with_capacity(tasks.len());
    while let Some(ended) = tasks.join_next().await {
        partials.push(ended.map_err(|error| Error::bug("aggregate: a cursor's task panicked").because(error))??);
    }
    Ok(partials)
}

/// What several cursors folded, as one.
///
/// # Errors
/// As [`Spill::put`] and [`Spill::total`].
pub(super) fn merged(mut partials: Vec<Partial>, plan: &Plan, spill: &Spill) -> Result<Partial> {
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

/// One cursor after the other, and what it folds.
pub(super) struct Reader {
    events: Collection<Document>,
    question: Question,
    scope: Scope,
    control: Arc<Control>,
    folder: Folder,
}

impl Reader {
    /// Folds the documents of one question, in the order of `hint`; `take` says how many of a batch are this reader's, and
    /// whether it goes on.
    pub(super) async fn read(
        &mut self,
        filter: Document,
        hint: Option<Document>,
        mut take: impl FnMut(&[&[u8]]) -> (usize, bool),
    ) -> Result<()> {
        let what = || format!("aggregate: read {}", self.events.name());
        let Question { fields, moment, .. } = &self.question;
        let hint = hint.map(Hint::Keys);
        let mut options = FindOptions::builder().batch_size(10_000).projection(fields.clone()).hint(hint).build();
        options.read_concern = moment.concern();
        let mut session = moment.session().await.map_err(|error| moment.meant(what(), error))?;
        let batches = self.events.find(filter).with_options(options).session(&mut session).batch().await;
        let mut batches = batches.map_err(|error| moment.meant(what(), error))?;
        let mut batches = batches.stream(&mut session);
        while let Some(batch) = batches.try_next().await.map_err(|error| moment.meant(what(), error))? {
            self.control.check("aggregate: read documents")?;
            let mut documents = Vec::new();
            for document in batch.doc_slices().map_err(|error| told(what(), error))? {
                let document = document.map_err(|error| Error::bug(what()).because(error))?;
                documents.push(document.as_document().ok_or_else(|| Error::bug(what()))?.as_bytes());
            }
            let (mine, goes_on) = take(&documents);
            self.folder.batch(&documents[..mine], &self.scope)?;
            self.control.add_read(mine as u64);
            if !goes_on {
                break;
            }
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("aggregate.while_reading");
        }
        Ok(())
    }

    /// What was folded, its distinct values in order.
    pub(super) fn done(mut self) -> Partial {
        self.folder.partial.settle();
        self.folder.partial
    }
}
