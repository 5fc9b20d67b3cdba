//! What can go wrong on the way to an API server.

use std::time::Duration;

/// Why an API server did not answer. Holds nothing of what was sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address is none.
    #[error("`{0}` is no address of an API server (https://HOST:PORT)")]
    Address(String),
    /// Certificates that cannot be used.
    #[error("{0}")]
    Setup(String),
    /// No connection.
    #[error("cannot connect to {server}")]
    Connect {
        /// Where.
        server: String,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// The connection broke, or what came is no HTTP.
    #[error("{server} did not answer")]
    Broken {
        /// Where.
        server: String,
        /// Why.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{server} did not answer within {time:?}")]
    Timeout {
        /// Where.
        server: String,
        /// How long was waited.
        time: Duration,
    },
    /// It answered with an error.
    #[error("{server} answers {status} to {what}{}", message.as_ref().map_or(String::new(), |m| format!(": {m}")))]
    Status {
        /// Where.
        server: String,
        /// The HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
        /// What it says about it.
        message: Option<String>,
    },
}
