//! What `millpond positions show|reset` asks for, of a bridge's job and of a sink's collection.

use serde_json::Value;

use super::{Arguments, wrong};
use crate::bridge::inventory::JobSettings;
use crate::bridge::reset::{ResetSettings, To};
use crate::error::Result;
use crate::sink::inventory::{ResetSettings as StoredReset, Where};

fn job(arguments: &mut Arguments) -> Result<JobSettings> {
    let source = match arguments.0.get("source") {
        None | Some(Value::Null) => None,
        Some(_) => Some(arguments.properties("source")?),
    };
    Ok(JobSettings { source, target: arguments.properties("target")?, job: arguments.needed("job")? })
}

/// Where positions move, and which.
fn target(arguments: &mut Arguments) -> Result<(To, Vec<i32>)> {
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_i64);
    let to = match arguments.take("to") {
        None => To::Kept,
        Some(Value::String(word)) if word == "earliest" => To::Earliest,
        Some(Value::String(word)) if word == "latest" => To::Latest,
        Some(value) => match (number(&value, "offset"), number(&value, "time_ms")) {
            (Some(offset), None) => To::Offset(offset),
            (None, Some(time)) => To::TimestampMs(time),
            _ => return Err(wrong("to", "\"earliest\", \"latest\", an offset or a time")),
        },
    };
    let partitions = match arguments.take("partitions") {
        None => Some(Vec::new()),
        Some(value) => serde_json::from_value(value).ok(),
    };
    Ok((to, partitions.ok_or_else(|| wrong("partition", "partition numbers"))?))
}

fn collection(arguments: &mut Arguments) -> Result<Where> {
    let source = match arguments.0.get("source") {
        None | Some(Value::Null) => None,
        Some(_) => Some(arguments.properties("source")?),
    };
    arguments.take("source");
    Ok(Where {
        source,
        mongo_uri: arguments.needed("mongo_uri")?,
        database: arguments.needed("database")?,
        collection: arguments.needed("collection")?,
        topic: arguments.text("topic")?,
    })
}

/// Which collection's positions are shown.
///
/// # Errors
/// `Config` naming the argument.
pub fn stored_positions_show(json: &str) -> Result<Where> {
    let mut arguments = Arguments::read(json)?;
    let place = collection(&mut arguments)?;
    arguments.done()?;
    Ok(place)
}

/// Which collection's positions are moved, and where.
///
/// # Errors
/// `Config` naming the argument.
pub fn stored_positions_reset(json: &str) -> Result<StoredReset> {
    let mut arguments = Arguments::read(json)?;
    let (to, partitions) = target(&mut arguments)?;
    let place = collection(&mut arguments)?;
    let settings = StoredReset { place, to, partitions, write: arguments.flag("write", false)? };
    arguments.done()?;
    Ok(settings)
}

/// Whose positions are shown.
///
/// # Errors
/// `Config` naming the argument.
pub fn positions_show(json: &str) -> Result<JobSettings> {
    let mut arguments = Arguments::read(json)?;
    let settings = job(&mut arguments)?;
    arguments.take("source");
    arguments.done()?;
    Ok(settings)
}

/// Whose positions are moved, and where.
///
/// # Errors
/// `Config` naming the argument.
pub fn positions_reset(json: &str) -> Result<ResetSettings> {
    let mut arguments = Arguments::read(json)?;
    let (to, partitions) = target(&mut arguments)?;
    let settings = ResetSettings { job: job(&mut arguments)?, to, partitions, write: arguments.flag("write", false)? };
    arguments.take("source");
    arguments.done()?;
    Ok(settings)
}
