//! PostgreSQL: version, schema, and the rights to make or fill the report tables.

use crate::error::{Error, Result};
use crate::postgres::{connect, told};

/// A server to publish to.
///
/// # Errors
/// `Config` for credentials, an old version or a missing right; `External` when nothing answers.
pub async fn examine(dsn: &str) -> Result<String> {
    let asked = |error| told("postgres: ask", error);
    let connection = connect(dsn).await?;
    let query = "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
        current_database()::text, current_schema()::text,
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)";
    let row = connection.query_one(query, &[]).await.map_err(asked)?;
    let (version, number, name): (String, i32, String) = (row.get(0), row.get(1), row.get(2));
    if number < 120_000 {
        return Err(Error::config(format!("postgres: version {version}")).hint("12 or newer is needed"));
    }
    let schema: Option<String> = row.get(3);
    let schema = schema.ok_or_else(|| {
        Error::config(format!("postgres: no schema of the search path exists in database {name}")).hint("CREATE SCHEMA")
    })?;
    let may_create: bool = row.get(4);
    let query = "SELECT name, to_regclass(path) IS NOT NULL,
            CASE WHEN to_regclass(path) IS NULL THEN true ELSE has_table_privilege(path, 'SELECT')
                AND (name LIKE 'top%' OR has_table_privilege(path, 'INSERT'))
                AND (name NOT LIKE '%views_daily' OR has_table_privilege(path, 'DELETE')) END
        FROM unnest($1::text[]) AS name,
            LATERAL (SELECT quote_ident(current_schema()) || '.' || quote_ident(name) AS path) AS paths";
    let names: Vec<&str> = vec![
        "product_views_daily",
        "country_views_daily",
        "referrer_views_daily",
        "top_products_daily",
        "top_countries_daily",
        "top_referrers_daily",
        "millpond_runs",
    ];
    let found = connection.query(query, &[&names]).await.map_err(asked)?;
    for row in &found {
        let (table, exists, allowed): (String, bool, bool) = (row.get(0), row.get(1), row.get(2));
        if !exists && !may_create {
            return Err(Error::config(format!(
                "postgres: {table} is not there, and this role may not make it in {schema}"
            ))
            .hint(format!("GRANT CREATE, USAGE ON SCHEMA {schema} TO this role")));
        }
        if !allowed {
            return Err(Error::config(format!("postgres: this role may not fill {schema}.{table}"))
                .hint(format!("GRANT SELECT, INSERT, DELETE ON {schema}.{table} TO this role")));
        }
    }
    Ok(format!("version {version}, database {name}, schema {schema}"))
}
