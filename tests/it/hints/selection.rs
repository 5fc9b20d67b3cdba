//! What was asked for and is not there, and options that need another.

use std::path::Path;

use super::says;
use crate::support::bin::Done;
use crate::support::snapshot::Crafted;
use crate::support::{Etcd, Version, bin, corpus};

/// A source is read with these words.
fn on(at: &Path, words: &str) -> Done {
    bin().words(words).arg("--snapshot").arg(at).run()
}

fn with_config(at: &Path, words: &str) -> Done {
    let config = corpus::private_config("p1-secretbox");
    on(at, &format!("{words} --encryption-config {}", config.display()))
}

#[test]
fn names_that_are_not_there() {
    let db = &corpus::db("p1-secretbox");
    let nearest = says("--resource {nearest}");
    for command in ["scan", "keys", "export", "residue"] {
        let ran = |more: &str| with_config(db, &format!("{command} {more}"));
        nearest.helps(&ran("--resource secret"), |said| ran(said.split(';').next().unwrap()));
        says("-n {nearest}").helps(&ran("-n defualt"), |said| ran(said.split(';').next().unwrap()));
        says("--allow-empty, if empty is fine")
            .helps(&ran("-n defualt"), |_| ran("-n defualt --allow-empty"));
    }
    let scan = |more: &str| on(db, &format!("scan {more}"));
    let prefix = says("name it: {option} {name}; or --allow-empty, if empty is fine");
    prefix.helps(&scan("--prefix /none"), |said| {
        scan("--prefix /none --allow-empty").ok();
        scan(said.strip_prefix("name it: ").unwrap().split(';').next().unwrap())
    });
    // A proxy's namespace that ends with a slash leaves two of them in the keys.
    let proxied = Crafted::new().put("/tenant-a//registry/secrets/default/a", "{}").file();
    prefix.helps(&on(proxied.path(), "scan"), |said| {
        assert!(said.contains("--proxy-namespace /tenant-a/;"), "{said}");
        let option = said.strip_prefix("name it: ").unwrap().split(';').next().unwrap();
        on(proxied.path(), &format!("scan {option}"))
    });
    says("--allow-empty says that empty is fine")
        .helps(&on(proxied.path(), "scan --proxy-namespace /tenant-b/"), |_| {
            on(proxied.path(), "scan --proxy-namespace /tenant-b/ --allow-empty")
        });
    says("--prefix is the API server's --etcd-prefix, here {held}; -n and --resource narrow")
        .helps(&scan("--prefix /registry/secrets"), |said| {
            let held = said.split("here ").nth(1).unwrap().split(';').next().unwrap();
            scan(&format!("--prefix {held} -n default --resource secrets"))
        });
}

#[test]
fn an_answer_that_needs_entries() {
    let db = &corpus::db("p1-secretbox");
    let config = |resources: &str, words: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = super::private(&dir, "c.yaml", &super::identity(resources));
        on(db, &format!("{words} --encryption-config {}", path.display()))
    };
    let printed = config("gizmos.example.com", "scan --fail-on plaintext");
    // Roles are stored in plaintext, which --fail-on then finds.
    says("name what is there with --resource; or --allow-empty").leads_to(3, &printed, |_| {
        config("gizmos.example.com", "scan --fail-on plaintext --allow-empty").ok();
        config(
            "gizmos.example.com",
            "scan --fail-on plaintext --resource roles.rbac.authorization.k8s.io",
        )
    });
}

#[test]
fn options_that_need_another() {
    let db = &corpus::db("p1-secretbox");
    let needs = says("give the API server's file with --encryption-config");
    for words in ["scan --verify", "scan --fail-on unreadable", "scan --fail-on unknown"] {
        needs.helps(&on(db, words), |_| with_config(db, words));
    }
    says("add --verify").helps(&with_config(db, "scan --fail-on misplaced"), |_| {
        with_config(db, "scan --fail-on misplaced --verify")
    });
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/b", b"k8s:enc:secretbox:v1:k:sealed");
    says("name the etcd with --endpoints").helps(&on(db, "scan --watch --until-done"), |_| {
        bin().words("scan --watch --until-done").args(etcd.args()).run()
    });
    let migrate = bin().words("migrate --no-backup");
    let config = corpus::private_config("p1-secretbox");
    needs.helps(&migrate.args(etcd.args()).run(), |_| {
        let run = bin().words("migrate --allow-empty --resource configmaps --encryption-config");
        run.arg(&config).args(etcd.args()).run()
    });
}

#[test]
fn options_of_other_commands() {
    let db = &corpus::db("p1-secretbox");
    let config = corpus::private_config("p1-secretbox");
    let dir = tempfile::tempdir().unwrap();
    let printed = on(db, &format!("migrate --encryption-config {}", config.display()));
    says("`atrest rewrite` makes a re-encrypted copy of a snapshot").helps(&printed, |_| {
        let run = bin().words("rewrite --write-config").arg(&config).arg("--snapshot").arg(db);
        run.arg("--out").arg(dir.path().join("new.db")).run()
    });
    for command in ["history", "config check", "keys"] {
        let printed = bin().words(command).words("--keep-unreadable").run();
        says("`atrest {command} --help` lists what it takes").helps(&printed, |said| {
            let words = said.strip_prefix("`atrest ").unwrap().split('`').next().unwrap();
            let done = bin().words(words).run();
            assert!(!done.text().contains("--keep-unreadable"));
            done
        });
    }
}

/// Where there is nothing of a cluster, a scan names what there is.
#[test]
fn nothing_of_a_cluster() {
    let elsewhere = Crafted::new().put("/tenant-a/registry/secrets/default/a", "{}").file();
    let at = elsewhere.path();
    let place = format!("snapshot:{}", at.display());
    let printed = bin().words("diff").args([&place, &place]).run();
    let look = |_: &str| on(at, "scan --all-resources").says("/tenant-a/registry/");
    says("atrest scan --all-resources tells what a source holds").leads_to(1, &printed, look);
    let printed = on(at, "posture");
    says("atrest scan --all-resources shows what it holds").leads_to(1, &printed, look);
}

#[test]
fn members_are_those_of_a_live_etcd() {
    let etcd = Etcd::restored(Version::V35, &corpus::db("p9-defragged"));
    let file = bin().words("residue --every-member --snapshot").arg(corpus::db("p9-defragged"));
    says("leave it out, or give --endpoints instead of the file").helps(&file.run(), |_| {
        bin().words("residue --snapshot").arg(corpus::db("p9-defragged")).run().ok();
        bin().words("residue --every-member").args(etcd.args()).run()
    });
}
