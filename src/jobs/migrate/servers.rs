//! Which API servers there are, and what they have loaded: all of them must be able to read what
//! is written.

use std::io;

use super::canary::{self, Leftover, Wanted};
use crate::apiserver::{ApiError, Client};
use crate::jobs::Observer;
use crate::jobs::confirm::{self, Answered, Loaded};
use crate::migrate::servers::{self, Server, Servers};
use crate::source::SourceError;
use crate::source::live::Live;
use crate::transform::Transformers;

/// What to find out.
pub struct Options<'o> {
    /// What the keys of API servers begin with.
    pub bases: &'o [String],
    /// Read what is encrypted of the marks that they leave in etcd.
    pub transformers: &'o Transformers,
    /// None may be running, since entries are to share a transaction.
    pub none: bool,
    /// For how many a configuration was given, all of them the same.
    pub confirmed: usize,
    /// Whom to ask what they have loaded.
    pub ask: Option<Ask>,
    /// Those who do not tell are shown an object, if nothing else speaks against writing.
    pub canary: Option<Wanted<'o>>,
}

/// Whom to ask about what.
pub struct Ask {
    /// A client for each address.
    pub clients: Vec<Client>,
    /// [`crate::apiserver::hash`] of the configuration file's bytes.
    pub file: String,
}

/// Why they may not be what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody knows whether one runs.
    #[error("whether an API server runs cannot be seen in etcd")]
    Unseen(#[source] SourceError),
    /// One runs although none may.
    #[error("an API server may be running: {} says so", .0.key)]
    Running(Server),
    /// A mark cannot be read, so that nobody knows whether one runs.
    #[error("whether an API server runs is unknown: {0} cannot be read")]
    Unreadable(String),
    /// This machine lacks something that asking needs.
    #[error("the API servers cannot be asked")]
    Ask(#[source] io::Error),
    /// Who reads a canary is not known.
    #[error(transparent)]
    Canary(#[from] canary::Error),
}

/// What is known of the API servers on this etcd.
#[derive(Clone, Debug)]
pub struct Known {
    /// How many etcd knows of; none if that cannot be read.
    pub seen: Option<usize>,
    /// Their machines or addresses.
    pub names: Vec<String>,
    /// For how many a configuration was given, all of them the same; or, where they were asked,
    /// how many have loaded it.
    pub confirmed: usize,
    /// Why the number is not known, or may be too small.
    pub reason: Option<String>,
    /// What the servers themselves said, where they were asked.
    pub asked: Option<Vec<Answered>>,
}

impl Known {
    /// Whether all that etcd knows of are known to have the configuration, or were asked: more
    /// cannot be checked from here.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        let all = || self.seen.is_none_or(|seen| seen <= self.confirmed);
        self.asked.is_some() || (self.confirmed > 1 && all())
    }
}

/// Why nothing is to be written.
#[derive(Debug)]
pub enum Obstacle {
    /// A server has loaded another file.
    Other {
        /// The server.
        name: String,
        /// The file's hash.
        file: String,
    },
    /// A server does not say what it has loaded.
    Untold {
        /// The server.
        name: String,
        /// Its version.
        version: Option<String>,
    },
    /// A server does not read what is written by the configuration.
    Cannot {
        /// The server.
        name: String,
        /// What it says.
        why: String,
    },
    /// A server has no such object: it reads another etcd, or under another prefix.
    Elsewhere(String),
    /// The configuration writes these resources with keys that no canary shows.
    Unshown(Vec<String>),
    /// An address does not answer.
    NoAnswer {
        /// The address.
        address: String,
        /// Why.
        why: ApiError,
    },
    /// An API server that etcd knows of was not reached.
    Silent(String),
    /// Fewer answered than etcd knows of.
    Fewer {
        /// How many answered.
        answered: usize,
        /// How many there are.
        seen: usize,
    },
}

/// What was found out.
pub struct Outcome {
    /// What is known.
    pub known: Known,
    /// What speaks against writing.
    pub obstacles: Vec<Obstacle>,
    /// Canaries of other runs.
    pub leftovers: Vec<Leftover>,
}

/// Looks into etcd and, where that is wanted, asks the servers.
///
/// # Errors
/// See [`Error`].
pub fn run(
    live: &mut Live,
    options: &Options<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let now = jiff::Timestamp::now();
    let found = servers::find(live, options.bases, options.transformers, now);
    let found = if options.none { Ok(none(found)?) } else { found };
    let confirmed = options.confirmed;
    let (mut known, found) = match found {
        Ok(found) => {
            let unread = found.unreadable.len();
            let reason = (unread > 0)
                .then(|| format!("{unread} Leases of API servers in etcd cannot be read"));
            let names = found.names().into_iter().map(str::to_owned).collect();
            let seen = (found.count() > 0 || unread == 0).then(|| found.count());
            (Known { seen, names, confirmed, reason, asked: None }, found)
        }
        Err(e) => {
            observer.note(&format!("how many API servers there are cannot be seen in etcd: {e}"));
            let (names, reason) = (Vec::new(), Some(e.to_string()));
            (Known { seen: None, names, confirmed, reason, asked: None }, Servers::default())
        }
    };
    let Some(Ask { clients, file }) = &options.ask else {
        return Ok(Outcome { known, obstacles: Vec::new(), leftovers: Vec::new() });
    };
    let ask = confirm::Options {
        servers: clients.clone(),
        file: file.clone(),
        leases: found.identities(),
        shown: None,
    };
    let said = confirm::run(&ask, observer).map_err(Error::Ask)?;
    let mut obstacles = told(&mut known, said);
    let mut leftovers = Vec::new();
    if let Some(wanted) = &options.canary {
        leftovers = canary::leftovers(live, options.bases).map_err(Error::Unseen)?;
        let (untold, others): (Vec<_>, Vec<_>) = obstacles.into_iter().partition(is_untold);
        obstacles = others;
        if obstacles.is_empty() && !untold.is_empty() {
            obstacles = match canary::resources(wanted.config) {
                Err(unshown) => vec![Obstacle::Unshown(unshown)],
                Ok(_) if !wanted.apply => untold,
                Ok(resources) => {
                    let base = options.bases.first().map(String::as_str).unwrap_or_default();
                    let by = (base, options.transformers);
                    let ask = (ask, &wanted.stop);
                    let said = canary::ask(live, by, &resources, ask, observer)?;
                    told(&mut known, said)
                }
            };
        }
    }
    Ok(Outcome { known, obstacles, leftovers })
}

fn is_untold(obstacle: &Obstacle) -> bool {
    matches!(obstacle, Obstacle::Untold { .. })
}

/// Notes what the servers said. Returns what speaks against writing.
fn told(known: &mut Known, said: confirm::Outcome) -> Vec<Obstacle> {
    known.confirmed = said.confirmed();
    known.asked = Some(said.answered.clone());
    obstacles(known, said)
}

/// That none is running.
fn none(found: Result<Servers, SourceError>) -> Result<Servers, Error> {
    let found = found.map_err(Error::Unseen)?;
    if let Some(server) = found.running() {
        return Err(Error::Running(server.clone()));
    }
    match found.unreadable.first() {
        Some(key) => Err(Error::Unreadable(key.clone())),
        None => Ok(found),
    }
}

fn obstacles(known: &Known, said: confirm::Outcome) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    let (answered, nameless) = (said.answered.len(), said.nameless());
    for server in said.answered {
        let name = server.name().to_owned();
        match server.loaded {
            Loaded::This | Loaded::Reads => {}
            Loaded::Cannot(why) => obstacles.push(Obstacle::Cannot { name, why }),
            Loaded::Absent => obstacles.push(Obstacle::Elsewhere(name)),
            Loaded::Other(file) => obstacles.push(Obstacle::Other { name, file }),
            Loaded::Untold => {
                obstacles.push(Obstacle::Untold { name, version: server.metrics.version });
            }
        }
    }
    let no_answer = |(address, why)| Obstacle::NoAnswer { address, why };
    obstacles.extend(said.failed.into_iter().map(no_answer));
    let seen = match said.silent.len() {
        0 => known.seen.filter(|seen| *seen > answered && obstacles.iter().all(is_untold)),
        // Nobody knows which of them it was that answered.
        silent if nameless > 0 => Some(answered - nameless + silent),
        _ => None,
    };
    match seen {
        Some(seen) => obstacles.push(Obstacle::Fewer { answered, seen }),
        None => obstacles.extend(said.silent.into_iter().map(Obstacle::Silent)),
    }
    obstacles
}
