//! Reports whose cost follows the new events: each date's Partial is kept with the positions that it covers, and a run reads
//! what lies beyond them, by ranges of `_id`. docs/incremental.md says why that is exact.
//!
//! | module | owns |
//! |---|---|
//! | [`coverage`] | positions as a set of events |
//! | [`base`], [`merged`] | a date's Partial as it is kept, and with new events |
//! | [`texts`] | its distinct values, packed |
//! | [`counts`] | whether the collection still holds what was read of it |
//! | [`store`] | the tables of watermarks and Partials |
//! | [`run`] | one attempt: what is new, what of it is to be trusted, and all of it together |
//! | [`keeping`], [`keep`] | what a run leaves for the next one |
//! | [`shelf`] | its bytes until they are written, within bounds |
//! | [`inventory`] | what is kept, for people: shown, and removed |

pub mod base;
pub mod counts;
pub mod coverage;
pub mod inventory;
pub mod keep;
pub mod keeping;
pub mod merged;
pub mod run;
pub mod shelf;
pub mod store;
pub mod texts;

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Client;

use self::keep::Keep;
use self::run::Run;
use self::store::{Kept, Owner};
use super::publish::tables::Place;
use super::reading::{At, Dated, has_other_writers};
use super::settings::{Dates, Mode};
use crate::error::{Error, Result};

/// Where Partials are kept.
pub struct Store<'a> {
    /// `None`: nowhere, and why.
    pub place: std::result::Result<(&'a Client, &'a Place), String>,
    pub owner: Owner,
    pub kept: Kept,
}

/// What kept Partials had to do with a run.
#[derive(Debug, Default)]
pub struct Increment {
    pub incremental: bool,
    pub why_full: Option<String>,
    pub full_scans: BTreeMap<i32, String>,
    /// Documents read, and events that kept Partials brought.
    pub read: u64,
    pub kept: u64,
    pub keep: Option<Keep>,
    pub warnings: Vec<String>,
}

/// Reads what a run asks for, with the help of what is kept.
///
/// # Errors
/// `Config` when `dates="changed"` cannot be known; as [`At::dated`] and [`store::bytes`].
pub async fn read(at: &At<'_>, named: Option<&BTreeSet<i32>>, store: &Store<'_>) -> Result<(Dated, Increment)> {
    let changed = at.settings.dates == Dates::Changed;
    let wants = changed || (at.settings.mode == Mode::Incremental && at.settings.keep_partials_days > 0);
    let refreshes = at.settings.mode == Mode::Full && !store.kept.rows.is_empty();
    let (wants, refreshes) = if at.settings.engine.is_some() { (false, false) } else { (wants, refreshes) };
    let (database, collection) = (at.database.name(), at.events.name());
    let mut why = if wants || refreshes { unfit(at, store) } else { Some(String::new()) };
    if why.is_none() {
        // Each asks for little, and waits long for it.
        let others = has_other_writers(at.events, &at.covered, &at.moment);
        let (others, run, _) = tokio::try_join!(others, Run::new(at, store), at.question())?;
        if !others {
            return run.read(named).await;
        }
        why = Some(format!("other programs than the sink wrote documents of {database}.{collection}"));
    }
    let why = why.unwrap_or_default();
    if changed {
        return Err(Error::config(format!("aggregate: dates=\"changed\" cannot be known: {why}"))
            .hint("use dates=\"latest\" with lookback_days, \"all\", or name the dates"));
    }
    let dated = at.dated_or_later(at.wanted(named).await?).await?;
    let read = dated.partial.scanned;
    Ok((dated, Increment { why_full: wants.then_some(why), read, ..Increment::default() }))
}

/// Why positions do not say what is in the collection, or nothing can be kept, as far as nobody has to be asked.
fn unfit(at: &At<'_>, store: &Store<'_>) -> Option<String> {
    if let Err(why) = &store.place {
        return Some(why.clone());
    }
    let (database, collection) = (at.database.name(), at.events.name());
    if let Some(id) = &at.covered.replaced_by {
        return Some(format!("documents of {database}.{collection} are replaced by later events (id={id:?})"));
    }
    let none = || format!("{database}.{collection} has no positions: no sink of id=\"kafka\" wrote there");
    at.covered.named.is_empty().then(none)
}
