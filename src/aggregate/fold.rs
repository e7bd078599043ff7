//! `fold`: batches of raw documents into a Partial. One pass over a batch; where there are user-defined functions, one more
//! before it for what they have not been asked yet.

use std::sync::Arc;

use super::element::{Element, Layout};
use super::incremental::coverage::Coverage;
use super::instant::{Instant, LastDate};
use super::partial::{DatePartial, Partial};
use super::reports::calls::Calls;
use super::reports::functions::Event;
use super::reports::plan::{Form, ID, Plan, TIME};
use super::reports::value::NULL_KEY;
use super::spill::Spill;
use super::states::Taken;
use crate::error::Result;
use crate::postgres::columns::Kind;

/// Which documents count.
pub trait Wanted {
    /// Whether a date is asked for.
    fn date(&self, date: i32) -> bool;
    /// The last moment, in microseconds since 1970, that may count as the latest.
    fn limit(&self) -> i64;
    /// `Some(true)` below its source's position, `Some(false)` beyond it, `None` for an unknown source.
    fn covered(&self, id: &[u8; 12]) -> Option<bool>;
    /// Whether a kept Partial of the date holds the document.
    fn kept(&self, _date: i32, _id: &[u8; 12]) -> bool {
        false
    }
    /// Positions beyond which documents are counted, each by itself.
    fn marks(&self) -> &[Coverage] {
        &[]
    }
}

/// Folds what one cursor reads.
#[derive(Debug)]
pub struct Folder {
    plan: Arc<Plan>,
    calls: Calls,
    layout: Layout,
    last: LastDate,
    pub partial: Partial,
    spill: Arc<Spill>,
    /// Bytes that the Partial may take before it is put aside.
    share: usize,
}

/// What becomes of a document.
struct Looked {
    /// No known source wrote it.
    foreign: bool,
    /// Of another date, which is not beyond the limit.
    later: Option<i32>,
    /// The `_id` of a known source's document below its position.
    id: Option<[u8; 12]>,
    /// The date that such a document's time is written with, where no kept Partial holds it.
    written: Option<i32>,
    /// That date, where the document counts on another one.
    shifted: Option<i32>,
    /// The date of one that is not folded, and whether a kept Partial holds it.
    passed: Option<(i32, bool)>,
    placed: Result<Instant, &'static str>,
}

impl Folder {
    /// Of no event yet.
    #[must_use]
    pub fn new(plan: Arc<Plan>, spill: Arc<Spill>, share: usize) -> Self {
        let (layout, last) = (Layout::default(), LastDate::default());
        Self { calls: plan.calls(), layout, last, partial: Partial::new(), plan, spill, share }
    }

    /// Folds a batch of raw documents.
    ///
    /// # Errors
    /// What user-defined functions say; as [`Spill::put`].
    pub fn batch(&mut self, documents: &[&[u8]], wanted: &impl Wanted) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let mut values = vec![Element::Missing; plan.slots()];
        if self.calls.any() {
            // A function of a function's answer needs another round.
            loop {
                for document in documents {
                    let whole = plan.read(document, &mut self.layout, &mut values);
                    if let Ok(instant) = look(whole, &values, wanted, &mut self.last).placed {
                        plan.prepare(&Event { values: &values, micros: instant.micros }, &mut self.calls);
                    }
                }
                if !self.calls.resolve()? {
                    break;
                }
            }
        }
        let mut taken = vec![Taken::Unasked; plan.inputs.len()];
        for document in documents {
            let whole = plan.read(document, &mut self.layout, &mut values);
            self.one(&plan, whole, &values, &mut taken, wanted);
        }
        drop(taken);
        self.calls.trim();
        if self.partial.heap() > self.share {
            self.spill.put(&mut self.partial, &plan)?;
        }
        Ok(())
    }

    fn one<'a>(
        &mut self,
        plan: &'a Plan,
        whole: bool,
        values: &[Element<'a>],
        taken: &mut [Taken<'a>],
        wanted: &impl Wanted,
    ) {
        let partial = &mut self.partial;
        partial.scanned += 1;
        let looked = look(whole, values, wanted, &mut self.last);
        partial.foreign += u64::from(looked.foreign);
        partial.later = partial.later.max(looked.later);
        if let Some(id) = looked.id {
            let marks = wanted.marks();
            partial.beyond.resize(marks.len(), 0);
            for (mark, beyond) in marks.iter().zip(&mut partial.beyond) {
                *beyond += u64::from(!mark.holds(&id));
            }
        }
        partial.shifted.extend(looked.shifted);
        if let Some(date) = looked.written {
            *partial.written.entry(date).or_default() += 1;
        }
        if let Some((date, known)) = looked.passed {
            let passed = if known { &mut partial.known } else { &mut partial.left };
            passed.insert(date);
        }
        let instant = match looked.placed {
            Ok(instant) => instant,
            Err(reason) => return partial.exclude(reason),
        };
        partial.counted += 1;
        let event = Event { values, micros: instant.micros };
        taken.fill(Taken::Unasked);
        let date = partial.dates.entry(instant.date).or_insert_with(|| DatePartial::new(plan));
        date.counted += 1;
        let unfit = &mut date.unfit;
        let mut unusable = Vec::new();
        for ((groups, report), takes) in date.reports.iter_mut().zip(&plan.reports).zip(&plan.takes) {
            let key = match report.key(&event, &mut self.calls) {
                Ok(key) => key,
                Err((column, reason)) => {
                    *groups.excluded.entry(reason).or_default() += 1;
                    if let Some(column) = column {
                        unusable.push((report.keys[column].name.as_str(), reason));
                    }
                    continue;
                }
            };
            for input in takes.iter().flatten().copied() {
                if taken[input] != Taken::Unasked {
                    continue;
                }
                let asked = &plan.inputs[input];
                let value = asked.of(&event, &mut self.calls);
                let made = match asked.form {
                    Form::Interned(kind) => value.key(kind).map(|text| Taken::Interned(partial.values.number(&text))),
                    Form::Whole(kind) => value.whole(kind).map(|whole| whole.map_or(Taken::Nothing, Taken::Whole)),
                    Form::Number => value.number().map(|number| number.map_or(Taken::Nothing, Taken::Number)),
                    Form::Text => value.key(Kind::Text).map(Taken::Text),
                };
                taken[input] = made.unwrap_or_else(|reason| {
                    if reason != NULL_KEY {
                        unfit[input] += 1;
                        unusable.push((asked.label.as_str(), reason));
                    }
                    Taken::Nothing
                });
            }
            groups.count(&key, takes.iter().map(|input| input.map(|input| &taken[input])));
        }
        for (column, reason) in unusable {
            partial.sample(column, reason, values[ID]);
        }
    }
}

fn look(whole: bool, values: &[Element<'_>], wanted: &impl Wanted, last: &mut LastDate) -> Looked {
    let mut looked =
        Looked { foreign: false, later: None, id: None, written: None, shifted: None, passed: None, placed: Err("") };
    looked.placed = place(whole, values, wanted, last, &mut looked);
    looked
}

fn place(
    whole: bool,
    values: &[Element<'_>],
    wanted: &impl Wanted,
    last: &mut LastDate,
    looked: &mut Looked,
) -> Result<Instant, &'static str> {
    if !whole {
        return Err("malformed_document");
    }
    let covered =
        if let Element::ObjectId(id) = values[ID] { wanted.covered(id).map(|below| (below, *id)) } else { None };
    if let Some((false, _)) = covered {
        return Err("beyond_position");
    }
    looked.foreign = covered.is_none();
    looked.id = covered.map(|(_, id)| id);
    let kept = |date| looked.id.as_ref().is_some_and(|id| wanted.kept(date, id));
    let (instant, written) = match values[TIME] {
        Element::Missing | Element::Null => return Err("missing_time"),
        Element::Text(text) => {
            let written = last.of(text);
            (written.and_then(|date| Instant::of(date, &text[10..])), written)
        }
        Element::Date(millis) => {
            let instant = millis.checked_mul(1_000).and_then(Instant::from_micros);
            (instant, instant.map(|instant| instant.date))
        }
        _ => (None, None),
    };
    let written = written.filter(|date| looked.id.is_some() && !kept(*date));
    let known = instant.is_some_and(|instant| kept(instant.date));
    looked.written = written;
    let Some(instant) = instant else { return Err("malformed_time") };
    looked.shifted = written.filter(|date| *date != instant.date);
    if known {
        looked.passed = Some((instant.date, true));
        return Err("in_partial");
    }
    if !wanted.date(instant.date) {
        looked.later = (instant.micros <= wanted.limit()).then_some(instant.date);
        looked.passed = Some((instant.date, false));
        return Err("other_date");
    }
    Ok(instant)
}

#[cfg(test)]
mod tests {
    use polars::prelude::DataFrame;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::aggregate::reports::definition::Definition;
    use crate::aggregate::scan::Scope;
    use crate::aggregate::{arrow, rows};

    fn plan() -> Arc<Plan> {
        let mine = json!({"table": "t", "key": {"domain": {"domain": "url"}, "hour": {"hour": {"event_time": true}}},
            "metrics": {"n": "count", "visitors": {"count_distinct": "device_id"}, "paths": {"count_distinct": {"path":
            "url"}}, "sum": {"sum": "price"}, "mean": {"mean": "price"}, "least": {"min": "price"}, "text": {"max":
            {"lower": "url"}}, "last": {"max": {"event_time": true}}}, "where": [{"of": "product_id", "not_equals": 3}]});
        let reports = Definition::read_all(Some(json!(["product_views", mine])), &[]).expect("fit");
        Arc::new(Plan::new(reports, "timestamp", None))
    }

    fn folded(plan: &Arc<Plan>, documents: &[&[u8]], spill: &Arc<Spill>) -> Partial {
        let mut folder = Folder::new(Arc::clone(plan), Arc::clone(spill), usize::MAX);
        folder.batch(documents, &Scope::new(Arc::default(), i64::MAX)).expect("no function of a user's");
        folder.partial
    }

    fn frames(partial: &Partial, plan: &Plan) -> Vec<DataFrame> {
        let reports = plan.reports.iter().enumerate();
        reports.map(|(at, report)| rows::finish(partial, at, report).expect("the books balance").0).collect()
    }

    fn document() -> impl Strategy<Value = Vec<u8>> {
        let urls = ["https://A.b/x", "https://a.b/y?z", "https://c.d", "none"];
        let prices = [
            bson::Bson::Double(0.1),
            bson::Bson::Double(1e300),
            bson::Bson::Double(-1e300),
            bson::Bson::Int64(i64::MAX),
            bson::Bson::Decimal128("0.30".parse().expect("a decimal")),
            bson::Bson::Null,
            bson::Bson::String("7".into()),
        ];
        (0..3_u32, 0..3_u32, 0..5_i32, 0..9_i32, 0..4_usize, 0..7_usize).prop_map(
            move |(day, hour, product, device, url, price)| {
                let device = if device == 0 { bson::Bson::Null } else { bson::Bson::String(format!("d{device}")) };
                let product = if product == 4 { bson::Bson::Boolean(true) } else { bson::Bson::Int32(product) };
                let time = if day == 2 { "N/A".into() } else { format!("2025-10-3{day}T0{hour}:00:00Z") };
                let document = bson::doc! {"timestamp": time, "product_id": product, "device_id": device,
                "url": urls[url], "price": prices[price].clone()};
                document.to_vec().expect("BSON")
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_split_and_any_order_of_merges_gives_the_rows_of_one_fold(
            documents in prop::collection::vec((document(), 0..4_usize), 0..60),
            order in Just(vec![0, 1, 2, 3]).prop_shuffle(),
            through_arrow in prop::array::uniform4(any::<bool>()),
            aside in any::<bool>(),
        ) {
            let plan = plan();
            let all: Vec<&[u8]> = documents.iter().map(|(document, _)| document.as_slice()).collect();
            let none = Arc::new(Spill::new(u64::MAX));
            let whole = folded(&plan, &all, &none);
            let spill = Arc::new(Spill::new(u64::MAX));
            let mut merged = Partial::new();
            for part in order {
                let mine: Vec<&[u8]> =
                    documents.iter().filter(|(_, to)| *to == part).map(|(document, _)| document.as_slice()).collect();
                let mut partial = folded(&plan, &mine, &spill);
                if through_arrow[part] {
                    partial = arrow::read(&arrow::write(&settled(partial), &plan).expect("written"), &plan).expect("read");
                }
                if aside {
                    spill.put(&mut partial, &plan).expect("room");
                }
                merged.merge(partial);
            }
            spill.total(&mut merged, &plan).expect("read");
            prop_assert_eq!((merged.scanned, merged.counted), (whole.scanned, whole.counted));
            prop_assert_eq!(&merged.excluded, &whole.excluded);
            prop_assert_eq!(merged.unfit(&plan), whole.unfit(&plan));
            prop_assert_eq!(&merged.written, &whole.written);
            for (one, other) in frames(&merged, &plan).iter().zip(frames(&whole, &plan)) {
                prop_assert!(one.equals_missing(&other), "{one:?} {other:?}");
            }
        }
    }

    fn settled(mut partial: Partial) -> Partial {
        partial.settle();
        partial
    }

    #[test]
    fn what_is_no_partial_of_the_plan_is_refused() {
        let plan = plan();
        let bytes = arrow::write(&Partial::new(), &plan).expect("written");
        let other = crate::aggregate::reports::plan::product_views("timestamp").expect("fit");
        assert!(arrow::read(&bytes, &other).is_err());
        for cut in [0, 7, bytes.len() / 2, bytes.len() - 9] {
            assert!(arrow::read(&bytes[..cut], &plan).is_err(), "{cut}");
        }
    }
}
