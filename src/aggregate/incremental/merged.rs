//! A kept date with its new events: its rows, and what is to be kept of it now.

use super::base::{self, Base};
use super::keep::Change;
use super::keeping;
use super::store::{self, Bytes};
use crate::aggregate::arrow;
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
    pub(super) fn of(bytes: &Bytes, date: i32, fresh: &Partial, plan: &Plan) -> Result<Self, String> {
        let damaged = |_: Error| store::DAMAGED.to_owned();
        let base = Base::read(&bytes.base, date, plan).map_err(damaged)?;
        let mut more = base::only(fresh, date);
        let new = more.counted > 0;
        if let Some(bytes) = &bytes.more {
            let mut before = arrow::read(bytes, plan).map_err(damaged)?;
            before.merge(more);
            before.settle();
            more = before;
        }
        let kept = base.counted() + more.counted - fresh.dates.get(&date).map_or(0, |day| day.counted);
        let mut change = None;
        if new {
            let bytes_of_more = arrow::write(&more, plan).map_err(damaged)?;
            change = Some(if bytes_of_more.len() > bytes.base.len() / 4 {
                let mut whole = Base::read(&bytes.base, date, plan).map_err(damaged)?.whole();
                whole.merge(more.clone());
                whole.settle();
                keeping::written(&whole, date, plan).map_err(damaged)?
            } else {
                Change::More { bytes: bytes_of_more }
            });
        }
        Ok(Self { day: base.with(&more, fresh), kept, change })
    }
}
