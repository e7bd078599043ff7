//! Definitions made ready for events: each field of a document has a slot, each value that metrics need is made once.

use std::sync::Arc;

use super::calls::{Call, Calls, Functions};
use super::definition::{self, Definition};
use super::expression::Expression;
use super::functions::Event;
use super::metric::{Measure, Metric};
use super::value::{NULL_KEY, Unfit, Value};
use crate::aggregate::element::{self, Element, Layout};
use crate::error::{Error, Result};
use crate::postgres::columns::Kind;

/// Slots that every plan has.
pub const ID: usize = 0;
/// The time that gives an event its date.
pub const TIME: usize = 1;

/// What a run makes.
#[derive(Debug)]
pub struct Plan {
    pub reports: Vec<Definition>,
    /// Names it: [`definition::name`].
    pub name: String,
    /// What the metrics of each report take, in their order; `None` for a count.
    pub takes: Vec<Vec<Option<usize>>>,
    pub inputs: Vec<Input>,
    /// Top-level fields by slot.
    names: Vec<String>,
    /// Slots beyond those: the top-level slot, and the steps from there.
    nested: Vec<(usize, Vec<String>)>,
    calls: Arc<Vec<Call>>,
    functions: Option<Arc<dyn Functions>>,
}

/// A value that metrics take, made at most once per event.
#[derive(Debug, Clone)]
pub struct Input {
    /// In messages.
    pub label: String,
    pub form: Form,
    of: Expression,
}

/// The form in which a metric takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By its number among all texts.
    Interned(Kind),
    /// What [`Value::whole`] gives.
    Whole(Kind),
    Number,
    Text,
}

impl Form {
    /// What the metric takes.
    #[must_use]
    pub fn of(metric: &Metric) -> Option<Self> {
        match (&metric.measure, metric.kind) {
            (Measure::Count, _) => None,
            (Measure::Distinct { longest: Some(longest), .. }, _) => Some(Self::Interned(Kind::Varchar(*longest))),
            (Measure::Distinct { of, longest: None }, _) => Some(Self::Interned(match of.of_type().column() {
                Kind::Varchar(_) => Kind::Text,
                other => other,
            })),
            (Measure::Min(_) | Measure::Max(_), Kind::Text | Kind::Varchar(_)) => Some(Self::Text),
            (Measure::Min(_) | Measure::Max(_), Kind::Numeric | Kind::Double) => Some(Self::Number),
            (Measure::Min(_) | Measure::Max(_), kind) => Some(Self::Whole(kind)),
            // A BIGINT takes whole numbers only: what is none is said, not rounded.
            (Measure::Sum(_), Kind::Integer) => Some(Self::Whole(Kind::Integer)),
            (Measure::Sum(_) | Measure::Mean(_), _) => Some(Self::Number),
        }
    }
}

impl Plan {
    /// Makes definitions ready for documents whose date is that of `time_field`.
    #[must_use]
    pub fn new(mut reports: Vec<Definition>, time_field: &str, functions: Option<Arc<dyn Functions>>) -> Self {
        let mut names = vec!["_id".to_owned(), time_field.to_owned()];
        let mut deep: Vec<Vec<String>> = Vec::new();
        let mut calls: Vec<Call> = Vec::new();
        let mut texts: Vec<String> = Vec::new();
        let place = |list: &mut Vec<String>, name: &str| {
            list.iter().position(|known| known == name).unwrap_or_else(|| {
                list.push(name.to_owned());
                list.len() - 1
            })
        };
        // Nested ones follow the top-level ones, whose number is known at the end: first the tops.
        for report in &mut reports {
            report.each(&mut |expression| {
                let shown = expression.to_string();
                match expression {
                    Expression::Field { path, slot } => {
                        *slot = place(&mut names, &path.steps()[0]);
                        if path.steps().len() > 1 && !deep.iter().any(|steps| *steps == path.steps()) {
                            deep.push(path.steps().to_vec());
                        }
                    }
                    Expression::Call { name, of, returns, number, .. } => {
                        *number = place(&mut texts, &shown);
                        if *number == calls.len() {
                            calls.push(Call::of(name, of, *returns));
                        }
                    }
                    _ => {}
                }
            });
        }
        let tops = names.len();
        for report in &mut reports {
            report.each(&mut |expression| {
                if let Expression::Field { path, slot } = expression
                    && let Some(at) = deep.iter().position(|steps| *steps == path.steps())
                {
                    *slot = tops + at;
                }
            });
        }
        let nested = deep.into_iter().map(|mut steps| {
            let top = place(&mut names, &steps[0]);
            (top, steps.split_off(1))
        });
        let nested = nested.collect();
        let mut inputs: Vec<Input> = Vec::new();
        let mut take = |metric: &mut Metric| {
            let form = Form::of(metric)?;
            let of = metric.of()?;
            let label = of.to_string();
            // What gave the event its date has been read.
            let whole = matches!(form, Form::Whole(Kind::Timestamp | Kind::Date));
            let read = whole && matches!(of, Expression::Field { slot: TIME, .. });
            let of = if read { Expression::EventTime } else { of.clone() };
            let known = inputs.iter().position(|input| input.label == label && input.form == form);
            Some(known.unwrap_or_else(|| {
                inputs.push(Input { label, form, of });
                inputs.len() - 1
            }))
        };
        let takes = reports.iter_mut().map(|report| report.metrics.iter_mut().map(&mut take).collect()).collect();
        let name = definition::name(&reports);
        Self { name, takes, inputs, names, nested, calls: Arc::new(calls), functions, reports }
    }

    /// The top-level fields that it looks at; `None` when one of them cannot be asked for by name.
    #[must_use]
    pub fn fields(&self) -> Option<&[String]> {
        let plain = |name: &String| !name.is_empty() && !name.contains('.') && !name.starts_with('$');
        self.names.iter().all(plain).then_some(&self.names)
    }

    /// How many slots a document fills.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.names.len() + self.nested.len()
    }

    /// Fills the slots from a document; false when it is cut short. The layout is of this plan's documents alone.
    pub fn read<'a>(&self, document: &'a [u8], layout: &mut Layout, values: &mut [Element<'a>]) -> bool {
        values.fill(Element::Missing);
        let slot = |name: &[u8]| self.names.iter().position(|known| known.as_bytes() == name);
        let whole = layout.walk(document, slot, |slot, element| values[slot] = element);
        for (at, (top, steps)) in self.nested.iter().enumerate() {
            values[self.names.len() + at] = element::inside(values[*top], steps);
        }
        whole
    }

    /// For the user-defined functions of one cursor.
    #[must_use]
    pub fn calls(&self) -> Calls {
        Calls::new(Arc::clone(&self.calls), self.functions.clone())
    }

    /// Looks at everything that counting an event will look at, so that user-defined functions are asked for it.
    pub fn prepare(&self, event: &Event<'_, '_>, calls: &mut Calls) {
        for (report, takes) in self.reports.iter().zip(&self.takes) {
            let passes = report.conditions.iter().all(|condition| condition.holds(event, calls) == Some(true));
            if !passes {
                continue;
            }
            for key in &report.keys {
                key.of.of(event, calls);
            }
            for input in takes.iter().flatten() {
                self.inputs[*input].of.of(event, calls);
            }
        }
    }
}

impl Definition {
    /// Whether an event counts, and under which key: columns with NUL between them, which none of them holds.
    ///
    /// # Errors
    /// The column at fault, if any, and the reason.
    pub fn key<'a>(
        &'a self,
        event: &Event<'_, 'a>,
        calls: &mut Calls,
    ) -> Result<std::borrow::Cow<'a, str>, (Option<usize>, Unfit)> {
        if !self.conditions.iter().all(|condition| condition.holds(event, calls) == Some(true)) {
            return Err((None, FILTERED));
        }
        let mut of = |at: usize, key: &'a definition::Key| {
            key.of.of(event, calls).key(key.kind).map_err(|reason| ((reason != NULL_KEY).then_some(at), reason))
        };
        if let [key] = self.keys.as_slice() {
            return of(0, key);
        }
        let mut all = String::new();
        let mut null = None;
        for (at, key) in self.keys.iter().enumerate() {
            match of(at, key) {
                Ok(text) => {
                    all.push_str(if at == 0 { "" } else { "\0" });
                    all.push_str(&text);
                }
                // One of another type outweighs a NULL: it is the one to mend.
                Err(fault @ (None, _)) => null = Some(fault),
                Err(fault) => return Err(fault),
            }
        }
        match null {
            Some(fault) => Err(fault),
            None => Ok(all.into()),
        }
    }
}

/// Left out by the report's conditions.
pub const FILTERED: Unfit = "filtered";

impl Input {
    /// Its value for an event.
    pub fn of<'a>(&'a self, event: &Event<'_, 'a>, calls: &mut Calls) -> Value<'a> {
        self.of.of(event, calls)
    }
}

/// A plan of the default set, for tests and for documents of its shape.
///
/// # Errors
/// None: a test reads it.
pub fn product_views(time_field: &str) -> Result<Plan, Error> {
    Ok(Plan::new(Definition::product_views()?, time_field, None))
}
