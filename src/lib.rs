//! millpond moves events `remote Kafka → local Kafka → MongoDB → PostgreSQL` and counts each one once.
//!
//! The map of the crate:
//!
//! | module | owns |
//! |---|---|
//! | [`bridge`] | remote Kafka → transform → local Kafka, exactly once across two clusters |
//! | [`replay`] | dead letters of a bridge → its target, once each |
//! | [`sink`] | Kafka → MongoDB, effectively once |
//! | [`aggregate`] | MongoDB → daily reports → PostgreSQL, atomically |
//! | [`audit`] | all three compared with each other: nothing lost, doubled or edited |
//! | [`json`] | the strict RFC 8259 reader that both the transform and the BSON writer stand on |
//! | [`kafka`], [`mongo`], [`postgres`] | clients and settings of one system each; `kafka::native` holds the only unsafe calls |
//! | [`control`] | how a run is interrupted and how it tells what it does |
//! | [`shard`] | lanes: which part of a topic a run owns |
//! | [`look`] | what stands in the stores, for people to look at |
//! | [`doctor`] | every server asked for its version and the rights that a run needs |
//! | [`handshake`] | why TLS fails, in codes |
//! | [`error`] | the one error type, by who must act |
//! | [`python`] | the only code that imports pyo3 |
//!
//! Rust never knows Airflow, Python never touches a record.

pub mod aggregate;
pub mod audit;
pub mod bridge;
pub mod control;
pub mod doctor;
pub mod error;
pub mod handshake;
pub mod json;
pub mod kafka;
pub mod look;
pub mod mongo;
pub mod postgres;
pub mod python;
pub mod replay;
#[cfg(feature = "sabotage")]
pub mod sabotage;
pub mod shard;
pub mod sink;

pub use control::Control;
pub use error::{Error, Result};
