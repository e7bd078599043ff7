"""Exactly-once Kafka to Kafka to MongoDB to PostgreSQL, native in Airflow."""
