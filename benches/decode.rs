//! Stored protobuf objects of a real cluster → JSON, beside prost's generated structs.
//!
//! ```text
//! cargo bench --bench decode
//! ```
//!
//! `atrest` reads by its table of kinds and writes the JSON that kubectl shows. `prost` only fills
//! the structs that k8s-pb generated for the same kinds: a lower bound for any reader, as no JSON
//! comes out of it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use atrest::source::snapshot::{Snapshot, SnapshotOptions};
use atrest::source::{KeyRange, Query, Source as _};
use atrest::storage;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use k8s_pb::api::core::v1 as core;
use k8s_pb::api::rbac::v1 as rbac;
use prost::Message as _;

/// Kind → what prost makes of its message.
type Prost = fn(&[u8]) -> usize;

fn prost<M: prost::Message + Default>(bytes: &[u8]) -> usize {
    black_box(M::decode(bytes).unwrap());
    1
}

fn peer(kind: &str) -> Option<Prost> {
    Some(match kind {
        "Secret" => prost::<core::Secret>,
        "ConfigMap" => prost::<core::ConfigMap>,
        "Event" => prost::<core::Event>,
        "Namespace" => prost::<core::Namespace>,
        "Pod" => prost::<core::Pod>,
        "Service" => prost::<core::Service>,
        "ClusterRole" => prost::<rbac::ClusterRole>,
        "ClusterRoleBinding" => prost::<rbac::ClusterRoleBinding>,
        "Role" => prost::<rbac::Role>,
        "RoleBinding" => prost::<rbac::RoleBinding>,
        _ => return None,
    })
}

/// The objects of the bundled snapshot: stored bytes, the message inside, prost's reader of it.
fn objects() -> Vec<(Vec<u8>, Vec<u8>, Prost)> {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/corpus/p0-plaintext.db.zst");
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("p0.db");
    std::fs::write(&db, zstd::decode_all(std::fs::File::open(packed).unwrap()).unwrap()).unwrap();
    let mut source = Snapshot::open(&db, &SnapshotOptions::default()).unwrap();
    let mut found = Vec::new();
    let query =
        Query { ranges: vec![KeyRange::prefix(b"/registry/")], revision: None, ordered: true };
    source
        .visit(&query, &mut |entry| {
            if let Some(envelope) = entry.stored().strip_prefix(b"k8s\0") {
                let unknown = Unknown::decode(envelope).unwrap();
                if let Some(peer) = peer(&unknown.type_meta.unwrap_or_default().kind) {
                    found.push((entry.stored().to_vec(), unknown.raw, peer));
                }
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

/// `runtime.Unknown` of `kubernetes/apimachinery pkg/runtime/generated.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct Unknown {
    #[prost(message, optional, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

fn decode(c: &mut Criterion) {
    let objects = objects();
    assert!(objects.len() > 150, "{} objects", objects.len());
    let mut group = c.benchmark_group("decode");
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(objects.len() as u64));
    group.bench_function("atrest to JSON text", |b| {
        b.iter(|| {
            for (stored, ..) in &objects {
                let object = storage::decode(stored).unwrap();
                black_box(serde_json::to_vec(&object.json).unwrap());
            }
        });
    });
    group.bench_function("prost to structs, no JSON", |b| {
        b.iter(|| objects.iter().map(|(_, raw, peer)| peer(raw)).sum::<usize>());
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
