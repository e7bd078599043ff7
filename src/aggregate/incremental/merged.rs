//! A kept date with its new events: its rows, and what is to be kept of it now.

use super::base::{self, Base};
use super::keep::Change;
use super::keeping;
use super::shelf::Shelf;
use super::store::{self, Bytes};
use crate::aggregate::partial::{DatePartial, Partial};
use crate::aggregate::reports::plan::Plan;
use crate::error::Error;

/// A kept date with its new events.
pub(super) struct Merged {
    pub(super) day: DatePartial,
    /// Events that were kept.
    pub(super) kept: u64,
    /// What is to be kept of the new ones; `None` when there are none.
    pub(super) change: Option<Change>,
}

impl Merged {
    pub(super) fn of(bytes: &Bytes, date: i32, fresh: &Partial, plan: &Plan, shelf: &Shelf) -> Result<Self, String> {
        let damaged = |_: Error| store::DAMAGED.to_owned();
        let base = Base::read(&bytes.base, date, plan).map_err(damaged)?;
        let mut more = base::only(fresh, date);
        let new = more.counted;
        if let Some(bytes) = &bytes.more {
            let mut before = Base::read(bytes, date, plan).and_then(Base::whole).map_err(damaged)?;
            before.merge(more);
            before.settle();
            more = before;
        }
        let kept = base.counted() + more.counted - fresh.dates.get(&date).map_or(0, |day| day.counted);
        let mut change = None;
        if new > 0 {
            let (bytes_of_more, _) = base::write(&more, date, plan).map_err(damaged)?;
            change = Some(if many(more.counted, base.counted(), new) || bytes_of_more.len() > bytes.base.len() {
                let mut whole = Base::read(&bytes.base, date, plan).and_then(Base::whole).map_err(damaged)?;
                whole.merge(more.clone());
                whole.settle();
                keeping::written(&whole, date, plan, shelf).map_err(|error| error.what)?
            } else {
                Change::More { bytes: shelf.put(bytes_of_more).map_err(|error| error.what)? }
            });
        }
        Ok(Self { day: base.with(&more, fresh), kept, change })
    }
}

/// Whether the base is made anew with the `more` events beside it, of which `new` have just come.
///
/// Each run reads and writes again what lies beside the base, and making that anew costs about as much for each of its events.
/// So with always as many new ones, least is done in all when the base is made anew at the geometric mean of both.
fn many(more: u64, base: u64, new: u64) -> bool {
    more > base / 4 || u128::from(more).pow(2) > u128::from(base) * u128::from(new)
}
