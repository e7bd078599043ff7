//! An engine out of a Python object: its `name`; `open()`, which says how many tasks run at once and how many tasks and
//! merges were asked for; and a call that takes an order, the tasks' ranges and the number of merges, and returns what the merges give.
//! Beside it what such an engine calls where its tasks run.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::functions::{Callables, told};
use super::run::{CancelToken, drive};
use super::{arguments, errors};
use crate::aggregate::remote::{self, Engine, Failure};
use crate::error::{Error, Result};

/// A Python object that runs tasks elsewhere.
#[derive(Debug)]
pub struct Elsewhere {
    name: String,
    object: Py<PyAny>,
}

impl Elsewhere {
    /// Takes an object over.
    ///
    /// # Errors
    /// Python's own, for an attribute that it lacks.
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self { name: object.getattr("name")?.extract()?, object: object.clone().unbind() })
    }

    fn told(&self, py: Python<'_>, raised: &PyErr) -> Failure {
        let error = told(py, raised, &format!("aggregate: engine {}", self.name));
        let forgotten = raised.value(py).getattr(FORGOTTEN).is_ok_and(|flag| flag.is_truthy().unwrap_or(false));
        Failure { error, forgotten }
    }
}

impl Engine for Elsewhere {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> Result<(usize, Option<usize>, Option<usize>)> {
        Python::attach(|py| {
            let answer = self.object.call_method0(py, "open");
            let answer = answer.and_then(|answer| answer.extract::<(usize, Option<usize>, Option<usize>)>(py));
            answer.map_err(|raised| self.told(py, &raised).error)
        })
    }

    fn run(&self, order: &str, tasks: &[Vec<u8>], merges: usize) -> Result<Vec<Vec<u8>>, Failure> {
        Python::attach(|py| {
            let tasks = tasks.iter().map(|task| PyBytes::new(py, task));
            let answer = PyList::new(py, tasks).and_then(|tasks| self.object.call1(py, (order, tasks, merges)));
            let answer = answer.and_then(|answer| answer.extract::<Vec<Vec<u8>>>(py));
            answer.map_err(|raised| self.told(py, &raised))
        })
    }
}

/// The attribute of an exception which says that the server has forgotten the moment of a reading.
const FORGOTTEN: &str = "forgotten";

/// Fold the ranges of one task with the settings and the order of a run; return its parts, each with its number.
///
/// # Errors
/// The exceptions of `millpond.errors`, with `forgotten` where the server no longer remembers the moment.
#[pyfunction]
#[pyo3(signature = (settings, order, ranges, token, functions=None))]
pub fn fold<'py>(
    py: Python<'py>,
    settings: &str,
    order: String,
    ranges: Vec<u8>,
    token: &CancelToken,
    functions: Option<&Bound<'py, PyDict>>,
) -> PyResult<Vec<(usize, Bound<'py, PyBytes>)>> {
    let functions = functions.map(Callables::of).transpose()?;
    let settings = arguments::aggregate(settings, functions).map_err(|error| errors::raise(py, &error))?;
    // A failure is more than an error: it is carried through as a value.
    let folded = drive(py, token, None, move |control| Ok(remote::fold(&settings, &order, &ranges, control)))?;
    match folded {
        Ok(parts) => Ok(parts.into_iter().map(|(number, bytes)| (number, PyBytes::new(py, &bytes))).collect()),
        Err(Failure { error, forgotten }) => {
            let raised = errors::raise(py, &error);
            if forgotten {
                raised.value(py).setattr(FORGOTTEN, true)?;
            }
            Err(raised)
        }
    }
}

/// Merges the parts that `fold` made.
#[pyclass(frozen, module = "millpond._native")]
#[derive(Debug)]
pub struct Merger {
    merger: Mutex<Option<remote::Merger>>,
}

impl Merger {
    fn with<T>(&self, py: Python<'_>, work: impl FnOnce(&mut Option<remote::Merger>) -> Result<T> + Send) -> PyResult<T>
    where
        T: Send,
    {
        let done = py.detach(|| work(&mut self.merger.lock().unwrap_or_else(PoisonError::into_inner)));
        done.map_err(|error| errors::raise(py, &error))
    }
}

#[pymethods]
impl Merger {
    /// Of the same settings as the parts.
    #[new]
    fn new(py: Python<'_>, settings: &str) -> PyResult<Self> {
        let settings = arguments::aggregate(settings, None).map_err(|error| errors::raise(py, &error))?;
        Ok(Self { merger: Mutex::new(Some(remote::Merger::new(&settings))) })
    }

    /// Add a part.
    fn add(&self, py: Python<'_>, part: &[u8]) -> PyResult<()> {
        self.with(py, |merger| merger.as_mut().ok_or_else(ended)?.add(part))
    }

    /// Return what the parts are together; nothing can be added then.
    fn done<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.with(py, |merger| merger.take().ok_or_else(ended)?.done())?;
        Ok(PyBytes::new(py, &bytes))
    }
}

fn ended() -> Error {
    Error::bug("aggregate: a merger that has ended")
}
