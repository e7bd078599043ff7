//! The only code that imports pyo3: arguments in, results and exceptions out, signals in between.

use pyo3::prelude::*;

/// The native part of `millpond`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
