//! What rust-rdkafka does not wrap: log ends by isolation level, topic ids, the list of property names, and the hot path
//! of a producer. The only unsafe calls of the crate; every pointer is owned by a guard that frees it.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;

/// Which record a log offset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spec {
    /// The log's start.
    Earliest,
    /// The last stable offset (`committed`) or the high watermark.
    Latest,
    /// The first record at or after this time.
    TimestampMs(i64),
}

struct Freed<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Freed<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the matching constructor, is not null (checked by `freed`) and is freed once.
        unsafe { (self.1)(self.0) }
    }
}

fn freed<T>(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Result<Freed<T>, String> {
    if pointer.is_null() { Err("librdkafka returned no object".into()) } else { Ok(Freed(pointer, free)) }
}

fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: librdkafka's strings are NUL-terminated and live as long as the object they were asked of, which the
    // caller still holds; they are copied here.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

struct Answer(Freed<sys::rd_kafka_event_t>);

fn ask<C: ClientContext>(
    client: &Client<C>,
    operation: sys::rd_kafka_admin_op_t,
    timeout: Duration,
    committed: Option<bool>,
    send: impl FnOnce(*mut sys::rd_kafka_t, *const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
) -> Result<Answer, String> {
    let rk = client.native_ptr();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `rk` lives as long as `client`; options and queue are freed by their guards after the answer arrived.
    unsafe {
        let queue = freed(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy)?;
        let options = freed(sys::rd_kafka_AdminOptions_new(rk, operation), sys::rd_kafka_AdminOptions_destroy)?;
        let mut said = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, said.as_mut_ptr(), said.len());
        if let Some(committed) = committed {
            let level = if committed {
                sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
            } else {
                sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
            };
            let error = sys::rd_kafka_AdminOptions_set_isolation_level(options.0, level);
            if !error.is_null() {
                sys::rd_kafka_error_destroy(error);
                return Err("isolation level refused".into());
            }
        }
        send(rk, options.0, queue.0);
        let event = freed(sys::rd_kafka_queue_poll(queue.0, millis + 1_000), sys::rd_kafka_event_destroy)
            .map_err(|_| "no answer in time".to_owned())?;
        if sys::rd_kafka_event_error(event.0) != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(sys::rd_kafka_event_error_string(event.0)));
        }
        Ok(Answer(event))
    }
}

/// The offsets of `partitions` of `topic` by `spec`, asked of each partition's leader (`ListOffsets`). A timestamp
/// beyond the last record answers -1.
///
/// # Errors
/// The broker's words.
pub fn list_offsets<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partitions: &[(i32, Spec)],
    committed: bool,
    timeout: Duration,
) -> Result<Vec<(i32, i64)>, String> {
    let name = CString::new(topic).map_err(|_| "topic name holds NUL".to_owned())?;
    let size = i32::try_from(partitions.len()).unwrap_or(i32::MAX);
    // SAFETY: the list is freed by its guard after the request copied it; the answer is freed after it was read, and
    // librdkafka's result pointers live as long as the answer.
    unsafe {
        let list = freed(sys::rd_kafka_topic_partition_list_new(size), sys::rd_kafka_topic_partition_list_destroy)?;
        for (partition, spec) in partitions {
            let entry = sys::rd_kafka_topic_partition_list_add(list.0, name.as_ptr(), *partition);
            (*entry).offset = match spec {
                Spec::Latest => -1,
                Spec::Earliest => -2,
                Spec::TimestampMs(ms) => *ms,
            };
        }
        let answer = ask(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            timeout,
            Some(committed),
            |rk, options, queue| sys::rd_kafka_ListOffsets(rk, list.0, options, queue),
        )?;
        let result = sys::rd_kafka_event_ListOffsets_result(answer.0.0);
        let mut count = 0;
        let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        let mut found = Vec::with_capacity(count);
        for i in 0..count {
            let entry = sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(i));
            if (*entry).err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(format!("partition {}: {}", (*entry).partition, text(sys::rd_kafka_err2str((*entry).err))));
            }
            found.push(((*entry).partition, (*entry).offset));
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// What a broker says about the id of a topic (KIP-516).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicId {
    /// As Kafka prints it.
    Known(String),
    /// The broker is too old to have ids.
    Unsupported,
    /// This broker has not heard of the topic, though another may have.
    NoSuchTopic,
}

/// The id of `topic`, asked of any one broker.
///
/// # Errors
/// The broker's words.
pub fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> Result<TopicId, String> {
    let name = CString::new(topic).map_err(|_| "topic name holds NUL".to_owned())?;
    // SAFETY: as in `list_offsets`.
    unsafe {
        let mut names = [name.as_ptr()];
        let topics = freed(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1),
            sys::rd_kafka_TopicCollection_destroy,
        )?;
        let answer = ask(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            timeout,
            None,
            |rk, options, queue| sys::rd_kafka_DescribeTopics(rk, topics.0, options, queue),
        )?;
        let result = sys::rd_kafka_event_DescribeTopics_result(answer.0.0);
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count != 1 {
            return Err(format!("{count} topics described"));
        }
        let error = sys::rd_kafka_TopicDescription_error(*descriptions);
        if !error.is_null() {
            match sys::rd_kafka_error_code(error) {
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => return Ok(TopicId::NoSuchTopic),
                _ => return Err(text(sys::rd_kafka_error_string(error))),
            }
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(*descriptions);
        let zero =
            sys::rd_kafka_Uuid_most_significant_bits(id) == 0 && sys::rd_kafka_Uuid_least_significant_bits(id) == 0;
        if zero {
            return Ok(TopicId::Unsupported);
        }
        Ok(TopicId::Known(text(sys::rd_kafka_Uuid_base64str(id))))
    }
}

/// What a broker says about the settings of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicSettings {
    Known(BTreeMap<String, String>),
    Forbidden,
    /// This broker has not heard of the topic, though another may have.
    NoSuchTopic,
}

/// The settings of `topic` (`DescribeConfigs`), defaults of the broker among them.
///
/// # Errors
/// The broker's words.
pub fn topic_settings<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<TopicSettings, String> {
    use sys::rd_kafka_resp_err_t as Code;
    let name = CString::new(topic).map_err(|_| "topic name holds NUL".to_owned())?;
    // SAFETY: as in `list_offsets`; names and values are copied while the answer lives.
    unsafe {
        let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
        let resource =
            freed(sys::rd_kafka_ConfigResource_new(kind, name.as_ptr()), sys::rd_kafka_ConfigResource_destroy)?;
        let mut resources = [resource.0];
        let answer = ask(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS,
            timeout,
            None,
            |rk, options, queue| sys::rd_kafka_DescribeConfigs(rk, resources.as_mut_ptr(), 1, options, queue),
        )?;
        let result = sys::rd_kafka_event_DescribeConfigs_result(answer.0.0);
        let mut count = 0;
        let found = sys::rd_kafka_DescribeConfigs_result_resources(result, &raw mut count);
        if count != 1 {
            return Err(format!("{count} topics described"));
        }
        match sys::rd_kafka_ConfigResource_error(*found) {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
            | Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED => return Ok(TopicSettings::Forbidden),
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => return Ok(TopicSettings::NoSuchTopic),
            code => return Err(text(sys::rd_kafka_err2str(code))),
        }
        let entries = sys::rd_kafka_ConfigResource_configs(*found, &raw mut count);
        let mut settings = BTreeMap::new();
        for i in 0..count {
            let (name, value) =
                (sys::rd_kafka_ConfigEntry_name(*entries.add(i)), sys::rd_kafka_ConfigEntry_value(*entries.add(i)));
            if !value.is_null() {
                settings.insert(text(name), text(value));
            }
        }
        Ok(TopicSettings::Known(settings))
    }
}

/// The name of every property that this librdkafka has.
#[must_use]
pub fn property_names() -> Vec<String> {
    let mut names = Vec::new();
    // SAFETY: conf, topic conf and both dumps are freed right after their names were copied.
    unsafe {
        let Ok(conf) = freed(sys::rd_kafka_conf_new(), sys::rd_kafka_conf_destroy) else { return names };
        let Ok(topic) = freed(sys::rd_kafka_topic_conf_new(), sys::rd_kafka_topic_conf_destroy) else { return names };
        let mut count = 0;
        let dump = sys::rd_kafka_conf_dump(conf.0, &raw mut count);
        names.extend((0..count).step_by(2).map(|i| text(*dump.add(i))));
        sys::rd_kafka_conf_dump_free(dump, count);
        let dump = sys::rd_kafka_topic_conf_dump(topic.0, &raw mut count);
        names.extend((0..count).step_by(2).map(|i| text(*dump.add(i))));
        sys::rd_kafka_conf_dump_free(dump, count);
    }
    names
}

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

/// Hands an event to a producer: key and headers (null and repeated ones) of `message`, another value and partition.
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
    message: &BorrowedMessage<'_>,
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
    let copied = i32::try_from(sys::RD_KAFKA_MSG_F_COPY).unwrap_or_default();
    let key = rdkafka::Message::key(message);
    // SAFETY: librdkafka copies key and value before it returns (MSG_F_COPY). The headers are a copy of the message's own,
    // which it owns after success only; after a failure they are freed here. The error is freed after its code was read.
    unsafe {
        let mut headers = std::ptr::null_mut();
        if sys::rd_kafka_message_headers(message.ptr(), &raw mut headers)
            == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            headers = sys::rd_kafka_headers_copy(headers);
        }
        let arguments = [
            argument(Kind::RD_KAFKA_VTYPE_RKT, Content { rkt: topic.0.0 }),
            argument(Kind::RD_KAFKA_VTYPE_PARTITION, Content { i32_: partition }),
            argument(Kind::RD_KAFKA_VTYPE_MSGFLAGS, Content { i: copied }),
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

/// Whether a message has headers.
#[must_use]
pub fn has_headers(message: &BorrowedMessage<'_>) -> bool {
    let mut all = std::ptr::null_mut();
    // SAFETY: the message outlives the call; the headers stay its own.
    let code = unsafe { sys::rd_kafka_message_headers(message.ptr(), &raw mut all) };
    code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// The headers of a message, in their order. rust-rdkafka's own view of them panics on a name that is not UTF-8.
#[must_use]
pub fn headers(message: &BorrowedMessage<'_>) -> Vec<RawHeader> {
    let mut found = Vec::new();
    // SAFETY: headers, names and values belong to the message, which outlives this call; they are copied here.
    unsafe {
        let mut all = std::ptr::null_mut();
        let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        if sys::rd_kafka_message_headers(message.ptr(), &raw mut all) != none {
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
