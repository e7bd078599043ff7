//! What stands in the stores, for people to look at.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::run::{CancelToken, drive, text};
use super::{arguments, errors, oauth};
use crate::kafka::Role;

/// List the jobs that keep positions on a cluster; return a JSON list of their names.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler raises.
#[pyfunction]
#[pyo3(signature = (settings, token, oauth=None))]
pub fn jobs(
    py: Python<'_>,
    settings: &str,
    token: &CancelToken,
    oauth: Option<&Bound<'_, PyDict>>,
) -> PyResult<String> {
    let mut target = arguments::look::jobs(settings).map_err(|error| errors::raise(py, &error))?;
    oauth::attach(oauth, &mut target, Role::Target)?;
    let found = drive(py, token, None, move |control| crate::look::letters::jobs(&target, control))?;
    text(py, &found)
}

/// Look at the dead letters of a topic; return them as a JSON object.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler raises.
#[pyfunction]
#[pyo3(signature = (settings, token, oauth=None))]
pub fn letters(
    py: Python<'_>,
    settings: &str,
    token: &CancelToken,
    oauth: Option<&Bound<'_, PyDict>>,
) -> PyResult<String> {
    let mut asked = arguments::look::letters(settings).map_err(|error| errors::raise(py, &error))?;
    oauth::attach(oauth, &mut asked.target, Role::Target)?;
    let found = drive(py, token, None, move |control| crate::look::letters::letters(&asked, control))?;
    text(py, &found)
}

/// List the collections that keep positions in a database; return a JSON list of their names.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler raises.
#[pyfunction]
pub fn stored_collections(py: Python<'_>, settings: &str, token: &CancelToken) -> PyResult<String> {
    let (uri, database) = arguments::look::collections(settings).map_err(|error| errors::raise(py, &error))?;
    let found = drive(py, token, None, move |control| crate::look::stored::collections(&uri, &database, control))?;
    text(py, &found)
}

/// Look at the dead letters of a collection; return them as a JSON object.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler raises.
#[pyfunction]
pub fn stored_letters(py: Python<'_>, settings: &str, token: &CancelToken) -> PyResult<String> {
    let asked = arguments::look::stored(settings).map_err(|error| errors::raise(py, &error))?;
    let found = drive(py, token, None, move |control| crate::look::stored::stored(&asked, control))?;
    text(py, &found)
}
