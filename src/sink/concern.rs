//! How far an insert must have got before it counts (`write_concern`), and what lets a position follow all the same.
//!
//! Positions are never ahead of what a majority holds. Under `majority` each insert's answer says so. Under anything less
//! a primary may die with inserts that it has acknowledged; so before a position moves, a write of ours is acknowledged by
//! a majority, and then the primary must still be the one that the run began with. Replication keeps the order: what the
//! same primary took before is then held by a majority too. Another primary ends the run, and the next one finds
//! everything from the position on, stored or not.

use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Document, doc};
use mongodb::Database;
use mongodb::options::{Acknowledgment, WriteConcern};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::mongo::client::{majority, told};
use crate::mongo::sources::SOURCES;

/// A member that does not answer is an error after so long, unless the caller says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads "majority", a number of members, the name of a set's own mode, or `{"w": …, "j": …, "wtimeout": <ms>}`.
///
/// # Errors
/// `Config` for anything else, and for writes that nobody acknowledges.
pub fn read(value: &Value) -> Result<WriteConcern> {
    let wrong = || {
        Error::config("write_concern: neither \"majority\" nor a number of members, 1 or more")
            .hint("give \"majority\", 1, or {\"w\": 1, \"j\": true, \"wtimeout\": 5000}")
    };
    let w = |value: &Value| match value {
        Value::String(word) if word == "majority" => Ok(Acknowledgment::Majority),
        Value::String(mode) if !mode.is_empty() => {
            Ok(mode.parse().map_or_else(|_| Acknowledgment::Custom(mode.clone()), Acknowledgment::Nodes))
        }
        Value::Number(number) => {
            number.as_u64().and_then(|number| u32::try_from(number).ok()).map(Acknowledgment::Nodes).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    };
    let mut concern = WriteConcern::builder().build();
    if let Value::Object(members) = value {
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                "w" => concern.w = Some(w(value)?),
                "j" => concern.journal = Some(value.as_bool().ok_or_else(wrong)?),
                "wtimeout" => concern.w_timeout = Some(Duration::from_millis(value.as_u64().ok_or_else(wrong)?)),
                _ => return Err(wrong()),
            }
        }
    } else {
        concern.w = Some(w(value)?);
    }
    complete(concern)
}

/// A concern that says how many and how long: of the URI, or of the argument.
///
/// # Errors
/// `Config` for writes that nobody acknowledges.
pub fn complete(mut concern: WriteConcern) -> Result<WriteConcern> {
    let w = concern.w.get_or_insert(Acknowledgment::Majority);
    if *w == Acknowledgment::Nodes(0) {
        return Err(Error::config("write_concern: w=0, a write that nobody acknowledges")
            .hint("w=1 is the least: what is not acknowledged may be lost, and no position could follow it"));
    }
    if concern.w_timeout.is_none_or(|wait| wait.is_zero()) {
        concern.w_timeout = Some(PATIENCE);
    }
    Ok(concern)
}

/// A concern in words, for the result.
#[must_use]
pub fn words(concern: &WriteConcern) -> String {
    let w = match &concern.w {
        None | Some(Acknowledgment::Majority) => "majority".to_owned(),
        Some(Acknowledgment::Nodes(number)) => number.to_string(),
        Some(Acknowledgment::Custom(mode)) => mode.clone(),
        Some(_) => "?".to_owned(),
    };
    match concern.journal {
        None => w,
        Some(true) => format!("{w}, journaled"),
        Some(false) => format!("{w}, not journaled"),
    }
}

/// What it means that members did not acknowledge.
#[must_use]
pub fn unacknowledged(what: &str, code: i32, name: &str) -> Error {
    match code {
        // UnknownReplWriteConcern, UnsatisfiableWriteConcern (CannotSatisfyWriteConcern)
        79 | 100 => Error::config(format!("{what}: write_concern cannot be satisfied ({name})"))
            .hint("the replica set has fewer such members, or knows no mode of that name"),
        _ => Error::external(format!("{what}: not acknowledged by as many as write_concern asks for ({name})"))
            .hint("is a majority of the replica set up?"),
    }
}

/// Lets positions follow inserts that fewer than a majority acknowledged.
pub struct Confirmation {
    database: Database,
    tag: u32,
    topic: String,
    election: ObjectId,
}

impl Confirmation {
    /// Remembers the primary, before the first insert; `None` where inserts need no confirmation.
    ///
    /// # Errors
    /// `Config` through mongos, which does not tell who its primaries are; as [`told`].
    pub async fn begin(database: &Database, concern: &WriteConcern, tag: u32, topic: &str) -> Result<Option<Self>> {
        if concern.w == Some(Acknowledgment::Majority) {
            return Ok(None);
        }
        let hello = hello(database).await?;
        if hello.get_str("msg").is_ok_and(|said| said == "isdbgrid") {
            return Err(Error::config("write_concern: less than a majority through mongos")
                .hint("leave it out: mongos does not tell which primaries took a write, so no position could follow"));
        }
        // One server alone holds all there is.
        let election = hello.get_object_id("electionId").ok();
        let begin = |election| Self { database: database.clone(), tag, topic: topic.to_owned(), election };
        Ok(election.map(begin))
    }

    /// Everything inserted before this call is held by a majority.
    ///
    /// # Errors
    /// `External` when it may not be: the set has another primary, or no majority answers.
    pub async fn ask(&self) -> Result<()> {
        let what = "sink: a majority's confirmation of what was inserted";
        let (mine, same) = (doc! {"_id": i64::from(self.tag)}, doc! {"$set": {"topic": &self.topic}});
        // It changes nothing, and yet the server waits until a majority holds all before it.
        let sources = self.database.collection::<Document>(SOURCES);
        sources.update_one(mine, same).write_concern(majority()).await.map_err(|error| told(what, error))?;
        if hello(&self.database).await?.get_object_id("electionId").ok() == Some(self.election) {
            return Ok(());
        }
        Err(Error::external(format!("{what}: the replica set has another primary than when the run began"))
            .hint("run it again: it goes on at the positions, and finds what was stored"))
    }
}

async fn hello(database: &Database) -> Result<Document> {
    database.run_command(doc! {"hello": 1}).await.map_err(|error| told("mongodb: ask for the primary", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn concerns_are_read() {
        let words_of = |value| read(&value).map(|concern| words(&concern)).map_err(|error| error.what);
        assert_eq!(words_of(json!("majority")).as_deref(), Ok("majority"));
        assert_eq!(words_of(json!(1)).as_deref(), Ok("1"));
        assert_eq!(words_of(json!("2")).as_deref(), Ok("2"));
        assert_eq!(words_of(json!("dc")).as_deref(), Ok("dc"));
        assert_eq!(words_of(json!({"j": true})).as_deref(), Ok("majority, journaled"));
        assert_eq!(words_of(json!({"w": 1, "j": false, "wtimeout": 5})).as_deref(), Ok("1, not journaled"));
        for wrong in [
            json!(0),
            json!("0"),
            json!({"w": 0}),
            json!(-1),
            json!(1.5),
            json!(true),
            json!([1]),
            json!(""),
            json!({"w": true}),
            json!({"j": 1}),
            json!({"wtimeout": "1"}),
            json!({"x": 1}),
        ] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
        assert_eq!(read(&json!(1)).expect("a concern").w_timeout, Some(PATIENCE));
        let told = read(&json!({"w": 1, "wtimeout": 5})).expect("a concern");
        assert_eq!(told.w_timeout, Some(Duration::from_millis(5)));
    }
}
