//! Questions to a cluster, each answered within a time-out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};

use super::{Freed, freed, text};

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

struct Answer(Freed<sys::rd_kafka_event_t>);

/// What is said along with a question.
#[derive(Clone, Copy)]
enum Asked {
    Plainly,
    Committed,
    Uncommitted,
    WithRights,
}

fn ask<C: ClientContext>(
    client: &Client<C>,
    operation: sys::rd_kafka_admin_op_t,
    timeout: Duration,
    asked: Asked,
    send: impl FnOnce(*mut sys::rd_kafka_t, *const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
) -> Result<Answer, String> {
    use sys::rd_kafka_IsolationLevel_t as Level;
    let rk = client.native_ptr();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `rk` lives as long as `client`; options and queue are freed by their guards after the answer arrived.
    unsafe {
        let queue = freed(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy)?;
        let options = freed(sys::rd_kafka_AdminOptions_new(rk, operation), sys::rd_kafka_AdminOptions_destroy)?;
        let mut said = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, said.as_mut_ptr(), said.len());
        let level = |level| sys::rd_kafka_AdminOptions_set_isolation_level(options.0, level);
        let error = match asked {
            Asked::Plainly => std::ptr::null_mut(),
            Asked::Committed => level(Level::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED),
            Asked::Uncommitted => level(Level::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED),
            Asked::WithRights => sys::rd_kafka_AdminOptions_set_include_authorized_operations(options.0, 1),
        };
        if !error.is_null() {
            sys::rd_kafka_error_destroy(error);
            return Err("librdkafka refused an option".into());
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
            if committed { Asked::Committed } else { Asked::Uncommitted },
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

/// Asks any one broker to describe `topic` (`DescribeTopics`), and hands the only description to `read`.
fn describe<C: ClientContext, T>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
    asked: Asked,
    read: impl FnOnce(*const sys::rd_kafka_TopicDescription_t) -> Result<T, String>,
) -> Result<T, String> {
    let name = CString::new(topic).map_err(|_| "topic name holds NUL".to_owned())?;
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: as in `list_offsets`; the description lives as long as the answer, which outlives `read`.
    unsafe {
        let mut names = [name.as_ptr()];
        let topics = freed(
            sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1),
            sys::rd_kafka_TopicCollection_destroy,
        )?;
        let answer = ask(client, operation, timeout, asked, |rk, options, queue| {
            sys::rd_kafka_DescribeTopics(rk, topics.0, options, queue);
        })?;
        let result = sys::rd_kafka_event_DescribeTopics_result(answer.0.0);
        let mut count = 0;
        let descriptions = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count != 1 {
            return Err(format!("{count} topics described"));
        }
        read(*descriptions)
    }
}

/// The id of `topic`, asked of any one broker.
///
/// # Errors
/// The broker's words.
pub fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> Result<TopicId, String> {
    use sys::rd_kafka_resp_err_t as Code;
    // SAFETY: `describe` hands over a living description; id and error are part of it.
    describe(client, topic, timeout, Asked::Plainly, |description| unsafe {
        let error = sys::rd_kafka_TopicDescription_error(description);
        if !error.is_null() {
            match sys::rd_kafka_error_code(error) {
                Code::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => return Ok(TopicId::NoSuchTopic),
                _ => return Err(text(sys::rd_kafka_error_string(error))),
            }
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(description);
        let zero =
            sys::rd_kafka_Uuid_most_significant_bits(id) == 0 && sys::rd_kafka_Uuid_least_significant_bits(id) == 0;
        if zero {
            return Ok(TopicId::Unsupported);
        }
        Ok(TopicId::Known(text(sys::rd_kafka_Uuid_base64str(id))))
    })
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
            Asked::Plainly,
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

/// What the user of a connection may do (KIP-430); a cluster without an authorizer allows everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    Read,
    Write,
    Create,
    Describe,
    DescribeConfigs,
}

impl Right {
    fn of(operation: sys::rd_kafka_AclOperation_t) -> Option<Self> {
        use sys::rd_kafka_AclOperation_t as Operation;
        match operation {
            Operation::RD_KAFKA_ACL_OPERATION_READ => Some(Self::Read),
            Operation::RD_KAFKA_ACL_OPERATION_WRITE => Some(Self::Write),
            Operation::RD_KAFKA_ACL_OPERATION_CREATE => Some(Self::Create),
            Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE => Some(Self::Describe),
            Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Self::DescribeConfigs),
            _ => None,
        }
    }
}

/// What this client's user may do with `topic`; nothing for one that does not exist or is hidden.
///
/// # Errors
/// The broker's words.
pub fn topic_rights<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<BTreeSet<Right>, String> {
    // SAFETY: as in `topic_id`; the list of operations is part of the description.
    describe(client, topic, timeout, Asked::WithRights, |description| unsafe {
        let mut count = 0;
        let operations = sys::rd_kafka_TopicDescription_authorized_operations(description, &raw mut count);
        Ok((0..count).filter(|_| !operations.is_null()).filter_map(|i| Right::of(*operations.add(i))).collect())
    })
}

/// What this client's user may do with the cluster.
///
/// # Errors
/// The broker's words.
pub fn cluster_rights<C: ClientContext>(client: &Client<C>, timeout: Duration) -> Result<BTreeSet<Right>, String> {
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER;
    // SAFETY: as in `topic_rights`.
    unsafe {
        let answer = ask(client, operation, timeout, Asked::WithRights, |rk, options, queue| {
            sys::rd_kafka_DescribeCluster(rk, options, queue);
        })?;
        let result = sys::rd_kafka_event_DescribeCluster_result(answer.0.0);
        let mut count = 0;
        let operations = sys::rd_kafka_DescribeCluster_result_authorized_operations(result, &raw mut count);
        Ok((0..count).filter(|_| !operations.is_null()).filter_map(|i| Right::of(*operations.add(i))).collect())
    }
}
