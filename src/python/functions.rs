//! User-defined functions out of Python callables: `millpond.functions` makes, of whatever a user registered, a callable
//! that takes a [`Table`] of distinct values and returns a list, checked, or raises an error of ours. It is called from
//! the run's own threads, with the interpreter's lock, once for each batch of values not seen before.

use std::collections::HashMap;
use std::sync::Arc;

use polars::frame::DataFrame;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::table::Table;
use crate::aggregate::reports::calls::{Functions, whole};
use crate::aggregate::reports::expression::Type;
use crate::aggregate::reports::number::Number;
use crate::aggregate::reports::value::Value;
use crate::error::{Error, Result};

/// Callables by name.
#[derive(Debug)]
pub struct Callables(HashMap<String, Py<PyAny>>);

impl Callables {
    /// Takes a mapping over.
    ///
    /// # Errors
    /// Those of Python's own mapping.
    pub fn of(callables: &Bound<'_, PyDict>) -> PyResult<Arc<dyn Functions>> {
        let named = callables.iter().map(|(name, callable)| Ok((name.extract()?, callable.unbind())));
        Ok(Arc::new(Self(named.collect::<PyResult<_>>()?)))
    }
}

impl Functions for Callables {
    fn call(&self, name: &str, arguments: DataFrame, returns: Type) -> Result<Vec<Value<'static>>> {
        let what = || format!("aggregate: function {name}");
        let callable = self.0.get(name).ok_or_else(|| Error::bug(what()))?;
        Python::attach(|py| {
            let answer = callable.call1(py, (Table::plain(arguments),));
            let answer = answer.map_err(|raised| told(py, &raised, &what()))?;
            let list = answer.cast_bound::<PyList>(py).map_err(|_| Error::bug(what()))?;
            let values = list.iter().map(|item| value(&item, returns));
            values.collect::<PyResult<_>>().map_err(|error| Error::bug(what()).because(error))
        })
    }
}

fn value(item: &Bound<'_, PyAny>, returns: Type) -> PyResult<Value<'static>> {
    if item.is_none() {
        return Ok(Value::Null);
    }
    Ok(match returns {
        Type::Any | Type::Text => Value::Text(item.extract::<String>()?.into()),
        Type::Number => Value::Number(Number::Double(item.extract()?)),
        Type::Bool => Value::Bool(item.extract()?),
        Type::Integer | Type::Moment | Type::Date => whole(item.extract()?, returns),
    })
}

/// The error that the callable raised, when it is one of ours; of any other only the class is told (I6).
pub(super) fn told(py: Python<'_>, raised: &PyErr, what: &str) -> Error {
    let value = raised.value(py);
    let text = |name: &str| value.getattr(name).and_then(|text| text.extract::<String>()).unwrap_or_default();
    let class = raised.get_type(py).name().map_or_else(|_| "an exception".into(), |name| name.to_string());
    match class.as_str() {
        "ConfigError" => Error::config(text("message")).hint(text("hint")),
        "DataError" => Error::data(text("message")).hint(text("hint")),
        "ExternalError" => Error::external(text("message")).hint(text("hint")),
        "Cancelled" => Error::cancelled(text("message")),
        "BugError" => Error::bug(text("message")),
        _ => Error::data(format!("{what} raised {class}")),
    }
}
