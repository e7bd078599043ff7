//! A verb on a thread of its own, while the caller's thread watches for signals and shows progress (I5).
//!
//! The interpreter's lock is held only for that look, ten times a second. Nothing exists before a run or after it, so a
//! fork between two runs finds nothing to break.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde::Serialize;

use super::{arguments, engine::Elsewhere, errors, functions::Callables, oauth, table::Table};
use crate::aggregate::reports::definition::Definition;
use crate::bridge::inventory::JobSettings;
use crate::control::{Control, Level};
use crate::error::{Error, Result};
use crate::kafka::Role;

const LOOK: Duration = Duration::from_millis(100);
/// A run that does not end by then after a stop is left behind: its transaction times out, its positions stand.
const PATIENCE: Duration = Duration::from_millis(1_750);

/// Asks a run to end at its next clean boundary. `cancel()` only sets a flag: it may come at any time, more than once,
/// from any thread or signal handler, and with no run at all.
#[pyclass(frozen, module = "millpond._native")]
#[derive(Debug, Default)]
pub struct CancelToken {
    flag: AtomicBool,
}

#[pymethods]
impl CancelToken {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Ask the run that was given this token to end.
    fn cancel(&self) {
        self.flag.store(true, Ordering::Release);
    }

    /// Whether `cancel()` was called.
    #[getter]
    fn cancelled(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

pub(super) fn drive<T: Send + 'static>(
    py: Python<'_>,
    token: &CancelToken,
    observer: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Arc<Control>) -> Result<T> + Send + 'static,
) -> PyResult<T> {
    let control = Arc::new(Control::default());
    if token.cancelled() {
        return Err(errors::raise(py, &Error::cancelled("stopped before it began")));
    }
    let (sender, receiver) = mpsc::channel();
    let theirs = Arc::clone(&control);
    std::thread::Builder::new()
        .name("millpond-run".into())
        .spawn(move || {
            // The receiver is gone only when the caller gave up waiting.
            let _ = sender.send(work(&theirs));
        })
        .map_err(|error| errors::raise(py, &Error::external("start a thread").because(error)))?;
    let receiver = std::sync::Mutex::new(receiver);
    let wait = |time: Duration| {
        py.detach(|| receiver.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv_timeout(time))
    };
    let mut stopping: Option<Instant> = None;
    loop {
        match wait(LOOK) {
            Ok(outcome) => {
                observe(py, &control, observer, true)?;
                // A handler may have run in this very moment: its exception wins over a result (never success).
                py.check_signals()?;
                if outcome.is_ok() && token.cancelled() {
                    return Err(errors::raise(py, &Error::cancelled("stopped on request, when all was done")));
                }
                return outcome.map_err(|error| errors::raise(py, &error));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(errors::raise(py, &Error::bug("the run's thread panicked")));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(raised) = py.check_signals().and_then(|()| observe(py, &control, observer, false)) {
            control.stop();
            let _ = wait(PATIENCE);
            return Err(raised);
        }
        if token.cancelled() {
            control.stop();
        }
        if control.stopping() && stopping.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return Err(errors::raise(py, &Error::cancelled("stopped on request; a server still had not answered")));
        }
    }
}

fn observe(py: Python<'_>, control: &Control, observer: Option<&Bound<'_, PyAny>>, last: bool) -> PyResult<()> {
    let Some(observer) = observer else { return Ok(()) };
    let lines: Vec<(i32, String)> = control
        .take_lines()
        .into_iter()
        .map(|line| {
            let level = match line.level {
                Level::Debug => 10,
                Level::Info => 20,
                Level::Warning => 30,
                Level::Error => 40,
            };
            (level, line.text)
        })
        .collect();
    let now = control.progress();
    let progress = PyDict::new(py);
    progress.set_item("read", now.read)?;
    progress.set_item("written", now.written)?;
    progress.set_item("dead_lettered", now.dead_lettered)?;
    progress.set_item("total", now.total)?;
    progress.set_item("seconds", now.seconds)?;
    progress.set_item("rate", now.rate)?;
    progress.set_item("lag", now.lag)?;
    progress.set_item("seconds_left", now.seconds_left)?;
    observer.call1((progress, lines, last)).map(drop)
}

pub(super) fn text(py: Python<'_>, value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| errors::raise(py, &Error::bug("write a result").because(error)))
}

/// Run a bridge with the settings of a JSON object; return its books as one.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler or the observer raises.
#[pyfunction]
#[pyo3(signature = (settings, token, observer=None, oauth=None))]
pub fn bridge(
    py: Python<'_>,
    settings: &str,
    token: &CancelToken,
    observer: Option<&Bound<'_, PyAny>>,
    oauth: Option<&Bound<'_, PyDict>>,
) -> PyResult<String> {
    let mut settings = arguments::bridge(settings).map_err(|error| errors::raise(py, &error))?;
    oauth::attach(oauth, &mut settings.source, Role::Source)?;
    oauth::attach(oauth, &mut settings.target, Role::Target)?;
    let result = drive(py, token, observer, move |control| crate::bridge::bridge(&settings, control))?;
    text(py, &result)
}

/// Replay dead letters with the settings of a JSON object; return the books as one.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler or the observer raises.
#[pyfunction]
#[pyo3(signature = (settings, token, observer=None, oauth=None))]
pub fn replay(
    py: Python<'_>,
    settings: &str,
    token: &CancelToken,
    observer: Option<&Bound<'_, PyAny>>,
    oauth: Option<&Bound<'_, PyDict>>,
) -> PyResult<String> {
    let mut settings = arguments::replay(settings).map_err(|error| errors::raise(py, &error))?;
    oauth::attach(oauth, &mut settings.target, Role::Target)?;
    let result = drive(py, token, observer, move |control| crate::replay::replay(&settings, control))?;
    text(py, &result)
}

/// Run a sink with the settings of a JSON object; return its books as one.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler or the observer raises.
#[pyfunction]
#[pyo3(signature = (settings, token, observer=None, oauth=None))]
pub fn sink(
    py: Python<'_>,
    settings: &str,
    token: &CancelToken,
    observer: Option<&Bound<'_, PyAny>>,
    oauth: Option<&Bound<'_, PyDict>>,
) -> PyResult<String> {
    let mut settings = arguments::sink(settings).map_err(|error| errors::raise(py, &error))?;
    oauth::attach(oauth, &mut settings.source, Role::Source)?;
    let result = drive(py, token, observer, move |control| crate::sink::sink(&settings, control))?;
    text(py, &result)
}

/// Run an aggregate with the settings of a JSON object; return its books as one, and its tables by name.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler or the observer raises.
#[pyfunction]
#[pyo3(signature = (settings, token, observer=None, functions=None, engine=None))]
pub fn aggregate<'py>(
    py: Python<'py>,
    settings: &str,
    token: &CancelToken,
    observer: Option<&Bound<'py, PyAny>>,
    functions: Option<&Bound<'py, PyDict>>,
    engine: Option<&Bound<'py, PyAny>>,
) -> PyResult<(String, Bound<'py, PyDict>)> {
    let functions = functions.map(Callables::of).transpose()?;
    let mut settings = arguments::aggregate(settings, functions).map_err(|error| errors::raise(py, &error))?;
    if let Some(engine) = engine {
        settings.engine = Some(Arc::new(Elsewhere::of(engine)?));
    }
    let reports: Vec<_> = settings.reports.iter().map(Definition::target).collect();
    let result = drive(py, token, observer, move |control| crate::aggregate::aggregate(&settings, control))?;
    let tables = PyDict::new(py);
    for (name, frame) in result.tables {
        let report = reports.iter().find(|report| report.name == name);
        tables.set_item(
            name,
            report.map_or_else(|| Table::plain(frame.clone()), |report| Table::of(frame.clone(), report)),
        )?;
    }
    Ok((text(py, &result.books)?, tables))
}

/// Show the kept positions of a bridge's job beside its source's logs; return them as a JSON object.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler raises.
#[pyfunction]
#[pyo3(signature = (settings, token, oauth=None))]
pub fn positions_show(
    py: Python<'_>,
    settings: &str,
    token: &CancelToken,
    oauth: Option<&Bound<'_, PyDict>>,
) -> PyResult<String> {
    let mut settings = arguments::positions_show(settings).map_err(|error| errors::raise(py, &error))?;
    attach(oauth, &mut settings)?;
    let shown = drive(py, token, None, move |control| crate::bridge::inventory::show(&settings, control))?;
    text(py, &shown)
}

/// Move the kept positions of a bridge's job, or with `write` false say what it would do; as a JSON object.
///
/// # Errors
/// The exceptions of `millpond.errors`, and whatever a signal handler raises.
#[pyfunction]
#[pyo3(signature = (settings, token, oauth=None))]
pub fn positions_reset(
    py: Python<'_>,
    settings: &str,
    token: &CancelToken,
    oauth: Option<&Bound<'_, PyDict>>,
) -> PyResult<String> {
    let mut settings = arguments::positions_reset(settings).map_err(|error| errors::raise(py, &error))?;
    attach(oauth, &mut settings.job)?;
    let moved = drive(py, token, None, move |control| crate::bridge::reset::reset(&settings, control))?;
    text(py, &moved)
}

fn attach(oauth: Option<&Bound<'_, PyDict>>, job: &mut JobSettings) -> PyResult<()> {
    if let Some(source) = &mut job.source {
        oauth::attach(oauth, source, Role::Source)?;
    }
    oauth::attach(oauth, &mut job.target, Role::Target)
}

/// Ask the servers of a JSON object; return a JSON list of findings: what, ok, detail, hint.
///
/// # Errors
/// The exceptions of `millpond.errors`.
#[pyfunction]
#[pyo3(signature = (settings, oauth=None))]
pub fn doctor(py: Python<'_>, settings: &str, oauth: Option<&Bound<'_, PyDict>>) -> PyResult<String> {
    let settings = serde_json::from_str(settings)
        .map_err(|error| errors::raise(py, &Error::bug("doctor: no JSON object").because(error)))?;
    let tokens = [oauth::tokens(oauth, Role::Source)?, oauth::tokens(oauth, Role::Target)?];
    let findings = py.detach(|| crate::doctor::examine(&settings, tokens));
    text(py, &findings)
}
