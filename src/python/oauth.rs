//! Tokens out of Python callables: `millpond.oauth` makes, of whatever a user gave, a callable without arguments that
//! returns a checked `(token, expiry_ms, principal, [(name, value), …])` or raises an error of ours. It is called from
//! the run's own threads, with the interpreter's lock, a few times an hour.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::Error;
use crate::kafka::tokens::{Token, Tokens};
use crate::kafka::{Properties, Role};

type Answer = (String, i64, String, Vec<(String, String)>);

/// Where the tokens of one side come from: the callable under the side's name, if there is one.
///
/// # Errors
/// Those of Python's own mapping.
pub fn attach(callbacks: Option<&Bound<'_, PyDict>>, properties: &mut Properties, role: Role) -> PyResult<()> {
    properties.tokens = tokens(callbacks, role)?;
    Ok(())
}

/// As [`attach`], for whoever makes the properties later.
///
/// # Errors
/// As [`attach`].
pub fn tokens(callbacks: Option<&Bound<'_, PyDict>>, role: Role) -> PyResult<Option<Arc<Tokens>>> {
    let Some(callbacks) = callbacks else { return Ok(None) };
    let Some(callable) = callbacks.get_item(role.name())? else { return Ok(None) };
    let callable = callable.unbind();
    let ask = move || {
        Python::attach(|py| {
            let answer = callable.call0(py).and_then(|answer| answer.extract::<Answer>(py));
            answer.map_err(|raised| told(py, &raised, role))
        })
        .map(|(value, expiry_ms, principal, extensions)| Token { value, expiry_ms, principal, extensions })
    };
    Ok(Some(Arc::new(Tokens::new(role.name(), ask))))
}

/// The error that the callable raised, when it is one of ours; of any other only the class is told (I6).
fn told(py: Python<'_>, raised: &PyErr, role: Role) -> Error {
    let value = raised.value(py);
    let text = |name: &str| value.getattr(name).and_then(|text| text.extract::<String>()).ok();
    let class = raised.get_type(py).name().map_or_else(|_| "an exception".into(), |name| name.to_string());
    match (text("message"), text("hint")) {
        (Some(message), Some(hint)) if class == "ExternalError" => Error::external(message).hint(hint),
        (Some(message), Some(hint)) if class == "ConfigError" => Error::config(message).hint(hint),
        _ => Error::config(format!("{}: oauth_cb raised {class}", role.name())).hint("it must return a token"),
    }
}
