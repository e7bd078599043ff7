//! PostgreSQL: version, TLS, schema, and the rights to make or fill the report tables.

use crate::aggregate::publish::report::product_views;
use crate::aggregate::publish::tables;
use crate::error::{Error, Result};
use crate::postgres::{connect, told};

/// A server to publish to.
///
/// # Errors
/// `Config` for credentials, an old version, a table in the way or a missing right; `External` when nothing answers.
pub async fn examine(dsn: &str, schema: Option<&str>) -> Result<String> {
    let asked = |error| told("postgres: ask", error);
    let client = connect(dsn).await?;
    let schema = tables::enter(&client, schema).await?;
    let query = "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
        current_database()::text, has_schema_privilege(current_schema(), 'CREATE'),
        (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl)";
    let row = client.query_one(query, &[]).await.map_err(asked)?;
    let (version, number, name): (String, i32, String) = (row.get(0), row.get(1), row.get(2));
    if number < 120_000 {
        return Err(Error::config(format!("postgres: version {version}")).hint("12 or newer is needed"));
    }
    let (may_create, tls): (bool, Option<String>) = (row.get(3), row.get(4));
    if tables::look(&client, &schema, &product_views()).await?.is_none() && !may_create {
        return Err(Error::config(format!(
            "postgres: not all report tables are there, and this role may not make them in {schema}"
        ))
        .hint(format!("GRANT CREATE, USAGE ON SCHEMA {schema} TO this role, or publish once as their owner")));
    }
    let tls = tls.unwrap_or_else(|| "no TLS".into());
    Ok(format!("version {version}, database {name}, schema {schema}, {tls}"))
}
