//! The other way to read: the whole collection in the order in which its documents lie, from both ends at once, of which the
//! server passes on what is asked for. Where that is much of the collection, it takes the server less than to fetch each
//! document by an index: `docs/performance.md`.
//!
//! There is no name for the middle of that order. Each reader shows the document that it took last; who meets the other's
//! has come to what is taken, and both are done. That is exact since both see the same documents in the same order, which
//! a [`Moment`](super::moment::Moment) of one server keeps.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bson::{Document, doc};
use mongodb::Collection;
use mongodb::options::Hint;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::balance::{self, Source};
use super::partial::Partial;
use super::ranges::{Access, DateRanges};
use super::scan::{self, DELETED, Question, Scope, Size};
use super::spill::Spill;
use crate::control::{Control, Level};
use crate::error::Result;
use crate::mongo::client::{code, told};

/// Of fewer documents than this nobody asks how many are wanted: to pass by all takes less.
const FEW: u64 = 100_000;
/// The same of bytes, which lie in the server's cache or are soon read.
const FEW_BYTES: u64 = 100_000_000;
const LOOKS: usize = 200;
/// So many documents as are passed by for each that is wanted take the server as long as the index does, on one core: a
/// fetch is about 5 us, to pass one by 0.55. Two readers pass by, while as many fetch as there are cores.
const EVEN: usize = 8;
/// Ranges that one filter is good for: each document is held beside all of them.
const RANGES: usize = 4;
/// With more cores than this all is read by ranges of `_id`: a faster index than times, since documents lie about in its
/// order.
const EVEN_BY_ID: usize = 4;
/// `NoQueryExecutionPlans`.
const NO_PLAN: i32 = 291;

/// Forms in which times of the dates asked for were met.
#[derive(Debug, Clone, Copy)]
pub struct Forms {
    texts: bool,
    moments: bool,
}

/// What is asked: of both ends those who pass the filter, and ranges of an index for another cursor.
pub struct Asked {
    filter: Document,
    ranges: VecDeque<Document>,
}

/// Whether to pass by all documents is the better way for so many cores, and which form of times is worth it.
///
/// # Errors
/// As [`told`].
pub async fn pays(source: &Source<'_>, cores: usize) -> Result<Option<Forms>> {
    if !source.moment.has_an_order() || source.wanted.is_some_and(BTreeSet::is_empty) {
        return Ok(None);
    }
    #[cfg(feature = "sabotage")]
    if crate::sabotage::is("by_the_index") {
        return Ok(None);
    }
    let (worth, allowed) = tokio::try_join!(worth(source, cores), allowed(source.events))?;
    Ok(worth.filter(|_| allowed))
}

async fn worth(source: &Source<'_>, cores: usize) -> Result<Option<Forms>> {
    let all = Forms { texts: true, moments: true };
    if source.wanted.is_none() {
        return Ok((cores <= EVEN_BY_ID).then_some(all));
    }
    let Size { documents, bytes } = scan::size(source.database, source.events.name()).await?;
    if documents <= FEW && bytes <= FEW_BYTES {
        return Ok(Some(all));
    }
    let (looked, texts, moments) = balance::share(source, documents, LOOKS).await?;
    let found = texts + moments;
    let worth = found > 0 && looked * cores <= found * EVEN;
    Ok(worth.then_some(Forms { texts: texts > 0, moments: moments > 0 }))
}

/// Whether the server lets anybody do without an index: its parameter `notablescan` does not.
async fn allowed(events: &Collection<Document>) -> Result<bool> {
    // To ask for anything at all is always allowed.
    let first = events.find_one(doc! {"_id": {"$exists": true}}).projection(doc! {"_id": 1});
    match first.hint(Hint::Keys(doc! {"$natural": 1})).await {
        Ok(_) => Ok(true),
        Err(error) if code(&error) == Some(NO_PLAN) => Ok(false),
        Err(error) => Err(told(format!("aggregate: look at {}", events.name()), error)),
    }
}

/// What to ask for; `None` for more runs of dates than one filter is good for.
#[must_use]
pub fn asked(source: &Source<'_>, access: Access, forms: Option<Forms>) -> Option<Asked> {
    let Some(dates) = source.wanted else {
        let filter = match source.covered.replaced_by {
            Some(_) => doc! {DELETED: {"$not": {"$type": "date"}}},
            None => doc! {},
        };
        return forms.map(|_| Asked { filter, ranges: VecDeque::new() });
    };
    let of = DateRanges { field: source.time_field, dates, lists: access.lists };
    if dates.is_empty() {
        return None;
    }
    // To judge an offset costs more than to find such texts by the index, and each range costs all who are beyond it.
    let (mut any, mut ranges) = (Vec::new(), of.beside());
    if !access.indexed && source.moment.has_an_order() {
        any.extend(ranges.drain(..));
        any.extend(of.texts());
        any.extend(of.moments());
    } else {
        let forms = forms?;
        for (met, found) in [(forms.texts, of.texts()), (forms.moments, of.moments())] {
            if met {
                any.extend(found);
            } else {
                ranges.extend(found);
            }
        }
        if any.len() > RANGES {
            return None;
        }
    }
    let filter = if any.len() == 1 {
        any.remove(0)
    } else {
        doc! {"$or": any}
    };
    Some(Asked { filter, ranges })
}

/// Reads what is asked for; `None` when the readers did not meet, and it has to be read in another way.
///
/// # Errors
/// As [`told`]; `Cancelled`; as [`scan::merged`]. No task goes on then.
pub async fn run(
    events: &Collection<Document>,
    question: &Question,
    asked: Asked,
    scope: &Scope,
    (cursors, spill): (usize, &Arc<Spill>),
    control: &Arc<Control>,
) -> Result<Option<Partial>> {
    let Asked { filter, ranges } = asked;
    control.log(Level::Info, format!("aggregate: all of {} is read, from both ends", events.name()));
    let ends = Arc::new(Ends::default());
    let mut tasks = JoinSet::new();
    let readers = scan::Readers { events, question, scope, spill, cursors: 3, control };
    if !ranges.is_empty() {
        readers.start(&mut tasks, ranges, 1);
    }
    for way in [Way::Forwards, Way::Backwards].into_iter().take(cursors) {
        let (ends, filter, mut reader) = (Arc::clone(&ends), filter.clone(), readers.one());
        tasks.spawn(async move {
            let take = |batch: &[&[u8]]| ends.take(way, batch);
            // Not in the middle of a batch: those are folded without a pause.
            tokio::select! {
                read = reader.read(filter, Some(doc! {"$natural": way as i32}), take) => {
                    read?;
                    ends.passed(way);
                }
                () = ends.all_taken() => {}
            }
            Ok(reader.done())
        });
    }
    let partials = scan::ended(tasks).await?;
    if ends.missed() {
        control.take_back(partials.iter().map(|partial| partial.scanned).sum());
        control.log(Level::Warning, "aggregate: documents came in another order than before: read by the index");
        return Ok(None);
    }
    scan::merged(partials, &question.plan, spill).map(Some)
}

/// Where a reader comes from, as MongoDB says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forwards = 1,
    Backwards = -1,
}

/// Readers from both ends, of which each document is taken by one.
#[derive(Debug, Default)]
struct Ends {
    last: Mutex<Last>,
    all_taken: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Last {
    /// The document that each has taken last.
    forwards: Option<Vec<u8>>,
    backwards: Option<Vec<u8>>,
    /// Somebody has passed all documents, and not met what the other one took.
    missed: bool,
}

impl Ends {
    /// How many of a batch are this reader's, and whether it goes on.
    fn take(&self, way: Way, batch: &[&[u8]]) -> (usize, bool) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.all_taken.borrow() {
            return (0, false);
        }
        let (mine, others) = last.of(way);
        let met = others.as_ref().and_then(|others| batch.iter().position(|document| *document == others.as_slice()));
        let taken = met.unwrap_or(batch.len());
        if let Some(document) = batch[..taken].last() {
            *mine = Some(document.to_vec());
        }
        if met.is_some() {
            self.all_taken.send_replace(true);
        }
        (taken, met.is_none())
    }

    /// This reader has come to the other end.
    fn passed(&self, way: Way) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.all_taken.send_replace(true) {
            last.missed = last.of(way).1.is_some();
        }
    }

    async fn all_taken(&self) {
        // The sender is here: it does not go away meanwhile.
        let _ = self.all_taken.subscribe().wait_for(|all| *all).await;
    }

    fn missed(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).missed
    }
}

impl Last {
    /// The last document of this reader, and of the other one.
    fn of(&mut self, way: Way) -> (&mut Option<Vec<u8>>, &mut Option<Vec<u8>>) {
        match way {
            Way::Forwards => (&mut self.forwards, &mut self.backwards),
            Way::Backwards => (&mut self.backwards, &mut self.forwards),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as both would, a batch of the one or of the other at a time: what was taken, and whether one missed the other.
    fn read(documents: &[Vec<u8>], backwards: &[Vec<u8>], steps: &[(bool, usize)]) -> (Vec<Vec<u8>>, bool) {
        let ends = Ends::default();
        let mut taken = Vec::new();
        let mut at = [(Way::Forwards, documents, 0, true), (Way::Backwards, backwards, 0, true)];
        let turns = steps.iter().copied().chain((0..4 * documents.len() + 8).map(|turn| (turn % 2 == 0, 1)));
        for (forwards, size) in turns {
            let (way, order, from, goes_on) = &mut at[usize::from(!forwards)];
            if !*goes_on {
                continue;
            }
            let batch: Vec<&[u8]> = order[*from..].iter().take(size).map(Vec::as_slice).collect();
            if batch.is_empty() {
                ends.passed(*way);
                *goes_on = false;
                continue;
            }
            *from += batch.len();
            let (mine, more) = ends.take(*way, &batch);
            taken.extend(batch[..mine].iter().map(|document| document.to_vec()));
            *goes_on = more;
        }
        taken.sort();
        (taken, ends.missed())
    }

    proptest! {
        #[test]
        fn each_document_is_taken_once(count in 0_u8..40, steps in prop::collection::vec((any::<bool>(), 1_usize..9), 0..40)) {
            let documents: Vec<Vec<u8>> = (0..count).map(|one| vec![one; 3]).collect();
            let backwards: Vec<Vec<u8>> = documents.iter().rev().cloned().collect();
            prop_assert_eq!(read(&documents, &backwards, &steps), (documents, false));
        }
    }

    #[test]
    fn one_who_passes_what_the_other_took_unseen_has_missed_it() {
        let documents = [vec![1], vec![2]];
        let strangers = [vec![3]];
        let (_, missed) = read(&documents, &strangers, &[(false, 1), (true, 2), (true, 1)]);
        assert!(missed);
    }
}
