//! What rust-rdkafka does not wrap. The only unsafe calls of the crate; every pointer is owned by a guard that frees it.
//!
//! [`admin`] asks a cluster: log ends by isolation level, topic ids, settings, rights. [`record`] and
//! [`events`] are the hot path: records taken many at once, produce, headers, flush. [`token`] gives a client its token.
#![allow(unsafe_code)]

pub mod admin;
pub mod events;
pub mod record;
pub mod token;

use std::ffi::CStr;

pub use admin::{
    Right, Spec, TopicId, TopicSettings, cluster_rights, list_offsets, topic_id, topic_rights, topic_settings,
};
pub use events::{
    RawHeader, TopicHandle, fetched_end, flush, has_headers, headers, produce, produce_parts, topic_handle,
};
use rdkafka::bindings as sys;
pub use record::{Batches, Held, Record};
pub use token::set_token;

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
