//! Users' librdkafka properties: what we own is refused when contradicted, what is unknown is refused with the nearest
//! known name, the rest passes through. Values never appear in a message (I6).

use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaConfRes;

use super::{Properties, native, security};
use crate::error::{Error, Result};

/// Which end of a verb a client serves; it names the argument in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Source,
    Target,
}

impl Role {
    /// The argument's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
        }
    }
}

/// What we own: the delivery guarantee stands on these values.
const OWNED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("isolation.level", "read_committed"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("request.required.acks", "all"),
    ("enable.gapless.guarantee", "true"),
];

/// What we make ourselves: no value of the user's can stand.
const MADE: &[&str] = &["transactional.id", "transaction.timeout.ms"];

/// Properties that users set and that have no default to be listed by.
const WITHOUT_DEFAULT: &[&str] = &[
    "bootstrap.servers",
    "sasl.username",
    "sasl.password",
    "sasl.mechanism",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.token.endpoint.url",
    "oauth_cb",
    "group.id",
];

/// Only one side knows them; librdkafka itself would warn at every client.
const CONSUMER_ONLY: &[&str] = &[
    "enable.auto.commit",
    "enable.auto.offset.store",
    "isolation.level",
    "auto.offset.reset",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "auto.commit.interval.ms",
    "partition.assignment.strategy",
    "queued.min.messages",
    "queued.max.messages.kbytes",
    "check.crcs",
    "group.protocol",
    "group.remote.assignor",
    "coordinator.query.interval.ms",
];
const CONSUMER_PREFIX: &str = "fetch.";
const PRODUCER_ONLY: &[&str] = &[
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "enable.gapless.guarantee",
    "linger.ms",
    "queue.buffering.max.ms",
    "queue.buffering.max.messages",
    "queue.buffering.max.kbytes",
    "batch.size",
    "batch.num.messages",
    "compression.codec",
    "compression.type",
    "compression.level",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "request.timeout.ms",
    "retries",
    "message.send.max.retries",
    "partitioner",
    "sticky.partitioning.linger.ms",
    "delivery.report.only.error",
    "queuing.strategy",
    "retry.backoff.max.ms",
    "queue.buffering.backpressure.threshold",
    "transaction.timeout.ms",
    "transactional.id",
    "message.max.bytes",
];

/// Checks the user's properties without any I/O.
///
/// # Errors
/// `Config` naming the property: unknown, contradicting ours, or of a value that librdkafka does not take.
pub fn check(properties: &Properties, role: Role) -> Result<()> {
    let side = role.name();
    if properties
        .get("bootstrap.servers")
        .or_else(|| properties.get("metadata.broker.list"))
        .is_none_or(String::is_empty)
    {
        return Err(Error::config(format!("{side}: bootstrap.servers is missing"))
            .hint("give it as \"host:port,host:port\" in the mapping"));
    }
    for (name, value) in properties {
        if !known(name) {
            // librdkafka's dump leaves out what has no default.
            let names = native::property_names();
            let candidates = names.iter().map(String::as_str).chain(WITHOUT_DEFAULT.iter().copied());
            let nearest = candidates.min_by_key(|candidate| distance(name, candidate));
            return Err(Error::config(format!("{side}: unknown property {name}"))
                .hint(nearest.map(|near| format!("did you mean {near}?")).unwrap_or_default()));
        }
        if MADE.contains(&name.as_str()) {
            return Err(Error::config(format!("{side}: property {name} is made by millpond")).hint("leave it out"));
        }
        if let Some((_, ours)) = OWNED.iter().find(|(owned, _)| owned == name)
            && !same(name, value, ours)
        {
            return Err(Error::config(format!(
                "{side}: property {name} contradicts {name}={ours}, which the guarantee stands on"
            ))
            .hint(format!("leave it out or set it to {ours}")));
        }
    }
    security::check(properties, role)?;
    let mut config = ClientConfig::new();
    for (name, value) in properties {
        config.set(name, value);
    }
    config.create_native_config().map(drop).map_err(|error| refused(side, &error))
}

/// Whether librdkafka has a property of this name, whatever its value.
fn known(name: &str) -> bool {
    let mut probe = ClientConfig::new();
    probe.set(name, "");
    !matches!(
        probe.create_native_config(),
        Err(rdkafka::error::KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..))
    )
}

fn same(name: &str, value: &str, ours: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    value == ours || (name.ends_with("acks") && (value == "-1" || value == "all"))
}

/// A consumer's configuration: our defaults, then the user's, then what we own. Memory is bounded by the queue and, for
/// each partition, a fetch of compressed bytes (a larger record comes whole all the same).
#[must_use]
pub fn consumer(properties: &Properties, group: &str, queue_kbytes: u64, fetch_kbytes: u64) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "millpond")
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.message.max.bytes", (fetch_kbytes * 1024).to_string())
        .set("queued.min.messages", "1000000")
        .set("queued.max.messages.kbytes", queue_kbytes.to_string())
        .set("socket.timeout.ms", "10000")
        .set("group.id", group);
    for (name, value) in properties {
        if !PRODUCER_ONLY.contains(&name.as_str()) {
            config.set(name, value);
        }
    }
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true");
    config
}

/// A transactional producer's configuration: our defaults, then the user's, then what we own.
#[must_use]
pub fn producer(properties: &Properties, transactional_id: &str, timeout_ms: u64, queue_kbytes: u64) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("client.id", "millpond")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "50000")
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", queue_kbytes.to_string());
    for (name, value) in properties {
        let consumers = CONSUMER_ONLY.contains(&name.as_str()) || name.starts_with(CONSUMER_PREFIX);
        if !consumers {
            config.set(name, value);
        }
    }
    // Nothing is seen before the commit, which flushes: full batches cost the brokers least. Lingering is as good as for
    // ever, because a thread of librdkafka does not sleep while a batch that has lingered long enough waits for an answer:
    // with brokers slow to answer such threads would take the very cores that they share. Messages must outlast it.
    let bound =
        ["message.timeout.ms", "delivery.timeout.ms"].iter().find_map(|name| properties.get(*name)?.parse().ok());
    let linger = bound.unwrap_or(timeout_ms).min(timeout_ms) / 2;
    if !properties.contains_key("linger.ms") && !properties.contains_key("queue.buffering.max.ms") {
        config.set("linger.ms", linger.to_string());
    }
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("delivery.report.only.error", "true")
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", timeout_ms.to_string());
    config
}

/// librdkafka refused a configuration: names the property, never its value.
#[must_use]
pub fn refused(side: &str, error: &rdkafka::error::KafkaError) -> Error {
    match error {
        rdkafka::error::KafkaError::ClientConfig(_, _, name, _) => {
            Error::config(format!("{side}: librdkafka does not take the value of property {name}"))
                .hint(format!("see CONFIGURATION.md of librdkafka for {name}"))
        }
        // Its text may quote values: only its kind is said.
        _ => Error::config(format!("{side}: librdkafka refused the combination of properties"))
            .hint("check security.protocol, sasl.mechanism and the credentials' names"),
    }
}

/// Edit distance, for "did you mean".
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != *y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Domain;

    fn with(name: &str, value: &str) -> Properties {
        [("bootstrap.servers", "127.0.0.1:1"), (name, value)].map(|(n, v)| (n.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn names_but_never_values() {
        let error = check(&with("sasl.pasword", "s3cret"), Role::Source).expect_err("unknown");
        assert_eq!(error.domain, Domain::Config);
        assert!(error.what.contains("sasl.pasword") && error.hint.contains("sasl.password"), "{error:?}");
        assert!(!format!("{error:?}").contains("s3cret"));
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(check(&with("enable.auto.commit", "true"), Role::Source).is_err());
        assert!(check(&with("enable.auto.commit", "false"), Role::Source).is_ok());
        assert!(check(&with("acks", "1"), Role::Target).is_err());
        assert!(check(&with("acks", "-1"), Role::Target).is_ok());
        assert!(check(&with("transactional.id", "x"), Role::Target).is_err());
        assert!(check(&with("linger.ms", "soon"), Role::Target).is_err());
    }
}
