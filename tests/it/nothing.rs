//! Nothing found is not all well.

use crate::support::bin::{Bin, Done};
use crate::support::snapshot::Crafted;
use crate::support::{Etcd, Version, bin, corpus};

/// 24 of its Secrets are plaintext.
const PHASE: &str = "p1b-partial-migration";

fn on(words: &str) -> Bin {
    bin().words(words).arg("--snapshot").arg(corpus::db(PHASE))
}

fn config() -> std::path::PathBuf {
    corpus::private_config("p1-secretbox")
}

fn is_error(done: Done, says: &[&str]) {
    let done = done.code(1);
    assert!(done.stdout.is_empty(), "a result: {done}");
    assert!(done.stderr.lines().any(|l| l.starts_with("error: no ")), "{done}");
    for text in says {
        assert!(done.stderr.contains(text), "lacks {text:?}: {done}");
    }
}

#[test]
fn a_misspelt_name_is_an_error_that_names_the_nearest() {
    for command in ["scan", "scan --fail-on plaintext", "export", "keys", "residue"] {
        is_error(
            on(&format!("{command} --resource secret")).run(),
            &["`secret`", "to secret is secrets\n"],
        );
        is_error(
            on(&format!("{command} -n defualt")).run(),
            &["`defualt`", "to defualt is default\n"],
        );
        is_error(
            on(&format!("{command} --resource secret,widget -n defualt,team-x")).run(),
            &["`secret`", "`widget`", "`defualt`", "`team-x`", "to defualt is default\n"],
        );
        on(&format!("{command} --resource secret --allow-empty")).run().ok();
    }
    for command in ["history", "get"] {
        is_error(on(&format!("{command} secrets/defualt/login1")).run(), &["secrets/default\n"]);
        is_error(on(&format!("{command} secrets/default/logn1")).run(), &["default/login1\n"]);
    }
    on("history secrets/defualt/login1 --allow-empty").run().ok();
}

/// A part of what was asked for is no result.
#[test]
fn one_missing_name_among_others_is_an_error() {
    for command in ["scan --fail-on plaintext", "export", "keys", "residue"] {
        let done = on(&format!("{command} --resource secrets,secret")).run();
        is_error(done, &["error: no entry of `secret` under /registry/\n"]);
    }
    is_error(on("history secrets/default/login1 secrets/default/none").run(), &["default/none is"]);
}

#[test]
fn a_prefix_under_which_is_nothing_names_those_that_hold_something() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tenants.db");
    let mut snapshot = Crafted::new();
    for prefix in ["/tenant-00", "/foo/bar", "/kubernetes.io"] {
        snapshot = snapshot.put(format!("{prefix}/secrets/default/a"), "{}");
    }
    snapshot.write(&path);
    let on = |words: &str| bin().words(words).arg("--snapshot").arg(&path);
    for command in
        ["scan", "scan --all-resources", "scan --resource secrets", "export", "keys", "residue"]
    {
        let held = "the source holds entries under /foo/bar/, /kubernetes.io/, /tenant-00/";
        is_error(
            on(command).run(),
            &["error: no entry under /registry/\n", held, "--prefix /foo/bar/"],
        );
        is_error(on(&format!("{command} --prefix /")).run(), &["no entry under /\n", held]);
        is_error(on(&format!("{command} --prefix tenant-0")).run(), &[held]);
    }
    is_error(on("scan --prefix /foo/bar/secrets").run(), &["here /foo/bar/"]);
    for prefix in ["foo//bar", "/foo/./bar/", "tenant-00", "kubernetes.io"] {
        on("scan --resource secrets").args(["--prefix", prefix]).run().ok();
    }
}

#[test]
fn a_live_etcd_says_what_it_holds() {
    let etcd = Etcd::plain(Version::V35);
    is_error(bin().words("scan").args(etcd.args()).run(), &["holds no objects"]);
    let with_config = |words: &str| {
        bin().words(words).args(etcd.args()).arg("--encryption-config").arg(config()).run()
    };
    let done = bin().words("scan -w json --allow-empty").args(etcd.args()).run().ok();
    assert_eq!(done.json()["totals"]["entries"], 0);
    assert_eq!(done.json()["source"]["revision"], 1);
    for name in ["a", "b"] {
        etcd.put(&format!("/registry/cluster1/secrets/{name}/x"), b"{}");
        etcd.put(&format!("/registry/cluster1/configmaps/{name}/x"), b"{}");
    }
    for command in ["migrate", "scan --watch --until-done", "scan --all-resources"] {
        is_error(with_config(command), &["under /registry/cluster1/"]);
    }
    is_error(
        with_config("migrate --prefix /registry/cluster1 --resource secret"),
        &["to secret is secrets"],
    );
}

/// Resources that only the configuration names may be missing, which a note says; but what nobody
/// looked at does not pass.
#[test]
fn what_only_the_configuration_names_may_be_missing() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/configmaps/a/x", b"{}");
    let with = |words: &str| {
        bin().words(words).args(etcd.args()).arg("--encryption-config").arg(config()).run()
    };
    for command in ["scan", "keys", "export", "residue", "migrate"] {
        with(command).ok().says("note: no entry of secrets");
    }
    with("scan --fail-on plaintext").code(1).says("was examined");
    with("scan --fail-on plaintext --allow-empty").ok();
    bin().words("scan --fail-on plaintext").args(etcd.args()).run().code(1);
}

/// A namespace that has no Secrets is no mistake, but no proof of anything either.
#[test]
fn nothing_in_a_namespace_that_exists_is_a_note() {
    for command in ["scan", "keys", "export", "residue", "scan --resource secrets"] {
        on(&format!("{command} -n kube-system")).run().ok().says("note: no entry of secrets");
    }
    on("scan -n kube-system --fail-on plaintext").run().code(1).says("was examined");
    on("scan -n kube-system --fail-on plaintext --allow-empty").run().ok();
}

/// Where only history lies under the prefix, what other prefixes hold is told as where nothing
/// does: no verdict is about them.
#[test]
fn residue_of_a_prefix_under_which_nothing_lives_names_the_others() {
    let plain = br#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"b"}}"#;
    for (value, code) in [(&plain[..], 0), (b"k8s:enc:secretbox:v1:key1:abcdef", 1)] {
        let etcd = Etcd::plain(Version::V35);
        etcd.put("/registry/secrets/a/b", value);
        etcd.ctl(&["del", "/registry/secrets/a/b"]);
        etcd.put("/cluster1/registry/namespaces/a", b"k8s\0 namespace");
        etcd.put("/cluster1/registry/secrets/a/b", plain);
        let dir = tempfile::tempdir().unwrap();
        let snapshot = dir.path().join("s.db");
        etcd.snapshot(&snapshot);
        let of_file = |words: &str| bin().words(words).arg("--snapshot").arg(&snapshot).run();
        let told = "the source holds entries under /cluster1/registry/";
        let done = of_file("residue").code(code).says(told);
        if code == 0 {
            let live = bin().words("residue").args(etcd.args()).run().ok();
            for done in [done, live] {
                let done = done.says("warning: nothing is live under /registry/; the source holds");
                assert!(done.text().contains("verdict: residue"), "{done}");
            }
        } else {
            done.fails_with_hint(1);
            let out = dir.path().join("out");
            let recovering = format!("residue --recover {}", out.display());
            of_file(&recovering).code(4).says("warning: nothing is live under /registry/");
        }
        // What is empty may be, and what lives under its prefix is all that is asked about.
        let empty = of_file("residue --allow-empty").ok();
        assert!(!empty.stderr.contains("cluster1"), "{empty}");
        let other = of_file("residue --prefix /cluster1/registry").ok();
        assert!(!other.stderr.contains("nothing is live"), "{other}");
    }
}
