//! Metrics of a definition: what is counted, added up or compared for each key.

use std::fmt;

use serde_json::Value as Json;

use super::expression::{Expression, Signature, Type};
use crate::bridge::rules::table::{Table, did_you_mean, wrong};
use crate::error::{Error, Result};
use crate::postgres::columns::Kind;

/// A metric: its column, and how it is made.
#[derive(Debug, Clone)]
pub struct Metric {
    pub name: String,
    pub kind: Kind,
    pub measure: Measure,
}

/// How a metric is made. NULLs count nowhere but in `Count`.
#[derive(Debug, Clone)]
pub enum Measure {
    /// Events.
    Count,
    /// Distinct values that are not NULL, exactly; texts of up to so many code points.
    Distinct {
        of: Expression,
        longest: Option<u32>,
    },
    Sum(Expression),
    Mean(Expression),
    Min(Expression),
    Max(Expression),
}

const MEASURES: [&str; 6] = ["count", "count_distinct", "sum", "mean", "min", "max"];
const KINDS: [(&str, Kind); 7] = [
    ("text", Kind::Text),
    ("bigint", Kind::Integer),
    ("double", Kind::Double),
    ("numeric", Kind::Numeric),
    ("timestamp", Kind::Timestamp),
    ("date", Kind::Date),
    ("boolean", Kind::Boolean),
];

/// The column's type of that name; `varchar(n)` too.
///
/// # Errors
/// `Config` naming the place.
pub fn kind(place: &str, name: &str) -> Result<Kind> {
    let spelled = name.to_lowercase();
    if spelled == "varchar" {
        return Ok(Type::Text.column());
    }
    let length = spelled.strip_prefix("varchar(").and_then(|rest| rest.strip_suffix(')'));
    if let Some(length) = length {
        let length = length.trim().parse().ok().filter(|length| (1..=10_485_760).contains(length));
        return length.map(Kind::Varchar).ok_or_else(|| wrong(place, "a length from 1 to 10485760"));
    }
    let found = KINDS.iter().find(|(known, _)| *known == spelled).map(|(_, kind)| *kind);
    found.ok_or_else(|| {
        let words = KINDS.iter().map(|(name, _)| *name).chain(["varchar", "varchar(n)"]);
        Error::config(format!("{place}: unknown type")).hint(did_you_mean(name, words))
    })
}

impl Metric {
    /// Reads a metric: `"count"`, or a table of one of the measures.
    ///
    /// # Errors
    /// `Config` naming the place, with the nearest known name for what is unknown.
    pub fn read(place: &str, name: String, value: Json, known: &[Signature]) -> Result<Self> {
        let members = match value {
            Json::String(word) if word == "count" => {
                return Ok(Self { name, kind: Kind::Integer, measure: Measure::Count });
            }
            Json::String(word) => {
                return Err(Error::config(format!("{place}: unknown metric {word}"))
                    .hint(format!("\"count\", or a table: {{{word} = \"field\"}} of {}", MEASURES.join(", "))));
            }
            Json::Object(members) => members,
            _ => return Err(wrong(place, "\"count\", or a table such as {sum = \"price\"}")),
        };
        let Some(word) = members.keys().find(|name| MEASURES.contains(&name.as_str())).cloned() else {
            let named = members.keys().next().map_or("", String::as_str);
            return Err(Error::config(format!("{place}: unknown metric {named}"))
                .hint(did_you_mean(named, MEASURES.into_iter())));
        };
        let with: &[&str] = match word.as_str() {
            "count" => &["count"],
            "count_distinct" => &["count_distinct", "longest"],
            other => &[other, "type"],
        };
        let mut table = Table::open(place, Json::Object(members), with)?;
        let inner = table.place(&word);
        let given = table.take(&word).unwrap_or(Json::Null);
        if word == "count" {
            return match given {
                Json::Bool(true) => Ok(Self { name, kind: Kind::Integer, measure: Measure::Count }),
                _ => Err(wrong(&inner, "true: it counts events; filter them with where")),
            };
        }
        let of = Expression::read(&inner, given, known)?;
        let told = table.text("type")?.map(|word| kind(&table.place("type"), &word)).transpose()?;
        let fit = |default: Kind, may: &dyn Fn(Kind) -> bool| {
            let kind = told.unwrap_or(default);
            if may(kind) && of.of_type().fits(kind) {
                return Ok(kind);
            }
            Err(Error::config(format!("{place}: a column of type {} does not hold {word} of {of}", kind.sql()))
                .hint("give another type=, or a function around the field"))
        };
        let numbers = |kind: Kind| matches!(kind, Kind::Numeric | Kind::Double | Kind::Integer);
        let kind = match word.as_str() {
            "count_distinct" => Kind::Integer,
            "sum" => fit(Kind::Numeric, &numbers)?,
            "mean" => fit(Kind::Double, &|kind| kind == Kind::Double)?,
            // A field may hold anything: numbers unless told otherwise.
            _ => fit(
                match of.of_type() {
                    Type::Any => Kind::Numeric,
                    Type::Text => Kind::Text,
                    other => other.column(),
                },
                &|_| true,
            )?,
        };
        let measure = match word.as_str() {
            "count_distinct" => {
                let longest = table.take("longest").map(|longest| {
                    let longest = longest.as_u64().and_then(|longest| u32::try_from(longest).ok());
                    longest.filter(|longest| *longest > 0).ok_or_else(|| wrong(&table.place("longest"), "a length"))
                });
                Measure::Distinct { of, longest: longest.transpose()? }
            }
            "sum" => Measure::Sum(of),
            "mean" => Measure::Mean(of),
            "min" => Measure::Min(of),
            _ => Measure::Max(of),
        };
        Ok(Self { name, kind, measure })
    }

    /// What it is made of, where it is more than events.
    pub fn of(&mut self) -> Option<&mut Expression> {
        match &mut self.measure {
            Measure::Count => None,
            Measure::Distinct { of, .. }
            | Measure::Sum(of)
            | Measure::Mean(of)
            | Measure::Min(of)
            | Measure::Max(of) => Some(of),
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => f.write_str("count"),
            Self::Distinct { of, longest: None } => write!(f, "count_distinct {of}"),
            Self::Distinct { of, longest: Some(longest) } => write!(f, "count_distinct {of} up to {longest}"),
            Self::Sum(of) => write!(f, "sum {of}"),
            Self::Mean(of) => write!(f, "mean {of}"),
            Self::Min(of) => write!(f, "min {of}"),
            Self::Max(of) => write!(f, "max {of}"),
        }
    }
}
