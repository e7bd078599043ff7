//! Where each partition begins, and the gaps that are refused: a kept position that no longer fits the log is the
//! operator's choice, never a silent earliest or latest.

use std::time::Duration;

use super::lane::{Part, Run};
use super::positions::{self, Kept, Key};
use super::settings::Start;
use crate::control::Level;
use crate::error::{Error, Result};
use crate::kafka::PartitionEnds;
use crate::kafka::native::Spec;

/// Reads positions and ends, in that order, and decides where each partition of this run begins.
///
/// # Errors
/// `Position` for a gap, a recreated topic, or a target that holds events of nobody knows whom.
pub fn parts(run: &Run, target_held_events: bool) -> Result<Vec<Part>> {
    let all: Vec<i32> = (0..run.source_topic.partitions).collect();
    let kept = positions::read(&run.target, &run.positions_topic, &all, &run.control)?;
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
    let mine: Vec<i32> = all.into_iter().filter(|partition| run.settings.shard.owns(*partition)).collect();
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
    let on = "two ways on: start again under another job= with start=\"earliest\", or restore the topic";
    same(
        &place,
        "source topic",
        &run.source_topic.name,
        kept.source_topic_id.as_deref(),
        run.source_topic.id.as_deref(),
        run,
    )?;
    let target = &run.target_topics.topic;
    if kept.target_topic != target.name {
        return Err(Error::position(format!(
            "bridge: {place}: the job wrote to topic {}, not {}",
            kept.target_topic, target.name
        ))
        .hint("a job has one target: give another job= for this one"));
    }
    same(&place, "target topic", &target.name, kept.target_topic_id.as_deref(), target.id.as_deref(), run)?;
    if let Some(letters) = &run.target_topics.dead_letters
        && kept.dead_letter_topic.as_deref() == Some(&letters.name)
    {
        same(
            &place,
            "dead-letter topic",
            &letters.name,
            kept.dead_letter_topic_id.as_deref(),
            letters.id.as_deref(),
            run,
        )?;
    }
    if kept.next < end.start {
        return Err(Error::position(format!(
            "bridge: {place}: offsets {}..{} were deleted before they were read",
            kept.next, end.start
        ))
        .hint(on));
    }
    if kept.next > end.high_watermark {
        // A new leader's watermark may lag for a moment: asked again before it is believed.
        run.control.sleep("bridge: ask a log end again", Duration::from_secs(1))?;
        let again = run.source.ends(&run.source_topic.name, &[end.partition])?;
        if again.first().is_none_or(|again| kept.next > again.high_watermark) {
            return Err(Error::position(format!(
                "bridge: {place}: the position {} lies past the log's end {}: events were lost or the topic was emptied",
                kept.next, end.high_watermark
            ))
            .hint(on));
        }
    }
    if kept.transform != run.transform_name {
        let text = format!("bridge: {place}: the transform changed from {} to {}", kept.transform, run.transform_name);
        run.control.log(Level::Warning, text);
    }
    Ok(part(end, kept.clone(), true))
}

fn same(place: &str, what: &str, name: &str, kept: Option<&str>, found: Option<&str>, run: &Run) -> Result<()> {
    match (kept, found) {
        (Some(kept), Some(found)) if kept != found => Err(Error::position(format!(
            "bridge: {place}: {what} {name} was recreated (id {found}, the position was kept under {kept})"
        ))
        .hint("its older events are gone: start again under another job=, or restore the topic")),
        (None, _) | (_, None) => {
            run.control
                .log(Level::Warning, format!("bridge: {place}: {what} {name} has no id: a recreation would go unseen"));
            Ok(())
        }
        _ => Ok(()),
    }
}
