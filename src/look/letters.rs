//! The jobs whose positions a cluster keeps, and the dead letters of a bridge: the newest of each partition.

use std::sync::Arc;

use rdkafka::consumer::Consumer;
use rdkafka::message::{BorrowedMessage, Message};

use super::{Letters, Shown, TOLD, Told};
use crate::bridge::positions;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::cluster::ASK;
use crate::kafka::native::{self, Record};
use crate::kafka::{Cluster, PartitionEnds, Properties, Role, tokens};
use crate::replay::letter::Letter;

/// Bytes that one look reads.
const BYTES: usize = 16 << 20;
/// The reason of a letter that no bridge wrote.
const FOREIGN: &str = "of another program";
const DETAIL: &[u8] = b"__connect.errors.exception.message";

/// Which letters.
#[derive(Debug, Clone)]
pub struct Asked {
    pub target: Properties,
    pub topic: String,
    /// So many are looked at.
    pub most: u64,
    /// One of them by its place, with its bytes.
    pub one: Option<(i32, i64)>,
}

/// The jobs that keep positions on a cluster, by name.
///
/// # Errors
/// As [`Cluster::connect`]; `External` when it does not answer.
pub fn jobs(target: &Properties, control: &Arc<Control>) -> Result<Vec<String>> {
    let cluster = Cluster::connect(target, Role::Target, control)?;
    tokens::give(cluster.client.client())?;
    let metadata = cluster.client.fetch_metadata(None, ASK);
    let metadata = metadata.map_err(|error| Error::external("target: list the topics").because(error))?;
    let prefix = positions::topic_name("");
    let mut jobs: Vec<String> =
        metadata.topics().iter().filter_map(|topic| topic.name().strip_prefix(&prefix).map(str::to_owned)).collect();
    jobs.sort_unstable();
    Ok(jobs)
}

/// Looks at the newest letters, or at one. A topic that does not exist holds none.
///
/// # Errors
/// As [`Cluster::connect`] and [`Cluster::read`]; `Config` for one that is not there.
pub fn letters(asked: &Asked, control: &Arc<Control>) -> Result<Letters> {
    let cluster = Cluster::connect(&asked.target, Role::Target, control)?;
    let mut found = Letters { place: asked.topic.clone(), ..Letters::default() };
    let Some(topic) = cluster.find_topic(&asked.topic)? else { return Ok(found) };
    let ends = cluster.ends(&topic.name, &(0..topic.partitions).collect::<Vec<_>>())?;
    found.held = ends.iter().map(|end| end.last_stable - end.start).sum();
    let mut bytes = 0;
    let mut times = Vec::new();
    cluster.read(&topic.name, &ranges(asked, &ends), |message| {
        let letter = Letter::read(message);
        bytes += letter.size();
        found.looked_at += 1;
        let reason = letter.origin.as_ref().map_or(FOREIGN, |origin| origin.reason.as_str());
        *found.by_reason.entry(reason.to_owned()).or_default() += 1;
        times.push((letter.time_ms, found.letters.len()));
        found.letters.push(told(message, &letter, asked.one.is_some()));
        Ok(bytes < BYTES)
    })?;
    times.sort_unstable_by(|one, other| other.cmp(one));
    found.letters = times.iter().take(TOLD).map(|(_, at)| std::mem::take(&mut found.letters[*at])).collect();
    Ok(found)
}

fn ranges(asked: &Asked, ends: &[PartitionEnds]) -> Vec<(i32, i64, i64)> {
    if let Some((partition, offset)) = asked.one {
        let known = ends.iter().any(|end| end.partition == partition && (end.start..end.last_stable).contains(&offset));
        return if known { vec![(partition, offset, offset + 1)] } else { Vec::new() };
    }
    let each = asked.most.div_ceil(u64::try_from(ends.len()).unwrap_or(1).max(1));
    let each = i64::try_from(each).unwrap_or(i64::MAX);
    ends.iter().map(|end| (end.partition, (end.last_stable - each).max(end.start), end.last_stable)).collect()
}

fn told(message: &BorrowedMessage<'_>, letter: &Letter, whole: bool) -> Told {
    let headers = native::headers(Record::of(message));
    let detail = headers.iter().rev().find(|(name, _)| name == DETAIL).and_then(|(_, value)| value.as_ref());
    let shown = |bytes: Option<&Vec<u8>>| bytes.filter(|_| whole).map(|bytes| Shown::of(bytes));
    let origin = letter.origin.as_ref();
    let place = || message.topic().to_owned();
    Told {
        id: format!("{}:{}", letter.partition, letter.offset),
        reason: origin.map_or_else(|| FOREIGN.to_owned(), |origin| origin.reason.clone()),
        detail: detail.map(|detail| String::from_utf8_lossy(detail).into_owned()).unwrap_or_default(),
        topic: origin.map_or_else(place, |origin| origin.topic.clone()),
        partition: origin.map_or(letter.partition, |origin| origin.partition),
        offset: origin.map_or(letter.offset, |origin| origin.offset),
        timestamp_ms: origin.map(|origin| origin.timestamp_ms).filter(|time| *time >= 0),
        bytes: letter.value.as_ref().map_or(0, |value| i64::try_from(value.len()).unwrap_or(i64::MAX)),
        key: shown(letter.key.as_ref()),
        value: shown(letter.value.as_ref()),
    }
}
