//! Entries that nobody can read.

use super::{private, providers, says};
use crate::support::bin::bin;
use crate::support::etcd::{Etcd, Version};

#[test]
fn what_to_delete() {
    let (etcd, dir) = (Etcd::plain(Version::V35), tempfile::tempdir().unwrap());
    etcd.put("/registry/secrets/default/cut", b"k8s:enc:secretbox:v1:k:short");
    // A throwaway key.
    let key =
        "secretbox: {keys: [{name: k, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=}]}";
    let config = private(&dir, "c.yaml", &providers("secrets", key));
    let run = |words: &str| {
        let bin = bin().words("delete-unreadable --apply").args(etcd.args()).words(words);
        let bin = bin.arg("--backup").arg(dir.path().join("saved"));
        bin.arg("--encryption-config").arg(&config).run()
    };
    says("name KEYs, or give --all-listed COUNT with the number that the plan shows")
        .helps(&run(""), |_| run("--all-listed 1"));
}
