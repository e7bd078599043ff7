//! What becomes of one event, field by field, for a person who writes rules. It runs the very rules of a run; keys never
//! appear, the event's own values do.

use serde::Serialize;

use super::{Became, Definition, Rules, Work};
use crate::error::Result;
use crate::json::{DeadLetter, Kind, Token};

/// The answer to `millpond explain transform`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// `written`, `filtered` or `dead_letter`.
    pub outcome: String,
    /// Of a dead letter.
    pub reason: Option<String>,
    pub detail: Option<String>,
    /// The filter that drops the event.
    pub filter: Option<String>,
    /// What is written.
    pub output: Option<String>,
    /// One for each field; none when the message itself is refused.
    pub fields: Vec<FieldExplanation>,
    /// Members that no field takes, and whether they are kept.
    pub unknown: Vec<String>,
    pub keep_unknown: bool,
}

/// What becomes of one field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FieldExplanation {
    pub field: String,
    pub rule: String,
    /// The path that was taken; none when all are missing or null.
    pub source: Option<String>,
    /// The JSON that was found there.
    pub raw: Option<String>,
    /// The JSON that is written.
    pub value: Option<String>,
    /// Why there is none.
    pub reason: Option<String>,
    pub detail: Option<String>,
}

impl Explanation {
    /// Of an event that no rule looks at.
    #[must_use]
    pub fn same(event: &[u8]) -> Self {
        Self { outcome: "written".into(), output: Some(shown(event)), ..Self::default() }
    }

    /// Of an event under a definition.
    ///
    /// # Errors
    /// `Config` as in [`Rules::new`].
    pub fn of(definition: &Definition, event: &[u8]) -> Result<Self> {
        let rules = Rules::new(definition)?;
        let mut out = Vec::new();
        let became = rules.apply(event, &mut out);
        let mut work = Work::default();
        let mut told = Self { keep_unknown: definition.keep_unknown, ..Self::default() };
        if rules.read(&mut work, event).is_ok() {
            told.filter = rules.dropped(&work, event).map(ToString::to_string);
            told.fields = rules
                .fields
                .iter()
                .zip(&definition.fields)
                .map(|(rule, field)| {
                    let winner = rule.winner(&work);
                    let mut value = Vec::new();
                    let written = rules.value(rule, &work, event, &mut value);
                    let letter = written.err();
                    FieldExplanation {
                        field: field.name.clone(),
                        rule: field.to_string(),
                        source: winner.map(|(place, _)| field.from[place].to_string()),
                        raw: winner.map(|(_, at)| raw(&work.tape.tokens[at], event)),
                        value: letter.is_none().then(|| shown(&value)),
                        reason: letter.as_ref().map(|letter| letter.reason.as_str().to_owned()),
                        detail: letter.map(|letter| letter.detail),
                    }
                })
                .collect();
            let name = |at: &u32| shown(work.tape.tokens[*at as usize].text(event));
            told.unknown = work.found.unknown.iter().map(name).collect();
        }
        match became {
            Ok(Became::Filtered) => told.outcome = "filtered".into(),
            Ok(_) => {
                told.outcome = "written".into();
                told.output = Some(shown(&out));
            }
            Err(DeadLetter { reason, detail }) => {
                told.outcome = "dead_letter".into();
                told.reason = Some(reason.as_str().to_owned());
                told.detail = Some(detail);
            }
        }
        Ok(told)
    }
}

/// A value as it stands in the event.
fn raw(token: &Token, event: &[u8]) -> String {
    let quotes = usize::from(token.kind == Kind::String);
    shown(&event[token.start as usize - quotes..token.end as usize + quotes])
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
