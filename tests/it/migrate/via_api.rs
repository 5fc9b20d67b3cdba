//! `migrate --via-api` against a server that stores in a real etcd, as kube-apiserver does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use atrest::resource::{DEFAULT_PREFIX, Scope};
use atrest::secret::Plaintext;
use atrest::source::live::{Commit, Kv, Live, LiveOptions, Put};
use atrest::transform::Transformers;
use serde_json::Value;

use super::{config, migrate, number, plain, state, transformers};
use crate::support::apiserver::{ApiServer, Request, Response};
use crate::support::certs::Certs;
use crate::support::{Etcd, Version, corpus};

fn object(api_version: &str, kind: &str, name: &str, uid: &str) -> String {
    serde_json::json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": "a", "uid": uid},
        "data": {"password": "bWFkZS11cA=="},
    })
    .to_string()
}

pub fn secret(name: &str) -> String {
    object("v1", "Secret", name, &format!("uid-{name}"))
}

/// What kube-apiserver does with a server-side apply that says nothing but which object is meant.
pub struct Storage {
    /// Keeps the connection.
    _live: Live,
    kv: Kv,
    /// By the configuration that the server has loaded.
    transformers: Transformers,
    seen: Mutex<Vec<String>>,
}

impl Storage {
    pub fn new(etcd: &Etcd, loaded: &Path) -> Arc<Self> {
        let time = Duration::from_secs(10);
        let live = Live::connect(&LiveOptions {
            endpoints: vec![etcd.endpoint()],
            cacert: None,
            cert: None,
            key: None,
            credentials: None,
            insecure_skip_tls_verify: false,
            insecure_transport: true,
            dial_timeout: time,
            command_timeout: time,
            keepalive_time: time,
            keepalive_timeout: time,
            tempo: atrest::source::live::Tempo::default(),
        })
        .unwrap();
        let (kv, transformers) = (live.kv().unwrap(), transformers(&[loaded]));
        Arc::new(Self { _live: live, kv, transformers, seen: Mutex::default() })
    }

    /// Stores what lies at a key anew.
    pub fn anew(&self, key: &str) {
        let entry = self.kv.read(&[&[key.as_bytes()]], None).unwrap().remove(0).unwrap();
        let location = Scope::new(DEFAULT_PREFIX).locate(key.as_bytes()).resource.into_owned();
        let t = self.transformers.for_resource(&location);
        let opened = t.read(key.as_bytes(), &entry.value).unwrap();
        let value = t.write(key.as_bytes(), &opened.plaintext).unwrap();
        let mod_revision = entry.mod_revision;
        let put = Put { key: key.as_bytes(), mod_revision, value: &value };
        assert!(matches!(self.kv.commit(&[put]).unwrap(), Commit::Done(_)));
    }

    fn names(&self) -> BTreeSet<String> {
        self.seen.lock().unwrap().iter().cloned().collect()
    }

    /// Stores an object anew if it is stale.
    fn apply(&self, request: &Request) -> Response {
        assert_eq!(request.method, "PATCH");
        assert_eq!(request.headers["content-type"], "application/apply-patch+yaml");
        let (path, query) = request.path.split_once('?').unwrap();
        assert_eq!(query, "fieldManager=atrest");
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let fields = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(fields(&body), ["apiVersion", "kind", "metadata"]);
        let sent = ["name", "namespace", "resourceVersion", "uid"];
        assert_eq!(fields(&body["metadata"]), sent);
        let words: Vec<&str> = path.rsplit('/').collect();
        let (name, resource, namespace) = (words[0], words[1], words[2]);
        self.seen.lock().unwrap().push(name.to_owned());
        let key = match path.strip_prefix("/apis/") {
            Some(rest) => {
                let group = rest.split('/').next().unwrap();
                format!("/registry/{group}/{resource}/{namespace}/{name}")
            }
            None => format!("/registry/{resource}/{namespace}/{name}"),
        };
        let entry = self.kv.read(&[&[key.as_bytes()]], None).unwrap().remove(0);
        let Some(entry) = entry else {
            let message = format!("{resource} \"{name}\" not found");
            return Response::status(404, "NotFound", &message);
        };
        let location = Scope::new(DEFAULT_PREFIX).locate(key.as_bytes()).resource.into_owned();
        let t = self.transformers.for_resource(&location);
        let opened = t.read(key.as_bytes(), &entry.value).unwrap();
        let stored: Value = serde_json::from_slice(opened.plaintext.expose()).unwrap();
        let conflict = || Response::status(409, "Conflict", "the object has been modified");
        if stored["metadata"]["uid"] != body["metadata"]["uid"]
            || body["metadata"]["resourceVersion"].as_str()
                != Some(&*entry.mod_revision.to_string())
        {
            return conflict();
        }
        if opened.stale {
            let value = t.write(key.as_bytes(), &opened.plaintext).unwrap();
            let mod_revision = entry.mod_revision;
            let put = Put { key: key.as_bytes(), mod_revision, value: &value };
            if !matches!(self.kv.commit(&[put]).unwrap(), Commit::Done(_)) {
                return conflict();
            }
        }
        Response::new(200, r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1"}"#)
    }
}

const APPLY: &str = "--via-api --apply --no-backup -w json --kubeconfig";

#[test]
fn each_stale_object_and_no_other_is_written_through_the_api() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::plain(Version::V35);
    let file = corpus::private_config("p1-secretbox");
    let name = |i: usize| format!("s{i:02}");
    let key = |name: &str| format!("/registry/secrets/a/{name}");
    etcd.put_many((0..60).map(|i| (key(&name(i)), secret(&name(i)))));
    // Some are current already.
    let t = transformers(&[&file]);
    for i in 40..60 {
        let plaintext = Plaintext::new(secret(&name(i)).into_bytes());
        let value = t.for_resource("secrets").write(key(&name(i)).as_bytes(), &plaintext).unwrap();
        etcd.put(&key(&name(i)), &value);
    }
    let before = plain(&state(&etcd), &t);

    let storage = Storage::new(&etcd, &file);
    let tries: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let (behind, at) = (Arc::clone(&storage), etcd.args());
    let changed = secret("s05").replace("bWFkZS11cA==", "Y2hhbmdlZA==");
    let put = changed.clone();
    let server = ApiServer::start(&certs, move |request| {
        let name = request.path.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
        let n = {
            let mut tries = tries.lock().unwrap();
            let n = tries.entry(name.clone()).or_default();
            *n += 1;
            *n
        };
        let etcdctl = |words: &[&str]| {
            let etcdctl = crate::support::tools::program(Version::V35, "etcdctl");
            let done = std::process::Command::new(etcdctl).args(&at).args(words).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        match (name.as_str(), n) {
            ("s03", 1) => {
                let busy = "too many requests, please try again later";
                return Response::status(429, "TooManyRequests", busy).with("Retry-After", &1);
            }
            // Somebody is faster.
            ("s05", 1) => etcdctl(&["put", "/registry/secrets/a/s05", &put]),
            ("s07", 1) => etcdctl(&["del", "/registry/secrets/a/s07"]),
            ("s09", _) => {
                let denied = "admission webhook \"guard.example.com\" denied the request: frozen";
                return Response::status(403, "Forbidden", denied);
            }
            ("s11", 1 | 2) => {
                let away = "Internal error occurred: failed calling webhook \"guard\": timeout";
                return Response::status(500, "InternalError", away);
            }
            _ => {}
        }
        behind.apply(request)
    });
    let kubeconfig = server.kubeconfig(&certs, dir.path());
    let run = || migrate(&etcd, &[&file], APPLY).arg(&kubeconfig).run();

    let start = Instant::now();
    let done = run().code(4).says("guard.example.com");
    assert!(start.elapsed() >= Duration::from_secs(1), "the server was not left alone");
    let report = done.json();
    let numbers = ["planned", "written", "verified", "conflicts", "deleted", "remaining"];
    let numbers = numbers.map(|n| number(&report, n));
    assert_eq!(numbers, [40, 38, 38, 1, 1, 1], "{done}");
    assert_eq!(report["failed"][0]["key"], "/registry/secrets/a/s09");
    let asked: BTreeSet<String> = (0..40).filter(|i| *i != 9).map(name).collect();
    assert_eq!(storage.names(), asked, "others were asked for too");
    let after = plain(&state(&etcd), &t);
    for (key, (value, current)) in &after {
        assert_eq!(*current, !key.ends_with("s09"), "{key}");
        let expected = if key.ends_with("s05") { changed.as_bytes() } else { &before[key].0 };
        assert!(value == expected, "{key} has another value");
    }
    let printed = format!("{done}{}", String::from_utf8_lossy(&done.stdout));
    assert!(!printed.contains("bWFkZS11cA"));

    // Continued: what is left, and nothing else.
    storage.seen.lock().unwrap().clear();
    assert_eq!(number(&run().code(4).json(), "planned"), 1);
    assert!(storage.names().is_empty());
}

#[test]
fn a_server_with_another_configuration_is_found_out() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::plain(Version::V35);
    let name = |i: usize| format!("s{i:03}");
    etcd.put_many((0..600).map(|i| (format!("/registry/secrets/a/{}", name(i)), secret(&name(i)))));
    let before = state(&etcd);
    // To this one plaintext is current.
    let old = config(dir.path(), "old", "identity: {}");
    let storage = Storage::new(&etcd, &old);
    let server = ApiServer::start(&certs, move |request| storage.apply(request));
    let kubeconfig = server.kubeconfig(&certs, dir.path());
    let file = corpus::private_config("p1-secretbox");
    let words = format!("--concurrency 2 {APPLY}");
    let done = migrate(&etcd, &[&file], &words).arg(&kubeconfig).run().code(1);
    done.says("it has not loaded this configuration");
    assert!(server.requests.load(std::sync::atomic::Ordering::SeqCst) < 200, "it went on and on");
    assert!(state(&etcd) == before);
}

/// A definition whose stored version is not served any more.
#[test]
fn the_version_is_one_that_the_server_serves() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::plain(Version::V35);
    let names = ["w1", "w2", "system:x y"];
    for name in names {
        let key = format!("/registry/example.com/widgets/a/{name}");
        etcd.put(&key, object("example.com/v1beta1", "Widget", name, "u").as_bytes());
    }
    let secretbox = "secretbox: {keys: [{name: s, secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=}]}\n  - identity: {}";
    let file = config(dir.path(), "new", secretbox);
    let storage = Storage::new(&etcd, &file);
    let server = ApiServer::start(&certs, move |request| match &*request.path {
        "/apis/example.com" => Response::new(
            200,
            r#"{"kind":"APIGroup","name":"example.com","preferredVersion":{"groupVersion":"example.com/v1","version":"v1"}}"#,
        ),
        path if path.starts_with("/apis/example.com/v1/") => {
            let path = request.path.replace("%20", " ");
            let (method, connection) = (request.method.clone(), request.connection);
            let (headers, body) = (request.headers.clone(), request.body.clone());
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["apiVersion"], "example.com/v1");
            let body = body.to_string().into_bytes();
            storage.apply(&Request { method, path, headers, body, connection })
        }
        _ => Response::new(404, "404 page not found\n"),
    });
    let kubeconfig = server.kubeconfig_with_certificate(&certs, dir.path());
    let done = migrate(&etcd, &[&file], APPLY).arg(&kubeconfig).run().ok().json();
    assert_eq!((number(&done, "written"), number(&done, "remaining")), (3, 0));
}

#[test]
fn a_server_that_is_not_there_is_said_before_anything_else() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/s", secret("s").as_bytes());
    let file = corpus::private_config("p1-secretbox");
    migrate(&etcd, &[&file], APPLY).arg("/nowhere").run().fails(1).says("/nowhere");
    migrate(&etcd, &[&file], "--via-api --batch 8").run().code(2);
}
