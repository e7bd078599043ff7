//! Dead letters in `<collection>_dead_letters`: written before the position moves over their events, and read back at a
//! start, since what was decided stays decided.
//!
//! A letter is one document, or several pieces where its raw bytes do not fit into one. The piece that carries the event's
//! own `_id` is written last: where it stands, the letter is whole. The first letter of an event stays; writing it again
//! changes nothing, least of all what a replay has noted on it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;

use super::batch::{Batch, Event, Place};
use super::metadata;
use crate::error::{Error, Result};
use crate::json::DeadLetter;
use crate::kafka::native::RawHeader;
use crate::mongo::client::{majority, told};
use crate::mongo::sources::event_id;

/// Raw bytes that one piece takes.
const CHUNK: usize = 15 * 1024 * 1024;
/// What fits beside a chunk below the server's 16 MiB.
const ROOM: usize = 512 * 1024;
/// What a header takes beside its bytes.
const HEADER: usize = 64;
/// A command ends at so many bytes and letters; one letter is always taken.
const COMMAND: usize = 12 << 20;
const LETTERS: usize = 500;

/// The collection of a collection's dead letters.
#[must_use]
pub fn name(collection: &str) -> String {
    format!("{collection}_dead_letters")
}

impl Place {
    /// Writes a batch's dead letters, acknowledged by a majority.
    ///
    /// # Errors
    /// `External` when the server does not take them by the deadline, `Data` for a dead-letter collection that refuses
    /// them.
    pub(super) async fn write_letters(&self, batch: &Batch, deadline: Instant) -> Result<()> {
        let expires = self.letters_expire.map(|after| bson::DateTime::from_millis(now_ms() + after));
        let mut letters = batch.letters.iter();
        let mut waiting: VecDeque<Document> = VecDeque::new();
        let mut pause = Duration::from_millis(100);
        loop {
            let mut updates = Vec::new();
            let mut bytes = 0;
            while updates.len() < LETTERS {
                if waiting.is_empty() {
                    let Some((event, letter)) = letters.next() else { break };
                    waiting.extend(pieces(batch, event, letter, &self.topic, expires).into_iter().rev());
                }
                bytes += waiting.front().map_or(0, size);
                if !updates.is_empty() && bytes > COMMAND {
                    break;
                }
                updates.extend(waiting.pop_front().map(first_stays));
            }
            if updates.is_empty() {
                return Ok(());
            }
            loop {
                match self.write_pieces(&updates).await {
                    Ok(()) => break,
                    Err(error) => self.again(error, deadline, &mut pause).await?,
                }
            }
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("sink.between_letters");
        }
    }

    async fn write_pieces(&self, updates: &[Document]) -> Result<()> {
        let name = name(&self.collection);
        let what = || format!("sink: dead letters into {}.{name}", self.database.name());
        let concern =
            bson::serialize_to_bson(&majority()).map_err(|error| Error::bug("sink: a write concern").because(error))?;
        // In order: the piece with the event's own `_id` after the others.
        let command = doc! {"update": &name, "updates": updates, "ordered": true, "writeConcern": concern};
        let answer = self.database.run_command(command).await.map_err(|error| told(what(), error))?;
        if let Some(refused) = answer.get_array("writeErrors").ok().and_then(|errors| errors.first()?.as_document()) {
            let code = refused.get_i32("code").unwrap_or(0);
            let told = format!("{}: server code {code}", what());
            return Err(match code {
                121 => Error::data(format!("{told}: the validator of the collection refuses a letter"))
                    .hint(format!("remove the validator of {name}: a dead letter must always find its place")),
                10_334 => Error::data(format!("{told}: a letter is too large")).hint("report it"),
                13 => Error::config(told).hint("grant the role readWrite on the database"),
                _ => Error::external(told),
            });
        }
        if let Ok(concern) = answer.get_document("writeConcernError") {
            let name = concern.get_str("codeName").unwrap_or("no code");
            return Err(Error::external(format!("{}: the majority did not acknowledge ({name})", what()))
                .hint("is a majority of the replica set up?"));
        }
        Ok(())
    }

    /// Offsets at or above the positions that an earlier run decided as dead letters.
    ///
    /// # Errors
    /// As [`told`].
    pub async fn decided(&self, tag: u32, positions: &BTreeMap<i32, i64>) -> Result<HashMap<(i32, i64), String>> {
        let letters: Collection<Document> = self.database.collection(&name(&self.collection));
        let mut decided = HashMap::new();
        for (partition, next) in positions {
            let first = event_id(tag, *partition, *next)?;
            let last = event_id(tag, *partition, (1 << 48) - 1)?;
            let filter = doc! {"_id": {"$gte": ObjectId::from_bytes(first), "$lte": ObjectId::from_bytes(last)}};
            let wanted = doc! {"partition": 1, "offset": 1, "reason": 1};
            let found: Vec<Document> = async { letters.find(filter).projection(wanted).await?.try_collect().await }
                .await
                .map_err(|error| told("sink: read the dead letters kept", error))?;
            for letter in found {
                if let (Ok(partition), Ok(offset)) = (letter.get_i32("partition"), letter.get_i64("offset")) {
                    decided.insert((partition, offset), letter.get_str("reason").unwrap_or("unknown").to_owned());
                }
            }
        }
        Ok(decided)
    }
}

fn now_ms() -> i64 {
    bson::DateTime::now().timestamp_millis()
}

/// The statement that writes a piece where there is none.
fn first_stays(mut piece: Document) -> Document {
    let id = piece.remove("_id").unwrap_or(Bson::Null);
    doc! {"q": {"_id": id}, "u": {"$setOnInsert": piece}, "upsert": true}
}

fn size(piece: &Document) -> usize {
    let length = |name: &str| match piece.get(name) {
        Some(Bson::Binary(binary)) => binary.bytes.len(),
        Some(Bson::Array(headers)) => headers.iter().filter_map(Bson::as_document).map(header_size).sum(),
        _ => 0,
    };
    length("key") + length("value") + length("headers") + 1_024
}

fn header_size(header: &Document) -> usize {
    let length = |name: &str| match header.get(name) {
        Some(Bson::Binary(binary)) => binary.bytes.len(),
        Some(Bson::String(text)) => text.len(),
        _ => 0,
    };
    length("key") + length("value") + HEADER
}

/// What of a letter stands in one piece.
#[derive(Default)]
struct Piece {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<Bson>,
}

/// The documents of a letter, first piece first. Where key and headers are small they stand in each, beside a part of the
/// value. Otherwise headers, key and value follow one another through the pieces, each of which says `continued`.
fn pieces(
    batch: &Batch,
    event: &Event,
    letter: &DeadLetter,
    topic: &str,
    expires: Option<bson::DateTime>,
) -> Vec<Document> {
    let of_headers = |(name, value): &RawHeader| name.len() + value.as_ref().map_or(0, Vec::len) + HEADER;
    let headers: usize = event.headers.iter().map(of_headers).sum();
    let (key, value) = (batch.bytes(event.key.as_ref()), batch.bytes(event.value.as_ref()));
    let small = headers + key.map_or(0, <[u8]>::len) <= ROOM;
    let parts = if small { beside(key, value, &event.headers) } else { one_after_another(key, value, &event.headers) };
    let id = ObjectId::from_bytes(event.id);
    let count = i32::try_from(parts.len()).unwrap_or(i32::MAX);
    let documents = parts.into_iter().zip(0..).map(|(part, number): (Piece, i32)| {
        let mut document = doc! {
            "_id": if number == 0 { Bson::ObjectId(id) } else { Bson::Document(doc! {"event": id, "chunk": number}) },
            "reason": letter.reason.as_str(),
            "detail": &letter.detail,
            "topic": topic,
            "partition": event.partition,
            "offset": event.offset,
            "chunk": number,
            "timestamp": (event.timestamp >= 0).then(|| bson::DateTime::from_millis(event.timestamp)),
            "key": part.key.as_deref().map(metadata::binary),
            "value": part.value.as_deref().map(metadata::binary),
            "headers": part.headers,
        };
        if count > 1 {
            document.insert("chunks", count);
        }
        if !small && number > 0 {
            document.insert("continued", true);
        }
        if let Some(expires) = expires {
            document.insert("expires_at", expires);
        }
        document
    });
    documents.collect()
}

fn beside(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[RawHeader]) -> Vec<Piece> {
    let one = |value: Option<&[u8]>| Piece {
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: headers.iter().map(metadata::header).collect(),
    };
    match value {
        Some(value) if !value.is_empty() => value.chunks(CHUNK).map(|part| one(Some(part))).collect(),
        other => vec![one(other)],
    }
}

/// A header that was cut goes on in the first entry of the next piece, which says `continued`: its key and its value are
/// to be put behind those before.
fn one_after_another(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[RawHeader]) -> Vec<Piece> {
    let mut pieces = vec![Piece::default()];
    let mut left = CHUNK;
    let last = |pieces: &mut Vec<Piece>, left: &mut usize| {
        if *left == 0 {
            pieces.push(Piece::default());
            *left = CHUNK;
        }
        pieces.len() - 1
    };
    for (name, value) in headers {
        let (mut name, mut value, mut continued) = (name.as_slice(), value.as_deref(), false);
        loop {
            let at = last(&mut pieces, &mut left);
            let name_part = cut(&mut name, left);
            left -= name_part.len();
            let value_part =
                value.as_mut().map(|value| cut(value, left)).filter(|part| !part.is_empty() || name.is_empty());
            left -= value_part.map_or(0, <[u8]>::len);
            left = left.saturating_sub(HEADER);
            let entry = (name_part.to_vec(), value_part.map(<[u8]>::to_vec));
            let mut entry = metadata::header(&entry);
            if let (true, Some(entry)) = (continued, entry.as_document_mut()) {
                entry.insert("continued", true);
            }
            pieces[at].headers.push(entry);
            if name.is_empty() && value.is_none_or(<[u8]>::is_empty) {
                break;
            }
            continued = true;
        }
    }
    for (mut bytes, is_key) in [(key, true), (value, false)] {
        while let Some(rest) = &mut bytes {
            let at = last(&mut pieces, &mut left);
            let part = cut(rest, left).to_vec();
            left -= part.len();
            let into = if is_key { &mut pieces[at].key } else { &mut pieces[at].value };
            *into = Some(part);
            if rest.is_empty() {
                break;
            }
        }
    }
    pieces
}

/// The next piece of up to `room` bytes.
fn cut<'a>(rest: &mut &'a [u8], room: usize) -> &'a [u8] {
    let (piece, after) = rest.split_at(room.min(rest.len()));
    *rest = after;
    piece
}

/// The raw bytes of an event, put together from its pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whole {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<RawHeader>,
}

impl Whole {
    /// Adds the next piece.
    pub fn add(&mut self, piece: &Document) {
        let bytes = |document: &Document, name: &str| match document.get(name) {
            Some(Bson::Binary(binary)) => Some(binary.bytes.clone()),
            Some(Bson::String(text)) => Some(text.clone().into_bytes()),
            _ => None,
        };
        let append = |to: &mut Option<Vec<u8>>, more: Option<Vec<u8>>| match (to.as_mut(), more) {
            (Some(to), Some(more)) => to.extend(more),
            (None, more) => *to = more,
            (Some(_), None) => {}
        };
        let first = piece.get_i32("chunk").unwrap_or(0) == 0;
        append(&mut self.value, bytes(piece, "value"));
        if !first && !piece.get_bool("continued").unwrap_or(false) {
            // Key and headers are those of the first piece.
            return;
        }
        append(&mut self.key, bytes(piece, "key"));
        for header in piece.get_array("headers").into_iter().flatten().filter_map(Bson::as_document) {
            let (name, value) = (bytes(header, "key").unwrap_or_default(), bytes(header, "value"));
            match self.headers.last_mut() {
                Some(before) if header.get_bool("continued").unwrap_or(false) => {
                    before.0.extend(name);
                    append(&mut before.1, value);
                }
                _ => self.headers.push((name, value)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Reason;

    fn through(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[RawHeader]) -> (usize, Whole) {
        let mut batch = Batch::default();
        let (key, value) = (batch.keep(key), batch.keep(value));
        let event =
            Event { id: [7; 12], partition: 1, offset: 2, timestamp: -1, key, value, headers: headers.to_vec() };
        let letter = DeadLetter::new(Reason::InvalidJson, "x".repeat(400));
        let documents = pieces(&batch, &event, &letter, "t", None);
        let mut whole = Whole::default();
        for document in &documents {
            assert!(document.to_vec().expect("BSON").len() < 16 * 1024 * 1024);
            whole.add(document);
        }
        (documents.len(), whole)
    }

    #[test]
    fn a_letter_comes_back_from_its_pieces() {
        let large = |length: usize| (0..length).map(|i| u8::try_from(i % 251).expect("below 251")).collect::<Vec<u8>>();
        let values = [None, Some(vec![]), Some(large(1)), Some(large(CHUNK)), Some(large(2 * CHUNK + 5))];
        let keys = [None, Some(vec![]), Some(large(9)), Some(large(CHUNK + 7))];
        let headers: [Vec<RawHeader>; 6] = [
            vec![],
            vec![(b"a".to_vec(), None), (b"a".to_vec(), Some(vec![])), (vec![0xff], Some(b"v".to_vec()))],
            vec![(b"a".to_vec(), Some(large(CHUNK + 3))), (b"b".to_vec(), Some(b"v".to_vec()))],
            vec![(b"a".to_vec(), Some(large(CHUNK - 1))), (b"b".to_vec(), Some(vec![]))],
            vec![(large(CHUNK + 3), Some(large(2 * CHUNK))), (b"b".to_vec(), None)],
            (0..600).map(|i| (format!("h{i}").into_bytes(), Some(large(1_000 + i)))).collect(),
        ];
        for value in &values {
            for key in &keys {
                for headers in &headers {
                    let (_, whole) = through(key.as_deref(), value.as_deref(), headers);
                    let lengths: Vec<_> =
                        headers.iter().map(|(name, value)| (name.len(), value.as_ref().map(Vec::len))).collect();
                    let found: Vec<_> =
                        whole.headers.iter().map(|(name, value)| (name.len(), value.as_ref().map(Vec::len))).collect();
                    assert_eq!(found, lengths);
                    assert!((&whole.key, &whole.value, &whole.headers) == (key, value, headers));
                }
            }
        }
        assert_eq!(through(Some(b"k"), Some(&large(3 * CHUNK)), &[]).0, 3);
    }
}
