//! Whether running API servers have loaded a configuration: each is asked for its metrics.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::apiserver::metrics::{self, Encryption};
use crate::apiserver::{ApiError, Client, Link, id_hash};

use super::Observer;

/// Connections to one address for each API server that etcd knows of: behind a load balancer they
/// lead to one after the other, or to any.
const CONNECTIONS: usize = 6;

/// How soon a wish to end is seen.
const LOOK: Duration = Duration::from_millis(50);

/// Whom to ask about what.
pub struct Options {
    /// Addresses. One that leads to several servers is asked until all have answered.
    pub servers: Vec<Client>,
    /// [`crate::apiserver::hash`] of the configuration file's bytes.
    pub file: String,
    /// API servers that etcd knows of: the names of their Leases, and of their machines.
    pub leases: Vec<(String, String)>,
    /// What servers that do not say what they have loaded are to read.
    pub shown: Option<Shown>,
}

/// Objects that only who has loaded the configuration can read.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The objects.
    pub canaries: Vec<Canary>,
    /// Somebody wants it to end: nobody else is asked, and no answer is waited for.
    pub stop: Arc<AtomicBool>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Canary {
    /// Where it is asked for.
    pub path: String,
    /// Its `data.canary`.
    pub data: serde_json::Value,
}

/// What a server has loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The configuration in question.
    This,
    /// Another file, by the hash of its bytes.
    Other(String),
    /// It does not say, and has read what only the configuration reads.
    Reads,
    /// It does not say, and could not read that, as it says why.
    Cannot(String),
    /// It does not say, and found no such object: it reads elsewhere.
    Absent,
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
    /// Machines whose API server etcd knows of and that did not answer; where some answered
    /// without saying who they are, but not enough, those may be among them.
    pub silent: Vec<String>,
}

impl Outcome {
    /// How many have loaded the configuration.
    #[must_use]
    pub fn confirmed(&self) -> usize {
        self.answered.iter().filter(|a| matches!(a.loaded, Loaded::This | Loaded::Reads)).count()
    }

    /// How many did not say who they are.
    #[must_use]
    pub fn nameless(&self) -> usize {
        self.answered.iter().filter(|a| server_of(&a.metrics).is_none()).count()
    }
}

/// Asks all of them.
///
/// # Errors
/// When no connection can be made for lack of something on this machine.
pub fn run(options: &Options, observer: &mut dyn Observer) -> std::io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut census = Census::new(&options.leases);
    observer.begin("API servers", &mut || Some(options.servers.len() as u64));
    'all: for client in &options.servers {
        let tries = 1.max(CONNECTIONS * options.leases.len());
        for _ in 0..tries {
            match runtime.block_on(unless_stopped(options, ask(client, options))) {
                None => break 'all,
                Some(Err(e)) => {
                    census.outcome.failed.push((client.server().to_owned(), e));
                    break;
                }
                Some(Ok((metrics, loaded))) => {
                    if !census.add(client.server(), metrics, loaded) {
                        break;
                    }
                }
            }
        }
        observer.advance(1);
    }
    observer.end();
    Ok(census.end())
}

/// Who has answered, of those that etcd knows of.
struct Census<'o> {
    /// Hash and machine.
    expected: Vec<(String, &'o str)>,
    seen: BTreeSet<String>,
    outcome: Outcome,
}

impl<'o> Census<'o> {
    fn new(leases: &'o [(String, String)]) -> Self {
        let expected = leases.iter().map(|(lease, host)| (id_hash(lease), &**host)).collect();
        Self { expected, seen: BTreeSet::new(), outcome: Outcome::default() }
    }

    /// Returns whether the same address may lead to somebody who has not answered yet.
    fn add(&mut self, address: &str, metrics: Encryption, loaded: Loaded) -> bool {
        let id = server_of(&metrics);
        // Of those that do not say who they are, each began at its own time. One that does not say
        // that either is taken for the only one at its address.
        let began = metrics.began.map(|at| format!("began {at}"));
        let told_apart = id.is_some() || began.is_some();
        let name = id.clone().or(began).unwrap_or_else(|| address.to_owned());
        if self.seen.insert(name) {
            let host = self.expected.iter().find(|(hash, _)| Some(hash) == id.as_ref());
            self.outcome.answered.push(Answered {
                address: address.to_owned(),
                host: host.map(|(_, host)| (*host).to_owned()),
                loaded,
                metrics,
            });
        }
        told_apart && !self.silent().is_empty()
    }

    /// The machines that etcd knows of and that did not answer: none if as many answered without
    /// saying who they are.
    fn silent(&self) -> Vec<String> {
        let missing = self.expected.iter().filter(|(hash, _)| !self.seen.contains(hash));
        let missing: Vec<String> = missing.map(|(_, host)| (*host).to_owned()).collect();
        if missing.len() <= self.outcome.nameless() { Vec::new() } else { missing }
    }

    fn end(self) -> Outcome {
        let silent = self.silent();
        Outcome { silent, ..self.outcome }
    }
}

/// All on one connection, which leads to one server.
async fn ask(client: &Client, options: &Options) -> Result<(Encryption, Loaded), ApiError> {
    let mut link = client.connect().await?;
    let answer = link.get("/metrics", "text/plain").await?;
    let metrics = metrics::parse(&String::from_utf8_lossy(&answer.body));
    let mut loaded = loaded(&metrics, &options.file);
    if loaded == Loaded::Untold {
        for canary in options.shown.iter().flat_map(|s| &s.canaries) {
            loaded = read(&mut link, canary).await?;
            if loaded != Loaded::Reads {
                break;
            }
        }
    }
    Ok((metrics, loaded))
}

/// Whether a server reads it: without a resource version it looks into etcd, not into its cache,
/// and one that cannot decrypt an object answers 500 (kubernetes/apiserver
/// `pkg/storage/etcd3/store.go`: `Get`).
async fn read(link: &mut Link, canary: &Canary) -> Result<Loaded, ApiError> {
    match link.get(&canary.path, "application/json").await {
        Ok(answer) => {
            let object: serde_json::Value =
                serde_json::from_slice(&answer.body).unwrap_or_default();
            let same = object["data"]["canary"] == canary.data;
            Ok(if same { Loaded::Reads } else { Loaded::Absent })
        }
        Err(ApiError::Status { status: 404, .. }) => Ok(Loaded::Absent),
        Err(ApiError::Status { status: 500, message, .. }) => {
            Ok(Loaded::Cannot(message.unwrap_or_else(|| "it answers 500".to_owned())))
        }
        Err(e) => Err(e),
    }
}

/// What comes of it, or nothing as soon as somebody wants it to end.
async fn unless_stopped<T>(options: &Options, doing: impl Future<Output = T>) -> Option<T> {
    let Some(shown) = &options.shown else { return Some(doing.await) };
    let stopped = async {
        while !shown.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        done = doing => Some(done),
        () = stopped => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(hosts: &[&str]) -> Vec<(String, String)> {
        hosts.iter().map(|h| (format!("apiserver-{h}"), (*h).to_owned())).collect()
    }

    fn began(at: f64) -> Encryption {
        Encryption { began: Some(at), ..Encryption::default() }
    }

    #[test]
    fn who_does_not_say_who_it_is_is_told_by_when_it_began() {
        let leases = leases(&["cp-1", "cp-2"]);
        let mut census = Census::new(&leases);
        assert!(census.add("lb", began(1.5), Loaded::Untold));
        assert!(census.add("lb", began(1.5), Loaded::Untold));
        assert_eq!(census.silent().len(), 2);
        assert!(!census.add("lb", began(2.5), Loaded::Untold));
        let outcome = census.end();
        assert_eq!((outcome.answered.len(), outcome.nameless()), (2, 2));
        assert!(outcome.silent.is_empty());
    }

    #[test]
    fn some_say_who_they_are() {
        let leases = leases(&["cp-1", "cp-2"]);
        let server = Some(id_hash("apiserver-cp-2"));
        let named = Encryption {
            reloads: vec![metrics::Reload { server, success: true, at: 1.0 }],
            ..began(1.5)
        };
        let mut census = Census::new(&leases);
        assert!(census.add("lb", named, Loaded::Untold));
        assert_eq!(census.silent(), ["cp-1"]);
        // Without either it is the only one at its address.
        assert!(!census.add("cp-1", Encryption::default(), Loaded::Untold));
        assert!(census.end().silent.is_empty());
    }
}
