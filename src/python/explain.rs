//! One event under a transform, field by field, and the place that an `_id` tells: no run is started.

use pyo3::prelude::*;

use super::errors;
use crate::bridge::transform::Transform;
use crate::error::{Error, Result};
use crate::mongo::{client, sources};

/// Show what becomes of an event under the transform of a JSON object or null; return it as a JSON object.
///
/// # Errors
/// `millpond.errors.ConfigError` for a transform that no run would take.
#[pyfunction]
pub fn explain(py: Python<'_>, transform: &str, event: &[u8]) -> PyResult<String> {
    told(transform, event).map_err(|error| errors::raise(py, &error))
}

/// Read an `_id` back; with `mongo_uri` and `database` its source is looked up. Return a JSON object.
///
/// # Errors
/// `millpond.errors.ConfigError` for what is no `ObjectId` or has an unknown source; `ExternalError`.
#[pyfunction]
#[pyo3(signature = (id, mongo_uri=None, database=None))]
pub fn explain_id(py: Python<'_>, id: &str, mongo_uri: Option<&str>, database: Option<&str>) -> PyResult<String> {
    py.detach(|| placed(id, mongo_uri.zip(database))).map_err(|error| errors::raise(py, &error))
}

fn placed(id: &str, server: Option<(&str, &str)>) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::external("explain: start a runtime").because(error))?;
    let place = runtime.block_on(async {
        let database = match server {
            None => None,
            Some((uri, name)) => Some(client::connect(uri).await?.database(name)),
        };
        sources::explain(id, database.as_ref()).await
    })?;
    serde_json::to_string(&place).map_err(|error| Error::bug("explain: write an answer").because(error))
}

fn told(transform: &str, event: &[u8]) -> Result<String> {
    let definition = serde_json::from_str(transform).map_err(|error| Error::bug("explain: no JSON").because(error))?;
    let explanation = Transform::read(Some(definition))?.explain(event)?;
    serde_json::to_string(&explanation).map_err(|error| Error::bug("explain: write an answer").because(error))
}
