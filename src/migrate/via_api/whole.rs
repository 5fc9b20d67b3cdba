//! Every object of a resource, stored anew by an API server, where nobody knows what lies in etcd.
//!
//! Their metadata are listed, and each gets the write that [`super`] sends to what is stale. That
//! the server stored an object anew is seen by its new resourceVersion; one that keeps it was
//! current to that server. What lies in etcd is not seen.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::StatusCode;

use super::send::{Line, Reply, Sender, message};
use super::{AGAIN, MAX_TRIES, Pace, Patch, is_of_object};
use crate::apiserver::objects::{self, METADATA, METADATA_LIST, Object, Served, encoded};
use crate::apiserver::{Answer, Client};
use crate::migrate::apply::Stop;
use crate::migrate::plan::Failed;
use crate::resource::{Selector, group_of};

/// Objects of a page.
const PAGE: usize = 500;
/// How often a list is begun anew whose place has expired.
const MAX_LISTS: u32 = 5;
const JSON: &str = "application/json";

/// What the server serves of what was asked for.
#[derive(Debug, Default)]
pub struct Discovered {
    /// Resources whose objects can be listed and stored anew.
    pub resources: Vec<Served>,
    /// Selectors that fit none of them.
    pub absent: Vec<Selector>,
    /// Groups that nobody answers for, with the reason.
    pub silent: Vec<(String, String)>,
}

/// Why there is no list.
#[derive(Debug)]
pub enum Unlisted {
    /// The server refuses.
    Refused(String),
    /// It is over.
    Stop(Stop),
}

impl From<Stop> for Unlisted {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// What came of the objects.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Objects that the server stored anew.
    pub written: u64,
    /// Objects that were current to the server.
    pub current: u64,
    /// How often somebody else changed an object at the same time.
    pub conflicts: u64,
    /// Objects that somebody else deleted before their turn.
    pub deleted: u64,
    /// Objects that were not dealt with, by their places.
    pub failed: Vec<Failed>,
    /// Why it ended early.
    pub stop: Option<Stop>,
}

/// A server to which everything goes through one throttle.
pub struct Api<'a>(Sender<'a>, u32);

impl<'a> Api<'a> {
    /// To `client`'s server, until `interrupted`.
    pub fn new(
        client: &'a Client,
        pace: Pace,
        interrupted: &'a std::sync::atomic::AtomicBool,
    ) -> Self {
        Self(Sender::new(client, pace, interrupted), pace.concurrency.max(1))
    }

    /// A connection, for one thread.
    pub(super) fn line(&self) -> Result<Line<'_>, Stop> {
        self.0.line()
    }

    /// Whether it is over.
    pub(super) fn stopped(&self) -> bool {
        self.0.stopped()
    }

    /// Which resources there are of those that are wanted.
    ///
    /// # Errors
    /// When the server does not answer, or refuses to say.
    pub fn discover(&self, wanted: &[Selector]) -> Result<Discovered, Stop> {
        let mut line = self.0.line()?;
        let mut found = Discovered::default();
        let mut all: Vec<Served> = Vec::new();
        for group in groups(&mut line, wanted)? {
            match versions(&mut line, &group)? {
                Ok(versions) => {
                    for version in versions {
                        add(&mut line, &version, &mut all, &mut found.silent)?;
                    }
                }
                Err(reason) => found.silent.push((group, reason)),
            }
        }
        let can = |s: &Served, verb: &str| s.verbs.iter().any(|v| v == verb);
        let mut stored = HashSet::new();
        for served in all.into_iter().filter(|s| can(s, "list") && can(s, "patch")) {
            let is_wanted = wanted.iter().any(|w| w.matches(&served.resource()));
            if is_wanted && (served.storage.is_empty() || stored.insert(served.storage.clone())) {
                found.resources.push(served);
            }
        }
        let fits = |w: &Selector| found.resources.iter().any(|s| w.matches(&s.resource()));
        found.absent = wanted.iter().filter(|w| !fits(w)).cloned().collect();
        Ok(found)
    }

    /// Whether there is a namespace; true where nobody may know.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn has_namespace(&self, name: &str) -> Result<bool, Stop> {
        let path = format!("/api/v1/namespaces/{}", encoded(name));
        Ok(match self.0.line()?.get(&path, METADATA)? {
            Reply::Answer(answer) => answer.status != StatusCode::NOT_FOUND,
            _ => true,
        })
    }

    /// The objects of a resource, or those in some namespaces, in the order of their places.
    ///
    /// # Errors
    /// See [`Unlisted`].
    pub fn list(&self, served: &Served, namespaces: &[String]) -> Result<Vec<Object>, Unlisted> {
        let mut line = self.0.line()?;
        let mut all = Vec::new();
        if namespaces.is_empty() {
            all = list(&mut line, &served.path(None))?;
        } else if served.namespaced {
            for namespace in namespaces {
                all.extend(list(&mut line, &served.path(Some(namespace)))?);
            }
        }
        all.sort_by_cached_key(Object::place);
        all.dedup_by(|a, b| a.place() == b.place());
        Ok(all)
    }

    /// Has the server store objects anew. `advance` gets the number of objects dealt with.
    pub fn rewrite(
        &self,
        served: &Served,
        objects: &[Object],
        advance: &(dyn Fn(u64) + Sync),
    ) -> Outcome {
        let run = Run { sender: &self.0, served, outcome: Mutex::default() };
        let next = AtomicUsize::new(0);
        let threads = usize::try_from(self.1).unwrap_or(1).min(objects.len());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    if let Err(stop) = run.work(objects, &next, advance)
                        && self.0.halt()
                    {
                        run.outcome().stop = Some(stop);
                    }
                });
            }
        });
        run.outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Run<'a> {
    sender: &'a Sender<'a>,
    served: &'a Served,
    outcome: Mutex<Outcome>,
}

impl Run<'_> {
    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(
        &self,
        objects: &[Object],
        next: &AtomicUsize,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<(), Stop> {
        let mut line = self.sender.line()?;
        while let Some(object) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
            if self.sender.stopped() {
                return Err(Stop::Interrupted);
            }
            self.one(&mut line, object)?;
            advance(1);
        }
        Ok(())
    }

    fn failed(&self, object: &Object, reason: impl Into<String>) {
        self.outcome().failed.push(Failed {
            key: object.place().into_bytes(),
            resource: self.served.resource(),
            reason: reason.into(),
        });
    }

    /// Deals with one object, until it is known what came of it.
    fn one(&self, line: &mut Line<'_>, listed: &Object) -> Result<(), Stop> {
        let mut object = listed.clone();
        for _ in 0..=MAX_TRIES {
            if object.uid.is_empty() || object.resource_version.is_empty() {
                self.failed(listed, "the API server does not say which object it is");
                return Ok(());
            }
            match self.send(line, &object)? {
                Reply::Answer(answer) if answer.status.is_success() => {
                    self.stored(listed, &object, &answer);
                    return Ok(());
                }
                Reply::Answer(answer) if answer.status == StatusCode::CONFLICT => {
                    self.outcome().conflicts += 1;
                }
                Reply::Answer(answer)
                    if answer.status == StatusCode::NOT_FOUND && is_of_object(&answer) =>
                {
                    self.outcome().deleted += 1;
                    return Ok(());
                }
                Reply::Answer(answer) => {
                    self.failed(listed, message(&answer));
                    return Ok(());
                }
                Reply::Refused(reason) => {
                    self.failed(listed, reason);
                    return Ok(());
                }
                // Whether it happened, the next look at the object says.
                Reply::Lost(_) => {}
            }
            std::thread::sleep(AGAIN);
            match self.now(line, listed)? {
                Some(now) => object = now,
                None => return Ok(()),
            }
        }
        self.failed(listed, "it was changed by others each time it was about to be rewritten");
        Ok(())
    }

    fn send(&self, line: &mut Line<'_>, object: &Object) -> Result<Reply, Stop> {
        Patch {
            api_version: &self.served.api_version,
            kind: &self.served.kind,
            plural: &self.served.plural,
            namespace: object.namespace.as_deref(),
            name: &object.name,
            uid: &object.uid,
            revision: &object.resource_version,
        }
        .send(line)
    }

    fn stored(&self, listed: &Object, sent: &Object, answer: &Answer) {
        match objects::object(&answer.body) {
            Some(now) if now.resource_version == sent.resource_version => {
                self.outcome().current += 1;
            }
            Some(now) if !now.resource_version.is_empty() => self.outcome().written += 1,
            _ => self.failed(listed, "the API server did not say whether it stored it anew"),
        }
    }

    /// An object as it is now; none if that is all there is to do.
    fn now(&self, line: &mut Line<'_>, listed: &Object) -> Result<Option<Object>, Stop> {
        let path = self.served.path(listed.namespace.as_deref());
        let path = format!("{path}/{}", encoded(&listed.name));
        match line.get(&path, METADATA)? {
            Reply::Answer(answer) if answer.status == StatusCode::OK => {
                let now = objects::object(&answer.body);
                if now.is_none() {
                    self.failed(listed, "the API server does not say which object it is");
                }
                Ok(now)
            }
            Reply::Answer(answer) if answer.status == StatusCode::NOT_FOUND => {
                self.outcome().deleted += 1;
                Ok(None)
            }
            Reply::Answer(answer) => {
                self.failed(listed, message(&answer));
                Ok(None)
            }
            Reply::Refused(reason) => {
                self.failed(listed, reason);
                Ok(None)
            }
            Reply::Lost(e) => Err(Stop::NoAnswer(e)),
        }
    }
}

/// The groups that can have what is wanted.
fn groups(line: &mut Line<'_>, wanted: &[Selector]) -> Result<Vec<String>, Stop> {
    let mut all: Vec<String> = Vec::new();
    let mut add = |group: &str| {
        if !all.iter().any(|g| g == group) {
            all.push(group.to_owned());
        }
    };
    for selector in wanted {
        match selector {
            Selector::Exact(resource) => add(group_of(resource)),
            Selector::Group(group) => add(group),
            Selector::All => {
                add("");
                let body = document(line, "/apis")?.map_err(Stop::Api)?;
                let groups = objects::groups(&body.body);
                groups.map_err(|_| foreign("/apis"))?.iter().for_each(|g| add(g));
            }
        }
    }
    Ok(all)
}

/// The versions of a group, the one to use first; or why there is none.
fn versions(line: &mut Line<'_>, group: &str) -> Result<Result<Vec<String>, String>, Stop> {
    if group.is_empty() {
        return Ok(Ok(vec!["v1".to_owned()]));
    }
    let path = format!("/apis/{group}");
    Ok(match document(line, &path)? {
        Ok(answer) => Ok(objects::versions(&answer.body).map_err(|_| foreign(&path))?),
        Err(reason) => Err(reason),
    })
}

/// Adds the resources of a version, but for those that a version before it has.
fn add(
    line: &mut Line<'_>,
    version: &str,
    all: &mut Vec<Served>,
    silent: &mut Vec<(String, String)>,
) -> Result<(), Stop> {
    let path = objects::root(version);
    match document(line, &path)? {
        Ok(answer) => {
            for served in objects::resources(&answer.body).map_err(|_| foreign(&path))? {
                if !all.iter().any(|s| s.resource() == served.resource()) {
                    all.push(served);
                }
            }
        }
        Err(reason) => silent.push((version.to_owned(), reason)),
    }
    Ok(())
}

fn foreign(path: &str) -> Stop {
    Stop::Api(format!("what answers to {path} is no API server"))
}

/// A document, or why it is not to be had.
fn document(line: &mut Line<'_>, path: &str) -> Result<Result<Answer, String>, Stop> {
    Ok(match line.get(path, JSON)? {
        Reply::Answer(answer) if answer.status == StatusCode::OK => Ok(answer),
        Reply::Answer(answer) => Err(message(&answer)),
        Reply::Refused(reason) => Err(reason),
        Reply::Lost(e) => return Err(Stop::NoAnswer(e)),
    })
}

/// All pages of a list. One whose place has expired goes on where the server says, with objects as
/// they are by then, or is begun anew.
fn list(line: &mut Line<'_>, path: &str) -> Result<Vec<Object>, Unlisted> {
    let (mut all, mut next, mut lists): (Vec<Object>, Option<String>, u32) = (Vec::new(), None, 0);
    loop {
        let more = next.as_ref().map_or(String::new(), |n| format!("&continue={}", encoded(n)));
        let page = format!("{path}?limit={PAGE}{more}");
        match line.get(&page, METADATA_LIST)? {
            Reply::Answer(answer) if answer.status == StatusCode::OK => {
                let Some(page) = objects::page(&answer.body) else {
                    let what = "the API server does not list metadata alone";
                    return Err(Unlisted::Refused(what.to_owned()));
                };
                all.extend(page.objects);
                next = page.next;
                if next.is_none() {
                    return Ok(all);
                }
            }
            Reply::Answer(answer) if answer.status == StatusCode::GONE && lists < MAX_LISTS => {
                lists += 1;
                next = objects::expired(&answer.body);
                if next.is_none() {
                    all.clear();
                }
            }
            Reply::Answer(answer) => return Err(Unlisted::Refused(message(&answer))),
            Reply::Refused(reason) => return Err(Unlisted::Refused(reason)),
            Reply::Lost(e) => return Err(Unlisted::Stop(Stop::NoAnswer(e))),
        }
    }
}
