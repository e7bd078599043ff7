//! One write command with many documents, as raw BSON, and what its answer says of each.
//!
//! The driver's own `insert_many` copies each document, looks for its `_id` and keeps that in a map: two fifths of what a
//! stored event cost. The command goes by the driver all the same: it finds the server, and says what an error means. It has
//! no transaction number, so that neither driver nor server repeats it: the batch is sent again by ourselves, which an
//! `_id` or a version makes harmless.

use bson::{Bson, Document, RawDocumentBuf, rawdoc};

use super::batch::Place;
use crate::error::{Error, Result};
use crate::mongo::client::{majority, told};

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
    /// Sends one unordered command, `insert` with `documents` or `update` with `updates`, for a majority to acknowledge.
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
        let concern = bson::serialize_to_raw_document_buf(&majority())
            .map_err(|error| Error::bug("sink: a write concern").because(error))?;
        let mut head = rawdoc! {};
        let name = bson::raw::CString::try_from(verb).map_err(|error| Error::bug("sink: a command").because(error))?;
        head.append(&name, self.collection.as_str());
        head.append(bson::cstr!("ordered"), false);
        head.append(bson::cstr!("writeConcern"), concern);
        let command = RawDocumentBuf::from_bytes(listed(head.into_bytes(), list, documents))
            .map_err(|error| Error::bug("sink: a command is no BSON").because(error))?;
        let answer = self.database.run_raw_command(command).await.map_err(|error| told(self.what(), error))?;
        self.read(&answer)
    }

    fn read(&self, answer: &Document) -> Result<Answer> {
        if let Ok(concern) = answer.get_document("writeConcernError") {
            // Not acknowledged by a majority: nothing of it counts, and the position stays.
            let name = concern.get_str("codeName").unwrap_or("no code");
            let what = format!("{}: the majority did not acknowledge ({name})", self.what());
            return Err(Error::external(what).hint("is a majority of the replica set up?"));
        }
        let number = |value: &Bson| value.as_i64().or_else(|| value.as_i32().map(i64::from));
        let count = |document: &Document, name: &str| document.get(name).and_then(number);
        let index = |document: &Document| count(document, "index").and_then(|index| usize::try_from(index).ok());
        let listed = |name: &str| answer.get_array(name).into_iter().flatten().filter_map(Bson::as_document);
        let refused = listed("writeErrors").filter_map(|error| Some((index(error)?, error)));
        Ok(Answer {
            upserted: listed("upserted").filter_map(index).collect(),
            modified: count(answer, "nModified").and_then(|count| u64::try_from(count).ok()).unwrap_or(0),
            refused: refused.map(|(index, error)| self.refusal(index, error)).collect::<Result<_>>()?,
        })
    }

    /// What is final becomes a refusal, the server's own trouble an error.
    fn refusal(&self, index: usize, error: &Document) -> Result<Refused> {
        let code = error.get_i32("code").unwrap_or(0);
        if code == 11_000 {
            let pattern = error.get_document("keyPattern").ok();
            let of_id = pattern.is_some_and(|pattern| pattern.len() == 1 && pattern.contains_key("_id"));
            return Ok(Refused { index, of_id, code, detail: "another unique index holds its value (E11000)".into() });
        }
        let what = format!("{}: server code {code}", self.what());
        if code == 13 {
            return Err(Error::config(what).hint("grant the role readWrite on the database"));
        }
        if !is_final(code) {
            return Err(Error::external(what));
        }
        let message: String = error.get_str("errmsg").unwrap_or_default().chars().take(300).collect();
        Ok(Refused { index, of_id: false, code, detail: format!("server code {code}: {message}") })
    }
}

/// Codes that a retry of the same document cannot change. Others are the server's trouble.
const fn is_final(code: i32) -> bool {
    // DocumentValidationFailure, BadValue, TypeMismatch, BSONObjectTooLarge, InvalidBSON, Overflow, CannotBuildIndexKeys,
    // too long index keys; of updates alone: names that begin with $, an `_id` that cannot be one.
    matches!(
        code,
        121 | 2 | 14 | 10_334 | 22 | 15 | 201 | 17_280 | 17_262 | 16_755 | 17_419 | 17_420 | 52 | 53 | 54 | 66
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

    #[test]
    fn a_command_takes_one_document_at_least() {
        assert_eq!(fitting([MOST + 1, 1].into_iter()), 1);
        assert_eq!(fitting([1, MOST - 1, 1].into_iter()), 2);
    }
}
