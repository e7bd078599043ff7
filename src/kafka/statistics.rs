//! What librdkafka counts, added up over the clients of one side into a few numbers: requests, bytes, retries, queues and
//! round trips. Told in the result when asked for; nothing else stands on it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// How often a client counts; what it did after its last count is not in the sums.
pub const INTERVAL_MS: u64 = 200;

/// The clients of one side, by librdkafka's names for them.
#[derive(Debug, Default)]
pub struct Statistics(Mutex<BTreeMap<String, Counted>>);

/// One client's latest sums, and the largest of what goes up and down.
#[derive(Debug, Default, Clone)]
struct Counted {
    latest: Summary,
    round_trips: u64,
    round_trip_sum_us: u64,
}

/// The sums of one side.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Clients that were counted.
    pub clients: u64,
    pub requests: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Requests sent again.
    pub retries: u64,
    /// Requests that were not answered in time.
    pub timeouts: u64,
    /// Failed sends and receives.
    pub errors: u64,
    pub connects: u64,
    pub disconnects: u64,
    /// The most that waited in one client's queue at a count: to be written (target) or fetched and not yet read (source).
    pub queued_events_max: u64,
    pub queued_bytes_max: u64,
    /// From a request to its answer, microseconds.
    pub round_trip_us_average: u64,
    /// The largest 99th percentile of an interval.
    pub round_trip_us_p99: u64,
    pub round_trip_us_max: u64,
    /// The longest that a broker's quota held an answer back, milliseconds.
    pub quota_ms_max: u64,
}

#[derive(Deserialize)]
struct Told {
    name: String,
    #[serde(default)]
    msg_cnt: i64,
    #[serde(default)]
    msg_size: i64,
    #[serde(default)]
    tx: i64,
    #[serde(default)]
    tx_bytes: i64,
    #[serde(default)]
    rx_bytes: i64,
    #[serde(default)]
    brokers: BTreeMap<String, Broker>,
    #[serde(default)]
    topics: BTreeMap<String, Topic>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Broker {
    txretries: u64,
    txerrs: u64,
    rxerrs: u64,
    req_timeouts: u64,
    connects: i64,
    disconnects: i64,
    rtt: Window,
    throttle: Window,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Window {
    sum: i64,
    cnt: i64,
    p99: i64,
    max: i64,
}

#[derive(Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: BTreeMap<String, Partition>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Partition {
    fetchq_cnt: i64,
    fetchq_size: i64,
}

fn positive(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

impl Statistics {
    /// Takes what librdkafka tells of one client; what is no such text is left aside.
    pub fn take(&self, json: &[u8]) {
        let Ok(told) = serde_json::from_slice::<Told>(json) else { return };
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry(told.name).or_default();
        let partitions = || told.topics.values().flat_map(|topic| topic.partitions.values());
        let fetched: u64 = partitions().map(|partition| positive(partition.fetchq_cnt)).sum();
        let fetched_bytes: u64 = partitions().map(|partition| positive(partition.fetchq_size)).sum();
        let brokers = || told.brokers.values();
        let old = &client.latest;
        client.round_trips += brokers().map(|broker| positive(broker.rtt.cnt)).sum::<u64>();
        client.round_trip_sum_us += brokers().map(|broker| positive(broker.rtt.sum)).sum::<u64>();
        client.latest = Summary {
            clients: 1,
            requests: positive(told.tx),
            bytes_sent: positive(told.tx_bytes),
            bytes_received: positive(told.rx_bytes),
            retries: brokers().map(|broker| broker.txretries).sum(),
            timeouts: brokers().map(|broker| broker.req_timeouts).sum(),
            errors: brokers().map(|broker| broker.txerrs + broker.rxerrs).sum(),
            connects: brokers().map(|broker| positive(broker.connects)).sum(),
            disconnects: brokers().map(|broker| positive(broker.disconnects)).sum(),
            queued_events_max: old.queued_events_max.max(positive(told.msg_cnt) + fetched),
            queued_bytes_max: old.queued_bytes_max.max(positive(told.msg_size) + fetched_bytes),
            round_trip_us_average: 0,
            round_trip_us_p99: brokers().map(|b| positive(b.rtt.p99)).fold(old.round_trip_us_p99, u64::max),
            round_trip_us_max: brokers().map(|b| positive(b.rtt.max)).fold(old.round_trip_us_max, u64::max),
            quota_ms_max: brokers().map(|b| positive(b.throttle.max)).fold(old.quota_ms_max, u64::max),
        };
    }

    /// The sums over all clients.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = Summary::default();
        for client in clients.values().map(|client| &client.latest) {
            sum.clients += client.clients;
            sum.requests += client.requests;
            sum.bytes_sent += client.bytes_sent;
            sum.bytes_received += client.bytes_received;
            sum.retries += client.retries;
            sum.timeouts += client.timeouts;
            sum.errors += client.errors;
            sum.connects += client.connects;
            sum.disconnects += client.disconnects;
            sum.queued_events_max = sum.queued_events_max.max(client.queued_events_max);
            sum.queued_bytes_max = sum.queued_bytes_max.max(client.queued_bytes_max);
            sum.round_trip_us_p99 = sum.round_trip_us_p99.max(client.round_trip_us_p99);
            sum.round_trip_us_max = sum.round_trip_us_max.max(client.round_trip_us_max);
            sum.quota_ms_max = sum.quota_ms_max.max(client.quota_ms_max);
        }
        let trips: u64 = clients.values().map(|client| client.round_trips).sum();
        let trip_sum_us: u64 = clients.values().map(|client| client.round_trip_sum_us).sum();
        sum.round_trip_us_average = trip_sum_us.checked_div(trips).unwrap_or(0);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_of_the_latest_count_and_maxima_of_all() {
        let statistics = Statistics::default();
        let told = |name: &str, sent: u64, queued: u64| {
            format!(
                r#"{{"name":"{name}","tx":2,"tx_bytes":{sent},"rx_bytes":1,"msg_cnt":{queued},"msg_size":{queued},
                "brokers":{{"b":{{"txretries":1,"rtt":{{"sum":30,"cnt":3,"p99":12,"max":15}}}}}},
                "topics":{{"t":{{"partitions":{{"0":{{"fetchq_cnt":1,"fetchq_size":9}}}}}}}}}}"#
            )
        };
        statistics.take(told("a", 100, 7).as_bytes());
        statistics.take(told("a", 150, 3).as_bytes());
        statistics.take(told("b", 50, 0).as_bytes());
        statistics.take(b"no json");
        let sum = statistics.summary();
        assert_eq!((sum.clients, sum.requests, sum.bytes_sent, sum.retries), (2, 4, 200, 2));
        assert_eq!((sum.queued_events_max, sum.queued_bytes_max), (8, 16));
        assert_eq!((sum.round_trip_us_average, sum.round_trip_us_p99, sum.round_trip_us_max), (10, 12, 15));
    }
}
