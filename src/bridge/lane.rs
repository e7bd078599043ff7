//! One lane: its own consumer, its own transactional producer, and the loop that carries the guarantee.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;

use super::books::{Books, Pending, balance, commit_books, finish, fresh, settle};
use super::gaps;
use super::letters::Letters;
use super::positions::{Kept, Key};
use super::record::{self, Copy};
use super::said::Said;
use super::settings::BridgeSettings;
use super::target::Target;
use super::throttle::{self, Throttle};
use super::transaction::{Commit, Room, Transactions};
use super::transform::Ready;
use crate::control::{Control, Level};
use crate::error::{Error, Result};
use crate::kafka::native::{self, Record};
use crate::kafka::{Cluster, PartitionReader, Topic, is_hollow, settings, tokens};

/// How often a lane starts again without a commit before the run gives up; each start waits for brokers by itself.
const RESTARTS: u32 = 20;
/// A transaction is committed after this long, full or not: every commit waits for all that is under way.
const TRANSACTION_SECONDS: Duration = Duration::from_secs(10);

/// What all lanes of a run share.
pub struct Run {
    pub settings: BridgeSettings,
    pub source: Cluster,
    pub source_topic: Topic,
    pub target: Cluster,
    pub target_topics: Target,
    pub positions_topic: String,
    pub positions_partitions: i32,
    pub said: Said,
    pub transform: Ready,
    pub transform_name: String,
    pub lanes: u64,
    pub control: Arc<Control>,
    pub deadline: Option<Instant>,
    /// Events that may still be read; `i64::MAX` for no limit.
    pub budget: AtomicI64,
    pub letters: Letters,
    pub throttle: Option<Throttle>,
}

/// One partition of a lane.
#[derive(Debug, Clone)]
pub struct Part {
    pub partition: i32,
    pub kept: Kept,
    /// The source's last stable offset at the start of the run.
    pub end: i64,
    pub finished: bool,
    pub looked_at: bool,
    /// Whether a position is kept: one that begins at its end keeps it too, or the next run would begin elsewhere.
    pub known: bool,
}

enum End {
    Finished,
    Limited(&'static str),
}

/// Carries a lane's partitions to their ends.
///
/// # Errors
/// Whatever ends the lane; its open transaction is aborted, what was committed stays in `books`.
pub fn run(run: &Run, id: &str, first: Transactions, parts: &mut [Part], books: &mut Books) -> Result<()> {
    let mut transactions = first;
    let (mut restarts, mut committed) = (0, books.transactions);
    loop {
        let mut pending = Pending::default();
        let outcome = copy(run, &mut transactions, parts, books, &mut pending);
        let doubt = match outcome {
            Ok(End::Finished) => return Ok(()),
            Ok(End::Limited(why)) => {
                books.limited = Some(why);
                return Ok(());
            }
            Err(error) if error.retryable() && restarts < RESTARTS => error,
            Err(error) => {
                transactions.abort();
                run.control.take_back(pending.told);
                return Err(error);
            }
        };
        // Counted again once it is settled that it happened.
        run.control.take_back(std::mem::take(&mut pending.told));
        restarts = if books.transactions > committed { 1 } else { restarts + 1 };
        committed = books.transactions;
        run.control.log(Level::Warning, format!("bridge: {id} starts again ({restarts}): {doubt}"));
        drop(transactions);
        run.control.sleep("bridge: start a lane again", Duration::from_millis(200))?;
        transactions = init(run, id, parts.len())?;
        settle(run, parts, books, pending)?;
    }
}

/// Makes the producer of a lane of so many source partitions.
///
/// # Errors
/// As [`Transactions::init`].
pub fn init(run: &Run, id: &str, parts: usize) -> Result<Transactions> {
    let topics = &run.target_topics;
    let same = topics.topic.partitions == run.source_topic.partitions;
    let room = Room {
        queue_kbytes: (15 * 1024 / run.lanes).max(2 * 1024),
        partitions: if same { parts as u64 } else { u64::try_from(topics.topic.partitions).unwrap_or(1) },
        batch: topics.max_bytes,
        largest: topics.dead_letter_max_bytes.max(topics.max_bytes),
    };
    Transactions::init(&run.target, id, &topics.topic.name, &room, &run.control)
}

fn assign(run: &Run, parts: &[Part]) -> Result<PartitionReader> {
    let queue = (12 * 1024 / run.lanes).max(1024);
    let fetch = (2 * 1024 / run.lanes).clamp(256, 1024);
    let config = settings::consumer(&run.source.properties, "millpond-bridge", queue, fetch);
    let open: Vec<(i32, i64)> =
        parts.iter().filter(|part| !part.finished).map(|part| (part.partition, part.kept.next)).collect();
    PartitionReader::open(config, &run.source, &run.source_topic.name, &open)
}

/// The loop: read, transform, write, positions, commit. A transaction holds events, dead letters and positions, or
/// none of them (I2).
fn copy(
    run: &Run,
    transactions: &mut Transactions,
    parts: &mut [Part],
    books: &mut Books,
    pending: &mut Pending,
) -> Result<End> {
    for part in parts.iter_mut() {
        part.finished = part.kept.next >= part.end;
    }
    if parts.iter().all(|part| part.finished && part.known) {
        return Ok(End::Finished);
    }
    let mut consumer = assign(run, parts)?;
    loop {
        *pending = Pending::default();
        transactions.begin()?;
        for part in parts.iter_mut().filter(|part| part.finished && !part.known) {
            finish(run, part, pending);
        }
        let limited = match fill(run, &mut consumer, transactions, parts, pending) {
            Ok(limited) => limited,
            Err(error) => {
                // Before the abort, which may outlast whoever waits for the end of the run.
                run.control.take_back(std::mem::take(&mut pending.told));
                transactions.abort();
                return Err(error);
            }
        };
        if pending.kept.is_empty() {
            transactions.abort();
        } else {
            balance(&pending.books)?;
            gaps::refuse_swapped(run)?;
            #[cfg(feature = "sabotage")]
            if crate::sabotage::is("position_outside_transaction") {
                transactions.commit()?;
                transactions.begin()?;
            }
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("bridge.before_positions");
            write_positions(run, transactions, pending)?;
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("bridge.before_commit");
            if let Commit::Doubtful(why) = transactions.commit()? {
                return Err(Error::external(format!(
                    "target: commit of a lane of job positions {}: {why}",
                    run.positions_topic
                )));
            }
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("bridge.after_commit");
            commit_books(run, parts, books, std::mem::take(pending));
        }
        if parts.iter().all(|part| part.finished) {
            return Ok(End::Finished);
        }
        if limited == Some(gaps::MET) {
            gaps::met(run, parts)?;
            consumer = assign(run, parts)?;
        } else if let Some(why) = limited {
            return Ok(End::Limited(why));
        }
    }
}

/// Reads and writes until the transaction is full, every partition is finished, or a limit is reached.
fn fill(
    run: &Run,
    consumer: &mut PartitionReader,
    transactions: &Transactions,
    parts: &mut [Part],
    pending: &mut Pending,
) -> Result<Option<&'static str>> {
    let began = Instant::now();
    let max_events = run.settings.transaction_events.max(1);
    let max_bytes = (run.settings.transaction_bytes / run.lanes).max(1 << 20);
    let mut quiet_since = Instant::now();
    let mut scratch = Vec::with_capacity(1024);
    loop {
        run.control.check("bridge: copy events")?;
        if run.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(Some("max_seconds"));
        }
        if parts.iter().all(|part| part.finished) {
            return Ok(None);
        }
        let full = pending.books.read >= max_events || pending.books.bytes >= max_bytes;
        if full || (pending.books.read > 0 && began.elapsed() > TRANSACTION_SECONDS) {
            return Ok(None);
        }
        run.control.add_read(pending.books.read - pending.told);
        pending.told = pending.books.read;
        tokens::give(consumer.client())?;
        tokens::give(transactions.producer.client())?;
        if let Some(wait) = run.throttle.as_ref().map(|throttle| throttle.wait(Instant::now()))
            && !wait.is_zero()
        {
            run.control.sleep("bridge: copy events", wait.min(throttle::LOOK))?;
            quiet_since = Instant::now();
            transactions.producer.poll(Duration::ZERO);
            continue;
        }
        // A slice of messages between two looks at the clock.
        let now_ms = record::now_ms();
        let mut heard = false;
        for _ in 0..512 {
            match consumer.next(Duration::from_millis(20)) {
                None => {
                    if !heard && quiet_since.elapsed() > Duration::from_secs(30) {
                        let told = consumer.context().last_error().unwrap_or_default();
                        return Err(Error::external(format!(
                            "source: topic {} does not answer: {told}",
                            run.source_topic.name
                        )));
                    }
                    break;
                }
                Some(Ok(held)) => {
                    heard = true;
                    let record = held.record();
                    let Some(part) = parts.iter_mut().find(|part| part.partition == record.partition()) else {
                        return Err(Error::bug(format!(
                            "bridge: an event of foreign partition {}",
                            record.partition()
                        )));
                    };
                    if part.finished {
                        continue;
                    }
                    if record.offset() >= part.end {
                        finish(run, part, pending);
                        break;
                    }
                    if run.budget.fetch_sub(1, Ordering::AcqRel) <= 0 {
                        run.budget.fetch_add(1, Ordering::AcqRel);
                        return Ok(Some("max_events"));
                    }
                    one(run, transactions, record, part, pending, now_ms, &mut scratch)?;
                    let spent = run.throttle.as_ref().is_some_and(|throttle| throttle.spend(record, Instant::now()));
                    if record.offset() + 1 >= part.end {
                        finish(run, part, pending);
                        break;
                    }
                    if spent {
                        break;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = true;
                    let seen = native::fetched_end(consumer.client(), &run.source_topic.name, partition);
                    if let Some(part) = parts.iter_mut().find(|part| part.partition == partition)
                        && seen.is_some_and(|seen| seen >= part.end)
                        && !part.finished
                    {
                        finish(run, part, pending);
                        break;
                    }
                }
                Some(Err(error)) if is_hollow(&error) => {}
                // What was read until here is committed first.
                Some(Err(error)) if gaps::is_told_by(&error) => return Ok(Some(gaps::MET)),
                Some(Err(error)) => return Err(consumed(run, &error)),
            }
            if pending.books.read >= max_events || pending.books.bytes >= max_bytes {
                break;
            }
        }
        if heard {
            // At the slice's end: a full queue may have held it up, which is not the source's silence.
            quiet_since = Instant::now();
        }
        transactions.producer.poll(Duration::ZERO);
    }
}

fn consumed(run: &Run, error: &KafkaError) -> Error {
    let what = format!("source: read topic {}", run.source_topic.name);
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            Error::config(what).hint("grant READ on it").because(error.clone())
        }
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            Error::external(what).hint("was the topic deleted meanwhile?").because(error.clone())
        }
        _ => Error::external(what).because(error.clone()),
    }
}

/// One event to its one place (I1).
fn one(
    run: &Run,
    transactions: &Transactions,
    record: Record<'_>,
    part: &mut Part,
    pending: &mut Pending,
    now_ms: i64,
    scratch: &mut Vec<u8>,
) -> Result<()> {
    if !part.looked_at {
        part.looked_at = true;
        record::refuse_expired(&run.target_topics, record)?;
    }
    let copy = record::decide(&run.target_topics, &run.transform, record, now_ms, scratch);
    pending.books.read += 1;
    pending.books.bytes += record.value_len() as u64;
    let kept = pending.kept.entry(record.partition()).or_insert_with(|| fresh(run, &part.kept));
    kept.next = record.offset() + 1;
    kept.read += 1;
    if !matches!(copy, Copy::DeadLetter(_)) {
        run.letters.pass();
    }
    match copy {
        Copy::Filtered => {
            pending.books.filtered += 1;
            kept.filtered += 1;
            Ok(())
        }
        Copy::Write(value) => {
            pending.books.written += 1;
            kept.written += 1;
            let partition = record::partition(&run.target_topics, &run.source_topic, record);
            record::write(transactions, record, partition, value, &run.control)
        }
        Copy::DeadLetter(letter) => {
            pending.books.dead_lettered += 1;
            *pending.books.reasons.entry(letter.reason.as_str().to_owned()).or_default() += 1;
            kept.dead_lettered += 1;
            record::dead_letter(run, transactions, record, &letter)
        }
    }
}

fn write_positions(run: &Run, transactions: &Transactions, pending: &Pending) -> Result<()> {
    for (partition, kept) in &pending.kept {
        let key = Key { cluster: run.source.id.clone(), topic: run.source_topic.name.clone(), partition: *partition };
        record::send_json(transactions, &run.positions_topic, *partition, &key, kept, &run.control)?;
    }
    Ok(())
}
