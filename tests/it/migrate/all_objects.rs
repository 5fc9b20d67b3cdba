//! `migrate --via-api --all-objects` against a server that keeps its objects in memory, where no
//! etcd is within reach.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{config, number};
use crate::support::apiserver::{ApiServer, Request, Response};
use crate::support::bin::{Bin, bin};
use crate::support::certs::Certs;

struct Kept {
    uid: String,
    revision: u64,
    /// The server would store it anew.
    stale: bool,
}

/// What kube-apiserver does as far as it is asked for here, with the paths of objects as keys.
#[derive(Default)]
pub struct Memory {
    kept: Mutex<BTreeMap<String, Kept>>,
    /// Names that were to be stored anew, each time.
    patched: Mutex<Vec<String>>,
    lists: Mutex<Vec<String>>,
}

const ACCEPT: &str = "application/json;as=PartialObjectMetadata";

impl Memory {
    pub fn with(objects: impl IntoIterator<Item = (String, bool)>) -> Arc<Self> {
        let memory = Self::default();
        for (i, (path, stale)) in objects.into_iter().enumerate() {
            let kept = Kept { uid: format!("uid-{i}"), revision: 100, stale };
            memory.kept.lock().unwrap().insert(path, kept);
        }
        Arc::new(memory)
    }

    /// Somebody else writes it.
    fn touch(&self, path: &str) {
        self.kept.lock().unwrap().get_mut(path).unwrap().revision += 1;
    }

    fn patched(&self) -> Vec<String> {
        std::mem::take(&mut *self.patched.lock().unwrap())
    }

    fn stale(&self) -> BTreeSet<String> {
        let kept = self.kept.lock().unwrap();
        let stale = kept.iter().filter(|(_, k)| k.stale);
        stale.map(|(path, _)| path.rsplit('/').next().unwrap().to_owned()).collect()
    }

    fn metadata(path: &str, kept: &Kept) -> Value {
        let words: Vec<&str> = path.split('/').collect();
        let mut metadata = json!({
            "name": words[words.len() - 1], "uid": kept.uid,
            "resourceVersion": kept.revision.to_string(),
        });
        if let Some(at) = words.iter().position(|w| *w == "namespaces") {
            metadata["namespace"] = words[at + 1].into();
        }
        metadata
    }

    fn answer(&self, request: &Request) -> Response {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        if let Some(document) = discovery(path) {
            assert_eq!(request.method, "GET");
            return Response::new(200, document.to_string());
        }
        if path.starts_with("/apis/gone.example.com") || path == "/apis/storagemigration.k8s.io" {
            return Response::new(404, "404 page not found\n");
        }
        assert!(request.headers["accept"].starts_with(ACCEPT), "data was asked for");
        match request.method.as_str() {
            "PATCH" => self.patch(path, request),
            _ if query.starts_with("limit=") => self.list(path, query),
            _ => match self.kept.lock().unwrap().get(path) {
                Some(kept) => one(&Self::metadata(path, kept)),
                None => missing(path),
            },
        }
    }

    fn list(&self, path: &str, query: &str) -> Response {
        self.lists.lock().unwrap().push(query.to_owned());
        let after = query.split_once("&continue=").map(|(_, token)| token.replace("%2F", "/"));
        let (root, plural) = path.rsplit_once('/').unwrap();
        let kept = self.kept.lock().unwrap();
        let is_one = |p: &str| {
            p.starts_with(root) && p.rsplit('/').nth(1) == Some(plural) && p.len() > path.len()
        };
        let after = after.unwrap_or_default();
        let mut all = kept.iter().filter(|(p, _)| is_one(p) && **p > after);
        let page: Vec<_> = all.by_ref().take(500).collect();
        let more = all.next().and(page.last()).map(|(p, _)| (*p).clone());
        let items: Vec<_> =
            page.iter().map(|(p, k)| json!({"metadata": Self::metadata(p, k)})).collect();
        let document = json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"resourceVersion": "7", "continue": more.unwrap_or_default()},
            "items": items,
        });
        Response::new(200, document.to_string())
    }

    fn patch(&self, path: &str, request: &Request) -> Response {
        assert_eq!(request.headers["content-type"], "application/apply-patch+yaml");
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let fields: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["apiVersion", "kind", "metadata"]);
        let name = path.rsplit('/').next().unwrap().to_owned();
        self.patched.lock().unwrap().push(name);
        let mut kept = self.kept.lock().unwrap();
        let Some(kept) = kept.get_mut(path) else { return missing(path) };
        let metadata = &body["metadata"];
        if metadata["uid"] != *kept.uid
            || metadata["resourceVersion"].as_str() != Some(&*kept.revision.to_string())
        {
            return Response::status(409, "Conflict", "the object has been modified");
        }
        if std::mem::take(&mut kept.stale) {
            kept.revision += 1;
        }
        one(&Self::metadata(path, kept))
    }
}

fn one(metadata: &Value) -> Response {
    let document = json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
    });
    Response::new(200, document.to_string())
}

fn missing(path: &str) -> Response {
    let words: Vec<&str> = path.rsplit('/').collect();
    Response::status(404, "NotFound", &format!("{} \"{}\" not found", words[1], words[0]))
}

pub fn discovery(path: &str) -> Option<Value> {
    let resource = |name: &str, kind: &str, namespaced: bool, verbs: &[&str]| {
        let hash = if kind == "Event" { "events=" } else { "" };
        json!({"name": name, "kind": kind, "namespaced": namespaced, "verbs": verbs,
               "storageVersionHash": hash})
    };
    let all = &["get", "list", "patch"][..];
    let list = |version: &str, resources: Value| json!({"kind": "APIResourceList", "groupVersion": version, "resources": resources});
    let group = |name: &str, versions: &[&str]| {
        let versions: Vec<_> = versions
            .iter()
            .map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v}))
            .collect();
        json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
    };
    let groups = [group("example.com", &["v2", "v1"]), group("events.k8s.io", &["v1"])];
    Some(match path {
        "/api/v1" => list(
            "v1",
            json!([
                resource("secrets", "Secret", true, all),
                resource("secrets/status", "Secret", true, all),
                resource("nodes", "Node", false, all),
                resource("events", "Event", true, all),
                resource("bindings", "Binding", true, &["create"]),
            ]),
        ),
        "/apis" => json!({"kind": "APIGroupList", "groups": groups}),
        "/apis/example.com" => groups[0].clone(),
        "/apis/events.k8s.io" => groups[1].clone(),
        "/apis/example.com/v2" => {
            list("example.com/v2", json!([resource("widgets", "Widget", true, all)]))
        }
        "/apis/example.com/v1" => list(
            "example.com/v1",
            json!([
                resource("widgets", "Widget", true, all),
                resource("gadgets", "Gadget", false, all),
            ]),
        ),
        "/apis/events.k8s.io/v1" => {
            list("events.k8s.io/v1", json!([resource("events", "Event", true, all)]))
        }
        _ => return None,
    })
}

pub fn secret(name: &str) -> String {
    format!("/api/v1/namespaces/a/secrets/{name}")
}

/// A run without anything that leads to an etcd.
pub fn run(kubeconfig: &Path, words: &str) -> Bin {
    bin().words("migrate --via-api --all-objects --kubeconfig").arg(kubeconfig).words(words)
}

/// The server, what its files lie in, and how to reach it.
pub fn served(memory: &Arc<Memory>) -> ((tempfile::TempDir, Certs), ApiServer, PathBuf) {
    let (certs, dir) = (Certs::new(), tempfile::tempdir().unwrap());
    let behind = Arc::clone(memory);
    let server = ApiServer::start(&certs, move |request| behind.answer(request));
    let kubeconfig = server.kubeconfig(&certs, dir.path());
    ((dir, certs), server, kubeconfig)
}

#[test]
fn every_object_is_stored_anew_whatever_happens_meanwhile() {
    let (certs, dir) = (Certs::new(), tempfile::tempdir().unwrap());
    let name = |i: usize| format!("s{i:04}");
    let memory = Memory::with((0..1203).map(|i| (secret(&name(i)), i % 3 != 0)));
    let tries: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let (behind, on) = (Arc::clone(&memory), Arc::new(AtomicBool::new(false)));
    let trouble = Arc::clone(&on);
    let server = ApiServer::start(&certs, move |request| {
        let n = {
            let mut tries = tries.lock().unwrap();
            let n = tries.entry(request.path.clone()).or_default();
            *n += 1;
            *n
        };
        let path = request.path.split('?').next().unwrap();
        if !trouble.load(Ordering::SeqCst) {
            return behind.answer(request);
        }
        let name = path.rsplit('/').next().unwrap();
        match (&*request.method, name, n) {
            // The place in the list has expired; it goes on with what there is now.
            ("GET", "secrets", _) if request.path.ends_with("s0499") && n % 2 == 0 => {
                let token = secret("s0499");
                let status = json!({"kind": "Status", "reason": "Expired", "code": 410,
                    "metadata": {"continue": token}});
                return Response::new(410, status.to_string());
            }
            ("PATCH", "s0004", 1) => {
                let busy = "too many requests, please try again later";
                return Response::status(429, "TooManyRequests", busy).with("Retry-After", &1);
            }
            ("PATCH", "s0005", 1) => behind.touch(&secret("s0005")),
            ("PATCH", "s0007", _) => drop(behind.kept.lock().unwrap().remove(&secret("s0007"))),
            ("PATCH", "s0010", _) => {
                let denied = "admission webhook \"guard.example.com\" denied the request: frozen";
                return Response::status(403, "Forbidden", denied);
            }
            ("PATCH", "s0011", 1 | 2) => {
                let away = "Internal error occurred: failed calling webhook \"guard\": timeout";
                return Response::status(500, "InternalError", away);
            }
            _ => {}
        }
        behind.answer(request)
    });
    let kubeconfig = server.kubeconfig(&certs, dir.path());
    let planned = run(&kubeconfig, "--resource secrets").run().ok();
    assert!(planned.text().contains("1,203 objects to store anew"), "{}", planned.text());
    assert!(planned.text().contains("nobody knows which need it"));
    assert!(memory.patched().is_empty());
    on.store(true, Ordering::SeqCst);

    let done = run(&kubeconfig, "--resource secrets --apply -w json").run().code(4);
    let done = done.says("guard.example.com");
    let report = done.json();
    let numbers = ["planned", "written", "already_current", "verified", "conflicts", "deleted"];
    let numbers = numbers.map(|n| number(&report, n));
    assert_eq!(numbers, [1203, 800, 401, 0, 1, 1], "{done}");
    assert!(report["remaining"].is_null() && report["all_objects"] == true);
    assert_eq!(report["failed"][0]["object"], "a/s0010");
    assert_eq!(memory.stale(), BTreeSet::from([name(10)]));
}

#[test]
fn a_run_goes_on_where_another_has_stopped() {
    let (certs, dir) = (Certs::new(), tempfile::tempdir().unwrap());
    let name = |i: usize| format!("s{i:04}");
    let memory = Memory::with((0..1100).map(|i| (secret(&name(i)), true)));
    let (behind, away) = (Arc::clone(&memory), Arc::new(AtomicBool::new(true)));
    let refuse = Arc::clone(&away);
    let server = ApiServer::start(&certs, move |request| {
        if request.path.contains("/s0700?") && refuse.load(Ordering::SeqCst) {
            return Response::status(401, "Unauthorized", "Unauthorized");
        }
        if request.path.contains("/s0003?") && refuse.load(Ordering::SeqCst) {
            return Response::status(403, "Forbidden", "frozen");
        }
        behind.answer(request)
    });
    let kubeconfig = server.kubeconfig(&certs, dir.path());
    let progress = dir.path().join("progress.json");
    let words = format!("--resource secrets -w json --progress {}", progress.display());
    let stopped = run(&kubeconfig, &format!("{words} --apply")).run().code(1);
    stopped.says("does not know this user (401)").says("run it again to continue");
    let first: BTreeSet<String> = memory.patched().into_iter().collect();
    assert!((0..500).filter(|i| *i != 3).all(|i| first.contains(&name(i))));
    assert!(!first.contains(&name(1000)));

    // It belongs to that run alone.
    let other = format!("--resource nodes --progress {}", progress.display());
    run(&kubeconfig, &other).run().fails_with_hint(2).says("another server, configuration");
    away.store(false, Ordering::SeqCst);
    let left = run(&kubeconfig, &words).run().ok().json();
    assert_eq!([number(&left, "planned"), number(&left, "before")], [601, 499]);
    let done = run(&kubeconfig, &format!("{words} --apply")).run().ok().json();
    assert_eq!(number(&done, "planned"), 601);
    let again: BTreeSet<String> = memory.patched().into_iter().collect();
    assert!(again.contains(&name(3)) && again.contains(&name(1099)));
    assert!((0..500).filter(|i| *i != 3).all(|i| !again.contains(&name(i))));
    assert!(memory.stale().is_empty());
    assert!(!progress.exists(), "the next rotation would believe it");
}

#[test]
fn a_list_that_cannot_go_on_is_begun_anew() {
    let (certs, dir) = (Certs::new(), tempfile::tempdir().unwrap());
    let memory = Memory::with((0..700).map(|i| (secret(&format!("s{i:04}")), true)));
    let (behind, first) = (Arc::clone(&memory), AtomicBool::new(true));
    let server = ApiServer::start(&certs, move |request| {
        if request.path.contains("&continue=") && first.swap(false, Ordering::SeqCst) {
            return Response::status(410, "Expired", "too old resource version");
        }
        behind.answer(request)
    });
    let kubeconfig = server.kubeconfig(&certs, dir.path());
    let done = run(&kubeconfig, "--resource secrets --apply -w json").run().ok().json();
    assert_eq!([number(&done, "planned"), number(&done, "written")], [700, 700]);
    assert_eq!(memory.lists.lock().unwrap().len(), 3);
}

#[test]
fn resources_are_those_that_the_server_serves() {
    let path = |at: &str| (at.to_owned(), true);
    let memory = Memory::with([
        path("/api/v1/namespaces/a/secrets/s"),
        path("/api/v1/namespaces/b/secrets/s"),
        path("/api/v1/nodes/n"),
        path("/api/v1/namespaces/a"),
        path("/api/v1/namespaces/a/events/e"),
        path("/apis/example.com/v2/namespaces/a/widgets/w:x"),
        path("/apis/example.com/v1/gadgets/g"),
    ]);
    let (_dir, _server, kubeconfig) = served(&memory);
    let planned = |words: &str| {
        let done = run(&kubeconfig, &format!("{words} -w json")).run().ok().json();
        let groups = done["groups"].as_array().unwrap().clone();
        let group = |g: &Value| format!("{} {}", g["resource"].as_str().unwrap(), g["entries"]);
        groups.iter().map(group).collect::<Vec<_>>()
    };
    let all =
        ["secrets 2", "nodes 1", "events 1", "widgets.example.com 1", "gadgets.example.com 1"];
    assert_eq!(planned("--all-resources"), all);
    assert_eq!(planned("--resource *.example.com"), &all[3..]);
    assert_eq!(planned("--resource secrets -n b"), ["secrets 1"]);
    // A configuration may name what is not there; a user may not.
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "new", "identity: {}");
    let by_config = run(&kubeconfig, "--encryption-config").arg(config).run().ok();
    by_config.says("no resource configmaps");
    for words in ["--resource thingies", "--resource bindings", "--resource x.gone.example.com"] {
        run(&kubeconfig, &format!("{words} --apply")).run().fails(1).says("that it can store anew");
    }
    let nowhere = run(&kubeconfig, "--resource secrets -n nowhere --apply").run();
    nowhere.fails_with_hint(1).says("no namespace `nowhere`");
    run(&kubeconfig, "--resource secrets -n nowhere --allow-empty").run().ok();
    assert!(memory.patched().is_empty());
    let done = run(&kubeconfig, "--all-resources --apply").run().ok();
    assert!(done.text().contains("remaining is unknown"), "{}", done.text());
    assert_eq!(memory.stale(), BTreeSet::from(["a".to_owned()]));
}

#[test]
fn a_server_that_stores_nothing_anew_is_no_success_to_rely_on() {
    let memory = Memory::with((0..5).map(|i| (secret(&format!("s{i}")), false)));
    let (_dir, _server, kubeconfig) = served(&memory);
    let done = run(&kubeconfig, "--resource secrets --apply").run().ok();
    done.says("which, cannot be known from here");
}

#[test]
fn what_is_said_of_etcd_is_refused() {
    let memory = Memory::with([]);
    let (_dir, _server, kubeconfig) = served(&memory);
    for words in ["--endpoints 127.0.0.1:1", "--prefix /x", "--backup x", "--cacert x"] {
        run(&kubeconfig, words).run().fails_with_hint(2).says("does not look at");
    }
    bin().words("migrate --all-objects --encryption-config x").run().code(2);
    bin().words("migrate --via-api --progress x --encryption-config x").run().code(2);
    let inside = run(&kubeconfig, "--encryption-config etcd:a/b").run();
    inside.fails_with_hint(2).says("lies in etcd");
}
