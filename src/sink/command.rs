//! One write command with many documents, as raw BSON, and what its answer says of each.
//!
//! The driver's own `insert_many` copies each document, looks for its `_id` and keeps that in a map: two fifths of what a
//! stored event cost. The command goes by the driver all the same: it finds the server, and says what an error means. It has
//! no transaction number, so that neither driver nor server repeats it: the batch is sent again by ourselves, which an
//! `_id` or a version makes harmless.

use bson::{Bson, Document, RawDocumentBuf, rawdoc};

use super::batch::Place;
use super::concern::unacknowledged;
use crate::error::{Error, Result};
use crate::mongo::client::told;

/// A command ends at so many bytes of documents; the server takes 16 MiB and a little, one document is always taken.
const MOST: usize = 12 << 20;

/// What a command did, each document by its index in what was sent.
#[derive(Debug, Default)]
pub struct Answer {
    /// Of an update: those that were not there.
    pub upserted: Vec<usize>,
    /// Of an update: how many were changed.
    pub modified: u64,
    pub refused: Vec<Refused>,
}

/// A document that this server will never take.
#[derive(Debug)]
pub struct Refused {
    pub index: usize,
    /// `_id` is taken; otherwise a duplicate is one of another unique index.
    pub of_id: bool,
    pub code: i32,
    pub detail: String,
}

/// How many documents of these sizes go into one command.
#[must_use]
pub fn fitting(sizes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = |size: &usize| {
        bytes += size;
        bytes <= MOST
    };
    sizes.take_while(fits).count().max(1)
}

impl Place {
    /// Sends one unordered command, `insert` with `documents` or `update` with `updates`, to be acknowledged as asked for.
    ///
    /// # Errors
    /// `External` when any of it may have gone wrong for a while: then nothing counts, and all is sent again. `Config` for a
    /// missing right.
    pub(super) async fn command<'a>(
        &self,
        verb: &str,
        list: &str,
        documents: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Answer> {
        let concern = bson::serialize_to_raw_document_buf(&self.concern)
            .map_err(|error| Error::bug("sink: a write concern").because(error))?;
        let mut head = rawdoc! {};
        let name = bson::raw::CString::try_from(verb).map_err(|error| Error::bug("sink: a command").because(error))?;
        head.append(&name, self.collection.as_str());
        head.append(bson::cstr!("ordered"), false);
        head.append(bson::cstr!("writeConcern"), concern);
        let mut sent = 0;
        let command = listed(head.into_bytes(), list, documents.inspect(|_| sent += 1));
        let command = RawDocumentBuf::from_bytes(command)
            .map_err(|error| Error::bug("sink: a command is no BSON").because(error))?;
        let answer = self.database.run_raw_command(command).await.map_err(|error| told(self.what(), error))?;
        Answer::read(&self.what(), sent, &answer)
    }
}

impl Answer {
    /// Reads what the server answered to a command of `sent` documents.
    fn read(what: &str, sent: usize, answer: &Document) -> Result<Self> {
        if let Ok(concern) = answer.get_document("writeConcernError") {
            // Not acknowledged as asked for: nothing of it counts, and the position stays.
            let name = concern.get_str("codeName").unwrap_or("no code");
            return Err(unacknowledged(what, concern.get_i32("code").unwrap_or(0), name));
        }
        let count = |document: &Document, name: &str| -> Option<usize> {
            let value = document.get(name)?;
            let number = value.as_i64().or_else(|| value.as_i32().map(i64::from));
            number.and_then(|number| usize::try_from(number).ok())
        };
        let listed = |name: &str| answer.get_array(name).into_iter().flatten().filter_map(Bson::as_document);
        let refused = listed("writeErrors").filter_map(|error| Some((count(error, "index")?, error)));
        let refused = refused.map(|(index, error)| Refused::read(what, index, error)).collect::<Result<Vec<_>>>()?;
        // A document that the answer leaves out is sent again, never taken for stored.
        if count(answer, "n").unwrap_or(0) + refused.len() != sent || refused.iter().any(|one| one.index >= sent) {
            return Err(Error::external(format!("{what}: the server did not answer for each of {sent} documents")));
        }
        Ok(Self {
            upserted: listed("upserted").filter_map(|upserted| count(upserted, "index")).collect(),
            modified: count(answer, "nModified").unwrap_or(0) as u64,
            refused,
        })
    }
}

impl Refused {
    /// What is final becomes a refusal, the server's own trouble an error.
    fn read(what: &str, index: usize, error: &Document) -> Result<Self> {
        let code = error.get_i32("code").unwrap_or(0);
        if code == 11_000 {
            let pattern = error.get_document("keyPattern").ok();
            let of_id = pattern.is_some_and(|pattern| pattern.len() == 1 && pattern.contains_key("_id"));
            return Ok(Self { index, of_id, code, detail: "another unique index holds its value (E11000)".into() });
        }
        let told = format!("{what}: server code {code}");
        if code == 13 {
            return Err(Error::config(told).hint("grant the role readWrite on the database"));
        }
        if !is_final(code) {
            return Err(Error::external(told));
        }
        let message: String = error.get_str("errmsg").unwrap_or_default().chars().take(300).collect();
        Ok(Self { index, of_id: false, code, detail: format!("server code {code}: {message}") })
    }
}

/// Codes that a retry of the same document cannot change. Others are the server's trouble.
const fn is_final(code: i32) -> bool {
    matches!(
        code,
        // DocumentValidationFailure, BadValue, TypeMismatch, BSONObjectTooLarge, InvalidBSON, Overflow.
        121 | 2 | 14 | 10_334 | 22 | 15
        // No place in an index: lists side by side, in a hashed one or beside text; a text's language; a point in a
        // plane or on a globe; names that are numbers; a value too long.
        | 171 | 16_766 | 201 | 17_261 | 17_262 | 13_026..=13_027 | 13_067..=13_068 | 16_755 | 16_804 | 16_746 | 17_280
        // ShardKeyNotFound, of lists too; ShardKeyTooBig.
        | 61 | 13_334
        // Of updates alone: names that begin with $, an `_id` that cannot be one, what is too large once changed.
        | 52 | 53 | 54 | 66 | 17_419 | 17_420
    )
}

/// A document with a list at its end, put together in one piece.
fn listed<'a>(mut document: Vec<u8>, name: &str, list: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    document.pop();
    document.push(0x04);
    document.extend_from_slice(name.as_bytes());
    document.push(0);
    let begin = document.len();
    document.extend_from_slice(&[0; 4]);
    for (index, one) in list.enumerate() {
        document.push(0x03);
        document.extend_from_slice(index.to_string().as_bytes());
        document.push(0);
        document.extend_from_slice(one);
    }
    document.push(0);
    let ends = [(begin, document.len() - begin), (0, document.len() + 1)];
    document.push(0);
    for (at, length) in ends {
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        document[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Domain;
    use bson::doc;

    #[test]
    fn a_list_is_put_at_the_end() {
        let one = rawdoc! { "a": 1 };
        let whole = listed(rawdoc! { "insert": "c" }.into_bytes(), "documents", [one.as_bytes(); 11].into_iter());
        let read = Document::try_from(RawDocumentBuf::from_bytes(whole).expect("BSON")).expect("BSON");
        assert_eq!(read, doc! {"insert": "c", "documents": vec![doc! {"a": 1}; 11]});
        let none = listed(rawdoc! {}.into_bytes(), "l", std::iter::empty());
        assert_eq!(none, rawdoc! { "l": [] }.into_bytes());
    }

    /// How many were upserted and modified, and each refusal.
    type Told = (usize, u64, Vec<(usize, bool, i32)>);

    fn read(sent: usize, answer: &Document) -> std::result::Result<Told, Domain> {
        let answer = Answer::read("sink", sent, answer).map_err(|error| error.domain)?;
        let refused = answer.refused.iter().map(|one| (one.index, one.of_id, one.code)).collect();
        Ok((answer.upserted.len(), answer.modified, refused))
    }

    #[test]
    fn an_answer_tells_of_each_document() {
        assert_eq!(read(3, &doc! {"n": 3, "ok": 1.0}), Ok((0, 0, vec![])));
        let answer = doc! {"n": 3_i64, "nModified": 1, "upserted": [{"index": 1, "_id": "x"}], "ok": 1.0};
        assert_eq!(read(3, &answer), Ok((1, 1, vec![])));
        let errors = [
            doc! {"index": 0, "code": 11_000, "keyPattern": {"_id": 1}, "errmsg": "E11000"},
            doc! {"index": 2, "code": 11_000, "keyPattern": {"u": 1, "_id": 1}, "errmsg": "E11000"},
            doc! {"index": 3, "code": 121, "errmsg": "x".repeat(1_000)},
        ];
        let answer = doc! {"n": 1, "writeErrors": errors.to_vec()};
        assert_eq!(read(4, &answer), Ok((0, 0, vec![(0, true, 11_000), (2, false, 11_000), (3, false, 121)])));
        // Silence about a document is no acknowledgement.
        for sent in [3, 5] {
            assert_eq!(read(sent, &answer), Err(Domain::External));
        }
        assert_eq!(read(1, &doc! {"ok": 1.0}), Err(Domain::External));
    }

    #[test]
    fn trouble_of_the_server_is_no_refusal() {
        let concern =
            doc! {"code": 64, "codeName": "WriteConcernTimeout", "errmsg": "waiting for replication timed out"};
        assert_eq!(read(1, &doc! {"n": 1, "writeConcernError": concern}), Err(Domain::External));
        for (code, domain) in
            [(91, Domain::External), (11_602, Domain::External), (10_107, Domain::External), (13, Domain::Config)]
        {
            let answer = doc! {"n": 0, "writeErrors": [{"index": 0, "code": code, "errmsg": ""}]};
            assert_eq!(read(1, &answer), Err(domain), "{code}");
        }
    }

    #[test]
    fn a_command_takes_one_document_at_least() {
        assert_eq!(fitting([MOST + 1, 1].into_iter()), 1);
        assert_eq!(fitting([1, MOST - 1, 1].into_iter()), 2);
    }
}
