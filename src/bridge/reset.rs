//! Positions moved by an operator. The lanes concerned are fenced first, as a run does it: what still runs ends with
//! `FencedError` and cannot write over the new positions, nor they over its. Each lane's positions move in one transaction
//! of its own, which a run that starts meanwhile fences in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::gaps::Misfit;
use super::inventory::{self, Job, JobSettings};
use super::positions::{Kept, Key};
use super::target_log::TargetLog;
use super::transaction::{Commit, Room, Transactions};
use super::{record, transaction};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::native::Spec;
use crate::kafka::{Cluster, PartitionEnds, Topic};
use crate::shard::lane_of;

/// Where positions move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Where they are; to the log's start where they do not fit it. Accepts the topics as they are now.
    Kept,
    Earliest,
    /// The last stable offset.
    Latest,
    Offset(i64),
    /// The first event at or after this time.
    TimestampMs(i64),
}

/// What to move.
#[derive(Debug, Clone)]
pub struct ResetSettings {
    pub job: JobSettings,
    pub to: To,
    /// Empty: all of them.
    pub partitions: Vec<i32>,
    /// Otherwise only said, nobody is fenced.
    pub write: bool,
}

/// What was moved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reset {
    pub job: String,
    pub source_topic: String,
    pub target_topic: String,
    pub written: bool,
    pub positions: Vec<Moved>,
}

/// One partition, before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moved {
    pub partition: i32,
    /// Null: no position was kept.
    pub before: Option<i64>,
    pub after: i64,
    /// Offsets that the source still has and that were read before: the next run copies them again.
    pub repeats: i64,
    /// Offsets that the source still has and that no run will read.
    pub skips: i64,
    /// What did not fit before; empty where all did.
    pub problem: String,
    #[serde(skip)]
    kept: Kept,
}

/// Moves the positions of a job, or says what would become of them.
///
/// # Errors
/// `Config` for a partition or offset that is not there, `Fenced` when a run started meanwhile; as [`Job::open`].
pub fn reset(settings: &ResetSettings, control: &Arc<Control>) -> Result<Reset> {
    let mut job = Job::open(&settings.job, control)?;
    let Some((source, topic)) = job.source.take() else {
        let told = job.warnings.first().cloned().unwrap_or_else(|| "source is not given".into());
        return Err(Error::config(format!("positions reset: {told}"))
            .hint("give the source that the job reads: positions are checked against its logs"));
    };
    let partitions = chosen(settings, &job, &topic)?;
    let mut lanes: BTreeMap<u32, Transactions> = BTreeMap::new();
    if settings.write {
        lanes = fence(settings, &job, &topic, &partitions, control)?;
        // Again: a run that was fenced just now may have moved them until then.
        let found = job.target.topic(&job.topic_name)?;
        job.kept = inventory::read(&job.target, &found, control)?;
    }
    let adopted = adopted(&job)?;
    let ends = source.ends(&topic.name, &partitions)?;
    let mut positions = Vec::with_capacity(ends.len());
    for end in &ends {
        positions.push(moved(settings, &source, &topic, end, job.kept(end.partition), &adopted)?);
    }
    for (lane, transactions) in &mut lanes {
        write(&job, &topic, *lane, transactions, &positions, control)?;
    }
    Ok(Reset {
        job: settings.job.job.clone(),
        source_topic: topic.name,
        target_topic: adopted.target_topic,
        written: settings.write,
        positions,
    })
}

/// Takes the lanes of these partitions over.
fn fence(
    settings: &ResetSettings,
    job: &Job,
    topic: &Topic,
    partitions: &[i32],
    control: &Control,
) -> Result<BTreeMap<u32, Transactions>> {
    let lanes: BTreeSet<u32> = partitions.iter().map(|partition| lane_of(*partition)).collect();
    let init = |lane: u32| {
        let id = transaction::transactional_id(&settings.job.job, &job.source_cluster, &topic.name, lane);
        // Positions only: a few small records.
        let room = Room { queue_kbytes: 4_096, partitions: 1, batch: 1_048_588, largest: 1_048_588 };
        Transactions::init(&job.target, &id, &job.topic_name, &room, control)
    };
    transaction::init_all(lanes, init)
}

fn chosen(settings: &ResetSettings, job: &Job, topic: &Topic) -> Result<Vec<i32>> {
    if let Some(unknown) = settings.partitions.iter().find(|partition| !(0..topic.partitions).contains(*partition)) {
        return Err(Error::config(format!(
            "positions reset: topic {} has no partition {unknown}, it has {}",
            topic.name, topic.partitions
        ))
        .hint("`millpond positions show` lists them"));
    }
    let mut chosen = settings.partitions.clone();
    if chosen.is_empty() {
        let wanted = |partition: &i32| settings.to != To::Kept || job.kept(*partition).is_some();
        chosen.extend((0..topic.partitions).filter(wanted));
    }
    chosen.sort_unstable();
    chosen.dedup();
    if settings.to == To::Kept
        && let Some(none) = chosen.iter().find(|partition| job.kept(**partition).is_none())
    {
        return Err(Error::config(format!("positions reset: no position of partition {none} is kept"))
            .hint("say where it begins: --to earliest, latest, an offset or a time"));
    }
    Ok(chosen)
}

/// What a position says of the target, as it is now.
fn adopted(job: &Job) -> Result<Kept> {
    let any = job.kept.values().next().cloned().unwrap_or_default();
    let (target_topic_id, target_start) = present(&job.target, &any.target_topic)?;
    let (dead_letter_topic_id, dead_letter_start) = match &any.dead_letter_topic {
        None => (None, 0),
        Some(name) => present(&job.target, name)?,
    };
    Ok(Kept { target_topic_id, dead_letter_topic_id, target_start, dead_letter_start, ..any })
}

/// The id of a topic and what was deleted from it; nothing for one that is not there (the next run makes it).
fn present(target: &Cluster, name: &str) -> Result<(Option<String>, i64)> {
    let Some(topic) = target.find_topic(name)? else { return Ok((None, 0)) };
    let log = TargetLog::look(target, &topic, &BTreeMap::new())?;
    Ok((topic.id, log.start))
}

fn moved(
    settings: &ResetSettings,
    source: &Cluster,
    topic: &Topic,
    end: &PartitionEnds,
    before: Option<&Kept>,
    adopted: &Kept,
) -> Result<Moved> {
    let misfit = before.and_then(|kept| Misfit::of(kept, topic, end));
    // Up to where the log that is there now was read.
    let read = match (before, misfit) {
        (Some(kept), None) => kept.next,
        (_, Some(Misfit::PastEnd)) => end.high_watermark,
        _ => end.start,
    };
    let after = match settings.to {
        To::Kept => before.filter(|_| misfit.is_none()).map_or(end.start, |kept| kept.next),
        To::Earliest => end.start,
        To::Latest => end.last_stable,
        To::Offset(offset) => offset,
        To::TimestampMs(time) => {
            let found = source.offsets(&topic.name, &[end.partition], Spec::TimestampMs(time), true)?;
            found.first().map(|found| found.1).filter(|offset| *offset >= 0).unwrap_or(end.last_stable)
        }
    };
    if after < end.start || after > end.high_watermark {
        return Err(Error::config(format!(
            "positions reset: topic {} partition {}: offset {after} is not in its log {}..{}",
            topic.name, end.partition, end.start, end.high_watermark
        ))
        .hint("give an offset from start to end, or --partition"));
    }
    // Totals are of the partition: what the job has read so far stays true.
    let totals = before.cloned().unwrap_or_else(|| Kept {
        read: 0,
        written: 0,
        filtered: 0,
        dead_lettered: 0,
        ..adopted.clone()
    });
    let kept = Kept {
        next: after,
        source_topic_id: topic.id.clone(),
        target_topic_id: adopted.target_topic_id.clone(),
        target_start: adopted.target_start,
        dead_letter_topic_id: adopted.dead_letter_topic_id.clone(),
        dead_letter_start: adopted.dead_letter_start,
        ..totals
    };
    Ok(Moved {
        partition: end.partition,
        before: before.map(|kept| kept.next),
        after,
        repeats: (read - after).max(0),
        skips: (after - read).max(0),
        problem: before.zip(misfit).map(|(kept, misfit)| misfit.told(kept, topic, end)).unwrap_or_default(),
        kept,
    })
}

fn write(
    job: &Job,
    topic: &Topic,
    lane: u32,
    transactions: &mut Transactions,
    positions: &[Moved],
    control: &Control,
) -> Result<()> {
    transactions.begin()?;
    for moved in positions.iter().filter(|moved| lane_of(moved.partition) == lane) {
        let key = Key { cluster: job.source_cluster.clone(), topic: topic.name.clone(), partition: moved.partition };
        record::send_json(transactions, &job.topic_name, moved.partition, &key, &moved.kept, control)?;
    }
    match transactions.commit()? {
        Commit::Clean => Ok(()),
        Commit::Doubtful(why) => Err(Error::external(format!(
            "positions reset: topic {}: whether the positions of lane {lane} moved is not known: {why}",
            job.topic_name
        ))
        .hint("look with `millpond positions show`, and reset again")),
    }
}
