//! Why an event is a dead letter.

/// The reasons, by the names that dead letters carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    Empty,
    InvalidUtf8,
    InvalidJson,
    NotObject,
    TooDeep,
    DuplicateKey,
    LoneSurrogate,
    NulInKey,
    FieldConflict,
    NumberInexact,
    TooLarge,
    RefusedByServer,
    NoField,
    Required,
    Type,
    TimeUnit,
    BadTime,
    BadIp,
    Timestamp,
    NoKey,
    BadId,
    KeyMoved,
}

impl Reason {
    /// The name that a dead letter carries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidJson => "invalid_json",
            Self::NotObject => "not_object",
            Self::TooDeep => "too_deep",
            Self::DuplicateKey => "duplicate_key",
            Self::LoneSurrogate => "lone_surrogate",
            Self::NulInKey => "nul_in_key",
            Self::FieldConflict => "field_conflict",
            Self::NumberInexact => "number_inexact",
            Self::TooLarge => "too_large",
            Self::RefusedByServer => "refused_by_server",
            Self::NoField => "no_field",
            Self::Required => "required",
            Self::Type => "type",
            Self::TimeUnit => "time_unit",
            Self::BadTime => "bad_time",
            Self::BadIp => "bad_ip",
            Self::Timestamp => "timestamp",
            Self::NoKey => "no_key",
            Self::BadId => "bad_id",
            Self::KeyMoved => "key_moved",
        }
    }
}

/// A reason and what exactly was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub reason: Reason,
    pub detail: String,
}

impl DeadLetter {
    /// Says why, in words that hold no more of the event than is needed to find the place.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}
