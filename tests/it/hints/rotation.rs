//! The files of a rotation.

use std::fs;
use std::path::{Path, PathBuf};

use super::{private, private_at, providers, says};
use crate::support::bin::Done;
use crate::support::{Etcd, Version, bin, secret};

/// Throwaway keys.
const ONE: &str =
    "secretbox: {keys: [{name: one, secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=}]}";
const TWO: &str =
    "secretbox: {keys: [{name: two, secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=}]}";

/// A cluster, and the directory that the files of its rotations lie in.
struct Place {
    etcd: Etcd,
    dir: tempfile::TempDir,
    config: PathBuf,
}

impl Place {
    fn new() -> Self {
        let (etcd, dir) = (Etcd::plain(Version::V35), tempfile::tempdir().unwrap());
        etcd.put("/registry/secrets/a/b", secret("x").as_bytes());
        let config =
            private(&dir, "enc.yaml", &providers("secrets", &format!("{ONE}\nidentity: {{}}")));
        Self { etcd, dir, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `rotate` with `state` in the directory, and no configuration but by `words`.
    fn bare(&self, state: &str, words: &str) -> Done {
        let run = bin().words("rotate --no-backup --state").arg(self.path(state));
        run.args(self.etcd.args()).words(words).run()
    }

    fn with(&self, config: &Path, state: &str, words: &str) -> Done {
        self.bare(state, &format!("--encryption-config {} {words}", config.display()))
    }

    fn rotate(&self, state: &str, words: &str) -> Done {
        self.with(&self.config, state, words)
    }
}

#[test]
fn the_file_that_it_begins_with() {
    let at = Place::new();
    let given = |_: &str| at.rotate("r.json", "--dry-run");
    says("give it, and no other, with --encryption-config FILE")
        .helps(&at.bare("r.json", "--dry-run"), given);
    let inside = at.bare("r.json", "--dry-run --encryption-config etcd:secrets/a/b");
    says("give the API server's file with --encryption-config FILE").helps(&inside, given);
    let two = private(&at.dir, "two.yaml", &{
        let second = providers("configmaps", TWO);
        let (_, entry) = second.split_once("resources:\n").unwrap();
        format!("{}{entry}", providers("secrets", ONE))
    });
    says("rotate one after the other: --resource names the entry, each with its own --state")
        .helps(&at.with(&two, "r.json", "--dry-run"), |_| {
            at.with(&two, "secrets.json", "--dry-run --resource secrets").ok();
            at.with(&two, "configmaps.json", "--dry-run --resource configmaps")
        });
}

#[test]
fn what_lies_where_its_files_belong() {
    let at = Place::new();
    fs::write(at.path("notes.json"), "{}").unwrap();
    says("give the file that `rotate --apply --state` made, or the name of a new one")
        .helps(&at.rotate("notes.json", "--dry-run"), |_| at.rotate("r.json", "--dry-run"));
    let added = at.path("r-1-added.yaml");
    private_at(&added, &providers("secrets", TWO));
    says("move it away, or choose another --state").helps(&at.rotate("r.json", "--apply"), |_| {
        at.rotate("other.json", "--apply").ok();
        fs::rename(&added, at.path("kept.yaml")).unwrap();
        at.rotate("r.json", "--apply")
    });
    at.rotate("r.json", "--apply").ok();
    says("leave it out; another rotation has another --state").helps(
        &at.rotate("r.json", "--apply --key-name three"),
        |_| {
            at.rotate("third.json", "--apply --key-name three").ok();
            at.rotate("r.json", "--apply")
        },
    );
}
