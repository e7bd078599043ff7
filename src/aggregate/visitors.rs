//! Who saw which key: exact sets of pairs, kept as a list that is sorted now and then.
//!
//! A list beside a hash set, 662,000 pairs: to append and sort costs a tenth of what it costs to miss the cache at each
//! insert.

use std::borrow::Cow;

use hashbrown::HashMap;

/// Pairs of a key's and a device's number.
#[derive(Debug, Default, Clone)]
pub struct Visitors {
    /// key number << 32 | device number; the first `distinct` of them are sorted and stand once.
    pairs: Vec<u64>,
    distinct: usize,
}

/// Lists shorter than this are not worth a look.
const SMALL: usize = 1 << 16;

impl Visitors {
    /// Of pairs that ascend, each once.
    #[must_use]
    pub fn ascending(pairs: Vec<u64>) -> Self {
        Self { distinct: pairs.len(), pairs }
    }

    /// Adds one pair.
    pub fn add(&mut self, key: u32, device: u32) {
        self.pairs.push(u64::from(key) << 32 | u64::from(device));
        self.settle_many();
    }

    /// Memory follows the distinct pairs, not the events: at most as many again wait to be sorted.
    fn settle_many(&mut self) {
        if self.pairs.len() >= (self.distinct * 2).max(SMALL) {
            self.settle();
        }
    }

    /// Sorts what waits: done by each cursor for itself, before one task merges them all.
    pub fn settle(&mut self) {
        settle(&mut self.pairs);
        self.distinct = self.pairs.len();
    }

    /// Adds another's pairs, its numbers changed to ours.
    pub fn merge(&mut self, other: Self, keys: &[u32], devices: &[u32]) {
        let ours = |pair: u64| {
            let (key, device) = (keys[(pair >> 32) as usize], devices[(pair & 0xffff_ffff) as usize]);
            u64::from(key) << 32 | u64::from(device)
        };
        self.pairs.extend(other.pairs.into_iter().map(ours));
        self.settle_many();
    }

    /// How many devices saw each key that any saw.
    #[must_use]
    pub fn counts(&self) -> HashMap<u32, u64> {
        let mut pairs = Cow::Borrowed(&self.pairs);
        if self.distinct < pairs.len() {
            settle(pairs.to_mut());
        }
        let of_one = pairs.chunk_by(|a, b| a >> 32 == b >> 32);
        of_one.map(|of_one| ((of_one[0] >> 32) as u32, of_one.len() as u64)).collect()
    }

    /// The pairs, `key << 32 | value`; sorted, each once, after [`Self::settle`].
    #[must_use]
    pub fn pairs(&self) -> &[u64] {
        &self.pairs
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn heap(&self) -> usize {
        8 * self.pairs.capacity()
    }
}

fn settle(pairs: &mut Vec<u64>) {
    pairs.sort_unstable();
    pairs.dedup();
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn counts_are_those_of_a_set_however_often_a_pair_comes() {
        let (mut one, mut other) = (Visitors::default(), Visitors::default());
        let mut sets: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        let mut seed = 1_u64;
        for event in 0..4 * SMALL {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (key, device) = ((seed >> 60) as u32, (seed >> 33) as u32 % 20_000);
            sets.entry(key).or_default().insert(device);
            if event % 3 == 0 {
                // Its own numbers, the wrong way round.
                other.add(15 - key, device);
            } else {
                one.add(key, device);
            }
        }
        let keys: Vec<u32> = (0..16).rev().collect();
        let devices: Vec<u32> = (0..20_000).collect();
        one.merge(other, &keys, &devices);
        let wanted: HashMap<u32, u64> = sets.iter().map(|(key, set)| (*key, set.len() as u64)).collect();
        assert_eq!(one.counts(), wanted);
        one.settle();
        assert_eq!(one.counts(), wanted);
    }
}
