//! `encode`: the reverse of `decode`, down to the byte.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use atrest::resource::{DEFAULT_PREFIX, Scope, Selector};
use atrest::source::snapshot::{Snapshot, SnapshotOptions};
use atrest::source::{Query, Source as _};
use atrest::storage;

use crate::support::{bin, corpus};

#[test]
fn every_stored_object_of_the_corpus_encodes_to_the_bytes_it_was_decoded_from() {
    let mut source =
        Snapshot::open(&corpus::db("p0-plaintext"), &SnapshotOptions::default()).unwrap();
    let scope = Scope::new(DEFAULT_PREFIX);
    let query = Query { ranges: scope.ranges(&[Selector::All]), revision: None, ordered: true };
    let (mut same, mut different) = (0, BTreeMap::new());
    source
        .visit(&query, &mut |entry| {
            let location = scope.locate(entry.key);
            if location.internal {
                return ControlFlow::Continue(());
            }
            let object = storage::decode(entry.stored()).unwrap();
            assert!(object.unknown.is_empty(), "{}: {:?}", location.resource, object.unknown);
            let encoded = storage::encode(&object.json)
                .unwrap_or_else(|e| panic!("{}: {e}", String::from_utf8_lossy(entry.key)));
            if *encoded == entry.stored() {
                same += 1;
            } else {
                *different.entry(location.resource.into_owned()).or_insert(0) += 1;
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    println!("{same} the same, {different:?}");
    // JSON-stored kinds keep the field order of their Go type, which only they know.
    different.retain(|resource, _| {
        !["apiservices.apiregistration.k8s.io", "customresourcedefinitions.apiextensions.k8s.io"]
            .contains(&resource.as_str())
    });
    assert!(different.is_empty(), "{different:?}");
    assert!(same > 200, "{same}");
}

#[test]
fn an_encrypted_value_decodes_again() {
    let manifest = "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: n}\n\
                    stringData: {p: no}\n";
    for config in ["p1-secretbox", "p2-aescbc", "p3-aesgcm"] {
        let config = corpus::private_config(config);
        let encoded = bin()
            .words("encode --encryption-config")
            .arg(&config)
            .stdin(manifest)
            .run()
            .ok()
            .says("/registry/secrets/n/a");
        assert!(encoded.stdout.starts_with(b"k8s:enc:"));
        let decoded = bin()
            .words("decode -w json --reveal --key /registry/secrets/n/a --encryption-config")
            .arg(&config)
            .stdin(encoded.stdout)
            .run()
            .ok();
        assert_eq!(decoded.json()["data"]["p"], "bm8=");
    }
}

#[test]
fn what_would_be_lost_or_is_no_manifest_is_refused() {
    let refuse = |text: &str| bin().arg("encode").stdin(text).run().fails(1);
    refuse("kind: Secret\n").says("apiVersion is missing");
    refuse("a: [\n").says("neither YAML nor JSON");
    let done = refuse("apiVersion: v1\nkind: Secret\ndata: {p: <redacted: 7 bytes>}\n");
    assert!(!done.stderr.contains("redacted"), "{done}");
    refuse("{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"dat\":{}}")
        .says("dat: Secret has no such field");
}
