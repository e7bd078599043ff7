//! The kernel alone: `fold FILE` folds a file of BSON documents, one after another, on one core and with no server, as one
//! Partial and as three that are merged, and prints one JSON object with the seconds of each step, the best of five rounds.
#![allow(clippy::print_stdout, reason = "the answer of a program")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use millpond::aggregate::fold::Folder;
use millpond::aggregate::incremental::base;
use millpond::aggregate::partial::Partial;
use millpond::aggregate::reports::plan::{Plan, product_views};
use millpond::aggregate::scan::Scope;
use millpond::aggregate::spill::Spill;
use millpond::aggregate::{arrow, rows};

const ROUNDS: usize = 5;
/// Of a cursor's batch.
const BATCH: usize = 10_000;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn fold(documents: &[&[u8]], plan: &Arc<Plan>) -> Outcome<Partial> {
    let mut folder = Folder::new(Arc::clone(plan), Arc::new(Spill::new(u64::MAX)), usize::MAX);
    let scope = Scope::new(Arc::default(), i64::MAX);
    for batch in documents.chunks(BATCH) {
        folder.batch(batch, &scope)?;
    }
    folder.partial.settle();
    Ok(folder.partial)
}

fn main() -> Outcome<()> {
    let bytes = std::fs::read(std::env::args().nth(1).ok_or("say a file")?)?;
    let (mut documents, mut rest) = (Vec::new(), bytes.as_slice());
    while let Some(head) = rest.first_chunk() {
        let (document, after) = rest.split_at(usize::try_from(i32::from_le_bytes(*head))?);
        documents.push(document);
        rest = after;
    }
    let plan = Arc::new(product_views("timestamp")?);
    let mut best: BTreeMap<&str, f64> = BTreeMap::new();
    let mut told = 0;
    for _ in 0..ROUNDS {
        let mut clock = Instant::now();
        let mut lap = |step| {
            let seconds = clock.elapsed().as_secs_f64();
            best.entry(step).and_modify(|best| *best = best.min(seconds)).or_insert(seconds);
            clock = Instant::now();
        };
        let whole = fold(&documents, &plan)?;
        lap("fold");
        let mut frames = Vec::new();
        for (at, report) in plan.reports.iter().enumerate() {
            frames.push(rows::finish(&whole, at, report)?.0);
        }
        lap("finish");
        let bytes = arrow::write(&whole, &plan)?;
        lap("to_arrow");
        arrow::read(&bytes, &plan)?;
        lap("from_arrow");
        for date in whole.dates.keys() {
            base::write(&whole, *date, &plan)?;
        }
        lap("to_keep");
        told = frames.iter().map(polars::frame::DataFrame::height).sum();
        drop((whole, frames, bytes));
        let third = documents.len().div_ceil(3).max(1);
        let mut parts = Vec::new();
        for part in documents.chunks(third) {
            parts.push(fold(part, &plan)?);
        }
        lap("fold_thirds");
        let mut parts = parts.into_iter();
        let mut merged = parts.next().unwrap_or_default();
        parts.for_each(|part| merged.merge(part));
        merged.settle();
        lap("merge");
    }
    println!("{}", serde_json::json!({"events": documents.len(), "rows": told, "seconds": best}));
    Ok(())
}
