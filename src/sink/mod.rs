//! Kafka → MongoDB in batches, effectively once (design sections 4 and 5).
//!
//! | module | owns |
//! |---|---|
//! | [`settings`] | what a run is told and answers |
//! | [`store`] | the collection: made, or refused by name |
//! | [`start`] | where each partition begins, and the gaps that are refused |
//! | [`reader`] | Kafka → batches |
//! | [`bson`], [`decimal128`], [`metadata`] | JSON → BSON, exactly |
//! | [`identity`] | what the `_id` is, and the version beside it |
//! | [`strategy`] | whose the collection is: one way to make ids, and of replaceable documents one source |
//! | [`batch`] | a batch → MongoDB, and its one outcome |
//! | [`command`] | one write command, and what its answer says of each document |
//! | [`versions`] | the same under `id="key"` and `id="field:…"`: the highest version wins |
//!
//! An event's `_id` is made of its source, partition and offset, so that writing it again changes nothing; a position
//! moves only over the contiguous prefix of batches that a majority acknowledged, dead letters first.

pub mod batch;
pub mod bson;
pub mod command;
pub mod decimal128;
pub mod identity;
pub mod metadata;
pub mod reader;
pub mod settings;
pub mod start;
pub mod store;
pub mod strategy;
pub mod versions;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use settings::{SinkResult, SinkSettings};
use tokio::task::JoinHandle;

use self::batch::{Batch, Books, Place};
use self::identity::Form;
use self::reader::{Limits, Reader};
use crate::bridge::settings::PartitionPosition;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::{Cluster, Role};
use crate::mongo::{client, positions, sources};

/// Positions are raised at most this often, and at the end.
const RAISE: Duration = Duration::from_millis(500);

/// Stores every event from the kept positions to the topic's ends, once, and returns the books of the run.
///
/// # Errors
/// By domain: see [`crate::error::Domain`].
pub fn sink(settings: &SinkSettings, control: &Arc<Control>) -> Result<SinkResult> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("sink")
        .enable_all()
        .build()
        .map_err(|error| Error::external("sink: start a runtime").because(error))?;
    let result = runtime.block_on(async {
        let stopped = async {
            while !control.stopping() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // A clean boundary is given time; a server that does not answer is left behind.
            tokio::time::sleep(Duration::from_millis(1_200)).await;
        };
        tokio::select! {
            result = run(settings, control) => result,
            () = stopped => Err(Error::cancelled("sink: stopped on request")),
        }
    });
    runtime.shutdown_background();
    result
}

async fn run(settings: &SinkSettings, control: &Arc<Control>) -> Result<SinkResult> {
    let began = Instant::now();
    settings.check()?;
    let cluster = tokio::task::block_in_place(|| Cluster::connect(&settings.source, Role::Source, control))?;
    let topic = tokio::task::block_in_place(|| cluster.topic(&settings.topic))?;
    let database = client::connect(&settings.mongo_uri).await?.database(&settings.database);
    let uuid = store::ensure(&database, &settings.collection, settings.ensure_indexes).await?;
    start::refuse_recreated(&database, &settings.collection, &cluster.id, &topic).await?;
    let tag = sources::register(&database, &cluster.id, topic.id.as_deref(), &topic.name).await?;
    let kept_place = positions::Place {
        collection: settings.collection.clone(),
        tag,
        topic: topic.name.clone(),
        identity: settings.identity.to_string(),
        uuid,
    };
    strategy::refuse_others(&database, &kept_place, &settings.identity).await?;
    strategy::prepare(&database, &settings.collection, &settings.identity, settings.ensure_indexes).await?;
    let kept = positions::read(&database, &kept_place).await?;
    let place = Place {
        database: database.clone(),
        collection: settings.collection.clone(),
        topic: topic.name.clone(),
        identity: settings.identity.clone(),
        control: Arc::clone(control),
    };
    let parts = tokio::task::block_in_place(|| start::parts(settings, &cluster, &topic, &kept, control))?;
    let decided = place.decided(tag, &parts.iter().map(|part| (part.partition, part.next)).collect()).await?;
    let group = settings.group();
    let limits = Limits {
        group: &group,
        batch_size: settings.batch_size,
        max_events: settings.max_events,
        deadline: settings.max_seconds.map(|seconds| began + Duration::from_secs_f64(seconds)),
    };
    control.limit(limits.max_events, limits.deadline);
    let mut next: BTreeMap<i32, i64> = parts.iter().map(|part| (part.partition, part.next)).collect();
    // Also of partitions that have events to come: a source whose first run dies is known to be covered up to here only.
    let unkept = next.iter().filter(|(partition, _)| !kept.contains_key(partition));
    let unkept: BTreeMap<i32, i64> = unkept.map(|(partition, next)| (*partition, *next)).collect();
    if !unkept.is_empty() {
        positions::raise(&database, &kept_place, &unkept).await?;
        // Another sink may have begun at the same moment: now each sees what the other keeps.
        strategy::refuse_others(&database, &kept_place, &settings.identity).await?;
    }
    let form = Form { tag, identity: settings.identity.clone(), metadata: settings.metadata.clone() };
    let mut reader = Reader::new(&cluster, &topic.name, form, parts, decided, &limits)?;
    let books = carry(settings, control, &mut reader, &place, &kept_place, &mut next).await?;
    books.balance()?;
    let ended = reader.limited.unwrap_or("end");
    let answer = tokio::task::block_in_place(|| answer(settings, &cluster, &reader, began, ended, &next, books));
    crate::kafka::close([Box::new(reader), Box::new(cluster)]);
    Ok(answer)
}

/// The loop: read a batch, send it, and raise the positions over what is acknowledged without a hole.
async fn carry(
    settings: &SinkSettings,
    control: &Arc<Control>,
    reader: &mut Reader,
    place: &Place,
    kept: &positions::Place,
    next: &mut BTreeMap<i32, i64>,
) -> Result<Books> {
    let mut books = Books::default();
    let mut flying: VecDeque<JoinHandle<Result<Batch>>> = VecDeque::new();
    let mut raised = Instant::now();
    let mut unraised: BTreeMap<i32, i64> = BTreeMap::new();
    loop {
        let batch = match tokio::task::block_in_place(|| reader.batch(control)) {
            Ok(batch) => batch,
            Err(error) => {
                // What is on its way lands or not; its positions stay, and a rerun finds it present.
                settle(&mut flying, &mut books, &mut unraised, control, 0).await.ok();
                raise(place, kept, &mut unraised, next).await.ok();
                return Err(error);
            }
        };
        let ended = batch.is_none();
        if let Some(batch) = batch {
            #[cfg(feature = "sabotage")]
            if crate::sabotage::is("position_before_acknowledgement") {
                let mut early = batch.next.clone();
                raise(place, kept, &mut early, next).await?;
            }
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("sink.before_write");
            let place = place.clone();
            flying.push_back(tokio::spawn(async move { place.write(batch).await }));
        }
        let most = if ended { 0 } else { settings.in_flight.max(1) - 1 };
        let settled = settle(&mut flying, &mut books, &mut unraised, control, most).await;
        if settled.is_err() || ended || raised.elapsed() > RAISE {
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("sink.before_positions");
            raise(place, kept, &mut unraised, next).await?;
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("sink.after_positions");
            raised = Instant::now();
        }
        settled?;
        if let Some(most) = settings.max_dead_letters
            && books.dead_lettered > most
        {
            return Err(Error::data(format!("sink: {} dead letters, {most} are allowed", books.dead_lettered))
                .hint(format!("look at {}_dead_letters, then raise max_dead_letters", place.collection)));
        }
        if ended {
            return Ok(books);
        }
    }
}

/// Waits for the oldest batches until at most `most` are on their way: oldest first, so that what is acknowledged is
/// always a prefix.
async fn settle(
    flying: &mut VecDeque<JoinHandle<Result<Batch>>>,
    books: &mut Books,
    unraised: &mut BTreeMap<i32, i64>,
    control: &Control,
    most: usize,
) -> Result<()> {
    while flying.len() > most || flying.front().is_some_and(JoinHandle::is_finished) {
        let Some(oldest) = flying.pop_front() else { break };
        let batch = oldest.await.map_err(|error| Error::bug("sink: a batch's task panicked").because(error))??;
        control.add_read(batch.books.read);
        control.drop_total(batch.holes);
        control.add_written(batch.books.stored());
        control.add_dead_lettered(batch.books.dead_lettered);
        books.add(&batch.books);
        for (partition, next) in batch.next {
            unraised.insert(partition, next);
        }
    }
    Ok(())
}

async fn raise(
    place: &Place,
    kept: &positions::Place,
    unraised: &mut BTreeMap<i32, i64>,
    next: &mut BTreeMap<i32, i64>,
) -> Result<()> {
    positions::raise(&place.database, kept, unraised).await?;
    next.append(unraised);
    Ok(())
}

fn answer(
    settings: &SinkSettings,
    cluster: &Cluster,
    reader: &Reader,
    began: Instant,
    ended: &str,
    next: &BTreeMap<i32, i64>,
    books: Books,
) -> SinkResult {
    let mut warnings = Vec::new();
    let numbers: Vec<i32> = next.keys().copied().collect();
    let ends = cluster.ends(&settings.topic, &numbers).unwrap_or_else(|error| {
        warnings.push(format!("lag is unknown: {error}"));
        Vec::new()
    });
    if let Err(error) = start::commit_group(&reader.consumer, settings, next) {
        warnings.push(format!("the consumer group's offsets (for lag tools only) were not committed: {error}"));
    }
    let positions: Vec<PartitionPosition> = next
        .iter()
        .map(|(partition, next)| {
            let end = ends.iter().find(|end| end.partition == *partition);
            PartitionPosition {
                partition: *partition,
                next: *next,
                lag: end.map_or(0, |end| (end.last_stable - next).max(0)),
                held_back: end.map_or(0, |end| end.high_watermark - end.last_stable),
            }
        })
        .collect();
    SinkResult {
        topic: settings.topic.clone(),
        database: settings.database.clone(),
        collection: settings.collection.clone(),
        read: books.read,
        inserted: books.inserted,
        already_present: books.already_present,
        replaced: books.replaced,
        superseded: books.superseded,
        deleted: books.deleted,
        dead_lettered: books.dead_lettered,
        dead_letters_by_reason: books.reasons,
        batches: books.batches,
        bytes: books.bytes,
        seconds: began.elapsed().as_secs_f64(),
        ended: ended.to_owned(),
        lag: positions.iter().map(|position| position.lag).sum(),
        held_back: positions.iter().map(|position| position.held_back).sum(),
        positions,
        warnings,
    }
}
