//! The collections of a sink: made so that the events' UUID is known, refused when they cannot hold what they should, and
//! the indexes that readers and time to live need.

use std::collections::HashMap;
use std::time::Duration;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::IndexOptions;
use mongodb::{Database, IndexModel};

use super::letters;
use crate::error::{Error, Result};
use crate::mongo::client::{code, told};
use crate::mongo::positions::POSITIONS;
use crate::mongo::rights;
use crate::mongo::sources::SOURCES;

/// What is wanted of the collections.
pub struct Wanted<'a> {
    pub collection: &'a str,
    /// An index on `timestamp`: reports read the days that they are of by it.
    pub index: bool,
    /// Dead letters expire: an index by which they do.
    pub letters_expire: bool,
}

/// The collection as it was found or made.
pub struct Store {
    pub uuid: Bson,
    pub warnings: Vec<String>,
}

/// Makes the collection when absent, and its indexes.
///
/// # Errors
/// `Config` for a missing right, a view, a time-series or a capped collection.
pub async fn ensure(database: &Database, wanted: &Wanted<'_>) -> Result<Store> {
    let name = wanted.collection;
    let what = format!("sink: collection {}.{name}", database.name());
    if name.is_empty() || name.contains('$') || name.starts_with("system.") || name.contains('\0') {
        return Err(Error::config(format!("{what}: no usable name")));
    }
    let letters = letters::name(name);
    need_rights(database, wanted, &letters).await?;
    for _ in 0..2 {
        if let Some(uuid) = look(database, name, &letters).await? {
            let mut warnings = Vec::new();
            if wanted.index {
                warnings.extend(time_index(database, name, &what).await?);
            }
            if wanted.letters_expire {
                warnings.extend(expiry(database, &letters).await?);
            }
            return Ok(Store { uuid, warnings });
        }
        match database.create_collection(name).await {
            Err(error) if code(&error) != Some(48) => return Err(told(what, error)), // 48: another shard was quicker
            _ => {}
        }
    }
    Err(Error::external(format!("{what}: it does not stay")).hint("does another program drop it?"))
}

async fn need_rights(database: &Database, wanted: &Wanted<'_>, letters: &str) -> Result<()> {
    let events: &[&str] = if wanted.index {
        &["find", "insert", "update", "listIndexes", "createIndex"]
    } else {
        &["find", "insert", "update"]
    };
    let of_letters: &[&str] = if wanted.letters_expire {
        &["find", "insert", "update", "createIndex"]
    } else {
        &["find", "insert", "update"]
    };
    let kept: &[&str] = &["find", "insert", "update"];
    let places = [(wanted.collection, events), (letters, of_letters), (POSITIONS, kept), (SOURCES, kept)];
    rights::need(database, &places, "readWrite").await
}

/// The UUID of a collection, if it is there.
///
/// # Errors
/// As [`ensure`].
pub async fn uuid(database: &Database, collection: &str) -> Result<Option<Bson>> {
    look(database, collection, &letters::name(collection)).await
}

/// The UUID of the events' collection, if it is there; whatever else is there must be ordinary too.
async fn look(database: &Database, name: &str, letters: &str) -> Result<Option<Bson>> {
    let what = |name: &str| format!("sink: collection {}.{name}", database.name());
    let asked = doc! {"listCollections": 1, "filter": {"name": {"$in": [name, letters, POSITIONS, SOURCES]}}};
    let answer = database.run_cursor_command(asked).await.map_err(|error| told(what(name), error))?;
    let found: Vec<Document> = answer.try_collect().await.map_err(|error| told(what(name), error))?;
    let found: HashMap<&str, &Document> =
        found.iter().filter_map(|one| Some((one.get_str("name").ok()?, one))).collect();
    for (name, found) in &found {
        let kind = found.get_str("type").unwrap_or("collection");
        if kind != "collection" {
            return Err(Error::config(format!("{} is a {kind}", what(name))).hint("give an ordinary collection"));
        }
        if found.get_document("options").is_ok_and(|options| options.get_bool("capped").unwrap_or(false)) {
            return Err(Error::config(format!("{} is capped: older documents would vanish", what(name)))
                .hint("give an ordinary collection"));
        }
    }
    let Some(found) = found.get(name) else { return Ok(None) };
    let uuid = found.get_document("info").ok().and_then(|info| info.get("uuid")).cloned();
    uuid.map(Some)
        .ok_or_else(|| Error::config(format!("{} has no UUID", what(name))).hint("MongoDB 6.0 or newer is needed"))
}

/// An index that begins with `timestamp` and holds every document serves; otherwise one is made.
async fn time_index(database: &Database, name: &str, what: &str) -> Result<Option<String>> {
    let what = format!("{what}: index on timestamp");
    let asked = doc! {"listIndexes": name};
    let answer = database.run_cursor_command(asked).await.map_err(|error| told(what.clone(), error))?;
    let found: Vec<Document> = answer.try_collect().await.map_err(|error| told(what.clone(), error))?;
    let first = |index: &Document| {
        index.get_document("key").ok().and_then(|key| key.iter().next().map(|(name, way)| (name.clone(), way.clone())))
    };
    let whole = |index: &&Document| {
        let part = index.contains_key("partialFilterExpression") || index.get_bool("sparse").unwrap_or(false);
        let way = first(index).filter(|(name, _)| name == "timestamp").map(|(_, way)| way);
        !part && way.is_some_and(|way| matches!(way, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_)))
    };
    if found.iter().any(|index| whole(&index)) {
        return Ok(None);
    }
    let model = IndexModel::builder().keys(doc! {"timestamp": 1}).options(IndexOptions::default()).build();
    match database.collection::<Document>(name).create_index(model).await {
        Ok(_) => Ok(None),
        // One of that name and other options: whoever made it meant it.
        Err(error) if matches!(code(&error), Some(85 | 86)) => Ok(Some(format!(
            "collection {name}: its index timestamp_1 does not hold every document, reports will not use it"
        ))),
        Err(error) => Err(told(what, error)),
    }
}

/// Letters that say when they expire do.
async fn expiry(database: &Database, letters: &str) -> Result<Option<String>> {
    let options = IndexOptions::builder().expire_after(Duration::ZERO).build();
    let model = IndexModel::builder().keys(doc! {"expires_at": 1}).options(options).build();
    match database.collection::<Document>(letters).create_index(model).await {
        Ok(_) => Ok(None),
        Err(error) if matches!(code(&error), Some(85 | 86)) => {
            Ok(Some(format!("collection {letters}: its index on expires_at has another time to live")))
        }
        Err(error) => Err(told(format!("sink: collection {}.{letters}: index on expires_at", database.name()), error)),
    }
}
