//! MongoDB → daily product, country and referrer reports → PostgreSQL, atomically (design section 6).

pub mod settings;

pub use settings::{AggregateResult, AggregateSettings};

use crate::{Control, Error, Result};

/// Makes the reports of the dates asked for and publishes them in one transaction.
///
/// # Errors
/// By domain: see [`crate::error::Domain`].
pub fn aggregate(_settings: &AggregateSettings, _control: &std::sync::Arc<Control>) -> Result<AggregateResult> {
    Err(Error::bug("aggregate: not built yet"))
}
