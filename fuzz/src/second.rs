//! The rules a second time: messages by `serde_json`, numbers by `bson` and `ryu`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A message with all its members, those of one name too, and numbers as they are spelled.
#[derive(Debug)]
pub enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// What a number is stored as; doubles by their bits, since -0.0 is not 0.0.
#[derive(Debug, PartialEq, Eq)]
pub enum Number {
    Int32(i32),
    Int64(i64),
    Double(u64),
    Decimal128([u8; 16]),
}

/// Reads a whole message.
///
/// # Errors
/// As `serde_json` says.
pub fn read(data: &[u8]) -> serde_json::Result<Json> {
    serde_json::from_slice(data)
}

impl Json {
    /// Calls `take` with every value and its depth.
    pub fn each(&self, depth: usize, take: &mut impl FnMut(&Self, usize)) {
        take(self, depth);
        match self {
            Self::List(values) => values.iter().for_each(|value| value.each(depth + 1, take)),
            Self::Object(members) => members.iter().for_each(|(_, value)| value.each(depth + 1, take)),
            _ => {}
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        // Only what has a minus comes here: -0 too.
        Ok(Json::Number(if value == 0 { "-0".to_owned() } else { value.to_string() }))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(name) = members.next_key::<String>()? {
            if name == "$serde_json::private::Number" {
                return Ok(Json::Number(members.next_value()?));
            }
            object.push((name, members.next_value()?));
        }
        Ok(Json::Object(object))
    }
}

/// What a number is stored as; `None` when no type holds it exactly.
#[must_use]
pub fn number(spelled: &str) -> Option<Number> {
    if spelled == "-0" {
        return Some(Number::Double((-0.0_f64).to_bits()));
    }
    let decimal = || spelled.parse::<bson::Decimal128>().ok().map(|number| Number::Decimal128(number.bytes()));
    if !spelled.contains(['.', 'e', 'E']) {
        let small = spelled.parse().map(Number::Int32).ok();
        return small.or_else(|| spelled.parse().map(Number::Int64).ok()).or_else(decimal);
    }
    let nearest: f64 = spelled.parse().ok()?;
    let said = Said::of(spelled);
    let finite = nearest.is_finite() && (nearest != 0.0 || said.digits.is_empty());
    let double = Some(Number::Double(nearest.to_bits()));
    if finite && Said::of(ryu::Buffer::new().format_finite(nearest)) == said {
        return double;
    }
    // `bson` underflows to zero in silence where all digits are lost.
    let holds =
        |number: &Number| !matches!(number, Number::Decimal128(bytes) if is_zero(bytes)) || said.digits.is_empty();
    if let Some(found) = decimal().filter(holds) {
        return Some(found);
    }
    if finite && Said::of(&format!("{nearest:.1100}")) == said { double } else { None }
}

fn is_zero(bytes: &[u8; 16]) -> bool {
    u128::from_le_bytes(*bytes) << 15 == 0
}

/// A number as digits without zeros around them and the power of ten of the last one.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    negative: bool,
    digits: String,
    power: i128,
}

impl Said {
    fn of(spelled: &str) -> Self {
        let (mantissa, exponent) = spelled.split_once(['e', 'E']).unwrap_or((spelled, "0"));
        // No input is so long that its digits could make up for an exponent beyond i64.
        let power = exponent.trim_start_matches('+').parse().unwrap_or(if exponent.starts_with('-') {
            i64::MIN
        } else {
            i64::MAX
        });
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
        let kept = digits.trim_end_matches('0');
        let dropped = (digits.len() - kept.len()) as i128;
        let digits = kept.trim_start_matches('0').to_owned();
        let zero = digits.is_empty();
        let power = i128::from(power) - fraction.len() as i128 + dropped;
        Self { negative: !zero && mantissa.starts_with('-'), power: if zero { 0 } else { power }, digits }
    }
}
