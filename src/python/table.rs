//! A frame that polars, pandas, pyarrow and `DuckDB` read through the Arrow `PyCapsule` interface.
//! <https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html>

use polars::prelude::{AnyValue, CompatLevel, DataFrame, TimeUnit};
use polars_arrow::array::{Array, StructArray};
use polars_arrow::datatypes::{ArrowDataType, Field};
use polars_arrow::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDate, PyDateTime, PyDelta, PyList, PyTuple};

use super::errors;
use crate::aggregate::publish::report::Table as Report;
use crate::error::Error;
use crate::postgres::columns::Kind;

/// The rows of one report.
#[pyclass(frozen, module = "millpond._native")]
#[derive(Debug)]
pub struct Table {
    frame: DataFrame,
    keys: usize,
    /// Columns whose texts spell numbers.
    decimals: Vec<bool>,
}

impl Table {
    /// Takes the frame of a report over; its chunks are made one.
    #[must_use]
    pub fn of(mut frame: DataFrame, report: &Report) -> Self {
        frame.rechunk_mut();
        let decimals = report.columns().iter().map(|column| column.kind == Kind::Numeric).collect();
        Self { frame, keys: report.keys.len(), decimals }
    }

    /// Takes a frame over that is no report.
    #[must_use]
    pub fn plain(frame: DataFrame) -> Self {
        let (keys, decimals) = (frame.width(), vec![false; frame.width()]);
        Self { frame, keys, decimals }
    }
}

#[pymethods]
impl Table {
    /// The columns' names, in the table's order.
    #[getter]
    fn columns(&self) -> Vec<String> {
        self.frame.get_column_names().iter().map(ToString::to_string).collect()
    }

    /// How many of the columns, the first ones, are keys.
    #[getter]
    fn keys(&self) -> usize {
        self.keys
    }

    fn __len__(&self) -> usize {
        self.frame.height()
    }

    /// The first `limit` rows as tuples; all without a limit. A NUMERIC is a `decimal.Decimal`, in Arrow its spelling.
    #[pyo3(signature = (limit=None))]
    fn rows<'py>(&self, py: Python<'py>, limit: Option<usize>) -> PyResult<Bound<'py, PyList>> {
        let rows = PyList::empty(py);
        let decimal = py.import("decimal")?.getattr("Decimal")?;
        for row in 0..limit.unwrap_or(usize::MAX).min(self.frame.height()) {
            let mut cells = Vec::with_capacity(self.frame.width());
            for (column, spelled) in self.frame.columns().iter().zip(&self.decimals) {
                let value =
                    column.get(row).map_err(|error| errors::raise(py, &Error::bug("read a frame").because(error)))?;
                let cell = cell(py, &value)?;
                cells.push(if *spelled && !cell.is_none() { decimal.call1((cell,))? } else { cell });
            }
            rows.append(PyTuple::new(py, cells)?)?;
        }
        Ok(rows)
    }

    /// The Arrow C stream of the rows, one batch.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        // The oldest layout: newer ones (string views) are not read by all that speak the interface.
        let level = CompatLevel::oldest();
        let fields: Vec<Field> = self.frame.columns().iter().map(|column| column.field().to_arrow(level)).collect();
        let arrays: Vec<Box<dyn Array>> =
            self.frame.columns().iter().map(|column| column.as_materialized_series().to_arrow(0, level)).collect();
        let kind = ArrowDataType::Struct(fields);
        let batch = StructArray::new(kind.clone(), self.frame.height(), arrays, None).boxed();
        let stream = ffi::export_iterator(Box::new(std::iter::once(Ok(batch))), Field::new("".into(), kind, false));
        PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
    }
}

fn cell<'py>(py: Python<'py>, value: &AnyValue<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        AnyValue::Null => py.None().into_bound(py),
        AnyValue::String(text) => text.into_pyobject(py)?.into_any(),
        AnyValue::StringOwned(text) => text.as_str().into_pyobject(py)?.into_any(),
        AnyValue::Int64(number) => number.into_pyobject(py)?.into_any(),
        AnyValue::UInt64(number) => number.into_pyobject(py)?.into_any(),
        AnyValue::Int32(number) => number.into_pyobject(py)?.into_any(),
        AnyValue::UInt32(number) => number.into_pyobject(py)?.into_any(),
        AnyValue::Float64(number) => number.into_pyobject(py)?.into_any(),
        AnyValue::Boolean(truth) => truth.into_pyobject(py)?.to_owned().into_any(),
        AnyValue::Date(days) => {
            let epoch = PyDate::new(py, 1970, 1, 1)?.into_any();
            epoch.add(PyDelta::new(py, *days, 0, 0, true)?)?
        }
        AnyValue::Datetime(time, TimeUnit::Microseconds, _)
        | AnyValue::DatetimeOwned(time, TimeUnit::Microseconds, _) => {
            let epoch = PyDateTime::new(py, 1970, 1, 1, 0, 0, 0, 0, None)?.into_any();
            let (days, rest) = (time.div_euclid(86_400_000_000), time.rem_euclid(86_400_000_000));
            let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
            let narrow = |n: i64| i32::try_from(n).unwrap_or(i32::MAX);
            epoch.add(PyDelta::new(py, narrow(days), narrow(seconds), narrow(micros), true)?)?
        }
        other => return Err(errors::raise(py, &Error::bug(format!("no Python type for {:?}", other.dtype())))),
    })
}
