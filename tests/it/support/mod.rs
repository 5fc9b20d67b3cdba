//! What several tests need.

pub mod kms_plugin;
