//! Kafka → MongoDB in batches, effectively once (design sections 4 and 5).
//!
//! | module | owns |
//! |---|---|
//! | [`settings`] | what a run is told and answers |
//! | [`store`] | the collections: made, or refused by name; their indexes |
//! | [`start`] | where each partition begins |
//! | [`gaps`], [`recreated`] | positions that no longer fit the log; a topic that is another one |
//! | [`reader`] | Kafka → batches |
//! | [`bson`], [`decimal128`], [`metadata`] | JSON → BSON, exactly |
//! | [`identity`] | what the `_id` is, and the version beside it |
//! | [`strategy`] | whose the collection is: one way to make ids, and of replaceable documents one source |
//! | [`batch`], [`letters`] | a batch → MongoDB, and its one outcome; its dead letters |
//! | [`command`], [`concern`] | one write command, and what its answer says of each document; how far it must have got |
//! | [`versions`] | the same under `id="key"` and `id="field:…"`: the highest version wins |
//! | [`replay`] | dead letters → their collection, once each |
//! | [`inventory`] | positions shown, and moved by an operator |
//!
//! An event's `_id` is made of its source, partition and offset, so that writing it again changes nothing; a position
//! moves only over the contiguous prefix of batches that a majority acknowledged, dead letters first.

pub mod batch;
pub mod bson;
pub mod command;
pub mod concern;
pub mod decimal128;
pub mod gaps;
pub mod identity;
pub mod inventory;
pub mod letters;
pub mod metadata;
pub mod reader;
pub mod recreated;
pub mod replay;
pub mod settings;
pub mod start;
pub mod store;
pub mod strategy;
pub mod versions;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use settings::{SinkResult, SinkSettings};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use self::batch::{Books, Place};
use self::concern::Confirmation;
use self::gaps::Gaps;
use self::identity::Form;
use self::reader::{Limits, Reader};
use self::recreated::Watch;
use crate::bridge::settings::PartitionPosition;
use crate::bridge::throttle::Throttle;
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
    on_a_runtime(control, run(settings, control))
}

/// Runs to the end, or until two seconds after a stop.
pub(crate) fn on_a_runtime<T>(control: &Control, work: impl Future<Output = Result<T>>) -> Result<T> {
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
            result = work => result,
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
    let cluster = Arc::new(cluster);
    let topic = tokio::task::block_in_place(|| cluster.topic(&settings.topic))?;
    let server = client::open(&settings.mongo_uri, &settings.compressors).await?;
    let concern = settings.write_concern.clone().or(server.concern).unwrap_or_else(client::majority);
    let concern = concern::complete(concern)?;
    let database = server.client.database(&settings.database);
    let wanted = store::Wanted {
        collection: &settings.collection,
        index: settings.ensure_indexes,
        letters_expire: settings.dead_letter_ttl.is_some(),
    };
    let store = store::ensure(&database, &wanted).await?;
    let older = recreated::older(&database, settings, &cluster.id, &topic).await?;
    let tag = sources::register(&database, &cluster.id, topic.id.as_deref(), &topic.name).await?;
    let kept = positions::Place {
        collection: settings.collection.clone(),
        tag,
        topic: topic.name.clone(),
        identity: settings.identity.to_string(),
        uuid: store.uuid.clone(),
    };
    strategy::refuse_others(&database, &kept, &settings.identity, &older).await?;
    strategy::prepare(&database, &settings.collection, &settings.identity, settings.ensure_indexes).await?;
    let known = positions::read(&database, &kept).await?;
    let place = Place {
        database: database.clone(),
        collection: settings.collection.clone(),
        topic: topic.name.clone(),
        identity: settings.identity.clone(),
        letters_expire: settings.dead_letter_ttl.and_then(|seconds| i64::try_from(seconds * 1_000).ok()),
        concern,
        control: Arc::clone(control),
    };
    let mut gaps = Gaps::new(settings.on_gap, &settings.database, &settings.collection);
    gaps.warnings.extend(store.warnings);
    let parts =
        tokio::task::block_in_place(|| start::parts(settings, &cluster, &topic, &known, &older, &mut gaps, control))?;
    let mut next: BTreeMap<i32, i64> = parts.iter().map(|part| (part.partition, part.next)).collect();
    let decided = place.decided(tag, &next).await?;
    let group = settings.group();
    let limits = Limits {
        group: &group,
        batch_size: settings.batch_size,
        throttle: Throttle::new(settings.max_events_per_second, settings.max_bytes_per_second),
        max_events: settings.max_events,
        deadline: settings.max_seconds.map(|seconds| began + Duration::from_secs_f64(seconds)),
    };
    control.limit(limits.max_events, limits.deadline);
    // Also of partitions that have events to come: a source whose first run dies is known to be covered up to here only.
    let moved = next.iter().filter(|(partition, next)| known.get(partition) != Some(next));
    let moved: BTreeMap<i32, i64> = moved.map(|(partition, next)| (*partition, *next)).collect();
    if !moved.is_empty() {
        positions::raise(&database, &kept, &moved).await?;
        // Another sink may have begun at the same moment: now each sees what the other keeps.
        strategy::refuse_others(&database, &kept, &settings.identity, &older).await?;
    }
    recreated::close(&database, &settings.collection, &older).await?;
    let confirmation = Confirmation::begin(&database, &place.concern, tag, &topic.name).await?;
    let form = Form { tag, identity: settings.identity.clone(), metadata: settings.metadata.clone() };
    let mut reader = Reader::new(&cluster, &topic.name, form, (parts, gaps), decided, limits)?;
    let mut store =
        Storing { place, kept, confirmation, watch: Arc::new(Watch::new(&cluster, &topic)), next: &mut next };
    let books = store.carry(settings, control, &mut reader).await?;
    books.balance()?;
    let concern = concern::words(&store.place.concern);
    let ended = reader.limited.unwrap_or("end");
    let mut answer =
        tokio::task::block_in_place(|| answer(settings, &cluster, &mut reader, began, ended, &next, books));
    answer.write_concern = concern;
    crate::kafka::close([Box::new(reader), Box::new(cluster)]);
    Ok(answer)
}

/// What is left of a batch that was written.
struct Landed {
    /// Per partition, the position that may be kept once all before it landed too.
    next: BTreeMap<i32, i64>,
    holes: u64,
    books: Books,
}

/// Where batches go, and how far they are stored.
struct Storing<'a> {
    place: Place,
    kept: positions::Place,
    /// Of inserts that no majority acknowledged by itself.
    confirmation: Option<Confirmation>,
    watch: Arc<Watch>,
    next: &'a mut BTreeMap<i32, i64>,
}

impl Storing<'_> {
    /// The loop: read a batch, send it, and raise the positions over what is acknowledged without a hole.
    async fn carry(&mut self, settings: &SinkSettings, control: &Arc<Control>, reader: &mut Reader) -> Result<Books> {
        let mut books = Books::default();
        let mut flying: VecDeque<JoinHandle<Result<Landed>>> = VecDeque::new();
        let in_flight = settings.in_flight.max(1);
        let slots = Arc::new(Semaphore::new(in_flight));
        let mut raised = Instant::now();
        let mut unraised: BTreeMap<i32, i64> = BTreeMap::new();
        loop {
            let batch = match tokio::task::block_in_place(|| reader.batch(control)) {
                Ok(batch) => batch,
                Err(error) => {
                    // What is on its way lands or not; its positions stay, and a rerun finds it present.
                    settle(&mut flying, &mut books, &mut unraised, control, 0).await.ok();
                    self.raise(&mut unraised).await.ok();
                    return Err(error);
                }
            };
            let ended = batch.is_none();
            if let Some(batch) = batch {
                #[cfg(feature = "sabotage")]
                if crate::sabotage::is("position_before_acknowledgement") {
                    let mut early = batch.next.clone();
                    self.raise(&mut early).await?;
                }
                #[cfg(feature = "sabotage")]
                crate::sabotage::step("sink.before_write");
                let read = Instant::now();
                // It was read while all others were on their way, and goes when any of them has landed, not the oldest.
                let slot = Arc::clone(&slots).acquire_owned().await;
                let (place, watch) = (self.place.clone(), Arc::clone(&self.watch));
                flying.push_back(tokio::spawn(async move {
                    let _slot = slot;
                    watch.vouch(read).await?;
                    let batch = place.write(batch).await?;
                    Ok(Landed { next: batch.next, holes: batch.holes, books: batch.books })
                }));
            }
            // Landed ones behind the oldest are waiting to be counted: few, and small.
            let most = if ended { 0 } else { 4 * in_flight };
            let settled = settle(&mut flying, &mut books, &mut unraised, control, most).await;
            if settled.is_err() || ended || raised.elapsed() > RAISE {
                #[cfg(feature = "sabotage")]
                crate::sabotage::step("sink.before_positions");
                let moved = self.raise(&mut unraised).await;
                #[cfg(feature = "sabotage")]
                crate::sabotage::step("sink.after_positions");
                raised = Instant::now();
                // Why batches failed goes before why positions did.
                settled?;
                moved?;
            } else {
                settled?;
            }
            if let Some(most) = settings.max_dead_letters
                && books.dead_lettered > most
            {
                return Err(Error::data(format!("sink: {} dead letters, {most} are allowed", books.dead_lettered))
                    .hint(format!("look at {}, then raise max_dead_letters", letters::name(&self.place.collection))));
            }
            if ended {
                return Ok(books);
            }
        }
    }

    async fn raise(&mut self, unraised: &mut BTreeMap<i32, i64>) -> Result<()> {
        if unraised.is_empty() {
            return Ok(());
        }
        if let Some(confirmation) = &self.confirmation {
            #[cfg(feature = "sabotage")]
            if crate::sabotage::is("position_without_confirmation") {
                return self.keep(unraised).await;
            }
            confirmation.ask().await?;
        }
        self.keep(unraised).await
    }

    async fn keep(&mut self, unraised: &mut BTreeMap<i32, i64>) -> Result<()> {
        positions::raise(&self.place.database, &self.kept, unraised).await?;
        self.next.append(unraised);
        Ok(())
    }
}

/// Waits for the oldest batches until at most `most` are on their way: oldest first, so that what is acknowledged is
/// always a prefix.
async fn settle(
    flying: &mut VecDeque<JoinHandle<Result<Landed>>>,
    books: &mut Books,
    unraised: &mut BTreeMap<i32, i64>,
    control: &Control,
    most: usize,
) -> Result<()> {
    while flying.len() > most || flying.front().is_some_and(JoinHandle::is_finished) {
        let Some(oldest) = flying.pop_front() else { break };
        let landed = oldest.await.map_err(|error| Error::bug("sink: a batch's task panicked").because(error))??;
        control.add_read(landed.books.read);
        control.drop_total(landed.holes);
        control.add_written(landed.books.stored());
        control.add_dead_lettered(landed.books.dead_lettered);
        books.add(&landed.books);
        for (partition, next) in landed.next {
            unraised.insert(partition, next);
        }
    }
    Ok(())
}

fn answer(
    settings: &SinkSettings,
    cluster: &Cluster,
    reader: &mut Reader,
    began: Instant,
    ended: &str,
    next: &BTreeMap<i32, i64>,
    books: Books,
) -> SinkResult {
    let mut warnings = std::mem::take(&mut reader.gaps.warnings);
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
        gaps: std::mem::take(&mut reader.gaps.found),
        write_concern: String::new(),
        warnings,
    }
}
