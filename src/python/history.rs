//! The ledger of publications, read back.

use pyo3::prelude::*;

use super::run::{CancelToken, drive, text};
use super::{arguments, errors};

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
