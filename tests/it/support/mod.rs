//! What the tests stand on: the binary, the corpus, certificates, real etcd servers and plugins.

#![allow(dead_code)] // not every helper has a user in every state of the tests

pub mod age;
pub mod apiserver;
pub mod archives;
pub mod bin;
pub mod browser;
pub mod bucket;
pub mod certs;
pub mod cluster;
pub mod corpus;
pub mod database;
pub mod etcd;
pub mod fake_etcd;
pub mod kms_plugin;
pub mod nats;
pub mod openapi;
pub mod pages;
pub mod plugs;
pub mod proxy;
pub mod random;
pub mod served;
pub mod snapshot;
pub mod tools;

pub use bin::bin;
pub use etcd::{Etcd, Version};

/// A made-up Secret with some text in it, as stored: JSON, which the API server reads too.
pub fn secret(text: &str) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"Secret","stringData":{{"v":"{text}"}}}}"#)
}
