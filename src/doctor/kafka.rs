//! Kafka: the topics of a job, what this user may do with them, and whether a transaction can begin.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer};

use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::native::{self, Right};
use crate::kafka::{Cluster, Context, Properties, Role, client, settings};

/// How long one question may take here.
const ASK: Duration = Duration::from_secs(3);

fn need(what: &str, wanted: &[(Right, &str)], found: &BTreeSet<Right>) -> Result<()> {
    let missing: Vec<&str> = wanted.iter().filter(|(right, _)| !found.contains(right)).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let rights = missing.join(", ");
    Err(Error::config(format!("{what}: this user lacks {rights}")).hint(format!("grant {rights}")))
}

fn about(cluster: &Cluster) -> String {
    format!("cluster {}, {} brokers", cluster.id, cluster.brokers)
}

/// A cluster to read from.
///
/// # Errors
/// `Config` for credentials, a missing topic or right; `External` when nothing answers.
pub fn source(properties: &Properties, topic: Option<&str>, control: &Arc<Control>) -> Result<String> {
    let cluster = Cluster::connect(properties, Role::Source, control)?;
    let Some(topic) = topic else { return Ok(about(&cluster)) };
    let topic = cluster.topic(topic)?;
    let said = |error| Error::external(format!("source: rights on topic {}: {error}", topic.name));
    let rights = native::topic_rights(cluster.client.client(), &topic.name, ASK).map_err(said)?;
    let wanted = [(Right::Read, "READ"), (Right::Describe, "DESCRIBE"), (Right::DescribeConfigs, "DESCRIBE_CONFIGS")];
    need(&format!("source: topic {}", topic.name), &wanted, &rights)?;
    let all: Vec<i32> = (0..topic.partitions).collect();
    let held: i64 = cluster.ends(&topic.name, &all)?.iter().map(|end| end.last_stable - end.start).sum();
    let age = if topic.id.is_some() { "" } else { "; the brokers are too old for topic ids: a recreation goes unseen" };
    Ok(format!("{}; topic {}: {} partitions, {held} offsets{age}", about(&cluster), topic.name, topic.partitions))
}

/// A cluster to write to: the topic, or the right to make it, and a transactional producer.
///
/// # Errors
/// As [`source`].
pub fn target(properties: &Properties, topic: Option<&str>, control: &Arc<Control>) -> Result<String> {
    let cluster = Cluster::connect(properties, Role::Target, control)?;
    let client = cluster.client.client();
    let said = |error| Error::external(format!("target: rights: {error}"));
    let may_create = native::cluster_rights(client, ASK).map_err(said)?.contains(&Right::Create);
    let mut told = about(&cluster);
    if let Some(name) = topic {
        if let Some(topic) = cluster.find_topic(name)? {
            let rights = native::topic_rights(client, name, ASK).map_err(said)?;
            let wanted = [
                (Right::Write, "WRITE"),
                (Right::Read, "READ"),
                (Right::Describe, "DESCRIBE"),
                (Right::DescribeConfigs, "DESCRIBE_CONFIGS"),
            ];
            need(&format!("target: topic {name}"), &wanted, &rights)?;
            told = format!("{told}; topic {name}: {} partitions", topic.partitions);
        } else if may_create {
            told = format!("{told}; topic {name} will be made");
        } else {
            return Err(Error::config(format!("target: topic {name} does not exist, and this user may not make it"))
                .hint(
                    "grant CREATE on the cluster, or make the topic, its .dead_letters and millpond.positions.<job>",
                ));
        }
    }
    transaction(&cluster)?;
    Ok(format!("{told}; transactions work"))
}

/// Registers a transactional id of the doctor's own: no run uses it, so none is fenced.
fn transaction(cluster: &Cluster) -> Result<()> {
    let what = "target: begin a transaction as millpond-doctor";
    let config = settings::producer(&cluster.properties, "millpond-doctor", 10_000, 1_024);
    let producer: BaseProducer<Context> = client::open(config, &cluster.properties, cluster.role)?;
    let deadline = Instant::now() + ASK;
    let begun = loop {
        match producer.init_transactions(ASK) {
            // A coordinator that has just come to be says so for a moment.
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(100));
            }
            other => break other.and_then(|()| producer.begin_transaction()),
        }
    };
    begun.and_then(|()| producer.abort_transaction(ASK)).map_err(|error| match error.rdkafka_error_code() {
        Some(
            rdkafka::error::RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | rdkafka::error::RDKafkaErrorCode::ClusterAuthorizationFailed,
        ) => Error::config(what).hint("grant WRITE and DESCRIBE on TransactionalId with the prefix millpond-"),
        _ => Error::external(what).hint("is a majority of the brokers up?").because(error),
    })
}
