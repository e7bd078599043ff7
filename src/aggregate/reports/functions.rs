//! Expressions over one event.

use std::borrow::Cow;

use super::address;
use super::calls::Calls;
use super::expression::{Buckets, Expression, Unit};
use super::number::Number;
use super::value::{KEY_TYPE, Value};
use crate::aggregate::element::Element;
use crate::aggregate::exact::Sum;
use crate::bridge::time_text::{civil_from_days, days_from_civil};

const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;

/// What expressions look at.
#[derive(Debug, Clone, Copy)]
pub struct Event<'v, 'a> {
    /// By slot.
    pub values: &'v [Element<'a>],
    /// When it happened, in microseconds since 1970.
    pub micros: i64,
}

impl Expression {
    /// Its value for an event. NULL in, NULL out; what a function cannot read is NULL, what is of a type that no text has
    /// is unfit.
    pub fn of<'a>(&'a self, event: &Event<'_, 'a>, calls: &mut Calls) -> Value<'a> {
        match self {
            Self::Field { slot, .. } => Value::of(event.values[*slot]),
            Self::EventTime => Value::Moment(event.micros),
            Self::Literal(literal) => literal.value(),
            Self::Lower(of) => text(of.of(event, calls), |text| {
                let lower = text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
                Some(if lower { text } else { Cow::Owned(text.to_lowercase()) })
            }),
            Self::Domain(of) => text(of.of(event, calls), |text| part(text, address::domain)),
            Self::Path(of) => text(of.of(event, calls), |text| part(text, |text| Some(address::path(text).into()))),
            Self::Query { of, name } => text(of.of(event, calls), |text| part(text, |text| address::query(text, name))),
            Self::Extract { of, pattern, group } => text(of.of(event, calls), |text| {
                part(text, |text| {
                    let found = match group {
                        0 => pattern.find(text),
                        _ => pattern.captures(text).and_then(|found| found.get(*group)),
                    };
                    found.map(|found| found.as_str().into())
                })
            }),
            Self::DateTrunc { of, unit } => moment(of.of(event, calls), |micros| Value::Moment(unit.cut(micros))),
            Self::Hour(of) => moment(of.of(event, calls), |micros| {
                Value::Number(Number::Integer(micros.rem_euclid(DAY_US) / HOUR_US))
            }),
            Self::Coalesce(of) => {
                let values = of.iter().map(|of| of.of(event, calls));
                values.into_iter().find(|value| *value != Value::Null).unwrap_or(Value::Null)
            }
            Self::Bucket { of, buckets } => match of.of(event, calls) {
                Value::Pending => Value::Pending,
                value => match value.number() {
                    Err(reason) => Value::Unfit(reason),
                    Ok(number) => number.and_then(|number| buckets.low(&number)).map_or(Value::Null, Value::Number),
                },
            },
            Self::Number(of) => match of.of(event, calls) {
                Value::Text(text) => Number::read(&text).map_or(Value::Null, Value::Number),
                Value::Bool(truth) => Value::Number(Number::Integer(i64::from(truth))),
                value @ (Value::Number(_) | Value::Null | Value::Pending | Value::Unfit(_)) => value,
                Value::Moment(_) | Value::Date(_) => Value::Unfit(KEY_TYPE),
            },
            Self::Call { of, number, .. } => {
                let arguments: Vec<Value<'a>> = of.iter().map(|of| of.of(event, calls)).collect();
                calls.answer(*number, arguments)
            }
        }
    }
}

fn text<'a>(value: Value<'a>, make: impl FnOnce(Cow<'a, str>) -> Option<Cow<'a, str>>) -> Value<'a> {
    if value == Value::Pending {
        return value;
    }
    match value.text() {
        Err(reason) => Value::Unfit(reason),
        Ok(text) => text.and_then(make).map_or(Value::Null, Value::Text),
    }
}

/// Part of a text, borrowed where the text is.
fn part(text: Cow<'_, str>, make: impl Fn(&str) -> Option<Cow<'_, str>>) -> Option<Cow<'_, str>> {
    match text {
        Cow::Borrowed(text) => make(text),
        Cow::Owned(text) => make(&text).map(|part| Cow::Owned(part.into_owned())),
    }
}

fn moment<'a>(value: Value<'a>, make: impl FnOnce(i64) -> Value<'a>) -> Value<'a> {
    match value {
        Value::Pending => Value::Pending,
        Value::Unfit(reason) => Value::Unfit(reason),
        // A text that is no time is as a text without host: NULL.
        text @ Value::Text(_) => text.moment().ok().flatten().map_or(Value::Null, make),
        other => match other.moment() {
            Ok(micros) => micros.map_or(Value::Null, make),
            Err(reason) => Value::Unfit(reason),
        },
    }
}

impl Unit {
    fn cut(self, micros: i64) -> i64 {
        let days = micros.div_euclid(DAY_US);
        let first = |year, month| days_from_civil(year, month, 1) * DAY_US;
        let (year, month, _) = civil_from_days(days);
        match self {
            Self::Minute => micros - micros.rem_euclid(MINUTE_US),
            Self::Hour => micros - micros.rem_euclid(HOUR_US),
            Self::Day => days * DAY_US,
            // 1970-01-01 was a Thursday.
            Self::Week => (days - (days + 3).rem_euclid(7)) * DAY_US,
            Self::Month => first(year, month),
            Self::Quarter => first(year, (month - 1) / 3 * 3 + 1),
            Self::Year => first(year, 1),
        }
    }
}

impl Buckets {
    /// The greatest bound that is not above the number; `None` below the first one.
    fn low(&self, number: &Number) -> Option<Number> {
        match self {
            Self::Bounds(bounds) => bounds.iter().rev().find(|bound| bound.compare(number).is_le()).copied(),
            Self::Width(width) => {
                let whole = match number {
                    Number::Integer(whole) => *whole,
                    other => {
                        let mut sum = Sum::default();
                        sum.add(other);
                        let text = sum.exact();
                        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
                        // Cut towards zero; a bucket's bound is below.
                        let down = i64::from(text.starts_with('-') && !fraction.is_empty());
                        whole.parse::<i64>().ok()?.checked_sub(down)?
                    }
                };
                whole.checked_sub(whole.rem_euclid(*width)).map(Number::Integer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut() {
        let cut = |unit: Unit, text: &str| {
            let read = |text: &str| crate::aggregate::instant::Instant::read(text.as_bytes()).expect("a time").micros;
            let cut = unit.cut(read(text));
            (0..).zip(["minute"]).next();
            cut - read("1970-01-01")
        };
        let day = |text: &str| cut(Unit::Day, text);
        assert_eq!(cut(Unit::Week, "2025-11-02T23:59:59Z"), day("2025-10-27"));
        assert_eq!(cut(Unit::Week, "1969-12-31T00:00:00Z"), day("1969-12-29"));
        assert_eq!(cut(Unit::Quarter, "2025-12-31T10:00:00Z"), day("2025-10-01"));
        assert_eq!(cut(Unit::Month, "2024-02-29T10:00:00Z"), day("2024-02-01"));
        assert_eq!(cut(Unit::Year, "1969-12-31T23:59:59.5Z"), day("1969-01-01"));
        assert_eq!(cut(Unit::Hour, "2025-10-31T10:59:59.9Z"), day("2025-10-31") + 10 * HOUR_US);
        assert_eq!(cut(Unit::Minute, "1969-12-31T23:59:59.5Z"), -MINUTE_US);
    }

    #[test]
    fn buckets_have_their_lower_bound() {
        let tens = Buckets::Width(10);
        let low = |number| tens.low(&number).and_then(|low| low.whole());
        assert_eq!(low(Number::Integer(-1)), Some(-10));
        assert_eq!(low(Number::Double(-0.5)), Some(-10));
        assert_eq!(low(Number::Double(19.99)), Some(10));
        assert_eq!(low(Number::Integer(i64::MIN)), None);
        let bounds = Buckets::Bounds(vec![Number::Integer(0), Number::Double(2.5)]);
        assert_eq!(bounds.low(&Number::Double(2.4)).map(|low| low.plain()).as_deref(), Some("0"));
        assert_eq!(bounds.low(&Number::Integer(3)).map(|low| low.plain()).as_deref(), Some("2.5"));
        assert_eq!(bounds.low(&Number::Integer(-3)), None);
    }
}
