//! A batch on its way: documents and dead letters of a run of offsets, and its one outcome.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Bson, Document, RawDocument, doc};
use futures_util::TryStreamExt;
use mongodb::options::WriteConcern;
use mongodb::{Collection, Database};

use super::command::{Refused, fitting};
use super::identity::Identity;
use crate::control::{Control, Level};
use crate::error::{Error, Result};
use crate::json::{DeadLetter, Reason};
use crate::kafka::native::RawHeader;
use crate::mongo::client::told;

/// How long transient errors of one batch are retried.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where an event came from, and where in [`Batch::raw`] its bytes are: a dead letter would need them.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: [u8; 12],
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Range<usize>>,
    pub value: Option<Range<usize>>,
    pub headers: Vec<RawHeader>,
}

/// Documents and dead letters of a run of offsets.
#[derive(Default)]
pub struct Batch {
    /// Keys and values as they came, and documents, one after another: an allocation for each of a million small ones costs
    /// more than to parse them.
    pub raw: Vec<u8>,
    pub bson: Vec<u8>,
    /// Where in `bson` each document is.
    pub documents: Vec<Range<usize>>,
    /// One for each document, in order.
    pub events: Vec<Event>,
    pub letters: Vec<(Event, DeadLetter)>,
    /// Per partition, the position once this batch is acknowledged.
    pub next: BTreeMap<i32, i64>,
    /// Offsets without an event that were passed.
    pub holes: u64,
    pub books: Books,
    pub bytes: usize,
}

impl Batch {
    /// Keeps a copy of raw bytes.
    pub fn keep(&mut self, bytes: Option<&[u8]>) -> Option<Range<usize>> {
        let begin = self.raw.len();
        self.raw.extend_from_slice(bytes?);
        Some(begin..self.raw.len())
    }

    /// One document.
    pub(super) fn document(&self, index: usize) -> Result<&RawDocument> {
        RawDocument::from_bytes(&self.bson[self.documents[index].clone()])
            .map_err(|error| Error::bug("sink: a document is no BSON").because(error))
    }

    pub(super) fn bytes(&self, range: Option<&Range<usize>>) -> Option<&[u8]> {
        range.map(|range| &self.raw[range.clone()])
    }
}

/// What became of events (I1).
#[derive(Debug, Clone, Default)]
pub struct Books {
    pub read: u64,
    pub inserted: u64,
    pub already_present: u64,
    pub replaced: u64,
    pub superseded: u64,
    pub deleted: u64,
    pub dead_lettered: u64,
    pub reasons: BTreeMap<String, u64>,
    pub bytes: u64,
    pub batches: u64,
}

impl Books {
    /// Adds what another batch did.
    pub fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.inserted += other.inserted;
        self.already_present += other.already_present;
        self.replaced += other.replaced;
        self.superseded += other.superseded;
        self.deleted += other.deleted;
        self.dead_lettered += other.dead_lettered;
        self.bytes += other.bytes;
        self.batches += other.batches;
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
    }

    /// Counts a dead letter.
    pub fn dead_letter(&mut self, reason: Reason) {
        self.dead_lettered += 1;
        *self.reasons.entry(reason.as_str().to_owned()).or_default() += 1;
    }

    /// Events whose effect is in the collection.
    #[must_use]
    pub const fn stored(&self) -> u64 {
        self.inserted + self.already_present + self.replaced + self.superseded + self.deleted
    }

    /// I1: every event read ended in exactly one place.
    ///
    /// # Errors
    /// `Bug` when it did not.
    pub fn balance(&self) -> Result<()> {
        let placed = self.stored() + self.dead_lettered;
        if self.read == placed {
            return Ok(());
        }
        Err(Error::bug(format!("sink: the books do not balance: read {} != {placed} placed", self.read)))
    }
}

/// Where batches go.
#[derive(Clone)]
pub struct Place {
    pub database: Database,
    pub collection: String,
    pub topic: String,
    pub identity: Identity,
    /// What is waited for; dead letters and positions wait for a majority in any case.
    pub concern: WriteConcern,
    /// Milliseconds after which a dead letter expires.
    pub letters_expire: Option<i64>,
    pub control: Arc<Control>,
}

impl Place {
    pub(super) fn what(&self) -> String {
        format!("sink: insert into {}.{}", self.database.name(), self.collection)
    }

    /// Writes a batch to the end: documents, acknowledged as asked for, then dead letters, by a majority.
    ///
    /// # Errors
    /// `External` when the server does not take it within a minute; `Config` for a missing right; `Bug`.
    pub async fn write(&self, mut batch: Batch) -> Result<Batch> {
        let deadline = Instant::now() + DEADLINE;
        if self.identity.versioned() {
            self.upsert(&mut batch, deadline).await?;
        } else {
            self.insert(&mut batch, deadline).await?;
        }
        #[cfg(feature = "sabotage")]
        crate::sabotage::step("sink.before_letters");
        self.write_letters(&batch, deadline).await?;
        batch.books.batches = 1;
        batch.books.balance()?;
        Ok(batch)
    }

    async fn insert(&self, batch: &mut Batch, deadline: Instant) -> Result<()> {
        let mut pending: Vec<usize> = (0..batch.documents.len()).collect();
        let mut pause = Duration::from_millis(100);
        while !pending.is_empty() {
            let rest = pending.split_off(fitting(pending.iter().map(|index| batch.documents[*index].len())));
            let documents = pending.iter().map(|index| &batch.bson[batch.documents[*index].clone()]);
            let done = match self.command("insert", "documents", documents).await {
                Ok(answer) => self.judge(batch, &pending, answer.refused).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => pending = rest,
                // Documents that arrived already are duplicates the next time: counted as present, stored once.
                Err(error) => {
                    self.again(error, deadline, &mut pause).await?;
                    pending.extend(rest);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn again(&self, error: Error, deadline: Instant, pause: &mut Duration) -> Result<()> {
        if !error.retryable() || Instant::now() > deadline {
            return Err(error);
        }
        self.control.check("sink: insert again")?;
        self.control.log(Level::Warning, format!("sink: a batch is sent again: {error}"));
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(Duration::from_secs(2));
        Ok(())
    }

    /// Counts what an insert did. An error counts nothing: the batch is sent again.
    async fn judge(&self, batch: &mut Batch, pending: &[usize], refused: Vec<Refused>) -> Result<()> {
        let duplicates: Vec<usize> = refused.iter().filter(|r| r.code == 11_000).map(|r| pending[r.index]).collect();
        let present = self.present(batch, &duplicates).await?;
        batch.books.inserted += (pending.len() - refused.len()) as u64;
        for write in refused {
            let event = batch.events[pending[write.index]].clone();
            if write.code == 11_000 && present.contains(&event.id) {
                batch.books.already_present += 1;
                continue;
            }
            batch.books.dead_letter(Reason::RefusedByServer);
            batch.letters.push((event, DeadLetter::new(Reason::RefusedByServer, write.detail)));
        }
        Ok(())
    }

    /// Which of the events are stored under their own `_id`: asked of the primary, since the error does not tell which
    /// index was hit.
    async fn present(&self, batch: &Batch, duplicates: &[usize]) -> Result<HashSet<[u8; 12]>> {
        if duplicates.is_empty() {
            return Ok(HashSet::new());
        }
        let ids: Vec<Bson> =
            duplicates.iter().map(|i| Bson::ObjectId(ObjectId::from_bytes(batch.events[*i].id))).collect();
        let events: Collection<Document> = self.database.collection(&self.collection);
        let found: Vec<Document> =
            async { events.find(doc! {"_id": {"$in": ids}}).projection(doc! {"_id": 1}).await?.try_collect().await }
                .await
                .map_err(|error| told(self.what(), error))?;
        Ok(found.iter().filter_map(|document| document.get_object_id("_id").ok()).map(|id| id.bytes()).collect())
    }
}
