//! What `millpond audit` and `millpond audit report` compare.

use std::sync::Arc;

use super::Arguments;
use crate::aggregate::instant;
use crate::aggregate::reports::calls::Functions;
use crate::audit::AuditSettings;
use crate::error::{Error, Result};

/// The settings of an audit, and the date of one of a report.
///
/// # Errors
/// `Config` naming the argument.
pub fn audit(json: &str, functions: Option<Arc<dyn Functions>>) -> Result<(AuditSettings, Option<i32>)> {
    let mut arguments = Arguments::read(json)?;
    let with = arguments.take("aggregate").unwrap_or_default().to_string();
    let target = arguments.0.get("target").is_some_and(|target| !target.is_null());
    let date = arguments.text("date")?;
    let date = date.map(|date| {
        let read = instant::date(date.as_bytes());
        read.ok_or_else(|| Error::config("date: no date").hint("give YYYY-MM-DD"))
    });
    let settings = AuditSettings {
        aggregate: super::aggregate(&with, functions)?,
        target: if target { Some(arguments.properties("target")?) } else { None },
        job: arguments.text("job")?,
        metadata: arguments.text("metadata")?,
        deep: arguments.flag("deep", false)?,
    };
    arguments.take("target");
    arguments.done()?;
    Ok((settings, date.transpose()?))
}
