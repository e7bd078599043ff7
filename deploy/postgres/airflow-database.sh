#!/bin/sh
# Airflow's metadata beside the reports, in a database and under a user of its own. Runs once, when the data is made.
set -eu
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set password="$AIRFLOW_DATABASE_PASSWORD" <<'SQL'
CREATE ROLE airflow LOGIN PASSWORD :'password';
CREATE DATABASE airflow OWNER airflow;
SQL
