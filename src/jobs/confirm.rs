//! Whether running API servers have loaded a configuration: each is asked for its metrics.

use std::collections::BTreeSet;

use crate::apiserver::metrics::{self, Encryption};
use crate::apiserver::{ApiError, Client, id_hash};

use super::Observer;

/// Connections to one address for each API server that etcd knows of: behind a load balancer they
/// lead to one after the other, or to any.
const CONNECTIONS: usize = 6;

/// Whom to ask about what.
pub struct Options {
    /// Addresses. One that leads to several servers is asked until all have answered.
    pub servers: Vec<Client>,
    /// [`crate::apiserver::hash`] of the configuration file's bytes.
    pub file: String,
    /// API servers that etcd knows of: the names of their Leases, and of their machines.
    pub leases: Vec<(String, String)>,
}

/// What a server has loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The configuration in question.
    This,
    /// Another file, by the hash of its bytes.
    Other(String),
    /// It does not say.
    Untold,
}

/// A server that answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The address that led to it.
    pub address: String,
    /// Its machine, where etcd has its Lease.
    pub host: Option<String>,
    /// What it has loaded.
    pub loaded: Loaded,
    /// All that its metrics say about encryption.
    pub metrics: Encryption,
}

impl Answered {
    /// What to call it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.host.as_deref().unwrap_or(&self.address)
    }
}

/// What was found out.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Servers that answered, each once.
    pub answered: Vec<Answered>,
    /// Addresses that did not, with the reason.
    pub failed: Vec<(String, ApiError)>,
    /// Machines whose API server etcd knows of and that did not answer.
    pub silent: Vec<String>,
}

impl Outcome {
    /// How many have loaded the configuration.
    #[must_use]
    pub fn confirmed(&self) -> usize {
        self.answered.iter().filter(|a| a.loaded == Loaded::This).count()
    }
}

/// Asks all of them.
///
/// # Errors
/// When no connection can be made for lack of something on this machine.
pub fn run(options: &Options, observer: &mut dyn Observer) -> std::io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut outcome = Outcome::default();
    let expected: Vec<(String, &str)> =
        options.leases.iter().map(|(lease, host)| (id_hash(lease), &**host)).collect();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    observer.begin("API servers", &mut || Some(options.servers.len() as u64));
    for client in &options.servers {
        let tries = 1.max(CONNECTIONS * expected.len());
        for _ in 0..tries {
            let metrics = match runtime.block_on(ask(client)) {
                Ok(metrics) => metrics,
                Err(e) => {
                    outcome.failed.push((client.server().to_owned(), e));
                    break;
                }
            };
            let id = server_of(&metrics);
            // A server without an identity is taken for the only one at its address.
            let name = id.clone().unwrap_or_else(|| client.server().to_owned());
            if seen.insert(name) {
                let host = expected.iter().find(|(hash, _)| Some(hash) == id.as_ref());
                outcome.answered.push(Answered {
                    address: client.server().to_owned(),
                    host: host.map(|(_, host)| (*host).to_owned()),
                    loaded: loaded(&metrics, &options.file),
                    metrics,
                });
            }
            if expected.iter().all(|(hash, _)| seen.contains(hash)) || id.is_none() {
                break;
            }
        }
        observer.advance(1);
    }
    observer.end();
    let missing = expected.iter().filter(|(hash, _)| !seen.contains(hash));
    outcome.silent = missing.map(|(_, host)| (*host).to_owned()).collect();
    Ok(outcome)
}

async fn ask(client: &Client) -> Result<Encryption, ApiError> {
    let answer = client.connect().await?.get("/metrics", "text/plain").await?;
    Ok(metrics::parse(&String::from_utf8_lossy(&answer.body)))
}

/// By which hash the server calls itself.
fn server_of(metrics: &Encryption) -> Option<String> {
    let loaded = metrics.loaded.iter().find_map(|l| l.server.clone());
    let reload = || metrics.reloads.iter().find_map(|r| r.server.clone());
    loaded.or_else(reload).or_else(|| metrics.key_ids.iter().find_map(|k| k.server.clone()))
}

fn loaded(metrics: &Encryption, file: &str) -> Loaded {
    match metrics.loaded.as_slice() {
        [] => Loaded::Untold,
        // One after the other is loaded; where both are told, the older one may still be in use.
        all => match all.iter().find(|l| l.file != file) {
            Some(other) => Loaded::Other(other.file.clone()),
            None => Loaded::This,
        },
    }
}
