//! Where values come from: every path of a definition in one tree, so that one walk over an event finds all of them.

use super::path::Path;
use crate::json::{Kind, Tape, text};

/// The names that matter inside one object, by length: most members of an event are told apart by that alone.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Where the names of each length begin in `entries`; the last one is their end.
    starts: Vec<u32>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    name: Box<[u8]>,
    /// Where the value's token goes.
    slot: Option<usize>,
    /// What matters inside the value, if it is an object.
    below: Names,
    /// Whether a field takes from it: then it is no unknown member, whatever else it holds.
    taken: bool,
}

/// What a walk has found: for each path the token of its value (0: not there), and the members that no field takes.
#[derive(Debug, Default)]
pub struct Found {
    pub values: Vec<u32>,
    pub unknown: Vec<u32>,
    decoded: Vec<u8>,
}

impl Names {
    /// Adds a path, and returns its slot: the one it has, or `next`.
    pub fn add(&mut self, path: &Path, next: usize, taken: bool) -> usize {
        self.step(path.steps(), next, taken)
    }

    fn step(&mut self, steps: &[String], next: usize, taken: bool) -> usize {
        let [name, rest @ ..] = steps else { return next };
        let at = self.entries.iter().position(|entry| *entry.name == *name.as_bytes()).unwrap_or_else(|| {
            let entry = Entry { name: name.as_bytes().into(), slot: None, below: Self::default(), taken: false };
            self.entries.push(entry);
            self.entries.len() - 1
        });
        let entry = &mut self.entries[at];
        entry.taken |= taken;
        if rest.is_empty() { *entry.slot.get_or_insert(next) } else { entry.below.step(rest, next, taken) }
    }

    /// Sorts the names, once all are added.
    pub fn sort(&mut self) {
        self.entries.sort_by_key(|entry| entry.name.len());
        self.starts.clear();
        for (at, entry) in (0..).zip(&self.entries) {
            while self.starts.len() <= entry.name.len() {
                self.starts.push(at);
            }
        }
        self.starts.push(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        for entry in &mut self.entries {
            entry.below.sort();
        }
    }

    fn entry(&self, name: &[u8]) -> Option<&Entry> {
        let (first, end) = (*self.starts.get(name.len())?, *self.starts.get(name.len() + 1)?);
        self.entries[first as usize..end as usize].iter().find(|entry| *entry.name == *name)
    }

    /// Whether a field takes from the member of this name.
    #[must_use]
    pub fn takes(&self, name: &[u8]) -> bool {
        self.entry(name).is_some_and(|entry| entry.taken)
    }

    /// Walks over a read message and notes every value that has a slot.
    pub fn find(&self, tape: &Tape, message: &[u8], slots: usize, found: &mut Found) {
        found.values.clear();
        found.values.resize(slots, 0);
        found.unknown.clear();
        self.walk(tape, message, 0, true, found);
    }

    fn walk(&self, tape: &Tape, message: &[u8], object: usize, top: bool, found: &mut Found) {
        let end = tape.tokens[object].next;
        let mut member = object + 1;
        while member < end as usize {
            let (key, content) = (tape.tokens[member], tape.tokens[member + 1]);
            let entry = if key.escaped {
                found.decoded.clear();
                // A name with half a surrogate pair is none of ours.
                let whole = text::decode(key.text(message), &mut found.decoded).is_ok();
                self.entry(&found.decoded).filter(|_| whole)
            } else {
                self.entry(key.text(message))
            };
            if let Some(entry) = entry {
                if let Some(slot) = entry.slot {
                    found.values[slot] = index(member + 1);
                }
                if content.kind == Kind::Object && !entry.below.entries.is_empty() {
                    entry.below.walk(tape, message, member + 1, false, found);
                }
            }
            if top && entry.is_none_or(|entry| !entry.taken) {
                found.unknown.push(index(member));
            }
            member = content.next as usize;
        }
    }
}

/// A message is shorter than 4 GiB, and so is its tape.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_walk_finds_what_is_nested_and_what_nobody_takes() {
        let mut names = Names::default();
        let paths = [("a", true), ("a.b", true), (r"a\.b", true), ("g.c.d", true), ("seen", false), ("a", true)];
        let mut slots = 0;
        let places: Vec<usize> = paths
            .iter()
            .map(|(path, taken)| {
                let slot = names.add(&Path::read("x", path).expect("a path"), slots, *taken);
                slots = slots.max(slot + 1);
                slot
            })
            .collect();
        assert_eq!(places, [0, 1, 2, 3, 4, 0]);
        names.sort();
        let message =
            br#"{"x":1,"a":{"b":2,"c":[{"b":9}]},"a.b":3,"\u0067":{"c":{"d":4}},"seen":5,"c":{"d":6},"\ud800":7}"#;
        let mut tape = Tape::default();
        tape.read(message).expect("JSON");
        let mut found = Found::default();
        names.find(&tape, message, slots, &mut found);
        let shown: Vec<&[u8]> = found.values.iter().map(|at| tape.tokens[*at as usize].text(message)).collect();
        assert_eq!(shown, [br#"{"b":2,"c":[{"b":9}]}"#.as_slice(), b"2", b"3", b"4", b"5"]);
        let unknown: Vec<&[u8]> = found.unknown.iter().map(|at| tape.tokens[*at as usize].text(message)).collect();
        assert_eq!(unknown, [b"x".as_slice(), b"seen", b"c", br"\ud800"]);
    }
}
