//! What a document's `_id` is, and what is kept beside it so that the highest version wins (design section 4).
//!
//! Under `id="kafka"` the `_id` is the event's place. Under `id="key"` and `id="field:<dotted name>"` it is the key or a
//! value of the message, and the document ends with `_millpond: {v: <version>, source: <tag>}`; a tombstone leaves a marker,
//! `{_id, _millpond: {v, source, deleted: <date>}}`. No server is asked here.

use std::fmt;

use bson::{DateTime, RawDocumentBuf, rawdoc};
use rdkafka::Timestamp;

use super::bson::{self as writer, Around, MAX_BYTES};
use super::metadata;
use crate::bridge::rules::path::Path;
use crate::error::{Error, Result};
use crate::json::{DeadLetter, Kind, Reason, Tape, text};
use crate::kafka::native::{self, RawHeader, Record};

/// The member that holds version and source of a document that a later event may replace.
pub const BESIDE: &str = "_millpond";
/// Raw bytes that an update takes besides the document and twice its `_id`, and what a command may hold over a document.
pub(super) const STATEMENT: usize = 2_048;
const OVER: usize = 16_384;

/// An event that becomes a document: a record just read, or a dead letter that is stored after all.
pub trait Arrival {
    fn topic(&self) -> String;
    fn partition(&self) -> i32;
    fn offset(&self) -> i64;
    /// Milliseconds since 1970; -1 where it has none.
    fn timestamp_ms(&self) -> i64;
    fn key(&self) -> Option<&[u8]>;
    fn value(&self) -> Option<&[u8]>;
    fn headers(&self) -> Vec<RawHeader>;
}

impl Arrival for Record<'_> {
    fn topic(&self) -> String {
        Record::topic(self)
    }

    fn partition(&self) -> i32 {
        Record::partition(self)
    }

    fn offset(&self) -> i64 {
        Record::offset(self)
    }

    fn timestamp_ms(&self) -> i64 {
        match self.timestamp() {
            Timestamp::NotAvailable => -1,
            Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) => time,
        }
    }

    fn key(&self) -> Option<&[u8]> {
        Record::key(self)
    }

    fn value(&self) -> Option<&[u8]> {
        Record::value(self)
    }

    fn headers(&self) -> Vec<RawHeader> {
        native::headers(*self)
    }
}

/// How the `_id` of a document is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Identity {
    /// Of source, partition and offset.
    #[default]
    Kafka,
    /// The event's key.
    Key,
    /// A value in the message.
    Field(Path),
}

impl Identity {
    /// Reads `kafka`, `key` or `field:<dotted name>`.
    ///
    /// # Errors
    /// `Config` for anything else.
    pub fn read(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "kafka" => Ok(Self::Kafka),
            None if text == "key" => Ok(Self::Key),
            Some(("field", path)) => Path::read("id", path).map(Self::Field),
            _ => Err(Error::config("id: none of \"kafka\", \"key\", \"field:<dotted name>\"")
                .hint("for example id=\"field:product_id\"")),
        }
    }

    /// Whether later events replace earlier ones of the same `_id`.
    #[must_use]
    pub fn versioned(&self) -> bool {
        *self != Self::Kafka
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kafka => write!(f, "kafka"),
            Self::Key => write!(f, "key"),
            Self::Field(path) => write!(f, "field:{path}"),
        }
    }
}

/// How records of one source become documents.
#[derive(Debug, Clone)]
pub struct Form {
    pub tag: u32,
    pub identity: Identity,
    pub metadata: Option<String>,
}

impl Form {
    /// Appends the document of a record; false for a tombstone that leaves none. `place` is the `_id` of `id="kafka"`.
    ///
    /// # Errors
    /// Why it is a dead letter; `out` is then as before.
    pub fn write(
        &self,
        record: &impl Arrival,
        place: &[u8; 12],
        tape: &mut Tape,
        out: &mut Vec<u8>,
    ) -> Result<bool, DeadLetter> {
        let Some(value) = record.value() else { return self.tombstone(record, out) };
        let mut behind = Vec::new();
        if let Some(field) = &self.metadata {
            behind = metadata::element(field, record);
        }
        if self.identity.versioned() {
            return self.replaceable(record, value, behind, tape, out).map(|()| true);
        }
        let named = self.metadata.as_deref();
        let around = Around { id: &writer::object_id(place), behind: &behind, names: named.as_slice() };
        writer::write(tape, value, &around, out).map(|()| true)
    }

    fn tombstone(&self, record: &impl Arrival, out: &mut Vec<u8>) -> Result<bool, DeadLetter> {
        match &self.identity {
            Identity::Kafka => Ok(false),
            Identity::Key => {
                let before = out.len();
                out.extend_from_slice(&[0; 4]);
                key(record, out).inspect_err(|_| out.truncate(before))?;
                out.extend_from_slice(elements(&self.beside(record, true)));
                out.push(0);
                let length = i32::try_from(out.len() - before).unwrap_or(i32::MAX);
                out[before..before + 4].copy_from_slice(&length.to_le_bytes());
                Ok(true)
            }
            Identity::Field(path) => {
                Err(DeadLetter::new(Reason::BadId, format!("a tombstone does not say its {path}")))
            }
        }
    }

    fn replaceable(
        &self,
        record: &impl Arrival,
        value: &[u8],
        mut behind: Vec<u8>,
        tape: &mut Tape,
        out: &mut Vec<u8>,
    ) -> Result<(), DeadLetter> {
        tape.read(value)?;
        let mut id = Vec::new();
        let found = match &self.identity {
            Identity::Field(path) => field(path, tape, value, &mut id),
            _ => key(record, &mut id),
        };
        behind.extend_from_slice(elements(&self.beside(record, false)));
        let names: Vec<&str> = self.metadata.as_deref().into_iter().chain([BESIDE]).collect();
        let (before, none) = (out.len(), writer::object_id(&[0; 12]));
        // What is wrong with the message goes before what is wrong with its id.
        let around = Around { id: if found.is_ok() { &id } else { &none }, behind: &behind, names: &names };
        writer::document(tape, value, &around, out)?;
        // An update holds the id twice, and the server takes no larger command.
        let size = out.len() - before + id.len() + STATEMENT;
        let fits = if size > MAX_BYTES + OVER { Err(writer::too_large(size)) } else { Ok(()) };
        found.and(fits).inspect_err(|_| out.truncate(before))
    }

    /// `{_millpond: …}`. Both versions compare as MongoDB compares objects: member by member.
    fn beside(&self, record: &impl Arrival, deleted: bool) -> RawDocumentBuf {
        let (partition, offset) = (record.partition(), record.offset());
        let version = if let Identity::Field(_) = &self.identity {
            rawdoc! { "timestamp": record.timestamp_ms(), "partition": partition, "offset": offset }
        } else {
            rawdoc! { "offset": offset, "partition": partition }
        };
        let mut beside = rawdoc! { "v": version, "source": i64::from(self.tag) };
        if deleted {
            beside.append(bson::cstr!("deleted"), DateTime::now());
        }
        rawdoc! { "_millpond": beside }
    }
}

/// The elements of a document, without its length and its end mark.
fn elements(document: &RawDocumentBuf) -> &[u8] {
    let bytes = document.as_bytes();
    &bytes[4..bytes.len() - 1]
}

/// Appends the element `_id` of a key: a string when it is UTF-8, else binary.
fn key(record: &impl Arrival, out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let Some(key) = record.key() else { return Err(DeadLetter::new(Reason::NoKey, "the key is null")) };
    let text = simdutf8::basic::from_utf8(key).is_ok();
    let length = i32::try_from(key.len() + usize::from(text)).map_err(|_| writer::too_large(key.len()))?;
    out.extend_from_slice(if text { b"\x02_id\0" } else { b"\x05_id\0" });
    out.extend_from_slice(&length.to_le_bytes());
    if !text {
        out.push(0);
    }
    out.extend_from_slice(key);
    if text {
        out.push(0);
    }
    Ok(())
}

/// Appends the element `_id` of a value in a message that was read.
fn field(path: &Path, tape: &Tape, message: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
    let bad = |what: &str| Err(DeadLetter::new(Reason::BadId, format!("{path} {what}")));
    let Some(at) = find(path, tape, message) else { return bad("is missing") };
    let token = tape.tokens[at];
    match token.kind {
        Kind::Null => return bad("is null"),
        Kind::Array => return bad("is a list"),
        _ => {}
    }
    let mut decoded = Vec::new();
    for key in tape.tokens[at..token.next as usize].iter().filter(|token| token.kind == Kind::Key) {
        decoded.clear();
        text::decode(key.text(message), &mut decoded)?;
        if decoded.first() == Some(&b'$') {
            return bad("holds a member whose name begins with $");
        }
    }
    writer::element(tape, message, at, "_id", out)
}

/// The token of the value at a path through objects.
fn find(path: &Path, tape: &Tape, message: &[u8]) -> Option<usize> {
    let mut at = 0;
    for step in path.steps() {
        let object = tape.tokens[at];
        if object.kind != Kind::Object {
            return None;
        }
        let mut member = at + 1;
        loop {
            if member >= object.next as usize {
                return None;
            }
            if writer::named(&tape.tokens[member], message, step.as_bytes()) {
                at = member + 1;
                break;
            }
            member = tape.tokens[member + 1].next as usize;
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Document, RawDocument};

    #[test]
    fn strategies_are_read_and_shown() {
        for text in ["kafka", "key", "field:a", r"field:a.b\.c", "field:a:b"] {
            assert_eq!(Identity::read(text).expect("known").to_string(), text);
        }
        for text in ["", "Kafka", "field", "field:", "field:a.", "keys", "key:", "kafka:x"] {
            assert!(Identity::read(text).is_err(), "{text}");
        }
    }

    fn id(path: &str, message: &str) -> std::result::Result<Document, String> {
        let (mut tape, mut out) = (Tape::default(), vec![0; 4]);
        tape.read(message.as_bytes()).expect("JSON");
        let path = Path::read("id", path).expect("a path");
        field(&path, &tape, message.as_bytes(), &mut out).map_err(|letter| letter.detail)?;
        out.push(0);
        let length = i32::try_from(out.len()).expect("small");
        out[..4].copy_from_slice(&length.to_le_bytes());
        Ok(Document::try_from(RawDocument::from_bytes(&out).expect("BSON")).expect("BSON"))
    }

    #[test]
    fn a_value_is_found_by_its_path() {
        let found = |path: &str, message: &str| id(path, message).map(|document| document.to_string());
        assert_eq!(found("a", r#"{"b":1,"a":"x"}"#), Ok(r#"{ "_id": "x" }"#.into()));
        assert_eq!(found("a.b", r#"{"a.b":1,"a":{"c":[{"b":3}],"\u0062":2}}"#), Ok(r#"{ "_id": 2 }"#.into()));
        assert_eq!(found(r"a\.b", r#"{"a":{"b":2},"a.b":1}"#), Ok(r#"{ "_id": 1 }"#.into()));
        assert_eq!(
            found("a", r#"{"a":{"_id":[1,{"x":2.5}]}}"#),
            Ok(r#"{ "_id": { "_id": [1, { "x": 2.5 }] } }"#.into())
        );
        for (path, message, why) in [
            ("a", r#"{"b":1}"#, "a is missing"),
            ("a.b", r#"{"a":[{"b":1}]}"#, "a.b is missing"),
            ("a.b", r#"{"a":"b"}"#, "a.b is missing"),
            ("a", r#"{"a":null}"#, "a is null"),
            ("a", r#"{"a":[]}"#, "a is a list"),
            ("a", r#"{"a":{"$x":1}}"#, "a holds a member whose name begins with $"),
            ("a", r#"{"a":{"b":[{"\u0024x":1}]}}"#, "a holds a member whose name begins with $"),
        ] {
            assert_eq!(found(path, message), Err(why.into()), "{message}");
        }
        assert!(id("a", r#"{"a":{"x":{}},"z":{"$y":1}}"#).is_ok());
    }
}
