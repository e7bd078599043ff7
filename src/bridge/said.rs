//! What lanes have to say that belongs into the result: gaps that were accepted, and warnings.

use std::sync::{Mutex, PoisonError};

use super::gaps::Gap;

/// Shared by the lanes of a run.
#[derive(Debug, Default)]
pub struct Said(Mutex<(Vec<Gap>, Vec<String>)>);

impl Said {
    /// Notes a gap that was accepted, once: a lane that starts again meets it again.
    pub fn gap(&self, gap: Gap, told: String) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.0.contains(&gap) {
            said.0.push(gap);
            said.1.push(told);
        }
    }

    /// Notes what the result should warn of.
    pub fn warning(&self, told: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.push(told);
    }

    /// All of it, gaps by partition.
    #[must_use]
    pub fn take(&self) -> (Vec<Gap>, Vec<String>) {
        let mut said = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        said.0.sort_by_key(|gap| (gap.partition, gap.from));
        said
    }
}
