//! Whether the topics that a job wrote are still those, with what it wrote in them. Owns the refusals: events that
//! vanished from the target are never a gap that a run may step over, whatever `on_gap` says.

use std::collections::BTreeMap;

use super::lane::Run;
use super::positions::Kept;
use crate::control::Level;
use crate::error::{Error, Result};
use crate::kafka::{Cluster, Topic};

/// What was deleted from a topic, and whether that can have been its own retention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TargetLog {
    /// The sum of its logs' starts.
    pub start: i64,
    /// No log holds anything.
    pub empty: bool,
    /// Its settings delete nothing: whoever did it meant it.
    pub keeps: bool,
}

impl TargetLog {
    /// Looks at the logs of a topic.
    ///
    /// # Errors
    /// As [`Cluster::ends`].
    pub fn look(cluster: &Cluster, topic: &Topic, settings: &BTreeMap<String, String>) -> Result<Self> {
        let all: Vec<i32> = (0..topic.partitions).collect();
        let ends = cluster.ends(&topic.name, &all)?;
        let is = |name: &str, value: &str| settings.get(name).is_none_or(|found| found == value);
        Ok(Self {
            start: ends.iter().map(|end| end.start).sum(),
            empty: ends.iter().all(|end| end.start == end.high_watermark),
            keeps: is("cleanup.policy", "delete") && is("retention.ms", "-1") && is("retention.bytes", "-1"),
        })
    }

    /// Whether all that was written since `start` was kept is gone, and by somebody's hand.
    const fn emptied(self, start: i64, written: u64) -> bool {
        self.empty && self.keeps && written > 0 && self.start != start
    }
}

/// Compares a kept position with the topics that its job writes now.
///
/// # Errors
/// `Position` naming what was recreated or emptied.
pub fn check(run: &Run, place: &str, kept: &Kept) -> Result<()> {
    let target = &run.target_topics.topic;
    if kept.target_topic != target.name {
        return Err(Error::position(format!(
            "bridge: {place}: the job wrote to topic {}, not {}",
            kept.target_topic, target.name
        ))
        .hint("a job has one target: give another job= for this one"));
    }
    let ids = (kept.target_topic_id.as_deref(), target.id.as_deref());
    same(run, place, "target topic", &target.name, ids)?;
    if run.target_topics.log.emptied(kept.target_start, kept.written) {
        return Err(emptied(run, place, "target topic", &target.name, kept.written));
    }
    let Some(letters) = &run.target_topics.dead_letters else { return Ok(()) };
    if kept.dead_letter_topic.as_deref() != Some(&letters.name) {
        return Ok(());
    }
    let ids = (kept.dead_letter_topic_id.as_deref(), letters.id.as_deref());
    same(run, place, "dead-letter topic", &letters.name, ids)?;
    if run.target_topics.dead_letter_log.emptied(kept.dead_letter_start, kept.dead_lettered) {
        return Err(emptied(run, place, "dead-letter topic", &letters.name, kept.dead_lettered));
    }
    Ok(())
}

/// Compares the id of a topic with the one that a position was kept under. Old brokers have none: that is said.
///
/// # Errors
/// `Position` when both are known and differ.
fn same(run: &Run, place: &str, what: &str, name: &str, ids: (Option<&str>, Option<&str>)) -> Result<()> {
    match ids {
        (Some(kept), Some(found)) if kept != found => Err(Error::position(format!(
            "bridge: {place}: {what} {name} was recreated (id {found}, the position was kept under {kept}): what was written before is gone"
        ))
        .hint(way_on(run))),
        (Some(_), Some(_)) => Ok(()),
        _ => {
            run.control
                .log(Level::Warning, format!("bridge: {place}: {what} {name} has no id: a recreation would go unseen"));
            Ok(())
        }
    }
}

fn emptied(run: &Run, place: &str, what: &str, name: &str, written: u64) -> Error {
    Error::position(format!(
        "bridge: {place}: {what} {name} was emptied: {written} records that came from this partition are gone"
    ))
    .hint(way_on(run))
}

fn way_on(run: &Run) -> String {
    format!(
        "`millpond positions reset --job {}` accepts that; with --to earliest all that the source still has is copied again",
        run.settings.job_name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emptied_is_what_somebody_did() {
        let log = TargetLog { start: 7, empty: true, keeps: true };
        assert!(log.emptied(0, 3));
        // Accepted by a reset, never written, expired by its own settings, or not empty at all.
        assert!(!log.emptied(7, 3));
        assert!(!log.emptied(0, 0));
        assert!(!TargetLog { keeps: false, ..log }.emptied(0, 3));
        assert!(!TargetLog { empty: false, ..log }.emptied(0, 3));
    }
}
