//! What this user may do in a database, asked before anything is read: a right that is missing is told by name, with the
//! role that has it.

use std::collections::BTreeSet;

use bson::{Document, doc};
use mongodb::Database;

use super::client::told;
use crate::error::{Error, Result};

/// Refuses a user who lacks any of these actions on any of these collections. Where the server asks for no credentials,
/// everybody may do everything.
///
/// # Errors
/// `Config` naming actions, place and role; as [`told`].
pub async fn need(database: &Database, places: &[(&str, &[&str])], role: &str) -> Result<()> {
    let status = doc! {"connectionStatus": 1, "showPrivileges": true};
    let status = database.run_command(status).await.map_err(|error| told("mongodb: ask for rights", error))?;
    for (collection, needed) in places {
        let missing = missing(&status, database.name(), collection, needed);
        if !missing.is_empty() {
            let place = format!("{}.{collection}", database.name());
            return Err(Error::config(format!("mongodb: this user lacks {} on {place}", missing.join(", ")))
                .hint(format!("grant the role {role} on database {}", database.name())));
        }
    }
    Ok(())
}

/// The actions that are not granted, as `connectionStatus` tells it.
#[must_use]
pub fn missing<'a>(status: &Document, database: &str, collection: &str, needed: &[&'a str]) -> Vec<&'a str> {
    let Ok(info) = status.get_document("authInfo") else { return Vec::new() };
    // Nobody in particular, and yet an answer: the server asks for no credentials.
    if info.get_array("authenticatedUsers").is_ok_and(Vec::is_empty) {
        return Vec::new();
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
    let granted = |action: &str| found.contains(action) || found.contains("anyAction");
    needed.iter().copied().filter(|action| !granted(action)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let privilege = |db: &str, collection: &str, actions: &[&str]| {
            let actions: Vec<String> = actions.iter().map(|action| (*action).to_owned()).collect();
            doc! {"resource": {"db": db, "collection": collection}, "actions": actions}
        };
        let status = doc! {"authInfo": {
            "authenticatedUsers": [{"user": "u", "db": "admin"}],
            "authenticatedUserPrivileges": [
                privilege("d", "", &["find", "listIndexes"]), privilege("d", "c", &["insert"]), privilege("e", "", &["remove"]),
            ],
        }};
        assert_eq!(missing(&status, "d", "c", &["find", "insert", "update"]), ["update"]);
        assert_eq!(missing(&status, "d", "other", &["find", "insert"]), ["insert"]);
        assert_eq!(missing(&status, "e", "c", &["find", "remove"]), ["find"]);
        let nobody = doc! {"authInfo": {"authenticatedUsers": [], "authenticatedUserPrivileges": []}};
        assert!(missing(&nobody, "d", "c", &["find"]).is_empty());
        let all = doc! {"resource": {"anyResource": true}, "actions": ["anyAction"]};
        let root = doc! {"authInfo": {"authenticatedUsers": [{}], "authenticatedUserPrivileges": [all]}};
        assert!(missing(&root, "d", "c", &["find"]).is_empty());
    }
}
