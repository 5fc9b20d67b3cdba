//! The cluster's own migration: a `StorageVersionMigration` for a resource, made and followed.
//!
//! Its controller, in kube-controller-manager, sends every object the write that [`super`] sends
//! (kubernetes/api `storagemigration/v1alpha1/types.go` since 1.30, which names the version to use;
//! `storagemigration/v1beta1/types.go` since 1.35, which does not).

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::send::{Line, Reply, Sender, message};
use super::whole::Api;
use super::{AGAIN, CHUNK, PATIENCE, Pace, Run};
use crate::apiserver::objects::{Served, encoded, versions};
use crate::apiserver::{Client, Request};
use crate::migrate::apply::{Keyspace, Outcome, Stop};
use crate::migrate::followed::{Ended, Followed};
use crate::migrate::plan::{Item, Plan};
use crate::resource::{Scope, Selector};
use crate::storage;

const GROUP: &str = "storagemigration.k8s.io";
/// Between two looks at a migration.
const LOOK: Duration = Duration::from_secs(1);
/// How long nobody may take it up.
const IDLE: Duration = Duration::from_mins(5);
const JSON: &str = "application/json";

/// How the server serves migrations.
#[derive(Clone, Debug)]
pub struct Migrator {
    api_version: String,
    /// It wants to be told which version of a resource to use.
    names_version: bool,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Migration>,
}

#[derive(Deserialize)]
struct Migration {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: String,
    #[serde(default)]
    creation_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    resource: Of,
}

#[derive(Default, Deserialize)]
struct Of {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resource: String,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

impl Migration {
    fn ended(&self) -> Ended {
        let is = |kind: &str| {
            let mut all = self.status.conditions.iter();
            all.find(|c| c.kind == kind && c.status == "True")
        };
        if let Some(failed) = is("Failed") {
            let words = [&*failed.reason, &*failed.message].map(crate::visible::visible);
            let words: Vec<_> = words.into_iter().filter(|w| !w.is_empty()).collect();
            return Ended::Failed(words.join(": "));
        }
        if is("Succeeded").is_some() { Ended::Succeeded } else { Ended::Running }
    }

    fn is_of(&self, served: &Served) -> bool {
        let of = &self.spec.resource;
        let group = served.api_version.split_once('/').map_or("", |(group, _)| group);
        of.group == group && of.resource == served.plural
    }
}

impl Api<'_> {
    /// How migrations are served; or why they are not.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn migrator(&self) -> Result<Result<Migrator, String>, Stop> {
        let all = match self.line()?.get(&format!("/apis/{GROUP}"), JSON)? {
            Reply::Answer(answer) if answer.status == StatusCode::OK => versions(&answer.body),
            Reply::Answer(answer) if answer.status == StatusCode::NOT_FOUND => {
                return Ok(Err(format!("the API server does not serve {GROUP}")));
            }
            Reply::Answer(answer) => return Ok(Err(message(&answer))),
            Reply::Refused(reason) => return Ok(Err(reason)),
            Reply::Lost(e) => return Err(Stop::NoAnswer(e)),
        };
        let all =
            all.map_err(|_| Stop::Api(format!("what answers to {GROUP} is no API server")))?;
        for (version, names_version) in [("v1beta1", false), ("v1alpha1", true)] {
            let api_version = format!("{GROUP}/{version}");
            if all.contains(&api_version) {
                return Ok(Ok(Migrator { api_version, names_version }));
            }
        }
        let all: Vec<_> = all.iter().map(|v| crate::visible::visible(v)).collect();
        Ok(Err(format!("of {GROUP}, v1alpha1 and v1beta1 are known here, not {}", all.join(", "))))
    }

    /// Has the cluster migrate a resource, and follows that to its end. One that is under way is
    /// followed in place of another. With [`Ended::Running`] it was left early, for the reason
    /// beside it.
    ///
    /// # Errors
    /// When there is no migration to follow.
    pub fn migrate(
        &self,
        migrator: &Migrator,
        served: &Served,
    ) -> Result<(Followed, Option<Stop>), Unmade> {
        let mut line = self.line()?;
        let path = format!("/apis/{}/storageversionmigrations", migrator.api_version);
        let (name, made_before) = made(&mut line, migrator, served, &path)?;
        let (ended, stop) = match self.followed(&mut line, &format!("{path}/{}", encoded(&name))) {
            Ok(ended) => (ended, None),
            Err(stop) => (Ended::Running, Some(stop)),
        };
        Ok((Followed { resource: served.resource(), name, made_before, ended }, stop))
    }

    fn followed(&self, line: &mut Line<'_>, path: &str) -> Result<Ended, Stop> {
        let start = Instant::now();
        loop {
            let answer = match line.get(path, JSON)? {
                Reply::Answer(answer) => answer,
                Reply::Refused(reason) => return Ok(Ended::Failed(reason)),
                Reply::Lost(e) => return Err(Stop::NoAnswer(e)),
            };
            if answer.status == StatusCode::NOT_FOUND {
                return Ok(Ended::Failed("somebody deleted it".to_owned()));
            }
            if answer.status != StatusCode::OK {
                return Ok(Ended::Failed(message(&answer)));
            }
            let Ok(migration) = serde_json::from_slice::<Migration>(&answer.body) else {
                return Ok(Ended::Failed("the API server shows something else".to_owned()));
            };
            match migration.ended() {
                Ended::Running => {}
                ended => return Ok(ended),
            }
            if migration.status.conditions.is_empty() && start.elapsed() > IDLE {
                return Err(Stop::Api(
                    "nobody takes up the migration: kube-controller-manager needs the feature gate StorageVersionMigrator".to_owned(),
                ));
            }
            let until = Instant::now() + LOOK;
            while Instant::now() < until {
                if self.stopped() {
                    return Err(Stop::Interrupted);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// The name of a migration that is under way, and when it was made if not by us.
fn made(
    line: &mut Line<'_>,
    migrator: &Migrator,
    served: &Served,
    path: &str,
) -> Result<(String, Option<String>), Unmade> {
    let start = Instant::now();
    let mut first = true;
    loop {
        let list: List = read(line.get(path, JSON)?)?;
        let under_way =
            list.items.into_iter().find(|m| m.is_of(served) && m.ended() == Ended::Running);
        if let Some(found) = under_way {
            // After an answer that was lost, it is the one that was asked for.
            let time = found.metadata.creation_timestamp.unwrap_or_default();
            return Ok((found.metadata.name, first.then_some(time)));
        }
        let body = made_of(migrator, served);
        let reply = line.ask(&Request {
            method: Method::POST,
            path,
            accept: JSON,
            body: Some((JSON, body.to_string().into())),
        })?;
        match reply {
            Reply::Lost(_) if start.elapsed() < PATIENCE => std::thread::sleep(AGAIN),
            reply => return Ok((read::<Migration>(reply)?.metadata.name, None)),
        }
        first = false;
    }
}

/// Why there is no migration to follow.
#[derive(Debug)]
pub enum Unmade {
    /// The server refuses.
    Refused(String),
    /// It is over.
    Stop(Stop),
}

impl From<Stop> for Unmade {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// Has the cluster migrate the resources of which `plan` names entries, one after the other, and
/// looks in etcd for what became of these. `interrupted` leaves what is under way to itself;
/// `advance` gets the number of entries dealt with.
pub fn run<K: Keyspace>(
    keys: &K,
    client: &Client,
    plan: &Plan,
    scope: &Scope,
    interrupted: &AtomicBool,
    advance: &(dyn Fn(u64) + Sync),
) -> Outcome {
    // The controller has a pace of its own.
    let pace = Pace { concurrency: 1, qps: None };
    let sender = Sender::new(client, pace, interrupted);
    let versions: Mutex<HashMap<_, _>> = Mutex::default();
    let run =
        Run { keys, plan, scope, sender: &sender, versions, outcome: Mutex::default(), advance };
    let stop = work(&Api::new(client, pace, interrupted), &run).err();
    let mut outcome = run.outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.stop = stop;
    outcome
}

fn work<K: Keyspace>(api: &Api<'_>, run: &Run<'_, K>) -> Result<(), Stop> {
    let migrator = api.migrator()?.map_err(Stop::Api)?;
    let mut by_resource: BTreeMap<&str, Vec<(&Item, u32)>> = BTreeMap::new();
    for item in &run.plan.items {
        by_resource.entry(run.resource(item)).or_default().push((item, 0));
    }
    for (resource, items) in by_resource {
        let found = api.discover(&[Selector::Exact(resource.to_owned())])?;
        let refuse = |reason: &str| {
            for (item, _) in &items {
                run.failed(item, reason.to_owned());
            }
            (run.advance)(items.len() as u64);
        };
        let Some(served) = found.resources.first() else {
            refuse("the API server does not serve its resource");
            continue;
        };
        match api.migrate(&migrator, served) {
            Ok((followed, stop)) => {
                look(run, &items, &followed)?;
                run.outcome().migrations.push(followed);
                if let Some(stop) = stop {
                    return Err(stop);
                }
            }
            Err(Unmade::Refused(reason)) => refuse(&reason),
            Err(Unmade::Stop(stop)) => return Err(stop),
        }
    }
    Ok(())
}

/// What etcd has now of the entries that a migration was made for.
fn look<K: Keyspace>(
    run: &Run<'_, K>,
    items: &[(&Item, u32)],
    followed: &Followed,
) -> Result<(), Stop> {
    for chunk in items.chunks(CHUNK) {
        for ((item, _), entry) in chunk.iter().zip(run.read(chunk)?) {
            let Some(entry) = entry else {
                run.outcome().deleted += 1;
                continue;
            };
            let transformers = &run.plan.resources[item.resource].transformers;
            let reason = match transformers.read(&entry.key, &entry.value) {
                // Its prefix alone proves nothing: it must be readable.
                Ok(opened) if !opened.stale && storage::is_object(opened.plaintext.expose()) => {
                    let mut outcome = run.outcome();
                    outcome.written += 1;
                    outcome.verified += 1;
                    continue;
                }
                Ok(_) => match &followed.ended {
                    Ended::Running => continue,
                    Ended::Failed(why) => format!("the migration {} failed: {why}", followed.name),
                    Ended::Succeeded => format!(
                        "the migration {} succeeded, and this is not stored by this configuration: the API server has loaded another",
                        followed.name
                    ),
                },
                Err(e) => format!("what is stored now cannot be read: {e}"),
            };
            run.failed(item, reason);
        }
        (run.advance)(chunk.len() as u64);
    }
    Ok(())
}

fn made_of(migrator: &Migrator, served: &Served) -> serde_json::Value {
    let (group, version) = served.api_version.split_once('/').unwrap_or(("", &served.api_version));
    let mut resource = json!({"group": group, "resource": served.plural});
    if migrator.names_version {
        resource["version"] = version.into();
    }
    json!({
        "apiVersion": migrator.api_version, "kind": "StorageVersionMigration",
        "metadata": {"generateName": format!("atrest-{}-", served.resource().replace('.', "-"))},
        "spec": {"resource": resource},
    })
}

fn read<T: serde::de::DeserializeOwned>(reply: Reply) -> Result<T, Unmade> {
    match reply {
        Reply::Answer(answer) if answer.status.is_success() => serde_json::from_slice(&answer.body)
            .map_err(|_| Unmade::Refused("the API server shows something else".to_owned())),
        Reply::Answer(answer) => Err(Unmade::Refused(message(&answer))),
        Reply::Refused(reason) => Err(Unmade::Refused(reason)),
        Reply::Lost(e) => Err(Unmade::Stop(Stop::NoAnswer(e))),
    }
}
