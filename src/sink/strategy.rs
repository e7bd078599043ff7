//! Whose a collection is: it holds documents of one way to make ids, and under `id="key"` and `id="field:…"` those of one
//! topic, since versions of two topics cannot be compared. Markers of tombstones expire here.

use std::time::Duration;

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::IndexOptions;
use mongodb::{Database, IndexModel};

use super::identity::Identity;
use super::recreated::Older;
use crate::error::{Error, Result};
use crate::mongo::client::{code, told};
use crate::mongo::positions::{POSITIONS, Place};

/// How long a tombstone's marker stays: an older write that comes later than this is no longer known to be older.
const MARKER: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Refuses a collection whose kept positions say that it is written otherwise.
///
/// # Errors
/// `Position` for another way to make ids, or a second topic where documents are replaced. Not for an `older` one of the
/// same name: whether that may be left behind is decided elsewhere.
pub async fn refuse_others(database: &Database, place: &Place, identity: &Identity, older: &[Older]) -> Result<()> {
    let collection = &place.collection;
    // Of a collection that was dropped since, positions say nothing about this one.
    let filter = doc! {"_id.collection": collection, "collection_uuid": &place.uuid};
    let found: Vec<Document> =
        async { database.collection::<Document>(POSITIONS).find(filter).await?.try_collect().await }
            .await
            .map_err(|error| told(format!("mongodb: read {}.{POSITIONS}", database.name()), error))?;
    for kept in found {
        let id = kept.get_str("id").unwrap_or("kafka");
        let topic = kept.get_str("topic").unwrap_or("another topic");
        if id != place.identity {
            return Err(Error::position(format!(
                "sink: collection {collection} holds topic {topic} by id={id:?}, not by id={:?}",
                place.identity
            ))
            .hint(format!("give id={id:?}, or another collection")));
        }
        let source = kept.get_document("_id").ok().and_then(|id| id.get_i64("source").ok());
        let left_behind = kept.get_bool("closed").unwrap_or(false) || older.iter().any(|one| source == Some(one.tag));
        if identity.versioned() && source != Some(i64::from(place.tag)) && !left_behind {
            return Err(Error::position(format!(
                "sink: collection {collection} holds topic {topic} by id={id:?}: the versions of two topics cannot be compared"
            ))
            .hint(format!(
                "give another collection; or, if {topic} is gone for good, delete its positions from {POSITIONS}"
            )));
        }
    }
    Ok(())
}

/// What a collection of replaceable documents needs: keys told apart byte by byte, and an index by which markers expire.
///
/// # Errors
/// `Config` for a collation of its own; as [`told`].
pub async fn prepare(database: &Database, name: &str, identity: &Identity, index: bool) -> Result<()> {
    if !identity.versioned() {
        return Ok(());
    }
    let what = format!("sink: collection {}.{name}", database.name());
    let filter = doc! {"listCollections": 1, "filter": {"name": name}};
    let found: Vec<Document> = async { database.run_cursor_command(filter).await?.try_collect().await }
        .await
        .map_err(|error| told(what.clone(), error))?;
    let options = found.first().and_then(|found| found.get_document("options").ok());
    if options.is_some_and(|options| options.get_document("collation").is_ok()) {
        return Err(Error::config(format!("{what} has a collation, which takes different ids for one"))
            .hint("give a collection without"));
    }
    if !index || *identity != Identity::Key {
        return Ok(());
    }
    let options = IndexOptions::builder().expire_after(MARKER).sparse(true).build();
    let model = IndexModel::builder().keys(doc! {"_millpond.deleted": 1}).options(options).build();
    match database.collection::<Document>(name).create_index(model).await {
        // One of other options is the operator's wish: their own time to live.
        Err(error) if !matches!(code(&error), Some(85 | 86)) => {
            Err(told(format!("{what}: index on _millpond.deleted"), error))
        }
        _ => Ok(()),
    }
}
