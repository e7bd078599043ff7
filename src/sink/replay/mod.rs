//! Stored dead letters → their collection, once each, after whatever refused them was put right: a transform, a validator,
//! a unique index.
//!
//! A letter's event has the `_id` that it would have had, so that storing it again changes nothing; what became of it is
//! noted on the letter afterwards (`replays`), and a letter that was stored is not looked at again. Letters are never
//! deleted. `millpond_replays` tells who replayed what: a document for each replay, from its start on.

pub mod settings;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Collection, Cursor, Database};

pub use self::settings::{Failure, ReplayResult, ReplaySettings};
use super::batch::{Batch, Event, Place};
use super::identity::{Arrival, Form, Identity};
use super::letters::{self, Whole};
use super::store;
use crate::bridge::rules::Became;
use crate::bridge::transform::Ready;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::json::{DeadLetter, Tape};
use crate::kafka::native::RawHeader;
use crate::mongo::client::{self, majority, told};
use crate::mongo::positions::POSITIONS;

/// Where replays are told.
pub const REPLAYS: &str = "millpond_replays";
/// Letters held at once end here, whatever their number.
const BATCH_BYTES: usize = 8 << 20;
/// Failures that are told singly.
const TOLD: usize = 50;
/// What a letter remembers of its replays.
const REMEMBERED: i32 = -20;
/// The word for a letter whose event is in the collection.
const STORED: &str = "stored";
/// How long transient errors are retried.
const DEADLINE: Duration = Duration::from_secs(60);

/// One letter on its way.
struct Letter {
    id: ObjectId,
    /// `topic/partition/offset`
    source: String,
    topic: String,
    partition: i32,
    offset: i64,
    timestamp_ms: i64,
    whole: Whole,
}

/// A letter's event, with the value that the transform made.
struct Restored<'a> {
    letter: &'a Letter,
    value: Option<&'a [u8]>,
}

impl Arrival for Restored<'_> {
    fn topic(&self) -> String {
        self.letter.topic.clone()
    }

    fn partition(&self) -> i32 {
        self.letter.partition
    }

    fn offset(&self) -> i64 {
        self.letter.offset
    }

    fn timestamp_ms(&self) -> i64 {
        self.letter.timestamp_ms
    }

    fn key(&self) -> Option<&[u8]> {
        self.letter.whole.key.as_deref()
    }

    fn value(&self) -> Option<&[u8]> {
        self.value
    }

    fn headers(&self) -> Vec<RawHeader> {
        self.letter.whole.headers.clone()
    }
}

/// What became of a letter.
enum Outcome {
    Stored,
    Filtered,
    Failed { reason: String, detail: String },
}

struct Replay<'a> {
    settings: &'a ReplaySettings,
    letters: Collection<Document>,
    place: Place,
    transform: Ready,
    books: ReplayResult,
    tape: Tape,
}

/// Stores the chosen letters' events, and returns the books.
///
/// # Errors
/// By domain: see [`crate::error::Domain`].
pub fn replay(settings: &ReplaySettings, control: &Arc<Control>) -> Result<ReplayResult> {
    super::on_a_runtime(control, run(settings, control))
}

async fn run(settings: &ReplaySettings, control: &Arc<Control>) -> Result<ReplayResult> {
    let began = Instant::now();
    settings.check()?;
    let transform = Ready::new(&settings.transform)?;
    let database = client::connect(&settings.mongo_uri).await?.database(&settings.database);
    let name = letters::name(&settings.collection);
    if database.list_collection_names().filter(doc! {"name": &name}).await.is_ok_and(|found| found.is_empty()) {
        return Err(Error::config(format!("replay: there is no collection {}.{name}", database.name()))
            .hint("give the events' own collection: its dead letters are in <collection>_dead_letters"));
    }
    let wanted = store::Wanted { collection: &settings.collection, index: false, letters_expire: false };
    store::ensure(&database, &wanted).await?;
    let place = Place {
        database: database.clone(),
        collection: settings.collection.clone(),
        topic: String::new(),
        identity: identity(&database, &settings.collection).await?,
        concern: majority(),
        letters_expire: None,
        control: Arc::clone(control),
    };
    let books = ReplayResult {
        run: uuid::Uuid::new_v4().to_string(),
        database: settings.database.clone(),
        collection: settings.collection.clone(),
        dead_letter_collection: name.clone(),
        ..ReplayResult::default()
    };
    let letters: Collection<Document> = database.collection(&name);
    let mut replay = Replay { settings, letters, place, transform, books, tape: Tape::default() };
    replay.tell(&database, None).await?;
    let ended = replay.carry(control).await;
    replay.books.seconds = began.elapsed().as_secs_f64();
    let said = ended.as_ref().err().map(ToString::to_string);
    let told = replay.tell(&database, Some(said)).await;
    ended?;
    told?;
    replay.books.balance()?;
    Ok(replay.books)
}

impl Replay<'_> {
    /// The loop: take letters, store their events, note on each what became of it.
    async fn carry(&mut self, control: &Arc<Control>) -> Result<()> {
        let what = || format!("replay: read dead letters of {}", self.settings.collection);
        let filter = self.settings.filter();
        let total = self.letters.count_documents(filter.clone()).await.map_err(|error| told(what(), error))?;
        control.add_total(total);
        let mut cursor = self.letters.find(filter).sort(doc! {"_id": 1}).await.map_err(|error| told(what(), error))?;
        loop {
            control.check("replay: read dead letters")?;
            let mut outcomes: VecDeque<(Letter, Option<Outcome>)> = VecDeque::new();
            let (batch, ended) = self.fill(&mut cursor, &mut outcomes, control).await?;
            self.store(batch, outcomes, control).await?;
            if ended {
                return Ok(());
            }
        }
    }

    /// The next letters as a batch; those whose outcome is known already, with it.
    async fn fill(
        &mut self,
        cursor: &mut Cursor<Document>,
        outcomes: &mut VecDeque<(Letter, Option<Outcome>)>,
        control: &Control,
    ) -> Result<(Batch, bool)> {
        let what = || format!("replay: read dead letters of {}", self.settings.collection);
        let mut batch = Batch::default();
        while outcomes.len() < self.settings.batch_size && batch.raw.len() + batch.bson.len() < BATCH_BYTES {
            let Some(first) = cursor.try_next().await.map_err(|error| told(what(), error))? else {
                return Ok((batch, true));
            };
            self.books.chosen += 1;
            control.add_read(1);
            if is_stored(&first) {
                self.books.already_replayed += 1;
                continue;
            }
            let letter = self.whole(&first).await?;
            let outcome = match letter.1 {
                Some(failed) => Some(failed),
                None => self.document(&letter.0, &mut batch),
            };
            outcomes.push_back((letter.0, outcome));
        }
        Ok((batch, false))
    }

    /// A letter with all of its pieces, or why it cannot be read.
    async fn whole(&self, first: &Document) -> Result<(Letter, Option<Outcome>)> {
        let text = |name: &str| first.get_str(name).unwrap_or_default().to_owned();
        let id = first.get_object_id("_id").unwrap_or_default();
        let (partition, offset) = (first.get_i32("partition").unwrap_or(-1), first.get_i64("offset").unwrap_or(-1));
        let topic = text("topic");
        let timestamp_ms = first.get_datetime("timestamp").map_or(-1, |time| time.timestamp_millis());
        let source = format!("{topic}/{partition}/{offset}");
        let mut letter = Letter { id, source, topic, partition, offset, timestamp_ms, whole: Whole::default() };
        if partition < 0 || offset < 0 || !first.contains_key("value") || !first.contains_key("reason") {
            let detail = "a sink's dead letter has partition, offset, reason and value".to_owned();
            return Ok((letter, Some(Outcome::Failed { reason: "no_letter".into(), detail })));
        }
        letter.whole.add(first);
        let chunks = first.get_i32("chunks").unwrap_or(1);
        for chunk in 1..chunks {
            let piece = self.letters.find_one(doc! {"_id": {"event": id, "chunk": chunk}}).await;
            let piece = piece.map_err(|error| told("replay: read a piece of a dead letter", error))?;
            let Some(piece) = piece else {
                let detail = format!("piece {chunk} of {chunks} is missing");
                return Ok((letter, Some(Outcome::Failed { reason: "incomplete".into(), detail })));
            };
            letter.whole.add(&piece);
        }
        Ok((letter, None))
    }

    /// Puts a letter's document into the batch, unless its outcome is plain without a server.
    fn document(&mut self, letter: &Letter, batch: &mut Batch) -> Option<Outcome> {
        let mut out = Vec::new();
        let raw = letter.whole.value.as_deref();
        let value = match raw.map(|raw| self.transform.apply(raw, &mut out)) {
            None => None,
            Some(Ok(Became::Same)) => raw,
            Some(Ok(Became::Changed)) => Some(out.as_slice()),
            Some(Ok(Became::Filtered)) => return Some(Outcome::Filtered),
            Some(Err(again)) => return Some(failed(&again)),
        };
        let tag = u32::from_be_bytes(std::array::from_fn(|at| letter.id.bytes()[at]));
        let form = Form { tag, identity: self.place.identity.clone(), metadata: self.settings.metadata.clone() };
        let begin = batch.bson.len();
        match form.write(&Restored { letter, value }, &letter.id.bytes(), &mut self.tape, &mut batch.bson) {
            Err(again) => return Some(failed(&again)),
            Ok(true) => batch.documents.push(begin..batch.bson.len()),
            // A tombstone that leaves nothing.
            Ok(false) => {
                self.books.deleted += 1;
                return Some(Outcome::Stored);
            }
        }
        let (key, value) = (batch.keep(letter.whole.key.as_deref()), batch.keep(raw));
        batch.events.push(Event {
            id: letter.id.bytes(),
            partition: letter.partition,
            offset: letter.offset,
            timestamp: letter.timestamp_ms,
            key,
            value,
            headers: letter.whole.headers.clone(),
        });
        batch.books.read += 1;
        None
    }

    /// Stores the batch, then notes on each letter what became of it.
    async fn store(
        &mut self,
        batch: Batch,
        outcomes: VecDeque<(Letter, Option<Outcome>)>,
        control: &Control,
    ) -> Result<()> {
        #[cfg(feature = "sabotage")]
        crate::sabotage::step("sink_replay.before_write");
        let batch = self.place.write(batch).await?;
        #[cfg(feature = "sabotage")]
        crate::sabotage::step("sink_replay.after_write");
        let refused: HashMap<[u8; 12], &DeadLetter> =
            batch.letters.iter().map(|(event, letter)| (event.id, letter)).collect();
        self.books.inserted += batch.books.inserted;
        self.books.already_present += batch.books.already_present;
        self.books.replaced += batch.books.replaced;
        self.books.superseded += batch.books.superseded;
        self.books.deleted += batch.books.deleted;
        control.add_written(batch.books.stored());
        let mut marks = Vec::with_capacity(outcomes.len());
        for (letter, outcome) in outcomes {
            let outcome = outcome
                .unwrap_or_else(|| refused.get(&letter.id.bytes()).map_or(Outcome::Stored, |again| failed(again)));
            let mut note = doc! {"run": &self.books.run, "at": bson::DateTime::now()};
            match outcome {
                Outcome::Stored => {
                    note.insert("outcome", STORED);
                    note.insert("transform", Ready::name(&self.settings.transform));
                }
                Outcome::Filtered => {
                    self.books.filtered += 1;
                    note.insert("outcome", "filtered");
                }
                Outcome::Failed { reason, detail } => {
                    note.extend(doc! {"outcome": "failed", "reason": &reason, "detail": &detail});
                    self.books.failed += 1;
                    control.add_dead_lettered(1);
                    *self.books.failed_by_reason.entry(reason.clone()).or_default() += 1;
                    if self.books.failures.len() < TOLD {
                        let (id, source) = (letter.id.to_hex(), letter.source);
                        self.books.failures.push(Failure { id, source, reason, detail });
                    }
                }
            }
            let note = doc! {"$push": {"replays": {"$each": [note], "$slice": REMEMBERED}}};
            marks.push(doc! {"q": {"_id": letter.id}, "u": note});
        }
        self.mark(marks).await
    }

    async fn mark(&self, marks: Vec<Document>) -> Result<()> {
        if marks.is_empty() {
            return Ok(());
        }
        let what = || format!("replay: note on dead letters of {} what became of them", self.settings.collection);
        let concern =
            bson::serialize_to_bson(&majority()).map_err(|error| Error::bug("replay: a concern").because(error))?;
        let name = self.letters.name();
        let command = doc! {"update": name, "updates": marks, "ordered": false, "writeConcern": concern};
        let deadline = Instant::now() + DEADLINE;
        let mut pause = Duration::from_millis(100);
        loop {
            // Twice noted is twice told, and stored once.
            let error = match self.place.database.run_command(command.clone()).await {
                Ok(answer) if answer.contains_key("writeErrors") || answer.contains_key("writeConcernError") => {
                    Error::external(what())
                }
                Ok(_) => return Ok(()),
                Err(error) => told(what(), error),
            };
            self.place.again(error, deadline, &mut pause).await?;
        }
    }

    /// Tells of this replay in `millpond_replays`: at its start, and how it ended.
    async fn tell(&self, database: &Database, ended: Option<Option<String>>) -> Result<()> {
        let replays: Collection<Document> = database.collection(REPLAYS);
        let what = || format!("replay: write {}.{REPLAYS}", database.name());
        let mut set = Document::new();
        if let Some(error) = ended {
            let books =
                bson::serialize_to_bson(&counts(&self.books)).map_err(|error| Error::bug(what()).because(error))?;
            set.extend(doc! {"ended": bson::DateTime::now(), "books": books, "error": error});
        } else {
            set.extend(doc! {
                "began": bson::DateTime::now(),
                "collection": &self.settings.collection,
                "transform": Ready::name(&self.settings.transform),
                "filter": self.settings.filter().to_string(),
                "version": env!("CARGO_PKG_VERSION"),
            });
        }
        let update = replays.update_one(doc! {"_id": &self.books.run}, doc! {"$set": set}).upsert(true);
        update.write_concern(majority()).await.map(drop).map_err(|error| told(what(), error))
    }
}

/// How the collection's `_id`s are made, as its positions have it.
async fn identity(database: &Database, collection: &str) -> Result<Identity> {
    let kept = database.collection::<Document>(POSITIONS);
    let found = kept.find_one(doc! {"_id.collection": collection, "closed": {"$ne": true}}).await;
    let found = found.map_err(|error| told(format!("replay: read {}.{POSITIONS}", database.name()), error))?;
    found.as_ref().and_then(|kept| kept.get_str("id").ok()).map_or(Ok(Identity::Kafka), Identity::read)
}

fn failed(again: &DeadLetter) -> Outcome {
    Outcome::Failed { reason: again.reason.as_str().to_owned(), detail: again.detail.clone() }
}

fn is_stored(letter: &Document) -> bool {
    let replays = letter.get_array("replays").into_iter().flatten().filter_map(Bson::as_document);
    replays.into_iter().any(|replay| replay.get_str("outcome").is_ok_and(|outcome| outcome == STORED))
}

/// The numbers of the books.
fn counts(books: &ReplayResult) -> BTreeMap<&'static str, i64> {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    BTreeMap::from([
        ("chosen", number(books.chosen)),
        ("inserted", number(books.inserted)),
        ("already_present", number(books.already_present)),
        ("replaced", number(books.replaced)),
        ("superseded", number(books.superseded)),
        ("deleted", number(books.deleted)),
        ("filtered", number(books.filtered)),
        ("already_replayed", number(books.already_replayed)),
        ("failed", number(books.failed)),
    ])
}
