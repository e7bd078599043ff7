//! MongoDB clients and settings.
