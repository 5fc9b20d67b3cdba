//! A read-only Kubernetes API over any source: `kubectl` and other clients on a backup.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `http` | connections, TLS, who may ask, answers piece by piece |
//! | `identity` | certificate, token, kubeconfig |
//! | `api`, `request`, `status` | one request → one answer, without a network |
//! | `catalogue`, `custom` | which resources there are: built in, defined, merely held |
//! | `discovery`, `openapi`, `access` | what clients learn of them |
//! | `listing`, `selector`, `redact`, `version` | entries → objects, lists, watches |
//! | `table`, `jsonpath` | objects → rows |
//!
//! Entries are decrypted when they are asked for; nothing is kept of them.

mod access;
mod api;
mod catalogue;
mod discovery;
mod http;
mod identity;
mod jsonpath;
mod openapi;
mod redact;
mod request;
mod selector;
mod status;
mod table;
mod version;

pub use api::Api;
pub use http::Server;
pub use identity::{Identity, KubeconfigError};
