//! Replays of dead letters: a bridge's, and a sink's.

use super::{Arguments, wrong};
use crate::bridge::settings::Transform;
use crate::error::Result;
use crate::replay::settings::{Chosen, ReplaySettings};
use crate::sink::replay::ReplaySettings as StoredSettings;

fn chosen(arguments: &mut Arguments) -> Result<Chosen> {
    let offset = |value: Option<u64>| value.map(|offset| i64::try_from(offset).unwrap_or(i64::MAX));
    let partition = arguments.count("partition")?.map(i32::try_from).transpose();
    Ok(Chosen {
        reasons: arguments.list("reasons")?,
        since_ms: arguments.time("since")?,
        until_ms: arguments.time("until")?,
        source_topic: arguments.text("source_topic")?,
        partition: partition.map_err(|_| wrong("partition", "a partition's number"))?,
        first_offset: offset(arguments.count("first_offset")?),
        last_offset: offset(arguments.count("last_offset")?),
    })
}

/// The settings of a replay of dead letters.
///
/// # Errors
/// `Config` naming the argument.
pub fn replay(json: &str) -> Result<ReplaySettings> {
    let mut arguments = Arguments::read(json)?;
    let settings = ReplaySettings {
        target: arguments.properties("target")?,
        target_topic: arguments.needed("target_topic")?,
        dead_letter_topic: arguments.text("dead_letter_topic")?,
        job: arguments.text("job")?,
        transform: Transform::read(arguments.take("transform"))?,
        chosen: chosen(&mut arguments)?,
        allow: arguments.list("allow")?,
        transaction_letters: arguments.positive("transaction_letters")?.unwrap_or(1_000),
    };
    arguments.done()?;
    Ok(settings)
}

/// The settings of a replay of stored dead letters.
///
/// # Errors
/// `Config` naming the argument.
pub fn replay_stored(json: &str) -> Result<StoredSettings> {
    let mut arguments = Arguments::read(json)?;
    let settings = StoredSettings {
        mongo_uri: arguments.needed("mongo_uri")?,
        database: arguments.needed("database")?,
        collection: arguments.needed("collection")?,
        transform: Transform::read(arguments.take("transform"))?,
        metadata: arguments.text("metadata")?,
        chosen: chosen(&mut arguments)?,
        batch_size: arguments.positive("batch_size")?.map_or(500, |size| usize::try_from(size).unwrap_or(500)),
    };
    arguments.done()?;
    Ok(settings)
}
