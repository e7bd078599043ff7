//! Making topics, through librdkafka's admin client.

use std::time::Duration;

use futures_util::FutureExt;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;

use super::cluster::ASK;
use super::{Cluster, Context, client, settings as properties};
use crate::control::Control;
use crate::error::{Error, Result};

fn admin(cluster: &Cluster) -> Result<AdminClient<Context>> {
    let config = properties::consumer(&cluster.properties, "millpond-metadata", 1024, 256);
    client::open(config, &cluster.properties, cluster.role)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ASK)).operation_timeout(Some(ASK))
}

/// Blocks on one admin future: rust-rdkafka resolves it from a thread of its own.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let thread = std::thread::current();
    let waker = std::task::Waker::from(std::sync::Arc::new(Unpark(thread)));
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        if let std::task::Poll::Ready(value) = future.poll_unpin(&mut context) {
            return value;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

struct Unpark(std::thread::Thread);

impl std::task::Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

/// Makes topic `name`; one that is there already is success, whatever its partitions. Returns once its leaders are known.
///
/// # Errors
/// `Config` when forbidden or when a setting is refused, `External` when the cluster does not answer.
pub fn create(
    cluster: &Cluster,
    name: &str,
    partitions: i32,
    config: &[(&str, &str)],
    control: &Control,
) -> Result<()> {
    let what = || format!("{}: create topic {name}", cluster.role.name());
    let replicas = i32::try_from(cluster.brokers.clamp(1, 3)).unwrap_or(1);
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    let durable = if replicas >= 3 { "2" } else { "1" };
    topic = topic.set("min.insync.replicas", durable);
    for (key, value) in config {
        topic = topic.set(key, value);
    }
    let mut wanted = partitions;
    let admin = admin(cluster)?;
    let answer =
        wait(admin.create_topics([&topic], &options())).map_err(|error| Error::external(what()).because(error))?;
    for result in answer {
        match result {
            Ok(_) => {}
            // Made a moment ago by somebody else, perhaps with fewer partitions.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => wanted = 1,
            Err((_, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)) => {
                return Err(Error::config(what()).hint("grant CREATE, or create it beforehand"));
            }
            Err((
                _,
                code @ (RDKafkaErrorCode::InvalidConfig
                | RDKafkaErrorCode::InvalidTopic
                | RDKafkaErrorCode::PolicyViolation),
            )) => {
                return Err(Error::config(what()).because(rdkafka::error::KafkaError::Global(code)));
            }
            Err((_, code)) => return Err(Error::external(what()).because(rdkafka::error::KafkaError::Global(code))),
        }
    }
    settled(cluster, name, wanted, control)
}

/// Raises the number of partitions; "already so many" is success.
///
/// # Errors
/// As [`create`].
pub fn grow(cluster: &Cluster, name: &str, partitions: i32, control: &Control) -> Result<()> {
    let what = || format!("{}: grow topic {name} to {partitions} partitions", cluster.role.name());
    let admin = admin(cluster)?;
    let wanted = NewPartitions::new(name, usize::try_from(partitions).unwrap_or(0));
    let answer =
        wait(admin.create_partitions([&wanted], &options())).map_err(|error| Error::external(what()).because(error))?;
    for result in answer {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::InvalidPartitions)) => {}
            Err((_, code)) => return Err(Error::external(what()).because(rdkafka::error::KafkaError::Global(code))),
        }
    }
    settled(cluster, name, partitions, control)
}

/// Waits until every partition has a leader that answers.
fn settled(cluster: &Cluster, name: &str, partitions: i32, control: &Control) -> Result<()> {
    let what = format!("{}: wait for topic {name}", cluster.role.name());
    for _ in 0..50 {
        control.check(&what)?;
        if let Ok(Some(topic)) = cluster.find_topic(name)
            && topic.partitions >= partitions
        {
            let all: Vec<i32> = (0..topic.partitions).collect();
            if cluster.ends(name, &all).is_ok() {
                return Ok(());
            }
        }
        control.sleep(&what, Duration::from_millis(100))?;
    }
    Err(Error::external(what).hint("the topic was made, but its partitions have no leaders yet: retry"))
}
