//! Binary COPY of a frame, in chunks near a megabyte.
//! <https://www.postgresql.org/docs/16/sql-copy.html#id-1.9.3.55.9.4>

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use polars::prelude::{Column, DataFrame, StaticArray};
use polars_arrow::array::{BooleanArray, PrimitiveArray, Utf8ViewArray};
use tokio_postgres::Transaction;

use super::columns::Kind;
use super::{numeric, told};
use crate::error::{Error, Result};

const CHUNK: usize = 1 << 20;
/// Days from 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;
const NULL: i32 = -1;

/// Where rows go, as SQL: `table (columns)`, the frame's first and then, where [`Source::created`] is one, its own.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub table: &'a str,
    pub columns: &'a str,
}

/// Rows to copy.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub frame: &'a DataFrame,
    /// One for each column of the frame.
    pub kinds: &'a [Kind],
    /// A timestamp that each row ends with, in microseconds since 1970.
    pub created: i64,
}

/// Copies the rows that `wanted` says, by their number in the frame; returns how many were sent and how many the server
/// took.
///
/// # Errors
/// As [`told`]; `Bug` for a frame whose columns are not of their kinds.
pub async fn rows(
    transaction: &Transaction<'_>,
    place: Place<'_>,
    source: Source<'_>,
    wanted: impl Fn(usize) -> bool,
) -> Result<(u64, u64)> {
    let what = || format!("postgres: copy into {}", place.table);
    let mut frame = source.frame.clone();
    frame.rechunk_mut();
    let cells: Option<Vec<Cells<'_>>> =
        frame.columns().iter().zip(source.kinds).map(|(column, kind)| Cells::of(column, *kind)).collect();
    let cells = cells.filter(|cells| cells.len() == frame.width() && frame.width() == source.kinds.len());
    let cells = cells.ok_or_else(|| Error::bug(format!("{}: a frame of other columns", what())))?;
    let width = i16::try_from(cells.len() + 1).map_err(|_| Error::bug(what()))?;
    let statement = format!("COPY {} ({}) FROM STDIN (FORMAT binary)", place.table, place.columns);
    let sink = transaction.copy_in::<_, Bytes>(&statement).await.map_err(|error| told(what(), error))?;
    let mut sink = std::pin::pin!(sink);
    let mut buffer = BytesMut::with_capacity(CHUNK + 4_096);
    buffer.put_slice(b"PGCOPY\n\xff\r\n\0");
    buffer.put_i32(0);
    buffer.put_i32(0);
    let mut sent = 0;
    for row in (0..frame.height()).filter(|row| wanted(*row)) {
        buffer.put_i16(width);
        for column in &cells {
            column.put(row, &mut buffer).ok_or_else(|| Error::bug(format!("{}: row {row}", what())))?;
        }
        put_micros(&mut buffer, source.created);
        sent += 1;
        if buffer.len() >= CHUNK {
            sink.send(buffer.split().freeze()).await.map_err(|error| told(what(), error))?;
            buffer.reserve(CHUNK + 4_096);
            #[cfg(feature = "sabotage")]
            crate::sabotage::step("aggregate.while_copying");
        }
    }
    buffer.put_i16(-1);
    sink.send(buffer.freeze()).await.map_err(|error| told(what(), error))?;
    let taken = sink.finish().await.map_err(|error| told(what(), error))?;
    Ok((sent, taken))
}

/// The values of one column, one chunk.
enum Cells<'a> {
    Text(&'a Utf8ViewArray),
    Numeric(&'a Utf8ViewArray),
    Integer(&'a PrimitiveArray<i64>),
    Double(&'a PrimitiveArray<f64>),
    Timestamp(&'a PrimitiveArray<i64>),
    Date(&'a PrimitiveArray<i32>),
    Boolean(&'a BooleanArray),
}

impl<'a> Cells<'a> {
    fn of(column: &'a Column, kind: Kind) -> Option<Self> {
        let series = column.as_materialized_series();
        Some(match kind {
            Kind::Varchar(_) | Kind::Text => Self::Text(series.str().ok()?.downcast_iter().next()?),
            Kind::Numeric => Self::Numeric(series.str().ok()?.downcast_iter().next()?),
            Kind::Integer => Self::Integer(series.i64().ok()?.downcast_iter().next()?),
            Kind::Double => Self::Double(series.f64().ok()?.downcast_iter().next()?),
            Kind::Timestamp => Self::Timestamp(series.datetime().ok()?.physical().downcast_iter().next()?),
            Kind::Date => Self::Date(series.date().ok()?.physical().downcast_iter().next()?),
            Kind::Boolean => Self::Boolean(series.bool().ok()?.downcast_iter().next()?),
        })
    }

    /// Appends the value of a row; `None` for one that has no binary form.
    fn put(&self, row: usize, buffer: &mut BytesMut) -> Option<()> {
        let written = match self {
            Self::Text(values) => values.get(row).map(|text| {
                buffer.put_i32(i32::try_from(text.len()).ok()?);
                buffer.put_slice(text.as_bytes());
                Some(())
            }),
            Self::Numeric(values) => values.get(row).map(|text| numeric::put(buffer, text)),
            Self::Integer(values) => values.get(row).map(|number| {
                buffer.put_i32(8);
                buffer.put_i64(number);
                Some(())
            }),
            Self::Double(values) => values.get(row).map(|number| {
                buffer.put_i32(8);
                buffer.put_f64(number);
                Some(())
            }),
            Self::Timestamp(values) => values.get(row).map(|micros| {
                put_micros(buffer, micros);
                Some(())
            }),
            Self::Date(values) => values.get(row).map(|days| {
                buffer.put_i32(4);
                buffer.put_i32(days - EPOCH_DAYS);
                Some(())
            }),
            Self::Boolean(values) => values.get(row).map(|truth| {
                buffer.put_i32(1);
                buffer.put_u8(u8::from(truth));
                Some(())
            }),
        };
        written.unwrap_or_else(|| {
            buffer.put_i32(NULL);
            Some(())
        })
    }
}

fn put_micros(buffer: &mut BytesMut, micros: i64) {
    buffer.put_i32(8);
    buffer.put_i64(micros - EPOCH_MICROS);
}
