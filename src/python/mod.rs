//! The only code that imports pyo3: arguments in, results and exceptions out, signals in between.
//!
//! | module | owns |
//! |---|---|
//! | [`arguments`] | settings of a verb out of the JSON that `millpond.verbs` sends |
//! | [`run`] | a verb on a thread of its own, the caller's thread watching for signals |
//! | [`explain`] | one event under a transform, field by field; the place that an `_id` tells |
//! | [`stored`] | what a sink has stored: dead letters sent again, positions shown and moved |
//! | [`history`] | the ledger and kept Partials, read back; the audit |
//! | [`look`] | jobs and dead letters, for people to look at |
//! | [`engine`] | an engine out of a Python object, and what it calls where its tasks run |
//! | [`errors`] | the one Rust → Python match |
//! | [`functions`] | user-defined functions out of Python callables |
//! | [`oauth`] | tokens out of Python callables |
//! | [`table`] | a frame for polars, pandas, pyarrow and DuckDB |

pub mod arguments;
pub mod engine;
pub mod errors;
pub mod explain;
pub mod functions;
pub mod history;
pub mod look;
pub mod oauth;
pub mod run;
pub mod stored;
pub mod table;

use pyo3::prelude::*;

/// The native part of `millpond`; `millpond.verbs` is its only caller.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<run::CancelToken>()?;
    module.add_class::<table::Table>()?;
    module.add_class::<engine::Merger>()?;
    module.add_function(wrap_pyfunction!(run::bridge, module)?)?;
    module.add_function(wrap_pyfunction!(run::replay, module)?)?;
    module.add_function(wrap_pyfunction!(run::sink, module)?)?;
    module.add_function(wrap_pyfunction!(run::aggregate, module)?)?;
    module.add_function(wrap_pyfunction!(engine::fold, module)?)?;
    module.add_function(wrap_pyfunction!(run::positions_show, module)?)?;
    module.add_function(wrap_pyfunction!(run::positions_reset, module)?)?;
    module.add_function(wrap_pyfunction!(stored::replay_stored, module)?)?;
    module.add_function(wrap_pyfunction!(stored::stored_positions_show, module)?)?;
    module.add_function(wrap_pyfunction!(stored::stored_positions_reset, module)?)?;
    module.add_function(wrap_pyfunction!(run::doctor, module)?)?;
    module.add_function(wrap_pyfunction!(explain::explain_id, module)?)?;
    module.add_function(wrap_pyfunction!(history::runs, module)?)?;
    module.add_function(wrap_pyfunction!(history::explain_report, module)?)?;
    module.add_function(wrap_pyfunction!(history::report_top, module)?)?;
    module.add_function(wrap_pyfunction!(look::jobs, module)?)?;
    module.add_function(wrap_pyfunction!(look::letters, module)?)?;
    module.add_function(wrap_pyfunction!(look::stored_collections, module)?)?;
    module.add_function(wrap_pyfunction!(look::stored_letters, module)?)?;
    module.add_function(wrap_pyfunction!(history::partials_show, module)?)?;
    module.add_function(wrap_pyfunction!(history::partials_prune, module)?)?;
    module.add_function(wrap_pyfunction!(history::audit, module)?)?;
    module.add_function(wrap_pyfunction!(explain::explain, module)?)
}
