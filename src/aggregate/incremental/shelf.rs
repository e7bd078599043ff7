//! What is to be kept, until the publication writes it: in memory up to a bound, beyond that in a file without a name.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::aggregate::spill::{unnamed, unwritten};
use crate::error::{Error, Result};

/// Bytes of many dates.
#[derive(Debug)]
pub struct Shelf {
    bound: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    in_memory: usize,
    file: Option<Arc<File>>,
    end: u64,
}

/// Where bytes are.
#[derive(Debug, Clone)]
pub enum Placed {
    /// Here.
    Memory(Vec<u8>),
    /// In a file that all share.
    File { file: Arc<File>, at: u64, length: usize },
}

impl Shelf {
    /// An empty one that holds up to `bound` bytes in memory.
    #[must_use]
    pub fn new(bound: u64) -> Self {
        Self { bound: usize::try_from(bound).unwrap_or(usize::MAX), kept: Mutex::default() }
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// `External` when the file cannot be written.
    pub fn put(&self, bytes: Vec<u8>) -> Result<Placed> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.in_memory + bytes.len() <= self.bound {
            kept.in_memory += bytes.len();
            return Ok(Placed::Memory(bytes));
        }
        let file = match &kept.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(kept.file.insert(Arc::new(unnamed().map_err(unwritten)?))),
        };
        let at = kept.end;
        file.write_all_at(&bytes, at).map_err(unwritten)?;
        kept.end += bytes.len() as u64;
        Ok(Placed::File { file, at, length: bytes.len() })
    }
}

impl Placed {
    /// The bytes.
    ///
    /// # Errors
    /// `External` when the file cannot be read.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        let (file, at, length) = match self {
            Self::Memory(bytes) => return Ok(Cow::Borrowed(bytes)),
            Self::File { file, at, length } => (file, at, length),
        };
        let mut bytes = vec![0; *length];
        let read = file.read_exact_at(&mut bytes, *at);
        read.map_err(|error| Error::external("aggregate: read a temporary file").because(error))?;
        Ok(Cow::Owned(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_bound_lies_in_a_file_and_comes_back() {
        let shelf = Shelf::new(10);
        let all: Vec<Vec<u8>> = (0..6).map(|i| vec![i; 4]).collect();
        let placed: Vec<Placed> = all.iter().map(|bytes| shelf.put(bytes.clone()).expect("there is room")).collect();
        assert_eq!(placed.iter().filter(|one| matches!(one, Placed::Memory(_))).count(), 2);
        for (placed, bytes) in placed.iter().zip(&all) {
            assert_eq!(*placed.bytes().expect("it is there"), **bytes);
        }
    }
}
