//! remote Kafka → transform → local Kafka, exactly once across the two clusters (design section 3).
//!
//! | module | owns |
//! |---|---|
//! | [`settings`] | what a run is told and answers |
//! | [`target`] | topics made and checked before the first read |
//! | [`positions`] | the positions topic |
//! | [`transaction`] | one transactional producer, and what its errors mean |
//! | [`lane`] | the loop: read, transform, write, positions, commit |
//! | [`books`] | what a transaction would add, and what became of it |
//! | [`record`], [`oversize`] | one event to its one place; dead letters cut down to what their topic takes |
//! | [`letters`] | the dead letters of a run: how many, why, where |
//! | [`start`] | where each partition begins |
//! | [`gaps`], [`target_log`] | positions that no longer fit the source's log, or what became of the target |
//! | [`open_transactions`] | what open transactions of the source hold back: waited for, named |
//! | [`inventory`], [`reset`] | positions shown, and moved by an operator |
//! | [`throttle`] | how fast a run may read |
//! | [`transform`], [`rules`], [`product_views`] | what becomes of a value |
//!
//! The order at the start carries the guarantee: every lane's `init_transactions` first (fences the older run and ends
//! its open transaction), then the positions, then the source's ends.

pub mod books;
pub mod gaps;
pub mod inventory;
pub mod lane;
pub mod letters;
pub mod open_transactions;
pub mod oversize;
pub mod positions;
pub mod product_views;
pub mod record;
pub mod reset;
pub mod rules;
pub mod said;
pub mod settings;
pub mod start;
pub mod target;
pub mod target_log;
pub mod throttle;
pub mod time_text;
pub mod transaction;
pub mod transform;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use settings::{BridgeResult, BridgeSettings};

use self::books::Books;
use self::lane::{Part, Run};
use self::said::Said;
use self::transaction::Transactions;
use crate::control::{Control, Level};
use crate::error::{Error, Result};
use crate::kafka::{Cluster, Role, Topic};
use crate::shard::lane_of;

/// How long the end of a run waits for what it wrote to be seen.
const VISIBLE: Duration = Duration::from_secs(2);
/// Lanes that do not answer a stop within this time are left to end by themselves: their transactions time out.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Copies every event from the kept positions to the source's ends, once, and returns the books of the run.
///
/// # Errors
/// By domain: see [`crate::error::Domain`].
pub fn bridge(settings: &BridgeSettings, control: &Arc<Control>) -> Result<BridgeResult> {
    let began = Instant::now();
    let (run, held, lanes) = prepare(settings, control, began)?;
    let run = Arc::new(run);
    #[cfg(feature = "sabotage")]
    let early = crate::sabotage::is("positions_before_init").then(|| start::parts(&run, held)).transpose()?;
    #[cfg(feature = "sabotage")]
    crate::sabotage::step("bridge.before_init");
    let producers =
        transaction::init_all(lanes.keys().copied(), |lane| lane::init(&run, &id_of(&run, lane), lanes[&lane]))?;
    #[cfg(feature = "sabotage")]
    crate::sabotage::step("bridge.after_init");
    let parts = start::parts(&run, held)?;
    #[cfg(feature = "sabotage")]
    let parts = early.unwrap_or(parts);
    let (ended, parts, books) = drive(&run, producers, &parts)?;
    if books.written > 0 {
        until_visible(&run.target, &run.target_topics.topic, control);
    }
    let answer = answer(&run, began, ended, &parts, &books);
    if let Ok(run) = Arc::try_unwrap(run) {
        crate::kafka::close([Box::new(run.source), Box::new(run.target)]);
    }
    Ok(answer)
}

/// Connects, makes and checks the topics; nothing is read or written yet but topics. Also tells whether the target holds
/// events, and how many partitions each lane has.
fn prepare(
    settings: &BridgeSettings,
    control: &Arc<Control>,
    began: Instant,
) -> Result<(Run, bool, BTreeMap<u32, usize>)> {
    settings.check()?;
    let settings = &settings.counting();
    let transform = transform::Ready::new(&settings.transform)?;
    let (source, target) = std::thread::scope(|scope| {
        let target = scope.spawn(|| Cluster::connect(&settings.target, Role::Target, control));
        let source = Cluster::connect(&settings.source, Role::Source, control);
        (source, target.join().unwrap_or_else(|_| Err(Error::bug("bridge: the target's connection panicked"))))
    });
    let (source, target) = (source?, target?);
    let source_topic = source.topic(&settings.source_topic)?;
    if source.id == target.id && settings.source_topic == settings.target_topic {
        return Err(Error::config(format!("bridge: source and target are the same topic {}", settings.source_topic)));
    }
    let target_topics = target::prepare(settings, &source, &source_topic, &target, control)?;
    let positions_topic = positions::topic_name(&settings.job_name());
    let positions_partitions = positions::ensure(&target, &positions_topic, source_topic.partitions, control)?;
    let deadline = settings.max_seconds.map(|seconds| began + Duration::from_secs_f64(seconds));
    let said = Said::default();
    // Before any lane is fenced: an older run may work meanwhile.
    if let Some(told) = open_transactions::wait(settings, &source, &source_topic, deadline, control)? {
        said.warning(told);
    }
    // Before the positions are read, so that a sister shard's first commit raises no false alarm.
    let held = positions::holds_events(&target, &target_topics.topic.name, target_topics.topic.partitions)?;
    let mut lanes: BTreeMap<u32, usize> = BTreeMap::new();
    for partition in (0..source_topic.partitions).filter(|partition| settings.shard.owns(*partition)) {
        *lanes.entry(lane_of(partition)).or_default() += 1;
    }
    let budget = settings.max_events.map_or(i64::MAX, |most| i64::try_from(most).unwrap_or(i64::MAX));
    let run = Run {
        settings: settings.clone(),
        source,
        source_topic,
        target,
        target_topics,
        positions_topic,
        positions_partitions,
        said,
        transform,
        transform_name: transform::Ready::name(&settings.transform),
        lanes: lanes.len().max(1) as u64,
        control: Arc::clone(control),
        deadline,
        budget: AtomicI64::new(budget),
        letters: letters::Letters::new(settings.max_dead_letters),
        throttle: throttle::Throttle::new(settings.max_events_per_second, settings.max_bytes_per_second),
    };
    control.limit(settings.max_events, run.deadline);
    Ok((run, held, lanes))
}

fn id_of(run: &Run, lane: u32) -> String {
    transaction::transactional_id(&run.settings.job_name(), &run.source.id, &run.source_topic.name, lane)
}

type Lane = (Vec<Part>, Books, Result<()>);

/// Runs the lanes to their ends; the first error stops the others at a clean boundary.
fn drive(run: &Arc<Run>, producers: BTreeMap<u32, Transactions>, parts: &[Part]) -> Result<(String, Vec<Part>, Books)> {
    let (sender, receiver) = mpsc::channel::<Lane>();
    let mut open = 0;
    let stop_lanes = Arc::clone(&run.control);
    for (lane, transactions) in producers {
        let mut mine: Vec<Part> = parts.iter().filter(|part| lane_of(part.partition) == lane).cloned().collect();
        let (run, sender) = (Arc::clone(run), sender.clone());
        open += 1;
        std::thread::Builder::new()
            .name(format!("bridge-lane-{lane}"))
            .spawn(move || {
                let mut books = Books::default();
                let outcome = lane::run(&run, &id_of(&run, lane), transactions, &mut mine, &mut books);
                // The receiver is gone only when the run gave up waiting for us.
                let _ = sender.send((mine, books, outcome));
            })
            .map_err(|error| Error::external("bridge: start a thread").because(error))?;
    }
    drop(sender);
    let mut total = Books::default();
    let mut done = Vec::new();
    let mut failure: Option<Error> = None;
    let mut stopping_since: Option<Instant> = None;
    while open > 0 {
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok((parts, books, outcome)) => {
                open -= 1;
                done.extend(parts);
                total.add(books);
                if let Err(error) = outcome {
                    stop_lanes.stop();
                    // A lane that stopped because of another's failure is not the cause.
                    let echo = error.domain == crate::error::Domain::Cancelled;
                    if failure.is_none()
                        || (!echo && failure.as_ref().is_some_and(|f| f.domain == crate::error::Domain::Cancelled))
                    {
                        failure = Some(error);
                    }
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(failure.unwrap_or_else(|| Error::bug("bridge: a lane panicked")));
            }
        }
        if run.control.stopping() && stopping_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return Err(failure
                .unwrap_or_else(|| Error::cancelled("bridge: stopped on request; a lane still waits for a broker")));
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    done.sort_by_key(|part| part.partition);
    let ended = total.limited.unwrap_or("end").to_owned();
    Ok((ended, done, total))
}

/// Brokers write the markers of a committed transaction a moment after they confirmed it: whoever reads next must find
/// every event. Other writers' open transactions are not waited for, nor is a broker that does not answer.
pub(crate) fn until_visible(target: &Cluster, topic: &Topic, control: &Control) {
    let all: Vec<i32> = (0..topic.partitions).collect();
    let deadline = Instant::now() + VISIBLE;
    let hidden = |end: &crate::kafka::PartitionEnds| end.last_stable < end.high_watermark;
    while Instant::now() < deadline && target.ends(&topic.name, &all).is_ok_and(|ends| ends.iter().any(hidden)) {
        if control.sleep("target: wait for the markers", Duration::from_millis(20)).is_err() {
            return;
        }
    }
}

fn answer(run: &Run, began: Instant, ended: String, parts: &[Part], books: &Books) -> BridgeResult {
    let numbers: Vec<i32> = parts.iter().map(|part| part.partition).collect();
    let (gaps, mut warnings) = run.said.take();
    let ends = run.source.ends(&run.source_topic.name, &numbers).unwrap_or_else(|error| {
        warnings.push(format!("lag is unknown: {error}"));
        Vec::new()
    });
    let positions: Vec<_> = parts
        .iter()
        .map(|part| {
            let end = ends.iter().find(|end| end.partition == part.partition);
            settings::PartitionPosition {
                partition: part.partition,
                next: part.kept.next,
                lag: end.map_or(0, |end| (end.last_stable - part.kept.next).max(0)),
                held_back: end.map_or(0, |end| end.high_watermark - end.last_stable),
            }
        })
        .collect();
    let held_back = positions.iter().map(|position| position.held_back).sum();
    if held_back > 0 {
        warnings.push(open_transactions::held_back(&run.source, &run.source_topic, &ends));
    }
    if let Some(warning) = run.letters.nothing_passed(books.read, books.dead_lettered) {
        run.control.log(Level::Warning, warning.clone());
        warnings.push(warning);
    }
    BridgeResult {
        job: run.settings.job_name(),
        source_topic: run.source_topic.name.clone(),
        target_topic: run.target_topics.topic.name.clone(),
        read: books.read,
        written: books.written,
        filtered: books.filtered,
        dead_lettered: books.dead_lettered,
        dead_letters_by_reason: books.reasons.clone(),
        transactions: books.transactions,
        bytes: books.bytes,
        seconds: began.elapsed().as_secs_f64(),
        ended,
        lag: positions.iter().map(|position| position.lag).sum(),
        held_back,
        gaps,
        positions,
        statistics: run.settings.statistics.then(|| [&run.source, &run.target].map(statistics_of).into()),
        warnings,
    }
}

fn statistics_of(cluster: &Cluster) -> (&'static str, crate::kafka::statistics::Summary) {
    let counted = cluster.properties.statistics.as_ref();
    (cluster.role.name(), counted.map(|statistics| statistics.summary()).unwrap_or_default())
}
