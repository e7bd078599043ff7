//! `doctor`: asks every server named, side by side, and says what is wrong and what to do, within five seconds.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bson::doc;
use serde::Serialize;
use serde_json::Value;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::kafka::{Cluster, Properties, Role};
use crate::mongo::client;
use crate::postgres;

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

/// Runs the checks that the settings name: `source`, `target` (properties), `source_topic`, `mongo_uri`,
/// `postgres_dsn`.
#[must_use]
pub fn examine(settings: &Value) -> Vec<Finding> {
    let checks = checks(settings);
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

fn checks(settings: &Value) -> Vec<(&'static str, Check)> {
    let text = |name: &str| settings.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut checks: Vec<(&'static str, Check)> = Vec::new();
    for (name, role) in [("source", Role::Source), ("target", Role::Target)] {
        let Some(Value::Object(map)) = settings.get(name) else { continue };
        let properties: Properties = map
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect();
        let topic = if role == Role::Source { text("source_topic") } else { None };
        checks.push((name, Box::new(move |control| kafka(&properties, role, topic.as_deref(), control))));
    }
    if let Some(uri) = text("mongo_uri") {
        checks.push(("mongo", Box::new(move |_| block(mongo(&uri)))));
    }
    if let Some(dsn) = text("postgres_dsn") {
        checks.push(("postgres", Box::new(move |_| block(database(&dsn)))));
    }
    checks
}

fn kafka(properties: &Properties, role: Role, topic: Option<&str>, control: &Arc<Control>) -> Result<String> {
    let cluster = Cluster::connect(properties, role, control)?;
    let about = format!("cluster {}, {} brokers", cluster.id, cluster.brokers);
    if let Some(topic) = topic {
        let topic = cluster.topic(topic)?;
        let all: Vec<i32> = (0..topic.partitions).collect();
        let held: i64 = cluster.ends(&topic.name, &all)?.iter().map(|end| end.last_stable - end.start).sum();
        return Ok(format!("{about}; topic {}: {} partitions, {held} offsets", topic.name, topic.partitions));
    }
    Ok(about)
}

fn block<T>(check: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::external("doctor: start a runtime").because(error))?;
    runtime.block_on(check)
}

async fn mongo(uri: &str) -> Result<String> {
    let told = |error| client::told("mongodb: ask", error);
    let server = client::connect(uri).await?;
    let info = server.database("admin").run_command(doc! {"buildInfo": 1}).await.map_err(told)?;
    let version = info.get_str("version").unwrap_or("?").to_owned();
    let hello = server.database("admin").run_command(doc! {"hello": 1}).await.map_err(told)?;
    if version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < 6) {
        return Err(Error::config(format!("mongodb: version {version}")).hint("6.0 or newer is needed"));
    }
    let set =
        hello.get_str("setName").map_or_else(|_| "no replica set".to_owned(), |name| format!("replica set {name}"));
    Ok(format!("version {version}, {set}"))
}

async fn database(dsn: &str) -> Result<String> {
    let told = |error| postgres::told("postgres: ask", error);
    let connection = postgres::connect(dsn).await?;
    let query = "SELECT current_setting('server_version'), current_database()::text, current_schema()::text, \
                 coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)";
    let row = connection.query_one(query, &[]).await.map_err(told)?;
    let (version, name): (String, String) = (row.get(0), row.get(1));
    let schema: Option<String> = row.get(2);
    let schema = schema.ok_or_else(|| {
        Error::config(format!("postgres: no schema of the search path exists in database {name}")).hint("CREATE SCHEMA")
    })?;
    let made = connection.query_one("SELECT to_regclass('millpond_runs') IS NOT NULL", &[]).await.map_err(told)?;
    if !row.get::<_, bool>(3) && !made.get::<_, bool>(0) {
        return Err(Error::config(format!("postgres: this role may not create tables in schema {schema} of {name}"))
            .hint(format!("GRANT CREATE, USAGE ON SCHEMA {schema} TO this role")));
    }
    Ok(format!("version {version}, database {name}, schema {schema}"))
}
