//! `migrate --storage-version-migration` against a server whose controller stores in a real etcd.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

use super::all_objects::discovery;
use super::via_api::{Storage, secret};
use super::{migrate, number, state};
use crate::support::apiserver::{ApiServer, Request, Response};
use crate::support::bin::bin;
use crate::support::certs::Certs;
use crate::support::{Etcd, Version, corpus};

const GROUP: &str = "storagemigration.k8s.io";

/// What kube-controller-manager does with a migration, as far as it is seen.
struct Controller {
    version: &'static str,
    /// What it does when it is done, at the third look.
    end: Box<dyn Fn() -> Value + Send + Sync>,
    /// It ends at that look.
    looks: usize,
    made: Mutex<Vec<Value>>,
    looked: AtomicUsize,
}

impl Controller {
    fn new(version: &'static str, end: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        let (made, looked) = (Mutex::default(), AtomicUsize::new(0));
        Self { version, end: Box::new(end), looks: 3, made, looked }
    }

    fn answer(&self, request: &Request) -> Response {
        let group = format!("/apis/{GROUP}");
        let all = format!("{group}/{}/storageversionmigrations", self.version);
        let ok = |document: Value| Response::new(200, document.to_string());
        let path = request.path.as_str();
        if let Some(document) = discovery(path) {
            return ok(document);
        }
        if path == group {
            let version = json!({"groupVersion": format!("{GROUP}/{}", self.version)});
            return ok(json!({"name": GROUP, "versions": [version]}));
        }
        let mut made = self.made.lock().unwrap();
        if path == all && request.method == "POST" {
            let mut migration: Value = serde_json::from_slice(&request.body).unwrap();
            migration["metadata"]["name"] = format!("m{}", made.len()).into();
            made.push(migration.clone());
            return Response::new(201, migration.to_string());
        }
        if path == all {
            return ok(json!({"items": *made}));
        }
        let at: usize = path.strip_prefix(&format!("{all}/m")).unwrap().parse().unwrap();
        let n = self.looked.fetch_add(1, Ordering::SeqCst) + 1;
        let conditions = match n {
            1 => json!([]),
            n if n < self.looks => json!([{"type": "Running", "status": "True"}]),
            _ => json!([{"type": "Running", "status": "False"}, (self.end)()]),
        };
        made[at]["status"] = json!({"conditions": conditions});
        ok(made[at].clone())
    }
}

fn succeeded() -> Value {
    json!({"type": "Succeeded", "status": "True", "reason": "StorageVersionMigrationSucceeded"})
}

fn key(i: usize) -> String {
    format!("/registry/secrets/a/s{i:02}")
}

/// An etcd with stale Secrets.
fn filled() -> Etcd {
    let etcd = Etcd::plain(Version::V35);
    etcd.put_many((0..20).map(|i| (key(i), secret(&format!("s{i:02}")))));
    etcd
}

const WORDS: &str = "--storage-version-migration --no-backup -w json --kubeconfig";

fn started(controller: &Arc<Controller>) -> ((tempfile::TempDir, Certs), ApiServer) {
    let (certs, dir) = (Certs::new(), tempfile::tempdir().unwrap());
    let behind = Arc::clone(controller);
    let server = ApiServer::start(&certs, move |request| behind.answer(request));
    server.kubeconfig(&certs, dir.path());
    ((dir, certs), server)
}

fn kubeconfig(files: &(tempfile::TempDir, Certs)) -> std::path::PathBuf {
    files.0.path().join("kubeconfig")
}

/// The controller has the server store all Secrets anew, by the configuration that it has.
fn stores(etcd: &Etcd, loaded: &Path) -> impl Fn() -> Value + Send + Sync + use<> {
    let storage = Storage::new(etcd, loaded);
    move || {
        (0..20).for_each(|i| storage.anew(&key(i)));
        succeeded()
    }
}

#[test]
fn the_cluster_migrates_and_etcd_is_looked_at() {
    let etcd = filled();
    let file = corpus::private_config("p1-secretbox");
    let controller = Arc::new(Controller::new("v1beta1", stores(&etcd, &file)));
    let (files, _server) = started(&controller);
    let run = |more: &str| {
        migrate(&etcd, &[&file], &format!("{more} {WORDS}")).arg(kubeconfig(&files)).run()
    };
    let before = state(&etcd);
    assert_eq!(number(&run("").ok().json(), "planned"), 20);
    assert!(controller.made.lock().unwrap().is_empty() && state(&etcd) == before);

    let report = run("--apply").ok().json();
    let numbers = ["planned", "written", "verified", "remaining"].map(|n| number(&report, n));
    assert_eq!(numbers, [20, 20, 20, 0]);
    let followed = &report["storage_version_migrations"];
    assert_eq!(followed.as_array().unwrap().len(), 1);
    assert_eq!([&followed[0]["name"], &followed[0]["state"]], ["m0", "succeeded"]);
    let made = controller.made.lock().unwrap();
    assert_eq!(made.len(), 1);
    assert_eq!(made[0]["spec"], json!({"resource": {"group": "", "resource": "secrets"}}));
    assert_eq!(made[0]["metadata"]["generateName"], "atrest-secrets-");
    drop(made);
    // Nothing is stale any more, so that nothing is made.
    run("--apply").ok();
    assert_eq!(controller.made.lock().unwrap().len(), 1);
}

#[test]
fn success_is_what_etcd_shows_and_not_what_is_said() {
    let etcd = filled();
    let file = corpus::private_config("p1-secretbox");
    let before = state(&etcd);
    let controller = Arc::new(Controller::new("v1alpha1", succeeded));
    let (files, _server) = started(&controller);
    let words = format!("--apply {WORDS}");
    let done = migrate(&etcd, &[&file], &words).arg(kubeconfig(&files)).run().code(4);
    let report = done.says("the API server has loaded another").json();
    let numbers = ["written", "verified", "remaining"].map(|n| number(&report, n));
    assert_eq!(numbers, [0, 0, 20]);
    assert!(state(&etcd) == before);
    let spec = json!({"resource": {"group": "", "resource": "secrets", "version": "v1"}});
    assert_eq!(controller.made.lock().unwrap()[0]["spec"], spec);
}

#[test]
fn one_that_is_under_way_is_followed_to_its_failure() {
    let etcd = filled();
    let file = corpus::private_config("p1-secretbox");
    let failed =
        || json!({"type": "Failed", "status": "True", "reason": "Denied", "message": "a webhook"});
    let controller = Arc::new(Controller::new("v1beta1", failed));
    let of = |resource: &str, status: Value| {
        json!({"metadata": {"name": "m1", "creationTimestamp": "2026-01-01T00:00:00Z"},
               "spec": {"resource": {"group": "", "resource": resource}}, "status": status})
    };
    *controller.made.lock().unwrap() = vec![
        of("configmaps", json!({})),
        of("secrets", json!({})),
        of("secrets", json!({"conditions": [succeeded()]})),
    ];
    let (files, _server) = started(&controller);
    let words = format!("--apply {WORDS}");
    let done = migrate(&etcd, &[&file], &words).arg(kubeconfig(&files)).run().code(4);
    let report = done.says("the migration m1 failed: Denied: a webhook").json();
    let followed = &report["storage_version_migrations"][0];
    assert_eq!(followed["made_before"], "2026-01-01T00:00:00Z");
    assert_eq!(followed["state"], "failed");
    assert_eq!(controller.made.lock().unwrap().len(), 3, "another one was made");
}

#[test]
fn without_etcd_the_state_of_the_migration_is_all_that_is_known() {
    let controller = Arc::new(Controller::new("v1beta1", succeeded));
    let (certs, dir) = (Certs::new(), tempfile::tempdir().unwrap());
    let behind = Arc::clone(&controller);
    let server = ApiServer::start(&certs, move |request| {
        if request.path.starts_with("/api/v1/secrets?") {
            let item = json!({"metadata": {"name": "s", "namespace": "a"}});
            let list = json!({"kind": "PartialObjectMetadataList", "items": [item]});
            return Response::new(200, list.to_string());
        }
        behind.answer(request)
    });
    let kubeconfig = server.kubeconfig(&certs, dir.path());
    let words = "migrate --storage-version-migration --all-objects --resource secrets --kubeconfig";
    let run = |more: &str| bin().words(words).arg(&kubeconfig).words(more).run();
    assert_eq!(number(&run("-w json").ok().json(), "planned"), 1);
    assert!(controller.made.lock().unwrap().is_empty());
    let done = run("--apply").ok();
    let text = done.text();
    assert!(text.contains("StorageVersionMigration m0 of secrets: succeeded"), "{text}");
    assert!(text.contains("remaining is unknown"), "{text}");
    let report = run("--apply -w json").ok().json();
    assert!(report["written"].is_null() && report["remaining"].is_null());
    run("-n a").code(2);
    run("--qps 5").code(2);
}

#[test]
fn an_interrupted_run_leaves_it_to_the_cluster() {
    let etcd = filled();
    let file = corpus::private_config("p1-secretbox");
    let mut controller = Controller::new("v1beta1", succeeded);
    controller.looks = usize::MAX;
    let controller = Arc::new(controller);
    let (certs, dir) = (Certs::new(), tempfile::tempdir().unwrap());
    let (behind, (tell, told)) = (Arc::clone(&controller), mpsc::channel());
    let server = ApiServer::start(&certs, move |request| {
        let answer = behind.answer(request);
        if behind.looked.load(Ordering::SeqCst) == 2 {
            tell.send(()).unwrap();
        }
        answer
    });
    let kubeconfig = server.kubeconfig(&certs, dir.path());
    let child = migrate(&etcd, &[&file], &format!("--apply {WORDS}")).arg(kubeconfig).spawn();
    told.recv_timeout(Duration::from_mins(1)).unwrap();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130), "{}", String::from_utf8_lossy(&out.stderr));
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["storage_version_migrations"][0]["state"], "running");
    assert_eq!([number(&report, "written"), number(&report, "remaining")], [0, 20]);
}
