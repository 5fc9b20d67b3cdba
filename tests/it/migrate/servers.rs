//! The API servers that etcd knows of.

use std::collections::BTreeSet;

use super::{applied, migrate, number, state};
use crate::support::{Etcd, Version, corpus, secret};

/// A Lease as an API server writes it, renewed that many seconds ago.
pub fn lease(etcd: &Etcd, host: &str, age: i64) {
    let renewed = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(age);
    let object = serde_json::json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": format!("apiserver-{host}"), "namespace": "kube-system",
            "labels": {
                "apiserver.kubernetes.io/identity": "kube-apiserver",
                "kubernetes.io/hostname": host,
            },
        },
        "spec": {
            "holderIdentity": host, "leaseDurationSeconds": 3600,
            "renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        },
    });
    let value = atrest::storage::encode(&object).unwrap();
    etcd.put(&format!("/registry/leases/kube-system/apiserver-{host}"), &value);
}

pub fn filled(entries: usize) -> Etcd {
    let etcd = Etcd::plain(Version::V35);
    etcd.put_many((0..entries).map(|i| (format!("/registry/secrets/a/s{i:04}"), secret("x"))));
    etcd
}

#[test]
fn several_entries_share_a_transaction_only_where_no_api_server_runs() {
    const BATCH: &str = "--no-apiserver --batch 50";
    let etcd = filled(200);
    let config = corpus::private_config("p1-secretbox");
    let refused = |what: &str| {
        let before = state(&etcd);
        let done = migrate(&etcd, &[&config], &format!("{BATCH} --apply --no-backup")).run();
        done.fails_with_hint(1).says(what);
        assert!(state(&etcd) == before, "something was written");
    };
    lease(&etcd, "cp-1", 5);
    refused("/registry/leases/kube-system/apiserver-cp-1");
    etcd.put("/registry/leases/kube-system/apiserver-cp-1", b"no object");
    refused("cannot be read");
    lease(&etcd, "cp-1", 5000);
    let granted = String::from_utf8(etcd.ctl(&["lease", "grant", "600"])).unwrap();
    let id = granted.split_whitespace().nth(1).unwrap();
    etcd.ctl(&["put", "--lease", id, "/registry/masterleases/10.0.0.1", "k8s"]);
    refused("/registry/masterleases/10.0.0.1");
    etcd.ctl(&["lease", "revoke", id]);

    assert_eq!(number(&applied(&etcd, &[&config], BATCH), "written"), 200);
    let secrets = state(&etcd).into_iter().filter(|(key, _)| key.contains("/secrets/"));
    let revisions: BTreeSet<i64> = secrets.map(|(_, row)| row.modified).collect();
    assert_eq!(revisions.len(), 4);
}

#[test]
fn a_revision_for_each_of_many_entries() {
    let etcd = filled(3000);
    let config = corpus::private_config("p1-secretbox");
    // Looks at the revision of every rewritten key.
    assert_eq!(number(&applied(&etcd, &[&config], ""), "written"), 3000);
}

#[test]
fn they_are_counted_and_so_are_their_configurations() {
    let etcd = filled(1);
    let config = corpus::private_config("p1-secretbox");
    for (host, age) in [("cp-1", 3), ("cp-2", 8), ("cp-3", 1), ("gone", 4000)] {
        lease(&etcd, host, age);
    }
    let same = corpus::config("p1-secretbox");
    let run = |confirmed: usize| {
        let mut bin = migrate(&etcd, &[&config], "-w json");
        for _ in 0..confirmed {
            bin = bin.arg("--confirm-config").arg(&same);
        }
        bin.run().ok()
    };
    let done =
        run(0).says("etcd knows of 3 API servers (cp-1, cp-2, cp-3)").says("of one was given");
    assert_eq!(done.json()["apiservers"]["seen"], 3);
    assert_eq!(done.json()["apiservers"]["confirmed"], 1);
    let done = run(1).says("configuration of 2 was given").json();
    assert_eq!(done["apiservers"]["names"], serde_json::json!(["cp-1", "cp-2", "cp-3"]));
    let done = run(2);
    assert_eq!(done.json()["apiservers"]["confirmed"], 3);
    assert!(!done.stderr.contains("every API server"), "{done}");
}
