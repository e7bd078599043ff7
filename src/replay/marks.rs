//! Which letters were replayed into which topic: a compacted topic on the target cluster, `millpond.replayed.<letters>`,
//! written in the transaction that holds the events. Nothing else of a replay is remembered.

use std::collections::BTreeMap;

use rdkafka::message::Message;
use serde::{Deserialize, Serialize};

use crate::bridge::transaction::Transactions;
use crate::bridge::{positions, record};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::{Cluster, Topic};

#[derive(Serialize, Deserialize)]
struct Key {
    /// Of the dead-letter topic: a topic of the same name that was made anew holds other letters.
    letters_id: Option<String>,
    partition: i32,
    offset: i64,
    target: String,
}

#[derive(Serialize, Deserialize)]
struct Mark {
    target_id: Option<String>,
    replayed_at_ms: i64,
}

/// The letters that were replayed already.
#[derive(Debug, Default)]
pub struct Marks(BTreeMap<i32, Ranges>);

/// Offsets, as ranges from → to (both in): letters are replayed in runs.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<i64, i64>);

impl Ranges {
    fn insert(&mut self, offset: i64) {
        let mut range = (offset, offset);
        if let Some((&from, &to)) = self.0.range(..=offset).next_back() {
            if to >= offset {
                return;
            }
            if to + 1 == offset {
                range.0 = from;
            }
        }
        if let Some(to) = self.0.remove(&(offset + 1)) {
            range.1 = to;
        }
        self.0.insert(range.0, range.1);
    }

    fn holds(&self, offset: i64) -> bool {
        self.0.range(..=offset).next_back().is_some_and(|(_, to)| *to >= offset)
    }
}

impl Marks {
    /// Whether this letter was replayed.
    #[must_use]
    pub fn holds(&self, partition: i32, offset: i64) -> bool {
        self.0.get(&partition).is_some_and(|ranges| ranges.holds(offset))
    }

    /// Adds a letter.
    pub fn insert(&mut self, partition: i32, offset: i64) {
        self.0.entry(partition).or_default().insert(offset);
    }

    /// Reads all marks, up to all that any transaction has written by now.
    ///
    /// # Errors
    /// `Position` when letters were replayed into a topic of this name that is gone; as [`positions::read_settled`].
    pub fn read(cluster: &Cluster, name: &str, letters: &Topic, target: &Topic, control: &Control) -> Result<Self> {
        let topic = cluster.topic(name)?;
        let all: Vec<i32> = (0..topic.partitions).collect();
        let mut marks = Self::default();
        positions::read_settled(cluster, name, &all, control, |message| {
            let (Some(key), Some(value)) = (message.key(), message.payload()) else { return Ok(true) };
            let read =
                serde_json::from_slice(key).and_then(|key: Key| Ok((key, serde_json::from_slice::<Mark>(value)?)));
            let (key, mark) = read.map_err(|error| {
                let place = format!("partition {} offset {}", message.partition(), message.offset());
                Error::position(format!("replay: topic {name}: {place} is no mark of a replay"))
                    .hint("another program writes to this topic, or a newer millpond did")
                    .because(error)
            })?;
            if key.letters_id != letters.id || key.target != target.name {
                return Ok(true);
            }
            if mark.target_id != target.id {
                return Err(Error::position(format!(
                    "replay: topic {} was recreated since letters of {} were replayed into it",
                    target.name, letters.name
                ))
                .hint(format!("to replay them again, delete topic {name}")));
            }
            marks.insert(key.partition, key.offset);
            Ok(true)
        })?;
        Ok(marks)
    }
}

/// Hands the mark of a letter to a producer.
///
/// # Errors
/// As [`record::send_json`].
pub fn write(
    transactions: &Transactions,
    name: &str,
    letters: &Topic,
    target: &Topic,
    (partition, offset): (i32, i64),
    control: &Control,
) -> Result<()> {
    let key = Key { letters_id: letters.id.clone(), partition, offset, target: target.name.clone() };
    let mark = Mark { target_id: target.id.clone(), replayed_at_ms: record::now_ms() };
    // The topic has at least as many partitions as the letters have.
    record::send_json(transactions, name, partition, &key, &mark, control)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_hold_what_was_inserted(offsets in proptest::collection::vec(0_i64..60, 0..80)) {
            let mut ranges = Ranges::default();
            for offset in &offsets {
                ranges.insert(*offset);
            }
            let wanted: BTreeSet<i64> = offsets.into_iter().collect();
            for offset in -1..61 {
                prop_assert_eq!(ranges.holds(offset), wanted.contains(&offset));
            }
            let apart = wanted.iter().filter(|offset| !wanted.contains(&(*offset - 1))).count();
            prop_assert_eq!(ranges.0.len(), apart);
        }
    }
}
