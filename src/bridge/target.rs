//! What must be true of the target before the first event is read: topics made with the right settings, existing ones
//! checked, so that nothing that was written is deleted, stamped anew or refused later.

use std::collections::BTreeMap;

use super::settings::{BridgeSettings, DeadLetterTopic};
use super::target_log::TargetLog;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::{Cluster, Topic, topics};

/// What connectors and headers add to a record at most.
const HEADROOM: i64 = 65_536;

/// The target's topics and the limits that decide what can be written.
#[derive(Debug, Clone)]
pub struct Target {
    pub topic: Topic,
    pub dead_letters: Option<Topic>,
    pub log: TargetLog,
    pub dead_letter_log: TargetLog,
    /// The largest record of the target topic, bytes.
    pub max_bytes: i64,
    /// The largest record of the dead-letter topic, bytes.
    pub dead_letter_max_bytes: i64,
    /// A compacted topic refuses events without a key.
    pub needs_key: bool,
    /// How far a timestamp may lie before and after now, milliseconds.
    pub before_ms: i64,
    pub after_ms: i64,
    /// Events older than this are deleted at once, milliseconds; `None` for no limit or where the user allows it.
    pub retention_ms: Option<i64>,
}

fn number(settings: &BTreeMap<String, String>, name: &str, default: i64) -> i64 {
    settings.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The dead-letter topic's name, by the settings.
#[must_use]
pub fn dead_letter_topic(settings: &BridgeSettings) -> Option<String> {
    match &settings.dead_letter_topic {
        DeadLetterTopic::Default => Some(format!("{}.dead_letters", settings.target_topic)),
        DeadLetterTopic::Named(name) => Some(name.clone()),
        DeadLetterTopic::None => None,
    }
}

/// Makes or checks the target and the dead-letter topic.
///
/// # Errors
/// `Config` for an existing topic that would lose, restamp or refuse events; as [`topics::create`].
pub fn prepare(
    settings: &BridgeSettings,
    source: &Cluster,
    source_topic: &Topic,
    target: &Cluster,
    control: &Control,
) -> Result<Target> {
    let from = source.topic_settings(&source_topic.name)?;
    let source_max = number(&from, "max.message.bytes", 1_048_588);
    let source_retention = number(&from, "retention.ms", 604_800_000);
    let name = &settings.target_topic;
    if target.find_topic(name)?.is_none() {
        let kept = settings.target_retention_ms;
        if kept >= 0 && (source_retention < 0 || kept < source_retention) {
            return Err(Error::config(format!(
                "target_retention: {kept} ms is below the source's {source_retention} ms"
            ))
            .hint("unread events could vanish: leave it out (unlimited) or raise it"));
        }
        let retention = kept.to_string();
        let max = source_max.max(1_048_588).to_string();
        let config = [("retention.ms", retention.as_str()), ("max.message.bytes", max.as_str())];
        topics::create(target, name, source_topic.partitions, &config, control)?;
    }
    let topic = target.topic(name)?;
    let found = target.topic_settings(name)?;
    check(&settings.allow, name, &found)?;
    let dead_letters = match dead_letter_topic(settings) {
        None => None,
        Some(name) => Some(prepare_dead_letters(&name, source_max, topic.partitions, target, control)?),
    };
    let (dead_letter_max_bytes, dead_letter_log) = match &dead_letters {
        None => (0, TargetLog::default()),
        Some(topic) => {
            let found = target.topic_settings(&topic.name)?;
            (number(&found, "max.message.bytes", 1_048_588), TargetLog::look(target, topic, &found)?)
        }
    };
    let log = TargetLog::look(target, &topic, &found)?;
    let limits = limits(&settings.allow, topic, log, &found);
    Ok(Target { dead_letters, dead_letter_log, dead_letter_max_bytes, ..limits })
}

/// The limits of a topic that is there already and takes no dead letters, checked as [`prepare`] does.
///
/// # Errors
/// As [`prepare`].
pub fn existing(allow: &[String], name: &str, target: &Cluster) -> Result<Target> {
    let topic = target.topic(name)?;
    let found = target.topic_settings(name)?;
    check(allow, name, &found)?;
    let log = TargetLog::look(target, &topic, &found)?;
    Ok(limits(allow, topic, log, &found))
}

fn limits(allow: &[String], topic: Topic, log: TargetLog, found: &BTreeMap<String, String>) -> Target {
    let retention = number(found, "retention.ms", 604_800_000);
    let deletes = found.get("cleanup.policy").is_none_or(|policy| policy.contains("delete"));
    // Records that are stamped anew may come from any time. Brokers before 3.6 have one limit for both directions.
    let stamped_anew = found.get("message.timestamp.type").is_some_and(|kind| kind == "LogAppendTime");
    let difference = number(found, "message.timestamp.difference.max.ms", i64::MAX);
    let limit = |name: &str| if stamped_anew { i64::MAX } else { number(found, name, difference) };
    let waived = allow.iter().any(|allowed| allowed == "retention");
    Target {
        retention_ms: (deletes && retention >= 0 && !waived).then_some(retention),
        log,
        topic,
        dead_letters: None,
        dead_letter_log: TargetLog::default(),
        max_bytes: number(found, "max.message.bytes", 1_048_588),
        dead_letter_max_bytes: 0,
        needs_key: found.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
        before_ms: limit("message.timestamp.before.max.ms"),
        after_ms: limit("message.timestamp.after.max.ms"),
    }
}

fn check(allow: &[String], name: &str, found: &BTreeMap<String, String>) -> Result<()> {
    let allowed = |what: &str| allow.iter().any(|allowed| allowed == what);
    let value = |key: &str| found.get(key).map_or("", String::as_str);
    if value("message.timestamp.type") == "LogAppendTime" && !allowed("log_append_time") {
        return Err(Error::config(format!(
            "target: topic {name} stamps records anew (message.timestamp.type=LogAppendTime)"
        ))
        .hint("set CreateTime on it, or allow=[\"log_append_time\"]"));
    }
    if value("cleanup.policy").contains("compact") && !allowed("compaction") {
        return Err(Error::config(format!("target: topic {name} is compacted: older events of a key would vanish"))
            .hint("set cleanup.policy=delete on it, or allow=[\"compaction\"]"));
    }
    Ok(())
}

fn prepare_dead_letters(
    name: &str,
    source_max: i64,
    partitions: i32,
    target: &Cluster,
    control: &Control,
) -> Result<Topic> {
    let needed = source_max + HEADROOM;
    if target.find_topic(name)?.is_none() {
        let max = needed.to_string();
        topics::create(target, name, partitions, &[("retention.ms", "-1"), ("max.message.bytes", &max)], control)?;
    }
    let settings = target.topic_settings(name)?;
    if settings.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        return Err(Error::config(format!(
            "target: dead-letter topic {name} is compacted: older letters of a key would vanish"
        ))
        .hint(format!("set cleanup.policy=delete on {name}")));
    }
    let found = number(&settings, "max.message.bytes", 1_048_588);
    if found < needed {
        return Err(Error::config(format!(
            "target: dead-letter topic {name} takes records of {found} bytes, the source's may need {needed}"
        ))
        .hint(format!("set max.message.bytes={needed} on {name}")));
    }
    target.topic(name)
}
