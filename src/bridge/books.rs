//! The books of a lane (I1): what a transaction would add, and what became of it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::lane::{Part, Run};
use super::positions::{self, Kept, Key};
use crate::error::{Error, Result};

/// The committed books of a lane.
#[derive(Debug, Default, Clone)]
pub struct Books {
    pub read: u64,
    pub written: u64,
    pub filtered: u64,
    pub dead_lettered: u64,
    pub reasons: BTreeMap<String, u64>,
    pub bytes: u64,
    pub transactions: u64,
    pub limited: Option<&'static str>,
}

impl Books {
    /// Adds other books to these.
    pub fn add(&mut self, other: Self) {
        self.read += other.read;
        self.written += other.written;
        self.filtered += other.filtered;
        self.dead_lettered += other.dead_lettered;
        self.bytes += other.bytes;
        self.transactions += other.transactions;
        self.limited = self.limited.or(other.limited);
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
    }
}

/// What a transaction holds that is not committed yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub books: Books,
    pub kept: BTreeMap<i32, Kept>,
    /// Events of it that the progress counts already.
    pub told: u64,
}

/// The position of a finished partition is its end, though control records or compaction left no event there.
pub(super) fn finish(run: &Run, part: &mut Part, pending: &mut Pending) {
    part.finished = true;
    let end = part.end;
    let kept = pending.kept.entry(part.partition).or_insert_with(|| fresh(run, &part.kept));
    kept.next = kept.next.max(end);
}

/// What is kept of a partition once this run has written to it.
pub(super) fn fresh(run: &Run, old: &Kept) -> Kept {
    let topics = &run.target_topics;
    Kept {
        source_topic_id: run.source_topic.id.clone(),
        target_topic: topics.topic.name.clone(),
        target_topic_id: topics.topic.id.clone(),
        dead_letter_topic: topics.dead_letters.as_ref().map(|topic| topic.name.clone()),
        dead_letter_topic_id: topics.dead_letters.as_ref().and_then(|topic| topic.id.clone()),
        target_start: topics.log.start,
        dead_letter_start: topics.dead_letter_log.start,
        transform: run.transform_name.clone(),
        ..old.clone()
    }
}

/// After a doubtful commit: the kept positions, not we, say whether it happened.
///
/// # Errors
/// As [`positions::read`]; `Fenced` when somebody else moved a position; `Bug` when half a transaction is there.
pub(super) fn settle(run: &Run, parts: &mut [Part], books: &mut Books, pending: Pending) -> Result<()> {
    let numbers: Vec<i32> = parts.iter().map(|part| part.partition).collect();
    let found = positions::read(&run.target, &run.positions_topic, &numbers, &run.control)?;
    let kept = |partition: i32| {
        let key = Key { cluster: run.source.id.clone(), topic: run.source_topic.name.clone(), partition };
        found.get(&key)
    };
    // By all that they say: after a gap, or in a recreated topic, an older position may lie further on.
    let landed = |partition: i32| pending.kept.get(&partition).is_some_and(|new| kept(partition) == Some(new));
    let moved = |part: &Part| part.known && kept(part.partition) != Some(&part.kept);
    if let Some(part) = parts.iter().find(|part| moved(part) && !landed(part.partition)) {
        return Err(Error::fenced(format!(
            "bridge: topic {} partition {}: the position was moved meanwhile",
            run.positions_topic, part.partition
        ))
        .hint("another run of this job took over, or a reset came; this one ends without harm"));
    }
    let count = pending.kept.keys().filter(|partition| landed(**partition)).count();
    if count > 0 && count < pending.kept.len() {
        return Err(Error::bug(format!("bridge: topic {} holds half a transaction", run.positions_topic)));
    }
    if count > 0 {
        commit_books(run, parts, books, pending);
    } else {
        give_back(run, &pending.books);
    }
    for part in parts.iter_mut() {
        // One that was accepted past a gap, or never seen, stands where this run put it.
        if part.known
            && let Some(kept) = kept(part.partition)
        {
            part.kept = kept.clone();
        }
        part.finished = part.kept.next >= part.end;
    }
    Ok(())
}

fn give_back(run: &Run, books: &Books) {
    run.budget.fetch_add(books.read.cast_signed(), Ordering::AcqRel);
    run.letters.give_back(&books.reasons);
}

/// Adds a committed transaction to the lane's books and moves its positions.
pub(super) fn commit_books(run: &Run, parts: &mut [Part], books: &mut Books, pending: Pending) {
    let new = Books { transactions: 1, ..pending.books };
    run.control.add_read(new.read - pending.told);
    run.control.add_written(new.written);
    run.control.add_dead_lettered(new.dead_lettered);
    books.add(new);
    for part in parts {
        if let Some(kept) = pending.kept.get(&part.partition) {
            // Offsets without an event: nobody need wait for them.
            let read = kept.read.saturating_sub(part.kept.read);
            let passed = u64::try_from(kept.next - part.kept.next).unwrap_or(0);
            run.control.drop_total(passed.saturating_sub(read));
            part.kept = kept.clone();
            part.known = true;
        }
    }
}

/// I1: every event read ended in exactly one place.
///
/// # Errors
/// `Bug` when it did not.
pub(super) fn balance(books: &Books) -> Result<()> {
    if books.read == books.written + books.filtered + books.dead_lettered {
        return Ok(());
    }
    Err(Error::bug(format!(
        "bridge: the books do not balance: read {} != written {} + filtered {} + dead_lettered {}",
        books.read, books.written, books.filtered, books.dead_lettered
    )))
}
