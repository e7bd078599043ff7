//! The collections that a database's sinks keep positions of, and the dead letters of one.

use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Collection, Database};

use super::{Letters, Shown, TOLD, Told};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::mongo::client::{self, told};
use crate::mongo::positions::{self, POSITIONS};
use crate::sink::letters::Whole;
use crate::sink::{letters, on_a_runtime};

/// What one question of ours may take the server.
const QUESTION_MS: i64 = 4_000;

/// Which letters.
#[derive(Clone)]
pub struct Asked {
    /// Holds credentials: never shown (no `Debug`).
    pub mongo_uri: String,
    pub database: String,
    pub collection: String,
    /// So many are looked at.
    pub most: u64,
    /// One of them by its `_id`, with its bytes.
    pub one: Option<String>,
}

/// The collections that keep positions in a database, by name.
///
/// # Errors
/// As [`client::connect`] and [`told`].
pub fn collections(mongo_uri: &str, database: &str, control: &Control) -> Result<Vec<String>> {
    on_a_runtime(control, async {
        let database = client::connect(mongo_uri).await?.database(database);
        let command = doc! {"distinct": POSITIONS, "key": "_id.collection", "maxTimeMS": QUESTION_MS};
        let what = || format!("look: read {}.{POSITIONS}", database.name());
        let answer = database.run_command(command).await.map_err(|error| told(what(), error))?;
        let names = answer.get_array("values").into_iter().flatten();
        let mut names: Vec<String> = names.filter_map(Bson::as_str).map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    })
}

/// Looks at letters, the newest of the last source first, or at one. A collection that does not exist holds none.
///
/// # Errors
/// As [`client::connect`] and [`told`]; `Config` for an `_id` that is none.
pub fn stored(asked: &Asked, control: &Arc<Control>) -> Result<Letters> {
    on_a_runtime(control, async {
        let database = client::connect(&asked.mongo_uri).await?.database(&asked.database);
        let name = letters::name(&asked.collection);
        let kept: Collection<Document> = database.collection(&name);
        let what = || format!("look: read {}.{name}", asked.database);
        let held = kept.estimated_document_count().await.map_err(|error| told(what(), error))?;
        let mut found = Letters {
            place: format!("{}.{name}", asked.database),
            held: i64::try_from(held).unwrap_or(i64::MAX),
            ..Letters::default()
        };
        if let Some(id) = &asked.one {
            let id = ObjectId::parse_str(id)
                .map_err(|_| Error::config("letter: no _id").hint("give the 24 hexadecimal digits of its _id"))?;
            let letter = kept.find_one(doc! {"_id": id}).await.map_err(|error| told(what(), error))?;
            found.looked_at = u64::from(letter.is_some());
            found.letters = letter.iter().map(whole).collect();
            return Ok(found);
        }
        let most = i64::try_from(asked.most).unwrap_or(i64::MAX);
        // The first piece of each letter: further ones have a document for their `_id`.
        let first = doc! {"$match": {"_id": {"$type": "objectId"}}};
        let newest = doc! {"$sort": {"_id": -1}};
        let counted = vec![
            first.clone(),
            newest.clone(),
            doc! {"$limit": most},
            doc! {"$group": {"_id": "$reason", "count": {"$sum": 1}}},
        ];
        for group in ask(&database, &name, counted).await? {
            let count = u64::try_from(positions::whole(group.get("count")).unwrap_or(0)).unwrap_or(0);
            found.looked_at += count;
            found.by_reason.insert(group.get_str("_id").unwrap_or("unknown").to_owned(), count);
        }
        let wanted = doc! {
            "reason": 1, "detail": 1, "topic": 1, "partition": 1, "offset": 1, "timestamp": 1,
            "bytes": {"$cond": [{"$eq": [{"$type": "$value"}, "binData"]}, {"$binarySize": "$value"}, 0]},
        };
        let some = vec![first, newest, doc! {"$limit": i64::try_from(TOLD).unwrap_or(50)}, doc! {"$project": wanted}];
        found.letters = ask(&database, &name, some).await?.iter().map(listed).collect();
        Ok(found)
    })
}

async fn ask(database: &Database, name: &str, pipeline: Vec<Document>) -> Result<Vec<Document>> {
    let kept: Collection<Document> = database.collection(name);
    let limit = std::time::Duration::from_millis(QUESTION_MS.unsigned_abs());
    let found: std::result::Result<Vec<Document>, _> =
        async { kept.aggregate(pipeline).max_time(limit).await?.try_collect().await }.await;
    found.map_err(|error| told(format!("look: read {}.{name}", database.name()), error))
}

fn listed(letter: &Document) -> Told {
    let text = |name: &str| letter.get_str(name).unwrap_or_default().to_owned();
    Told {
        id: letter.get_object_id("_id").map(ObjectId::to_hex).unwrap_or_default(),
        reason: text("reason"),
        detail: text("detail"),
        topic: text("topic"),
        partition: letter.get_i32("partition").unwrap_or(-1),
        offset: letter.get_i64("offset").unwrap_or(-1),
        timestamp_ms: letter.get_datetime("timestamp").ok().map(|time| time.timestamp_millis()),
        bytes: positions::whole(letter.get("bytes")).unwrap_or(0),
        key: None,
        value: None,
    }
}

fn whole(letter: &Document) -> Told {
    let mut raw = Whole::default();
    raw.add(letter);
    let bytes = raw.value.as_ref().map_or(0, |value| i64::try_from(value.len()).unwrap_or(i64::MAX));
    let shown = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(Shown::of);
    Told { bytes, key: shown(&raw.key), value: shown(&raw.value), ..listed(letter) }
}
