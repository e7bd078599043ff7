//! remote Kafka → transform → local Kafka, exactly once across the two clusters (design section 3).

pub mod settings;

pub use settings::{BridgeResult, BridgeSettings};

use crate::{Control, Error, Result};

/// Copies every event from the kept positions to the source's ends, once, and returns the books of the run.
///
/// # Errors
/// By domain: see [`crate::error::Domain`].
pub fn bridge(_settings: &BridgeSettings, _control: &Control) -> Result<BridgeResult> {
    Err(Error::bug("bridge: not built yet"))
}
