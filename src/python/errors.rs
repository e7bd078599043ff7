//! The one place where an error of ours becomes an exception of `millpond.errors`.

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::error::{Domain, Error};

/// The exception for `error`: its class by who must act, with `.hint` and `.retryable`.
#[must_use]
pub fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error.domain {
        Domain::Config => "ConfigError",
        Domain::External => "ExternalError",
        Domain::Fenced => "FencedError",
        Domain::Position => "PositionError",
        Domain::Data => "DataError",
        Domain::Cancelled => "Cancelled",
        Domain::Bug => "BugError",
    };
    let made = py
        .import("millpond.errors")
        .and_then(|module| module.getattr(class))
        .and_then(|class| class.call1((PyString::new(py, &error.to_string()), PyString::new(py, &error.hint))));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(broken) => broken,
    }
}
