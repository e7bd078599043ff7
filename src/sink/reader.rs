//! The Kafka side: reads the shard's partitions to their ends and fills batches.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::batch::{Batch, Event};
use super::gaps::Gaps;
use super::identity::{Arrival, Form};
use crate::bridge::gaps::is_told_by;
use crate::bridge::throttle::{self, Throttle};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::json::Tape;
use crate::kafka::native::{self, Record};
use crate::kafka::{Cluster, PartitionReader, is_hollow, settings, tokens};
use crate::mongo::sources::event_id;

/// A batch ends at so many bytes, whatever its size in documents: servers take 48 MB at once.
const BATCH_BYTES: usize = 4 << 20;

/// What the client holds ready. A record of 230 bytes takes twice as many: 24 MB were 154 MB at the peak of a million
/// events, 8 MB are 104 MB and no slower.
const QUEUE_KBYTES: u64 = 8 * 1024;

/// One partition of the run.
#[derive(Debug, Clone)]
pub struct Part {
    pub partition: i32,
    pub next: i64,
    pub end: i64,
}

/// What to read, and how far.
pub struct Reader {
    /// Of the group whose offsets are committed at the end; it assigns and never joins.
    pub consumer: PartitionReader,
    /// What was skipped, at the start and since.
    pub gaps: Gaps,
    cluster: Arc<Cluster>,
    group: String,
    throttle: Option<Throttle>,
    /// The log no longer holds what comes next.
    gap_met: bool,
    topic: String,
    form: Form,
    parts: BTreeMap<i32, Part>,
    decided: HashMap<(i32, i64), String>,
    batch_size: u64,
    left: u64,
    deadline: Option<Instant>,
    tape: Tape,
    /// Why reading ended before the ends.
    pub limited: Option<&'static str>,
}

/// The limits of a run.
pub struct Limits<'a> {
    pub group: &'a str,
    pub batch_size: usize,
    pub throttle: Option<Throttle>,
    pub max_events: Option<u64>,
    pub deadline: Option<Instant>,
}

impl Reader {
    /// Assigns what is not finished; never subscribes.
    ///
    /// # Errors
    /// `Config` or `External`, as librdkafka says.
    pub fn new(
        cluster: &Arc<Cluster>,
        topic: &str,
        form: Form,
        (parts, gaps): (Vec<Part>, Gaps),
        decided: HashMap<(i32, i64), String>,
        limits: Limits<'_>,
    ) -> Result<Self> {
        let open: BTreeMap<i32, Part> =
            parts.into_iter().filter(|part| part.next < part.end).map(|part| (part.partition, part)).collect();
        Ok(Self {
            consumer: open_at(cluster, topic, limits.group, &open)?,
            gaps,
            cluster: Arc::clone(cluster),
            group: limits.group.to_owned(),
            throttle: limits.throttle,
            gap_met: false,
            topic: topic.to_owned(),
            form,
            parts: open,
            decided,
            batch_size: limits.batch_size.max(1) as u64,
            left: limits.max_events.unwrap_or(u64::MAX),
            deadline: limits.deadline,
            tape: Tape::default(),
            limited: None,
        })
    }

    /// The next batch, or `None` when every partition is at its end or a limit is reached.
    ///
    /// # Errors
    /// `Position` when retention took events meanwhile and the run may not go on behind them, `External`, `Cancelled`.
    pub fn batch(&mut self, control: &Control) -> Result<Option<Batch>> {
        let mut batch = Batch::default();
        // The clock is asked when nothing comes, not for each record.
        let mut quiet: Option<Instant> = None;
        let began = Instant::now();
        while !self.parts.is_empty() && self.limited.is_none() {
            control.check("sink: read events")?;
            tokens::give(self.consumer.client())?;
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.limited = Some("max_seconds");
                break;
            }
            if batch.books.read >= self.batch_size || batch.bytes >= BATCH_BYTES {
                break;
            }
            if batch.books.read > 0 && began.elapsed() > Duration::from_secs(1) {
                break;
            }
            if self.gap_met {
                if batch.books.read > 0 {
                    // What was read goes first, whatever becomes of the gap.
                    break;
                }
                self.skip(&mut batch, control)?;
                self.gap_met = false;
            }
            if let Some(wait) = self.throttle.as_ref().map(|throttle| throttle.wait(Instant::now()))
                && !wait.is_zero()
            {
                control.sleep("sink: read events", wait.min(throttle::LOOK))?;
                continue;
            }
            for _ in 0..256 {
                if batch.books.read >= self.batch_size || batch.bytes >= BATCH_BYTES || self.limited.is_some() {
                    break;
                }
                match self.consumer.next(Duration::from_millis(20)) {
                    None => {
                        if quiet.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(30) {
                            let told = self.consumer.context().last_error().unwrap_or_default();
                            return Err(Error::external(format!(
                                "source: topic {} does not answer: {told}",
                                self.topic
                            )));
                        }
                        break;
                    }
                    Some(Ok(held)) => {
                        quiet = None;
                        let taken = take(
                            held.record(),
                            &mut batch,
                            &mut self.parts,
                            &self.form,
                            &self.decided,
                            &mut self.left,
                            &mut self.tape,
                        )?;
                        let spent = |throttle: &Throttle| throttle.spend(held.record(), Instant::now());
                        if !taken {
                            self.limited = Some("max_events");
                        } else if self.throttle.as_ref().is_some_and(spent) {
                            break;
                        }
                    }
                    Some(Err(KafkaError::PartitionEOF(partition))) => {
                        quiet = None;
                        let seen = native::fetched_end(self.consumer.client(), &self.topic, partition);
                        if let Some(part) = self.parts.get(&partition)
                            && seen.is_some_and(|seen| seen >= part.end)
                        {
                            // Control records and compaction leave holes: the position is the end.
                            batch.next.insert(partition, part.end);
                            batch.holes += holes(part, part.end);
                            self.parts.remove(&partition);
                            break;
                        }
                    }
                    Some(Err(error)) if is_hollow(&error) => {}
                    Some(Err(error)) if is_told_by(&error) => {
                        self.gap_met = true;
                        break;
                    }
                    Some(Err(error)) => return Err(failed(&self.topic, &error)),
                }
                if self.parts.is_empty() {
                    break;
                }
            }
        }
        Ok((batch.books.read > 0 || !batch.next.is_empty()).then_some(batch))
    }

    /// Goes on behind what retention took while it was being read, if the run may.
    fn skip(&mut self, batch: &mut Batch, control: &Control) -> Result<()> {
        let open: Vec<i32> = self.parts.keys().copied().collect();
        let mut any = false;
        for end in self.cluster.ends(&self.topic, &open)? {
            let Some(part) = self.parts.get_mut(&end.partition) else { continue };
            let next = self.gaps.resume(&self.cluster, &self.topic, &end, part.next, control)?;
            if next == part.next {
                continue;
            }
            any = true;
            batch.holes += holes(part, next.min(part.end));
            part.next = next;
            batch.next.insert(end.partition, next);
            if next >= part.end {
                self.parts.remove(&end.partition);
            }
        }
        if !any {
            return Err(Error::external(format!(
                "source: topic {} did not have an offset that it has now",
                self.topic
            ))
            .hint("a leader moved: retry"));
        }
        self.consumer = open_at(&self.cluster, &self.topic, &self.group, &self.parts)?;
        Ok(())
    }
}

fn open_at(cluster: &Cluster, topic: &str, group: &str, open: &BTreeMap<i32, Part>) -> Result<PartitionReader> {
    let config = settings::consumer(&cluster.properties, group, QUEUE_KBYTES, 512);
    let offsets: Vec<(i32, i64)> = open.values().map(|part| (part.partition, part.next)).collect();
    PartitionReader::open(config, cluster, topic, &offsets)
}

fn failed(topic: &str, error: &KafkaError) -> Error {
    let what = format!("source: read topic {topic}");
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            Error::config(what).hint("grant READ on it").because(error.clone())
        }
        _ => Error::external(what).because(error.clone()),
    }
}

/// Puts one event into the batch; false when `max_events` are read.
fn take(
    record: Record<'_>,
    batch: &mut Batch,
    parts: &mut BTreeMap<i32, Part>,
    form: &Form,
    decided: &HashMap<(i32, i64), String>,
    left: &mut u64,
    tape: &mut Tape,
) -> Result<bool> {
    let (partition, offset) = (record.partition(), record.offset());
    let Some(part) = parts.get_mut(&partition) else { return Ok(true) };
    let end = part.end;
    if offset < end {
        if *left == 0 {
            return Ok(false);
        }
        *left -= 1;
        batch.holes += holes(part, offset);
        part.next = offset + 1;
        batch.books.read += 1;
        batch.books.bytes += record.value_len() as u64;
        batch.bytes += record.value_len() + record.key_len();
        place(record, batch, form, decided, tape)?;
        batch.next.insert(partition, offset + 1);
    }
    if offset + 1 >= end {
        if let Some(part) = parts.remove(&partition) {
            batch.holes += holes(&part, end);
        }
        batch.next.insert(partition, end);
    }
    Ok(true)
}

/// Offsets without an event between the last event of a partition and this offset.
fn holes(part: &Part, offset: i64) -> u64 {
    u64::try_from(offset - part.next).unwrap_or(0)
}

fn place(
    record: Record<'_>,
    batch: &mut Batch,
    form: &Form,
    decided: &HashMap<(i32, i64), String>,
    tape: &mut Tape,
) -> Result<()> {
    let id = event_id(form.tag, record.partition(), record.offset())?;
    if let Some(reason) = decided.get(&(record.partition(), record.offset())) {
        batch.books.dead_lettered += 1;
        *batch.books.reasons.entry(reason.clone()).or_default() += 1;
        return Ok(());
    }
    let begin = batch.bson.len();
    match form.write(&record, &id, tape, &mut batch.bson) {
        Ok(false) => batch.books.deleted += 1,
        Ok(true) => {
            batch.documents.push(begin..batch.bson.len());
            let event = event(record, batch, id);
            batch.events.push(event);
        }
        Err(letter) => {
            batch.books.dead_letter(letter.reason);
            let event = event(record, batch, id);
            batch.letters.push((event, letter));
        }
    }
    Ok(())
}

fn event(record: Record<'_>, batch: &mut Batch, id: [u8; 12]) -> Event {
    Event {
        id,
        partition: record.partition(),
        offset: record.offset(),
        timestamp: record.timestamp_ms(),
        key: batch.keep(record.key()),
        value: batch.keep(record.value()),
        headers: native::headers(record),
    }
}
