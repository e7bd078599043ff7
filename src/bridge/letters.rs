//! The dead letters of a run, over all its lanes: how many, why, and where the first of each reason was. What a person
//! needs to see when a topic is rotten or a transform refuses everything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::json::DeadLetter;

/// So many reasons are told; the rest are counted.
const TOLD: usize = 5;

/// Counts dead letters and keeps a sample of them.
#[derive(Debug, Default)]
pub struct Letters {
    /// `None`: any number is taken.
    most: Option<u64>,
    /// Whether any event found a place that is none of dead letters.
    passed: AtomicBool,
    seen: Mutex<BTreeMap<&'static str, (u64, String)>>,
}

impl Letters {
    /// With `max_dead_letters` of the run.
    #[must_use]
    pub fn new(most: Option<u64>) -> Self {
        Self { most, ..Self::default() }
    }

    /// Notes that an event was written or filtered.
    pub fn pass(&self) {
        // Read first: the line stays shared between the lanes' cores.
        if !self.passed.load(Ordering::Relaxed) {
            self.passed.store(true, Ordering::Relaxed);
        }
    }

    /// Counts a dead letter and keeps the first of its reason.
    ///
    /// # Errors
    /// `Data` when it is one too many, with a sample of the reasons.
    pub fn add(&self, letter: &DeadLetter, place: &str) -> Result<()> {
        let mut seen = self.lock();
        let first = seen.entry(letter.reason.as_str()).or_insert_with(|| (0, format!("{place}: {}", letter.detail)));
        first.0 += 1;
        let Some(most) = self.most.filter(|most| seen.values().map(|(count, _)| count).sum::<u64>() > *most) else {
            return Ok(());
        };
        let told = told(&seen);
        let all = if self.passed.load(Ordering::Relaxed) { "" } else { ", and no event so far was anything else" };
        Err(Error::data(format!("bridge: more than {most} dead letters{all}: {told}"))
            .hint("look at the events and at the transform (millpond explain transform), then raise max_dead_letters"))
    }

    /// Takes letters back that a transaction did not keep; they are met again.
    pub fn give_back(&self, reasons: &BTreeMap<String, u64>) {
        let mut seen = self.lock();
        for (reason, count) in reasons {
            if let Some((met, _)) = seen.get_mut(reason.as_str()) {
                *met = met.saturating_sub(*count);
            }
        }
    }

    /// What to say of a run whose every event was refused.
    #[must_use]
    pub fn nothing_passed(&self, read: u64, dead_lettered: u64) -> Option<String> {
        (read > 0 && read == dead_lettered)
            .then(|| format!("bridge: every one of {read} events is a dead letter: {}", told(&self.lock())))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, (u64, String)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn told(seen: &BTreeMap<&'static str, (u64, String)>) -> String {
    let mut reasons: Vec<_> = seen.iter().filter(|(_, (count, _))| *count > 0).collect();
    reasons.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let shown: Vec<String> = reasons
        .iter()
        .take(TOLD)
        .map(|(reason, (count, first))| format!("{count} {reason} (first: {first})"))
        .collect();
    let more = reasons.len().saturating_sub(TOLD);
    if more > 0 { format!("{}; {more} reasons more", shown.join("; ")) } else { shown.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Reason;

    #[test]
    fn one_too_many_tells_why_and_where() {
        let letters = Letters::new(Some(2));
        let bad = |reason, detail: &str| DeadLetter::new(reason, detail);
        letters.add(&bad(Reason::Type, "a: a list"), "topic t partition 0 offset 1").expect("taken");
        letters.add(&bad(Reason::Type, "b: a list"), "topic t partition 0 offset 2").expect("taken");
        letters.give_back(&[("type".to_owned(), 1)].into());
        letters.add(&bad(Reason::Empty, "zero bytes"), "topic t partition 0 offset 2").expect("taken");
        assert!(letters.nothing_passed(2, 2).expect("a warning").contains("every one of 2"));
        assert_eq!(letters.nothing_passed(3, 2), None);
        let error =
            letters.add(&bad(Reason::Empty, "zero bytes"), "topic t partition 0 offset 3").expect_err("too many");
        let (empty, first) = ("2 empty (first: topic t partition 0 offset 2: zero bytes)", "offset 1: a: a list");
        assert!(error.what.contains(empty) && error.what.contains(first), "{error}");
        assert!(error.what.contains("no event so far"), "{error}");
        letters.pass();
        let error = letters.add(&bad(Reason::Empty, "zero bytes"), "x").expect_err("too many");
        assert!(!error.what.contains("no event so far"), "{error}");
    }
}
