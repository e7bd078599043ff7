//! Reports as users define them: a table, its keys and metrics, and which events count. Read whole before any server is
//! asked.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value as Json, json};

use super::condition::Condition;
use super::expression::{Expression, Signature};
use super::metric::{self, Metric};
use crate::aggregate::publish::ledger;
use crate::aggregate::publish::report::{Column, Table as Target};
use crate::bridge::rules::path::Path;
use crate::bridge::rules::table::{Table, did_you_mean, inside, wrong};
use crate::error::{Error, Result};
use crate::postgres::columns::Kind;

/// The name of the default set.
pub const PRODUCT_VIEWS: &str = "product_views";
/// Where definitions stand, for messages.
const PLACE: &str = "reports";

/// A report.
#[derive(Debug, Clone)]
pub struct Definition {
    pub table: String,
    pub view: Option<String>,
    pub keys: Vec<Key>,
    pub metrics: Vec<Metric>,
    pub conditions: Vec<Condition>,
}

/// A key's column, and what it is made of.
#[derive(Debug, Clone)]
pub struct Key {
    pub name: String,
    pub kind: Kind,
    pub of: Expression,
}

impl Definition {
    /// Reads a set: the default one by its name, a definition, or a list of either.
    ///
    /// # Errors
    /// `Config` naming the place, with the nearest known name for what is unknown.
    pub fn read_all(value: Option<Json>, known: &[Signature]) -> Result<Vec<Self>> {
        let items = match value {
            None => vec![Json::String(PRODUCT_VIEWS.to_owned())],
            Some(Json::Array(items)) => items,
            Some(one) => vec![one],
        };
        let mut all = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            let place = format!("{PLACE}[{i}]");
            match item {
                Json::String(name) if name == PRODUCT_VIEWS => {
                    for one in product_views() {
                        all.push(Self::read(PRODUCT_VIEWS, one, &[])?);
                    }
                }
                Json::String(name) => {
                    return Err(Error::config(format!("{place}: unknown set {name}"))
                        .hint(did_you_mean(&name, [PRODUCT_VIEWS].into_iter())));
                }
                other => all.push(Self::read(&place, other, known)?),
            }
        }
        if all.is_empty() {
            return Err(Error::config(format!("{PLACE}: there are none")).hint("give at least one"));
        }
        let mut seen = BTreeSet::from([ledger::NAME.to_owned()]);
        for name in all.iter().flat_map(|one| [Some(&one.table), one.view.as_ref()]).flatten() {
            if !seen.insert(name.clone()) {
                return Err(Error::config(format!("{PLACE}: two tables or views of the name {name}"))
                    .hint("rename one of them; millpond_runs is the ledger"));
            }
        }
        Ok(all)
    }

    /// The default set.
    ///
    /// # Errors
    /// None: a test reads it.
    pub fn product_views() -> Result<Vec<Self>> {
        Self::read_all(None, &[])
    }

    fn read(place: &str, value: Json, known: &[Signature]) -> Result<Self> {
        let mut table = Table::open(place, value, &["table", "view", "key", "metrics", "where"])?;
        let missing =
            |name: &str, give: &str| Error::config(format!("{place}: {name} is missing")).hint(format!("give {give}"));
        let name = table.text("table")?.ok_or_else(|| missing("table", "the name of a table"))?;
        let keys = Key::read_all(&table.place("key"), table.take("key").unwrap_or(Json::Null), known)?;
        let at = table.place("metrics");
        let metrics = match table.take("metrics") {
            Some(Json::Object(metrics)) if !metrics.is_empty() => metrics,
            None => return Err(missing("metrics", "at least one, as {view_count = \"count\"}")),
            Some(_) => return Err(wrong(&at, "a table of metrics, as {view_count = \"count\"}")),
        };
        let metrics = metrics.into_iter().map(|(name, value)| Metric::read(&inside(&at, &name), name, value, known));
        let definition = Self {
            table: name,
            view: table.text("view")?,
            keys,
            metrics: metrics.collect::<Result<_>>()?,
            conditions: Condition::read_all(&table.place("where"), table.list("where")?, known)?,
        };
        definition.target().check()?;
        Ok(definition)
    }

    /// Where its rows go.
    #[must_use]
    pub fn target(&self) -> Target {
        Target {
            name: self.table.clone(),
            keys: self.keys.iter().map(|key| Column::new(&key.name, key.kind)).collect(),
            metrics: self.metrics.iter().map(|metric| Column::new(&metric.name, metric.kind)).collect(),
            view: self.view.clone(),
        }
    }

    /// Every expression in it.
    pub fn each(&mut self, take: &mut impl FnMut(&mut Expression)) {
        self.keys.iter_mut().for_each(|key| key.of.each(take));
        self.metrics.iter_mut().filter_map(Metric::of).for_each(|of| of.each(take));
        self.conditions.iter_mut().for_each(|condition| condition.of.each(take));
    }
}

/// Names what reports are made of: another column, expression or condition is another name.
#[must_use]
pub fn name(definitions: &[Definition]) -> String {
    use sha2::{Digest, Sha256};
    let said: Vec<String> = definitions.iter().map(ToString::to_string).collect();
    Sha256::digest(said.join("\n").as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// What its name is made of.
impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.target().create())?;
        for key in &self.keys {
            writeln!(f, "{} = {}", key.name, key.of)?;
        }
        for metric in &self.metrics {
            writeln!(f, "{} = {}", metric.name, metric.measure)?;
        }
        self.conditions.iter().try_for_each(|condition| writeln!(f, "where {condition}"))
    }
}

impl Key {
    /// A field's name, a list of them, or a table from columns to what they are made of.
    fn read_all(place: &str, value: Json, known: &[Signature]) -> Result<Vec<Self>> {
        let columns = match value {
            Json::String(field) => Self::named(place, vec![Json::String(field)])?,
            Json::Array(items) => Self::named(place, items)?,
            Json::Object(columns) => columns,
            _ => Map::new(),
        };
        if columns.is_empty() {
            return Err(Error::config(format!("{place}: no column"))
                .hint("give a field's name, a list of them, or {column = expression}"));
        }
        let read = |(name, value): (String, Json)| {
            let place = inside(place, &name);
            let typed = value.get("of").is_some() && value.get("call").is_none();
            if !typed {
                let of = Expression::read(&place, value, known)?;
                return Ok(Self { name, kind: of.of_type().column(), of });
            }
            let mut table = Table::open(&place, value, &["of", "type"])?;
            let of = Expression::read(&table.place("of"), table.take("of").unwrap_or(Json::Null), known)?;
            let told = table.text("type")?.map(|word| metric::kind(&table.place("type"), &word)).transpose()?;
            let kind = told.unwrap_or(of.of_type().column());
            if kind == Kind::Double || !of.of_type().fits(kind) {
                return Err(Error::config(format!("{place}: a key of type {} does not hold {of}", kind.sql()))
                    .hint("give another type=, or a function around the field"));
            }
            Ok(Self { name, kind, of })
        };
        columns.into_iter().map(read).collect()
    }

    /// Columns that are named as their fields are.
    fn named(place: &str, fields: Vec<Json>) -> Result<Map<String, Json>> {
        let mut columns = Map::new();
        for field in fields {
            let Json::String(field) = field else {
                return Err(wrong(place, "a list of fields' names; give {column = expression} for anything else"));
            };
            let path = Path::read(place, &field)?;
            let name = path.steps().last().cloned().unwrap_or_default();
            if columns.insert(name.clone(), Json::String(field)).is_some() {
                return Err(Error::config(format!("{place}: {name} stands twice")).hint("give {column = expression}"));
            }
        }
        Ok(columns)
    }
}

/// The reference pipeline's three reports.
fn product_views() -> [Json; 3] {
    let visitors = json!({"count_distinct": "device_id", "longest": 255});
    [
        json!({"table": "product_views_daily", "view": "top_products_daily", "key": "product_id", "metrics": {
            "view_count": "count", "unique_visitors": visitors, "last_view_time": {"max": {"event_time": true}}}}),
        json!({"table": "country_views_daily", "view": "top_countries_daily", "key": "store_id", "metrics": {
            "view_count": "count", "unique_visitors": visitors}}),
        json!({"table": "referrer_views_daily", "view": "top_referrers_daily",
            "key": {"referrer_url": {"of": "referrer_url", "type": "text"}}, "metrics": {"view_count": "count"}}),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::publish::report;

    fn refused(value: Json) -> (String, String) {
        let error = Definition::read_all(Some(value), &[]).expect_err("refused");
        (error.what, error.hint)
    }

    #[test]
    fn the_default_set_is_that_of_the_publication() {
        let tables: Vec<_> = Definition::product_views().expect("fit").iter().map(Definition::target).collect();
        assert_eq!(tables, report::product_views());
    }

    #[test]
    fn definitions_are_read_whole() {
        let all = Definition::read_all(
            Some(json!([PRODUCT_VIEWS, {"table": "t", "key": {"domain": {"domain": "referrer_url"}, "at": {"of":
                {"date_trunc": {"event_time": true}, "unit": "hour"}}, "store.id": {"of": "store.id", "type": "text"}},
                "metrics": {"n": "count", "paid": {"sum": {"number": "price"}}, "first": {"min": "local_time", "type":
                "timestamp"}}, "where": [{"of": {"hour": "local_time"}, "at_least": 8, "below": 18}]}])),
            &[],
        )
        .expect("fit");
        assert_eq!(all.len(), 4);
        assert_eq!(
            all[3].target().create().replace('"', ""),
            "CREATE TABLE t (domain VARCHAR(255) NOT NULL, at TIMESTAMP NOT NULL, store.id TEXT NOT NULL, n BIGINT, \
             paid NUMERIC, first TIMESTAMP, report_date DATE NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)"
        );
        let (one, other) = (name(&all[..3]), name(&all));
        assert_ne!(one, other);
        assert_eq!(one, name(&Definition::product_views().expect("fit")));
    }

    #[test]
    fn what_is_unknown_is_named_with_the_nearest_known() {
        let report = |key: Json, metrics: Json| refused(json!({"table": "t", "key": key, "metrics": metrics}));
        let count = || json!({"n": "count"});
        for ((what, hint), place, near) in [
            (refused(json!({"tabel": "t"})), "reports[0].tabel", "table"),
            (refused(json!("product_view")), "reports[0]", "product_views"),
            (report(json!({"k": {"domian": "u"}}), count()), "reports[0].key.k", "domain"),
            (report(json!({"k": {"query": "u", "nam": "x"}}), count()), "reports[0].key.k.nam", "name"),
            (report(json!({"k": {"date_trunc": "t", "unit": "hours"}}), count()), "key.k.unit", "hour"),
            (report(json!({"k": {"of": "u", "type": "txt"}}), count()), "key.k.type", "text"),
            (report(json!("k"), json!({"n": {"summ": "x"}})), "metrics.n", "sum"),
            (report(json!("k"), json!({"n": "sum"})), "metrics.n", "sum"),
            (report(json!({"k": {"call": "f", "of": "x"}}), count()), "key.k.call", "register"),
            (report(json!({"k": {"lower": {"hour": "x"}}}), count()), "key.k.lower", "function"),
            (report(json!({"k": {"hour": {"lower": "x"}}}), count()), "key.k.hour", "function"),
            (report(json!({"k": {"extract": "x", "pattern": "("}}), count()), "key.k.pattern", "regex"),
            (report(json!("k"), json!({"k": "count"})), "\"k\"", "rename"),
            (report(json!("k"), json!({"n": {"max": {"hour": "x"}, "type": "text"}})), "metrics.n", "type="),
            (report(json!([]), count()), "reports[0].key", "field"),
        ] {
            assert!(what.contains(place), "{what} | {place}");
            assert!(hint.contains(near), "{what} | {hint} | {near}");
        }
    }
}
