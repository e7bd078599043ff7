//! Lanes and shards: which partitions of a topic a run owns (design: sixteen fixed lanes).
//!
//! Lanes are fixed so that every layout of shards fences, or is harmless beside, every other one (I3): two runs that
//! share a partition share its lane, whatever their shard counts.

use crate::error::{Error, Result};

/// The number of lanes of every job, for ever: transactional ids are made from it.
pub const LANES: u32 = 16;

/// The lanes that one run takes: those with `lane % count` in `indexes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    indexes: Vec<u32>,
    count: u32,
}

impl Default for Shard {
    fn default() -> Self {
        Self { indexes: vec![0], count: 1 }
    }
}

impl Shard {
    /// Shard or shards `indexes` of `count`.
    ///
    /// # Errors
    /// `Config` when `count` is not in 1..=16, no index is given, or an index is not below `count`.
    pub fn new(indexes: &[u32], count: u32) -> Result<Self> {
        if count == 0 || count > LANES {
            return Err(Error::config(format!("shard: {count} shards asked for"))
                .hint("a job has 16 lanes: give shard=(i, n) with n from 1 to 16"));
        }
        let mut indexes = indexes.to_vec();
        indexes.sort_unstable();
        indexes.dedup();
        if indexes.is_empty() || indexes.iter().any(|index| *index >= count) {
            return Err(Error::config(format!("shard: index {indexes:?} of {count}"))
                .hint(format!("give shard=(i, {count}) with i from 0 to {}", count - 1)));
        }
        Ok(Self { indexes, count })
    }

    /// The lanes of this shard, ascending.
    pub fn lanes(&self) -> impl Iterator<Item = u32> + '_ {
        (0..LANES).filter(|lane| self.indexes.contains(&(lane % self.count)))
    }

    /// Whether this shard owns `partition`.
    #[must_use]
    pub fn owns(&self, partition: i32) -> bool {
        self.indexes.contains(&(lane_of(partition) % self.count))
    }
}

/// The lane of a source partition.
#[must_use]
pub fn lane_of(partition: i32) -> u32 {
    partition.unsigned_abs() % LANES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_covers_each_partition_once() {
        for count in 1..=LANES {
            for partition in 0..100 {
                let owners = (0..count).filter(|i| Shard::new(&[*i], count).is_ok_and(|s| s.owns(partition))).count();
                assert_eq!(owners, 1, "partition {partition} of {count} shards");
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Shard::new(&[0], 0).is_err());
        assert!(Shard::new(&[0], 17).is_err());
        assert!(Shard::new(&[2], 2).is_err());
        assert!(Shard::new(&[], 2).is_err());
    }
}
