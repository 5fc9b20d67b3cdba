//! Every object of the resources that are asked for, stored anew by an API server: what is left to
//! do where etcd is out of reach, so that nobody knows which objects need it.

pub mod progress;

use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use self::progress::Progress;
use super::write::REQUESTS;
use crate::apiserver::Client;
use crate::apiserver::objects::{Object, Served};
use crate::jobs::Observer;
use crate::migrate::apply::Stop;
use crate::migrate::followed::{Ended, Followed};
use crate::migrate::plan::Failed;
use crate::migrate::via_api::Pace;
use crate::migrate::via_api::cluster::{Migrator, Unmade};
use crate::migrate::via_api::whole::{Api, Outcome as Done, Unlisted};
use crate::resource::Selector;

/// Objects after which it is noted how far a run has come.
const STEP: usize = 500;

/// What to rewrite, and how.
pub struct Options<'o> {
    /// The server that writes.
    pub client: &'o Client,
    /// Which resources.
    pub resources: &'o [Selector],
    /// Which namespaces; empty is all, and objects without one.
    pub namespaces: &'o [String],
    /// Requests at once; otherwise what is usual.
    pub concurrency: Option<u32>,
    /// Objects a second, at most.
    pub qps: Option<f64>,
    /// Somebody wants it to end.
    pub stop: &'o AtomicBool,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not answer, or refuses.
    #[error("the API server cannot be asked what it serves")]
    Discovery(#[source] Stop),
    /// It ended while objects were listed.
    #[error("the API server's objects cannot be listed")]
    List(#[source] Stop),
    /// Somebody wanted it to end.
    #[error("interrupted before anything was written")]
    Interrupted,
    /// How far it has come cannot be noted.
    #[error("cannot note how far it has come")]
    Note(#[source] std::io::Error),
}

/// One resource.
#[derive(Debug)]
pub struct Share {
    /// Its qualified name.
    pub resource: String,
    /// Its objects.
    pub objects: u64,
    /// Of these, objects that an earlier run has dealt with.
    pub before: u64,
    /// Objects that the server stored anew.
    pub written: u64,
    /// Objects that were current to the server.
    pub current: u64,
}

/// What was planned and, if so wanted, done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The resources, in the order in which they are dealt with.
    pub shares: Vec<Share>,
    /// What was asked for and is not served.
    pub absent: Vec<Selector>,
    /// Namespaces that were asked for and are none.
    pub no_namespaces: Vec<String>,
    /// Groups and resources of which nothing is known, with the reason.
    pub silent: Vec<(String, String)>,
    /// How often somebody else changed an object at the same time.
    pub conflicts: u64,
    /// Objects that somebody else deleted before their turn.
    pub deleted: u64,
    /// Objects that were not dealt with.
    pub failed: Vec<Failed>,
    /// Migrations of the cluster's own that were followed.
    pub migrations: Vec<Followed>,
    /// Why the writing ended early.
    pub stop: Option<Stop>,
}

impl Outcome {
    fn sum(&self, of: impl Fn(&Share) -> u64) -> u64 {
        self.shares.iter().map(of).sum()
    }

    /// Objects of the plan.
    #[must_use]
    pub fn planned(&self) -> u64 {
        self.sum(|s| s.objects - s.before)
    }

    /// Objects that an earlier run has dealt with.
    #[must_use]
    pub fn before(&self) -> u64 {
        self.sum(|s| s.before)
    }

    /// Objects that the server stored anew.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.sum(|s| s.written)
    }

    /// Objects that were current to the server.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.sum(|s| s.current)
    }

    fn add(&mut self, at: usize, done: Done) {
        self.shares[at].written += done.written;
        self.shares[at].current += done.current;
        self.conflicts += done.conflicts;
        self.deleted += done.deleted;
        self.failed.extend(done.failed);
        self.stop = done.stop;
    }
}

/// What is to be stored anew.
pub struct Plan {
    /// What was found out; nothing is done yet.
    pub outcome: Outcome,
    /// Each resource, and what of it is to be stored anew.
    todo: Vec<(Served, Vec<Object>)>,
}

/// Has the server store anew what is planned. `note` is told how far it has come, after each step.
///
/// # Errors
/// When that cannot be noted. What ends the writing itself is told by [`Outcome::stop`].
pub fn apply(
    options: &Options<'_>,
    plan: Plan,
    progress: &mut Progress,
    note: &mut dyn FnMut(&Progress) -> std::io::Result<()>,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let api = Api::new(options.client, pace(options, options.qps), options.stop);
    let Plan { mut outcome, todo } = plan;
    let total = outcome.planned();
    observer.begin("objects", &mut || Some(total));
    for (at, (served, objects)) in todo.iter().enumerate() {
        for step in objects.chunks(STEP) {
            let done = write(&api, served, step, observer);
            if done.stop.is_none() {
                progress.passed(&served.resource(), step, &done.failed);
            }
            outcome.add(at, done);
            if outcome.stop.is_some() {
                observer.end();
                return Ok(outcome);
            }
            note(progress).map_err(Error::Note)?;
        }
    }
    observer.end();
    Ok(outcome)
}

/// Whether the cluster can migrate by itself.
///
/// # Errors
/// When it cannot, or the server does not answer.
pub fn migrator(client: &Client, stop: &AtomicBool) -> Result<Migrator, super::Error> {
    let api = Api::new(client, Pace { concurrency: 1, qps: None }, stop);
    match api.migrator() {
        Ok(Ok(migrator)) => Ok(migrator),
        Ok(Err(reason)) => Err(super::Error::NoMigrator(reason)),
        Err(Stop::Interrupted) => Err(super::Error::Interrupted),
        Err(stop) => Err(super::Error::Api(stop)),
    }
}

/// Has the cluster migrate the planned resources by itself, one after the other.
pub fn by_cluster(
    options: &Options<'_>,
    migrator: &Migrator,
    plan: Plan,
    observer: &mut dyn Observer,
) -> Outcome {
    let api = Api::new(options.client, pace(options, None), options.stop);
    let Plan { mut outcome, todo } = plan;
    observer.begin("resources", &mut || Some(todo.len() as u64));
    for (served, _) in &todo {
        let resource = served.resource();
        let reason = match api.migrate(migrator, served) {
            Ok((followed, stop)) => {
                let failed = match &followed.ended {
                    Ended::Failed(why) => {
                        Some(format!("the migration {} failed: {why}", followed.name))
                    }
                    _ => None,
                };
                outcome.migrations.push(followed);
                outcome.stop = stop;
                failed
            }
            Err(Unmade::Refused(reason)) => Some(reason),
            Err(Unmade::Stop(stop)) => {
                outcome.stop = Some(stop);
                None
            }
        };
        if let Some(reason) = reason {
            outcome.failed.push(Failed { key: b"*".to_vec(), resource, reason });
        }
        if outcome.stop.is_some() {
            break;
        }
        observer.advance(1);
    }
    observer.end();
    outcome
}

fn pace(options: &Options<'_>, qps: Option<f64>) -> Pace {
    Pace { concurrency: options.concurrency.unwrap_or(REQUESTS), qps }
}

/// Lists what there is to do, without what `progress` has already.
///
/// # Errors
/// See [`Error`].
pub fn plan(
    options: &Options<'_>,
    progress: &Progress,
    observer: &mut dyn Observer,
) -> Result<Plan, Error> {
    // Listing is no writing, so that it has no rate.
    let api = Api::new(options.client, pace(options, None), options.stop);
    let ended = |stop, error: fn(Stop) -> Error| match stop {
        Stop::Interrupted => Error::Interrupted,
        stop => error(stop),
    };
    let found = api.discover(options.resources).map_err(|s| ended(s, Error::Discovery))?;
    let mut outcome = Outcome { absent: found.absent, silent: found.silent, ..Outcome::default() };
    let mut todo = Vec::new();
    observer.begin("resources", &mut || Some(found.resources.len() as u64));
    for served in &found.resources {
        let resource = served.resource();
        let objects = match api.list(served, options.namespaces) {
            Ok(objects) => objects,
            Err(Unlisted::Refused(reason)) => {
                outcome.silent.push((resource, reason));
                continue;
            }
            Err(Unlisted::Stop(stop)) => return Err(ended(stop, Error::List)),
        };
        let all = objects.len() as u64;
        let left = progress.left(&resource, objects);
        let before = all - left.len() as u64;
        outcome.shares.push(Share { resource, objects: all, before, written: 0, current: 0 });
        todo.push((served.clone(), left));
        observer.advance(1);
    }
    observer.end();
    for name in options.namespaces {
        let within = |o: &Object| o.namespace.as_ref() == Some(name);
        if !todo.iter().any(|(_, objects)| objects.iter().any(within))
            && !api.has_namespace(name).map_err(|s| ended(s, Error::List))?
        {
            outcome.no_namespaces.push(name.clone());
        }
    }
    Ok(Plan { outcome, todo })
}

/// Has some objects stored anew.
fn write(api: &Api<'_>, served: &Served, step: &[Object], observer: &mut dyn Observer) -> Done {
    // An observer is told by one thread only, whichever of them get on.
    let done = std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let writing = scope.spawn(move || {
            api.rewrite(served, step, &|n| {
                // Nobody listens any more only when this is over.
                let _ = tell.send(n);
            })
        });
        for n in told {
            observer.advance(n);
        }
        writing.join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
