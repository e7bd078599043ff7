//! One message on its way: the calls made for every event, and the flush that ends a transaction.

use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;

use super::record::Record;
use super::{Freed, freed};

/// The last stable offset that the consumer's last fetch of the partition saw, without asking the broker.
#[must_use]
pub fn fetched_end<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32) -> Option<i64> {
    let name = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the handle lives as long as `client`; the name outlives the call; both results are plain integers.
    let code = unsafe {
        sys::rd_kafka_get_watermark_offsets(client.native_ptr(), name.as_ptr(), partition, &raw mut low, &raw mut high)
    };
    (code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

/// A topic of one producer, looked up once and not for every event. Must be dropped before its producer.
pub struct TopicHandle(Freed<sys::rd_kafka_topic_t>);

// SAFETY: librdkafka's topic handles may be used from any thread.
unsafe impl Send for TopicHandle {}

/// Looks a topic up in a producer.
///
/// # Errors
/// librdkafka's words.
pub fn topic_handle<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<TopicHandle, String> {
    let name = CString::new(topic).map_err(|_| "topic name holds NUL".to_owned())?;
    // SAFETY: the name outlives the call; the handle is freed once, by its guard.
    let handle = unsafe { sys::rd_kafka_topic_new(client.native_ptr(), name.as_ptr(), std::ptr::null_mut()) };
    freed(handle, sys::rd_kafka_topic_destroy).map(TopicHandle)
}

/// Hands an event to a producer: key and headers (null and repeated ones) of `record`, another value and partition.
/// The bytes are copied. A `timestamp` of -1 says none.
///
/// # Errors
/// librdkafka's code; nothing was taken then.
pub fn produce<C: ClientContext>(
    client: &Client<C>,
    topic: &TopicHandle,
    partition: i32,
    timestamp: i64,
    value: Option<&[u8]>,
    record: Record<'_>,
) -> Result<(), RDKafkaErrorCode> {
    let mut headers = std::ptr::null_mut();
    // SAFETY: the record outlives both calls; the copy of its headers is handed to `hand_over`, which owns it.
    unsafe {
        if sys::rd_kafka_message_headers(record.pointer(), &raw mut headers)
            == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            headers = sys::rd_kafka_headers_copy(headers);
        }
    }
    hand_over(client, topic, (partition, timestamp), record.key(), value, headers)
}

/// Hands a record made of its parts to a producer, as [`produce`] does an event. Headers keep their bytes and order.
///
/// # Errors
/// librdkafka's code; nothing was taken then.
pub fn produce_parts<C: ClientContext>(
    client: &Client<C>,
    topic: &TopicHandle,
    (partition, timestamp): (i32, i64),
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[RawHeader],
) -> Result<(), RDKafkaErrorCode> {
    let size = |bytes: &[u8]| isize::try_from(bytes.len()).unwrap_or(isize::MAX);
    let mut list = std::ptr::null_mut();
    if !headers.is_empty() {
        // SAFETY: names and values are copied by librdkafka; the list is handed to `hand_over`, which owns it. A null
        // value has no size.
        unsafe {
            list = sys::rd_kafka_headers_new(headers.len());
            for (name, value) in headers {
                let (pointer, length) =
                    value.as_ref().map_or((std::ptr::null(), 0), |value| (value.as_ptr(), size(value)));
                let _ = sys::rd_kafka_header_add(list, name.as_ptr().cast(), size(name), pointer.cast(), length);
            }
        }
    }
    hand_over(client, topic, (partition, timestamp), key, value, list)
}

/// Owns `headers`, which may be null.
fn hand_over<C: ClientContext>(
    client: &Client<C>,
    topic: &TopicHandle,
    (partition, timestamp): (i32, i64),
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: *mut sys::rd_kafka_headers_t,
) -> Result<(), RDKafkaErrorCode> {
    use sys::{rd_kafka_vtype_t as Kind, rd_kafka_vu_s as Argument, rd_kafka_vu_s__bindgen_ty_1 as Content};
    type Memory = sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1;
    let memory = |bytes: Option<&[u8]>| Content {
        mem: bytes.map_or(Memory { ptr: std::ptr::null_mut(), size: 0 }, |bytes| Memory {
            ptr: bytes.as_ptr().cast_mut().cast(),
            size: bytes.len(),
        }),
    };
    let argument = |vtype, u| Argument { vtype, u };
    // SAFETY: librdkafka copies key and value before it returns (MSG_F_COPY). It owns the headers after success only; after
    // a failure they are freed here. The error is freed after its code was read.
    unsafe {
        let arguments = [
            argument(Kind::RD_KAFKA_VTYPE_RKT, Content { rkt: topic.0.0 }),
            argument(Kind::RD_KAFKA_VTYPE_PARTITION, Content { i32_: partition }),
            argument(Kind::RD_KAFKA_VTYPE_MSGFLAGS, Content { i: sys::RD_KAFKA_MSG_F_COPY }),
            argument(Kind::RD_KAFKA_VTYPE_VALUE, memory(value)),
            argument(Kind::RD_KAFKA_VTYPE_KEY, memory(key)),
            argument(Kind::RD_KAFKA_VTYPE_TIMESTAMP, Content { i64_: timestamp }),
            argument(Kind::RD_KAFKA_VTYPE_HEADERS, Content { headers }),
        ];
        // The last one only where there are headers.
        let count = arguments.len() - usize::from(headers.is_null());
        let error = sys::rd_kafka_produceva(client.native_ptr(), arguments.as_ptr(), count);
        if error.is_null() {
            return Ok(());
        }
        if !headers.is_null() {
            sys::rd_kafka_headers_destroy(headers);
        }
        let code = sys::rd_kafka_error_code(error);
        sys::rd_kafka_error_destroy(error);
        Err(code.into())
    }
}

/// A header's name and value as they came: a name need not be UTF-8, a value may be null, both may repeat.
pub type RawHeader = (Vec<u8>, Option<Vec<u8>>);

/// Whether a record has headers.
#[must_use]
pub fn has_headers(record: Record<'_>) -> bool {
    let mut all = std::ptr::null_mut();
    // SAFETY: the record outlives the call; the headers stay its own.
    let code = unsafe { sys::rd_kafka_message_headers(record.pointer(), &raw mut all) };
    code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// The headers of a record, in their order. rust-rdkafka's own view of them panics on a name that is not UTF-8.
#[must_use]
pub fn headers(record: Record<'_>) -> Vec<RawHeader> {
    let mut found = Vec::new();
    // SAFETY: headers, names and values belong to the record, which outlives this call; they are copied here.
    unsafe {
        let mut all = std::ptr::null_mut();
        let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        if sys::rd_kafka_message_headers(record.pointer(), &raw mut all) != none {
            return found;
        }
        let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
        while sys::rd_kafka_header_get_all(all, found.len(), &raw mut name, &raw mut value, &raw mut size) == none {
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size).to_vec());
            found.push((CStr::from_ptr(name).to_bytes().to_vec(), value));
        }
    }
    found
}

/// Sends what a producer holds, whatever its `linger.ms`, and waits up to `timeout`; whether nothing is left. Unlike
/// rust-rdkafka's, the wait itself counts as a flush, so that a batch which lingers is sent at once.
#[must_use]
pub fn flush<C: ClientContext>(client: &Client<C>, timeout: Duration) -> bool {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the handle lives as long as `client`.
    unsafe { sys::rd_kafka_flush(client.native_ptr(), millis) == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR }
}
