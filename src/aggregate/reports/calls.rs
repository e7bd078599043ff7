//! User-defined functions: asked once for each batch of values not seen before, never per event. It refuses to know what
//! language they are written in.

use std::fmt::Debug;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use polars::prelude::{
    BooleanChunked, Column, DataFrame, DataType, IntoColumn, IntoSeries, NamedFrom, Series, TimeUnit,
};

use super::expression::{Expression, Type};
use super::number::Number;
use super::value::Value;
use crate::error::{Error, Result};
use crate::postgres::columns::Kind;

/// Answers kept by one cursor, in bytes; beyond it they are asked for again.
const KEPT: usize = 64 << 20;

/// Whoever runs user-defined functions.
pub trait Functions: Debug + Send + Sync {
    /// The value for each row of `arguments`, each of type `returns` or NULL.
    ///
    /// # Errors
    /// `Data` naming the function and a sample value when it fails, `Config` when it returns something else.
    fn call(&self, name: &str, arguments: DataFrame, returns: Type) -> Result<Vec<Value<'static>>>;
}

/// One call of a definition: the function and the types of its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub function: String,
    pub arguments: Vec<Argument>,
    pub returns: Type,
}

/// An argument: what it is called in messages, and what column it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    pub name: String,
    pub kind: Kind,
}

impl Call {
    /// The call that an expression makes.
    #[must_use]
    pub fn of(function: &str, of: &[Expression], returns: Type) -> Self {
        let arguments = of.iter().map(|of| Argument {
            name: of.to_string(),
            kind: match of.of_type() {
                Type::Any | Type::Text => Kind::Text,
                Type::Number => Kind::Double,
                other => other.column(),
            },
        });
        Self { function: function.to_owned(), arguments: arguments.collect(), returns }
    }
}

/// What one cursor knows of the answers.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    all: Arc<Vec<Call>>,
    functions: Option<Arc<dyn Functions>>,
    known: Vec<HashMap<Box<[u8]>, Value<'static>, FixedState>>,
    pending: Vec<HashMap<Box<[u8]>, Vec<Cell>, FixedState>>,
    bytes: usize,
    spelled: Vec<u8>,
}

/// An argument as its column holds it.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Text(String),
    Double(f64),
    Whole(i64),
}

impl Calls {
    /// Nothing known yet.
    #[must_use]
    pub fn new(calls: Arc<Vec<Call>>, functions: Option<Arc<dyn Functions>>) -> Self {
        let count = calls.len();
        let known = (0..count).map(|_| HashMap::default()).collect();
        let pending = (0..count).map(|_| HashMap::default()).collect();
        Self { all: calls, functions, known, pending, bytes: 0, spelled: Vec::new() }
    }

    /// Whether there are any calls at all.
    #[must_use]
    pub fn any(&self) -> bool {
        !self.all.is_empty()
    }

    /// The answer for some arguments; `Pending` when it has to be asked for.
    pub fn answer<'a>(&mut self, number: usize, arguments: Vec<Value<'a>>) -> Value<'a> {
        let call = &self.all[number];
        let mut cells = Vec::with_capacity(arguments.len());
        self.spelled.clear();
        for (value, argument) in arguments.into_iter().zip(&call.arguments) {
            match Cell::of(value, argument.kind) {
                Ok(made) => cells.push(made),
                Err(value) => return value,
            }
        }
        for one in &cells {
            one.spell(&mut self.spelled);
        }
        if let Some(known) = self.known[number].get(self.spelled.as_slice()) {
            return known.clone();
        }
        if !self.pending[number].contains_key(self.spelled.as_slice()) {
            self.pending[number].insert(self.spelled.as_slice().into(), cells);
        }
        Value::Pending
    }

    /// Asks for everything that is pending; false when nothing was.
    ///
    /// # Errors
    /// As [`Functions::call`].
    pub fn resolve(&mut self) -> Result<bool> {
        let mut any = false;
        for number in 0..self.all.len() {
            let pending = std::mem::take(&mut self.pending[number]);
            if pending.is_empty() {
                continue;
            }
            any = true;
            let call = &self.all[number];
            let what = || format!("aggregate: function {}", call.function);
            let functions = self.functions.as_ref().ok_or_else(|| Error::bug(what()))?;
            // One order whatever the hashes: what a user sees of a run is the same each time.
            let mut pending: Vec<(Box<[u8]>, Vec<Cell>)> = pending.into_iter().collect();
            pending.sort_unstable_by(|one, other| one.0.cmp(&other.0));
            let columns = call.arguments.iter().enumerate();
            let columns = columns.map(|(at, argument)| column(at, argument, &pending)).collect::<Result<_>>()?;
            let frame = DataFrame::new(pending.len(), columns).map_err(|error| Error::bug(what()).because(error))?;
            let answers = functions.call(&call.function, frame, call.returns)?;
            if answers.len() != pending.len() {
                return Err(Error::bug(format!("{}: {} answers to {}", what(), answers.len(), pending.len())));
            }
            for ((spelled, _), answer) in pending.into_iter().zip(answers) {
                self.bytes += spelled.len() + 96 + if let Value::Text(text) = &answer { text.len() } else { 0 };
                self.known[number].insert(spelled, answer);
            }
        }
        Ok(any)
    }

    /// Forgets answers when they are too many: between two batches.
    pub fn trim(&mut self) {
        if self.bytes > KEPT {
            self.known.iter_mut().for_each(|known| *known = HashMap::default());
            self.bytes = 0;
        }
    }

    /// How much memory the answers take.
    #[must_use]
    pub fn heap(&self) -> usize {
        self.bytes
    }
}

impl Cell {
    /// What a column of `kind` holds of a value; the value that the call gives at once where there is none.
    fn of(value: Value<'_>, kind: Kind) -> Result<Self, Value<'_>> {
        if value == Value::Pending {
            return Err(value);
        }
        let cell = match kind {
            Kind::Text => value.text().map(|text| text.map(|text| Self::Text(text.into_owned()))),
            Kind::Double => value.number().map(|number| number.map(|number| Self::Double(number.double()))),
            other => value.whole(other).map(|whole| whole.map(Self::Whole)),
        };
        cell.map(|cell| cell.unwrap_or(Self::Null)).map_err(Value::Unfit)
    }

    fn spell(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(0),
            Self::Text(text) => {
                out.push(1);
                out.extend((text.len() as u64).to_le_bytes());
                out.extend(text.as_bytes());
            }
            Self::Double(double) => {
                out.push(2);
                out.extend(double.to_bits().to_le_bytes());
            }
            Self::Whole(whole) => {
                out.push(3);
                out.extend(whole.to_le_bytes());
            }
        }
    }
}

fn column(at: usize, argument: &Argument, rows: &[(Box<[u8]>, Vec<Cell>)]) -> Result<Column> {
    let bug = |error| Error::bug("aggregate: arguments of a function").because(error);
    let name = || format!("{}. {}", at + 1, argument.name).into();
    let cells = rows.iter().map(|(_, cells)| &cells[at]);
    let whole = |cell: &Cell| if let Cell::Whole(whole) = cell { Some(*whole) } else { None };
    let series = match argument.kind {
        Kind::Text => {
            let texts: Vec<Option<&str>> =
                cells.map(|cell| if let Cell::Text(text) = cell { Some(text.as_str()) } else { None }).collect();
            Series::new(name(), texts)
        }
        Kind::Double => {
            let doubles: Vec<Option<f64>> =
                cells.map(|cell| if let Cell::Double(double) = cell { Some(*double) } else { None }).collect();
            Series::new(name(), doubles)
        }
        Kind::Boolean => {
            let truths = cells.map(|cell| whole(cell).map(|whole| whole != 0));
            truths.collect::<BooleanChunked>().with_name(name()).into_series()
        }
        kind => {
            let wholes = Series::new(name(), cells.map(whole).collect::<Vec<_>>());
            match kind {
                Kind::Timestamp => wholes.cast(&DataType::Datetime(TimeUnit::Microseconds, None)).map_err(bug)?,
                Kind::Date => wholes.cast(&DataType::Int32).and_then(|days| days.cast(&DataType::Date)).map_err(bug)?,
                _ => wholes,
            }
        }
    };
    Ok(series.into_column())
}

/// An answer out of a whole number.
#[must_use]
pub fn whole(whole: i64, returns: Type) -> Value<'static> {
    match returns {
        Type::Moment => Value::Moment(whole),
        Type::Date => i32::try_from(whole).map_or(Value::Null, Value::Date),
        Type::Bool => Value::Bool(whole != 0),
        _ => Value::Number(Number::Integer(whole)),
    }
}
