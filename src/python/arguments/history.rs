//! What `millpond runs`, `millpond explain report` and a look at a report ask for.

use super::{Arguments, wrong};
use crate::aggregate::history::{Chosen, Where};
use crate::error::Result;

/// A report that is to be explained.
#[derive(Clone)]
pub struct Asked {
    pub place: Where,
    pub date: String,
    pub table: Option<String>,
    /// Holds credentials: never shown (no `Debug`).
    pub mongo_uri: Option<String>,
}

pub(super) fn place(arguments: &mut Arguments) -> Result<Where> {
    // An empty one is one of libpq's forms: the environment says all.
    let postgres_dsn = arguments.text("postgres_dsn")?;
    let postgres_dsn = postgres_dsn.ok_or_else(|| wrong("postgres_dsn", "a connection string"))?;
    Ok(Where { postgres_dsn, schema: arguments.text("schema")? })
}

/// Which publications are listed.
///
/// # Errors
/// `Config` naming the argument.
pub fn runs(json: &str) -> Result<(Where, Chosen)> {
    let mut arguments = Arguments::read(json)?;
    let place = place(&mut arguments)?;
    let chosen = Chosen {
        job: arguments.text("job")?,
        date: arguments.text("date")?,
        limit: arguments.positive("limit")?.unwrap_or(u64::MAX),
    };
    arguments.done()?;
    Ok((place, chosen))
}

/// Which report is explained.
///
/// # Errors
/// `Config` naming the argument.
pub fn explain_report(json: &str) -> Result<Asked> {
    let mut arguments = Arguments::read(json)?;
    let asked = Asked {
        place: place(&mut arguments)?,
        date: arguments.needed("date")?,
        table: arguments.text("table")?,
        mongo_uri: arguments.text("mongo_uri")?,
    };
    arguments.done()?;
    Ok(asked)
}

/// Which rows of a report: the table, its date, and how many.
///
/// # Errors
/// `Config` naming the argument.
pub fn top(json: &str) -> Result<(Where, String, Option<String>, u32)> {
    let mut arguments = Arguments::read(json)?;
    let place = place(&mut arguments)?;
    let (table, date) = (arguments.needed("table")?, arguments.text("date")?);
    let limit = arguments.positive("limit")?.unwrap_or(10).min(1_000);
    arguments.done()?;
    Ok((place, table, date, u32::try_from(limit).unwrap_or(1_000)))
}
