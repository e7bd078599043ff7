//! The tables of a publication: made when absent under one lock, refused when something else stands in their place. It
//! refuses to change what a table of another shape holds.
//!
//! A table gets its index with its first rows, once they are there: to keep it up row by row took more than half of the
//! server's time (`docs/performance.md`; the manual's chapter "Populating a Database").

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, GenericClient, Row};

use super::report::{CREATED, DATE, Table};
use super::{begin, failed, ledger};
use crate::error::{Error, Result};
use crate::postgres::columns::{Kind, quoted};

/// Serialises the making of tables among all runs: "millpond" as a number.
pub const DDL_LOCK: i64 = 0x6d69_6c6c_706f_6e64;
const WHAT: &str = "postgres: make the report tables";
/// Of a table `c`: no index finds its dates, and this role may make one.
const BARE: &str = "c.relkind = 'r' AND pg_has_role(c.relowner, 'USAGE')
    AND has_schema_privilege(c.relnamespace, 'CREATE') AND NOT EXISTS (
        SELECT FROM pg_index i JOIN pg_attribute d ON d.attrelid = i.indrelid AND d.attnum = i.indkey[0]
        WHERE i.indrelid = c.oid AND d.attname = 'report_date')";

/// Where a publication goes.
#[derive(Debug, Clone)]
pub struct Place {
    pub schema: String,
    /// By table: what the advisory locks are named after.
    pub oids: BTreeMap<String, u32>,
    /// Tables that were empty and without an index on the date: they get it with their first rows.
    bare: BTreeSet<String>,
}

impl Place {
    /// A table's name with its schema, as SQL.
    #[must_use]
    pub fn of(&self, table: &str) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(table))
    }

    /// Whether a run may be the first to write some table, which it has to do alone.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        !self.bare.is_empty()
    }

    /// Makes the index of a table that was empty without one, unless another run did meanwhile.
    ///
    /// # Errors
    /// As [`crate::postgres::told`].
    pub async fn index(&self, client: &impl GenericClient, table: &str) -> Result<()> {
        let Some(oid) = self.oids.get(table).filter(|_| self.bare.contains(table)) else { return Ok(()) };
        let what = || format!("postgres: index of {table}");
        let query = format!("SELECT FROM pg_class c WHERE c.oid = $1 AND {BARE}");
        if client.query_opt(&query, &[oid]).await.map_err(failed(what()))?.is_some() {
            let command = format!("CREATE INDEX ON {} ({DATE})", self.of(table));
            client.batch_execute(&command).await.map_err(failed(what()))?;
        }
        Ok(())
    }
}

/// What the catalog says of a name.
struct Relation {
    kind: String,
    oid: u32,
    /// A rule would do something else than what we say, a policy hides rows from a DELETE.
    rules: bool,
    policies: bool,
    /// As [`BARE`] says.
    bare: bool,
    rights: Vec<(&'static str, bool)>,
    columns: Vec<Found>,
}

struct Found {
    name: String,
    kind: String,
    /// Somebody has to fill it.
    needed: bool,
    generated: bool,
}

/// A column that has to be there.
#[derive(Clone)]
struct Need {
    name: String,
    /// As the catalog spells its type.
    spelled: String,
    /// What its values need; otherwise the type itself.
    kind: Option<Kind>,
}

impl Need {
    fn of(name: String, kind: Kind) -> Self {
        Self { name, spelled: kind.catalog(), kind: Some(kind) }
    }

    fn spelled(name: &str, spelled: &str) -> Self {
        Self { name: name.to_owned(), spelled: spelled.to_owned(), kind: None }
    }

    fn fits(&self, found: &str) -> bool {
        self.kind.map_or(found == self.spelled, |kind| kind.fits(found))
    }
}

/// Makes tables, views and ledger when absent, in the first schema of the search path (or in `schema`), and
/// refuses what does not fit.
///
/// # Errors
/// `Config` with the difference, or for a missing right.
pub async fn ensure(client: &mut Client, schema: Option<&str>, tables: &[Table]) -> Result<Place> {
    let schema = enter(client, schema).await?;
    // Almost always all is there: then nobody waits for a lock.
    if let Some(place) = look(client, &schema, tables).await? {
        return Ok(place);
    }
    let transaction = begin(client, WHAT).await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&DDL_LOCK]).await.map_err(failed(WHAT))?;
    let mut found = relations(&transaction, tables).await?;
    for table in tables {
        let what = format!("postgres: table {}", table.name);
        if !found.contains_key(&table.name) {
            transaction.batch_execute(&table.create()).await.map_err(failed(what))?;
        }
        if let Some((view, command)) = table.view.as_ref().zip(table.create_view())
            && !found.contains_key(view)
        {
            transaction.batch_execute(&command).await.map_err(failed(format!("postgres: view {view}")))?;
        }
    }
    match found.remove(ledger::NAME) {
        None => transaction.batch_execute(ledger::CREATE).await.map_err(failed("postgres: table millpond_runs"))?,
        Some(found) => {
            let missing = ledger::columns().filter(|column| found.column(column.name).is_none());
            for (name, kind) in missing.filter_map(|column| Some((column.name, column.added?))) {
                let command = format!("ALTER TABLE {} ADD COLUMN {name} {kind}", ledger::NAME);
                transaction.batch_execute(&command).await.map_err(|error| {
                    let mut error = failed("postgres: table millpond_runs is of an older version")(error);
                    error.hint = format!("let its owner run: {command}");
                    error
                })?;
            }
        }
    }
    transaction.commit().await.map_err(failed(WHAT))?;
    let place = look(client, &schema, tables).await?;
    place.ok_or_else(|| Error::external(format!("{WHAT}: they went away as soon as they were made")))
}

/// Sets the session's schema and returns its name; that of the search path without one.
///
/// # Errors
/// `Config` when there is none, or this role may not use it.
pub async fn enter(client: &Client, schema: Option<&str>) -> Result<String> {
    let what = "postgres: enter the schema";
    if let Some(schema) = schema {
        let query = "SELECT set_config('search_path', quote_ident($1), false)";
        client.execute(query, &[&schema]).await.map_err(failed(what))?;
    }
    let query = "SELECT current_schema()::text, EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
    let row = client.query_one(query, &[&schema.unwrap_or_default()]).await.map_err(failed(what))?;
    match (row.get::<_, Option<String>>(0), schema) {
        (Some(found), _) => Ok(found),
        (None, Some(schema)) if row.get(1) => {
            Err(Error::config(format!("postgres: this role may not use schema {schema}"))
                .hint(format!("GRANT USAGE ON SCHEMA {} TO this role", quoted(schema))))
        }
        (None, Some(schema)) => Err(Error::config(format!("postgres: there is no schema {schema}"))
            .hint(format!("CREATE SCHEMA {}", quoted(schema)))),
        (None, None) => Err(Error::config("postgres: no schema of the search path exists, or may be used")
            .hint("create one, GRANT USAGE ON it, or give schema=")),
    }
}

async fn refuse_unfit_server(client: &Client) -> Result<()> {
    let query = "SELECT current_setting('server_encoding'), current_database()::text, pg_is_in_recovery()";
    let row = client.query_one(query, &[]).await.map_err(failed("postgres: ask the server"))?;
    let (encoding, database): (String, String) = (row.get(0), row.get(1));
    if encoding != "UTF8" {
        return Err(Error::config(format!("postgres: database {database} is encoded in {encoding}"))
            .hint("reports hold any text: use a database of ENCODING 'UTF8'"));
    }
    if row.get(2) {
        return Err(Error::config("postgres: the server is a standby, which takes no reports")
            .hint("name the primary, or all hosts with target_session_attrs=read-write"));
    }
    Ok(())
}

/// The place of the publication; `None` when something has to be made first.
///
/// # Errors
/// `Config` naming what does not fit, a server that takes no reports, or a missing right.
pub async fn look(client: &Client, schema: &str, tables: &[Table]) -> Result<Option<Place>> {
    refuse_unfit_server(client).await?;
    let found = relations(client, tables).await?;
    let mut whole = true;
    let (mut oids, mut bare) = (BTreeMap::new(), BTreeSet::new());
    for table in tables {
        if let Some(view) = &table.view {
            match found.get(view) {
                None => whole = false,
                Some(relation) => relation.refuse_no_view(schema, view)?,
            }
        }
        let Some(relation) = found.get(&table.name) else {
            whole = false;
            continue;
        };
        let needs: Vec<Need> = table.columns().into_iter().map(|column| Need::of(column.name, column.kind)).collect();
        let created = Need::of(CREATED.to_owned(), Kind::Timestamp);
        relation.refuse_unfit(schema, &table.name, &[needs, vec![created]].concat())?;
        oids.insert(table.name.clone(), relation.oid);
        if relation.bare && is_empty(client, schema, &table.name).await? {
            bare.insert(table.name.clone());
        }
    }
    match found.get(ledger::NAME) {
        None => whole = false,
        Some(relation) => {
            // An older version's has fewer columns, of the same types.
            let there =
                ledger::columns().filter(|column| column.added.is_none() || relation.column(column.name).is_some());
            let needs: Vec<Need> = there.map(|column| Need::spelled(column.name, column.kind)).collect();
            whole &= needs.len() == ledger::columns().count();
            relation.refuse_unfit(schema, ledger::NAME, &needs)?;
        }
    }
    Ok(whole.then(|| Place { schema: schema.to_owned(), oids, bare }))
}

async fn is_empty(client: &Client, schema: &str, table: &str) -> Result<bool> {
    let query = format!("SELECT NOT EXISTS (SELECT FROM {}.{})", quoted(schema), quoted(table));
    let row = client.query_one(&query, &[]).await.map_err(failed(format!("postgres: look into {table}")))?;
    Ok(row.get(0))
}

async fn relations(client: &impl GenericClient, tables: &[Table]) -> Result<BTreeMap<String, Relation>> {
    let views = tables.iter().filter_map(|table| table.view.as_deref());
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).chain(views).chain([ledger::NAME]).collect();
    // Not information_schema: it hides the columns of which this role has no right.
    let query = format!(
        "SELECT c.relname::text, c.relkind::text, c.oid, c.relhasrules, c.relrowsecurity AND
                row_security_active(c.oid), has_any_column_privilege(c.oid, 'SELECT'),
                has_any_column_privilege(c.oid, 'INSERT'), has_table_privilege(c.oid, 'DELETE'),
                a.attname::text, format_type(a.atttypid, a.atttypmod),
                a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', a.attgenerated <> '' OR a.attidentity = 'a',
                {BARE}
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
                AND c.relname = ANY($1) AND c.relkind <> 'i'
            ORDER BY c.relname, a.attnum"
    );
    let rows = client.query(&query, &[&names]).await.map_err(failed(WHAT))?;
    let mut found: BTreeMap<String, Relation> = BTreeMap::new();
    for row in &rows {
        found.entry(row.get(0)).or_insert_with(|| Relation::of(row)).columns.push(Found {
            name: row.get(8),
            kind: row.get(9),
            needed: row.get(10),
            generated: row.get(11),
        });
    }
    Ok(found)
}

impl Relation {
    fn of(row: &Row) -> Self {
        Self {
            kind: row.get(1),
            oid: row.get(2),
            rules: row.get(3),
            policies: row.get(4),
            bare: row.get(12),
            rights: vec![("SELECT", row.get(5)), ("INSERT", row.get(6)), ("DELETE", row.get(7))],
            columns: Vec::new(),
        }
    }

    fn column(&self, name: &str) -> Option<&Found> {
        self.columns.iter().find(|column| column.name == name)
    }

    fn kind(&self) -> &'static str {
        match self.kind.as_str() {
            "r" => "a table",
            "v" => "a view",
            "m" => "a materialized view",
            "f" => "a foreign table",
            "p" => "a partitioned table",
            "S" => "a sequence",
            "c" => "a composite type",
            _ => "no table",
        }
    }

    /// A view of that name is whoever's; anything else would be taken for the ranking by its readers.
    fn refuse_no_view(&self, schema: &str, name: &str) -> Result<()> {
        if matches!(self.kind.as_str(), "v" | "m") {
            return Ok(());
        }
        Err(Error::config(format!("postgres: view {name}: what has that name in {schema} is {}", self.kind()))
            .hint("rename it, or give another schema="))
    }

    /// What stands there must be a table that takes what we write and gives back what we delete.
    fn refuse_unfit(&self, schema: &str, name: &str, columns: &[Need]) -> Result<()> {
        let what = format!("postgres: table {name}");
        let elsewhere = "rename it, or give another schema=";
        if self.kind != "r" {
            let kind = self.kind();
            return Err(Error::config(format!("{what}: what has that name in {schema} is {kind}")).hint(elsewhere));
        }
        if self.rules || self.policies {
            let which = if self.rules { "rules" } else { "row-level security" };
            return Err(
                Error::config(format!("{what} has {which}: rows would not be replaced as we say")).hint(elsewhere)
            );
        }
        for column in columns {
            let is = match self.column(&column.name) {
                Some(found) if found.generated => "generated by the server".to_owned(),
                Some(found) if column.fits(&found.kind) => continue,
                Some(found) => format!("{}, not {}", found.kind, column.spelled),
                None => format!("missing, not {}", column.spelled),
            };
            return Err(Error::config(format!("{what}: column {} is {is}", column.name)).hint(elsewhere));
        }
        let ours = |name: &str| columns.iter().any(|column| column.name == name);
        if let Some(extra) =
            self.columns.iter().find(|column| column.needed && !column.generated && !ours(&column.name))
        {
            return Err(Error::config(format!("{what}: column {} is not ours and has to be filled", extra.name))
                .hint(format!("give it a default; or {elsewhere}")));
        }
        let missing =
            self.rights.iter().filter(|(right, given)| !given && (*right != "DELETE" || name != ledger::NAME));
        let missing: Vec<&str> = missing.map(|(right, _)| *right).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(Error::config(format!("{what}: this role may not {missing}")).hint(format!(
            "GRANT {missing} ON {}.{} TO this role",
            quoted(schema),
            quoted(name)
        )))
    }
}
