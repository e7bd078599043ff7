//! A batch on its way: documents and dead letters of a run of offsets, and its one outcome.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Bson, Document, RawDocument, doc};
use futures_util::TryStreamExt;
use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::options::WriteConcern;
use mongodb::{Collection, Database};

use super::concern::unacknowledged;
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

    /// The documents to send, as the driver takes them.
    fn select(&self, pending: &[usize]) -> Result<Vec<&RawDocument>> {
        let document = |index: &usize| RawDocument::from_bytes(&self.bson[self.documents[*index].clone()]);
        let documents: std::result::Result<_, _> = pending.iter().map(document).collect();
        documents.map_err(|error| Error::bug("sink: a document is no BSON").because(error))
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

    /// I1: every event read ended in exactly one place.
    ///
    /// # Errors
    /// `Bug` when it did not.
    pub fn balance(&self) -> Result<()> {
        let placed = self.inserted + self.already_present + self.deleted + self.dead_lettered;
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
    /// What is waited for; dead letters and positions wait for a majority in any case.
    pub concern: WriteConcern,
    /// Milliseconds after which a dead letter expires.
    pub letters_expire: Option<i64>,
    pub control: Arc<Control>,
}

impl Place {
    fn what(&self) -> String {
        format!("sink: insert into {}.{}", self.database.name(), self.collection)
    }

    /// Writes a batch to the end: documents, acknowledged as asked for, then dead letters, by a majority.
    ///
    /// # Errors
    /// `External` when the server does not take it within a minute; `Config` for a missing right; `Bug`.
    pub async fn write(&self, mut batch: Batch) -> Result<Batch> {
        let mut pending: Vec<usize> = (0..batch.documents.len()).collect();
        let events: Collection<&RawDocument> = self.database.collection(&self.collection);
        let deadline = Instant::now() + DEADLINE;
        let mut pause = Duration::from_millis(100);
        while !pending.is_empty() {
            let insert = events.insert_many(batch.select(&pending)?).ordered(false).write_concern(self.concern.clone());
            match insert.await {
                Ok(_) => {
                    batch.books.inserted += pending.len() as u64;
                    pending.clear();
                }
                Err(error) => match self.judge(&mut batch, &pending, error).await? {
                    None => pending.clear(),
                    // Documents that arrived already are duplicates the next time: counted as present, stored once.
                    Some(error) => self.again(error, deadline, &mut pause).await?,
                },
            }
        }
        #[cfg(feature = "sabotage")]
        crate::sabotage::step("sink.before_letters");
        self.write_letters(&batch, deadline).await?;
        batch.books.batches = 1;
        batch.books.balance()?;
        Ok(batch)
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

    /// Counts what a failed insert did do. `None`: every document has its outcome; `Some`: send the batch again.
    async fn judge(&self, batch: &mut Batch, pending: &[usize], error: DriverError) -> Result<Option<Error>> {
        let ErrorKind::InsertMany(partial) = &*error.kind else { return Ok(Some(told(self.what(), error))) };
        let refused = partial.write_errors.clone().unwrap_or_default();
        if let Some(concern) = &partial.write_concern_error {
            // Not acknowledged as asked for: nothing of the batch counts, and the position stays.
            return Ok(Some(unacknowledged(&self.what(), concern.code, &concern.code_name)));
        }
        if let Some(transient) = refused.iter().find(|refused| !is_final(refused.code)) {
            let what = format!("{}: server code {}", self.what(), transient.code);
            return Ok(Some(if transient.code == 13 {
                Error::config(what).hint("grant the role readWrite on the database")
            } else {
                Error::external(what)
            }));
        }
        let duplicates: Vec<usize> = refused.iter().filter(|r| r.code == 11_000).map(|r| pending[r.index]).collect();
        let present = match self.present(batch, &duplicates).await {
            Ok(present) => present,
            Err(error) => return Ok(Some(error)),
        };
        let mut inserted = pending.len() as u64;
        for write in &refused {
            inserted -= 1;
            let event = batch.events[pending[write.index]].clone();
            if write.code == 11_000 && present.contains(&event.id) {
                batch.books.already_present += 1;
                continue;
            }
            let detail = if write.code == 11_000 {
                "another unique index holds its value (E11000)".to_owned()
            } else {
                format!("server code {}: {}", write.code, write.message.chars().take(300).collect::<String>())
            };
            batch.books.dead_letter(Reason::RefusedByServer);
            batch.letters.push((event, DeadLetter::new(Reason::RefusedByServer, detail)));
        }
        batch.books.inserted += inserted;
        Ok(None)
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

/// Codes that a retry of the same document cannot change. Others are the server's trouble.
const fn is_final(code: i32) -> bool {
    // DuplicateKey, DocumentValidationFailure, BadValue, TypeMismatch, BSONObjectTooLarge, InvalidBSON, Overflow,
    // CannotBuildIndexKeys, too long index keys.
    matches!(code, 11_000 | 121 | 2 | 14 | 10_334 | 22 | 15 | 201 | 17_280 | 17_262 | 16_755 | 17_419 | 17_420)
}
