//! `get`: one entry, redacted unless asked.

use serde_json::Value;

use crate::support::certs::Certs;
use crate::support::plugs::Plugs;
use crate::support::{Etcd, Version, bin, corpus};

fn get(phase: &str) -> crate::support::bin::Bin {
    bin().arg("--snapshot").arg(corpus::db(phase)).arg("get")
}

fn truth(phase: &str, kind: &str, name: &str) -> Value {
    let list = corpus::kubectl(phase);
    let all = list["items"].as_array().unwrap();
    all.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name).unwrap().clone()
}

#[test]
fn secrets_are_redacted_unless_revealed() {
    let truth = truth("p0-plaintext", "Secret", "login1");
    let shown = get("p0-plaintext").words("/registry/secrets/default/login1 -w json").run().ok();
    for (name, value) in truth["data"].as_object().unwrap() {
        let redacted = shown.json()["data"][name].as_str().unwrap().to_owned();
        assert!(redacted.starts_with("<redacted: ") && redacted.ends_with(" bytes>"), "{name}");
        assert!(!shown.text().contains(value.as_str().unwrap()), "{name}");
    }
    assert!(!shown.text().contains("stringData"), "the applied copy is redacted too");
    let revealed = get("p0-plaintext").words("secrets/default/login1 -w json --reveal").run().ok();
    assert!(revealed.json() == truth);
}

#[test]
fn every_format_says_how_it_is_stored() {
    let key = "/registry/secrets/default/login2";
    let config = corpus::private_config("p1-secretbox");
    for format in ["yaml", "fields"] {
        let done = get("p1-secretbox")
            .args([key, "-w", format, "--encryption-config"])
            .arg(&config)
            .run()
            .ok();
        let head = done.text().lines().next().unwrap();
        assert!(
            head.starts_with(&format!(
                "# {key}: encrypted by secretbox v1 key secret-key-1, current"
            )),
            "{head}"
        );
    }
}

#[test]
fn an_encrypted_entry_without_its_configuration_is_named_not_guessed() {
    let done = get("p1-secretbox").words("secrets/default/login2").run().code(4);
    assert!(done.stdout.is_empty());
    done.says("encrypted, and no --encryption-config was given").says("secretbox");
}

#[test]
fn a_missing_key_is_an_error_with_a_hint() {
    get("p0-plaintext").words("secrets/default/nope").run().fails_with_hint(1).says("no entry");
}

#[test]
fn an_older_revision() {
    let plugs = Plugs::start("kek-2026-02");
    let p0 = corpus::entries("p0-plaintext").revision.to_string();
    let done = get("p7-migrated-uncompacted")
        .words("secrets/default/login1 -w json --reveal --revision")
        .arg(&p0)
        .arg("--encryption-config")
        .arg(plugs.config("p6-sb2"))
        .run()
        .ok();
    assert!(done.json() == truth("p0-plaintext", "Secret", "login1"));
}

#[test]
fn from_a_live_etcd() {
    let certs = Certs::new();
    let etcd = Etcd::builder(Version::V35).tls(&certs).restore(corpus::db("p0-plaintext")).start();
    let done = bin()
        .args(etcd.args())
        .words("get secrets/default/login1 configmaps/default/cm-1 -w json --reveal")
        .run()
        .ok();
    let items = done.json()["items"].as_array().unwrap().clone();
    assert!(items[0] == truth("p0-plaintext", "Secret", "login1"));
    assert!(items[1] == truth("p0-plaintext", "ConfigMap", "cm-1"));
}

/// A resource or a namespace in place of an object is called what it is, and what to do helps.
#[test]
fn a_key_that_names_a_level() {
    let db = corpus::db("p0-plaintext");
    let get = |key: &str| bin().args(["get", key, "--snapshot"]).arg(&db).run();
    for key in [
        "/registry/secrets/default",
        "/registry/secrets/default/",
        "/registry/secrets",
        "secrets/default",
        "secrets",
        "secrets/",
        "/registry",
    ] {
        let done = get(key).fails_with_hint(1).says("is no entry, but a level with entries below");
        assert!(!done.stderr.contains("nearest"), "{done}");
        let hint = done.stderr.lines().find_map(|l| l.strip_prefix("hint: ")).unwrap();
        let named = hint.strip_prefix("name one of them, such as ").unwrap().split(';').next();
        get(named.unwrap()).ok();
        let scan = hint.split("`atrest ").nth(1).unwrap().split('`').next().unwrap();
        bin().words(scan).arg("--snapshot").arg(&db).run().ok();
        let options = scan.strip_prefix("scan --list").unwrap();
        let export = bin().words("export -w json").words(options).arg("--snapshot").arg(&db).run();
        assert!(!export.ok().json()["items"].as_array().unwrap().is_empty());
    }
    let gone = get("/registry/secrets/default/nosuch").fails_with_hint(1);
    assert!(!gone.stderr.contains("level"), "{gone}");
}
