//! Configurations where clusters keep them: in the files of their own tools, and in the etcd that
//! they protect.

use crate::support::{Etcd, Version, bin, corpus};

const SECRET: &str = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a","namespace":"b"},"data":{"c":"ZA=="}}"#;
const KEY: &str = "/registry/secrets/b/a";

fn fixture(name: &str) -> std::path::PathBuf {
    corpus::fixtures("kept").join(name)
}

fn encoded(config: &std::path::Path, manifest: &str) -> Vec<u8> {
    bin().words("encode --encryption-config").arg(config).stdin(manifest).run().ok().stdout
}

/// A plain configuration with one key.
fn write_config(
    dir: &std::path::Path,
    provider: &str,
    name: &str,
    secret: &str,
) -> std::path::PathBuf {
    let path = dir.join(format!("{provider}.yaml"));
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - {provider}: {{keys: [{{name: {name:?}, secret: {secret:?}}}]}}\n  - identity: {{}}\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn files_of_rke_and_talos() {
    let dir = tempfile::tempdir().unwrap();
    let secretbox = write_config(
        dir.path(),
        "secretbox",
        "key2",
        "WFg+abzevkPjcU2ZK/32fLXuhP9+Qc4fjUsAhLSD5p4=",
    );
    let aescbc =
        write_config(dir.path(), "aescbc", "key1", "hYeQae0MR0166hKfOM9i3JY3T1qt6//+lgSFXcP+Tqc=");
    let utf16 = dir.path().join("utf16.yaml");
    let text = std::fs::read_to_string(fixture("rke.yaml")).unwrap();
    let units = std::iter::once(0xFEFF).chain(text.encode_utf16());
    std::fs::write(&utf16, units.flat_map(u16::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    let rke = fixture("rke.yaml");
    for (kept, plain) in [
        (fixture("cluster.rkestate"), &rke),
        (fixture("cluster.yml"), &rke),
        (utf16, &rke),
        (fixture("controlplane.yaml"), &secretbox),
        (fixture("controlplane.yaml"), &aescbc),
        (fixture("secrets.yaml"), &secretbox),
        (fixture("secrets.yaml"), &aescbc),
        (fixture("talos-1.14.yaml"), &secretbox),
    ] {
        let read = bin()
            .args(["decode", "-w", "json", "--reveal", "--key", KEY, "--encryption-config"])
            .arg(&kept)
            .stdin(encoded(plain, SECRET))
            .run()
            .ok();
        assert_eq!(read.json()["data"]["c"], "ZA==", "{}", kept.display());
        bin().words("config check").arg(&kept).run().ok();
    }
}

#[test]
fn a_cluster_file_without_its_key_says_where_the_key_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cluster.yml");
    std::fs::write(
        &path,
        "services:\n  kube-api:\n    secrets_encryption_config:\n      enabled: true\n",
    )
    .unwrap();
    bin().words("config check").arg(&path).run().fails(1).says("cluster.rkestate");
}

#[test]
fn in_the_etcd_that_they_protect() {
    let etcd = Etcd::plain(Version::V35);
    let rke = fixture("rke.yaml");
    etcd.put(KEY, &encoded(&rke, SECRET));
    let state = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "full-cluster-state", "namespace": "kube-system"},
        "data": {"full-cluster-state": std::fs::read_to_string(fixture("cluster.rkestate")).unwrap()},
    });
    let map = bin().arg("encode").stdin(state.to_string()).run().ok().stdout;
    etcd.put("/registry/configmaps/kube-system/full-cluster-state", &map);
    let get = |words: &str| bin().words(words).args(etcd.args()).run();
    let shown = get(
        "get secrets/b/a -w json --reveal --encryption-config etcd:kube-system/full-cluster-state",
    );
    assert_eq!(shown.ok().json()["data"]["c"], "ZA==");
    // A command without a source has no inside.
    bin()
        .words("decode --encryption-config etcd:a/b")
        .stdin("k8s:enc:aescbc:v1:k:x")
        .run()
        .fails_with_hint(2);
    get("get secrets/b/a --encryption-config etcd:kube-system/nothing").fails_with_hint(1);
    get("get secrets/b/a --encryption-config etcd:nothing").fails_with_hint(2);
    // A Secret that is encrypted with itself.
    get("get secrets/b/a --encryption-config etcd:b/a").fails_with_hint(1).says("itself encrypted");
}

#[test]
fn the_bootstrap_record_of_k3s() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::plain(Version::V35);
    let config = write_config(
        dir.path(),
        "aescbc",
        "aescbckey",
        "WFg+abzevkPjcU2ZK/32fLXuhP9+Qc4fjUsAhLSD5p4=",
    );
    etcd.put(KEY, &encoded(&config, SECRET));
    let get = |words: &str| {
        bin().words("get secrets/b/a -w json --reveal").args(etcd.args()).words(words).run()
    };
    get("--token throwaway-token").fails_with_hint(1).says("no bootstrap record");
    let record = std::fs::read(corpus::fixtures("bootstrap").join("record.txt")).unwrap();
    etcd.put("/bootstrap/596fdd9362af", &record);
    let token = dir.path().join("token");
    std::fs::write(&token, "K10abcdef::server:throwaway-token\n").unwrap();
    let read = get(&format!("--token-file {}", token.display()));
    assert_eq!(read.ok().json()["data"]["c"], "ZA==");
    get("--token throwaway-token").ok();
    let other = get("--token another").fails_with_hint(1);
    assert!(other.says("another server token").stdout.is_empty());
}
