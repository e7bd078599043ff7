//! How fast a run may read: events and bytes per second over all its lanes, smoothly.
//!
//! Each event moves the moment at which the next one is due. A run that was slower than allowed catches up by at most a
//! tenth of a second's worth, so that a broker never sees a burst. Whoever waits looks at its stop flag and its
//! transaction's age meanwhile: nothing here sleeps.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::kafka::native::Record;

/// What may be caught up.
const SLACK: Duration = Duration::from_millis(100);
/// The longest that is slept before a run looks around again.
pub const LOOK: Duration = Duration::from_millis(50);

/// The limits of one run; shared by its lanes.
#[derive(Debug)]
pub struct Throttle {
    seconds_per_event: f64,
    seconds_per_byte: f64,
    due: Mutex<Due>,
}

#[derive(Debug)]
struct Due {
    events: Instant,
    bytes: Instant,
}

impl Throttle {
    /// The limits, if there is any.
    #[must_use]
    pub fn new(events_per_second: Option<f64>, bytes_per_second: Option<f64>) -> Option<Self> {
        if events_per_second.is_none() && bytes_per_second.is_none() {
            return None;
        }
        let now = Instant::now();
        Some(Self {
            seconds_per_event: events_per_second.map_or(0.0, f64::recip),
            seconds_per_byte: bytes_per_second.map_or(0.0, f64::recip),
            due: Mutex::new(Due { events: now, bytes: now }),
        })
    }

    /// How long the next event must wait; zero when it is due.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        let due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.events.max(due.bytes).saturating_duration_since(now)
    }

    /// Counts an event that was read, by key and value; whether the next one must wait.
    pub fn spend(&self, record: Record<'_>, now: Instant) -> bool {
        self.pay(record.value_len() + record.key_len(), now);
        !self.wait(now).is_zero()
    }

    fn pay(&self, bytes: usize, now: Instant) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        #[allow(clippy::cast_precision_loss, reason = "a message has fewer than 2^52 bytes")]
        let bytes = bytes as f64;
        due.events = due.events.max(earliest) + Duration::from_secs_f64(self.seconds_per_event);
        due.bytes = due.bytes.max(earliest) + Duration::from_secs_f64(self.seconds_per_byte * bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a run on a clock of its own and returns how many events each tenth of a second saw.
    fn play(throttle: &Throttle, bytes: usize, tenths: u32) -> Vec<u32> {
        let began = Instant::now();
        let step = Duration::from_micros(100);
        let mut seen = vec![0; tenths as usize];
        for tick in 0..tenths * 1_000 {
            let now = began + step * tick;
            while throttle.wait(now).is_zero() {
                throttle.pay(bytes, now);
                seen[(tick / 1_000) as usize] += 1;
            }
        }
        seen
    }

    #[test]
    fn events_come_smoothly() {
        let throttle = Throttle::new(Some(1_000.0), None).expect("a limit");
        let seen = play(&throttle, 10, 20);
        assert!(seen[0] <= 202, "{seen:?}");
        assert!(seen[1..].iter().all(|count| (98..=102).contains(count)), "{seen:?}");
    }

    #[test]
    fn the_stricter_limit_rules() {
        let throttle = Throttle::new(Some(1_000.0), Some(50_000.0)).expect("limits");
        let seen = play(&throttle, 100, 20);
        assert!(seen[1..].iter().all(|count| (48..=52).contains(count)), "{seen:?}");
    }

    #[test]
    fn one_large_event_is_paid_for_afterwards() {
        let throttle = Throttle::new(None, Some(1_000.0)).expect("a limit");
        let now = Instant::now();
        assert!(throttle.wait(now).is_zero());
        throttle.pay(5_000, now);
        assert!((4_899..=5_000).contains(&throttle.wait(now).as_millis()));
    }

    #[test]
    fn no_limit_costs_nothing() {
        assert!(Throttle::new(None, None).is_none());
    }
}
