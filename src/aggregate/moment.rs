//! The one moment of the source that every read of a run sees, whichever cursor asks. It refuses to read from a server
//! that is not the primary, and to take the client's clock for the server's where that has one.
//!
//! A replica set of MongoDB 5.0 and newer shows its documents as they were at one cluster time, without a transaction:
//! <https://www.mongodb.com/docs/manual/reference/read-concern-snapshot/>. It keeps that past for
//! `minSnapshotHistoryWindowInSeconds`, five minutes where nobody has set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bson::{Bson, Document, Timestamp, doc};
use mongodb::error::Error as DriverError;
use mongodb::options::{AggregateOptions, FindOptions, ReadConcern, SessionOptions};
use mongodb::{Client, ClientSession, Collection, SessionCursor};

use crate::error::{Error, Result};
use crate::mongo::client::{code, told};

/// `SnapshotTooOld`: the server has forgotten the moment.
const TOO_OLD: i32 = 239;
/// `SnapshotUnavailable`: capped collections have no past to be read.
const UNAVAILABLE: i32 = 246;
/// The first wire version with snapshots outside of transactions: MongoDB 5.0.
const SNAPSHOTS_SINCE: i32 = 13;
const MICROS: u32 = 1_000_000;

/// When and how a run reads.
#[derive(Debug, Clone)]
pub struct Moment {
    client: Client,
    time: Option<Timestamp>,
    /// The moment as text, in microseconds: of the server's clock, where it has one.
    pub read_at: String,
    /// Why there is no snapshot; empty with one.
    pub without: &'static str,
    /// A router answers, which puts the documents of several servers together.
    routed: bool,
    forgotten: Arc<AtomicBool>,
}

/// Documents one after the other, and the session that they are read in.
pub struct Documents {
    session: ClientSession,
    cursor: SessionCursor<Document>,
}

impl Documents {
    /// The next one.
    ///
    /// # Errors
    /// The driver's.
    pub async fn next(&mut self) -> std::result::Result<Option<Document>, DriverError> {
        self.cursor.next(&mut self.session).await.transpose()
    }

    /// All that are left.
    ///
    /// # Errors
    /// The driver's.
    pub async fn all(mut self) -> std::result::Result<Vec<Document>, DriverError> {
        let mut all = Vec::new();
        while let Some(document) = self.next().await? {
            all.push(document);
        }
        Ok(all)
    }
}

impl Moment {
    /// The present of the server, kept for all that is read with it where the server can.
    ///
    /// # Errors
    /// As [`told`]; `External` for a server that is not the primary.
    pub async fn now(events: &Collection<Document>) -> Result<Self> {
        let what = || format!("aggregate: the time of {}", events.namespace());
        let mut moment = Self::passing(events.client()).await?;
        if !moment.without.is_empty() {
            return Ok(moment);
        }
        #[cfg(feature = "sabotage")]
        if crate::sabotage::is("no_snapshot") {
            return Ok(moment);
        }
        let snapshot = SessionOptions::builder().snapshot(true).build();
        let session = events.client().start_session().with_options(snapshot).await;
        let mut session = session.map_err(|error| told(what(), error))?;
        // What no document has, by an index: the answer tells the time all the same.
        let asked = events.find_one(doc! {"_id": Bson::MinKey}).session(&mut session).await;
        match asked {
            // Changes of the catalog that are not yet a majority's say the same: those pass.
            Err(error) if code(&error) == Some(UNAVAILABLE) && is_capped(events).await? => {
                moment.without = "the collection is capped";
            }
            Err(error) => return Err(told(what(), error)),
            Ok(_) => moment.time = session.snapshot_time(),
        }
        match moment.time {
            Some(time) => moment.read_at = text(time),
            None if moment.without.is_empty() => moment.without = "there is no such collection",
            None => {}
        }
        Ok(moment)
    }

    /// No moment: each read sees what has reached a majority when it comes by.
    ///
    /// # Errors
    /// As [`told`]; `External` for a server that is not the primary.
    pub async fn passing(client: &Client) -> Result<Self> {
        let what = "aggregate: ask the server who it is";
        let hello = client.database("admin").run_command(doc! {"hello": 1}).await.map_err(|error| told(what, error))?;
        if hello.get_bool("isWritablePrimary").is_ok_and(|is| !is) {
            return Err(Error::external(format!("{what}: it is not the primary"))
                .hint("leave directConnection out and name the replica set; a retry goes on when there is a primary"));
        }
        let routed = hello.get_str("msg").is_ok_and(|said| said == "isdbgrid");
        let replicated = hello.contains_key("setName") || routed;
        let without = if !replicated {
            "the server is no replica set"
        } else if hello.get_i32("maxWireVersion").unwrap_or(0) < SNAPSHOTS_SINCE {
            "the server is older than 5.0"
        } else {
            ""
        };
        let read_at = hello.get_timestamp("operationTime").map_or_else(|_| super::now(), text);
        Ok(Self { client: client.clone(), time: None, read_at, without, routed, forgotten: Arc::default() })
    }

    /// The same moment for another client, by its cluster time; `None` for no snapshot.
    #[must_use]
    pub fn at(client: &Client, time: Option<Timestamp>) -> Self {
        let read_at = time.map_or_else(super::now, text);
        Self { client: client.clone(), time, read_at, without: "", routed: true, forgotten: Arc::default() }
    }

    /// The same without a snapshot.
    #[must_use]
    pub fn let_pass(mut self, why: &'static str) -> Self {
        self.time = None;
        self.without = why;
        self
    }

    /// Whether all reads see one moment.
    #[must_use]
    pub const fn is_snapshot(&self) -> bool {
        self.time.is_some()
    }

    /// Whether whoever asks again is answered in the same order, or in that order turned round.
    #[must_use]
    pub const fn has_an_order(&self) -> bool {
        self.is_snapshot() && !self.routed
    }

    /// Its cluster time, with a snapshot.
    #[must_use]
    pub const fn time(&self) -> Option<Timestamp> {
        self.time
    }

    /// Someone else was told that the server has forgotten it.
    pub fn forget(&self) {
        self.forgotten.store(true, Ordering::Relaxed);
    }

    /// Whether the server has forgotten it while it was read.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// A session whose reads see the moment.
    ///
    /// # Errors
    /// The driver's.
    pub async fn session(&self) -> std::result::Result<ClientSession, DriverError> {
        let options = match self.time {
            Some(time) => SessionOptions::builder().snapshot(true).snapshot_time(time).build(),
            None => SessionOptions::builder().causal_consistency(false).build(),
        };
        self.client.start_session().with_options(options).await
    }

    /// What a find says besides: a snapshot is its session's, all else has reached a majority.
    #[must_use]
    pub fn concern(&self) -> Option<ReadConcern> {
        (!self.is_snapshot()).then(ReadConcern::majority)
    }

    /// Documents of a collection, as they were at the moment.
    ///
    /// # Errors
    /// The driver's.
    pub async fn find(
        &self,
        collection: &Collection<Document>,
        filter: Document,
        mut options: FindOptions,
    ) -> std::result::Result<Documents, DriverError> {
        let mut session = self.session().await?;
        options.read_concern = self.concern();
        let cursor = collection.find(filter).with_options(options).session(&mut session).await?;
        Ok(Documents { session, cursor })
    }

    /// What a pipeline gives of a collection as it was at the moment.
    ///
    /// # Errors
    /// The driver's.
    pub async fn pipeline(
        &self,
        collection: &Collection<Document>,
        stages: Vec<Document>,
    ) -> std::result::Result<Vec<Document>, DriverError> {
        let mut session = self.session().await?;
        let mut options = AggregateOptions::default();
        options.read_concern = self.concern();
        let cursor = collection.aggregate(stages).with_options(options).session(&mut session).await?;
        Documents { session, cursor }.all().await
    }

    /// What an error of such a read means for the caller.
    #[must_use]
    pub fn meant(&self, what: impl Into<String>, error: DriverError) -> Error {
        let too_old = code(&error) == Some(TOO_OLD);
        let error = told(what, error);
        if !too_old {
            return error;
        }
        self.forgotten.store(true, Ordering::Relaxed);
        error.hint(
            "name fewer dates at once, or raise minSnapshotHistoryWindowInSeconds of mongod above the seconds of a run",
        )
    }
}

async fn is_capped(events: &Collection<Document>) -> Result<bool> {
    let stats = events.client().database(&events.namespace().db).run_command(doc! {"collStats": events.name()}).await;
    let stats = stats.map_err(|error| told(format!("aggregate: kind of {}", events.namespace()), error))?;
    Ok(stats.get_bool("capped").unwrap_or(false))
}

/// A cluster time with its number within the second in the place of microseconds: they keep its order.
fn text(time: Timestamp) -> String {
    let nanos = i32::try_from(time.increment.min(MICROS - 1) * 1_000).unwrap_or(0);
    let time = jiff::Timestamp::new(i64::from(time.time), nanos).unwrap_or_default();
    format!("{time:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_times_keep_their_order_as_text() {
        let times = [(0, 0), (1_761_881_130, 999_999), (1_761_881_131, 1), (1_761_881_131, 10), (u32::MAX, u32::MAX)];
        let texts: Vec<String> = times.map(|(time, increment)| text(Timestamp { time, increment })).to_vec();
        assert_eq!(texts[2], "2025-10-31T03:25:31.000001Z");
        assert!(texts.is_sorted(), "{texts:?}");
    }
}
