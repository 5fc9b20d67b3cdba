#![allow(clippy::unwrap_used)] // a panic is a failed test

use std::fs;

use super::*;

/// A machine with these files and nothing else.
fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let host = Host { root: Some(dir.path().to_owned()), profile: "test", source: true };
    (dir, host)
}

fn endpoints(found: &Found) -> &[String] {
    match &found.source {
        Some(Place::Endpoints(all)) => all,
        other => panic!("{other:?}"),
    }
}

#[test]
fn k3s_with_sqlite() {
    let (dir, host) = machine(&[
        ("/var/lib/rancher/k3s/server/db/state.db", ""),
        ("/var/lib/rancher/k3s/server/cred/encryption-config.json", "{}"),
    ]);
    let found = host.rancher("k3s").unwrap();
    let server = dir.path().join("var/lib/rancher/k3s/server");
    assert!(matches!(&found.source, Some(Place::Kine(p)) if *p == server.join("db/state.db")));
    assert_eq!(found.config, Some(server.join("cred/encryption-config.json")));
    assert_eq!((found.cacert, found.prefix), (None, None));
}

#[test]
fn an_embedded_etcd_is_asked_when_it_runs_and_read_when_it_does_not() {
    let (dir, host) = machine(&[
        ("/var/lib/rancher/rke2/server/db/etcd/member/snap/db", "x"),
        // What a migration to etcd left behind counts no more.
        ("/var/lib/rancher/rke2/server/db/state.db", "x"),
    ]);
    let server = dir.path().join("var/lib/rancher/rke2/server");
    let found = host.rancher("rke2").unwrap();
    assert!(matches!(&found.source, Some(Place::DataDir(p)) if *p == server.join("db/etcd")));
    assert_eq!(found.config, None);

    let held = fs::File::open(server.join("db/etcd/member/snap/db")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let found = host.rancher("rke2").unwrap();
    assert_eq!(endpoints(&found), [LOCAL_ETCD]);
    assert_eq!(found.cacert, Some(server.join("tls/etcd/server-ca.crt")));
    assert_eq!(found.cert, Some(server.join("tls/etcd/client.crt")));
    assert_eq!(found.key, Some(server.join("tls/etcd/client.key")));
}

#[test]
fn k3s_s_own_configuration_moves_the_places() {
    let config = "/etc/rancher/k3s/config.yaml";
    let (dir, host) = machine(&[
        (config, "data-dir: /srv/k3s\n"),
        ("/srv/k3s/server/db/state.db", ""),
        ("/var/lib/rancher/k3s/server/db/state.db", ""),
    ]);
    let found = host.rancher("k3s").unwrap();
    let moved = dir.path().join("srv/k3s/server/db/state.db");
    assert!(matches!(&found.source, Some(Place::Kine(p)) if *p == moved));

    let (dir, host) = machine(&[(
        config,
        "datastore-endpoint: 'https://a:2379,https://b:2379'\ndatastore-cafile: /ca\n",
    )]);
    let found = host.rancher("k3s").unwrap();
    assert_eq!(endpoints(&found), ["https://a:2379", "https://b:2379"]);
    assert_eq!(found.cacert, Some(dir.path().join("ca")));

    let (_dir, mut host) =
        machine(&[(config, "datastore-endpoint: mysql://u:hunter2@tcp(h)/db\n")]);
    let failure = host.rancher("k3s").unwrap_err();
    let shown = format!("{failure:?}");
    assert!(shown.contains("mysql") && !shown.contains("hunter2"), "{shown}");
    assert!(failure.hint.is_some());
    // With a source of one's own that is no obstacle.
    host.source = false;
    assert!(host.rancher("k3s").unwrap().source.is_none());
}

#[test]
fn a_machine_without_a_datastore() {
    let (_dir, host) = machine(&[]);
    for failure in [
        host.rancher("k3s").unwrap_err(),
        host.rancher("rke2").unwrap_err(),
        host.kubeadm(None).unwrap_err(),
        host.openshift().unwrap_err(),
        host.microshift().unwrap_err(),
    ] {
        assert!(failure.hint.is_some(), "{failure:?}");
        assert_eq!(failure.exit, crate::cli::failure::Exit::Failed);
    }
}

#[test]
fn openshift_by_the_revision_in_force() {
    let resources = "/etc/kubernetes/static-pod-resources";
    let revision = |n: u8| format!("{resources}/kube-apiserver-pod-{n}/{OPENSHIFT_CONFIG}");
    let config = format!(
        "kind: KubeAPIServerConfig
apiServerArguments:
  etcd-servers: [https://10.0.0.5:2379]
  etcd-prefix: [kubernetes.io]
  etcd-cafile: [{resources}/configmaps/etcd-serving-ca/ca-bundle.crt]
  etcd-certfile: [{resources}/secrets/etcd-client/tls.crt]
  etcd-keyfile: [{resources}/secrets/etcd-client/tls.key]
  encryption-provider-config: [{resources}/secrets/encryption-config/encryption-config]
"
    );
    let manifest = format!(
        "kind: Pod
spec:
  containers:
  - name: kube-apiserver
    volumeMounts:
    - {{mountPath: /etc/kubernetes/static-pod-certs, name: cert-dir}}
    - {{mountPath: {resources}, name: resource-dir}}
  volumes:
  - {{name: cert-dir, hostPath: {{path: {resources}/kube-apiserver-certs}}}}
  - {{name: resource-dir, hostPath: {{path: {resources}/kube-apiserver-pod-7}}}}
"
    );
    let (dir, host) = machine(&[
        (OPENSHIFT_MANIFEST, &manifest),
        (&revision(6), "kind: Other"),
        (&revision(7), &config),
        (&revision(8), "kind: Other"),
    ]);
    let found = host.openshift().unwrap();
    assert_eq!(endpoints(&found), ["https://10.0.0.5:2379"]);
    assert_eq!(found.prefix.as_deref(), Some("/kubernetes.io/"));
    let own = dir.path().join("etc/kubernetes/static-pod-resources/kube-apiserver-pod-7");
    assert_eq!(found.cacert, Some(own.join("configmaps/etcd-serving-ca/ca-bundle.crt")));
    assert_eq!(found.key, Some(own.join("secrets/etcd-client/tls.key")));
    assert_eq!(found.config, Some(own.join("secrets/encryption-config/encryption-config")));
}

#[test]
fn microshift_s_etcd() {
    let (dir, host) = machine(&[
        ("/var/lib/microshift/etcd/member/snap/db", "x"),
        ("/var/lib/microshift/certs/etcd-signer/ca.crt", "x"),
    ]);
    let found = host.microshift().unwrap();
    let etcd = dir.path().join("var/lib/microshift/etcd");
    assert!(matches!(&found.source, Some(Place::DataDir(p)) if *p == etcd));
    assert_eq!(found.prefix.as_deref(), Some("/kubernetes.io/"));
    assert!(found.cacert.is_some());
}

#[test]
fn a_certificate_in_no_directory_of_the_host() {
    let manifest = "kind: Pod
spec:
  containers:
  - name: kube-apiserver
    command: [kube-apiserver, --etcd-servers=https://a:1, --etcd-cafile=/in/ca.crt]
    volumeMounts: [{mountPath: /in, name: projected}]
  volumes: [{name: projected, projected: {}}]
";
    let (_dir, host) = machine(&[(KUBEADM_MANIFEST, manifest)]);
    let failure = host.kubeadm(None).unwrap_err();
    assert!(failure.message.contains("`projected`"), "{failure:?}");
    assert!(failure.hint.unwrap().contains("--cacert"));
}
