//! One event under a transform, field by field: no server is asked, no run is started.

use pyo3::prelude::*;

use super::errors;
use crate::bridge::transform::Transform;
use crate::error::{Error, Result};

/// Show what becomes of an event under the transform of a JSON object or null; return it as a JSON object.
///
/// # Errors
/// `millpond.errors.ConfigError` for a transform that no run would take.
#[pyfunction]
pub fn explain(py: Python<'_>, transform: &str, event: &[u8]) -> PyResult<String> {
    told(transform, event).map_err(|error| errors::raise(py, &error))
}

fn told(transform: &str, event: &[u8]) -> Result<String> {
    let definition = serde_json::from_str(transform).map_err(|error| Error::bug("explain: no JSON").because(error))?;
    let explanation = Transform::read(Some(definition))?.explain(event)?;
    serde_json::to_string(&explanation).map_err(|error| Error::bug("explain: write an answer").because(error))
}
