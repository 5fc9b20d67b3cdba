//! `atrest config`: validate a configuration, say which provider serves a resource, create one,
//! produce the next step of a key rotation.

pub mod read;
