//! Partials beyond `memory_limit`: cut into parts by hash, kept in one temporary file as Arrow, and added up part by part,
//! exactly. A key's row goes where its hash says, each pair of key and distinct value where theirs does: no value of a key
//! is in two parts, so the parts' counts add up, and one key of a million visitors is no larger than its share.
//!
//! The file has no name: nothing is left of it however the process ends.

use std::fs::File;
use std::hash::BuildHasher;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Mutex, PoisonError};

use foldhash::fast::FixedState;

use super::arrow;
use super::partial::{DatePartial, Groups, Partial};
use super::reports::plan::Plan;
use super::states::State;
use crate::error::{Error, Result};

/// A part is merged in memory: the need may be about so many times the limit.
const PARTS: usize = 64;

/// What was put aside.
#[derive(Debug)]
pub struct Spill {
    limit: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    file: Option<File>,
    end: u64,
    /// By part, where its pieces begin and how long they are.
    pieces: Vec<Vec<(u64, usize)>>,
}

impl Spill {
    /// Nothing yet; Partials together may take `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), kept: Mutex::default() }
    }

    /// What one of `cursors` may hold; one share is left for merging.
    #[must_use]
    pub fn share(&self, cursors: usize) -> usize {
        self.limit / (cursors + 1)
    }

    /// How many bytes were put aside.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).end
    }

    /// Puts the rows of a Partial aside; its books stay.
    ///
    /// # Errors
    /// `External` when the file cannot be written.
    pub fn put(&self, partial: &mut Partial, plan: &Plan) -> Result<()> {
        partial.settle();
        let cut = Cut::of(partial, PARTS);
        for part in 0..PARTS {
            let bytes = arrow::write(&cut.part(part), plan)?;
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.file.is_none() {
                kept.file = Some(unnamed().map_err(unwritten)?);
                kept.pieces = vec![Vec::new(); PARTS];
            }
            let at = kept.end;
            if let Some(file) = &kept.file {
                file.write_all_at(&bytes, at).map_err(unwritten)?;
            }
            kept.end += bytes.len() as u64;
            kept.pieces[part].push((at, bytes.len()));
        }
        partial.forget_rows(plan);
        Ok(())
    }

    /// Adds up what was put aside to `whole`, which has the books.
    ///
    /// # Errors
    /// `External` when the file cannot be read; `Data` when the rows alone take more than the limit.
    pub fn total(&self, whole: &mut Partial, plan: &Plan) -> Result<()> {
        let what = "aggregate: read a temporary file";
        for part in 0..PARTS {
            let mut sum = Partial::new();
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(file) = &kept.file else { return Ok(()) };
            for (at, length) in &kept.pieces[part] {
                let mut bytes = vec![0; *length];
                file.read_exact_at(&mut bytes, *at).map_err(|error| Error::external(what).because(error))?;
                sum.merge(arrow::read(&bytes, plan)?);
            }
            drop(kept);
            for state in sum.dates.values_mut().flat_map(|date| &mut date.reports).flat_map(|groups| &mut groups.states)
            {
                if let State::Distinct(distinct) = state {
                    distinct.settle_for_good();
                }
            }
            sum.values = super::interned::Interned::default();
            whole.merge(sum);
            if whole.heap() > self.limit {
                return Err(Error::data(format!(
                    "aggregate: the rows of the reports alone take more than memory_limit, {} bytes",
                    self.limit
                ))
                .hint("raise memory_limit, ask for fewer dates, or give keys with fewer values"));
            }
        }
        Ok(())
    }
}

/// What is said when a temporary file cannot be written.
pub(super) fn unwritten(error: std::io::Error) -> Error {
    Error::external(format!("aggregate: write a temporary file in {}", std::env::temp_dir().display()))
        .hint("free some space, point TMPDIR elsewhere, or raise memory_limit")
        .because(error)
}

/// A temporary file of which nothing is left however the process ends.
pub(super) fn unnamed() -> std::io::Result<File> {
    let path = std::env::temp_dir().join(format!("millpond-{}", uuid::Uuid::new_v4()));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// A Partial with the hashes of its texts, to be cut into so many parts.
#[derive(Debug)]
pub struct Cut<'a> {
    partial: &'a Partial,
    values: Vec<u32>,
    parts: usize,
}

fn hash(text: &str) -> u32 {
    // Another seed than that of the tables of texts: a part must not fill a corner of them.
    (FixedState::with_seed(0x7061_7274).hash_one(text) >> 32) as u32
}

/// Which of so many parts a hash leads to.
fn part_of(hash: u32, parts: usize) -> usize {
    ((u64::from(hash.wrapping_mul(0x9e37_79b9)) * parts as u64) >> 32) as usize
}

impl<'a> Cut<'a> {
    /// Looks at a settled Partial.
    #[must_use]
    pub fn of(partial: &'a Partial, parts: usize) -> Self {
        Self { partial, values: partial.values.texts().map(hash).collect(), parts }
    }

    /// The rows of one part, and no books.
    #[must_use]
    pub fn part(&self, part: usize) -> Partial {
        let mut made = Partial::new();
        for (date, groups) in &self.partial.dates {
            let mut of_date = DatePartial::default();
            for groups in &groups.reports {
                let hashes: Vec<u32> = groups.keys.texts().map(hash).collect();
                of_date.reports.push(self.groups(part, groups, &hashes, &mut made));
            }
            if of_date.reports.iter().any(|groups| !groups.events.is_empty()) {
                made.dates.insert(*date, of_date);
            }
        }
        made
    }

    fn groups(&self, part: usize, groups: &Groups, hashes: &[u32], made: &mut Partial) -> Groups {
        let mine = hashes.iter().zip(0_u32..).filter(|(hash, _)| part_of(**hash, self.parts) == part);
        let mine: Vec<u32> = mine.map(|(_, row)| row).collect();
        let mut cut = groups.picked(&mine);
        for at in 0..groups.states.len() {
            let State::Distinct(distinct) = &groups.states[at] else { continue };
            for pair in distinct.seen.pairs() {
                let (row, value) = ((pair >> 32) as u32, (pair & 0xffff_ffff) as u32);
                let hash = hashes[row as usize] ^ self.values[value as usize].rotate_left(16);
                if part_of(hash, self.parts) == part {
                    let row = cut.row(groups.keys.text(row));
                    let value = made.values.number(self.partial.values.text(value));
                    if let State::Distinct(cut) = &mut cut.states[at] {
                        cut.seen.add(row, value);
                    }
                }
            }
        }
        cut.settle();
        cut
    }
}
