//! Kafka clients and settings.
//!
//! | module | owns |
//! |---|---|
//! | [`settings`] | users' librdkafka properties: what we own, what we default, what is refused |
//! | [`client`] | a consumer that closes at once |
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
pub mod settings;
pub mod topics;

pub use client::Client;
pub use cluster::{Cluster, PartitionEnds, Topic};
pub use context::Context;
pub use settings::{Properties, Role};

/// Closes what holds clients, side by side: each waits for its threads.
pub fn close<const N: usize>(holders: [Box<dyn Send>; N]) {
    std::thread::scope(|scope| {
        for holder in holders {
            scope.spawn(move || drop(holder));
        }
    });
}
