//! What becomes of a value on its way: nothing, or what rules make of it.

use serde_json::Value;

pub use super::rules::{Became, explain::Explanation};
use super::rules::{Definition, Rules};
use crate::error::{Error, Result};
use crate::json::DeadLetter;

/// What a run is told to do with values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Transform {
    /// Every byte stays.
    #[default]
    None,
    /// `PRODUCT_VIEWS`, or rules of the user's own.
    Fields(Box<Definition>),
}

impl Transform {
    /// Reads a definition; null or nothing keeps every byte.
    ///
    /// # Errors
    /// As [`Definition::read`].
    pub fn read(value: Option<Value>) -> Result<Self> {
        match value {
            None | Some(Value::Null) => Ok(Self::None),
            Some(definition @ Value::Object(_)) => Ok(Self::Fields(Box::new(Definition::read(definition)?))),
            Some(_) => Err(Error::config("transform: neither None, millpond.PRODUCT_VIEWS nor a definition")
                .hint("give a millpond.Transform, a mapping, or the path of a TOML file")),
        }
    }

    /// Shows what becomes of one event, field by field.
    ///
    /// # Errors
    /// `Config` as at the start of a run.
    pub fn explain(&self, event: &[u8]) -> Result<Explanation> {
        match self {
            Self::None => Ok(Explanation::same(event)),
            Self::Fields(definition) => Explanation::of(definition, event),
        }
    }
}

/// A transform made ready for a run.
#[derive(Debug, Clone)]
pub enum Ready {
    None,
    Fields(Box<Rules>),
}

impl Ready {
    /// Checks the options, before the first read.
    ///
    /// # Errors
    /// `Config` naming the option.
    pub fn new(transform: &Transform) -> Result<Self> {
        Ok(match transform {
            Transform::None => Self::None,
            Transform::Fields(definition) => Self::Fields(Box::new(Rules::new(definition)?)),
        })
    }

    /// Writes the new value to `out`, unless the bytes stay as they are or the event is left out.
    ///
    /// # Errors
    /// Why the event cannot be mapped.
    pub fn apply(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Became, DeadLetter> {
        match self {
            Self::None => Ok(Became::Same),
            Self::Fields(rules) => rules.apply(value, out),
        }
    }

    /// Names the transform and its options, for the kept position.
    #[must_use]
    pub fn name(transform: &Transform) -> String {
        match transform {
            Transform::None => "none".into(),
            Transform::Fields(definition) => definition.name(),
        }
    }
}
