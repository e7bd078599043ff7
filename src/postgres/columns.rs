//! The SQL types that a column of ours may have, and names as SQL takes them. It refuses to know any table.

/// A column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `VARCHAR(n)`, in code points; a frame holds strings.
    Varchar(u32),
    /// A frame holds strings.
    Text,
    /// `BIGINT`; a frame holds 64-bit integers.
    Integer,
    /// A frame holds 64-bit floats.
    Double,
    /// A frame holds the decimal spelling as strings: exact, whatever its length.
    Numeric,
    /// `TIMESTAMP` without zone; a frame holds microseconds.
    Timestamp,
    /// A frame holds dates.
    Date,
    /// A frame holds booleans.
    Boolean,
}

impl Kind {
    /// As DDL says it.
    #[must_use]
    pub fn sql(self) -> String {
        match self {
            Self::Varchar(length) => format!("VARCHAR({length})"),
            Self::Text => "TEXT".into(),
            Self::Integer => "BIGINT".into(),
            Self::Double => "DOUBLE PRECISION".into(),
            Self::Numeric => "NUMERIC".into(),
            Self::Timestamp => "TIMESTAMP".into(),
            Self::Date => "DATE".into(),
            Self::Boolean => "BOOLEAN".into(),
        }
    }

    /// As the server's catalog spells it (`format_type`).
    #[must_use]
    pub fn catalog(self) -> String {
        match self {
            Self::Varchar(length) => format!("character varying({length})"),
            Self::Integer => "bigint".into(),
            Self::Timestamp => "timestamp without time zone".into(),
            other => other.sql().to_lowercase(),
        }
    }

    /// Whether a column that the catalog spells so holds every value of this type.
    #[must_use]
    pub fn fits(self, catalog: &str) -> bool {
        let Self::Varchar(length) = self else { return catalog == self.catalog() };
        let Some(rest) = catalog.strip_prefix("character varying") else { return false };
        let theirs = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        rest.is_empty() || theirs.and_then(|theirs| theirs.parse::<u32>().ok()).is_some_and(|theirs| theirs >= length)
    }

    /// Whether its values can be added up.
    #[must_use]
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Integer | Self::Double | Self::Numeric)
    }

    /// Whether its values are texts, whose order depends on a collation.
    #[must_use]
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Varchar(_) | Self::Text)
    }
}

/// A name, quoted.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_fit_what_holds_them() {
        assert!(Kind::Varchar(255).fits("character varying(255)"));
        assert!(Kind::Varchar(255).fits("character varying"));
        assert!(!Kind::Varchar(255).fits("character varying(254)"));
        assert!(!Kind::Varchar(255).fits("text"));
        assert!(Kind::Timestamp.fits("timestamp without time zone"));
        assert!(!Kind::Timestamp.fits("timestamp(0) without time zone"));
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
