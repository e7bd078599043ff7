//! Kept positions that no longer fit the source's log. A gap is the operator's choice: refused (`on_gap="fail"`), or
//! accepted by name, reported, and gone on from at the log's start (`on_gap="earliest"`). Never a silent earliest or
//! latest. What became of the *target* is no gap and is never accepted here: see [`super::target_log`].

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::Serialize;

use super::lane::{Part, Run};
use super::positions::Kept;
use super::settings::OnGap;
use crate::control::Level;
use crate::error::{Error, Result};
use crate::kafka::native::{self, TopicId};
use crate::kafka::{PartitionEnds, Topic};

/// Why a lane's reading pauses: its log no longer holds what it asked for.
pub const MET: &str = "gap";
/// How long a look at the source before a commit may take.
const LOOK: Duration = Duration::from_secs(2);

/// What was skipped: the position that no longer fitted, and where the run went on. For a recreated topic `from` is an
/// offset of the older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    pub partition: i32,
    pub from: i64,
    pub to: i64,
}

/// How a position does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// The source topic is another one of the same name.
    Recreated,
    /// Events were deleted before they were read.
    Deleted,
    /// The log is shorter than what was read of it.
    PastEnd,
}

impl Misfit {
    /// How `kept` does not fit the log that `topic` and `end` describe; `None` where it does, or where ids are unknown.
    #[must_use]
    pub fn of(kept: &Kept, topic: &Topic, end: &PartitionEnds) -> Option<Self> {
        let recreated = matches!((&kept.source_topic_id, &topic.id), (Some(kept), Some(found)) if kept != found);
        if recreated {
            Some(Self::Recreated)
        } else if kept.next < end.start {
            Some(Self::Deleted)
        } else if kept.next > end.high_watermark {
            Some(Self::PastEnd)
        } else {
            None
        }
    }

    /// What was lost, in words.
    #[must_use]
    pub fn told(self, kept: &Kept, topic: &Topic, end: &PartitionEnds) -> String {
        let next = kept.next;
        match self {
            Self::Recreated => format!(
                "the topic was recreated (id {}, the position was kept under {}): offsets {next}.. of the older one are gone",
                topic.id.as_deref().unwrap_or("unknown"),
                kept.source_topic_id.as_deref().unwrap_or("unknown")
            ),
            Self::Deleted => format!("offsets {next}..{} were deleted before they were read", end.start),
            Self::PastEnd => format!(
                "the position {next} lies past the log's end {high}: offsets {high}..{next} and what followed were lost, or the topic was emptied",
                high = end.high_watermark
            ),
        }
    }
}

/// The position to resume at, whether it is the kept one, and the log as it was believed.
///
/// # Errors
/// `Position` for a gap that was not accepted; as [`crate::kafka::Cluster::ends`].
pub fn resume(run: &Run, end: &PartitionEnds, kept: &Kept) -> Result<(Kept, bool, PartitionEnds)> {
    let topic = &run.source_topic;
    let Some(mut misfit) = Misfit::of(kept, topic, end) else { return Ok((kept.clone(), true, *end)) };
    let mut end = *end;
    if misfit == Misfit::PastEnd {
        // A new leader's watermark may lag for a moment: asked again before it is believed.
        let told = misfit.told(kept, topic, &end);
        run.control.log(
            Level::Info,
            format!("bridge: topic {} partition {}: {told}: asked again in a second", topic.name, end.partition),
        );
        run.control.sleep("bridge: ask a log end again", Duration::from_secs(1))?;
        let again = run.source.ends(&topic.name, &[end.partition])?;
        end = again.first().copied().unwrap_or(end);
        match Misfit::of(kept, topic, &end) {
            Some(still) => misfit = still,
            None => return Ok((kept.clone(), true, end)),
        }
    }
    accept(run, &end, kept, &misfit.told(kept, topic, &end)).map(|kept| (kept, false, end))
}

/// What a lane does whose consumer was told that an offset is not there (any more).
///
/// # Errors
/// `Position` for a gap that was not accepted; `External` when the log holds all after all.
pub fn met(run: &Run, parts: &mut [Part]) -> Result<()> {
    let topic = &run.source_topic;
    let open: Vec<i32> = parts.iter().filter(|part| !part.finished).map(|part| part.partition).collect();
    let found = run.source.topic(&topic.name)?;
    if let (Some(before), Some(now)) = (&topic.id, &found.id)
        && before != now
    {
        return Err(swapped(run, now));
    }
    let ends = run.source.ends(&topic.name, &open)?;
    let mut any = false;
    for part in parts.iter_mut().filter(|part| !part.finished) {
        let Some(end) = ends.iter().find(|end| end.partition == part.partition) else { continue };
        let Some(misfit) = Misfit::of(&part.kept, topic, end) else { continue };
        if misfit == Misfit::Deleted {
            any = true;
            part.kept = accept(run, end, &part.kept, &misfit.told(&part.kept, topic, end))?;
            part.known = false;
            part.finished = part.kept.next >= part.end;
        }
    }
    if any {
        return Ok(());
    }
    Err(Error::external(format!("source: topic {} did not have an offset that it has now", topic.name))
        .hint("a leader moved: retry"))
}

/// Refuses to commit what may have been read from another topic of the same name: librdkafka goes on in it at the offset
/// where it was. Ids never come back, so that one look before the commit judges all that was read.
///
/// # Errors
/// `Position` when the source topic was recreated since the run began.
pub fn refuse_swapped(run: &Run) -> Result<()> {
    let topic = &run.source_topic;
    match (&topic.id, native::topic_id(run.source.client.client(), &topic.name, LOOK)) {
        (Some(before), Ok(TopicId::Known(now))) if *before != now => Err(swapped(run, &now)),
        // A source that does not answer now, or is gone, was not another one.
        _ => Ok(()),
    }
}

/// Whatever is accepted, the run began with another log: the next one decides.
fn swapped(run: &Run, now: &str) -> Error {
    let name = &run.source_topic.name;
    Error::position(format!("bridge: topic {name} was recreated (id {now}) while it was being read"))
        .hint(ways_on(run, 0))
}

fn accept(run: &Run, end: &PartitionEnds, kept: &Kept, told: &str) -> Result<Kept> {
    let place = format!("topic {} partition {}", run.source_topic.name, end.partition);
    if run.settings.on_gap == OnGap::Fail {
        return Err(Error::position(format!("bridge: {place}: {told}")).hint(ways_on(run, end.start)));
    }
    let gap = Gap { partition: end.partition, from: kept.next, to: end.start };
    run.control.log(Level::Warning, format!("bridge: {place}: {told}; goes on from offset {}", end.start));
    run.said.gap(gap, format!("{place}: {told}; went on from offset {}", end.start));
    Ok(Kept { next: end.start, source_topic_id: run.source_topic.id.clone(), ..kept.clone() })
}

fn ways_on(run: &Run, start: i64) -> String {
    format!(
        "two ways on: on_gap=\"earliest\" goes on from the log's start ({start}); `millpond positions reset --job {}` chooses where",
        run.settings.job_name()
    )
}

/// Whether a consumer was told that the offset it asked for is not in the log.
#[must_use]
pub fn is_told_by(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(id: Option<&str>) -> Topic {
        Topic { name: "t".into(), id: id.map(str::to_owned), partitions: 1 }
    }

    fn of(next: i64, kept_id: Option<&str>, found_id: Option<&str>) -> Option<Misfit> {
        let kept = Kept { next, source_topic_id: kept_id.map(str::to_owned), ..Kept::default() };
        let end = PartitionEnds { partition: 0, start: 10, last_stable: 15, high_watermark: 20 };
        Misfit::of(&kept, &topic(found_id), &end)
    }

    #[test]
    fn only_positions_inside_the_same_log_fit() {
        for inside in [10, 15, 20] {
            assert_eq!(of(inside, Some("a"), Some("a")), None);
            assert_eq!(of(inside, Some("a"), Some("b")), Some(Misfit::Recreated));
            // Old brokers have no ids: unknown is no gap.
            assert_eq!(of(inside, None, Some("b")), None);
            assert_eq!(of(inside, Some("a"), None), None);
        }
        assert_eq!(of(9, Some("a"), Some("a")), Some(Misfit::Deleted));
        assert_eq!(of(21, None, None), Some(Misfit::PastEnd));
        assert_eq!(of(9, Some("a"), Some("b")), Some(Misfit::Recreated));
    }
}
