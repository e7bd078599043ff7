//! Which kept Partials are shown or removed.

use super::{Arguments, history};
use crate::aggregate::history::Where;
use crate::aggregate::incremental::inventory::Chosen;
use crate::error::Result;

/// Which of them, and where.
///
/// # Errors
/// `Config` naming the argument.
pub fn partials(json: &str) -> Result<(Where, Chosen)> {
    let mut arguments = Arguments::read(json)?;
    let place = history::place(&mut arguments)?;
    let chosen =
        Chosen { job: arguments.text("job")?, before: arguments.text("before")?, all: arguments.flag("all", false)? };
    arguments.done()?;
    Ok((place, chosen))
}
