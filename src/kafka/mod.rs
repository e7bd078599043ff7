//! Kafka clients and settings.
//!
//! | module | owns |
//! |---|---|
//! | [`properties`] | users' librdkafka properties, and what all clients of a side share |
//! | [`settings`] | what we own of them, what we default, what is refused |
//! | [`security`], [`tls`] | contradictions in credentials and certificates; why a TLS handshake failed |
//! | [`tokens`] | SASL/OAUTHBEARER: one source of tokens for all clients of a side |
//! | [`client`] | opening a consumer, a producer or an admin client |
//! | [`statistics`] | what librdkafka counts, added up |
//! | [`cluster`] | a connection to one cluster: identity, topics, log ends |
//! | [`topics`] | making topics and reading their settings |
//! | [`context`] | what librdkafka tells us in callbacks |
//! | [`partitioner`] | the Java client's murmur2 |
//! | [`native`] | what rust-rdkafka does not wrap; the only unsafe calls of the crate |

pub mod client;
pub mod cluster;
pub mod context;
pub mod native;
pub mod partitioner;
pub mod properties;
pub mod security;
pub mod settings;
pub mod statistics;
pub mod tls;
pub mod tokens;
pub mod topics;

pub use cluster::{Cluster, PartitionEnds, Topic};
pub use context::Context;
pub use properties::Properties;
pub use settings::Role;

/// Closes what holds clients, side by side: librdkafka takes a tenth of a second for each.
pub fn close<const N: usize>(holders: [Box<dyn Send>; N]) {
    std::thread::scope(|scope| {
        for holder in holders {
            scope.spawn(move || drop(holder));
        }
    });
}
