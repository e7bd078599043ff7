//! The collection that events go into: made so that its UUID is known, refused when it cannot hold them.

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::IndexOptions;
use mongodb::{Database, IndexModel};

use crate::error::{Error, Result};
use crate::mongo::client::{code, told};

/// Makes the collection when absent and returns its UUID.
///
/// # Errors
/// `Config` for a view, a time-series or a capped collection.
pub async fn ensure(database: &Database, name: &str, index: bool) -> Result<Bson> {
    let what = format!("sink: collection {}.{name}", database.name());
    if name.is_empty() || name.contains('$') || name.starts_with("system.") || name.contains('\0') {
        return Err(Error::config(format!("{what}: no usable name")));
    }
    for _ in 0..2 {
        if let Some(found) = look(database, name, &what).await? {
            if index {
                let model = IndexModel::builder().keys(doc! {"timestamp": 1}).options(IndexOptions::default()).build();
                let events = database.collection::<Document>(name);
                events.create_index(model).await.map_err(|error| told(format!("{what}: index on timestamp"), error))?;
            }
            return Ok(found);
        }
        match database.create_collection(name).await {
            Err(error) if code(&error) != Some(48) => return Err(told(what, error)), // 48: another shard was quicker
            _ => {}
        }
    }
    Err(Error::external(format!("{what}: it does not stay")).hint("does another program drop it?"))
}

async fn look(database: &Database, name: &str, what: &str) -> Result<Option<Bson>> {
    let answer = database
        .run_cursor_command(doc! {"listCollections": 1, "filter": {"name": name}})
        .await
        .map_err(|error| told(what, error))?;
    let found: Vec<Document> = answer.try_collect().await.map_err(|error| told(what, error))?;
    let Some(found) = found.first() else { return Ok(None) };
    let kind = found.get_str("type").unwrap_or("collection");
    if kind != "collection" {
        return Err(Error::config(format!("{what} is a {kind}")).hint("give an ordinary collection"));
    }
    if found.get_document("options").is_ok_and(|options| options.get_bool("capped").unwrap_or(false)) {
        return Err(
            Error::config(format!("{what} is capped: older events would vanish")).hint("give an ordinary collection")
        );
    }
    let uuid = found.get_document("info").ok().and_then(|info| info.get("uuid")).cloned();
    uuid.map(Some).ok_or_else(|| Error::config(format!("{what} has no UUID")).hint("MongoDB 6.0 or newer is needed"))
}
