//! Where the API server keeps its objects, and what its values authenticate.

use std::path::Path;

use crate::support::{Etcd, Version, bin};

/// A throwaway key.
const CONFIG: &str = "\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aesgcm: {keys: [{name: a, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}
";

fn config(dir: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join("enc.yaml");
    std::fs::write(&path, CONFIG).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// What an API server with this configuration stores for a Secret at `key`.
fn stored(config: &Path, key: &str, name: &str) -> Vec<u8> {
    let manifest = config.with_file_name("s.yaml");
    let text = format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"Secret\", \"metadata\": {{\"namespace\": \"default\", \"name\": \"{name}\"}}}}"
    );
    std::fs::write(&manifest, text).unwrap();
    let done = bin()
        .args(["-q", "encode", "--key", key, "--encryption-config"])
        .arg(config)
        .arg(&manifest)
        .run()
        .ok();
    done.stdout
}

#[test]
fn a_prefix_of_any_depth_is_authenticated_with_the_value() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let etcd = Etcd::plain(Version::V35);
    for prefix in ["/registry/cluster1/", "/kubernetes.io/cluster1/", "/clusters/registry/"] {
        let key = format!("{prefix}secrets/default/db");
        etcd.put(&key, &stored(&config, &key, "db"));
    }
    let with =
        |words: &str| bin().words(words).args(etcd.args()).arg("--encryption-config").arg(&config);
    for prefix in [
        "registry/cluster1",
        "/registry//cluster1/",
        "/kubernetes.io/cluster1",
        "clusters/registry",
    ] {
        let done = with("scan -w json --verify --fail-on plaintext ")
            .args(["--prefix", prefix])
            .run()
            .ok();
        let totals = &done.json()["totals"];
        assert_eq!((&totals["entries"], &totals["current"]), (&1.into(), &1.into()), "{prefix}");
        let got = with("get -w json secrets/default/db ").args(["--prefix", prefix]).run().ok();
        assert_eq!(got.json()["metadata"]["name"], "db");
        let got = with("get -w json -n default secrets/db ").args(["--prefix", prefix]).run().ok();
        assert_eq!(got.json()["metadata"]["name"], "db");
        with("history secrets/default/db ").args(["--prefix", prefix]).run().ok();
        let plan = with("migrate -w json ").args(["--prefix", prefix]).run().ok();
        assert_eq!(plan.json()["planned"], 0);
    }
    // A key in full says itself whose it is.
    let got = with("get -w json /registry/cluster1/secrets/default/db").run().ok();
    assert_eq!(got.json()["metadata"]["name"], "db");
}

/// The API server behind `etcd grpc-proxy start --namespace=/tenant-a` wrote and authenticated
/// `/registry/…`.
#[test]
fn what_a_proxy_puts_before_keys_is_not_authenticated() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let etcd = Etcd::plain(Version::V35);
    let key = "/registry/secrets/default/a";
    etcd.put(&format!("/tenant-a{key}"), &stored(&config, key, "a"));
    let with =
        |words: &str| bin().words(words).args(etcd.args()).arg("--encryption-config").arg(&config);
    let done = with("scan -w json --verify --proxy-namespace /tenant-a").run().ok();
    assert_eq!(done.json()["totals"]["current"], 1);
    for name in [key, "/tenant-a/registry/secrets/default/a", "secrets/default/a"] {
        let got = with("get -w json --proxy-namespace /tenant-a").arg(name).run().ok();
        assert_eq!(got.json()["metadata"]["name"], "a", "{name}");
    }
    // As if an API server of this prefix had written it.
    let done = with("scan -w json --verify --prefix /tenant-a/registry").run().code(4);
    assert_eq!(done.json()["totals"]["unreadable"], 1);
}

#[test]
fn objects_without_a_namespace_are_found_with_n() {
    let etcd = Etcd::plain(Version::V35);
    let object = |kind: &str, name: &str| {
        format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"{kind}\",\"metadata\":{{\"name\":\"{name}\"}}}}"
        )
    };
    etcd.put("/registry/namespaces/default", object("Namespace", "default").as_bytes());
    etcd.put("/registry/minions/n1", object("Node", "n1").as_bytes());
    etcd.put("compact_rev_key", b"7");
    for (key, name) in [("namespaces/default", "default"), ("nodes/n1", "n1")] {
        let got = bin().words("get -w json -n default").arg(key).args(etcd.args()).run().ok();
        assert_eq!(got.json()["metadata"]["name"], name);
        bin().words("history -n default").arg(key).args(etcd.args()).run().ok();
    }
    // Known as a key to both.
    bin().words("get compact_rev_key").args(etcd.args()).run().code(4);
    bin().words("history compact_rev_key").args(etcd.args()).run().ok();
    for command in ["get", "history"] {
        bin().arg(command).arg("*.*/a/b").args(etcd.args()).run().fails_with_hint(2);
    }
}
