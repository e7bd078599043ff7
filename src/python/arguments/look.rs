//! What a look at jobs and dead letters asks for.

use super::{Arguments, wrong};
use crate::error::Result;
use crate::kafka::Properties;
use crate::look::{letters, stored};

/// Letters looked at, unless another number is given.
const MOST: u64 = 1_000;

/// The cluster whose jobs are listed.
///
/// # Errors
/// `Config` naming the argument.
pub fn jobs(json: &str) -> Result<Properties> {
    let mut arguments = Arguments::read(json)?;
    let target = arguments.properties("target")?;
    arguments.done()?;
    Ok(target)
}

/// The database whose collections are listed: its server, which holds credentials, and its name.
///
/// # Errors
/// `Config` naming the argument.
pub fn collections(json: &str) -> Result<(String, String)> {
    let mut arguments = Arguments::read(json)?;
    let place = (arguments.needed("mongo_uri")?, arguments.needed("database")?);
    arguments.done()?;
    Ok(place)
}

/// Which dead letters of a topic.
///
/// # Errors
/// `Config` naming the argument.
pub fn letters(json: &str) -> Result<letters::Asked> {
    let mut arguments = Arguments::read(json)?;
    let one = match arguments.text("one")? {
        None => None,
        Some(text) => {
            let place = text.split_once(':').and_then(|(one, two)| Some((one.parse().ok()?, two.parse().ok()?)));
            Some(place.ok_or_else(|| wrong("one", "partition:offset"))?)
        }
    };
    let asked = letters::Asked {
        target: arguments.properties("target")?,
        topic: arguments.needed("topic")?,
        most: arguments.positive("most")?.unwrap_or(MOST),
        one,
    };
    arguments.done()?;
    Ok(asked)
}

/// Which dead letters of a collection.
///
/// # Errors
/// `Config` naming the argument.
pub fn stored(json: &str) -> Result<stored::Asked> {
    let mut arguments = Arguments::read(json)?;
    let asked = stored::Asked {
        mongo_uri: arguments.needed("mongo_uri")?,
        database: arguments.needed("database")?,
        collection: arguments.needed("collection")?,
        most: arguments.positive("most")?.unwrap_or(MOST),
        one: arguments.text("one")?,
    };
    arguments.done()?;
    Ok(asked)
}
