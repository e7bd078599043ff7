//! The strict RFC 8259 reader shared by the transform and the BSON writer (design sections 3 and 5).

pub mod reason;

pub use reason::{DeadLetter, Reason};
