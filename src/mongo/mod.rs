//! MongoDB clients and settings.
//!
//! | module | owns |
//! |---|---|
//! | [`client`], [`tls`] | connecting, and what an error means; why a TLS handshake failed |
//! | [`rights`] | what a user may do |
//! | [`sources`], [`positions`] | the two small collections that a sink keeps beside the events, and that the aggregate reads |

pub mod client;
pub mod positions;
pub mod rights;
pub mod sources;
pub mod tls;
