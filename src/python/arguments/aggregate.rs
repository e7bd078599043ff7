//! The settings of an aggregate run.

use std::sync::Arc;

use serde_json::Value;

use super::{Arguments, wrong};
use crate::aggregate::AggregateSettings;
use crate::aggregate::publish::checks::Check;
use crate::aggregate::reports::calls::Functions;
use crate::aggregate::reports::definition::Definition;
use crate::aggregate::reports::expression::{Signature, Type};
use crate::aggregate::settings::{Dates, KEEP_DAYS, MEMORY_LIMIT, Mode};
use crate::error::{Error, Result};

impl Arguments {
    fn checks(&mut self) -> Result<Vec<Check>> {
        let Some(value) = self.take("checks") else { return Ok(Vec::new()) };
        let Value::Array(items) = value else { return Err(wrong("checks", "a list of checks")) };
        let read = |item| {
            serde_json::from_value(item).map_err(|error| {
                Error::config(format!("checks: {error}")).hint("give millpond.Check(table, min_rows=1), or its fields")
            })
        };
        items.into_iter().map(read).collect()
    }

    /// The user's functions: by name, what they return and their version.
    fn signatures(&mut self) -> Result<Vec<Signature>> {
        let Some(value) = self.take("functions") else { return Ok(Vec::new()) };
        let Value::Object(functions) = value else { return Err(wrong("functions", "a mapping")) };
        let read = |(name, told): (String, Value)| {
            let text = |word: &str| told.get(word).and_then(Value::as_str).unwrap_or_default();
            let returns = Type::named(&format!("function {name}: returns"), text("returns"))?;
            Ok(Signature { version: text("version").to_owned(), name, returns })
        };
        functions.into_iter().map(read).collect()
    }
}

/// The settings of an aggregate run.
///
/// # Errors
/// `Config` naming the argument.
pub fn aggregate(json: &str, functions: Option<Arc<dyn Functions>>) -> Result<AggregateSettings> {
    let mut arguments = Arguments::read(json)?;
    let known = arguments.signatures()?;
    let dates = match arguments.take("dates") {
        None => Dates::Latest,
        Some(Value::String(word)) if word == "latest" => Dates::Latest,
        Some(Value::String(word)) if word == "all" => Dates::All,
        Some(Value::String(word)) if word == "changed" => Dates::Changed,
        Some(Value::String(text)) => match text.split_once("..") {
            Some((first, last)) => Dates::Range(first.trim().to_owned(), last.trim().to_owned()),
            None => Dates::List(vec![text]),
        },
        Some(Value::Array(items)) => {
            let texts: Option<Vec<String>> = items.into_iter().map(|item| item.as_str().map(str::to_owned)).collect();
            Dates::List(texts.ok_or_else(|| wrong("dates", "dates as YYYY-MM-DD"))?)
        }
        Some(_) => {
            return Err(wrong(
                "dates",
                "\"latest\", \"all\", \"changed\", a date, a list of dates, or \"first..last\"",
            ));
        }
    };
    if arguments.text("engine")?.is_some_and(|name| name != "native" && name != "spark") {
        return Err(wrong("engine", "\"native\" or \"spark\""));
    }
    let mode = match arguments.text("mode")?.as_deref() {
        None | Some("incremental") => Mode::Incremental,
        Some("full") => Mode::Full,
        Some(_) => return Err(wrong("mode", "\"incremental\" or \"full\"")),
    };
    let keep_days =
        arguments.count("keep_partials_days")?.map_or(KEEP_DAYS, |days| u32::try_from(days).unwrap_or(u32::MAX));
    let lookback = arguments.count("lookback_days")?.unwrap_or(0);
    let settings = AggregateSettings {
        mongo_uri: arguments.needed("mongo_uri")?,
        postgres_dsn: arguments.text("postgres_dsn")?,
        schema: arguments.text("schema")?,
        checks: arguments.checks()?,
        database: arguments.needed("database")?,
        collection: arguments.needed("collection")?,
        dates,
        mode,
        keep_partials_days: keep_days,
        lookback_days: u32::try_from(lookback).map_err(|_| wrong("lookback_days", "fewer days"))?,
        time_field: arguments.text("time_field")?.unwrap_or_else(|| "timestamp".into()),
        reports: Definition::read_all(arguments.take("reports"), &known)?,
        engine: None,
        functions,
        job: arguments.text("job")?,
        allow_scan: arguments.flag("allow_scan", false)?,
        max_future_skew_seconds: arguments.count("max_future_skew")?.unwrap_or(86_400),
        memory_limit: arguments.count("memory_limit")?.unwrap_or(MEMORY_LIMIT),
        cursors: usize::try_from(arguments.count("cursors")?.unwrap_or(0)).unwrap_or(0),
    };
    arguments.done()?;
    Ok(settings)
}
