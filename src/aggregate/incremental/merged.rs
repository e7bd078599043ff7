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
        let new = more.counted > 0;
        if let Some(bytes) = &bytes.more {
            let mut before = Base::read(bytes, date, plan).and_then(Base::whole).map_err(damaged)?;
            before.merge(more);
            before.settle();
            more = before;
        }
        let kept = base.counted() + more.counted - fresh.dates.get(&date).map_or(0, |day| day.counted);
        let mut change = None;
        if new {
            let (bytes_of_more, _) = base::write(&more, date, plan).map_err(damaged)?;
            // Beside it they are read and written again by each run: a few times, then it is made anew.
            let many = more.counted > base.counted() / 4 || bytes_of_more.len() > bytes.base.len();
            change = Some(if many {
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
