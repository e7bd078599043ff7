//! Binary COPY, in chunks near a megabyte.
//! <https://www.postgresql.org/docs/16/sql-copy.html#id-1.9.3.55.9.4>

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::Transaction;

use super::told;
use crate::error::{Error, Result};

const CHUNK: usize = 1 << 20;
/// Days from 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;

/// A value of a report's row.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    Text(&'a str),
    Integer(i64),
    /// Microseconds since 1970-01-01, no time zone.
    Timestamp(Option<i64>),
    /// Days since 1970-01-01.
    Date(i32),
}

/// Copies rows into `table (columns)`; `row` appends the values of one row, false after the last.
///
/// # Errors
/// As [`told`].
pub async fn rows<'a>(
    transaction: &Transaction<'_>,
    table: &str,
    columns: &str,
    rows: impl Iterator<Item = Vec<Value<'a>>>,
) -> Result<u64> {
    let what = || format!("postgres: copy into {table}");
    let statement = format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)");
    let sink = transaction.copy_in::<_, Bytes>(&statement).await.map_err(|error| told(what(), error))?;
    let mut sink = std::pin::pin!(sink);
    let mut buffer = BytesMut::with_capacity(CHUNK + 4_096);
    buffer.put_slice(b"PGCOPY\n\xff\r\n\0");
    buffer.put_i32(0);
    buffer.put_i32(0);
    for row in rows {
        buffer.put_i16(i16::try_from(row.len()).map_err(|_| Error::bug(what()))?);
        for value in row {
            put(&mut buffer, value).ok_or_else(|| Error::bug(what()))?;
        }
        if buffer.len() >= CHUNK {
            sink.send(buffer.split().freeze()).await.map_err(|error| told(what(), error))?;
        }
    }
    buffer.put_i16(-1);
    sink.send(buffer.freeze()).await.map_err(|error| told(what(), error))?;
    sink.finish().await.map_err(|error| told(what(), error))
}

fn put(buffer: &mut BytesMut, value: Value<'_>) -> Option<()> {
    match value {
        Value::Text(text) => {
            buffer.put_i32(i32::try_from(text.len()).ok()?);
            buffer.put_slice(text.as_bytes());
        }
        Value::Integer(number) => {
            buffer.put_i32(8);
            buffer.put_i64(number);
        }
        Value::Timestamp(None) => buffer.put_i32(-1),
        Value::Timestamp(Some(micros)) => {
            buffer.put_i32(8);
            buffer.put_i64(micros - i64::from(EPOCH_DAYS) * 86_400_000_000);
        }
        Value::Date(days) => {
            buffer.put_i32(4);
            buffer.put_i32(days - EPOCH_DAYS);
        }
    }
    Some(())
}
