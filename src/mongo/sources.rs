//! `millpond_sources`: which topic the first four bytes of an event's `_id` stand for. Two topics with one tag are
//! refused, never mixed.

use bson::oid::ObjectId;
use bson::{Document, doc};
use mongodb::Database;
use mongodb::error::ErrorKind;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::client::told;
use crate::error::{Error, Result};

/// The collection's name.
pub const SOURCES: &str = "millpond_sources";

/// The tag of a topic: four bytes of a hash of cluster id and topic id (of its name where the broker has no ids).
#[must_use]
pub fn tag(cluster: &str, topic_id: Option<&str>, topic: &str) -> u32 {
    let identity = topic_id.map_or_else(|| format!("name:{topic}"), |id| format!("id:{id}"));
    let digest = Sha256::digest(format!("{cluster}\n{identity}"));
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Registers a source, or finds it registered.
///
/// # Errors
/// `Config` when another topic has the same tag.
pub async fn register(database: &Database, cluster: &str, topic_id: Option<&str>, topic: &str) -> Result<u32> {
    let tag = tag(cluster, topic_id, topic);
    let sources = database.collection::<Document>(SOURCES);
    let what = format!("mongodb: register topic {topic} in {}.{SOURCES}", database.name());
    let mine = doc! {"_id": i64::from(tag), "cluster": cluster, "topic": topic, "topic_id": topic_id};
    match sources.insert_one(&mine).await {
        Ok(_) => Ok(tag),
        Err(error) if is_duplicate(&error) => {
            let found =
                sources.find_one(doc! {"_id": i64::from(tag)}).await.map_err(|error| told(what.clone(), error))?;
            match found {
                Some(found) if found == mine => Ok(tag),
                _ => Err(Error::config(format!("{what}: another topic has the tag {tag:08x}"))
                    .hint("store this topic in another database")),
            }
        }
        Err(error) => Err(told(what, error)),
    }
}

fn is_duplicate(error: &mongodb::error::Error) -> bool {
    matches!(&*error.kind, ErrorKind::Write(mongodb::error::WriteFailure::WriteError(write)) if write.code == 11_000)
}

/// The `_id` of an event: tag, partition, offset, big-endian, so that per source and partition `_id` order is arrival
/// order.
///
/// # Errors
/// `Config` for a partition beyond 2 bytes or an offset beyond 6.
pub fn event_id(tag: u32, partition: i32, offset: i64) -> Result<[u8; 12]> {
    let beyond = || {
        Error::config(format!("sink: partition {partition} offset {offset} does not fit into an _id"))
            .hint("id=\"kafka\" holds partitions below 65,536 and offsets below 2^48")
    };
    let place = u16::try_from(partition).map_err(|_| beyond())?;
    if !(0..1 << 48).contains(&offset) {
        return Err(beyond());
    }
    let mut id = [0; 12];
    id[..4].copy_from_slice(&tag.to_be_bytes());
    id[4..6].copy_from_slice(&place.to_be_bytes());
    id[6..].copy_from_slice(&offset.to_be_bytes()[2..]);
    Ok(id)
}

/// An event's place, as its `_id` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventPlace {
    /// The tag in eight hex digits.
    pub source: String,
    pub partition: u16,
    pub offset: u64,
    pub cluster: Option<String>,
    pub topic: Option<String>,
    pub topic_id: Option<String>,
}

/// Reads an `_id` back; what its tag stands for is asked of `millpond_sources` where a database is given.
///
/// # Errors
/// `Config` for what is no `ObjectId`, and for a tag that the database does not know; as [`told`].
pub async fn explain(id: &str, database: Option<&Database>) -> Result<EventPlace> {
    let word = id.trim();
    let word = word.strip_prefix("ObjectId(").and_then(|rest| rest.strip_suffix(')')).unwrap_or(word);
    let bytes = ObjectId::parse_str(word.trim_matches(['"', '\''])).map(|id| id.bytes()).map_err(|_| {
        Error::config("explain: no ObjectId").hint("give the 24 hex digits of an _id, or ObjectId(\"…\")")
    })?;
    let tag = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut place = EventPlace {
        source: format!("{tag:08x}"),
        partition: u16::from_be_bytes([bytes[4], bytes[5]]),
        offset: u64::from_be_bytes([0, 0, bytes[6], bytes[7], bytes[8], bytes[9], bytes[10], bytes[11]]),
        cluster: None,
        topic: None,
        topic_id: None,
    };
    if let Some(database) = database {
        let sources = database.collection::<Document>(SOURCES);
        let what = format!("mongodb: read {}.{SOURCES}", database.name());
        let found = sources.find_one(doc! {"_id": i64::from(tag)}).await.map_err(|error| told(what.clone(), error))?;
        let Some(found) = found else {
            return Err(Error::config(format!("{what}: no source has the tag {tag:08x}"))
                .hint("another program made this _id, or another database knows it"));
        };
        let text = |name: &str| found.get_str(name).ok().map(str::to_owned);
        (place.cluster, place.topic, place.topic_id) = (text("cluster"), text("topic"), text("topic_id"));
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::event_id;

    #[test]
    fn ids_hold_their_place() {
        let id = event_id(0x0102_0304, 5, 0x0607_0809).expect("fits");
        assert_eq!(id, [1, 2, 3, 4, 0, 5, 0, 0, 6, 7, 8, 9]);
        assert_eq!(event_id(1, 65_535, (1 << 48) - 1).expect("fits")[4..], [0xff; 8]);
        assert!(event_id(1, 65_536, 0).is_err());
        assert!(event_id(1, -1, 0).is_err());
        assert!(event_id(1, 0, 1 << 48).is_err());
        assert!(event_id(1, 0, -1).is_err());
    }
}
