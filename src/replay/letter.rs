//! One dead letter: where its event came from, whether it is chosen, and the event's own key, headers and time.

use rdkafka::message::{BorrowedMessage, Message};

use super::settings::Chosen;
use crate::kafka::native::{self, RawHeader, Record};

/// The first of the headers that a bridge adds; all that follow it are the bridge's too.
const FIRST: &[u8] = b"__connect.errors.topic";

/// What the headers of a letter say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub reason: String,
    /// The event's own time; -1 for none.
    pub timestamp_ms: i64,
}

/// A letter, with the event's own headers only.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Where it lies in the dead-letter topic.
    pub partition: i32,
    pub offset: i64,
    /// When it became a letter.
    pub time_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<RawHeader>,
    /// `None` for what no bridge of ours has written.
    pub origin: Option<Origin>,
}

impl Letter {
    /// Reads a letter.
    #[must_use]
    pub fn read(message: &BorrowedMessage<'_>) -> Self {
        let (headers, origin) = part(native::headers(Record::of(message)));
        Self {
            partition: message.partition(),
            offset: message.offset(),
            time_ms: message.timestamp().to_millis().unwrap_or(-1),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            origin,
        }
    }

    /// Bytes of key and value.
    #[must_use]
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len)
    }

    /// Whether it is one of those wanted. What says nothing of its origin is chosen only where nothing of it is asked.
    #[must_use]
    pub fn is_chosen(&self, chosen: &Chosen) -> bool {
        let within = |low: Option<i64>, high: Option<i64>, value: i64| {
            low.is_none_or(|low| value >= low) && high.is_none_or(|high| value <= high)
        };
        if !within(chosen.since_ms, chosen.until_ms, self.time_ms) {
            return false;
        }
        match &self.origin {
            None => {
                chosen.reasons.is_empty()
                    && chosen.source_topic.is_none()
                    && chosen.partition.is_none()
                    && chosen.first_offset.is_none()
                    && chosen.last_offset.is_none()
            }
            Some(origin) => {
                (chosen.reasons.is_empty() || chosen.reasons.contains(&origin.reason))
                    && chosen.source_topic.as_ref().is_none_or(|topic| *topic == origin.topic)
                    && chosen.partition.is_none_or(|partition| partition == origin.partition)
                    && within(chosen.first_offset, chosen.last_offset, origin.offset)
            }
        }
    }
}

/// Parts the event's own headers from the bridge's, which stand last: an event that was a letter before keeps its own.
fn part(mut headers: Vec<RawHeader>) -> (Vec<RawHeader>, Option<Origin>) {
    let Some(first) = headers.iter().rposition(|(name, _)| name == FIRST) else { return (headers, None) };
    let text = |name: &str| {
        let found = headers[first..].iter().find(|(found, _)| found == name.as_bytes());
        found.and_then(|(_, value)| value.as_ref()).and_then(|value| String::from_utf8(value.clone()).ok())
    };
    let origin = || {
        Some(Origin {
            topic: text("__connect.errors.topic")?,
            partition: text("__connect.errors.partition")?.parse().ok().filter(|partition| *partition >= 0)?,
            offset: text("__connect.errors.offset")?.parse().ok()?,
            reason: text("millpond.reason")?,
            timestamp_ms: text("millpond.timestamp")?.parse().ok()?,
        })
    };
    let origin = origin();
    if origin.is_some() {
        headers.truncate(first);
    }
    (headers, origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> RawHeader {
        (name.into(), Some(value.into()))
    }

    fn of_bridge(reason: &str, offset: &str) -> Vec<RawHeader> {
        vec![
            header("__connect.errors.topic", "t"),
            header("__connect.errors.partition", "2"),
            header("__connect.errors.offset", offset),
            header("__connect.errors.exception.message", "told"),
            header("millpond.reason", reason),
            header("millpond.timestamp", "-1"),
        ]
    }

    #[test]
    fn an_event_that_was_a_letter_before_keeps_its_headers() {
        let own = [vec![("x".into(), None)], of_bridge("type", "1")].concat();
        let (headers, origin) = part([own.clone(), of_bridge("bad_time", "17")].concat());
        assert_eq!(headers, own);
        let origin = origin.expect("a letter");
        assert_eq!((origin.offset, origin.partition, origin.reason.as_str()), (17, 2, "bad_time"));
    }

    #[test]
    fn what_no_bridge_wrote_stays_whole() {
        for foreign in [vec![header("a", "b")], vec![header("__connect.errors.topic", "t")], of_bridge("type", "x")] {
            let (headers, origin) = part(foreign.clone());
            assert_eq!((headers, origin), (foreign, None));
        }
    }

    #[test]
    fn letters_are_chosen_by_all_that_is_said() {
        let (headers, origin) = part(of_bridge("type", "17"));
        let letter = Letter { partition: 0, offset: 5, time_ms: 1_000, key: None, value: None, headers, origin };
        let yes = |chosen: Chosen| letter.is_chosen(&chosen);
        assert!(yes(Chosen::default()));
        assert!(yes(Chosen { since_ms: Some(1_000), until_ms: Some(1_000), ..Chosen::default() }));
        assert!(!yes(Chosen { since_ms: Some(1_001), ..Chosen::default() }));
        assert!(yes(Chosen { reasons: vec!["a".into(), "type".into()], ..Chosen::default() }));
        assert!(!yes(Chosen { reasons: vec!["bad_time".into()], ..Chosen::default() }));
        assert!(yes(Chosen { partition: Some(2), first_offset: Some(17), last_offset: Some(17), ..Chosen::default() }));
        assert!(!yes(Chosen { partition: Some(1), ..Chosen::default() }));
        assert!(!yes(Chosen { last_offset: Some(16), ..Chosen::default() }));
        assert!(!yes(Chosen { source_topic: Some("u".into()), ..Chosen::default() }));
        let foreign = Letter { origin: None, ..letter };
        assert!(foreign.is_chosen(&Chosen::default()));
        assert!(!foreign.is_chosen(&Chosen { partition: Some(0), ..Chosen::default() }));
    }
}
