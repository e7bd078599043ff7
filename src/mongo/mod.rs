//! MongoDB clients and settings.
//!
//! [`client`] connects and says what an error means; [`sources`] and [`positions`] are the two small collections that a
//! sink keeps beside the events, and that the aggregate reads.

pub mod client;
pub mod positions;
pub mod sources;
