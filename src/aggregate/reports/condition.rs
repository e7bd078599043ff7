//! `where`: which events a report counts. A condition holds when all its tests hold; a report counts what passes all of its
//! conditions. A NULL, and a value of another type, passes only `missing` and the negations.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value as Json;

use super::calls::Calls;
use super::expression::{Expression, Signature, literal};
use super::functions::Event;
use super::value::{Literal, Value};
use crate::bridge::rules::table::{Table, wrong};
use crate::error::{Error, Result};

const TESTS: [&str; 10] = [
    "equals",
    "not_equals",
    "one_of",
    "not_one_of",
    "starts_with",
    "ends_with",
    "contains",
    "at_least",
    "below",
    "missing",
];

/// Tests on one expression.
#[derive(Debug, Clone)]
pub struct Condition {
    /// What is looked at.
    pub of: Expression,
    tests: Vec<Test>,
}

#[derive(Debug, Clone)]
enum Test {
    OneOf(Vec<Literal>, bool),
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    AtLeast(Literal),
    Below(Literal),
    Missing(bool),
}

impl Condition {
    /// Reads the list of a definition.
    ///
    /// # Errors
    /// `Config` naming the place.
    pub fn read_all(place: &str, items: Option<Vec<Json>>, known: &[Signature]) -> Result<Vec<Self>> {
        let numbered = items.unwrap_or_default().into_iter().enumerate();
        numbered.map(|(i, item)| Self::read(&format!("{place}[{i}]"), item, known)).collect()
    }

    fn read(place: &str, value: Json, known: &[Signature]) -> Result<Self> {
        let words: Vec<&str> = ["of"].into_iter().chain(TESTS).collect();
        let mut table = Table::open(place, value, &words)?;
        let Some(of) = table.take("of") else {
            return Err(Error::config(format!("{place}: of is missing")).hint("name what is looked at"));
        };
        let of = Expression::read(&table.place("of"), of, known)?;
        let mut tests = Vec::new();
        for (name, wanted) in [("equals", true), ("not_equals", false)] {
            if let Some(value) = table.take(name) {
                tests.push(Test::OneOf(vec![literal(&table.place(name), &value)?], wanted));
            }
        }
        for (name, wanted) in [("one_of", true), ("not_one_of", false)] {
            if let Some(items) = table.list(name)? {
                let place = table.place(name);
                let literals: Result<Vec<_>> = items.iter().map(|item| literal(&place, item)).collect();
                tests.push(Test::OneOf(literals?, wanted));
            }
        }
        tests.extend(table.text("starts_with")?.map(Test::StartsWith));
        tests.extend(table.text("ends_with")?.map(Test::EndsWith));
        tests.extend(table.text("contains")?.map(Test::Contains));
        for (name, test) in [("at_least", Test::AtLeast as fn(Literal) -> Test), ("below", Test::Below)] {
            if let Some(value) = table.take(name) {
                tests.push(test(literal(&table.place(name), &value)?));
            }
        }
        if let Some(missing) = table.take("missing") {
            let missing = missing.as_bool().ok_or_else(|| wrong(&table.place("missing"), "true or false"))?;
            tests.push(Test::Missing(missing));
        }
        if tests.is_empty() {
            return Err(Error::config(format!("{place}: no test")).hint(format!("give one of {}", TESTS.join(", "))));
        }
        Ok(Self { of, tests })
    }

    /// Whether an event passes; `None` while a user's function has not been asked.
    pub fn holds(&self, event: &Event<'_, '_>, calls: &mut Calls) -> Option<bool> {
        let value = self.of.of(event, calls);
        if value == Value::Pending {
            return None;
        }
        let text = |test: &dyn Fn(&str) -> bool| if let Value::Text(text) = &value { test(text) } else { false };
        let against = |literal: &Literal| literal.compare(&value);
        Some(self.tests.iter().all(|test| match test {
            Test::Missing(wanted) => (value == Value::Null) == *wanted,
            Test::OneOf(literals, wanted) => {
                literals.iter().any(|literal| against(literal) == Some(Ordering::Equal)) == *wanted
            }
            Test::StartsWith(piece) => text(&|text| text.starts_with(piece)),
            Test::EndsWith(piece) => text(&|text| text.ends_with(piece)),
            Test::Contains(piece) => text(&|text| text.contains(piece)),
            Test::AtLeast(literal) => against(literal).is_some_and(Ordering::is_ge),
            Test::Below(literal) => against(literal).is_some_and(Ordering::is_lt),
        }))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.of, self.tests)
    }
}
