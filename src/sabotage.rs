//! Test-only (cargo feature `sabotage`, never in a wheel): wrong orderings that the suite must catch, chosen by
//! `MILLPOND_SABOTAGE`, and steps at which the process sends itself a signal, chosen by
//! `MILLPOND_SABOTAGE_AT=<signal>:<step>[:<nth>]` (KILL to die there, STOP to be overtaken there), and a transaction
//! time-out that a test can wait for, `MILLPOND_SABOTAGE_TIMEOUT_MS`.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

struct At {
    signal: String,
    step: String,
    nth: u64,
}

static CHOSEN: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("MILLPOND_SABOTAGE").ok());
static AT: LazyLock<Option<At>> = LazyLock::new(|| {
    let text = std::env::var("MILLPOND_SABOTAGE_AT").ok()?;
    let mut parts = text.split(':');
    let (signal, step) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let nth = parts.next().map_or(Some(1), |nth| nth.parse().ok())?;
    Some(At { signal, step, nth })
});
static REACHED: LazyLock<Mutex<HashMap<&'static str, u64>>> = LazyLock::new(Mutex::default);

/// Whether the named mutant is on.
#[must_use]
pub fn is(mutant: &str) -> bool {
    CHOSEN.as_deref() == Some(mutant)
}

/// The transaction time-out that a test wants.
#[must_use]
pub fn timeout_ms() -> Option<u64> {
    std::env::var("MILLPOND_SABOTAGE_TIMEOUT_MS").ok()?.parse().ok()
}

/// Sends this process the chosen signal, when this step was chosen and reached often enough.
pub fn step(name: &'static str) {
    let Some(at) = AT.as_ref().filter(|at| at.step == name) else { return };
    let mut reached = REACHED.lock().unwrap_or_else(PoisonError::into_inner);
    let count = reached.entry(name).or_default();
    *count += 1;
    if *count == at.nth {
        let process = std::process::id().to_string();
        std::process::Command::new("kill").args(["-s", &at.signal, &process]).status().ok();
        // The signal stops every thread before this one looks again.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
