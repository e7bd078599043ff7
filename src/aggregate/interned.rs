//! Texts by small number: each stands once in one run of bytes, and is found by its hash.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Numbers are given in the order of first sight, from 0.
#[derive(Debug, Default, Clone)]
pub struct Interned {
    table: HashTable<Slot>,
    bytes: String,
    /// Where each text ends.
    ends: Vec<usize>,
}

/// Half of the hash is enough to tell nearly all strangers apart and to grow the table, both without a look at a text; where
/// that stands is told here too, or each look would wait for the memory once more.
#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    number: u32,
    /// Where the text begins, and below that its length; [`LONG`] for that and more.
    place: u64,
}

/// A length that the place of a text does not hold: it is looked up.
const LONG: u64 = (1 << LENGTH) - 1;
const LENGTH: u32 = 20;

impl Slot {
    fn is(&self, text: &str, bytes: &str, ends: &[usize]) -> bool {
        let (begin, length) = ((self.place >> LENGTH) as usize, self.place & LONG);
        if length < LONG {
            return length == text.len() as u64 && &bytes.as_bytes()[begin..begin + text.len()] == text.as_bytes();
        }
        slice(bytes, ends, self.number) == text
    }

    /// The table takes its place from the lower bits and its tag from the upper ones.
    fn spread(self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

impl Interned {
    /// The number of `text`, a new one at its first sight.
    pub fn number(&mut self, text: &str) -> u32 {
        let hash = (FixedState::with_seed(0).hash_one(text) >> 32) as u32;
        let number = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        let place = (self.bytes.len() as u64) << LENGTH | (text.len() as u64).min(LONG);
        let new = Slot { hash, number, place };
        let (bytes, ends) = (&self.bytes, &self.ends);
        let same = |slot: &Slot| slot.hash == hash && slot.is(text, bytes, ends);
        match self.table.entry(new.spread(), same, |slot| slot.spread()) {
            Entry::Occupied(found) => return found.get().number,
            Entry::Vacant(place) => place.insert(new),
        };
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len());
        new.number
    }

    /// The text of a number that [`Self::number`] gave.
    #[must_use]
    pub fn text(&self, number: u32) -> &str {
        slice(&self.bytes, &self.ends, number)
    }

    /// All texts, by number.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        (0..u32::try_from(self.ends.len()).unwrap_or(u32::MAX)).map(|number| self.text(number))
    }

    /// Numbers in the order of their texts.
    #[must_use]
    pub fn sorted(&self, numbers: impl Iterator<Item = u32>) -> Vec<u32> {
        let numbers: Vec<u32> = numbers.collect();
        let first = numbers.first().map_or("", |number| self.text(*number)).as_bytes();
        let alike = |same: usize, number: &u32| {
            let (ours, theirs) = (&first[..same], self.text(*number).as_bytes());
            if theirs.starts_with(ours) { same } else { ours.iter().zip(theirs).take_while(|(a, b)| a == b).count() }
        };
        let same = numbers.iter().fold(first.len(), alike);
        // The first bytes beyond what all begin with, as a number, tell most texts apart without a look at them.
        let head = |number: &u32| {
            let rest = &self.text(*number).as_bytes()[same..];
            let mut head = [0; 8];
            let length = rest.len().min(8);
            head[..length].copy_from_slice(&rest[..length]);
            u64::from_be_bytes(head)
        };
        let mut order: Vec<(u64, u32)> = numbers.iter().map(|number| (head(number), *number)).collect();
        order.sort_unstable_by(|one, other| one.0.cmp(&other.0).then_with(|| self.text(one.1).cmp(self.text(other.1))));
        order.into_iter().map(|(_, number)| number).collect()
    }

    /// How many texts there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn heap(&self) -> usize {
        self.bytes.capacity() + 8 * self.ends.capacity() + 17 * self.table.capacity()
    }

    /// The numbers here of all of another's texts, in the order of theirs.
    pub fn adopt(&mut self, other: &Self) -> Vec<u32> {
        (0..u32::try_from(other.ends.len()).unwrap_or(u32::MAX)).map(|number| self.number(other.text(number))).collect()
    }
}

fn slice<'a>(bytes: &'a str, ends: &[usize], number: u32) -> &'a str {
    let number = number as usize;
    let begin = number.checked_sub(1).map_or(0, |before| ends[before]);
    &bytes[begin..ends[number]]
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn every_text_keeps_its_number(texts in proptest::collection::vec("\\PC{0,3}", 0..200)) {
            let (mut one, mut other) = (Interned::default(), Interned::default());
            let numbers: Vec<u32> = texts.iter().map(|text| one.number(text)).collect();
            for text in texts.iter().rev() {
                other.number(text);
            }
            let theirs = one.clone().adopt(&other);
            for (text, number) in texts.iter().zip(numbers) {
                proptest::prop_assert_eq!(one.text(number), text);
                let there = other.number(text);
                proptest::prop_assert_eq!(theirs[there as usize], number);
            }
            let mut sorted: Vec<&str> = one.texts().collect();
            sorted.sort_unstable();
            let numbers = one.sorted(0..u32::try_from(one.len()).expect("few"));
            proptest::prop_assert_eq!(numbers.iter().map(|number| one.text(*number)).collect::<Vec<_>>(), sorted);
        }

        #[test]
        fn texts_that_begin_alike_are_sorted(texts in proptest::collection::vec("device-[a\\x00é]{0,12}", 0..200)) {
            let mut interned = Interned::default();
            for text in &texts {
                interned.number(text);
            }
            let numbers = interned.sorted(0..u32::try_from(interned.len()).expect("few"));
            proptest::prop_assert!(numbers.iter().map(|number| interned.text(*number)).is_sorted());
        }
    }

    #[test]
    fn a_text_of_megabytes_is_found_too() {
        let mut interned = Interned::default();
        let texts = [(1 << 20) - 2, (1 << 20) - 1, 1 << 20, 3 << 20].map(|length| "x".repeat(length));
        for (number, text) in (0..).zip(&texts) {
            assert_eq!((interned.number(text), interned.number(text)), (number, number));
            assert_eq!(interned.text(number), text);
        }
    }
}
