//! JSON bytes straight to a BSON document, exactly (design section 5): what BSON cannot hold as it is spelled is a dead
//! letter, never a guess (I7).

use super::decimal128;
use crate::json::number::Decimal;
use crate::json::{DeadLetter, Kind, Reason, Tape, Token, text};

/// The largest document that a server stores, its `_id` included.
pub const MAX_BYTES: usize = 16_777_216;

const DOUBLE: u8 = 0x01;
const STRING: u8 = 0x02;
const DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;
const BOOLEAN: u8 = 0x08;
const NULL: u8 = 0x0a;
const INT32: u8 = 0x10;
const INT64: u8 = 0x12;
const DECIMAL128: u8 = 0x13;

/// An open document or array while its members are written.
struct Open {
    /// The token after its last member.
    end: usize,
    /// Where its length goes.
    start: usize,
    /// The next index of an array.
    index: Option<u32>,
}

/// What stands around the members of a message.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// The raw element `_id`, in front.
    pub id: &'a [u8],
    /// Raw elements for the end.
    pub behind: &'a [u8],
    /// Their names: a member of the message that is called so is a `field_conflict`.
    pub names: &'a [&'a str],
}

/// The raw element of an `_id` that is an `ObjectId`.
#[must_use]
pub fn object_id(id: &[u8; 12]) -> [u8; 17] {
    let mut element = *b"\x07_id\0............";
    element[5..].copy_from_slice(id);
    element
}

/// Reads a message and appends its document: `_id`, then the members in their order; a member `_id` becomes `_source_id`.
///
/// # Errors
/// Why it is a dead letter; `out` is then as before.
pub fn write(tape: &mut Tape, message: &[u8], around: &Around<'_>, out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    tape.read(message)?;
    document(tape, message, around, out)
}

/// As [`write`], of a message that was read.
///
/// # Errors
/// As [`write`].
pub fn document(tape: &Tape, message: &[u8], around: &Around<'_>, out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let before = out.len();
    judge(tape, message, around.names)
        .and_then(|()| container(tape, message, 0, Some(around), out))
        .and_then(|()| if out.len() - before > MAX_BYTES { Err(too_large(out.len() - before)) } else { Ok(()) })
        .inspect_err(|_| out.truncate(before))
}

/// Appends the value of a token as the raw element `name`, of a message that was read.
///
/// # Errors
/// `number_inexact`, `lone_surrogate`, `too_large`; `out` may then hold a part.
pub fn element(tape: &Tape, message: &[u8], at: usize, name: &str, out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let kind_at = out.len();
    out.push(0);
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out[kind_at] = match tape.tokens[at].kind {
        Kind::Object | Kind::Array => {
            container(tape, message, at, None, out)?;
            if tape.tokens[at].kind == Kind::Array { ARRAY } else { DOCUMENT }
        }
        _ => scalar(&tape.tokens[at], message, out)?,
    };
    Ok(())
}

/// Appends an object or a list; with `around` it is the document itself. Without recursion, as it was read.
fn container(
    tape: &Tape,
    message: &[u8],
    root: usize,
    around: Option<&Around<'_>>,
    out: &mut Vec<u8>,
) -> Result<(), DeadLetter> {
    let top = out.len();
    out.extend_from_slice(&[0; 4]);
    if let Some(around) = around {
        out.extend_from_slice(around.id);
    }
    let opened = |at: usize, start: usize| Open {
        end: tape.tokens[at].next as usize,
        start,
        index: (tape.tokens[at].kind == Kind::Array).then_some(0),
    };
    let mut open = vec![opened(root, top)];
    let mut at = root + 1;
    while let Some(inner) = open.last_mut() {
        if at >= inner.end {
            if open.len() == 1
                && let Some(around) = around
            {
                out.extend_from_slice(around.behind);
            }
            let Some(done) = open.pop() else { break };
            out.push(0);
            let length = i32::try_from(out.len() - done.start).map_err(|_| too_large(out.len() - done.start))?;
            out[done.start..done.start + 4].copy_from_slice(&length.to_le_bytes());
            continue;
        }
        let kind_at = out.len();
        out.push(0);
        if let Some(index) = &mut inner.index {
            out.extend_from_slice(index.to_string().as_bytes());
            *index += 1;
        } else {
            let key = tape.tokens[at];
            if around.is_some() && inner.start == top && named(&key, message, b"_id") {
                out.extend_from_slice(b"_source_id");
            } else {
                put(&key, message, out)?;
            }
            at += 1;
        }
        out.push(0);
        let token = tape.tokens[at];
        out[kind_at] = match token.kind {
            Kind::Object | Kind::Array => {
                open.push(opened(at, out.len()));
                out.extend_from_slice(&[0; 4]);
                if token.kind == Kind::Array { ARRAY } else { DOCUMENT }
            }
            _ => scalar(&token, message, out)?,
        };
        at += 1;
    }
    Ok(())
}

/// Appends the value of what is neither object nor list, and returns its BSON type.
fn scalar(token: &Token, message: &[u8], out: &mut Vec<u8>) -> Result<u8, DeadLetter> {
    match token.kind {
        Kind::Number => return number(token.text(message), out),
        Kind::True | Kind::False => {
            out.push(u8::from(token.kind == Kind::True));
            return Ok(BOOLEAN);
        }
        Kind::Null => return Ok(NULL),
        Kind::String | Kind::Key | Kind::Object | Kind::Array => {}
    }
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    put(token, message, out)?;
    out.push(0);
    let length = i32::try_from(out.len() - length_at - 4).map_err(|_| too_large(out.len()))?;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    Ok(STRING)
}

pub(super) fn too_large(size: usize) -> DeadLetter {
    DeadLetter::new(Reason::TooLarge, format!("{size} bytes of BSON, {MAX_BYTES} are stored"))
}

/// The reasons that go before numbers and size, over the whole message.
fn judge(tape: &Tape, message: &[u8], taken: &[&str]) -> Result<(), DeadLetter> {
    let mut decoded = Vec::new();
    let mut nul = false;
    for token in tape.tokens.iter().filter(|token| token.escaped) {
        decoded.clear();
        text::decode(token.text(message), &mut decoded)?;
        nul |= token.kind == Kind::Key && decoded.contains(&0);
    }
    if nul {
        return Err(DeadLetter::new(Reason::NulInKey, "a member name holds NUL"));
    }
    let (mut id, mut source_id, mut at) = (false, false, 1);
    while at < tape.tokens[0].next as usize {
        let key = tape.tokens[at];
        id |= named(&key, message, b"_id");
        source_id |= named(&key, message, b"_source_id");
        if let Some(name) = taken.iter().find(|name| named(&key, message, name.as_bytes())) {
            return Err(DeadLetter::new(Reason::FieldConflict, format!("the event has a member {name} of its own")));
        }
        at = tape.tokens[at + 1].next as usize;
    }
    if id && source_id {
        return Err(DeadLetter::new(Reason::FieldConflict, "both _id and _source_id are there"));
    }
    Ok(())
}

/// Whether a member's name is this one, once its escapes are read.
pub(super) fn named(key: &Token, message: &[u8], name: &[u8]) -> bool {
    if !key.escaped {
        return key.text(message) == name;
    }
    let mut decoded = Vec::new();
    text::decode(key.text(message), &mut decoded).is_ok() && decoded == name
}

fn put(token: &Token, message: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let raw = token.text(message);
    if token.escaped {
        return text::decode(raw, out);
    }
    out.extend_from_slice(raw);
    Ok(())
}

/// Appends a number's value and returns its BSON type.
fn number(spelling: &[u8], out: &mut Vec<u8>) -> Result<u8, DeadLetter> {
    let spelled = std::str::from_utf8(spelling).unwrap_or_default();
    let inexact = || {
        let shown: String = spelled.chars().take(60).collect();
        DeadLetter::new(Reason::NumberInexact, format!("{shown} fits no number type exactly"))
    };
    if !spelling.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        if spelling == b"-0" {
            out.extend_from_slice(&(-0.0_f64).to_le_bytes());
            return Ok(DOUBLE);
        }
        if let Ok(whole) = spelled.parse::<i64>() {
            if let Ok(small) = i32::try_from(whole) {
                out.extend_from_slice(&small.to_le_bytes());
                return Ok(INT32);
            }
            out.extend_from_slice(&whole.to_le_bytes());
            return Ok(INT64);
        }
        out.extend_from_slice(&decimal128::encode(spelling).ok_or_else(inexact)?);
        return Ok(DECIMAL128);
    }
    let exact = Decimal::read(spelling);
    let nearest: f64 = spelled.parse().map_err(|_| inexact())?;
    if nearest.is_finite() && shortest(nearest, spelling, &exact) {
        out.extend_from_slice(&nearest.to_le_bytes());
        return Ok(DOUBLE);
    }
    if let Some(bytes) = decimal128::encode(spelling) {
        out.extend_from_slice(&bytes);
        return Ok(DECIMAL128);
    }
    // A double's decimal expansion has at most 767 digits.
    if nearest.is_finite() && Decimal::read(format!("{nearest:.800e}").as_bytes()).equals(&exact) {
        out.extend_from_slice(&nearest.to_le_bytes());
        return Ok(DOUBLE);
    }
    Err(inexact())
}

/// Whether the double's shortest round-trip form (ties to even) is numerically equal to what was spelled.
fn shortest(nearest: f64, spelling: &[u8], exact: &Decimal) -> bool {
    // Up to 15 digits in the normal range always come back.
    if spelling.len() <= 15 && exact.exponent.abs() < 280 {
        return true;
    }
    if nearest == 0.0 {
        return exact.digits.is_empty();
    }
    let mut buffer = zmij::Buffer::new();
    Decimal::read(buffer.format_finite(nearest).as_bytes()).equals(exact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, RawDocument};

    fn stored(json: &str) -> Result<bson::Document, Reason> {
        let mut out = Vec::new();
        let around = Around { id: &object_id(&[7; 12]), behind: &[], names: &[] };
        write(&mut Tape::default(), json.as_bytes(), &around, &mut out).map_err(|letter| letter.reason)?;
        let mut document = bson::Document::try_from(RawDocument::from_bytes(&out).expect("BSON")).expect("BSON");
        document.remove("_id").expect("an _id");
        Ok(document)
    }

    fn value(number: &str) -> Result<Bson, Reason> {
        stored(&format!("{{\"a\":{number}}}")).map(|mut document| document.remove("a").expect("a"))
    }

    #[test]
    fn integers() {
        assert_eq!(value("1"), Ok(Bson::Int32(1)));
        assert_eq!(value("-2147483648"), Ok(Bson::Int32(i32::MIN)));
        assert_eq!(value("2147483648"), Ok(Bson::Int64(2_147_483_648)));
        assert_eq!(value("-9223372036854775808"), Ok(Bson::Int64(i64::MIN)));
        assert_eq!(value("9223372036854775808").map(|v| v.to_string()), Ok("9223372036854775808".into()));
        assert!(matches!(value("-0"), Ok(Bson::Double(zero)) if zero == 0.0 && zero.is_sign_negative()));
        assert_eq!(value(&"9".repeat(35)), Err(Reason::NumberInexact));
        assert!(matches!(value(&format!("1{}", "0".repeat(40))), Ok(Bson::Decimal128(_))));
    }

    #[test]
    fn others() {
        assert_eq!(value("1.5"), Ok(Bson::Double(1.5)));
        assert_eq!(value("1e3"), Ok(Bson::Double(1000.0)));
        assert_eq!(value("0.1"), Ok(Bson::Double(0.1)));
        assert!(matches!(value("0.10000000000000001"), Ok(Bson::Decimal128(_))));
        assert!(matches!(value("1e400"), Ok(Bson::Decimal128(_))));
        assert_eq!(value("0e999999999999"), Ok(Bson::Double(0.0)));
        assert_eq!(value("1e999999999999"), Err(Reason::NumberInexact));
        assert_eq!(value("1125899906842624.25").map(|v| v.to_string()), Ok("1125899906842624.25".into()));
        // The exact value of the double 0.1, 55 digits: too long for Decimal128, exact as a double.
        assert_eq!(value("0.1000000000000000055511151231257827021181583404541015625"), Ok(Bson::Double(0.1)));
        assert_eq!(value("0.1000000000000000055511151231257827021181583404541015626"), Err(Reason::NumberInexact));
    }

    #[test]
    fn names_and_shapes() {
        let document = stored(r#"{"_id":"x","$set":1,"a.b":2,"":3,"n":{"_id":1,"k":[1,[],{"z":null}]},"s":"\u0000é"}"#)
            .expect("stored");
        assert_eq!(
            document.keys().map(String::as_str).collect::<Vec<_>>(),
            ["_source_id", "$set", "a.b", "", "n", "s"]
        );
        assert_eq!(document.get_str("s").expect("a string"), "\0é");
        assert_eq!(stored(r#"{"_id":1,"_source_id":2}"#), Err(Reason::FieldConflict));
        assert_eq!(stored(r#"{"a\u0000":1}"#), Err(Reason::NulInKey));
        assert_eq!(stored(r#"{"a":"\ud800"}"#), Err(Reason::LoneSurrogate));
        assert!(stored(r#"{"$oid":"5f"}"#).expect("stored").contains_key("$oid"));
    }

    proptest::proptest! {
        #[test]
        fn doubles_come_back(bits in proptest::num::u64::ANY) {
            let double = f64::from_bits(bits);
            if double.is_finite() {
                let mut buffer = zmij::Buffer::new();
                let spelled = buffer.format_finite(double).to_owned();
                let stored = value(&spelled).expect("exact");
                if spelled.contains(['.', 'e']) {
                    proptest::prop_assert_eq!(stored, Bson::Double(double));
                }
            }
        }
    }
}
