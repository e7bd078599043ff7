//! JSON → BSON under a coverage-guided fuzzer, beside readers that share no code with it: `serde_json` for the message,
//! `bson` for the document and for Decimal128, `ryu` for shortest doubles. What is stored must be what was said, and what
//! is refused must be refused for the reason told (I7).
//!
//! `make fuzz` builds it on stable Rust with LLVM's coverage counters and runs it. The sources are the crate's own files.

#![no_main]

#[allow(dead_code, unused_imports)]
#[path = "../../src/json/mod.rs"]
mod json;
mod second;
#[allow(dead_code)]
#[path = "../../src/sink"]
mod sink {
    pub mod bson;
    pub mod decimal128;
}

use json::{Reason, Tape};
use second::{Json, Number};
use sink::bson::{Around, object_id, write};

libfuzzer_sys::fuzz_target!(|data: &[u8]| judge(data));

fn judge(data: &[u8]) {
    // How serde_json passes a number's spelling on: a message must not say it by itself.
    if data.windows(10).any(|window| window == b"serde_json") {
        return;
    }
    let around = Around { id: &object_id(&[7; 12]), behind: &[], names: &[] };
    let mut out = Vec::new();
    let ours = write(&mut Tape::default(), data, &around, &mut out).map_err(|letter| letter.reason);
    let theirs = second::read(data);
    match (ours, theirs) {
        (Ok(()), Ok(message)) => {
            assert_eq!(refusals(&message), [], "stored, and to be refused");
            let document = bson::RawDocument::from_bytes(&out).expect("BSON");
            compare(document, &message);
        }
        (Ok(()), Err(error)) => panic!("stored, and no JSON: {error}"),
        (Err(reason), Ok(message)) => {
            let first = refusals(&message).first().copied();
            assert_eq!(Some(reason), first, "refused for another reason");
        }
        (Err(reason), Err(error)) => match reason {
            Reason::Empty => assert!(data.is_empty()),
            Reason::InvalidUtf8 => assert!(std::str::from_utf8(data).is_err()),
            // What serde_json reads no further than: half surrogate pairs, and 128 levels.
            Reason::LoneSurrogate
            | Reason::NotObject
            | Reason::TooDeep
            | Reason::DuplicateKey
            | Reason::InvalidJson => {}
            other => panic!("refused as {other:?}, and no JSON: {error}"),
        },
    }
    assert!(ours.is_ok() || out.is_empty(), "a part was left behind");
}

/// Every reason that applies, in the order of the rules.
fn refusals(message: &Json) -> Vec<Reason> {
    let Json::Object(members) = message else { return vec![Reason::NotObject] };
    let mut found = Vec::new();
    let (mut deepest, mut twice, mut nul, mut inexact) = (0, false, false, false);
    message.each(1, &mut |value, depth| match value {
        Json::Object(members) => {
            deepest = deepest.max(depth);
            let names: std::collections::BTreeSet<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
            twice |= names.len() < members.len();
            nul |= names.iter().any(|name| name.contains('\0'));
        }
        Json::List(_) => deepest = deepest.max(depth),
        Json::Number(spelled) => inexact |= second::number(spelled).is_none(),
        _ => {}
    });
    let named = |wanted: &str| members.iter().any(|(name, _)| name == wanted);
    let applies = [
        (deepest > 100, Reason::TooDeep),
        (twice, Reason::DuplicateKey),
        (nul, Reason::NulInKey),
        (named("_id") && named("_source_id"), Reason::FieldConflict),
        (inexact, Reason::NumberInexact),
    ];
    found.extend(applies.into_iter().filter(|(applies, _)| *applies).map(|(_, reason)| reason));
    found
}

/// The document is the message: same members in the same order, every value exact.
fn compare(document: &bson::RawDocument, message: &Json) {
    let Json::Object(members) = message else { unreachable!("refused before") };
    let stored = elements(document);
    let [(name, id), rest @ ..] = &stored[..] else { panic!("no _id") };
    assert_eq!((*name, id.as_object_id().map(|id| id.bytes())), ("_id", Some([7; 12])));
    let renamed = |name: &str| if name == "_id" { "_source_id".to_owned() } else { name.to_owned() };
    same_members(rest, members.iter().map(|(name, value)| (renamed(name), value)));
}

fn elements(document: &bson::RawDocument) -> Vec<(&str, bson::RawBsonRef<'_>)> {
    document.iter().map(|element| element.expect("BSON")).map(|(name, value)| (name.as_str(), value)).collect()
}

fn same_members<'a>(stored: &[(&str, bson::RawBsonRef<'_>)], said: impl ExactSizeIterator<Item = (String, &'a Json)>) {
    assert_eq!(stored.len(), said.len());
    for ((name, value), (wanted, said)) in stored.iter().zip(said) {
        assert_eq!(*name, wanted);
        same(*value, said);
    }
}

fn same(stored: bson::RawBsonRef<'_>, said: &Json) {
    use bson::RawBsonRef as Raw;
    match (stored, said) {
        (Raw::Null, Json::Null) => {}
        (Raw::Boolean(stored), Json::Bool(said)) => assert_eq!(stored, *said),
        (Raw::String(stored), Json::Text(said)) => assert_eq!(stored, said),
        (Raw::Document(stored), Json::Object(members)) => {
            same_members(&elements(stored), members.iter().map(|(name, value)| (name.clone(), value)));
        }
        (Raw::Array(stored), Json::List(said)) => {
            let stored: Vec<_> = stored.into_iter().map(|value| value.expect("BSON")).collect();
            assert_eq!(stored.len(), said.len());
            stored.into_iter().zip(said).for_each(|(stored, said)| same(stored, said));
        }
        (stored, Json::Number(spelled)) => {
            let stored = match stored {
                Raw::Int32(number) => Number::Int32(number),
                Raw::Int64(number) => Number::Int64(number),
                Raw::Double(number) => Number::Double(number.to_bits()),
                Raw::Decimal128(number) => Number::Decimal128(number.bytes()),
                other => panic!("{spelled} is stored as {other:?}"),
            };
            assert_eq!(Some(stored), second::number(spelled), "{spelled}");
        }
        (stored, said) => panic!("{said:?} is stored as {stored:?}"),
    }
}
