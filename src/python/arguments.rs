//! Settings of a verb out of the JSON object that `millpond.verbs` sends. A wrong type is a `ConfigError` that names
//! the argument and never its value (I6).

mod aggregate;
mod audit;
mod history;
pub mod look;
mod partials;
mod positions;
mod replays;

use std::collections::BTreeMap;

pub use aggregate::aggregate;
pub use audit::audit;
pub use history::{explain_report, runs, top};
use mongodb::options::Compressor;
pub use partials::partials;
pub use positions::{positions_reset, positions_show, stored_positions_reset, stored_positions_show};
pub use replays::{replay, replay_stored};
use serde_json::{Map, Value};

use crate::bridge::BridgeSettings;
use crate::bridge::settings::{DeadLetterTopic, OnGap, Start as BridgeStart, Transform};
use crate::error::{Error, Result};
use crate::kafka::Properties;
use crate::shard::Shard;
use crate::sink::SinkSettings;
use crate::sink::identity::Identity;
use crate::sink::settings::Start as SinkStart;

struct Arguments(Map<String, Value>);

fn wrong(name: &str, wanted: &str) -> Error {
    Error::config(format!("{name}: not {wanted}")).hint(format!("give {wanted}"))
}

impl Arguments {
    fn read(json: &str) -> Result<Self> {
        match serde_json::from_str(json) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            _ => Err(Error::bug("arguments: no JSON object")),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "a string")),
        }
    }

    fn needed(&mut self, name: &str) -> Result<String> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(Error::config(format!("{name}: missing")).hint(format!("give {name}="))),
        }
    }

    fn count(&mut self, name: &str) -> Result<Option<u64>> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => value.as_u64().map(Some).ok_or_else(|| wrong(name, "a whole number, 0 or more")),
        }
    }

    fn positive(&mut self, name: &str) -> Result<Option<u64>> {
        match self.count(name)? {
            Some(0) => Err(wrong(name, "a whole number above 0")),
            other => Ok(other),
        }
    }

    fn seconds(&mut self, name: &str) -> Result<Option<f64>> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => value
                .as_f64()
                .filter(|seconds| seconds.is_finite() && *seconds > 0.0 && *seconds < 1e9)
                .map(Some)
                .ok_or_else(|| wrong(name, "seconds above 0")),
        }
    }

    fn flag(&mut self, name: &str, default: bool) -> Result<bool> {
        match self.take(name) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| wrong(name, "True or False")),
        }
    }

    fn list(&mut self, name: &str) -> Result<Vec<String>> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| wrong(name, "a list of strings")))
                .collect(),
            Some(_) => Err(wrong(name, "a list of strings")),
        }
    }

    fn properties(&mut self, name: &str) -> Result<Properties> {
        let Some(Value::Object(map)) = self.take(name) else {
            return Err(wrong(name, "a mapping of librdkafka properties"));
        };
        let mut properties = BTreeMap::new();
        for (key, value) in map {
            let text = match value {
                Value::String(text) => text,
                Value::Bool(flag) => flag.to_string(),
                Value::Number(number) => number.to_string(),
                _ => return Err(wrong(&format!("{name}: property {key}"), "a string, number or boolean")),
            };
            properties.insert(key, text);
        }
        Ok(properties.into())
    }

    fn time(&mut self, name: &str) -> Result<Option<i64>> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or_else(|| wrong(name, "a time")),
        }
    }

    fn rate(&mut self, name: &str) -> Result<Option<f64>> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| wrong(name, "a number above 0")),
        }
    }

    fn shard(&mut self) -> Result<Shard> {
        let Some(value) = self.take("shard") else { return Ok(Shard::default()) };
        let shape = || wrong("shard", "(i, n), or a list of such pairs with one n");
        let pair = |value: &Value| {
            let numbers = value.as_array()?;
            let number = |i: usize| numbers.get(i)?.as_u64().and_then(|n| u32::try_from(n).ok());
            (numbers.len() == 2).then(|| Some((number(0)?, number(1)?)))?
        };
        if let Some((index, count)) = pair(&value) {
            return Shard::new(&[index], count);
        }
        let pairs: Option<Vec<_>> = value.as_array().and_then(|list| list.iter().map(pair).collect());
        match pairs.as_deref() {
            Some([first, rest @ ..]) if rest.iter().all(|pair| pair.1 == first.1) => {
                let indexes: Vec<u32> = pairs.iter().flatten().map(|pair| pair.0).collect();
                Shard::new(&indexes, first.1)
            }
            _ => Err(shape()),
        }
    }

    fn on_gap(&mut self) -> Result<OnGap> {
        match self.text("on_gap")?.as_deref() {
            None | Some("fail") => Ok(OnGap::Fail),
            Some("earliest") => Ok(OnGap::Earliest),
            Some(_) => Err(wrong("on_gap", "\"fail\" or \"earliest\"")),
        }
    }

    fn compressors(&mut self) -> Result<Vec<Compressor>> {
        let named = |name: &String| match name.as_str() {
            "zstd" => Ok(Compressor::Zstd { level: None }),
            "zlib" => Ok(Compressor::Zlib { level: None }),
            "snappy" => Ok(Compressor::Snappy),
            _ => Err(wrong("compressors", "a list of zstd, snappy, zlib")),
        };
        self.list("compressors")?.iter().map(named).collect()
    }

    fn done(self) -> Result<()> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::config(format!("unknown argument {name}"))),
        }
    }
}

/// The settings of a bridge run.
///
/// # Errors
/// `Config` naming the argument.
pub fn bridge(json: &str) -> Result<BridgeSettings> {
    let mut arguments = Arguments::read(json)?;
    let transform = Transform::read(arguments.take("transform"))?;
    let start = match arguments.take("start") {
        None => None,
        Some(Value::String(word)) if word == "earliest" => Some(BridgeStart::Earliest),
        Some(Value::String(word)) if word == "latest" => Some(BridgeStart::Latest),
        Some(Value::Number(ms)) if ms.is_i64() => Some(BridgeStart::TimestampMs(ms.as_i64().unwrap_or(0))),
        Some(_) => return Err(wrong("start", "\"earliest\", \"latest\" or a time")),
    };
    let dead_letter_topic = match arguments.0.remove("dead_letter_topic") {
        None => DeadLetterTopic::Default,
        Some(Value::Null) => DeadLetterTopic::None,
        Some(Value::String(name)) => DeadLetterTopic::Named(name),
        Some(_) => return Err(wrong("dead_letter_topic", "a topic's name or None")),
    };
    let retention = arguments.count("target_retention")?;
    let settings = BridgeSettings {
        source: arguments.properties("source")?,
        target: arguments.properties("target")?,
        source_topic: arguments.needed("source_topic")?,
        target_topic: arguments.needed("target_topic")?,
        job: arguments.text("job")?,
        transform,
        shard: arguments.shard()?,
        start,
        max_events: arguments.positive("max_events")?,
        max_seconds: arguments.seconds("max_seconds")?,
        max_events_per_second: arguments.rate("max_events_per_second")?,
        max_bytes_per_second: arguments.rate("max_bytes_per_second")?,
        statistics: arguments.flag("statistics", false)?,
        dead_letter_topic,
        max_dead_letters: arguments.count("max_dead_letters")?,
        on_gap: arguments.on_gap()?,
        wait_for_open_transactions: arguments.seconds("wait_for_open_transactions")?,
        target_retention_ms: retention.map_or(-1, |ms| i64::try_from(ms).unwrap_or(-1)),
        allow: arguments.list("allow")?,
        transaction_events: arguments.positive("transaction_events")?.unwrap_or(100_000),
        transaction_bytes: arguments.positive("transaction_bytes")?.unwrap_or(256 << 20),
    };
    arguments.done()?;
    Ok(settings)
}

/// The settings of a sink run.
///
/// # Errors
/// `Config` naming the argument.
pub fn sink(json: &str) -> Result<SinkSettings> {
    let mut arguments = Arguments::read(json)?;
    let start = match arguments.take("start") {
        None => SinkStart::Earliest,
        Some(Value::String(word)) if word == "earliest" => SinkStart::Earliest,
        Some(Value::String(word)) if word == "latest" => SinkStart::Latest,
        Some(Value::String(word)) if word == "group" => SinkStart::Group,
        Some(Value::Number(ms)) if ms.is_i64() => SinkStart::TimestampMs(ms.as_i64().unwrap_or(0)),
        Some(_) => return Err(wrong("start", "\"earliest\", \"latest\", \"group\" or a time")),
    };
    let identity = arguments.text("id")?.as_deref().map_or(Ok(Identity::Kafka), Identity::read)?;
    if arguments.flag("ordered", false)? {
        return Err(Error::config("ordered: True").hint("leave it out: the order of arrival is that of the _ids"));
    }
    let write_concern = arguments.take("write_concern");
    let size = |value: Option<u64>, default: usize| value.map_or(default, |n| usize::try_from(n).unwrap_or(default));
    let batch_size = size(arguments.positive("batch_size")?, 1_000);
    let settings = SinkSettings {
        source: arguments.properties("source")?,
        mongo_uri: arguments.needed("mongo_uri")?,
        topic: arguments.needed("topic")?,
        database: arguments.needed("database")?,
        collection: arguments.needed("collection")?,
        group_id: arguments.text("group_id")?,
        batch_size,
        identity,
        shard: arguments.shard()?,
        start,
        max_events: arguments.positive("max_events")?,
        max_seconds: arguments.seconds("max_seconds")?,
        max_events_per_second: arguments.rate("max_events_per_second")?,
        max_bytes_per_second: arguments.rate("max_bytes_per_second")?,
        max_dead_letters: arguments.count("max_dead_letters")?,
        on_gap: arguments.on_gap()?,
        ensure_indexes: arguments.flag("ensure_indexes", true)?,
        write_concern: write_concern.as_ref().map(crate::sink::concern::read).transpose()?,
        compressors: arguments.compressors()?,
        dead_letter_ttl: arguments.count("dead_letter_ttl")?,
        metadata: arguments.text("metadata")?,
        // Eight of 3,000 events each took 170 MB (docs/performance.md).
        in_flight: size(arguments.positive("in_flight")?, (12_000 / batch_size.max(1)).clamp(2, 8)),
    };
    arguments.done()?;
    Ok(settings)
}
