//! One lane's transactional producer: init, begin, commit, abort, and what an error of each means.
//!
//! Outcomes are never guessed: whatever is not a clean success makes the caller discard the producer and start again at
//! `init_transactions` and the kept positions (librdkafka may ask `EndTxn` again by itself after a disconnect, and a late
//! copy could end the next transaction).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};

use super::positions::transaction_timeout_ms;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::native::{self, TopicHandle};
use crate::kafka::{Cluster, Context, client, settings, tokens};

/// A commit that took longer may have been asked twice.
const CLEAN_COMMIT: Duration = Duration::from_secs(2);
/// How long a commit waits for an answer before it sends what lingers: at first, and at most, twice as long each time that
/// nothing came of it.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(512));
/// The same for a place in a full queue, in which a whole batch is on its way or may go (see [`Room`]) almost always.
const ROOM_PATIENCE: Duration = Duration::from_millis(256);

/// The transactional id of a lane: job, clusters' side and lane; never a run, a try or a shard count (I3).
#[must_use]
pub fn transactional_id(run_job: &str, source_cluster: &str, source_topic: &str, lane: u32) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(format!("{run_job}\n{source_cluster}\n{source_topic}\n{lane}"));
    let hex: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("millpond-{hex}-{lane}")
}

/// Inits these lanes all at once: each takes up to a second.
///
/// # Errors
/// What `init` says of the first lane that failed.
pub fn init_all(
    lanes: impl IntoIterator<Item = u32>,
    init: impl Fn(u32) -> Result<Transactions> + Sync,
) -> Result<BTreeMap<u32, Transactions>> {
    let init = &init;
    std::thread::scope(|scope| {
        let inits: Vec<_> = lanes.into_iter().map(|lane| (lane, scope.spawn(move || init(lane)))).collect();
        let made = inits.into_iter().map(|(lane, made)| {
            let made = made.join().map_err(|_| Error::bug(format!("bridge: lane {lane} panicked")))?;
            Ok((lane, made?))
        });
        made.collect()
    })
}

/// A producer and when the broker last confirmed that it is the one of its transactional id.
pub struct Transactions {
    /// The target topic. Before the producer, so that it is dropped first.
    pub topic: TopicHandle,
    pub producer: BaseProducer<Context>,
    id: String,
    confirmed: Instant,
    errors_before: u64,
}

/// What a producer may hold, and for whom.
pub struct Room {
    pub queue_kbytes: u64,
    /// How many partitions its events go to.
    pub partitions: u64,
    /// The most that the topic takes as one batch, in bytes.
    pub batch: i64,
    /// The largest record, in bytes.
    pub largest: i64,
}

impl Room {
    fn queue_kbytes(&self) -> u64 {
        self.queue_kbytes.max(u64::try_from(self.largest / 512).unwrap_or(0))
    }

    /// What a partition has on its way at once: an idempotent producer's one request (librdkafka counts messages where it
    /// means requests). So as large as the topic takes, but so small that a full queue holds a whole batch of some
    /// partition, however the events are spread: a queue full of parts of batches would wait for its own `linger.ms`.
    fn batch_size(&self, queue_kbytes: u64) -> i64 {
        let share = i64::try_from(queue_kbytes * 1024 / (self.partitions + 1)).unwrap_or(i64::MAX);
        (self.batch - self.batch / 16).clamp(1_000, 2_000_000).min(share).max(1)
    }
}

/// What became of a commit.
#[derive(Debug)]
pub enum Commit {
    /// Done, and nothing was in doubt meanwhile.
    Clean,
    /// Unknown, or known but with a disconnect on the way: discard the producer, read the positions again.
    Doubtful(String),
}

impl Transactions {
    /// Makes a producer and fences every older one of `id`; waits until its open transaction is ended.
    ///
    /// # Errors
    /// `External` when the coordinator does not answer within a transaction time-out, `Config` when forbidden.
    pub fn init(cluster: &Cluster, id: &str, topic: &str, room: &Room, control: &Control) -> Result<Self> {
        let what = format!("target: init_transactions of {id}");
        let mut config = settings::producer(&cluster.properties, id, transaction_timeout_ms(), room.queue_kbytes());
        // A user's own size of the queue has gone before ours.
        let queue = config.get("queue.buffering.max.kbytes").and_then(|size| size.parse().ok());
        config.set("batch.size", room.batch_size(queue.unwrap_or_else(|| room.queue_kbytes())).to_string());
        // The broker judges batches as compressed; what it takes, and what goes too far, is not librdkafka's to say.
        config.set("message.max.bytes", "1000000000");
        let producer: BaseProducer<Context> = client::open(config, &cluster.properties, cluster.role)?;
        // librdkafka asks for the coordinator at once and, while no broker is up, again only after half a second. The first
        // question is answered by a bootstrap connection, which is then closed; the second by a broker that stays.
        for _ in 0..2 {
            let _ = producer.client().fetch_metadata(Some(topic), Duration::from_secs(1));
        }
        let deadline = Instant::now() + Duration::from_millis(transaction_timeout_ms()) + Duration::from_secs(10);
        loop {
            control.check(&what)?;
            // Resumable: a stop is seen between slices.
            match producer.init_transactions(Duration::from_millis(500)) {
                Ok(()) => break,
                Err(KafkaError::Transaction(error)) => {
                    if matches!(
                        error.code(),
                        RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                            | RDKafkaErrorCode::ClusterAuthorizationFailed
                    ) {
                        return Err(Error::config(what)
                            .hint("grant WRITE and DESCRIBE on TransactionalId with the prefix millpond-")
                            .because(KafkaError::Transaction(error)));
                    }
                    if (error.is_fatal() && !is_fence(error.code())) || Instant::now() > deadline {
                        return Err(Error::external(what).because(KafkaError::Transaction(error)));
                    }
                    if is_fence(error.code()) {
                        return Err(Error::fenced(what)
                            .hint("another run of this job took over")
                            .because(KafkaError::Transaction(error)));
                    }
                    control.sleep(&what, Duration::from_millis(50))?;
                }
                Err(error) => return Err(Error::external(what).because(error)),
            }
        }
        let errors_before = producer.context().transport_errors();
        let topic = native::topic_handle(producer.client(), topic)
            .map_err(|said| Error::external(format!("{what}: topic {topic}: {said}")))?;
        Ok(Self { topic, producer, id: id.to_owned(), confirmed: Instant::now(), errors_before })
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn begin(&mut self) -> Result<()> {
        self.errors_before = self.producer.context().transport_errors();
        self.producer.begin_transaction().map_err(|error| self.judge("begin", error))
    }

    /// Flushes and commits.
    ///
    /// # Errors
    /// `Fenced` when another run took over; `Data` or `Config` when the broker refused a record for good.
    pub fn commit(&mut self) -> Result<Commit> {
        let mut patience = PATIENCE.0;
        loop {
            // What is being sent may outlast a token.
            tokens::give(self.producer.client())?;
            let left = self.producer.in_flight_count();
            if left == 0 || (!self.answered(left, patience) && self.flushed(patience)) {
                break;
            }
            patience = self.next(left, patience);
        }
        let began = Instant::now();
        match self.producer.commit_transaction(rdkafka::util::Timeout::Never) {
            Ok(()) => {
                self.confirmed = Instant::now();
                let seconds = began.elapsed();
                if seconds > CLEAN_COMMIT {
                    return Ok(Commit::Doubtful(format!("the commit took {:.1} s", seconds.as_secs_f64())));
                }
                if self.producer.context().transport_errors() != self.errors_before {
                    return Ok(Commit::Doubtful("a connection was lost during the transaction".into()));
                }
                Ok(Commit::Clean)
            }
            Err(error) => match self.judge("commit", error) {
                error if error.retryable() => Ok(Commit::Doubtful(error.to_string())),
                error => Err(error),
            },
        }
    }

    /// Ends the transaction without its events, so that the target's last stable offset does not wait for the time-out.
    pub fn abort(&self) {
        // A failure needs no answer: the next init_transactions, or the time-out, ends it.
        let _ = self.producer.abort_transaction(Duration::from_millis(1_500));
    }

    /// Waits up to `patience` until less than `left` is under way; whether it is.
    fn answered(&self, left: i32, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let pause = (patience / 32).max(Duration::from_millis(1));
        while Instant::now() < until {
            std::thread::sleep(pause);
            self.producer.poll(Duration::ZERO);
            if self.producer.in_flight_count() < left {
                return true;
            }
        }
        false
    }

    /// Sends what lingers; whether nothing is left.
    ///
    /// In slices, short beside the waits for answers: while it flushes, a thread of librdkafka does not sleep until a
    /// partition's request under way is answered, and every broker has a thread in every lane. Longer ones when nothing
    /// comes of them, for a thread that found no core within the slice has sent nothing.
    fn flushed(&self, patience: Duration) -> bool {
        native::flush(self.producer.client(), (patience / 64).max(Duration::from_millis(2)))
    }

    /// The next patience after `patience`, which began with `left` under way.
    fn next(&self, left: i32, patience: Duration) -> Duration {
        if self.producer.in_flight_count() < left { PATIENCE.0 } else { PATIENCE.1.min(patience * 2) }
    }

    /// Hands a record to librdkafka by `produce`; a full queue is waited for. `what` names the record.
    ///
    /// # Errors
    /// As [`Self::judge`]; `Cancelled`; `Data` for a record larger than the whole queue.
    pub fn hand_over(
        &self,
        produce: impl Fn(&Client<Context>) -> std::result::Result<(), RDKafkaErrorCode>,
        what: impl Fn() -> String,
        control: &Control,
    ) -> Result<()> {
        loop {
            match produce(self.producer.client()) {
                Ok(()) => return Ok(()),
                Err(RDKafkaErrorCode::QueueFull) => self.make_room(&what(), control)?,
                Err(code) => return Err(self.judge("write to", KafkaError::MessageProduction(code))),
            }
        }
    }

    /// Waits for a place in a full queue.
    ///
    /// # Errors
    /// `Cancelled`; `Data` when the queue is empty already: `what` is larger than the whole of it.
    fn make_room(&self, what: &str, control: &Control) -> Result<()> {
        let full = self.producer.in_flight_count();
        if full == 0 {
            return Err(Error::data(format!("target: {what} is larger than a producer's queue"))
                .hint("raise queue.buffering.max.kbytes of the target"));
        }
        let mut patience = ROOM_PATIENCE;
        loop {
            control.check("bridge: write events")?;
            // Letters, or records too small to fill a batch, may have filled it with batches that linger.
            if self.answered(full, patience) || self.flushed(patience) {
                return Ok(());
            }
            patience = self.next(full, patience);
        }
    }

    /// What an error of a transactional call means.
    ///
    /// A time-out on the broker raises the epoch as a fence does: one that comes later than the time-out after our last
    /// success is told as that (retryable), any other as a fence (not retryable, I3).
    pub fn judge(&self, call: &str, error: KafkaError) -> Error {
        let what = format!("target: {call} transaction of {}", self.id);
        let refused = self.producer.context().refused();
        if let Some((code, place)) = refused {
            match code {
                RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidTimestamp
                | RDKafkaErrorCode::InvalidRecord => {
                    return Error::data(format!("{what}: the broker refused a record for {place} ({code})"))
                        .hint("a record over max.message.bytes even when compressed: raise it on that topic")
                        .because(error);
                }
                RDKafkaErrorCode::TopicAuthorizationFailed => {
                    return Error::config(format!("{what}: not allowed to write {place}"))
                        .hint("grant WRITE on it")
                        .because(error);
                }
                _ => {}
            }
        }
        let code = match &error {
            KafkaError::Transaction(inner) => Some(inner.code()),
            other => other.rdkafka_error_code(),
        };
        let fatal = self.producer.client().fatal_error().map(|(code, _)| code);
        if code.is_some_and(is_fence) || fatal.is_some_and(is_fence) {
            if self.confirmed.elapsed() > Duration::from_millis(transaction_timeout_ms()) {
                return Error::external(what).hint("the transaction outlived its time-out: retry").because(error);
            }
            return Error::fenced(what)
                .hint("another run of this job took over; this one ends without harm")
                .because(error);
        }
        Error::external(what).hint("the cluster was busy or a broker restarted: retry").because(error)
    }
}

fn is_fence(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch)
}
