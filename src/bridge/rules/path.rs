//! Ways through nested objects, as `from` and `drop_if` spell them: `a.b` is the member `b` of the object `a`, `a\.b` the
//! one member whose name holds a dot. Nothing else is known: no lists, no wildcards.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};

/// Member names from the top object inwards; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<String>);

impl Path {
    /// One member of the top object, whatever its name holds.
    #[must_use]
    pub fn member(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    /// Reads a spelled path.
    ///
    /// # Errors
    /// `Config` for an empty step or an unknown escape.
    pub fn read(place: &str, text: &str) -> Result<Self> {
        let mut steps = vec![String::new()];
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let character = match character {
                '.' => {
                    steps.push(String::new());
                    continue;
                }
                '\\' => match characters.next() {
                    Some(escaped @ ('.' | '\\')) => escaped,
                    _ => {
                        return Err(Error::config(format!("{place}: {text:?} holds a backslash of no meaning"))
                            .hint(r"\. is a dot in a name, \\ a backslash"));
                    }
                },
                other => other,
            };
            if let Some(step) = steps.last_mut() {
                step.push(character);
            }
        }
        if steps.iter().any(String::is_empty) {
            return Err(Error::config(format!("{place}: {text:?} has an empty step"))
                .hint(r"give a member's name, or names with dots between; \. is a dot in a name"));
        }
        Ok(Self(steps))
    }

    /// The names, from the top object inwards.
    #[must_use]
    pub fn steps(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            let dot = if i == 0 { "" } else { "." };
            write!(f, "{dot}{}", step.replace('\\', r"\\").replace('.', r"\."))?;
        }
        Ok(())
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_nest_and_escaped_dots_do_not() {
        let steps = |text: &str| Path::read("x", text).map(|path| path.0).map_err(|error| error.what);
        assert_eq!(steps("a.b.c"), Ok(vec!["a".into(), "b".into(), "c".into()]));
        assert_eq!(steps(r"a\.b.c\\"), Ok(vec!["a.b".into(), r"c\".into()]));
        for bad in ["", ".", "a.", ".a", "a..b", r"a\b", r"a\"] {
            assert!(steps(bad).is_err(), "{bad}");
        }
        assert_eq!(Path::read("x", r"a\.b.c\\").expect("a path").to_string(), r"a\.b.c\\");
        assert_eq!(Path::member("a.b").to_string(), r"a\.b");
    }
}
