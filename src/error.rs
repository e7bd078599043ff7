//! The one error type. Its domain says who must act; each error carries what was done to which object, and a hint.
//!
//! It refuses to carry secrets: whoever builds a message names properties and objects, never credential values (I6).

use std::error::Error as StdError;

/// The result of everything fallible in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// What went wrong, for whom to act, and what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{what}{}", Cause(source.as_deref()))]
pub struct Error {
    /// Who must act.
    pub domain: Domain,
    /// Operation and object: `bridge: topic product_views partition 3 offset 17: …`.
    pub what: String,
    /// What the reader should do now. Empty when there is nothing better than the message.
    pub hint: String,
    /// The error underneath, appended to the message once.
    #[source]
    pub source: Option<Source>,
}

/// Who must act on an error, and hence whether a retry helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// The caller: a setting, a connection's property, a table of another shape.
    Config,
    /// Nobody yet: a server or network that may be back on the next try. The only retryable domain.
    External,
    /// Another run of the same job took over; retrying would fence it in turn, for ever (I3).
    Fenced,
    /// The operator: the kept position and the log no longer fit together; a choice about loss is theirs.
    Position,
    /// The data's owner: records refused beyond what the settings allow.
    Data,
    /// Whoever asked this run to stop.
    Cancelled,
    /// Us.
    Bug,
}

impl Domain {
    /// Whether running the same thing again can help.
    #[must_use]
    pub const fn retryable(self) -> bool {
        match self {
            Self::External => true,
            Self::Config | Self::Fenced | Self::Position | Self::Data | Self::Cancelled | Self::Bug => false,
        }
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $domain:ident),* $(,)?) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(what: impl Into<String>) -> Self {
            Self { domain: Domain::$domain, what: what.into(), hint: String::new(), source: None }
        })*
    };
}

impl Error {
    constructors! {
        /// A setting is wrong; see [`Domain::Config`].
        config => Config,
        /// A server, network or quota failed; see [`Domain::External`].
        external => External,
        /// Another run of the job took over; see [`Domain::Fenced`].
        fenced => Fenced,
        /// Position and log do not fit together; see [`Domain::Position`].
        position => Position,
        /// Data refused beyond the limits set; see [`Domain::Data`].
        data => Data,
        /// The run was asked to stop; see [`Domain::Cancelled`].
        cancelled => Cancelled,
        /// A broken invariant of ours; see [`Domain::Bug`].
        bug => Bug,
    }

    /// Says what the reader should do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Keeps the error underneath; its text ends the message.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether running the same thing again can help.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        self.domain.retryable()
    }
}

/// Writes `: cause: cause of the cause`, leaving out what the level above already said.
struct Cause<'a>(Option<&'a (dyn StdError + Send + Sync + 'static)>);

impl std::fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut said = String::new();
        let mut next = self.0.map(|source| source as &dyn StdError);
        while let Some(source) = next {
            let text = source.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
            }
            said.push_str(&text);
            next = source.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_cause_once() {
        let error = Error::external("sink: insert into db.c").because(std::io::Error::other("connection reset"));
        assert_eq!(error.to_string(), "sink: insert into db.c: connection reset");
        assert!(error.retryable());
        assert!(!Error::fenced("x").retryable());
    }
}
