//! MongoDB: version, replica set, and the actions that this user may take in a database.

use bson::doc;

use crate::error::{Error, Result};
use crate::mongo::client::{self, told};
use crate::mongo::rights;

/// What a sink does in its database; an aggregate needs the first four.
const NEEDED: [&str; 7] = ["find", "listCollections", "listIndexes", "collStats", "insert", "update", "createIndex"];

/// A server to write to.
///
/// # Errors
/// `Config` for credentials, an old version or a missing right; `External` when nothing answers.
pub async fn examine(uri: &str, place: Option<(String, String)>) -> Result<String> {
    let what = "mongodb: ask";
    let server = client::connect(uri).await?;
    let admin = server.database("admin");
    let info = admin.run_command(doc! {"buildInfo": 1}).await.map_err(|error| told(what, error))?;
    let version = info.get_str("version").unwrap_or("?").to_owned();
    if version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < 6) {
        return Err(Error::config(format!("mongodb: version {version}")).hint("6.0 or newer is needed"));
    }
    let hello = admin.run_command(doc! {"hello": 1}).await.map_err(|error| told(what, error))?;
    let set =
        hello.get_str("setName").map_or_else(|_| "no replica set".to_owned(), |name| format!("replica set {name}"));
    if let Some((database, collection)) = place {
        let asked = server.database(&database);
        asked.run_command(doc! {"listCollections": 1, "nameOnly": true}).await.map_err(|error| told(what, error))?;
        rights::need(&asked, &[(&collection, &NEEDED)], "readWrite (read is enough for reports)").await?;
    }
    Ok(format!("version {version}, {set}"))
}
