//! A record as librdkafka holds it, and records taken many at once.
//!
//! rust-rdkafka takes one at a time, each as an event with allocations, locks and looks at the clock of its own: a tenth of
//! what a copied event costs.

use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::Timestamp;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;

use super::{Freed, freed};

/// Records taken at once.
const AT_ONCE: usize = 256;

/// A record whose bytes are librdkafka's.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    message: &'a sys::rd_kafka_message_t,
}

impl<'a> Record<'a> {
    /// The same record, as rust-rdkafka gave it.
    #[must_use]
    pub fn of(message: &'a BorrowedMessage<'_>) -> Self {
        // SAFETY: the message is there as long as its borrow.
        Self { message: unsafe { &*message.ptr() } }
    }

    pub(super) const fn pointer(&self) -> *const sys::rd_kafka_message_t {
        self.message
    }

    /// The key's bytes; `None` for a null.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: pointer and length are of one field of the record, which outlives the borrow.
        unsafe { bytes(self.message.key, self.message.key_len) }
    }

    /// The value's bytes; `None` for a null.
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: as for the key.
        unsafe { bytes(self.message.payload, self.message.len) }
    }

    /// Bytes of the key; 0 for a null.
    #[must_use]
    pub const fn key_len(&self) -> usize {
        self.message.key_len
    }

    /// Bytes of the value; 0 for a null.
    #[must_use]
    pub const fn value_len(&self) -> usize {
        self.message.len
    }

    /// The partition it was read from.
    #[must_use]
    pub const fn partition(&self) -> i32 {
        self.message.partition
    }

    /// Its offset in the partition.
    #[must_use]
    pub const fn offset(&self) -> i64 {
        self.message.offset
    }

    /// The name of its topic.
    #[must_use]
    pub fn topic(&self) -> String {
        // SAFETY: the topic's handle lives as long as the record; its name is copied.
        unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.message.rkt)) }.to_string_lossy().into_owned()
    }

    /// Its time, and whether producer or broker gave it.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        use sys::rd_kafka_timestamp_type_t as Kind;
        let mut kind = Kind::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the record is there as long as its borrow; the kind is a plain integer.
        let time = unsafe { sys::rd_kafka_message_timestamp(self.message, &raw mut kind) };
        match kind {
            Kind::RD_KAFKA_TIMESTAMP_CREATE_TIME if time != -1 => Timestamp::CreateTime(time),
            Kind::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME if time != -1 => Timestamp::LogAppendTime(time),
            _ => Timestamp::NotAvailable,
        }
    }
}

unsafe fn bytes<'a>(pointer: *const std::ffi::c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast(), length) })
}

/// A record taken, until it is dropped, which must be before its consumer is.
pub struct Held(Freed<sys::rd_kafka_message_t>);

impl Held {
    /// The record, as long as it is held.
    #[must_use]
    pub fn record(&self) -> Record<'_> {
        // SAFETY: the message is there until its guard is dropped.
        Record { message: unsafe { &*self.0.0 } }
    }
}

/// The records of some partitions of a consumer, which come here instead of its own queue. Must be dropped before the
/// consumer.
pub struct Batches {
    queue: Freed<sys::rd_kafka_queue_t>,
    taken: Vec<Freed<sys::rd_kafka_message_t>>,
}

// SAFETY: librdkafka's queues and messages may be used from any thread.
unsafe impl Send for Batches {}

impl Batches {
    /// Redirects the partitions, before they are assigned: no record goes to the consumer's own queue then.
    ///
    /// # Errors
    /// librdkafka's words.
    pub fn new<C: ClientContext>(
        client: &Client<C>,
        topic: &str,
        partitions: impl IntoIterator<Item = i32>,
    ) -> Result<Self, String> {
        let name = CString::new(topic).map_err(|_| "topic name holds NUL".to_owned())?;
        // SAFETY: the handle lives as long as `client`, the name outlives the calls; both queues are freed once, by their
        // guards, and librdkafka keeps what it forwards to.
        unsafe {
            let queue = freed(sys::rd_kafka_queue_new(client.native_ptr()), sys::rd_kafka_queue_destroy)?;
            for partition in partitions {
                let own = sys::rd_kafka_queue_get_partition(client.native_ptr(), name.as_ptr(), partition);
                let own = freed(own, sys::rd_kafka_queue_destroy)?;
                sys::rd_kafka_queue_forward(own.0, queue.0);
            }
            Ok(Self { queue, taken: Vec::with_capacity(AT_ONCE) })
        }
    }

    /// Takes what is there, or waits for one record, and frees those taken before.
    pub fn refill(&mut self, timeout: Duration) {
        self.taken.clear();
        if self.fill(AT_ONCE, Duration::ZERO) == 0 {
            self.fill(1, timeout);
        }
        // The first one is the next one.
        self.taken.reverse();
    }

    fn fill(&mut self, most: usize, timeout: Duration) -> usize {
        let mut found = [std::ptr::null_mut(); AT_ONCE];
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the array has room for `most`; each message found is freed once, by its guard.
        let count =
            unsafe { sys::rd_kafka_consume_batch_queue(self.queue.0, millis, found.as_mut_ptr(), most.min(AT_ONCE)) };
        let count = usize::try_from(count).unwrap_or(0);
        self.taken.extend(found[..count].iter().map(|message| Freed(*message, sys::rd_kafka_message_destroy)));
        count
    }

    /// The next of the records taken, or what librdkafka says in its place.
    ///
    /// # Errors
    /// `PartitionEOF`, or librdkafka's code.
    pub fn pop(&mut self) -> Option<KafkaResult<Held>> {
        let message = self.taken.pop()?;
        // SAFETY: the message is there until its guard is dropped.
        let (code, partition) = unsafe { ((*message.0).err, (*message.0).partition) };
        match code {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Some(Ok(Held(message))),
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                Some(Err(KafkaError::PartitionEOF(partition)))
            }
            code => Some(Err(KafkaError::MessageConsumption(code.into()))),
        }
    }
}
