//! One record on its way: where it goes, what it becomes, and what is decided before produce, since one refused record
//! fails its whole batch.

use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::Timestamp;
use rdkafka::producer::Producer;
use serde::Serialize;

use super::lane::Run;
use super::oversize;
use super::target::Target;
use super::transaction::Transactions;
use super::transform::{Became, Ready};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::json::{DeadLetter, Reason};
use crate::kafka::native::{self, RawHeader, Record};
use crate::kafka::{Topic, partitioner};

/// Bytes of a record batch before its first record.
const BATCH_HEADER: usize = 61;
/// Records smaller than their topic's limit by this much need no exact count.
const NEAR: usize = 8_192;

/// Where an event ends.
pub enum Copy<'a> {
    /// In the target topic, with this value.
    Write(Option<&'a [u8]>),
    /// Nowhere: the transform's `drop_if` says so.
    Filtered,
    DeadLetter(DeadLetter),
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Refuses a target whose retention would delete this, a partition's oldest unread event, at once.
///
/// # Errors
/// `Config` naming the topic and both ages.
pub fn refuse_expired(target: &Target, record: Record<'_>) -> Result<()> {
    let (Some(retention), Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time)) =
        (target.retention_ms, record.timestamp())
    else {
        return Ok(());
    };
    let age = now_ms() - time;
    if time < 0 || age <= retention {
        return Ok(());
    }
    Err(Error::config(format!(
        "target: topic {} deletes events after {retention} ms, and the oldest unread one (partition {} offset {}) is {age} ms old",
        target.topic.name,
        record.partition(),
        record.offset()
    ))
    .hint("set retention.ms=-1 on it, or allow=[\"retention\"]"))
}

/// Decides what becomes of an event; `now_ms` may be a slice of messages old.
pub fn decide<'a>(
    target: &Target,
    transform: &Ready,
    record: Record<'a>,
    now_ms: i64,
    scratch: &'a mut Vec<u8>,
) -> Copy<'a> {
    if let Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) = record.timestamp() {
        let age = now_ms.saturating_sub(time);
        // librdkafka sends "now" for a timestamp of 0, and the broker refuses what lies outside the topic's limits.
        if time == 0 || age > target.before_ms || age.saturating_neg() > target.after_ms {
            return Copy::DeadLetter(DeadLetter::new(Reason::Timestamp, format!("record timestamp {time}")));
        }
    }
    if target.needs_key && record.key().is_none() {
        return Copy::DeadLetter(DeadLetter::new(Reason::NoKey, format!("{} is compacted", target.topic.name)));
    }
    let value = match record.value() {
        None => None,
        Some(raw) => match transform.apply(raw, scratch) {
            Ok(Became::Changed) => Some(scratch.as_slice()),
            Ok(Became::Same) => Some(raw),
            Ok(Became::Filtered) => return Copy::Filtered,
            Err(letter) => return Copy::DeadLetter(letter),
        },
    };
    let limit = usize::try_from(target.max_bytes).unwrap_or(0);
    let content = value.map_or(0, <[u8]>::len) + record.key_len();
    let size = if content + NEAR > limit || native::has_headers(record) { batch_size(record, value) } else { content };
    if size > limit {
        return Copy::DeadLetter(DeadLetter::new(
            Reason::TooLarge,
            format!("{size} bytes, {} takes {}", target.topic.name, target.max_bytes),
        ));
    }
    Copy::Write(value)
}

/// Bytes of a batch that holds this record alone (KIP-98's format): what the broker compares with
/// `max.message.bytes`. Headers are few; most messages have none.
pub(super) fn batch_size(record: Record<'_>, value: Option<&[u8]>) -> usize {
    batch_size_of(record.key(), value, &native::headers(record))
}

/// As [`batch_size`], of a record's parts.
pub(crate) fn batch_size_of(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[RawHeader]) -> usize {
    let field = |bytes: Option<usize>| bytes.map_or(1, |bytes| varint(bytes) + bytes);
    let content = 3 // attributes, both deltas
        + field(key.map(<[u8]>::len))
        + field(value.map(<[u8]>::len))
        + varint(headers.len())
        + headers.iter().map(|(name, value)| field(Some(name.len())) + field(value.as_ref().map(Vec::len))).sum::<usize>();
    BATCH_HEADER + varint(content) + content
}

/// Bytes of a length as a zigzag varint.
fn varint(length: usize) -> usize {
    let bits = usize::BITS - (length << 1).leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

/// The target partition: the same where the counts are equal, else by key as Java's producer does.
#[must_use]
pub fn partition(target: &Target, source: &Topic, record: Record<'_>) -> i32 {
    let count = target.topic.partitions;
    if count == source.partitions {
        return record.partition();
    }
    record.key().map_or(record.partition() % count, |key| partitioner::partition_of(key, count))
}

/// Writes an event to the target topic: its key, headers and timestamp, and a value.
///
/// # Errors
/// As [`Transactions::hand_over`].
pub fn write(
    transactions: &Transactions,
    record: Record<'_>,
    partition: i32,
    value: Option<&[u8]>,
    control: &Control,
) -> Result<()> {
    let timestamp = match record.timestamp() {
        Timestamp::NotAvailable => -1,
        Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) => time,
    };
    transactions.hand_over(
        |client| native::produce(client, &transactions.topic, partition, timestamp, value, record),
        || place(record),
        control,
    )
}

/// What a run writes beside events: a dead letter, a position, a mark.
struct Note<'a> {
    topic: &'a str,
    partition: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [RawHeader],
}

fn send(transactions: &Transactions, note: &Note<'_>, what: &str, control: &Control) -> Result<()> {
    let topic = native::topic_handle(transactions.producer.client(), note.topic)
        .map_err(|said| Error::external(format!("target: write to topic {}: {said}", note.topic)))?;
    let at = (note.partition, now_ms());
    transactions.hand_over(
        |client| native::produce_parts(client, &topic, at, note.key, note.value, note.headers),
        || what.to_owned(),
        control,
    )
}

/// Writes a record of our own topics (a position, a mark): key and value as JSON.
///
/// # Errors
/// As [`Transactions::hand_over`].
pub fn send_json(
    transactions: &Transactions,
    topic: &str,
    partition: i32,
    key: &impl Serialize,
    value: &impl Serialize,
    control: &Control,
) -> Result<()> {
    let bug = |error| Error::bug(format!("target: write to topic {topic}")).because(error);
    let (key, value) = (serde_json::to_vec(key).map_err(bug)?, serde_json::to_vec(value).map_err(bug)?);
    let note = Note { topic, partition, key: Some(&key), value: Some(&value), headers: &[] };
    send(transactions, &note, topic, control)
}

fn place(record: Record<'_>) -> String {
    format!("topic {} partition {} offset {}", record.topic(), record.partition(), record.offset())
}

/// Writes the raw event with Connect's headers to the dead-letter topic, in the same transaction.
///
/// # Errors
/// `Data` when there is no such topic or too many letters; as [`Transactions::hand_over`].
pub fn dead_letter(run: &Run, transactions: &Transactions, record: Record<'_>, letter: &DeadLetter) -> Result<()> {
    let place = place(record);
    let Some(topic) = &run.target_topics.dead_letters else {
        return Err(Error::data(format!("bridge: {place}: {}: {}", letter.reason.as_str(), letter.detail))
            .hint("name a dead_letter_topic to go on past such events"));
    };
    run.letters.add(letter, &place)?;
    let told = format!("{}: {}", letter.reason.as_str(), letter.detail);
    let kept = oversize::kept(record, told.len() + place.len(), run.target_topics.dead_letter_max_bytes);
    let mut headers = if kept.rest { native::headers(record) } else { Vec::new() };
    if !kept.value {
        headers.extend(oversize::told(record, kept));
    }
    let time = record.timestamp().to_millis().unwrap_or(-1).to_string();
    for (name, value) in [
        ("__connect.errors.topic", run.source_topic.name.as_str()),
        ("__connect.errors.partition", &record.partition().to_string()),
        ("__connect.errors.offset", &record.offset().to_string()),
        ("__connect.errors.exception.message", &told),
        ("millpond.reason", letter.reason.as_str()),
        ("millpond.timestamp", &time),
    ] {
        headers.push((name.into(), Some(value.into())));
    }
    let note = Note {
        topic: &topic.name,
        partition: record.partition() % topic.partitions,
        key: record.key().filter(|_| kept.rest),
        value: record.value().filter(|_| kept.value),
        headers: &headers,
    };
    send(transactions, &note, &place, &run.control)
}
