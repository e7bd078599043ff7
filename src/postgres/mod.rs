//! PostgreSQL connections: every libpq form of a DSN, TLS by `sslmode`, never a downgrade.
