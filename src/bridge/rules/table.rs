//! One table of a definition, read whole: what is unknown is refused with the nearest known name, what is of another type
//! by its place. Values are never quoted: one of them may be a key (I6).

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::kafka::settings::distance;

/// The place that all others stand in.
pub const TOP: &str = "transform:";

/// The members of a table that nobody has taken yet.
pub struct Table {
    place: String,
    members: Map<String, Value>,
}

impl Table {
    /// Takes a table that holds no other members than `known`.
    ///
    /// # Errors
    /// `Config` naming the member.
    pub fn open(place: &str, value: Value, known: &[&str]) -> Result<Self> {
        let Value::Object(members) = value else { return Err(wrong(place, "a table")) };
        if let Some(name) = members.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(Error::config(format!("{}: unknown setting", inside(place, name)))
                .hint(did_you_mean(name, known.iter().copied())));
        }
        Ok(Self { place: place.to_owned(), members })
    }

    /// Where a member stands, for messages.
    #[must_use]
    pub fn place(&self, name: &str) -> String {
        inside(&self.place, name)
    }

    /// Takes a member; null is as good as none.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    /// Takes true or false; false when it is not there.
    ///
    /// # Errors
    /// `Config` for another type.
    pub fn flag(&mut self, name: &str) -> Result<bool> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(wrong(&self.place(name), "true or false")),
        }
    }

    /// Takes a text.
    ///
    /// # Errors
    /// `Config` for another type.
    pub fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(&self.place(name), "a text")),
        }
    }

    /// Takes a list.
    ///
    /// # Errors
    /// `Config` for another type.
    pub fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(wrong(&self.place(name), "a list")),
        }
    }

    /// Takes one of the words in `choices`.
    ///
    /// # Errors
    /// `Config` for another word, with the nearest one.
    pub fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let Some(word) = self.text(name)? else { return Ok(None) };
        let found = choices.iter().find(|(choice, _)| *choice == word).map(|(_, choice)| *choice);
        found.map(Some).ok_or_else(|| {
            Error::config(format!("{}: unknown {name}", self.place(name)))
                .hint(did_you_mean(&word, choices.iter().map(|(choice, _)| *choice)))
        })
    }
}

/// `place.name`, so that it can be found in the definition.
#[must_use]
pub fn inside(place: &str, name: &str) -> String {
    let shown = name.escape_debug();
    if place == TOP { format!("{place} {shown}") } else { format!("{place}.{shown}") }
}

/// The error for a value of another type.
#[must_use]
pub fn wrong(place: &str, wanted: &str) -> Error {
    Error::config(format!("{place}: not {wanted}")).hint(format!("give {wanted}"))
}

/// Names the nearest known word, and all of them.
pub fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = known.clone().min_by_key(|candidate| distance(word, candidate)).unwrap_or_default();
    format!("did you mean {nearest}? There are {}", known.collect::<Vec<_>>().join(", "))
}
