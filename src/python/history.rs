//! What is kept in PostgreSQL, read back: the ledger of publications, kept Partials; and all of it audited.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::functions::Callables;
use super::run::{CancelToken, drive, text};
use super::{arguments, errors, oauth};
use crate::aggregate::incremental::inventory;
use crate::kafka::Role;

/// List the publications of a ledger, newest first; return a JSON list of its rows.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler raises.
#[pyfunction]
pub fn runs(py: Python<'_>, settings: &str, token: &CancelToken) -> PyResult<String> {
    let (place, chosen) = arguments::runs(settings).map_err(|error| errors::raise(py, &error))?;
    let found = drive(py, token, None, move |control| crate::aggregate::history::runs(&place, &chosen, control))?;
    text(py, &found)
}

/// Say what stands of a report's date, from what it was made and what has arrived since; return a JSON list by table.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler raises.
#[pyfunction]
pub fn explain_report(py: Python<'_>, settings: &str, token: &CancelToken) -> PyResult<String> {
    let asked = arguments::explain_report(settings).map_err(|error| errors::raise(py, &error))?;
    let told = drive(py, token, None, move |control| {
        let (table, uri) = (asked.table.as_deref(), asked.mongo_uri.as_deref());
        crate::aggregate::history::explain(&asked.place, &asked.date, table, uri, control)
    })?;
    text(py, &told)
}

/// The first rows of a report, of a date or of its latest one; return them as a JSON object.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler raises.
#[pyfunction]
pub fn report_top(py: Python<'_>, settings: &str, token: &CancelToken) -> PyResult<String> {
    let (place, table, date, limit) = arguments::top(settings).map_err(|error| errors::raise(py, &error))?;
    let found = drive(py, token, None, move |control| {
        crate::aggregate::history::top(&place, &table, date.as_deref(), limit, control)
    })?;
    text(py, &found)
}

/// List kept Partials and watermarks; return a JSON object.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler raises.
#[pyfunction]
pub fn partials_show(py: Python<'_>, settings: &str, token: &CancelToken) -> PyResult<String> {
    let (place, chosen) = arguments::partials(settings).map_err(|error| errors::raise(py, &error))?;
    let told = drive(py, token, None, move |control| inventory::show(&place, &chosen, control))?;
    text(py, &told)
}

/// Remove kept Partials; return a JSON object of what went.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler raises.
#[pyfunction]
pub fn partials_prune(py: Python<'_>, settings: &str, token: &CancelToken) -> PyResult<String> {
    let (place, chosen) = arguments::partials(settings).map_err(|error| errors::raise(py, &error))?;
    let told = drive(py, token, None, move |control| inventory::prune(&place, &chosen, control))?;
    text(py, &told)
}

/// Compare events, documents and reports, or the reports of one date; return a JSON object.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler or the observer raises.
#[pyfunction]
#[pyo3(signature = (settings, token, observer=None, functions=None, oauth=None))]
pub fn audit(
    py: Python<'_>,
    settings: &str,
    token: &CancelToken,
    observer: Option<&Bound<'_, PyAny>>,
    functions: Option<&Bound<'_, PyDict>>,
    oauth: Option<&Bound<'_, PyDict>>,
) -> PyResult<String> {
    let functions = functions.map(Callables::of).transpose()?;
    let (mut settings, date) = arguments::audit(settings, functions).map_err(|error| errors::raise(py, &error))?;
    if let Some(target) = &mut settings.target {
        oauth::attach(oauth, target, Role::Target)?;
    }
    let told = drive(py, token, observer, move |control| match date {
        Some(date) => crate::audit::audit_report(&settings, date, control),
        None => crate::audit::audit(&settings, control),
    })?;
    text(py, &told)
}
