//! What a value becomes under each `type`. A value that the type cannot say exactly is a dead letter, not a guess (I7);
//! `float` alone rounds: it is the declared wish for the nearest double.

use std::borrow::Cow;

use serde::Serialize;

use crate::bridge::time_text;
use crate::json::number::{self, Decimal};
use crate::json::{DeadLetter, Kind, Reason, Tape, Token, compact, text};

/// The types, by the names that a definition gives them.
pub const TYPES: &[(&str, Type)] = &[
    ("string", Type::String),
    ("int", Type::Int),
    ("float", Type::Float),
    ("bool", Type::Bool),
    ("timestamp", Type::Timestamp),
    ("date", Type::Date),
    ("json", Type::Json),
];

/// What a field is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Type {
    /// A string, or the spelling of a number.
    String,
    /// A whole number of 64 bits.
    Int,
    /// The nearest double.
    Float,
    /// True or false.
    Bool,
    /// An instant: RFC 3339 UTC.
    Timestamp,
    /// A date, `YYYY-MM-DD`.
    Date,
    /// Whatever it is, as it is.
    Json,
}

impl Type {
    /// The name that a definition gives it.
    #[must_use]
    pub fn name(self) -> &'static str {
        TYPES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// Appends the value whose token is `at` as this type.
    ///
    /// # Errors
    /// Why it cannot be; `out` then holds rubbish.
    pub fn write(self, tape: &Tape, message: &[u8], at: usize, out: &mut Vec<u8>) -> Result<(), DeadLetter> {
        let token = &tape.tokens[at];
        match self {
            Self::Json => compact::value(tape, message, at, out),
            Self::String if token.kind == Kind::String => compact::string(token, message, out),
            Self::String => {
                quoted(&spelling(token, message)?, out);
                Ok(())
            }
            Self::Int => int(&numeral(token, message)?, out),
            Self::Float => float(&numeral(token, message)?, out),
            Self::Bool => boolean(token, message, out),
            Self::Timestamp if token.kind == Kind::Number => time_text::from_number(token.text(message), out),
            Self::Timestamp => time_text::from_text(&spelling(token, message)?, out),
            Self::Date => date(token, message, out),
        }
    }
}

/// The text of a string, decoded, or the spelling of a number.
///
/// # Errors
/// `type` for anything else, `lone_surrogate`.
pub fn spelling<'a>(token: &Token, message: &'a [u8]) -> Result<Cow<'a, [u8]>, DeadLetter> {
    let raw = token.text(message);
    match token.kind {
        Kind::String if token.escaped => {
            let mut decoded = Vec::with_capacity(raw.len());
            text::decode(raw, &mut decoded)?;
            Ok(Cow::Owned(decoded))
        }
        Kind::String | Kind::Number => Ok(Cow::Borrowed(raw)),
        kind => Err(mistyped(kind, "neither a string nor a number")),
    }
}

fn mistyped(kind: Kind, wanted: &str) -> DeadLetter {
    let found = match kind {
        Kind::Object => "an object",
        Kind::Array => "a list",
        Kind::String | Kind::Key => "a string",
        Kind::Number => "a number",
        Kind::True | Kind::False => "true or false",
        Kind::Null => "null",
    };
    DeadLetter::new(Reason::Type, format!("{found} is {wanted}"))
}

fn quoted(plain: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(plain);
    out.push(b'"');
}

/// The spelling of a number, also of one in quotes.
fn numeral<'a>(token: &Token, message: &'a [u8]) -> Result<Cow<'a, [u8]>, DeadLetter> {
    let spelled = spelling(token, message)?;
    if token.kind == Kind::Number || number::is_spelling(&spelled) {
        return Ok(spelled);
    }
    Err(DeadLetter::new(Reason::Type, "a string that spells no number"))
}

/// Written without fraction and exponent, and never as `-0`, so that every reader sees a whole number.
fn int(spelled: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let text = std::str::from_utf8(spelled).unwrap_or_default();
    // JSON knows neither leading zeros nor a plus sign: what i64 reads is canonical but for -0.
    let whole = text.parse::<i64>().ok().or_else(|| exact(spelled));
    match whole {
        Some(0) => out.push(b'0'),
        Some(whole) => out.extend_from_slice(whole.to_string().as_bytes()),
        None => return Err(DeadLetter::new(Reason::NumberInexact, "no whole number of 64 bits")),
    }
    Ok(())
}

/// The whole number that a spelling with fraction or exponent is, such as `1e3` or `5.0`.
fn exact(spelled: &[u8]) -> Option<i64> {
    let number = Decimal::read(spelled);
    if number.digits.is_empty() {
        return Some(0);
    }
    let zeros = usize::try_from(number.exponent).ok()?;
    if number.digits.len() + zeros.min(20) > 19 {
        return None;
    }
    let digits = number.digits.iter().copied().chain(std::iter::repeat_n(b'0', zeros));
    let size = digits.fold(0_i128, |size, digit| size * 10 + i128::from(digit - b'0'));
    i64::try_from(if number.negative { -size } else { size }).ok()
}

/// The shortest form that comes back as the same double; a fraction or an exponent is always there, so that every reader
/// sees a double.
fn float(spelled: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let text = std::str::from_utf8(spelled).unwrap_or_default();
    match text.parse::<f64>() {
        Ok(nearest) if nearest.is_finite() => {
            out.extend_from_slice(zmij::Buffer::new().format_finite(nearest).as_bytes());
            Ok(())
        }
        _ => Err(DeadLetter::new(Reason::NumberInexact, "beyond every double")),
    }
}

fn boolean(token: &Token, message: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let word: &[u8] = match token.kind {
        Kind::True => b"true",
        Kind::False => b"false",
        Kind::String => match spelling(token, message)?.as_ref() {
            b"true" => b"true",
            b"false" => b"false",
            _ => return Err(DeadLetter::new(Reason::Type, "a string that is neither true nor false")),
        },
        kind => return Err(mistyped(kind, "neither true nor false")),
    };
    out.extend_from_slice(word);
    Ok(())
}

/// A date stays; an instant gives its UTC date; a clock without offset its own.
fn date(token: &Token, message: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    /// `YYYY-MM-DD`
    const DATE: usize = 10;
    let before = out.len();
    let text = spelling(token, message)?;
    if token.kind == Kind::Number {
        time_text::from_number(&text, out)?;
    } else {
        let first = time_text::from_text(&text, out);
        if let Err(letter) = first {
            out.truncate(before);
            let clock: &[u8] = if text.len() == DATE { b"T00:00:00Z" } else { b"Z" };
            time_text::from_text(&[text.as_ref(), clock].concat(), out).map_err(|_| letter)?;
        }
    }
    out.truncate(before + 1 + DATE);
    out.push(b'"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(kind: Type, json: &str) -> Result<String, Reason> {
        let message = format!("{{\"v\":{json}}}");
        let mut tape = Tape::default();
        tape.read(message.as_bytes()).map_err(|letter| letter.reason)?;
        let mut out = Vec::new();
        kind.write(&tape, message.as_bytes(), 2, &mut out).map_err(|letter| letter.reason)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    fn all(kind: Type, cases: &[(&str, &str)]) {
        for (json, wanted) in cases {
            let told = made(kind, json).unwrap_or_else(|reason| reason.as_str().to_owned());
            assert_eq!(told, *wanted, "{json}");
        }
    }

    #[test]
    fn whole_numbers() {
        all(
            Type::Int,
            &[
                ("-0", "0"),
                ("\"-0.0\"", "0"),
                ("1.0", "1"),
                ("1e3", "1000"),
                ("123.00e2", "12300"),
                ("-9223372036854775808", "-9223372036854775808"),
                ("9.223372036854775807e18", "9223372036854775807"),
                ("9223372036854775808", "number_inexact"),
                ("0.5", "number_inexact"),
                ("1e-1", "number_inexact"),
                ("1e999999999999", "number_inexact"),
                ("0e999999999999", "0"),
                ("\"12\"", "12"),
                ("\"012\"", "type"),
                ("\"\"", "type"),
                ("\"+1\"", "type"),
                ("\" 1\"", "type"),
                ("true", "type"),
            ],
        );
    }

    #[test]
    fn doubles() {
        all(
            Type::Float,
            &[
                ("1", "1.0"),
                ("-0", "-0.0"),
                ("0.1000000000000000055511151231257827021181583404541015626", "0.1"),
                ("9007199254740993", "9007199254740992.0"),
                ("1e400", "number_inexact"),
                ("1e-400", "0.0"),
                ("\"2.5\"", "2.5"),
                ("\"NaN\"", "type"),
                ("\"inf\"", "type"),
            ],
        );
    }

    #[test]
    fn dates() {
        all(
            Type::Date,
            &[
                ("\"2025-10-31\"", "\"2025-10-31\""),
                ("\"2025-10-31 03:22:11\"", "\"2025-10-31\""),
                ("\"2025-10-31T03:22:11+07:00\"", "\"2025-10-30\""),
                ("\"2025-10-31T03:22:11.5Z\"", "\"2025-10-31\""),
                ("1761881000", "\"2025-10-31\""),
                ("\"1761881000123\"", "\"2025-10-31\""),
                ("\"2025-02-29\"", "bad_time"),
                ("\"2025-10-31ZZZZ\"", "bad_time"),
                ("\"20251031\"", "time_unit"),
                ("\"\"", "bad_time"),
                ("[]", "type"),
            ],
        );
    }

    #[test]
    fn the_rest() {
        all(Type::Bool, &[("true", "true"), ("\"false\"", "false"), ("1", "type"), ("\"True\"", "type")]);
        all(
            Type::String,
            &[("1.50", "\"1.50\""), ("\"\\u0041\"", "\"A\""), ("true", "type"), ("\"\\ud800\"", "lone_surrogate")],
        );
        all(Type::Json, &[("[ 1.50 , {\"a\":null}]", "[1.50,{\"a\":null}]"), ("\"\\ud800\"", "lone_surrogate")]);
        all(Type::Timestamp, &[("1761881000", "\"2025-10-31T03:23:20Z\""), ("\"\"", "bad_time"), ("{}", "type")]);
    }
}
