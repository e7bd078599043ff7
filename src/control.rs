//! How a run is interrupted, and how it tells what it does. One [`Control`] is shared by the caller and every thread
//! of one run. It owns flags, counters and a bounded log; it knows neither Python nor any server.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Lines kept for a caller who does not collect them; the oldest are dropped and counted.
const LOG_LINES: usize = 1_000;

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
    }

    /// What has been done so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            read: self.read.load(Ordering::Relaxed),
            written: self.written.load(Ordering::Relaxed),
            dead_lettered: self.dead_lettered.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }

    /// Hands a line to the caller's logger. Never blocks on the caller.
    pub fn log(&self, level: Level, text: impl Into<String>) {
        let mut lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if lines.len() == LOG_LINES {
            lines.pop_front();
        }
        lines.push_back(Line { level, text: text.into() });
    }

    /// Takes the lines logged since the last call.
    #[must_use]
    pub fn take_lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).drain(..).collect()
    }
}
