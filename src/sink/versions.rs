//! A batch of replaceable documents → MongoDB: the highest version wins, whatever the order of retries, zombies and shards.
//!
//! Each document goes by an update that the server decides: `{$replaceWith: {$cond: [<what is stored is older>, {$literal:
//! <document>}, "$$ROOT"]}}`, as an upsert. `$literal` throughout, so that no document is ever executed. The `_id` stays the
//! stored one: 1 and 1.0 are one id to MongoDB. What the answer of a whole command leaves open is looked up.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bson::raw::RawBsonRef;
use bson::{Bson, RawDocument, RawDocumentBuf, doc, rawdoc};
use futures_util::TryStreamExt;
use mongodb::Collection;

use super::batch::{Batch, Place};
use super::command::fitting;
use super::identity::{BESIDE, Identity, STATEMENT};
use crate::error::{Error, Result};
use crate::json::{DeadLetter, Reason};
use crate::mongo::client::told;

/// Events of one `_id` and partition, by index, the highest version last: only that one is sent.
type Versions = Vec<usize>;

impl Place {
    /// Sends the highest version of each `_id`, and counts what became of all.
    ///
    /// # Errors
    /// As [`Place::write`].
    pub(super) async fn upsert(&self, batch: &mut Batch, deadline: Instant) -> Result<()> {
        let mut pause = Duration::from_millis(100);
        for (marker, mut pending) in groups(batch, &self.identity)? {
            while !pending.is_empty() {
                let sizes = pending.iter().map(|versions| batch.documents[top(versions)].len() + STATEMENT);
                let rest = pending.split_off(fitting(sizes));
                match self.send(batch, &pending, marker).await {
                    Ok(unsettled) => pending = unsettled,
                    Err(error) => self.again(error, deadline, &mut pause).await?,
                }
                pending.extend(rest);
            }
        }
        Ok(())
    }

    /// One command; returns what must be sent again: ids that were made meanwhile, and the next lower versions of what the
    /// server refused.
    async fn send(&self, batch: &mut Batch, sent: &[Versions], marker: bool) -> Result<Vec<Versions>> {
        let mut statements = Vec::with_capacity(sent.len());
        for versions in sent {
            statements.push(self.statement(batch.document(top(versions))?)?);
        }
        let answer = self.command("update", "updates", statements.iter().map(|one| one.as_bytes())).await?;
        let refused: HashSet<usize> = answer.refused.iter().map(|refused| refused.index).collect();
        let done: Vec<usize> = (0..sent.len()).filter(|index| !refused.contains(index)).collect();
        let upserted: HashSet<usize> = answer.upserted.into_iter().collect();
        let open: Vec<usize> = done.iter().copied().filter(|index| !upserted.contains(index)).collect();
        // Before anything is counted: a command that is sent again counts once.
        let stored = if open.len() as u64 > answer.modified {
            self.stored(batch, &open.iter().map(|index| top(&sent[*index])).collect::<Vec<_>>()).await?
        } else {
            Vec::new()
        };
        let mut unsettled = Vec::new();
        for one in &answer.refused {
            let mut versions = sent[one.index].clone();
            // Another writer made the same `_id` meanwhile: the update finds it the next time.
            if !one.of_id {
                let event = batch.events[top(&versions)].clone();
                batch.books.dead_letter(Reason::RefusedByServer);
                batch.letters.push((event, DeadLetter::new(Reason::RefusedByServer, &one.detail)));
                versions.pop();
            }
            if !versions.is_empty() {
                unsettled.push(versions);
            }
        }
        let (mut moved, mut equal) = (0, 0);
        let mut strangers = HashSet::new();
        for (index, stored) in open.iter().zip(stored) {
            match stored {
                Stored::Moved(partition) => {
                    moved += 1;
                    strangers.insert(*index);
                    for event in &sent[*index] {
                        let event = batch.events[*event].clone();
                        let detail = format!("the key was met in partition {partition}");
                        batch.books.dead_letter(Reason::KeyMoved);
                        batch.letters.push((event, DeadLetter::new(Reason::KeyMoved, detail)));
                    }
                }
                Stored::Equal => equal += 1,
                Stored::Other => {}
            }
        }
        // Of those that are stored as sent, as many are new as the server says it changed.
        let rest = (open.len() as u64).saturating_sub(answer.modified + moved);
        let present = rest.min(u64::saturating_sub(equal, answer.modified));
        let changed = (open.len() as u64).saturating_sub(rest + moved);
        let made = upserted.len() as u64;
        batch.books.already_present += present;
        batch.books.superseded += rest - present;
        if marker {
            batch.books.deleted += made + changed;
        } else {
            batch.books.inserted += made;
            batch.books.replaced += changed;
        }
        let kept = done.iter().filter(|index| !strangers.contains(index));
        batch.books.superseded += kept.map(|index| sent[*index].len() as u64 - 1).sum::<u64>();
        Ok(unsettled)
    }

    fn statement(&self, document: &RawDocument) -> Result<RawDocumentBuf> {
        let id = document.get("_id").map_err(not_bson)?.unwrap_or(RawBsonRef::Null);
        let beside = document.get_document(BESIDE).map_err(not_bson)?;
        let source = beside.get_i64("source").map_err(not_bson)?;
        let version = beside.get_document("v").map_err(not_bson)?;
        let older = rawdoc! { "$lt": ["$_millpond.v", literal(version)] };
        let older = match &self.identity {
            // A key belongs to the partition in which it was met first.
            Identity::Key => {
                let partition = version.get_i32("partition").map_err(not_bson)?;
                rawdoc! { "$and": [{ "$eq": ["$_millpond.v.partition", partition] }, older] }
            }
            _ => older,
        };
        #[cfg(feature = "sabotage")]
        let older = if crate::sabotage::is("last_writer_wins") {
            rawdoc! { "$literal": true }
        } else {
            older
        };
        // No source: new, or of another program; another one: a topic that is gone, see `strategy`.
        let replaces = rawdoc! { "$or": [{ "$ne": ["$_millpond.source", source] }, older] };
        let whole = rawdoc! { "$mergeObjects": [literal(document), { "_id": "$_id" }] };
        Ok(rawdoc! {
            "q": { "_id": { "$eq": id } },
            "u": [{ "$replaceWith": { "$cond": [replaces, whole, "$$ROOT"] } }],
            "upsert": true,
        })
    }

    /// What is stored under the `_id`s of these events, asked of the primary.
    async fn stored(&self, batch: &Batch, events: &[usize]) -> Result<Vec<Stored>> {
        let collection: Collection<RawDocumentBuf> = self.database.collection(&self.collection);
        let what = |error| told(self.what(), error);
        let mut ids = Vec::with_capacity(events.len());
        for event in events {
            ids.push(Bson::try_from(identity_of(batch.document(*event)?)?).map_err(not_bson)?);
        }
        let wanted = doc! {BESIDE: 1};
        let filter = doc! {"_id": {"$in": &ids}};
        let mut found = HashMap::new();
        let mut cursor = collection.find(filter).projection(wanted.clone()).await.map_err(what)?;
        while let Some(document) = cursor.try_next().await.map_err(what)? {
            found.insert(raw(identity_of(&document)?), document);
        }
        let mut stored = Vec::with_capacity(events.len());
        for (event, id) in events.iter().zip(ids) {
            let sent = batch.document(*event)?;
            let other;
            let is = if let Some(is) = found.get(&raw(identity_of(sent)?)) {
                Some(is)
            } else {
                // Numbers are equal across their types, and their bytes are not.
                let find = collection.find_one(doc! {"_id": {"$eq": id}}).projection(wanted.clone());
                other = find.await.map_err(what)?;
                other.as_ref()
            };
            stored.push(compare(sent, is.map(|is| &**is), &self.identity)?);
        }
        Ok(stored)
    }
}

/// What was found in place of a document that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    /// The very version.
    Equal,
    /// A key of another partition.
    Moved(i32),
    /// Another version, which is higher; or nothing any more.
    Other,
}

fn compare(sent: &RawDocument, is: Option<&RawDocument>, identity: &Identity) -> Result<Stored> {
    let beside = |document: &RawDocument| -> Option<(i64, Vec<u8>, i32)> {
        let beside = document.get_document(BESIDE).ok()?;
        let version = beside.get_document("v").ok()?;
        Some((beside.get_i64("source").ok()?, version.as_bytes().to_vec(), version.get_i32("partition").ok()?))
    };
    let mine = beside(sent).ok_or_else(|| Error::bug("sink: a document without a version"))?;
    Ok(match is.and_then(beside) {
        Some(theirs) if theirs == mine => Stored::Equal,
        Some((source, _, partition)) if *identity == Identity::Key && source == mine.0 && partition != mine.2 => {
            Stored::Moved(partition)
        }
        _ => Stored::Other,
    })
}

/// Events by `_id` and partition, in the order of their versions: markers and documents apart, since a command's answer
/// counts what it changed as a whole.
fn groups(batch: &Batch, identity: &Identity) -> Result<[(bool, Vec<Versions>); 2]> {
    let mut known: HashMap<(Vec<u8>, i32), usize> = HashMap::new();
    let mut groups: Vec<Versions> = Vec::new();
    for (index, event) in batch.events.iter().enumerate() {
        let place = (raw(identity_of(batch.document(index)?)?), event.partition);
        let group = *known.entry(place).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(index);
    }
    let version = |index: &usize| {
        let event = &batch.events[*index];
        (if matches!(identity, Identity::Field(_)) { event.timestamp } else { 0 }, event.offset)
    };
    let (mut markers, mut documents) = (Vec::new(), Vec::new());
    for mut group in groups {
        group.sort_unstable_by_key(version);
        let beside = batch.document(top(&group))?.get_document(BESIDE).map_err(not_bson)?;
        let marker = beside.get("deleted").map_err(not_bson)?.is_some();
        if marker { markers.push(group) } else { documents.push(group) }
    }
    Ok([(false, documents), (true, markers)])
}

fn top(versions: &Versions) -> usize {
    *versions.last().expect("a group is dropped when its last version is")
}

fn identity_of(document: &RawDocument) -> Result<RawBsonRef<'_>> {
    document.get("_id").map_err(not_bson)?.ok_or_else(|| Error::bug("sink: a document without an _id"))
}

/// Never executed, whatever its members are called.
fn literal(document: &RawDocument) -> RawDocumentBuf {
    let mut literal = RawDocumentBuf::new();
    literal.append(bson::cstr!("$literal"), document);
    literal
}

/// A value's type and bytes.
fn raw(value: RawBsonRef<'_>) -> Vec<u8> {
    rawdoc! { "": value }.into_bytes()
}

fn not_bson(error: bson::error::Error) -> Error {
    Error::bug("sink: a document is no BSON").because(error)
}
