//! `drop_if`: events that are read and left out, by their raw fields. A filter holds when all its tests hold; an event is
//! dropped when any filter holds.

use std::borrow::Cow;
use std::fmt;

use memchr::memmem;
use serde::Serialize;
use serde_json::Value;

use super::path::Path;
use super::table::{Table, inside, wrong};
use crate::error::{Error, Result};
use crate::json::number::Decimal;
use crate::json::{Kind, Token, text};

const TESTS: &[&str] =
    &["equals", "not_equals", "one_of", "not_one_of", "starts_with", "ends_with", "contains", "missing"];

/// Drops the events whose field passes every test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Filter {
    /// What is looked at.
    pub field: Path,
    tests: Vec<Test>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
enum Test {
    /// Whether the value is one of these; a missing one is none of them.
    OneOf(Vec<Literal>, bool),
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    /// Whether it is missing or null.
    Missing(bool),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
enum Literal {
    Text(String),
    /// As it is spelled; compared exactly, whatever the spelling.
    Number(String),
    Bool(bool),
}

impl Filter {
    /// Reads the list of a definition.
    ///
    /// # Errors
    /// `Config` naming the place.
    pub fn read_all(place: &str, items: Option<Vec<Value>>) -> Result<Vec<Self>> {
        let numbered = items.unwrap_or_default().into_iter().enumerate();
        numbered.map(|(i, item)| Self::read(&format!("{place}[{i}]"), item)).collect()
    }

    fn read(place: &str, value: Value) -> Result<Self> {
        let known: Vec<&str> = ["field"].into_iter().chain(TESTS.iter().copied()).collect();
        let mut table = Table::open(place, value, &known)?;
        let Some(field) = table.text("field")? else {
            return Err(Error::config(format!("{place}: field is missing")).hint("name what is looked at"));
        };
        let field = Path::read(&table.place("field"), &field)?;
        let mut tests = Vec::new();
        for (name, wanted) in [("equals", true), ("not_equals", false)] {
            if let Some(value) = table.take(name) {
                tests.push(Test::OneOf(vec![Literal::read(&table.place(name), value)?], wanted));
            }
        }
        for (name, wanted) in [("one_of", true), ("not_one_of", false)] {
            if let Some(items) = table.list(name)? {
                let place = table.place(name);
                let literals: Result<Vec<_>> = items.into_iter().map(|item| Literal::read(&place, item)).collect();
                tests.push(Test::OneOf(literals?, wanted));
            }
        }
        tests.extend(table.text("starts_with")?.map(Test::StartsWith));
        tests.extend(table.text("ends_with")?.map(Test::EndsWith));
        tests.extend(table.text("contains")?.map(Test::Contains));
        if let Some(missing) = table.take("missing") {
            let Value::Bool(missing) = missing else { return Err(wrong(&inside(place, "missing"), "true or false")) };
            tests.push(Test::Missing(missing));
        }
        if tests.is_empty() {
            return Err(Error::config(format!("{place}: no test: it would drop every event"))
                .hint(format!("give one of {}", TESTS.join(", "))));
        }
        Ok(Self { field, tests })
    }

    /// Whether an event of this value (None: missing or null) is dropped.
    #[must_use]
    pub fn holds(&self, value: Option<&Token>, message: &[u8]) -> bool {
        self.tests.iter().all(|test| match (test, value) {
            (Test::Missing(wanted), value) => value.is_none() == *wanted,
            (Test::OneOf(_, wanted), None) => !wanted,
            (Test::OneOf(literals, wanted), Some(value)) => {
                literals.iter().any(|literal| literal.is(value, message)) == *wanted
            }
            (_, None) => false,
            (Test::StartsWith(piece), Some(value)) => {
                plain(value, message).is_some_and(|text| text.starts_with(piece.as_bytes()))
            }
            (Test::EndsWith(piece), Some(value)) => {
                plain(value, message).is_some_and(|text| text.ends_with(piece.as_bytes()))
            }
            (Test::Contains(piece), Some(value)) => {
                plain(value, message).is_some_and(|text| memmem::find(&text, piece.as_bytes()).is_some())
            }
        })
    }
}

/// The text of a string; half a surrogate pair equals and holds nothing.
fn plain<'a>(token: &Token, message: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    if token.kind != Kind::String {
        return None;
    }
    let raw = token.text(message);
    if !token.escaped {
        return Some(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    text::decode(raw, &mut decoded).ok().map(|()| Cow::Owned(decoded))
}

impl Literal {
    fn read(place: &str, value: Value) -> Result<Self> {
        match value {
            Value::String(text) => Ok(Self::Text(text)),
            Value::Number(number) => Ok(Self::Number(number.to_string())),
            Value::Bool(word) => Ok(Self::Bool(word)),
            _ => Err(wrong(place, "a text, a number, true or false")),
        }
    }

    fn is(&self, token: &Token, message: &[u8]) -> bool {
        match self {
            Self::Text(text) => plain(token, message).is_some_and(|found| *found == *text.as_bytes()),
            Self::Number(spelled) => {
                token.kind == Kind::Number
                    && (token.text(message) == spelled.as_bytes()
                        || Decimal::read(token.text(message)).equals(&Decimal::read(spelled.as_bytes())))
            }
            Self::Bool(word) => token.kind == if *word { Kind::True } else { Kind::False },
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, test) in self.tests.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { " and " })?;
            let field = &self.field;
            match test {
                Test::OneOf(literals, wanted) => {
                    let not = if *wanted { "" } else { "not " };
                    let shown: Vec<String> = literals.iter().map(ToString::to_string).collect();
                    write!(f, "{field} is {not}{}", shown.join(" or "))?;
                }
                Test::StartsWith(piece) => write!(f, "{field} starts with {piece:?}")?,
                Test::EndsWith(piece) => write!(f, "{field} ends with {piece:?}")?,
                Test::Contains(piece) => write!(f, "{field} contains {piece:?}")?,
                Test::Missing(true) => write!(f, "{field} is missing or null")?,
                Test::Missing(false) => write!(f, "{field} is there")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(spelled) => f.write_str(spelled),
            Self::Bool(word) => write!(f, "{word}"),
        }
    }
}
