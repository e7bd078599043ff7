//! A job's kept positions beside the source's logs, for people: what a run would begin with, and whether it fits. Reads
//! only; [`super::reset`] moves positions.

use std::sync::Arc;

use serde::Serialize;

use super::gaps::Misfit;
use super::positions::{self, Kept, Positions};
use super::settings::{Properties, topic_name};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::{Cluster, PartitionEnds, Role, Topic};

/// Whose positions are shown or moved.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// Where the events come from; without it, only what is kept is shown.
    pub source: Option<Properties>,
    pub target: Properties,
    pub job: String,
}

/// The positions of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inventory {
    pub job: String,
    pub positions_topic: String,
    pub source_cluster: String,
    pub source_topic: String,
    pub positions: Vec<Place>,
    pub warnings: Vec<String>,
}

/// One source partition: what is kept, and the log as it is now. What is not known is null.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Place {
    pub partition: i32,
    /// The next offset to read.
    pub next: Option<i64>,
    /// The first offset that the source still has.
    pub start: Option<i64>,
    /// The source's last stable offset, where a run would end.
    pub end: Option<i64>,
    pub lag: Option<i64>,
    pub held_back: Option<i64>,
    /// What does not fit; empty where all does.
    pub problem: String,
    pub kept: Option<Kept>,
}

/// What is kept of a job, and the two ends of it.
pub struct Job {
    pub target: Cluster,
    pub source: Option<(Cluster, Topic)>,
    pub topic_name: String,
    pub source_cluster: String,
    pub source_topic: String,
    pub kept: Positions,
    pub warnings: Vec<String>,
}

impl Job {
    /// Reads the positions of a job and looks its source up.
    ///
    /// # Errors
    /// `Config` when the job keeps none; `Position` when they are of several sources; as [`Cluster::connect`].
    pub fn open(settings: &JobSettings, control: &Arc<Control>) -> Result<Self> {
        let name = positions::topic_name(&settings.job);
        topic_name("job", &name)?;
        let target = Cluster::connect(&settings.target, Role::Target, control)?;
        let none = || {
            Error::config(format!("positions: job {} keeps none on target (topic {name})", settings.job))
                .hint("check --job and --target: a job is called <source_topic>-to-<target_topic> unless named")
        };
        let topic = target.find_topic(&name)?.ok_or_else(none)?;
        let kept = read(&target, &topic, control)?;
        let first = kept.keys().next().ok_or_else(none)?.clone();
        if let Some(other) = kept.keys().find(|key| (&key.cluster, &key.topic) != (&first.cluster, &first.topic)) {
            return Err(Error::position(format!(
                "positions: topic {name} holds those of two sources: topic {} on cluster {}, topic {} on cluster {}",
                first.topic, first.cluster, other.topic, other.cluster
            ))
            .hint("a job has one source: begin anew under another job name"));
        }
        let mut warnings = Vec::new();
        let source = match &settings.source {
            None => None,
            Some(properties) => {
                let source = Cluster::connect(properties, Role::Source, control)?;
                if source.id == first.cluster {
                    source.find_topic(&first.topic)?.map(|topic| (source, topic))
                } else {
                    warnings.push(format!(
                        "the positions are of cluster {}, source is cluster {}: its logs are not compared",
                        first.cluster, source.id
                    ));
                    None
                }
            }
        };
        if settings.source.is_some() && source.is_none() && warnings.is_empty() {
            warnings.push(format!("source: topic {} does not exist", first.topic));
        }
        let (source_cluster, source_topic) = (first.cluster, first.topic);
        Ok(Self { target, source, topic_name: name, source_cluster, source_topic, kept, warnings })
    }

    /// What is kept of a partition.
    #[must_use]
    pub fn kept(&self, partition: i32) -> Option<&Kept> {
        self.kept.iter().find(|(key, _)| key.partition == partition).map(|(_, kept)| kept)
    }

    /// Every partition that the source has or that something is kept of.
    #[must_use]
    pub fn partitions(&self) -> Vec<i32> {
        let mut all: Vec<i32> = self.kept.keys().map(|key| key.partition).collect();
        all.extend(0..self.source.as_ref().map_or(0, |(_, topic)| topic.partitions));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The source's logs as they are now.
    ///
    /// # Errors
    /// As [`Cluster::ends`].
    pub fn ends(&self) -> Result<Vec<PartitionEnds>> {
        let Some((source, topic)) = &self.source else { return Ok(Vec::new()) };
        source.ends(&topic.name, &(0..topic.partitions).collect::<Vec<_>>())
    }
}

/// Reads all that a positions topic holds.
///
/// # Errors
/// As [`positions::read`].
pub fn read(target: &Cluster, topic: &Topic, control: &Control) -> Result<Positions> {
    positions::read(target, &topic.name, &(0..topic.partitions).collect::<Vec<_>>(), control)
}

/// Shows the positions of a job.
///
/// # Errors
/// As [`Job::open`] and [`Job::ends`].
pub fn show(settings: &JobSettings, control: &Arc<Control>) -> Result<Inventory> {
    let job = Job::open(settings, control)?;
    let ends = job.ends()?;
    let topic = job.source.as_ref().map(|(_, topic)| topic);
    let positions = job
        .partitions()
        .into_iter()
        .map(|partition| {
            let end = ends.iter().find(|end| end.partition == partition);
            place(partition, job.kept(partition), topic, end)
        })
        .collect();
    Ok(Inventory {
        job: settings.job.clone(),
        positions_topic: job.topic_name.clone(),
        source_cluster: job.source_cluster.clone(),
        source_topic: job.source_topic.clone(),
        positions,
        warnings: job.warnings,
    })
}

fn place(partition: i32, kept: Option<&Kept>, topic: Option<&Topic>, end: Option<&PartitionEnds>) -> Place {
    let next = kept.map(|kept| kept.next);
    let problem = match (kept, topic, end) {
        (Some(kept), Some(topic), Some(end)) => {
            Misfit::of(kept, topic, end).map(|misfit| misfit.told(kept, topic, end)).unwrap_or_default()
        }
        (Some(_), Some(_), None) => "the source has no such partition".into(),
        (None, ..) => "no position is kept: a run begins at its start=".into(),
        _ => String::new(),
    };
    Place {
        partition,
        next,
        start: end.map(|end| end.start),
        end: end.map(|end| end.last_stable),
        lag: end.map(|end| (end.last_stable - next.unwrap_or(end.start).max(end.start)).max(0)),
        held_back: end.map(|end| end.high_watermark - end.last_stable),
        problem,
        kept: kept.cloned(),
    }
}
