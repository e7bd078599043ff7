//! Kafka clients and settings.
//!
//! | module | owns |
//! |---|---|
//! | [`properties`] | users' librdkafka properties, and what all clients of a side share |
//! | [`settings`] | what we own of them, what we default, what is refused |
//! | [`security`], [`tls`] | contradictions in credentials and certificates; why a TLS handshake failed |
//! | [`tokens`] | SASL/OAUTHBEARER: one source of tokens for all clients of a side |
//! | [`client`] | opening a consumer, a producer or an admin client |
//! | [`consumer`] | a consumer that closes at once |
//! | [`reader`] | partitions read from given offsets, many records at once |
//! | [`statistics`] | what librdkafka counts, added up |
//! | [`cluster`] | a connection to one cluster: identity, topics, log ends |
//! | [`topics`] | making topics and reading their settings |
//! | [`context`] | what librdkafka tells us in callbacks |
//! | [`partitioner`] | the Java client's murmur2 |
//! | [`native`] | what rust-rdkafka does not wrap; the only unsafe calls of the crate |

pub mod client;
pub mod cluster;
pub mod consumer;
pub mod context;
pub mod native;
pub mod partitioner;
pub mod properties;
pub mod reader;
pub mod security;
pub mod settings;
pub mod statistics;
pub mod tls;
pub mod tokens;
pub mod topics;

pub use cluster::{Cluster, PartitionEnds, Topic};
pub use consumer::PromptConsumer;
pub use context::Context;
pub use properties::Properties;
pub use reader::PartitionReader;
pub use settings::Role;

/// Whether a consumer's error only says that compaction left batches without any record: librdkafka takes them for events
/// too large to fetch, and goes on behind them (librdkafka#1472). Brokers return an event of any size whole.
#[must_use]
pub fn is_hollow(error: &rdkafka::error::KafkaError) -> bool {
    error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::MessageSizeTooLarge)
}

/// Closes what holds clients, side by side: each waits for its threads.
pub fn close<const N: usize>(holders: [Box<dyn Send>; N]) {
    std::thread::scope(|scope| {
        for holder in holders {
            scope.spawn(move || drop(holder));
        }
    });
}
