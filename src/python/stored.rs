//! What a sink has stored, apart from a run: its dead letters sent again, its positions shown and moved.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::run::{CancelToken, drive, text};
use super::{arguments, errors, oauth};
use crate::kafka::{Properties, Role};

/// Replay stored dead letters with the settings of a JSON object; return the books as one.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler or the observer raises.
#[pyfunction]
#[pyo3(signature = (settings, token, observer=None))]
pub fn replay_stored(
    py: Python<'_>,
    settings: &str,
    token: &CancelToken,
    observer: Option<&Bound<'_, PyAny>>,
) -> PyResult<String> {
    let settings = arguments::replay_stored(settings).map_err(|error| errors::raise(py, &error))?;
    let result = drive(py, token, observer, move |control| crate::sink::replay::replay(&settings, control))?;
    text(py, &result)
}

/// Show the kept positions of a sink's collection beside its topics' logs; return them as a JSON object.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler raises.
#[pyfunction]
#[pyo3(signature = (settings, token, oauth=None))]
pub fn stored_positions_show(
    py: Python<'_>,
    settings: &str,
    token: &CancelToken,
    oauth: Option<&Bound<'_, PyDict>>,
) -> PyResult<String> {
    let mut place = arguments::stored_positions_show(settings).map_err(|error| errors::raise(py, &error))?;
    attach(oauth, &mut place.source)?;
    let shown = drive(py, token, None, move |control| crate::sink::inventory::show(&place, control))?;
    text(py, &shown)
}

/// Move the kept positions of a sink's collection, or with `write` false say what it would do; as a JSON object.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler raises.
#[pyfunction]
#[pyo3(signature = (settings, token, oauth=None))]
pub fn stored_positions_reset(
    py: Python<'_>,
    settings: &str,
    token: &CancelToken,
    oauth: Option<&Bound<'_, PyDict>>,
) -> PyResult<String> {
    let mut settings = arguments::stored_positions_reset(settings).map_err(|error| errors::raise(py, &error))?;
    attach(oauth, &mut settings.place.source)?;
    let moved = drive(py, token, None, move |control| crate::sink::inventory::reset(&settings, control))?;
    text(py, &moved)
}

fn attach(tokens: Option<&Bound<'_, PyDict>>, source: &mut Option<Properties>) -> PyResult<()> {
    source.as_mut().map_or(Ok(()), |source| oauth::attach(tokens, source, Role::Source))
}
