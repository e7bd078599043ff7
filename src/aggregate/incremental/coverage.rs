//! Positions as a set of events: all that lie below them. Each source's own, since two topics of one name are two sources.

use std::collections::{BTreeMap, VecDeque};

use bson::oid::ObjectId;
use bson::{Document, doc};
use serde_json::{Map, Value};

use crate::aggregate::covered::{Covered, Offsets};
use crate::error::{Error, Result};
use crate::mongo::sources::event_id;

/// Offsets of one range that is read, and the most ranges of one partition.
const OFFSETS: i64 = 100_000;
const MOST_RANGES: i64 = 64;

/// By source tag and partition, the next offset. What is missing is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<(u32, u16), i64>);

impl Coverage {
    /// What a collection's positions cover.
    #[must_use]
    pub fn of(covered: &Covered) -> Self {
        let each = |(tag, partitions): (&u32, &Offsets)| {
            partitions.iter().map(|(partition, next)| ((*tag, *partition), *next)).collect::<Vec<_>>()
        };
        Self(covered.sources.iter().flat_map(each).collect())
    }

    /// Whether it holds no event at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|next| *next == 0)
    }

    fn next(&self, place: (u32, u16)) -> i64 {
        self.0.get(&place).copied().unwrap_or(0)
    }

    /// Whether the event of an `_id` lies below.
    #[must_use]
    pub fn holds(&self, id: &[u8; 12]) -> bool {
        let tag = u32::from_be_bytes([id[0], id[1], id[2], id[3]]);
        let offset = i64::from_be_bytes([0, 0, id[6], id[7], id[8], id[9], id[10], id[11]]);
        offset < self.next((tag, u16::from_be_bytes([id[4], id[5]])))
    }

    /// Whether all its events are among another's.
    #[must_use]
    pub fn within(&self, other: &Self) -> bool {
        self.0.iter().all(|(place, next)| *next <= other.next(*place))
    }

    /// What both hold.
    #[must_use]
    pub fn least(&self, other: &Self) -> Self {
        Self(self.0.iter().map(|(place, next)| (*place, (*next).min(other.next(*place)))).collect())
    }

    /// How many offsets of another it does not hold.
    #[must_use]
    pub fn offsets_to(&self, other: &Self) -> i64 {
        other.0.iter().map(|(place, next)| (next - self.next(*place)).max(0)).sum()
    }

    /// The events of another that it does not hold, as ranges of `_id`.
    ///
    /// # Errors
    /// `Bug` for a position that fits into no `_id`.
    pub fn ranges_to(&self, other: &Self) -> Result<VecDeque<Document>> {
        let mut ranges = VecDeque::new();
        for ((tag, partition), end) in &other.0 {
            let mut from = self.next((*tag, *partition));
            let step = OFFSETS.max((end - from) / MOST_RANGES);
            while from < *end {
                let to = from.saturating_add(step).min(*end);
                ranges.push_back(doc! {"_id": {
                    "$gte": id(*tag, *partition, from)?, "$lt": id(*tag, *partition, to)?,
                }});
                from = to;
            }
        }
        Ok(ranges)
    }

    /// All that its sources and those of `tags` may ever hold beyond it, as ranges of `_id`.
    ///
    /// # Errors
    /// `Bug` for a position that fits into no `_id`.
    pub fn beyond(&self, tags: impl Iterator<Item = u32>) -> Result<Vec<Document>> {
        let mut ranges = Vec::new();
        for tag in tags {
            let mut low = id(tag, 0, 0)?;
            for ((_, partition), next) in self.0.range((tag, 0)..=(tag, u16::MAX)) {
                let begin = id(tag, *partition, 0)?;
                if low < begin {
                    ranges.push(doc! {"_id": {"$gte": low, "$lt": begin}});
                }
                low = id(tag, *partition, *next)?;
            }
            ranges.push(doc! {"_id": {"$gte": low, "$lte": id(tag, u16::MAX, (1 << 48) - 1)?}});
        }
        Ok(ranges)
    }

    /// As it is kept: `{"<tag in hex>/<partition>": next}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let all = self.0.iter().map(|((tag, partition), next)| (format!("{tag:08x}/{partition}"), Value::from(*next)));
        Value::Object(all.collect::<Map<_, _>>()).to_string()
    }

    /// Reads it back; `None` for what [`Self::to_json`] does not write.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        let Ok(Value::Object(all)) = serde_json::from_str(text) else { return None };
        let one = |(place, next): (&String, &Value)| {
            let (tag, partition) = place.split_once('/')?;
            Some(((u32::from_str_radix(tag, 16).ok()?, partition.parse().ok()?), next.as_i64()?))
        };
        all.iter().map(one).collect::<Option<_>>().map(Self)
    }
}

fn id(tag: u32, partition: u16, offset: i64) -> Result<ObjectId> {
    let fits = event_id(tag, i32::from(partition), offset);
    fits.map(ObjectId::from_bytes).map_err(|error| Error::bug("aggregate: a position fits into no _id").because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(places: &[(u32, u16, i64)]) -> Coverage {
        Coverage(places.iter().map(|(tag, partition, next)| ((*tag, *partition), *next)).collect())
    }

    #[test]
    fn it_is_a_set_of_events() {
        let (less, more) = (of(&[(1, 0, 5), (2, 3, 7)]), of(&[(1, 0, 5), (1, 1, 4), (2, 3, 9)]));
        assert!(less.within(&more) && !more.within(&less));
        assert_eq!(less.offsets_to(&more), 6);
        assert_eq!(more.least(&less), of(&[(1, 0, 5), (1, 1, 0), (2, 3, 7)]));
        assert!(less.holds(&event_id(2, 3, 6).expect("fits")) && !less.holds(&event_id(2, 3, 7).expect("fits")));
        assert!(!less.holds(&event_id(9, 0, 0).expect("fits")));
        assert_eq!(Coverage::from_json(&more.to_json()), Some(more.clone()));
        assert_eq!(less.ranges_to(&more).expect("fit").len(), 2);
        assert_eq!(of(&[]).ranges_to(&of(&[(1, 0, 250_000)])).expect("fit").len(), 3);
        // Partition 0 is covered to 5 of source 1: the rest of it, and all the others, are one range each.
        assert_eq!(less.beyond([1, 2].into_iter()).expect("fit").len(), 3);
        assert!(Coverage::from_json("{\"x\":1}").is_none() && Coverage::from_json("").is_none());
    }
}
