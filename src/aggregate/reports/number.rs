//! Numbers as BSON holds them, compared and spelled without rounding.

use std::cmp::Ordering;

use crate::aggregate::exact::Sum;
use crate::json::number::{Decimal, is_spelling};

/// Digits of a Decimal128.
const LARGEST: u128 = 10_u128.pow(34) - 1;
const LEAST_EXPONENT: i32 = -6_176;
/// Beyond it nothing that BSON holds begins or ends.
const FAR: i64 = 8_000;

/// A number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Integer(i64),
    Double(f64),
    /// ± coefficient × 10^exponent.
    Decimal {
        negative: bool,
        coefficient: u128,
        exponent: i32,
    },
}

impl Number {
    /// The value of a Decimal128 (binary integer form); `None` for NaN and the infinities.
    #[must_use]
    pub fn from_decimal128(bytes: &[u8; 16]) -> Option<Self> {
        let bits = u128::from_le_bytes(*bytes);
        let negative = bits >> 127 == 1;
        let top = (bits >> 122) as u8 & 0b1_1111;
        if top >= 0b1_1110 {
            return None;
        }
        let large = top >> 3 == 0b11;
        let exponent = i32::try_from((bits >> if large { 111 } else { 113 }) & 0x3fff).ok()?;
        // A coefficient of over 34 digits stands for 0; the large form has no other.
        let coefficient = if large { 0 } else { bits & ((1 << 113) - 1) };
        let coefficient = if coefficient > LARGEST { 0 } else { coefficient };
        Some(Self::Decimal { negative, coefficient, exponent: exponent + LEAST_EXPONENT })
    }

    /// Reads a decimal spelling, as JSON writes numbers, a `+` and blanks around it allowed; `None` for anything else, and
    /// for more than 34 digits.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('+').unwrap_or(text);
        if let Ok(whole) = text.parse() {
            return Some(Self::Integer(whole));
        }
        // JSON has no leading zeros and no point at an end; prices have.
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let rest = match rest.trim_start_matches('0') {
            kept if kept.starts_with(|first: char| first.is_ascii_digit()) => kept.to_owned(),
            kept if rest.starts_with(['0', '.']) => format!("0{kept}"),
            _ => return None,
        };
        if !is_spelling(rest.as_bytes()) {
            return None;
        }
        let read = Decimal::read(rest.as_bytes());
        if read.digits.len() > 34 || read.exponent.abs() > FAR {
            return None;
        }
        let coefficient = read.digits.iter().fold(0_u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
        Some(Self::Decimal { negative, coefficient, exponent: i32::try_from(read.exponent).ok()? })
    }

    /// Whether it is one: a double may be NaN or infinite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        !matches!(self, Self::Double(double) if !double.is_finite())
    }

    /// As a whole number of 64 bits, where it is one.
    #[must_use]
    pub fn whole(&self) -> Option<i64> {
        match self {
            Self::Integer(whole) => Some(*whole),
            _ => self.plain().parse().ok(),
        }
    }

    /// The nearest double.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "the nearest")]
    pub fn double(&self) -> f64 {
        match self {
            Self::Integer(whole) => *whole as f64,
            Self::Double(double) => *double,
            Self::Decimal { negative, coefficient, exponent } => {
                let sign = if *negative { "-" } else { "" };
                format!("{sign}{coefficient}e{exponent}").parse().unwrap_or(f64::NAN)
            }
        }
    }

    /// How two finite numbers stand to each other, exactly.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(one), Self::Integer(other)) => one.cmp(other),
            (Self::Double(one), Self::Double(other)) => one.partial_cmp(other).unwrap_or(Ordering::Equal),
            _ => {
                let mut difference = Sum::default();
                difference.add(self);
                difference.add(&other.negated());
                difference.sign()
            }
        }
    }

    fn negated(&self) -> Self {
        match *self {
            Self::Integer(whole) => match whole.checked_neg() {
                Some(negated) => Self::Integer(negated),
                None => Self::Decimal { negative: false, coefficient: 1 << 63, exponent: 0 },
            },
            Self::Double(double) => Self::Double(-double),
            Self::Decimal { negative, coefficient, exponent } => {
                Self::Decimal { negative: !negative, coefficient, exponent }
            }
        }
    }

    /// As bytes, for Arrow.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Integer(whole) => [&[0][..], &whole.to_le_bytes()].concat(),
            Self::Double(double) => [&[1][..], &double.to_bits().to_le_bytes()].concat(),
            Self::Decimal { negative, coefficient, exponent } => {
                [&[2, u8::from(*negative)][..], &coefficient.to_le_bytes(), &exponent.to_le_bytes()].concat()
            }
        }
    }

    /// Reads what [`Self::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (0, rest) => Some(Self::Integer(i64::from_le_bytes(rest.try_into().ok()?))),
            (1, rest) => Some(Self::Double(f64::from_bits(u64::from_le_bytes(rest.try_into().ok()?)))),
            (2, rest) => {
                let (negative, rest) = rest.split_first()?;
                let (coefficient, exponent) = rest.split_first_chunk::<16>()?;
                let coefficient = u128::from_le_bytes(*coefficient);
                let exponent = i32::from_le_bytes(exponent.try_into().ok()?);
                Some(Self::Decimal { negative: *negative != 0, coefficient, exponent })
            }
            _ => None,
        }
    }

    /// Its shortest decimal spelling without exponent: equal numbers of one type are spelled alike.
    #[must_use]
    pub fn plain(&self) -> String {
        match self {
            Self::Integer(whole) => whole.to_string(),
            Self::Double(double) if !double.is_finite() => double.to_string(),
            Self::Double(double) => spelled(&Decimal::read(zmij::Buffer::new().format_finite(*double).as_bytes())),
            Self::Decimal { negative, coefficient, exponent } => {
                let sign = if *negative { "-" } else { "" };
                spelled(&Decimal::read(format!("{sign}{coefficient}e{exponent}").as_bytes()))
            }
        }
    }
}

fn spelled(number: &Decimal) -> String {
    if number.digits.is_empty() {
        return "0".into();
    }
    let mut text = String::from_utf8_lossy(&number.digits).into_owned();
    let exponent = isize::try_from(number.exponent).unwrap_or(0);
    if exponent >= 0 {
        text.push_str(&"0".repeat(exponent.unsigned_abs()));
    } else if let Some(whole) = text.len().checked_sub(exponent.unsigned_abs()).filter(|whole| *whole > 0) {
        text.insert(whole, '.');
    } else {
        text = format!("0.{}{text}", "0".repeat(exponent.unsigned_abs() - text.len()));
    }
    if number.negative { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Number {
        let parsed: bson::Decimal128 = text.parse().expect("a decimal");
        Number::from_decimal128(&parsed.bytes()).expect("finite")
    }

    #[test]
    fn numbers_are_spelled_plainly() {
        for (number, wanted) in [
            (decimal("1.10"), "1.1"),
            (decimal("-7E-3"), "-0.007"),
            (decimal("1E+3"), "1000"),
            (decimal("-0"), "0"),
            (Number::Double(1e21), "1000000000000000000000"),
            (Number::Double(-0.0), "0"),
            (Number::Double(1_125_899_906_842_624.3), "1125899906842624.2"),
            (Number::Integer(i64::MIN), "-9223372036854775808"),
        ] {
            assert_eq!(number.plain(), wanted);
        }
        assert_eq!(Number::Double(3.0).whole(), Some(3));
        assert_eq!(decimal("9223372036854775808").whole(), None);
        let nan: bson::Decimal128 = "NaN".parse().expect("NaN");
        assert!(Number::from_decimal128(&nan.bytes()).is_none());
    }

    #[test]
    fn spellings_are_read_as_numbers() {
        for (text, wanted) in [
            (" 12.50 ", Some("12.5")),
            ("+7", Some("7")),
            ("-007.10", Some("-7.1")),
            (".5", Some("0.5")),
            ("1e3", Some("1000")),
            ("18446744073709551616", Some("18446744073709551616")),
            ("0", Some("0")),
            ("", None),
            ("-", None),
            ("12,5", None),
            ("abc", None),
            ("NaN", None),
            ("1e99999", None),
        ] {
            assert_eq!(Number::read(text).map(|number| number.plain()).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn numbers_of_all_types_are_compared_exactly() {
        let big = Number::Integer(i64::MAX);
        assert_eq!(big.compare(&Number::Double(9_223_372_036_854_775_808.0)), Ordering::Less);
        assert_eq!(decimal("0.1").compare(&Number::Double(0.1)), Ordering::Less);
        assert_eq!(decimal("3.0").compare(&Number::Integer(3)), Ordering::Equal);
        assert_eq!(Number::Integer(i64::MIN).compare(&Number::Double(-1e300)), Ordering::Greater);
    }
}
