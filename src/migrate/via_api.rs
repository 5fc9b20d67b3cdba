//! Rewrites the entries of a plan through an API server: etcd says which objects are stale, each
//! is written anew by the API server itself, and etcd is looked at again.
//!
//! The write is what the cluster's own migrator sends: a server-side apply that holds nothing but
//! the object's type, name, UID and resourceVersion (kubernetes
//! `pkg/controller/storageversionmigrator/storageversionmigrator.go`). It changes no field, and the
//! API server stores the object again because what it read was stale (kubernetes/apiserver
//! `pkg/storage/etcd3/store.go`: `GuaranteedUpdate`). No data of the object is ever sent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tokio::runtime::Runtime;

use super::apply::{Keyspace, Outcome, Stop};
use super::plan::{Examined, Failed, Item, Plan};
use super::throttle::Throttle;
use crate::apiserver::{Answer, ApiError, Client, Link, Request};
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
/// The longest that a server may ask to be left alone.
const LONGEST: Duration = Duration::from_mins(1);
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
    client: &'a Client,
    plan: &'a Plan,
    scope: &'a Scope,
    throttle: Throttle,
    /// The server wants to be left alone until then.
    quiet: Mutex<Instant>,
    /// `apiVersion` to use, where the one that is stored is not served, by that one and resource.
    versions: Mutex<HashMap<(String, String), String>>,
    interrupted: &'a AtomicBool,
    halted: AtomicBool,
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
    let run = Run {
        keys,
        client,
        plan,
        scope,
        throttle: Throttle::new(pace.concurrency, pace.qps),
        quiet: Mutex::new(Instant::now()),
        versions: Mutex::default(),
        interrupted,
        halted: AtomicBool::new(false),
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
    run.outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
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
        self.interrupted.load(Ordering::Relaxed) || self.halted.load(Ordering::Relaxed)
    }

    fn halt(&self, stop: Stop) {
        if !self.halted.swap(true, Ordering::Relaxed) {
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
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Stop::Api(e.to_string()))?;
        let mut link: Option<Link> = None;
        while let Some(items) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut left: Vec<(&Item, u32)> = items.iter().map(|i| (i, 0)).collect();
            while !left.is_empty() {
                if self.stopped() {
                    return Err(Stop::Interrupted);
                }
                left = self.chunk(&runtime, &mut link, left)?;
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
        runtime: &Runtime,
        link: &mut Option<Link>,
        items: Vec<(&'i Item, u32)>,
    ) -> Result<Vec<(&'i Item, u32)>, Stop> {
        let entries = self.read(&items)?;
        let (mut again, mut sent) = (Vec::new(), Vec::new());
        for ((item, tries), entry) in items.into_iter().zip(entries) {
            let Some(object) = self.object(item, tries, entry) else {
                (self.advance)(1);
                continue;
            };
            match self.write(runtime, link, &object)? {
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
    fn write(
        &self,
        runtime: &Runtime,
        link: &mut Option<Link>,
        object: &Object<'_>,
    ) -> Result<Written, Stop> {
        let start = Instant::now();
        let mut errors = 0;
        loop {
            self.wait()?;
            if !self.throttle.begin(1, &|| self.stopped()) {
                return Err(Stop::Interrupted);
            }
            let sent = Instant::now();
            let answer = runtime.block_on(self.send(link, object));
            let answer = match answer {
                Ok(answer) => answer,
                Err(e) => {
                    self.throttle.failed();
                    *link = None;
                    if start.elapsed() > PATIENCE || matches!(e, ApiError::Setup(_)) {
                        return Err(Stop::NoAnswer(e));
                    }
                    // A lost answer may be that of a write that happened: etcd knows.
                    if matches!(e, ApiError::Connect { .. }) {
                        std::thread::sleep(AGAIN);
                        continue;
                    }
                    return Ok(Written::Unknown);
                }
            };
            if answer.status == StatusCode::TOO_MANY_REQUESTS {
                self.throttle.busy();
                self.outcome().busy += 1;
                self.leave_alone(answer.retry_after.unwrap_or(Duration::from_secs(1)));
                continue;
            }
            self.throttle.answered(sent.elapsed());
            if answer.status.is_server_error() {
                errors += 1;
                let (_, message) = answer.said();
                let message = message.unwrap_or_else(|| answer.status.to_string());
                let webhook = message.contains("webhook");
                if errors <= MAX_ERRORS || !webhook && start.elapsed() < PATIENCE {
                    self.leave_alone(answer.retry_after.unwrap_or(AGAIN));
                    continue;
                }
                return Ok(Written::Refused(said(&message)));
            }
            if answer.status == StatusCode::UNAUTHORIZED {
                return Err(Stop::Api("the API server does not know this user (401)".to_owned()));
            }
            if let Some(written) = self.understood(runtime, link, object, &answer)? {
                return Ok(written);
            }
        }
    }

    /// What an answer means; none if it is to be asked again, of another version.
    fn understood(
        &self,
        runtime: &Runtime,
        link: &mut Option<Link>,
        object: &Object<'_>,
        answer: &Answer,
    ) -> Result<Option<Written>, Stop> {
        let (reason, message) = answer.said();
        Ok(Some(match answer.status {
            status if status.is_success() => Written::Done,
            StatusCode::CONFLICT => Written::Changed,
            StatusCode::NOT_FOUND
                if reason.as_deref() == Some("NotFound")
                    && message.as_deref().is_some_and(|m| m.contains(" \"")) =>
            {
                Written::Gone
            }
            StatusCode::NOT_FOUND => {
                // No object is missing, but the way to it: its version is not served.
                if runtime.block_on(self.discover(link, object))? {
                    return Ok(None);
                }
                Written::Refused(format!("the API server does not serve {}", object.api_version))
            }
            status => Written::Refused(said(&message.unwrap_or_else(|| status.to_string()))),
        }))
    }

    /// Waits as long as the server wants.
    fn wait(&self) -> Result<(), Stop> {
        loop {
            let until = *self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
            let left = until.saturating_duration_since(Instant::now());
            if self.stopped() {
                return Err(Stop::Interrupted);
            }
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    fn leave_alone(&self, time: Duration) {
        let until = Instant::now() + time.min(LONGEST);
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        *quiet = until.max(*quiet);
    }

    /// The version to name, for a stored one.
    fn version(&self, object: &Object<'_>) -> String {
        let key = (self.resource(object.item).to_owned(), object.api_version.clone());
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.get(&key).unwrap_or(&object.api_version).clone()
    }

    async fn send(&self, link: &mut Option<Link>, object: &Object<'_>) -> Result<Answer, ApiError> {
        let location = self.scope.locate(&object.item.key);
        let api_version = self.version(object);
        let root = if api_version.contains('/') { "apis" } else { "api" };
        let plural = self.resource(object.item).split('.').next().unwrap_or_default().to_owned();
        let place = match &location.namespace {
            Some(namespace) => format!("namespaces/{}/", encoded(namespace)),
            None => String::new(),
        };
        let path = format!(
            "/{root}/{api_version}/{place}{plural}/{}?fieldManager={MANAGER}",
            encoded(&location.name)
        );
        let mut metadata = serde_json::json!({
            "name": location.name, "uid": object.uid,
            "resourceVersion": object.revision.to_string(),
        });
        if let Some(namespace) = &location.namespace {
            metadata["namespace"] = namespace.as_ref().into();
        }
        let body = serde_json::json!({
            "apiVersion": api_version, "kind": object.kind, "metadata": metadata,
        });
        let link = match link {
            Some(link) => link,
            None => link.insert(self.client.connect().await?),
        };
        // The answer would hold the whole object; of its metadata alone there is less to carry.
        link.send(&Request {
            method: Method::PATCH,
            path: &path,
            accept: "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
            body: Some(("application/apply-patch+yaml", body.to_string().into())),
        })
        .await
    }

    /// Asks which version of the object's group the server prefers; whether it is another one.
    async fn discover(&self, link: &mut Option<Link>, object: &Object<'_>) -> Result<bool, Stop> {
        let group = group_of(self.resource(object.item));
        if group.is_empty() {
            return Ok(false);
        }
        let stop = Stop::NoAnswer;
        let link = match link {
            Some(link) => link,
            None => link.insert(self.client.connect().await.map_err(stop)?),
        };
        let answer = match link.get(&format!("/apis/{group}"), "application/json").await {
            Ok(answer) => answer,
            Err(ApiError::Status { .. }) => return Ok(false),
            Err(e) => return Err(stop(e)),
        };
        let found: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let Some(preferred) = found["preferredVersion"]["groupVersion"].as_str() else {
            return Ok(false);
        };
        let key = (self.resource(object.item).to_owned(), object.api_version.clone());
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let before = versions.insert(key, preferred.to_owned());
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

/// What a server said, made safe to show.
fn said(message: &str) -> String {
    let short: String = message.chars().take(300).collect();
    crate::visible::visible(&short)
}

/// A path segment: names may have a colon, a percent sign or a space.
fn encoded(segment: &str) -> String {
    crate::hex::percent(segment.as_bytes(), |b| b.is_ascii_alphanumeric() || b"-._~:".contains(&b))
}
