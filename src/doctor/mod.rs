//! `doctor`: asks every server named, side by side, for its version and for each right that a run needs, and says what is
//! wrong and what to do, within five seconds. It changes nothing on a server.
//!
//! [`kafka`], [`mongo`] and [`postgres`] hold the checks of one system each.

mod kafka;
mod mongo;
mod postgres;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::tokens::Tokens;
use crate::kafka::{Properties, Role};

/// A server that has not answered by then is told as that.
const PATIENCE: Duration = Duration::from_millis(4_300);

/// What was asked, and the answer.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub what: String,
    pub ok: bool,
    pub detail: String,
    pub hint: String,
}

type Check = Box<dyn FnOnce(&Arc<Control>) -> Result<String> + Send>;

/// Runs the checks that the settings name: `source`, `target` (properties), `source_topic`, `target_topic`, `mongo_uri`,
/// `database`, `collection`, `postgres_dsn`, `schema`. `tokens` are those of source and target.
#[must_use]
pub fn examine(settings: &Value, tokens: [Option<Arc<Tokens>>; 2]) -> Vec<Finding> {
    let checks = checks(settings, tokens);
    let names: Vec<&'static str> = checks.iter().map(|(name, _)| *name).collect();
    let control = Arc::new(Control::default());
    let (sender, receiver) = mpsc::channel();
    for (index, (_, check)) in checks.into_iter().enumerate() {
        let (sender, control) = (sender.clone(), Arc::clone(&control));
        // A check that outlives the patience is left behind and ends by its own time-out.
        std::thread::spawn(move || sender.send((index, check(&control))));
    }
    drop(sender);
    let until = Instant::now() + PATIENCE;
    let mut answers: Vec<Option<Result<String>>> = names.iter().map(|_| None).collect();
    while let Ok((index, answer)) = receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
        answers[index] = Some(answer);
    }
    control.stop();
    names.into_iter().zip(answers).map(|(name, answer)| finding(name, answer)).collect()
}

fn finding(name: &str, answer: Option<Result<String>>) -> Finding {
    let late =
        || Err(Error::external(format!("{name}: no answer in time")).hint("check address, port, and that it runs"));
    match answer.unwrap_or_else(late) {
        Ok(detail) => Finding { what: name.to_owned(), ok: true, detail, hint: String::new() },
        Err(error) => Finding { what: name.to_owned(), ok: false, detail: error.to_string(), hint: error.hint },
    }
}

fn checks(settings: &Value, tokens: [Option<Arc<Tokens>>; 2]) -> Vec<(&'static str, Check)> {
    let text = |name: &str| settings.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut checks: Vec<(&'static str, Check)> = Vec::new();
    for (role, tokens) in [Role::Source, Role::Target].into_iter().zip(tokens) {
        let name = role.name();
        let Some(Value::Object(map)) = settings.get(name) else { continue };
        let mut properties: Properties = map
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect();
        properties.tokens = tokens;
        let topic = text(if role == Role::Source { "source_topic" } else { "target_topic" });
        checks.push((
            name,
            match role {
                Role::Source => Box::new(move |control| kafka::source(&properties, topic.as_deref(), control)),
                Role::Target => Box::new(move |control| kafka::target(&properties, topic.as_deref(), control)),
            },
        ));
    }
    if let Some(uri) = text("mongo_uri") {
        let place = text("database").zip(text("collection"));
        checks.push(("mongo", Box::new(move |_| block(mongo::examine(&uri, place)))));
    }
    if let Some(dsn) = text("postgres_dsn") {
        let schema = text("schema");
        checks.push(("postgres", Box::new(move |_| block(postgres::examine(&dsn, schema.as_deref())))));
    }
    checks
}

fn block<T>(check: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::external("doctor: start a runtime").because(error))?;
    runtime.block_on(check)
}
