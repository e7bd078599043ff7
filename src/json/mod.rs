//! The strict RFC 8259 reader shared by the transform and the BSON writer (design sections 3 and 5).
//!
//! [`tape`] checks a whole message once, without recursion, and leaves a flat list of tokens; [`text`] decodes strings;
//! [`compact`] writes values again; [`number`] compares decimals exactly; [`reason`] names why a message is refused. No
//! I/O.

pub mod compact;
pub mod number;
pub mod reason;
mod scan;
pub mod tape;
pub mod text;

pub use reason::{DeadLetter, Reason};
pub use tape::{Kind, Tape, Token};
