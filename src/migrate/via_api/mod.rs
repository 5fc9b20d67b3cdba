//! Rewrites the entries of a plan through an API server: etcd says which objects are stale, each
//! is written anew by the API server itself, and etcd is looked at again.
//!
//! The write is what the cluster's own migrator sends: a server-side apply that holds nothing but
//! the object's type, name, UID and resourceVersion (kubernetes
//! `pkg/controller/storageversionmigrator/storageversionmigrator.go`). It changes no field, and the
//! API server stores the object again because what it read was stale (kubernetes/apiserver
//! `pkg/storage/etcd3/store.go`: `GuaranteedUpdate`). No data of the object is ever sent.
//!
//! [`whole`] does so with every object of a resource, where nothing is known of etcd; [`cluster`]
//! has the cluster's own controller do it.

pub mod cluster;
mod send;
pub mod whole;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use self::send::{Line, Reply, Sender, message};
use super::apply::{Keyspace, Outcome, Stop};
use super::plan::{Examined, Failed, Item, Plan};
use crate::apiserver::objects::{METADATA, encoded, root, versions};
use crate::apiserver::{Answer, Client, Request};
use crate::entry::Entry;
use crate::resource::{Scope, group_of};
use crate::source::live::KvError;
use crate::storage;

/// Objects that are looked up in etcd together, before and after.
const CHUNK: usize = 32;
/// How often an object that changes each time is tried again.
const MAX_TRIES: u32 = 10;
/// How often an error of the server's own is answered with another try.
const MAX_ERRORS: u32 = 3;
/// How long a server, or etcd, may be away before a run gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before another try where the server names none.
const AGAIN: Duration = Duration::from_millis(250);
/// Who the objects' `managedFields` would name, if the write set any field.
const MANAGER: &str = "atrest";

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Connections, each with one request at a time.
    pub concurrency: u32,
    /// Objects a second.
    pub qps: Option<f64>,
}

/// What the server answered to one write.
enum Written {
    /// It is done.
    Done,
    /// Somebody else changed or replaced the object.
    Changed,
    /// There is no such object.
    Gone,
    /// The server refuses this object.
    Refused(String),
    /// Nobody knows whether it happened.
    Unknown,
}

struct Run<'a, K> {
    keys: &'a K,
    plan: &'a Plan,
    scope: &'a Scope,
    sender: &'a Sender<'a>,
    /// `apiVersion` to use, where the one that is stored is not served, by that one and resource.
    versions: Mutex<HashMap<(String, String), String>>,
    outcome: Mutex<Outcome>,
    advance: &'a (dyn Fn(u64) + Sync),
}

/// Has `client`'s server write anew what `plan` names. `interrupted` ends it after what is in
/// flight; `advance` gets the number of objects dealt with.
pub fn run<K: Keyspace>(
    keys: &K,
    client: &Client,
    plan: &Plan,
    scope: &Scope,
    pace: Pace,
    interrupted: &AtomicBool,
    advance: &(dyn Fn(u64) + Sync),
) -> Outcome {
    let sender = Sender::new(client, pace, interrupted);
    let run = Run {
        keys,
        plan,
        scope,
        sender: &sender,
        versions: Mutex::default(),
        outcome: Mutex::default(),
        advance,
    };
    let chunks: Vec<&[Item]> = plan.items.chunks(CHUNK).collect();
    let next = AtomicUsize::new(0);
    let threads = usize::try_from(pace.concurrency.max(1)).unwrap_or(1).min(chunks.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                if let Err(stop) = run.work(&chunks, &next) {
                    run.halt(stop);
                }
            });
        }
    });
    let mut outcome = run.outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.busy += sender.times_busy();
    outcome
}

/// What is sent about an object.
struct Object<'i> {
    item: &'i Item,
    revision: i64,
    api_version: String,
    kind: String,
    uid: String,
}

impl<K: Keyspace> Run<'_, K> {
    fn stopped(&self) -> bool {
        self.sender.stopped()
    }

    fn halt(&self, stop: Stop) {
        if self.sender.halt() {
            self.outcome().stop = Some(stop);
        }
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, item: &Item, reason: String) {
        let resource = self.resource(item).to_owned();
        self.outcome().failed.push(Failed { key: item.key.to_vec(), resource, reason });
    }

    fn resource(&self, item: &Item) -> &str {
        self.plan.resources[item.resource].transformers.resource()
    }

    fn work(&self, chunks: &[&[Item]], next: &AtomicUsize) -> Result<(), Stop> {
        let mut line = self.sender.line()?;
        while let Some(items) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut left: Vec<(&Item, u32)> = items.iter().map(|i| (i, 0)).collect();
            while !left.is_empty() {
                if self.stopped() {
                    return Err(Stop::Interrupted);
                }
                left = self.chunk(&mut line, left)?;
            }
        }
        Ok(())
    }

    /// The entries of items as they are in etcd now.
    fn read(&self, items: &[(&Item, u32)]) -> Result<Vec<Option<Entry>>, Stop> {
        let keys: Vec<[&[u8]; 1]> = items.iter().map(|(item, _)| [&*item.key]).collect();
        let runs: Vec<&[&[u8]]> = keys.iter().map(<[_; 1]>::as_slice).collect();
        let start = Instant::now();
        loop {
            match self.keys.read(&runs, None) {
                Ok(entries) => return Ok(entries),
                Err(KvError::Lost(_) | KvError::Busy)
                    if start.elapsed() < PATIENCE && !self.stopped() =>
                {
                    std::thread::sleep(AGAIN);
                }
                Err(KvError::Lost(e) | KvError::Refused(e)) => return Err(Stop::Source(e)),
                Err(e) => return Err(Stop::Api(e.to_string())),
            }
        }
    }

    /// Has some objects written; returns those that are to be tried again.
    fn chunk<'i>(
        &self,
        line: &mut Line<'_>,
        items: Vec<(&'i Item, u32)>,
    ) -> Result<Vec<(&'i Item, u32)>, Stop> {
        let entries = self.read(&items)?;
        let (mut again, mut sent) = (Vec::new(), Vec::new());
        for ((item, tries), entry) in items.into_iter().zip(entries) {
            let Some(object) = self.object(item, tries, entry) else {
                (self.advance)(1);
                continue;
            };
            match self.write(line, &object)? {
                Written::Done => sent.push((item, object.revision)),
                Written::Changed => {
                    self.outcome().conflicts += 1;
                    again.push((item, tries + 1));
                }
                // The next look at etcd says which it is; a server that is away is waited for.
                Written::Unknown => again.push((item, tries + 1)),
                Written::Gone if tries == 0 => again.push((item, tries + 1)),
                Written::Gone => {
                    self.failed(
                        item,
                        "the API server does not know it, although etcd has it".into(),
                    );
                    (self.advance)(1);
                }
                Written::Refused(reason) => {
                    self.failed(item, reason);
                    (self.advance)(1);
                }
            }
        }
        self.verify(&sent)?;
        if !again.is_empty() {
            std::thread::sleep(AGAIN);
        }
        Ok(again)
    }

    /// What to send about an entry; none if there is nothing to do.
    fn object<'i>(&self, item: &'i Item, tries: u32, entry: Option<Entry>) -> Option<Object<'i>> {
        let Some(entry) = entry else {
            self.outcome().deleted += 1;
            return None;
        };
        match self.plan.resources[item.resource].examine(&entry.key, &entry.value) {
            Examined::Current => {
                self.outcome().already += 1;
                None
            }
            Examined::Unreadable(reason) => {
                self.failed(item, reason);
                None
            }
            Examined::Stale(_) if tries > MAX_TRIES => {
                let reason = "it was changed by others each time it was about to be rewritten";
                self.failed(item, reason.to_owned());
                None
            }
            Examined::Stale(opened) => {
                let meta = storage::type_meta(opened.plaintext.expose()).ok()?.into_owned();
                if meta.uid.is_empty() {
                    self.failed(
                        item,
                        "it has no UID, so the API server cannot be told which one is meant".into(),
                    );
                    return None;
                }
                Some(Object {
                    item,
                    revision: entry.mod_revision,
                    api_version: meta.api_version.into_owned(),
                    kind: meta.kind.into_owned(),
                    uid: meta.uid.into_owned(),
                })
            }
        }
    }

    /// Sends one object's write until there is an answer.
    fn write(&self, line: &mut Line<'_>, object: &Object<'_>) -> Result<Written, Stop> {
        loop {
            match self.send(line, object)? {
                // A lost answer may be that of a write that happened: etcd knows.
                Reply::Lost(_) => return Ok(Written::Unknown),
                Reply::Refused(reason) => return Ok(Written::Refused(reason)),
                Reply::Answer(answer) => {
                    if let Some(written) = self.understood(line, object, &answer)? {
                        return Ok(written);
                    }
                }
            }
        }
    }

    /// What an answer means; none if it is to be asked again, of another version.
    fn understood(
        &self,
        line: &mut Line<'_>,
        object: &Object<'_>,
        answer: &Answer,
    ) -> Result<Option<Written>, Stop> {
        Ok(Some(match answer.status {
            status if status.is_success() => Written::Done,
            StatusCode::CONFLICT => Written::Changed,
            StatusCode::NOT_FOUND if is_of_object(answer) => Written::Gone,
            StatusCode::NOT_FOUND => {
                // No object is missing, but the way to it: its version is not served.
                if self.discover(line, object)? {
                    return Ok(None);
                }
                Written::Refused(format!("the API server does not serve {}", object.api_version))
            }
            _ => Written::Refused(message(answer)),
        }))
    }

    /// The version to name, for a stored one.
    fn version(&self, object: &Object<'_>) -> String {
        let key = (self.resource(object.item).to_owned(), object.api_version.clone());
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.get(&key).unwrap_or(&object.api_version).clone()
    }

    fn send(&self, line: &mut Line<'_>, object: &Object<'_>) -> Result<Reply, Stop> {
        let location = self.scope.locate(&object.item.key);
        let plural = self.resource(object.item).split('.').next().unwrap_or_default();
        let namespace = location.namespace.as_deref();
        let patch = Patch {
            api_version: &self.version(object),
            kind: &object.kind,
            plural,
            namespace,
            name: &location.name,
            uid: &object.uid,
            revision: &object.revision.to_string(),
        };
        patch.send(line)
    }

    /// Asks which version of the object's group the server prefers; whether it is another one.
    fn discover(&self, line: &mut Line<'_>, object: &Object<'_>) -> Result<bool, Stop> {
        let group = group_of(self.resource(object.item));
        if group.is_empty() {
            return Ok(false);
        }
        let found = match line.get(&format!("/apis/{group}"), "application/json")? {
            Reply::Answer(answer) if answer.status == StatusCode::OK => versions(&answer.body),
            _ => return Ok(false),
        };
        let Some(preferred) = found.ok().and_then(|all| all.into_iter().next()) else {
            return Ok(false);
        };
        let key = (self.resource(object.item).to_owned(), object.api_version.clone());
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let before = versions.insert(key, preferred.clone());
        Ok(before.as_deref().unwrap_or(&object.api_version) != preferred)
    }

    /// Looks whether etcd has now what the server said that it wrote.
    fn verify(&self, sent: &[(&Item, i64)]) -> Result<(), Stop> {
        let items: Vec<(&Item, u32)> = sent.iter().map(|(item, _)| (*item, 0)).collect();
        let entries = if sent.is_empty() { Vec::new() } else { self.read(&items)? };
        let mut untouched = 0;
        for ((item, revision), entry) in sent.iter().zip(entries) {
            (self.advance)(1);
            let Some(entry) = entry else {
                self.outcome().deleted += 1;
                continue;
            };
            let resource = &self.plan.resources[item.resource];
            // Its prefix alone proves nothing: it must be readable.
            let read = resource.transformers.read(&entry.key, &entry.value);
            match read {
                Ok(opened) if !opened.stale && storage::is_object(opened.plaintext.expose()) => {
                    let mut outcome = self.outcome();
                    outcome.written += 1;
                    outcome.verified += 1;
                }
                Ok(_) if entry.mod_revision == *revision => {
                    untouched += 1;
                    self.failed(item, "the API server answered well and stored nothing anew: to it, the object is current".into());
                }
                Ok(_) => {
                    self.failed(item, "the API server stored it by another configuration".into());
                }
                Err(e) => {
                    self.failed(item, format!("what the API server stored cannot be read: {e}"));
                }
            }
        }
        if untouched > 0 && untouched == sent.len() && self.outcome().written == 0 {
            return Err(Stop::Api(
                "the API server stores nothing anew: it has not loaded this configuration"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

/// Whether an answer of 404 says that there is no such object; otherwise the way to it is missing.
fn is_of_object(answer: &Answer) -> bool {
    let (reason, message) = answer.said();
    reason.as_deref() == Some("NotFound") && message.is_some_and(|m| m.contains(" \""))
}

/// What makes a server store an object anew, and holds nothing of it but which one is meant.
struct Patch<'o> {
    api_version: &'o str,
    kind: &'o str,
    plural: &'o str,
    namespace: Option<&'o str>,
    name: &'o str,
    uid: &'o str,
    revision: &'o str,
}

impl Patch<'_> {
    fn send(&self, line: &mut Line<'_>) -> Result<Reply, Stop> {
        let place = self.namespace.map_or(String::new(), |n| format!("namespaces/{}/", encoded(n)));
        let (root, name) = (root(self.api_version), encoded(self.name));
        let path = format!("{root}/{place}{}/{name}?fieldManager={MANAGER}", self.plural);
        let mut metadata = serde_json::json!({
            "name": self.name, "uid": self.uid, "resourceVersion": self.revision,
        });
        if let Some(namespace) = self.namespace {
            metadata["namespace"] = namespace.into();
        }
        let body = serde_json::json!({
            "apiVersion": self.api_version, "kind": self.kind, "metadata": metadata,
        });
        // The answer would hold the whole object; of its metadata alone there is less to carry.
        line.ask(&Request {
            method: Method::PATCH,
            path: &path,
            accept: &format!("{METADATA},application/json"),
            body: Some(("application/apply-patch+yaml", body.to_string().into())),
        })
    }
}
