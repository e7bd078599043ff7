//! How a run is interrupted, and how it tells what it does. One [`Control`] is shared by the caller and every thread
//! of one run. It owns flags, counters and a bounded log; it knows neither Python nor any server.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Lines kept for a caller who does not collect them; the oldest are dropped and counted.
const LOG_LINES: usize = 1_000;
/// The rate is that of the last seconds: transactions and batches come in steps.
const PACE: Duration = Duration::from_secs(10);

/// The severity of a log line, in Python's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

/// A log line on its way to the caller's logger.
#[derive(Debug, Clone)]
pub struct Line {
    pub level: Level,
    pub text: String,
}

/// What a progress display needs, cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Events (sink, bridge) or documents (aggregate) taken in so far.
    pub read: u64,
    /// Those that reached their place and are committed or acknowledged.
    pub written: u64,
    /// Dead letters so far.
    pub dead_lettered: u64,
    /// How many are expected in all; 0 while unknown.
    pub total: u64,
    /// Since the start of the run.
    pub seconds: f64,
    /// Events per second over the last ten seconds.
    pub rate: f64,
    /// How many of those expected are not taken in yet; `None` while unknown.
    pub lag: Option<u64>,
    /// Until this run ends by its ends or its limits, at the present rate; `None` while unknown.
    pub seconds_left: Option<f64>,
}

/// What ends a run before the ends of its topic.
#[derive(Debug, Clone, Copy)]
struct Limits {
    events: u64,
    deadline: Option<Instant>,
}

/// Shared between the caller and the threads of one run.
#[derive(Debug)]
pub struct Control {
    stop: AtomicBool,
    started: Instant,
    read: AtomicU64,
    written: AtomicU64,
    dead_lettered: AtomicU64,
    total: AtomicU64,
    total_known: AtomicBool,
    limits: OnceLock<Limits>,
    pace: Mutex<VecDeque<(Instant, u64)>>,
    lines: Mutex<VecDeque<Line>>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            stop: AtomicBool::new(false),
            started: Instant::now(),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            dead_lettered: AtomicU64::new(0),
            total: AtomicU64::new(0),
            total_known: AtomicBool::new(false),
            limits: OnceLock::new(),
            pace: Mutex::new(VecDeque::new()),
            lines: Mutex::new(VecDeque::new()),
        }
    }
}

impl Control {
    /// Asks the run to end at its next clean boundary, within two seconds (I5). May be called at any time, repeatedly,
    /// from a signal handler too: it only sets a flag.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether the run was asked to end. Loops ask at least every 200 ms.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Fails when the run was asked to end.
    ///
    /// # Errors
    /// `Cancelled` naming the operation that did not begin.
    pub fn check(&self, operation: &str) -> Result<()> {
        if self.stopping() { Err(Error::cancelled(format!("{operation}: stopped on request"))) } else { Ok(()) }
    }

    /// Sleeps up to `duration` in slices, so that a stop is seen within 50 ms.
    ///
    /// # Errors
    /// `Cancelled` when the run was asked to end meanwhile.
    pub fn sleep(&self, operation: &str, duration: Duration) -> Result<()> {
        let until = Instant::now() + duration;
        loop {
            self.check(operation)?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    /// Counts events taken in.
    pub fn add_read(&self, n: u64) {
        self.read.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes back events that were taken in for nothing: they will be read again.
    pub fn take_back(&self, n: u64) {
        self.read.fetch_sub(n, Ordering::Relaxed);
    }

    /// Counts events that are committed or acknowledged in their place.
    pub fn add_written(&self, n: u64) {
        self.written.fetch_add(n, Ordering::Relaxed);
    }

    /// Counts dead letters that are committed or acknowledged.
    pub fn add_dead_lettered(&self, n: u64) {
        self.dead_lettered.fetch_add(n, Ordering::Relaxed);
    }

    /// Raises the number of events expected in all.
    pub fn add_total(&self, n: u64) {
        self.total.fetch_add(n, Ordering::Relaxed);
        self.total_known.store(true, Ordering::Release);
    }

    /// Lowers the number of events expected in all: there were fewer than offsets.
    pub fn drop_total(&self, n: u64) {
        self.total.fetch_sub(n, Ordering::Relaxed);
    }

    /// Says what ends the run early; once.
    pub fn limit(&self, events: Option<u64>, deadline: Option<Instant>) {
        // A second call would be of the same run, and of the same limits.
        let _ = self.limits.set(Limits { events: events.unwrap_or(u64::MAX), deadline });
    }

    /// What has been done so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let (read, total) = (self.read.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let now = Instant::now();
        let rate = self.rate(now, read);
        let lag = self.total_known.load(Ordering::Acquire).then(|| total.saturating_sub(read));
        let limits = self.limits.get();
        let to_do = lag.map(|lag| limits.map_or(lag, |limits| lag.min(limits.events.saturating_sub(read))));
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let by_rate =
            to_do.filter(|left| rate > 0.0 || *left == 0).map(|left| if left == 0 { 0.0 } else { left as f64 / rate });
        let by_deadline = limits
            .and_then(|limits| limits.deadline)
            .map(|deadline| deadline.saturating_duration_since(now).as_secs_f64());
        let seconds_left = match (by_rate, by_deadline) {
            (Some(rate), Some(deadline)) => Some(rate.min(deadline)),
            (one, other) => one.or(other),
        };
        Progress {
            read,
            rate,
            lag,
            seconds_left,
            written: self.written.load(Ordering::Relaxed),
            dead_lettered: self.dead_lettered.load(Ordering::Relaxed),
            total,
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }

    fn rate(&self, now: Instant, read: u64) -> f64 {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.push_back((now, read));
        while pace.len() > 2 && pace.front().is_some_and(|(at, _)| now - *at > PACE) {
            pace.pop_front();
        }
        // Until there are a few looks, the start of the run is the first of them.
        let young = now - self.started < PACE;
        let (since, before) = pace.front().filter(|_| !young).copied().unwrap_or((self.started, 0));
        let seconds = (now - since).as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let events = read.saturating_sub(before) as f64;
        if seconds > 0.0 { events / seconds } else { 0.0 }
    }

    /// Hands a line to the caller's logger. Never blocks on the caller.
    pub fn log(&self, level: Level, text: impl Into<String>) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LOG_LINES {
            lines.pop_front();
        }
        lines.push_back(Line { level, text: text.into() });
    }

    /// Takes the lines logged since the last call.
    #[must_use]
    pub fn take_lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_and_time_left_are_unknown_until_an_end_is_known() {
        let control = Control::default();
        let now = control.progress();
        assert_eq!((now.lag, now.seconds_left), (None, None));
        control.add_total(100);
        control.add_read(60);
        control.take_back(10);
        control.drop_total(20);
        std::thread::sleep(Duration::from_millis(20));
        let now = control.progress();
        assert_eq!((now.read, now.total, now.lag), (50, 80, Some(30)));
        let left = now.seconds_left.expect("a rate and a lag");
        assert!((left - 30.0 / now.rate).abs() < 1e-9, "{now:?}");
    }

    #[test]
    fn limits_end_a_run_before_its_topic() {
        let control = Control::default();
        control.limit(Some(10), Some(Instant::now() + Duration::from_secs(5)));
        assert!(control.progress().seconds_left.is_some_and(|left| left <= 5.0));
        control.add_total(1_000);
        control.add_read(10);
        let now = control.progress();
        assert_eq!((now.lag, now.seconds_left), (Some(990), Some(0.0)));
    }
}
