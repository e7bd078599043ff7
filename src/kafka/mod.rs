//! Kafka clients and settings; `native` holds the only unsafe calls.
