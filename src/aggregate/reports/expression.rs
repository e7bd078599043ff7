//! What a key or a metric is made of: a field, the event's time, a literal, or a function of these. Read whole and with
//! static types, so that a column's type is known before the first event.

use std::fmt;

use regex::Regex;
use serde_json::Value as Json;

use super::number::Number;
use super::value::Literal;
use crate::bridge::rules::path::Path;
use crate::bridge::rules::table::{Table, did_you_mean, wrong};
use crate::error::{Error, Result};
use crate::postgres::columns::Kind;

/// What an expression gives, as far as that is known before the first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A field's: whatever lies in it.
    Any,
    Text,
    Number,
    Integer,
    Moment,
    Date,
    Bool,
}

/// Where a time is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Minute,
    Hour,
    Day,
    /// Monday is the first day.
    Week,
    Month,
    Quarter,
    Year,
}

/// Where numbers are cut.
#[derive(Debug, Clone, PartialEq)]
pub enum Buckets {
    Width(i64),
    /// Ascending.
    Bounds(Vec<Number>),
}

/// An expression.
#[derive(Debug, Clone)]
pub enum Expression {
    Field { path: Path, slot: usize },
    EventTime,
    Literal(Literal),
    Lower(Box<Self>),
    Domain(Box<Self>),
    Path(Box<Self>),
    Query { of: Box<Self>, name: String },
    Extract { of: Box<Self>, pattern: Regex, group: usize },
    DateTrunc { of: Box<Self>, unit: Unit },
    Hour(Box<Self>),
    Coalesce(Vec<Self>),
    Bucket { of: Box<Self>, buckets: Buckets },
    Number(Box<Self>),
    Call { name: String, version: String, of: Vec<Self>, returns: Type, number: usize },
}

/// A user's function, as far as a definition needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub name: String,
    pub returns: Type,
    /// Goes into the definition's name: another version is another definition.
    pub version: String,
}

const FUNCTIONS: [&str; 13] = [
    "field",
    "event_time",
    "value",
    "lower",
    "domain",
    "path",
    "query",
    "extract",
    "date_trunc",
    "hour",
    "coalesce",
    "bucket",
    "number",
];
const UNITS: [(&str, Unit); 7] = [
    ("minute", Unit::Minute),
    ("hour", Unit::Hour),
    ("day", Unit::Day),
    ("week", Unit::Week),
    ("month", Unit::Month),
    ("quarter", Unit::Quarter),
    ("year", Unit::Year),
];
const TYPES: [(&str, Type); 6] = [
    ("text", Type::Text),
    ("bigint", Type::Integer),
    ("double", Type::Number),
    ("timestamp", Type::Moment),
    ("date", Type::Date),
    ("boolean", Type::Bool),
];
/// Functions in each other, at most.
const DEEPEST: usize = 20;

impl Type {
    /// By its name in a signature.
    ///
    /// # Errors
    /// `Config` naming the place.
    pub fn named(place: &str, name: &str) -> Result<Self> {
        let found = TYPES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        found.ok_or_else(|| {
            Error::config(format!("{place}: unknown type {name}"))
                .hint(did_you_mean(name, TYPES.iter().map(|(name, _)| *name)))
        })
    }

    /// The column that holds it when none is named.
    #[must_use]
    pub fn column(self) -> Kind {
        match self {
            Self::Any | Self::Text => Kind::Varchar(crate::aggregate::publish::report::KEY_LENGTH),
            Self::Number => Kind::Numeric,
            Self::Integer => Kind::Integer,
            Self::Moment => Kind::Timestamp,
            Self::Date => Kind::Date,
            Self::Bool => Kind::Boolean,
        }
    }

    /// Whether a column of `kind` can hold it.
    #[must_use]
    pub fn fits(self, kind: Kind) -> bool {
        match self {
            Self::Any => true,
            Self::Text => kind.is_text(),
            Self::Number | Self::Integer => kind.is_number(),
            Self::Moment | Self::Date => matches!(kind, Kind::Timestamp | Kind::Date),
            Self::Bool => kind == Kind::Boolean,
        }
    }
}

impl Expression {
    /// Reads an expression: a text is a field's name or dotted path, a table names one function.
    ///
    /// # Errors
    /// `Config` naming the place, with the nearest known name for what is unknown.
    pub fn read(place: &str, value: Json, known: &[Signature]) -> Result<Self> {
        Self::nested(place, value, known, DEEPEST)
    }

    fn nested(place: &str, value: Json, known: &[Signature], depth: usize) -> Result<Self> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(Error::config(format!("{place}: over {DEEPEST} functions in each other")));
        };
        let members = match value {
            Json::String(path) => return Ok(Self::Field { path: Path::read(place, &path)?, slot: 0 }),
            Json::Object(members) => members,
            _ => return Err(wrong(place, "a field's name, or a table of one function")),
        };
        let words = || FUNCTIONS.iter().copied().chain(["call"]);
        let Some(function) = members.keys().find(|name| words().any(|word| word == *name)).cloned() else {
            let named = members.keys().next().map_or("", String::as_str);
            return Err(Error::config(format!("{place}: unknown function {named}")).hint(did_you_mean(named, words())));
        };
        let with: &[&str] = match function.as_str() {
            "query" => &["query", "name"],
            "extract" => &["extract", "pattern", "group"],
            "date_trunc" => &["date_trunc", "unit"],
            "bucket" => &["bucket", "width", "bounds"],
            "call" => &["call", "of"],
            other => &[other],
        };
        let mut table = Table::open(place, Json::Object(members), with)?;
        let inner = table.place(&function);
        let given = table.take(&function).unwrap_or(Json::Null);
        let argument = |of: Type| -> Result<Box<Self>> {
            let read = Self::nested(&inner, given.clone(), known, depth)?;
            read.expect(&inner, of)?;
            Ok(Box::new(read))
        };
        Ok(match function.as_str() {
            "field" => *argument(Type::Any)?,
            "event_time" => Self::EventTime,
            "value" => Self::Literal(literal(&inner, &given)?),
            "lower" => Self::Lower(argument(Type::Text)?),
            "domain" => Self::Domain(argument(Type::Text)?),
            "path" => Self::Path(argument(Type::Text)?),
            "query" => Self::Query { of: argument(Type::Text)?, name: needed(&mut table, "name")? },
            "extract" => {
                let (pattern, group) = pattern(place, &mut table)?;
                Self::Extract { of: argument(Type::Text)?, pattern, group }
            }
            "date_trunc" => {
                let unit = table.choice("unit", &UNITS)?;
                let unit = unit.ok_or_else(|| missing(&table.place("unit"), "for example \"hour\""))?;
                Self::DateTrunc { of: argument(Type::Moment)?, unit }
            }
            "hour" => Self::Hour(argument(Type::Moment)?),
            "number" => Self::Number(argument(Type::Any)?),
            "bucket" => Self::Bucket { of: argument(Type::Number)?, buckets: buckets(place, &mut table)? },
            "coalesce" => Self::Coalesce(several(&inner, given, known, depth)?),
            _ => {
                let Json::String(name) = given else { return Err(wrong(&inner, "a function's name")) };
                let Some(signature) = known.iter().find(|signature| signature.name == name) else {
                    let unknown = Error::config(format!("{inner}: no function {name} is registered"));
                    return Err(match known {
                        [] => unknown.hint("register it: millpond.function(name, callable)"),
                        _ => unknown.hint(did_you_mean(&name, known.iter().map(|known| known.name.as_str()))),
                    });
                };
                let of = match table.take("of") {
                    None => return Err(missing(&table.place("of"), "one or more expressions")),
                    Some(Json::Array(items)) => several(&table.place("of"), Json::Array(items), known, depth)?,
                    Some(one) => vec![Self::nested(&table.place("of"), one, known, depth)?],
                };
                let Signature { name, returns, version } = signature.clone();
                Self::Call { name, version, of, returns, number: 0 }
            }
        })
    }

    fn expect(&self, place: &str, wanted: Type) -> Result<()> {
        let is = self.of_type();
        let fits = match wanted {
            Type::Any => true,
            Type::Moment => matches!(is, Type::Moment | Type::Date),
            Type::Number => matches!(is, Type::Number | Type::Integer),
            other => is == other,
        };
        if is == Type::Any || fits {
            return Ok(());
        }
        Err(Error::config(format!("{place}: {self} is of type {is:?}, not {wanted:?}"))
            .hint("put a function around it, or another in"))
    }

    /// What it gives.
    #[must_use]
    pub fn of_type(&self) -> Type {
        match self {
            Self::Field { .. } => Type::Any,
            Self::EventTime | Self::DateTrunc { .. } => Type::Moment,
            Self::Literal(Literal::Text(_)) => Type::Text,
            Self::Literal(Literal::Number(Number::Integer(_))) | Self::Hour(_) => Type::Integer,
            Self::Literal(Literal::Number(_)) | Self::Number(_) => Type::Number,
            Self::Literal(Literal::Bool(_)) => Type::Bool,
            Self::Lower(_) | Self::Domain(_) | Self::Path(_) | Self::Query { .. } | Self::Extract { .. } => Type::Text,
            Self::Bucket { buckets, .. } => match buckets {
                Buckets::Bounds(bounds) if bounds.iter().any(|bound| bound.whole().is_none()) => Type::Number,
                _ => Type::Integer,
            },
            Self::Coalesce(of) => of.iter().map(Self::of_type).find(|kind| *kind != Type::Any).unwrap_or(Type::Any),
            Self::Call { returns, .. } => *returns,
        }
    }

    /// Calls `take` with this and every expression in it, the outer ones last.
    pub fn each(&mut self, take: &mut impl FnMut(&mut Self)) {
        match self {
            Self::Field { .. } | Self::EventTime | Self::Literal(_) => {}
            Self::Lower(of) | Self::Domain(of) | Self::Path(of) | Self::Hour(of) | Self::Number(of) => of.each(take),
            Self::Query { of, .. }
            | Self::Extract { of, .. }
            | Self::DateTrunc { of, .. }
            | Self::Bucket { of, .. } => {
                of.each(take);
            }
            Self::Coalesce(of) | Self::Call { of, .. } => of.iter_mut().for_each(|of| of.each(take)),
        }
        take(self);
    }
}

fn several(place: &str, given: Json, known: &[Signature], depth: usize) -> Result<Vec<Expression>> {
    let items = match given {
        Json::Array(items) if !items.is_empty() => items,
        _ => return Err(wrong(place, "a list of expressions")),
    };
    let numbered = items.into_iter().enumerate();
    let read: Vec<Expression> = numbered
        .map(|(i, item)| Expression::nested(&format!("{place}[{i}]"), item, known, depth))
        .collect::<Result<_>>()?;
    if place.ends_with("coalesce") {
        let wanted = Expression::Coalesce(read.clone()).of_type();
        for (i, one) in read.iter().enumerate() {
            one.expect(&format!("{place}[{i}]"), wanted)?;
        }
    }
    Ok(read)
}

/// A text, a number, true or false.
///
/// # Errors
/// `Config` for anything else.
pub fn literal(place: &str, given: &Json) -> Result<Literal> {
    let read = match given {
        Json::String(text) => Some(Literal::Text(text.clone())),
        Json::Bool(truth) => Some(Literal::Bool(*truth)),
        Json::Number(number) => Number::read(&number.to_string()).map(Literal::Number),
        _ => None,
    };
    read.ok_or_else(|| wrong(place, "a text, a number, true or false"))
}

fn missing(place: &str, give: &str) -> Error {
    Error::config(format!("{place}: missing")).hint(format!("give {give}"))
}

fn needed(table: &mut Table, name: &str) -> Result<String> {
    table.text(name)?.ok_or_else(|| missing(&table.place(name), "a text"))
}

fn pattern(place: &str, table: &mut Table) -> Result<(Regex, usize)> {
    let spelled = needed(table, "pattern")?;
    let pattern = Regex::new(&spelled).map_err(|error| {
        Error::config(format!("{}: no regular expression", table.place("pattern")))
            .hint("https://docs.rs/regex/1/regex/#syntax: there are no look-around and no back-references")
            .because(error)
    })?;
    let groups = pattern.captures_len() - 1;
    let group = match table.take("group") {
        None => groups.min(1),
        Some(group) => group
            .as_u64()
            .and_then(|group| usize::try_from(group).ok())
            .filter(|group| *group <= groups)
            .ok_or_else(|| wrong(&format!("{place}.group"), &format!("a number from 0 to {groups}")))?,
    };
    Ok((pattern, group))
}

fn buckets(place: &str, table: &mut Table) -> Result<Buckets> {
    let both =
        || Error::config(format!("{place}: neither a width nor bounds")).hint("give width = 10, or bounds = [0, 10]");
    let bounds = table.list("bounds")?;
    match (table.take("width"), bounds) {
        (Some(width), None) => match width.as_i64().filter(|width| *width > 0) {
            Some(width) => Ok(Buckets::Width(width)),
            None => Err(wrong(&format!("{place}.width"), "a whole number above 0")),
        },
        (None, Some(bounds)) => {
            let wanted = || wrong(&format!("{place}.bounds"), "ascending numbers");
            let read = bounds.iter().map(|bound| Number::read(&bound.as_number()?.to_string()));
            let read: Vec<Number> = read.collect::<Option<_>>().ok_or_else(wanted)?;
            let ascend = read.windows(2).all(|pair| pair[0].compare(&pair[1]).is_lt());
            if read.is_empty() || !ascend { Err(wanted()) } else { Ok(Buckets::Bounds(read)) }
        }
        _ => Err(both()),
    }
}

/// As a function of its arguments: equal spellings are equal expressions.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, name: &str, of: &[Self]| {
            let of: Vec<String> = of.iter().map(Self::to_string).collect();
            write!(f, "{name}({})", of.join(", "))
        };
        match self {
            Self::Field { path, .. } => write!(f, "{path}"),
            Self::EventTime => f.write_str("event_time()"),
            Self::Literal(literal) => write!(f, "value({literal})"),
            Self::Lower(of) => write!(f, "lower({of})"),
            Self::Domain(of) => write!(f, "domain({of})"),
            Self::Path(of) => write!(f, "path({of})"),
            Self::Hour(of) => write!(f, "hour({of})"),
            Self::Number(of) => write!(f, "number({of})"),
            Self::Query { of, name } => write!(f, "query({of}, {name:?})"),
            Self::Extract { of, pattern, group } => write!(f, "extract({of}, {:?}, {group})", pattern.as_str()),
            Self::DateTrunc { of, unit } => write!(f, "date_trunc({of}, {unit:?})"),
            Self::Bucket { of, buckets: Buckets::Width(width) } => write!(f, "bucket({of}, {width})"),
            Self::Bucket { of, buckets: Buckets::Bounds(bounds) } => {
                let bounds: Vec<String> = bounds.iter().map(Number::plain).collect();
                write!(f, "bucket({of}, [{}])", bounds.join(", "))
            }
            Self::Coalesce(of) => list(f, "coalesce", of),
            Self::Call { name, version, of, .. } => list(f, &format!("{name}@{version}"), of),
        }
    }
}
