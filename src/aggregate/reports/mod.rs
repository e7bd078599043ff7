//! Reports as data: definitions, read and checked whole, and what they say about one event.
//!
//! | module | owns |
//! |---|---|
//! | [`definition`], [`metric`], [`condition`] | what is told: tables, keys, metrics, filters |
//! | [`expression`], [`functions`], [`address`] | built-in functions: as they are told, and over an event |
//! | [`value`], [`number`] | values of events, and the forms that columns take of them |
//! | [`calls`] | user-defined functions over distinct values |
//! | [`plan`] | definitions made ready for events |

pub mod address;
pub mod calls;
pub mod condition;
pub mod definition;
pub mod expression;
pub mod functions;
pub mod metric;
pub mod number;
pub mod plan;
pub mod value;
