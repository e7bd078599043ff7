//! MongoDB: version, replica set, and the actions that this user may take in a database.

use std::collections::BTreeSet;

use bson::{Document, doc};

use crate::error::{Error, Result};
use crate::mongo::client::{self, told};

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
        let status = doc! {"connectionStatus": 1, "showPrivileges": true};
        let status = admin.run_command(status).await.map_err(|error| told(what, error))?;
        rights(&status, &database, &collection)?;
    }
    Ok(format!("version {version}, {set}"))
}

fn rights(status: &Document, database: &str, collection: &str) -> Result<()> {
    let Ok(info) = status.get_document("authInfo") else { return Ok(()) };
    // Nobody in particular, and yet an answer to listCollections: the server asks for no credentials.
    if info.get_array("authenticatedUsers").is_ok_and(Vec::is_empty) {
        return Ok(());
    }
    let mut found = BTreeSet::new();
    for privilege in info.get_array("authenticatedUserPrivileges").into_iter().flatten() {
        let Some(privilege) = privilege.as_document() else { continue };
        let Ok(resource) = privilege.get_document("resource") else { continue };
        let any = resource.get_bool("anyResource").unwrap_or(false);
        let fits = |name: &str, wanted: &str| resource.get_str(name).is_ok_and(|is| is.is_empty() || is == wanted);
        if any || (fits("db", database) && fits("collection", collection)) {
            found.extend(privilege.get_array("actions").into_iter().flatten().filter_map(|action| action.as_str()));
        }
    }
    let missing: Vec<&str> =
        NEEDED.into_iter().filter(|action| !found.contains(action) && !found.contains("anyAction")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::config(format!("mongodb: this user lacks {} in {database}", missing.join(", ")))
        .hint(format!("grant the role readWrite on {database} (read is enough for reports)")))
}
