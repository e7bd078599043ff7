//! Positions that no longer fit the topic's log: refused (`on_gap="fail"`), or accepted by name, reported, and gone on from
//! at the log's start (`on_gap="earliest"`).
//!
//! One kind is never accepted. Where the log ends before a position, its offsets come again for other events, and their
//! `_id`s are those of documents that are stored already: they would be taken for present.

use std::time::Duration;

use crate::bridge::gaps::Gap;
use crate::bridge::settings::OnGap;
use crate::control::{Control, Level};
use crate::error::{Error, Result};
use crate::kafka::{Cluster, PartitionEnds};

/// What a run says about gaps, and what it found.
#[derive(Debug)]
pub struct Gaps {
    on_gap: OnGap,
    /// As `millpond positions` names it: database and collection.
    place: (String, String),
    pub found: Vec<Gap>,
    pub warnings: Vec<String>,
}

impl Gaps {
    /// None yet.
    #[must_use]
    pub fn new(on_gap: OnGap, database: &str, collection: &str) -> Self {
        Self { on_gap, place: (database.to_owned(), collection.to_owned()), found: Vec::new(), warnings: Vec::new() }
    }

    /// Takes a gap, if the run may.
    ///
    /// # Errors
    /// `Position` telling both ways on.
    pub fn take(&mut self, topic: &str, gap: Gap, told: &str, control: &Control) -> Result<()> {
        let place = format!("topic {topic} partition {}", gap.partition);
        if self.on_gap == OnGap::Fail {
            return Err(Error::position(format!("sink: {place}: {told}")).hint(self.ways_on(gap.to)));
        }
        if !self.found.contains(&gap) {
            let told = format!("{place}: {told}; went on from offset {}", gap.to);
            control.log(Level::Warning, format!("sink: {told}"));
            self.warnings.push(told);
            self.found.push(gap);
        }
        Ok(())
    }

    fn ways_on(&self, start: i64) -> String {
        let (database, collection) = &self.place;
        format!(
            "two ways on: on_gap=\"earliest\" goes on from the log's start ({start}); \
             `millpond positions reset --database {database} --collection {collection}` chooses where"
        )
    }

    /// Where a partition goes on whose position is `next`.
    ///
    /// # Errors
    /// `Position` for a gap that is not accepted.
    pub fn resume(
        &mut self,
        cluster: &Cluster,
        topic: &str,
        end: &PartitionEnds,
        next: i64,
        control: &Control,
    ) -> Result<i64> {
        if next < end.start {
            let gap = Gap { partition: end.partition, from: next, to: end.start };
            let told = format!("offsets {next}..{} were deleted before they were read", end.start);
            self.take(topic, gap, &told, control)?;
            return Ok(end.start);
        }
        if next > end.high_watermark {
            // A new leader's watermark may lag for a moment: asked again before it is believed.
            control.sleep("sink: ask a log end again", Duration::from_secs(1))?;
            let again = cluster.ends(topic, &[end.partition])?;
            if again.first().is_none_or(|again| next > again.high_watermark) {
                return Err(self.past_end(topic, end, next));
            }
        }
        Ok(next)
    }

    fn past_end(&self, topic: &str, end: &PartitionEnds, next: i64) -> Error {
        let high = end.high_watermark;
        Error::position(format!(
            "sink: topic {topic} partition {}: the position {next} lies past the log's end {high}: offsets {high}..{next} \
             and what followed were lost, or the topic was emptied",
            end.partition
        ))
        .hint(format!(
            "restore the topic, or store it in another collection than {}: these offsets come again for other events, \
             whose _ids are taken",
            self.place.1
        ))
    }
}
