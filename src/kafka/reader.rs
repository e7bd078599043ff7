//! Some partitions of a topic, read from given offsets.

use std::ops::Deref;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::native::{Batches, Held};
use super::{Cluster, PromptConsumer};
use crate::error::{Error, Result};

/// A consumer that is assigned its partitions (it never subscribes), and their records.
pub struct PartitionReader {
    /// Before the consumer, so that it is dropped first.
    batches: Batches,
    consumer: PromptConsumer,
}

impl PartitionReader {
    /// Makes the consumer and assigns (partition, first offset).
    ///
    /// # Errors
    /// `Config` or `External`, as librdkafka says.
    pub fn open(config: ClientConfig, cluster: &Cluster, topic: &str, open: &[(i32, i64)]) -> Result<Self> {
        let what = || format!("{}: assign topic {topic}", cluster.role.name());
        let consumer = PromptConsumer::open(config, &cluster.properties, cluster.role)?;
        let batches = Batches::new(consumer.client(), topic, open.iter().map(|(partition, _)| *partition))
            .map_err(|said| Error::external(format!("{}: {said}", what())))?;
        let mut assignment = TopicPartitionList::new();
        for (partition, offset) in open {
            assignment
                .add_partition_offset(topic, *partition, Offset::Offset(*offset))
                .map_err(|error| Error::bug(what()).because(error))?;
        }
        consumer.assign(&assignment).map_err(|error| Error::external(what()).because(error))?;
        Ok(Self { batches, consumer })
    }

    /// The next record, or `None` after `timeout` without one.
    ///
    /// # Errors
    /// `PartitionEOF`, or librdkafka's code.
    pub fn next(&mut self, timeout: Duration) -> Option<KafkaResult<Held>> {
        if let Some(next) = self.batches.pop() {
            return Some(next);
        }
        // Tokens, statistics and errors of the client itself come by its own queue.
        match self.consumer.poll(Duration::ZERO) {
            Some(Err(error)) => return Some(Err(error)),
            Some(Ok(_)) => return Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::State))),
            None => {}
        }
        self.batches.refill(timeout);
        self.batches.pop()
    }
}

impl Deref for PartitionReader {
    type Target = PromptConsumer;

    fn deref(&self) -> &Self::Target {
        &self.consumer
    }
}
