//! Reports as publication takes them: data, whoever made them. A [`Table`] says where one goes, a [`Report`] brings its
//! rows. It refuses to know how rows are counted.

use std::collections::{BTreeMap, BTreeSet};

use polars::frame::DataFrame;

use crate::error::{Error, Result};
use crate::postgres::columns::{Kind, quoted};

/// What a VARCHAR key of the default tables holds, in code points.
pub const KEY_LENGTH: u32 = 255;
/// The date of a row, in every report table.
pub const DATE: &str = "report_date";
/// The time of the publication, in every report table.
pub const CREATED: &str = "created_at";
/// The longest name that the server keeps whole, in bytes.
const LONGEST_NAME: usize = 63;

/// A column of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

/// A report's table: its keys, its metrics, then `report_date` and `created_at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    /// Never NULL.
    pub keys: Vec<Column>,
    /// May be NULL.
    pub metrics: Vec<Column>,
    /// A view that ranks the rows of a date by the first metric, ties by key.
    pub view: Option<String>,
}

/// A report's rows, and what its keys left out.
#[derive(Debug, Clone)]
pub struct Report {
    pub table: Table,
    /// The columns of [`Table::columns`], in that order; rows ordered by date and key.
    pub frame: DataFrame,
    /// By date, in days since 1970.
    pub days: BTreeMap<i32, Day>,
    /// Dates of which only some rows have changed since they were published last: the first row, and which did.
    pub changed: BTreeMap<i32, (usize, Vec<bool>)>,
}

/// What a report counted on one date.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Day {
    /// Events of the date.
    pub counted: u64,
    /// Those of them whose key was NULL or missing.
    pub null_keys: u64,
}

impl Column {
    /// A column.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self { name: name.into(), kind }
    }
}

impl Table {
    /// What a frame holds: keys, metrics, `report_date`.
    #[must_use]
    pub fn columns(&self) -> Vec<Column> {
        let date = [Column::new(DATE, Kind::Date)];
        self.keys.iter().chain(&self.metrics).cloned().chain(date).collect()
    }

    /// The command that makes it.
    #[must_use]
    pub fn create(&self) -> String {
        let keys = self.keys.iter().map(|key| format!("{} {} NOT NULL", quoted(&key.name), key.kind.sql()));
        let metrics = self.metrics.iter().map(|metric| format!("{} {}", quoted(&metric.name), metric.kind.sql()));
        let columns: Vec<String> = keys.chain(metrics).collect();
        format!(
            "CREATE TABLE {} ({}, {DATE} DATE NOT NULL, {CREATED} TIMESTAMP DEFAULT CURRENT_TIMESTAMP)",
            quoted(&self.name),
            columns.join(", ")
        )
    }

    /// The command that makes its view, where it has one: its rows by rank.
    #[must_use]
    pub fn create_view(&self) -> Option<String> {
        let (view, first) = (self.view.as_ref()?, self.metrics.first()?);
        let keys = self
            .keys
            .iter()
            .map(|key| format!(", {}{}", quoted(&key.name), if key.kind.is_text() { " COLLATE \"C\"" } else { "" }));
        Some(format!(
            "CREATE VIEW {} AS SELECT t.*, rank() OVER (PARTITION BY {DATE} ORDER BY {} DESC{}) AS rank FROM {} t",
            quoted(view),
            quoted(&first.name),
            keys.collect::<String>(),
            quoted(&self.name)
        ))
    }

    /// Checks what needs no server: names that SQL can keep, and each once.
    ///
    /// # Errors
    /// `Config` naming table and column.
    pub fn check(&self) -> Result<()> {
        let unfit = |name: &str| name.is_empty() || name.len() > LONGEST_NAME || name.contains('\0');
        if unfit(&self.name) || self.view.as_deref().is_some_and(unfit) {
            return Err(Error::config(format!("aggregate: report {:?}: no name for a table", self.name))
                .hint(format!("give 1 to {LONGEST_NAME} bytes")));
        }
        let mut seen = BTreeSet::from([CREATED.to_owned()]);
        for column in self.columns() {
            let what = format!("aggregate: report {}: column {:?}", self.name, column.name);
            if unfit(&column.name) {
                return Err(Error::config(format!("{what}: no name for a column"))
                    .hint(format!("give 1 to {LONGEST_NAME} bytes")));
            }
            if !seen.insert(column.name) {
                return Err(Error::config(format!("{what}: stands twice")).hint("rename one of them"));
            }
        }
        Ok(())
    }
}

/// The default set.
#[must_use]
pub fn product_views() -> Vec<Table> {
    let count = |name: &str| Column::new(name, Kind::Integer);
    let table = |name: &str, key: &str, kind, view: &str, metrics| Table {
        name: name.into(),
        keys: vec![Column::new(key, kind)],
        metrics,
        view: Some(view.into()),
    };
    let text = Kind::Varchar(KEY_LENGTH);
    let counts = || vec![count("view_count"), count("unique_visitors")];
    let mut products = counts();
    products.push(Column::new("last_view_time", Kind::Timestamp));
    vec![
        table("product_views_daily", "product_id", text, "top_products_daily", products),
        table("country_views_daily", "store_id", text, "top_countries_daily", counts()),
        table("referrer_views_daily", "referrer_url", Kind::Text, "top_referrers_daily", vec![count("view_count")]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_tables_are_those_of_the_design() {
        let text: Vec<String> = product_views().iter().map(|table| table.create().replace('"', "")).collect();
        let created = "created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP";
        assert_eq!(
            text[0],
            format!(
                "CREATE TABLE product_views_daily (product_id VARCHAR(255) NOT NULL, view_count BIGINT, \
                 unique_visitors BIGINT, last_view_time TIMESTAMP, report_date DATE NOT NULL, {created})"
            )
        );
        assert_eq!(
            text[2],
            format!(
                "CREATE TABLE referrer_views_daily (referrer_url TEXT NOT NULL, view_count BIGINT, report_date DATE \
                 NOT NULL, {created})"
            )
        );
    }

    #[test]
    fn names_that_sql_cannot_keep_are_refused() {
        let mut table = product_views().remove(0);
        table.check().expect("the default set is fit");
        table.metrics.push(Column::new("product_id", Kind::Double));
        assert!(table.check().expect_err("twice").what.contains("product_id"));
        table.name = "t".repeat(64);
        assert!(table.check().is_err());
    }
}
