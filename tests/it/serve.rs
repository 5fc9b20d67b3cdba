//! `serve`: a read-only Kubernetes API, asked by the real kubectl and by a client of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::plugs::Plugs;
use crate::support::served::Served;
use crate::support::snapshot::Crafted;
use crate::support::{Etcd, Version, bin, corpus};

fn p0(options: &str) -> Served {
    Served::start(bin().arg("--snapshot").arg(corpus::db("p0-plaintext")), options)
}

fn names(list: &Value) -> Vec<String> {
    let name = |i: &Value| i["metadata"]["name"].as_str().unwrap().to_owned();
    list["items"].as_array().unwrap().iter().map(name).collect()
}

#[test]
fn only_who_has_the_kubeconfig_is_answered() {
    let served = p0("");
    let mode = fs::metadata(served.kubeconfig()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(served.address.starts_with("127.0.0.1:"));
    for header in ["", "Authorization: Bearer x\r\n", "Authorization: Basic x\r\n"] {
        let refused = served.ask_as("GET", "/api/v1/secrets", "*/*", header);
        assert_eq!(refused.code, 401);
        assert_eq!(refused.json()["reason"], "Unauthorized");
    }
    assert_eq!(served.ask("GET", "/api/v1/secrets", "*/*").code, 200);
    let token = served.token.clone();
    assert!(!served.said().contains(&token), "the token is in the file only");
}

#[test]
fn what_is_served_is_said_and_other_files_stay() {
    let served = p0("");
    let said = served.said();
    assert!(said.contains("at revision") && said.contains("read-only"), "{said}");
    assert!(said.contains("--reveal serves them"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("config");
    fs::write(&own, "apiVersion: v1\nkind: Config\n").unwrap();
    let p0 = corpus::db("p0-plaintext");
    let run = |words: &str| bin().arg("--snapshot").arg(&p0).words("serve").words(words);
    run("--kubeconfig")
        .arg(&own)
        .run()
        .fails_with_hint(1)
        .says("was not written by `atrest serve`");
    assert_eq!(fs::read_to_string(&own).unwrap(), "apiVersion: v1\nkind: Config\n");
    run("--listen 0.0.0.0:0").run().fails_with_hint(2).says("can be reached by other machines");
    run("--listen nowhere").run().code(2);
}

#[test]
fn secrets_are_covered_unless_revealed() {
    let truth = corpus::kubectl("p0-plaintext");
    let secret = |list: &Value| -> Value {
        let find = |i: &&Value| i["kind"] == "Secret" && i["metadata"]["name"] == "login1";
        list["items"].as_array().unwrap().iter().find(find).unwrap().clone()
    };
    let truth = secret(&truth);
    let covered = p0("");
    let revealed = p0("--reveal");
    let path = "/api/v1/namespaces/default/secrets/login1";
    let mut whole = revealed.get(path);
    // kubectl hides them.
    whole["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert!(whole == truth);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let answers = [
        covered.ask("GET", path, "application/json").body,
        covered.ask("GET", "/api/v1/secrets", "application/json").body,
        covered.ask("GET", "/api/v1/secrets?includeObject=Object", table).body,
        covered.ask("GET", "/api/v1/secrets", table).body,
        covered.ask("GET", "/api/v1/secrets?watch=1&timeoutSeconds=1", "*/*").body,
        covered.kubectl_ok("get secrets -A -o yaml").into_bytes(),
        covered.kubectl_ok("describe secret login1").into_bytes(),
    ];
    for value in truth["data"].as_object().unwrap().values() {
        let text = value.as_str().unwrap();
        for answer in &answers {
            assert!(!String::from_utf8_lossy(answer).contains(text));
        }
    }
    // Typed clients decode it, and count its bytes rightly.
    let described = covered.kubectl_ok("describe secret login1");
    for (name, value) in truth["data"].as_object().unwrap() {
        let len = STANDARD.decode(value.as_str().unwrap()).unwrap().len();
        let line = described.lines().find(|l| l.starts_with(&format!("{name}:"))).unwrap();
        assert!(line.ends_with(&format!(" {len} bytes")), "{line}");
    }
    assert!(revealed.said().contains("--reveal"));
}

#[test]
fn every_write_is_refused() {
    let served = p0("");
    let at = "/api/v1/namespaces/default/secrets";
    for (method, path) in [
        ("POST", at),
        ("PUT", "/api/v1/namespaces/default/secrets/login1"),
        ("PATCH", "/api/v1/namespaces/default/secrets/login1"),
        ("DELETE", "/api/v1/namespaces/default/secrets/login1"),
        ("DELETE", at),
        ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews"),
    ] {
        let refused = served.ask(method, path, "application/json");
        assert_eq!(refused.code, 405, "{method} {path}");
        let status = refused.json();
        assert_eq!(
            (&status["kind"], &status["reason"]),
            (&json!("Status"), &json!("MethodNotAllowed"))
        );
    }
    for line in [
        "delete secret login1",
        "create secret generic new --from-literal=a=b",
        "label secret login1 a=b",
        "create namespace new",
        "scale deployment web -n team-a --replicas=3",
    ] {
        let done = served.kubectl(line);
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success(), "{line}");
        assert!(
            stderr.contains("read-only") || stderr.contains("could not find"),
            "{line}: {stderr}"
        );
    }
    let logs = served.kubectl("logs p -n team-a");
    assert!(String::from_utf8_lossy(&logs.stderr).contains("needs a running cluster"));
    assert!(served.kubectl_ok("get secret login1").contains("login1"), "it is still there");
}

#[test]
fn kubectl_finds_its_way() {
    let served = p0("");
    for (line, shown) in [
        ("get pods -A", "team-a      p      0/1     Pending"),
        ("get pods -n team-a -o wide", "READINESS GATES"),
        ("get all -A", "deployment.apps/web"),
        ("get deploy -A -o name", "deployment.apps/web"),
        ("get po p -n team-a -o json", "\"kind\": \"Pod\""),
        ("get widgets -A", "w1"),
        ("get crd", "widgets.example.com"),
        ("get ns default -o yaml", "kind: Namespace"),
        ("get nodes", ""),
        ("describe pod p -n team-a", "Containers:"),
        ("describe deployment web -n team-a", "Replicas:"),
        ("describe widget w1 -n team-a", "Kind:"),
        ("api-resources", "deployments                         deploy       apps/v1"),
        ("api-versions", "apps/v1"),
        ("auth can-i list secrets", "yes"),
        ("auth whoami", "atrest"),
        ("explain pods.spec.containers.image", "FIELD: image <string>"),
        ("explain deployment --recursive", "revisionHistoryLimit"),
        ("explain widgets", "KIND:       Widget"),
        (
            "get secrets -n default --field-selector type=Opaque,metadata.name!=app-1 -o name",
            "secret/app-2",
        ),
        ("get events -A --field-selector type=Warning", "KubeAPIReadyz"),
        ("get clusterroles -l kubernetes.io/bootstrapping=rbac-defaults", "cluster-admin"),
        ("get cm -A --sort-by=.metadata.name", "cm-1"),
        ("version", "Server Version"),
        ("get --raw /healthz", "ok"),
    ] {
        let printed = served.kubectl_ok(line);
        assert!(printed.contains(shown), "kubectl {line}:\n{printed}");
    }
    for (line, said) in [
        ("get pod none", "NotFound"),
        ("get nothing", "doesn't have a resource type"),
        ("get pods -A --field-selector spec.image=a", "field label not supported: spec.image"),
        ("get pods -A -l a=b=c=d,(", "unable to parse"),
    ] {
        let done = served.kubectl(line);
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && stderr.contains(said), "kubectl {line}: {stderr}");
    }
    let denied = served.kubectl("auth can-i delete pods");
    assert!(String::from_utf8_lossy(&denied.stdout).starts_with("no"));
}

#[test]
fn pages_make_up_the_list() {
    let served = p0("");
    let whole = served.get("/api/v1/secrets");
    let mut pages = Vec::new();
    let mut rest = String::new();
    loop {
        let page = served.get(&format!("/api/v1/secrets?limit=7{rest}"));
        let got = names(&page);
        pages.extend(got.clone());
        let metadata = &page["metadata"];
        let Some(token) = metadata["continue"].as_str() else { break };
        assert_eq!(got.len(), 7);
        let left = usize::try_from(metadata["remainingItemCount"].as_u64().unwrap()).unwrap();
        assert_eq!(left, names(&whole).len() - pages.len());
        rest = format!("&continue={token}");
    }
    assert_eq!(pages, names(&whole));
    let selected = served.get("/api/v1/secrets?limit=3&fieldSelector=metadata.name%3Dapp-2");
    assert!(selected["metadata"]["remainingItemCount"].is_null());
    assert_eq!(names(&selected).first().map(String::as_str), Some("app-2"));
    assert_eq!(served.ask("GET", "/api/v1/secrets?continue=x", "*/*").code, 400);
    assert_eq!(served.ask("GET", "/api/v1/secrets?limit=-1", "*/*").code, 400);
    let protobuf = served.ask("GET", "/api/v1/secrets", "application/vnd.kubernetes.protobuf");
    assert_eq!(protobuf.code, 406);
}

#[test]
fn a_watch_begins_with_what_is_there_and_stays() {
    let served = p0("");
    let mut stream = served.connect();
    write!(
        stream,
        "GET /api/v1/namespaces/team-a/pods?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
        served.token
    )
    .unwrap();
    let events = BufReader::new(stream).lines().map_while(Result::ok);
    let events: Vec<Value> = events
        .filter(|l| l.starts_with('{'))
        .take(2)
        .map(|l| serde_json::from_str(&l).unwrap())
        .collect();
    assert_eq!(events[0]["type"], "ADDED");
    assert_eq!(events[0]["object"]["kind"], "Pod");
    assert_eq!(events[0]["object"]["metadata"]["name"], "p");
    assert_eq!(events[1]["type"], "BOOKMARK");
    let annotations = &events[1]["object"]["metadata"]["annotations"];
    assert_eq!(annotations["k8s.io/initial-events-end"], "true");
    // One that goes on from a list has nothing to tell, and ends when it was to end.
    let quiet = served.ask("GET", "/api/v1/pods?watch=1&resourceVersion=5&timeoutSeconds=1", "*/*");
    assert_eq!((quiet.code, quiet.body.len()), (200, 0));
    let printed = served.kubectl_ok("get pods -n team-a -w --request-timeout=1s");
    assert!(printed.contains("Pending"), "{printed}");
}

#[test]
fn what_cannot_be_read_is_left_out_and_said() {
    let plugs = Plugs::start("kek-2026-02");
    // One configuration short: values under the KMS plugins cannot be read.
    let served = Served::start(
        bin()
            .arg("--snapshot")
            .arg(corpus::db("p6-mixed"))
            .arg("--encryption-config")
            .arg(corpus::private_config("p1-secretbox")),
        "--reveal",
    );
    let answer = served.ask("GET", "/api/v1/secrets", "application/json");
    let listed = names(&answer.json());
    assert!(answer.head.contains("warning: 299 - \"secrets"), "{}", answer.head);
    assert!(served.said().contains("cannot be shown"));
    let all = Served::start(
        bin()
            .arg("--snapshot")
            .arg(corpus::db("p6-mixed"))
            .arg("--encryption-config")
            .arg(plugs.config("p6-sb2")),
        "--reveal",
    );
    let whole = all.ask("GET", "/api/v1/secrets", "application/json");
    assert!(!whole.head.contains("warning:"));
    let whole = names(&whole.json());
    assert!(listed.len() < whole.len() && !listed.is_empty());
    let missing = whole.iter().find(|n| !listed.contains(n)).unwrap();
    let one = served.ask("GET", &format!("/api/v1/namespaces/default/secrets/{missing}"), "*/*");
    assert_eq!((one.code, &one.json()["reason"]), (500, &json!("InternalError")));
}

#[test]
fn the_past_and_every_source() {
    let plugs = Plugs::start("kek-2026-02");
    let p0 = corpus::entries("p0-plaintext").revision;
    let past = Served::start(
        bin()
            .arg("--snapshot")
            .arg(corpus::db("p7-migrated-uncompacted"))
            .arg("--encryption-config")
            .arg(plugs.config("p6-sb2"))
            .args(["--revision", &p0.to_string()]),
        "",
    );
    let then = Served::start(bin().arg("--snapshot").arg(corpus::db("p0-plaintext")), "");
    let secrets = then.get("/api/v1/secrets");
    assert!(past.get("/api/v1/secrets") == secrets);
    let etcd = Etcd::builder(Version::V35).restore(corpus::db("p0-plaintext")).start();
    let live = Served::start(bin().args(etcd.args()), "");
    assert!(live.get("/api/v1/secrets")["items"] == secrets["items"]);
    let page = live.get("/api/v1/secrets?limit=5");
    let next = page["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = live.get(&format!("/api/v1/secrets?continue={next}"));
    assert_eq!([names(&page), names(&rest)].concat(), names(&secrets));
    assert!(live.kubectl_ok("get widgets -A").contains("w1"));
    let dir = corpus::data_dir();
    let stopped = Served::start(
        bin()
            .arg("--data-dir")
            .arg(dir.path())
            .arg("--encryption-config")
            .arg(plugs.config("p6-sb2")),
        "--reveal",
    );
    let truth = corpus::kubectl("p8-compacted-not-defragged");
    let mut expected: Vec<Value> = truth["items"].as_array().unwrap().clone();
    expected.retain(|i| i["kind"] == "Secret");
    let got = stopped.get("/api/v1/secrets");
    assert_eq!(names(&got).len(), expected.len());
    for (got, expected) in got["items"].as_array().unwrap().iter().zip(&expected) {
        assert!(got["data"] == expected["data"], "{}", expected["metadata"]["name"]);
    }
}

/// A kine database answers as the snapshot of the same entries does.
#[test]
fn a_kine_database() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _open) = crate::kine::kine(dir.path(), "p0-plaintext");
    let kine = Served::start(bin().arg("--kine").arg(&path), "");
    let snapshot = p0("");
    for list in ["/api/v1/secrets", "/apis/apps/v1/deployments", "/apis/example.com/v1/widgets"] {
        assert_eq!(names(&kine.get(list)), names(&snapshot.get(list)), "{list}");
    }
    assert_eq!(
        kine.get("/api/v1/namespaces/default/secrets/login1")["data"],
        snapshot.get("/api/v1/namespaces/default/secrets/login1")["data"]
    );
}

/// What a definition says of columns, versions and names; and objects whose definition is gone.
#[test]
fn custom_resources() {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.org"},
        "spec": {
            "group": "example.org", "scope": "Cluster",
            "names": {"plural": "gadgets", "kind": "Gadget", "shortNames": ["gg"], "categories": ["all"]},
            "versions": [
                {"name": "v1beta1", "served": true, "storage": true},
                {"name": "v1", "served": true, "storage": false,
                 "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {
                    "type": "object", "description": "What it is to be.",
                    "properties": {"size": {"type": "integer", "description": "How large."}}}}}},
                 "selectableFields": [{"jsonPath": ".spec.colour"}],
                 "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Ready", "type": "string",
                     "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                    {"name": "Colour", "type": "string", "jsonPath": ".spec.colour", "priority": 1}]}]}});
    let gadget = |name: &str, colour: &str| {
        json!({"apiVersion": "example.org/v1beta1", "kind": "Gadget", "metadata": {"name": name},
               "spec": {"size": 4, "colour": colour},
               "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        .to_string()
    };
    let orphan = json!({"apiVersion": "gone.example/v2", "kind": "Relic",
                        "metadata": {"name": "r", "namespace": "n"}});
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    Crafted::new()
        .put(
            "/registry/apiextensions.k8s.io/customresourcedefinitions/gadgets.example.org",
            definition.to_string(),
        )
        .put("/registry/example.org/gadgets/a", gadget("a", "red"))
        .put("/registry/example.org/gadgets/b", gadget("b", "blue"))
        .put("/registry/gone.example/relics/n/r", orphan.to_string())
        .write(&path);
    let served = Served::start(bin().arg("--snapshot").arg(&path), "");
    let rows = |line: &str| -> Vec<Vec<String>> {
        let words = |l: &str| l.split_whitespace().map(str::to_owned).collect();
        served.kubectl_ok(line).lines().map(words).collect()
    };
    assert_eq!(rows("get gg"), [["NAME", "SIZE", "READY"], ["a", "4", "True"], ["b", "4", "True"]]);
    assert_eq!(rows("get gadget a -o wide")[1], ["a", "4", "True", "red"]);
    assert_eq!(
        rows("get gg --field-selector spec.colour=blue -o name"),
        [["gadget.example.org/b"]]
    );
    assert_eq!(served.get("/apis/example.org/v1/gadgets/a")["apiVersion"], "example.org/v1");
    assert!(served.kubectl_ok("explain gadgets.spec").contains("How large."));
    assert_eq!(rows("get relics -A")[1][..2], ["n", "r"]);
    assert!(served.kubectl_ok("get all").contains("gadget.example.org/a"));
}
