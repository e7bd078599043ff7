//! Kafka → MongoDB in batches, effectively once (design sections 4 and 5).

pub mod settings;

pub use settings::{SinkResult, SinkSettings};

use crate::{Control, Error, Result};

/// Stores every event from the kept positions to the topic's ends, once, and returns the books of the run.
///
/// # Errors
/// By domain: see [`crate::error::Domain`].
pub fn sink(_settings: &SinkSettings, _control: &std::sync::Arc<Control>) -> Result<SinkResult> {
    Err(Error::bug("sink: not built yet"))
}
