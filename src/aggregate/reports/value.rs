//! Values while a report looks at an event: what a field holds, what a function makes of it, and the forms that keys and
//! metrics take of it. It refuses to guess: what has another type is said to be unfit.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::number::Number;
use crate::aggregate::element::Element;
use crate::aggregate::instant::{self, Instant};
use crate::postgres::columns::Kind;

/// Why a key or a value cannot be used.
pub type Unfit = &'static str;
/// A key that is NULL or missing.
pub const NULL_KEY: Unfit = "null_key";
/// Of a type that the column does not take.
pub const KEY_TYPE: Unfit = "key_type";
/// Too long, or with a NUL.
pub const KEY_UNFIT: Unfit = "key_unfit";

/// A value of an event, as it is or made by a function.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    Null,
    Text(Cow<'a, str>),
    Number(Number),
    Bool(bool),
    /// Microseconds since 1970.
    Moment(i64),
    /// Days since 1970.
    Date(i32),
    /// Nothing can be made of it.
    Unfit(Unfit),
    /// A user's function has not been asked yet.
    Pending,
}

impl<'a> Value<'a> {
    /// What lies in a document.
    #[must_use]
    pub fn of(element: Element<'a>) -> Self {
        match element {
            Element::Missing | Element::Null => Self::Null,
            Element::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Self::Text(Cow::Borrowed(text)),
                Err(_) => Self::Unfit(KEY_UNFIT),
            },
            Element::Integer(number) => Self::Number(Number::Integer(number)),
            Element::Double(number) => Self::Number(Number::Double(number)),
            Element::Decimal(bytes) => Number::from_decimal128(bytes).map_or(Self::Unfit(KEY_TYPE), Self::Number),
            Element::Bool(truth) => Self::Bool(truth),
            Element::Date(millis) => {
                let instant = millis.checked_mul(1_000).and_then(Instant::from_micros);
                instant.map_or(Self::Unfit(KEY_TYPE), |instant| Self::Moment(instant.micros))
            }
            Element::ObjectId(_) | Element::Document(_) | Element::Other => Self::Unfit(KEY_TYPE),
        }
    }

    /// Its text, as keys take it: integers are spelled.
    ///
    /// # Errors
    /// The reason why there is none; `None` for NULL.
    pub fn text(self) -> Result<Option<Cow<'a, str>>, Unfit> {
        match self {
            Self::Null => Ok(None),
            Self::Text(text) => Ok(Some(text)),
            Self::Number(Number::Integer(number)) => Ok(Some(Cow::Owned(number.to_string()))),
            Self::Unfit(reason) => Err(reason),
            _ => Err(KEY_TYPE),
        }
    }

    /// Its number; NaN and the infinities are none.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn number(self) -> Result<Option<Number>, Unfit> {
        match self {
            Self::Null => Ok(None),
            Self::Number(number) if number.is_finite() => Ok(Some(number)),
            Self::Unfit(reason) => Err(reason),
            _ => Err(KEY_TYPE),
        }
    }

    /// Its moment: texts are read as times.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn moment(self) -> Result<Option<i64>, Unfit> {
        match self {
            Self::Null => Ok(None),
            Self::Moment(micros) => Ok(Some(micros)),
            Self::Date(days) => Ok(Some(i64::from(days) * 86_400_000_000)),
            Self::Text(text) => Instant::read(text.as_bytes()).map(|instant| Some(instant.micros)).ok_or(KEY_UNFIT),
            Self::Unfit(reason) => Err(reason),
            _ => Err(KEY_TYPE),
        }
    }

    /// The whole number that a column of `kind` holds it by: itself, microseconds, days.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn whole(self, kind: Kind) -> Result<Option<i64>, Unfit> {
        match kind {
            Kind::Timestamp => self.moment(),
            Kind::Date => Ok(self.moment()?.map(|micros| micros.div_euclid(86_400_000_000))),
            Kind::Boolean => match self {
                Self::Null => Ok(None),
                Self::Bool(truth) => Ok(Some(i64::from(truth))),
                Self::Unfit(reason) => Err(reason),
                _ => Err(KEY_TYPE),
            },
            _ => match self.number()? {
                None => Ok(None),
                Some(number) => number.whole().map(Some).ok_or(KEY_UNFIT),
            },
        }
    }

    /// What a key column of `kind` is interned as.
    ///
    /// # Errors
    /// The reason why it is no key, NULL among them.
    pub fn key(self, kind: Kind) -> Result<Cow<'a, str>, Unfit> {
        let spelled = match kind {
            Kind::Varchar(_) | Kind::Text => {
                let text = self.text()?.ok_or(NULL_KEY)?;
                let longest = if let Kind::Varchar(longest) = kind { longest as usize } else { usize::MAX };
                let long = text.len() > longest && text.chars().count() > longest;
                let unfit = long || memchr::memchr(0, text.as_bytes()).is_some();
                return if unfit { Err(KEY_UNFIT) } else { Ok(text) };
            }
            Kind::Numeric | Kind::Double => self.number()?.map(|number| number.plain()),
            _ => self.whole(kind)?.map(|whole| whole.to_string()),
        };
        spelled.map(Cow::Owned).ok_or(NULL_KEY)
    }

    /// The same, independent of the document.
    #[must_use]
    pub fn owned(self) -> Value<'static> {
        match self {
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Null => Value::Null,
            Self::Number(number) => Value::Number(number),
            Self::Bool(truth) => Value::Bool(truth),
            Self::Moment(micros) => Value::Moment(micros),
            Self::Date(days) => Value::Date(days),
            Self::Unfit(reason) => Value::Unfit(reason),
            Self::Pending => Value::Pending,
        }
    }
}

/// A value that a definition spells out, to compare with.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    Text(String),
    Number(Number),
    Bool(bool),
}

impl Literal {
    /// How a value stands to it; `None` for one of another type. Moments and dates are compared with texts that say one.
    #[must_use]
    pub fn compare(&self, value: &Value<'_>) -> Option<Ordering> {
        match (value, self) {
            (Value::Text(text), Self::Text(wanted)) => Some(text.as_ref().cmp(wanted)),
            (Value::Number(number), Self::Number(wanted)) if number.is_finite() => Some(number.compare(wanted)),
            (Value::Bool(truth), Self::Bool(wanted)) => Some(truth.cmp(wanted)),
            (Value::Moment(micros), Self::Text(wanted)) => {
                Instant::read(wanted.as_bytes()).map(|instant| micros.cmp(&instant.micros))
            }
            (Value::Date(days), Self::Text(wanted)) => instant::date(wanted.as_bytes()).map(|wanted| days.cmp(&wanted)),
            _ => None,
        }
    }

    /// As a value.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
            Self::Number(number) => Value::Number(*number),
            Self::Bool(truth) => Value::Bool(*truth),
        }
    }
}

impl std::fmt::Display for Literal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => f.write_str(&number.plain()),
            Self::Bool(truth) => write!(f, "{truth}"),
        }
    }
}
