//! Where each partition begins: at its kept position where that fits, else at `start`. What does not fit is the matter of
//! [`super::gaps`] and [`super::target_log`].

use super::lane::{Part, Run};
use super::positions::{self, Kept, Key};
use super::settings::Start;
use super::{gaps, target_log};
use crate::control::Level;
use crate::error::{Error, Result};
use crate::kafka::PartitionEnds;
use crate::kafka::native::Spec;

/// Reads positions and ends, in that order, and decides where each partition of this run begins.
///
/// # Errors
/// `Position` for a gap, a recreated topic, or a target that holds events of nobody knows whom.
pub fn parts(run: &Run, target_held_events: bool) -> Result<Vec<Part>> {
    let every: Vec<i32> = (0..run.positions_partitions).collect();
    let kept = positions::read(&run.target, &run.positions_topic, &every, &run.control)?;
    if let Some(foreign) = kept.keys().find(|key| key.cluster != run.source.id || key.topic != run.source_topic.name) {
        return Err(Error::position(format!(
            "bridge: job {} keeps positions of topic {} on cluster {}, the source is topic {} on cluster {}",
            run.settings.job_name(),
            foreign.topic,
            foreign.cluster,
            run.source_topic.name,
            run.source.id
        ))
        .hint("a job has one source: give another job= for this one"));
    }
    if kept.is_empty() && target_held_events && run.settings.start.is_none() {
        return Err(Error::position(format!(
            "bridge: topic {} holds events, and job {} has no positions: copying would double them",
            run.target_topics.topic.name,
            run.settings.job_name()
        ))
        .hint("name the job that wrote them (job=), or adopt the topic with an explicit start="));
    }
    let all = 0..run.source_topic.partitions;
    let mine: Vec<i32> = all.filter(|partition| run.settings.shard.owns(*partition)).collect();
    let ends = run.source.ends(&run.source_topic.name, &mine)?;
    let mut parts = Vec::with_capacity(mine.len());
    for end in &ends {
        let key =
            Key { cluster: run.source.id.clone(), topic: run.source_topic.name.clone(), partition: end.partition };
        let part = match kept.get(&key) {
            Some(kept) => resume(run, end, kept)?,
            None => begin(run, end)?,
        };
        run.control.add_total(u64::try_from(part.end - part.kept.next).unwrap_or(0));
        parts.push(part);
    }
    Ok(parts)
}

fn begin(run: &Run, end: &PartitionEnds) -> Result<Part> {
    let next = match run.settings.start {
        None | Some(Start::Earliest) => end.start,
        Some(Start::Latest) => end.last_stable,
        Some(Start::TimestampMs(time)) => {
            let spec = Spec::TimestampMs(time);
            let found = run.source.offsets(&run.source_topic.name, &[end.partition], spec, true)?;
            found.first().map(|(_, offset)| *offset).filter(|offset| *offset >= 0).unwrap_or(end.last_stable)
        }
    };
    Ok(part(end, Kept { next, ..Kept::default() }, false))
}

fn part(end: &PartitionEnds, kept: Kept, known: bool) -> Part {
    let end_offset = end.last_stable.max(kept.next);
    Part { partition: end.partition, end: end_offset, kept, finished: false, looked_at: false, known }
}

fn resume(run: &Run, end: &PartitionEnds, kept: &Kept) -> Result<Part> {
    let place = format!("topic {} partition {}", run.source_topic.name, end.partition);
    target_log::check(run, &place, kept)?;
    if kept.source_topic_id.is_none() || run.source_topic.id.is_none() {
        run.control.log(Level::Warning, format!("bridge: {place} has no topic id: a recreation would go unseen"));
    }
    if kept.transform != run.transform_name {
        let text = format!("bridge: {place}: the transform changed from {} to {}", kept.transform, run.transform_name);
        run.control.log(Level::Warning, text);
    }
    let (kept, known, end) = gaps::resume(run, end, kept)?;
    Ok(part(&end, kept, known))
}
