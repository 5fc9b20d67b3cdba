//! Counts for Prometheus: what is kept of the entries, what is published of them, and the socket
//! it is published on. Only the `exporter` command opens it.

mod http;
mod ledger;
mod metrics;

pub use http::{Listener, ListenerError, Tls};
pub use ledger::Ledger;
pub use metrics::{Form, Metrics, Series};
