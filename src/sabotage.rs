//! Test-only (cargo feature `sabotage`, never in a wheel): wrong orderings that the suite must catch, chosen by
//! `MILLPOND_SABOTAGE`, and steps at which the process kills itself, chosen by `MILLPOND_SABOTAGE_KILL=<step>[:<nth>]`.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

static CHOSEN: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("MILLPOND_SABOTAGE").ok());
static KILL: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
    let text = std::env::var("MILLPOND_SABOTAGE_KILL").ok()?;
    let (step, nth) = text.split_once(':').unwrap_or((&text, "1"));
    Some((step.to_owned(), nth.parse().unwrap_or(1)))
});
static REACHED: LazyLock<Mutex<HashMap<&'static str, u64>>> = LazyLock::new(Mutex::default);

/// Whether the named mutant is on.
#[must_use]
pub fn is(mutant: &str) -> bool {
    CHOSEN.as_deref() == Some(mutant)
}

/// Dies here with SIGKILL, when this step was chosen and reached often enough.
pub fn step(name: &'static str) {
    let Some((chosen, nth)) = KILL.as_ref() else { return };
    if chosen == name {
        let mut reached = REACHED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = reached.entry(name).or_default();
        *count += 1;
        if *count == *nth {
            std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status().ok();
            std::thread::sleep(std::time::Duration::from_mins(1));
        }
    }
}
