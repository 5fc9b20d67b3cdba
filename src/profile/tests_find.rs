#![allow(clippy::unwrap_used)] // a panic is a failed test

use std::fs;
use std::path::PathBuf;

use super::places::{KUBEADM_MANIFEST, LOCAL_ETCD, OPENSHIFT_CONFIG, OPENSHIFT_MANIFEST};
use super::*;
use Distribution as D;

#[allow(clippy::ref_option)] // fields are what it is given
fn value<T: Clone>(sourced: &Option<Sourced<T>>) -> Option<T> {
    sourced.as_ref().map(|s| s.value.clone())
}

fn kine(found: &Found) -> &PathBuf {
    match found.source.as_ref().map(|s| &s.value) {
        Some(Datastore::Kine(path)) => path,
        other => panic!("{other:?}"),
    }
}

fn data_dir(found: &Found) -> &PathBuf {
    match found.source.as_ref().map(|s| &s.value) {
        Some(Datastore::DataDir(path)) => path,
        other => panic!("{other:?}"),
    }
}

/// A machine with these files and nothing else.
fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let host = Host {
        root: Some(dir.path().to_owned()),
        profile: "test",
        source: true,
        named: Vec::new(),
    };
    (dir, host)
}

fn endpoints(found: &Found) -> &[String] {
    match found.source.as_ref().map(|s| &s.value) {
        Some(Datastore::Endpoints(all)) => all,
        other => panic!("{other:?}"),
    }
}

#[test]
fn k3s_with_sqlite() {
    let (dir, host) = machine(&[
        ("/var/lib/rancher/k3s/server/db/state.db", ""),
        ("/var/lib/rancher/k3s/server/cred/encryption-config.json", "{}"),
    ]);
    let found = find(&host, D::K3s, None).unwrap();
    let server = dir.path().join("var/lib/rancher/k3s/server");
    assert_eq!(*kine(&found), server.join("db/state.db"));
    assert_eq!(value(&found.config), Some(server.join("cred/encryption-config.json")));
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
    let found = find(&host, D::Rke2, None).unwrap();
    assert_eq!(*data_dir(&found), server.join("db/etcd"));
    assert_eq!(value(&found.config), None);

    let held = fs::File::open(server.join("db/etcd/member/snap/db")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let found = find(&host, D::Rke2, None).unwrap();
    assert_eq!(endpoints(&found), [LOCAL_ETCD]);
    assert_eq!(value(&found.cacert), Some(server.join("tls/etcd/server-ca.crt")));
    assert_eq!(value(&found.cert), Some(server.join("tls/etcd/client.crt")));
    assert_eq!(value(&found.key), Some(server.join("tls/etcd/client.key")));
}

#[test]
fn k3s_s_own_configuration_moves_the_places() {
    let config = "/etc/rancher/k3s/config.yaml";
    let (dir, host) = machine(&[
        (config, "data-dir: /srv/k3s\n"),
        ("/srv/k3s/server/db/state.db", ""),
        ("/var/lib/rancher/k3s/server/db/state.db", ""),
    ]);
    let found = find(&host, D::K3s, None).unwrap();
    let moved = dir.path().join("srv/k3s/server/db/state.db");
    assert_eq!(*kine(&found), moved);

    let (dir, host) = machine(&[(
        config,
        "datastore-endpoint: 'https://a:2379,https://b:2379'\ndatastore-cafile: /ca\n",
    )]);
    let found = find(&host, D::K3s, None).unwrap();
    assert_eq!(endpoints(&found), ["https://a:2379", "https://b:2379"]);
    assert_eq!(value(&found.cacert), Some(dir.path().join("ca")));

    let (dir, host) = machine(&[(
        config,
        "datastore-endpoint: mysql://u:hunter2@tcp(h)/db\ndatastore-certfile: c.pem\n",
    )]);
    let found = find(&host, D::K3s, None).unwrap();
    let Some(Datastore::Server(url)) = found.source.as_ref().map(|s| &s.value) else { panic!() };
    assert_eq!(url.shown(), "mysql://tcp(h:3306)/db");
    let server = dir.path().join("var/lib/rancher/k3s/server");
    assert_eq!(value(&found.cert), Some(server.join("c.pem")));
    assert!(!format!("{found:?}").contains("hunter2"));

    let (_dir, host) = machine(&[(config, "datastore-endpoint: nats://u:hunter2@h\n")]);
    let found = find(&host, D::K3s, None).unwrap();
    let Some(Datastore::Server(url)) = found.source.as_ref().map(|s| &s.value) else { panic!() };
    assert_eq!(url.shown(), "nats://h:4222?bucket=kine");
    assert!(!format!("{found:?}").contains("hunter2"));

    let (_dir, mut host) = machine(&[(config, "datastore-endpoint: jetstream://u:hunter2@h\n")]);
    let failure = find(&host, D::K3s, None).unwrap_err();
    let shown = format!("{failure:?}");
    assert!(shown.contains("jetstream") && !shown.contains("hunter2"), "{shown}");
    // With a source of one's own that is no obstacle.
    host.source = false;
    assert!(find(&host, D::K3s, None).unwrap().source.is_none());
}

#[test]
fn a_machine_without_a_datastore() {
    let (_dir, host) = machine(&[]);
    for distribution in D::ALL {
        assert!(find(&host, distribution, None).is_err(), "{distribution:?}");
    }
    assert_eq!(present(&host), []);
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
    let found = find(&host, D::Openshift, None).unwrap();
    assert_eq!(endpoints(&found), ["https://10.0.0.5:2379"]);
    assert_eq!(value(&found.prefix).as_deref(), Some("/kubernetes.io/"));
    let own = dir.path().join("etc/kubernetes/static-pod-resources/kube-apiserver-pod-7");
    assert_eq!(value(&found.cacert), Some(own.join("configmaps/etcd-serving-ca/ca-bundle.crt")));
    assert_eq!(value(&found.key), Some(own.join("secrets/etcd-client/tls.key")));
    assert_eq!(value(&found.config), Some(own.join("secrets/encryption-config/encryption-config")));
}

#[test]
fn microshift_s_etcd() {
    let (dir, host) = machine(&[
        ("/var/lib/microshift/etcd/member/snap/db", "x"),
        ("/var/lib/microshift/certs/etcd-signer/ca.crt", "x"),
    ]);
    let found = find(&host, D::Microshift, None).unwrap();
    let etcd = dir.path().join("var/lib/microshift/etcd");
    assert_eq!(*data_dir(&found), etcd);
    assert_eq!(value(&found.prefix).as_deref(), Some("/kubernetes.io/"));
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
    let failure = find(&host, D::Kubeadm, None).unwrap_err();
    assert!(
        matches!(&failure, ProfileError::Volume { volume, setting: Setting::CaCert, .. } if volume == "projected"),
        "{failure}"
    );
}

/// The same cluster, started in the ways that people start it.
#[test]
fn an_api_server_is_found_behind_shells_and_runners() {
    let container = |name: &str, command: &str| {
        format!(
            "kind: Pod\nspec:\n  containers:\n  - name: helper\n    command: [kms-plugin, --etcd-servers=http://wrong:1]\n  - name: health\n    command: [kube-apiserver-healthcheck, --etcd-servers=http://wrong:2]\n  - name: {name}\n    env: [{{name: URL, value: 'http://a:1'}}]\n    command: {command}\n"
        )
    };
    for (name, command) in [
        (
            "kube-apiserver",
            r#"[kube-apiserver, "--etcd-servers=http://a:1", --encryption-provider-config=/e.yaml]"#,
        ),
        (
            "api",
            r#"[/go-runner, --log-file=/x, --also-stdout, /usr/local/bin/kube-apiserver, "--etcd-servers=http://a:1", --encryption-provider-config=/e.yaml]"#,
        ),
        (
            "api",
            r#"[/bin/sh, -c, "exec /usr/local/bin/kube-apiserver --etcd-servers=\"http://a:1\" \\\n --encryption-provider-config='/e.yaml' --v=2 1>>/var/log/x 2>&1"]"#,
        ),
        (
            "api",
            r##"[/bin/bash, -ec, "# start\nmkfifo /p; (cat < /p >> /l & ) ; exec kube-apiserver --encryption-provider-config=/e.yaml --etcd-servers=$URL > /p 2>&1"]"##,
        ),
        (
            "api",
            r#"[sh, -c, 'exec kube-apiserver "$@"', sh, "--etcd-servers=$(URL)", --encryption-provider-config=/e.yaml]"#,
        ),
        (
            "api",
            r#"[hyperkube, apiserver, "--etcd-servers=http://a:1", --encryption-provider-config, /e.yaml]"#,
        ),
    ] {
        let (_dir, host) = machine(&[(KUBEADM_MANIFEST, &container(name, command))]);
        let found = find(&host, D::Kubeadm, None).unwrap_or_else(|e| panic!("{command}: {e}"));
        assert_eq!(endpoints(&found), ["http://a:1"], "{command}");
        assert_eq!(value(&found.config), Some(host.at("/e.yaml")), "{command}");
    }
}

#[test]
fn a_deployment_in_a_seed_has_a_pod_too() {
    let (_dir, host) = machine(&[(
        KUBEADM_MANIFEST,
        "kind: Deployment\nspec:\n  template:\n    spec:\n      containers:\n      - name: kube-apiserver\n        command: [kube-apiserver, '--etcd-servers=https://etcd:2379', --etcd-prefix=/tenant-1]\n",
    )]);
    let found = find(&host, D::Kubeadm, None).unwrap();
    assert_eq!(value(&found.prefix).as_deref(), Some("/tenant-1/"));
}

#[test]
fn resources_in_another_etcd_are_named() {
    let (_dir, host) = machine(&[(
        KUBEADM_MANIFEST,
        "kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command: [kube-apiserver, '--etcd-servers=http://a:1', '--etcd-servers-overrides=/events#http://b:1;http://c:1,coordination.k8s.io/leases#http://d:1']\n",
    )]);
    let found = find(&host, D::Kubeadm, None).unwrap();
    let all: Vec<_> = found
        .overrides
        .iter()
        .map(|o| (o.value.resource.as_str(), o.value.servers.join(" ")))
        .collect();
    assert_eq!(
        all,
        [
            ("events", "http://b:1 http://c:1".to_owned()),
            ("leases.coordination.k8s.io", "http://d:1".to_owned())
        ]
    );
}

/// What runs counts, and that its file says otherwise is told.
#[test]
fn a_process_counts_more_than_its_file() {
    let manifest = "kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command: [kube-apiserver, '--etcd-servers=http://old:1', --encryption-provider-config=/new.yaml]\n    volumeMounts: [{mountPath: /enc, name: enc}]\n  volumes: [{name: enc, hostPath: {path: /srv/enc}}]\n";
    let (_dir, host) = machine(&[
        (KUBEADM_MANIFEST, manifest),
        ("/proc/12/cmdline", "vim\0kube-apiserver\0--etcd-servers=http://no:1\0"),
        (
            "/proc/77/cmdline",
            "/usr/local/bin/kube-apiserver\0--etcd-servers=http://new:1\0--encryption-provider-config=/enc/e.yaml\0",
        ),
    ]);
    let found = find(&host, D::Kubeadm, None).unwrap();
    assert_eq!(endpoints(&found), ["http://new:1"]);
    assert_eq!(value(&found.config), Some(host.at("/srv/enc/e.yaml")));
    assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
    assert!(found.warnings.iter().all(|w| w.contains("process 77")));
    // A manifest that the user names may be another machine's.
    let given = host.at(KUBEADM_MANIFEST);
    let found = find(&host, D::Kubeadm, Some(&given)).unwrap();
    assert_eq!(endpoints(&found), ["http://old:1"]);
    assert_eq!(found.warnings, Vec::<String>::new());
}

const STATE: (&str, &str) = ("/var/lib/rancher/k3s/server/db/state.db", "");
const CONFIG: &str = "/etc/rancher/k3s/config.yaml";
const UNIT: &str = "/etc/systemd/system/k3s.service";

/// However the datastore is set, an old `state.db` is not read in its place.
#[test]
fn a_datastore_is_found_wherever_it_is_set() {
    let unit = "[Service]\nEnvironmentFile=-/etc/default/%N\nEnvironmentFile=-/etc/systemd/system/k3s.service.env\nExecStart=/usr/local/bin/k3s \\\n    server \\\n";
    let on_line = format!("{unit}\t'--datastore-endpoint=http://a:1' \\\n");
    let in_unit = "[Service]\nEnvironment=\"K3S_DATASTORE_ENDPOINT=http://a:1\" X=y\nExecStart=/usr/local/bin/k3s server\n";
    let start = "[Service]\nExecStart=\nExecStart=/usr/local/bin/k3s server --datastore-endpoint http://a:1\n";
    let endpoint = "datastore-endpoint: http://a:1\n";
    let variable = "K3S_DATASTORE_ENDPOINT='http://a:1'\n";
    let elsewhere = format!("{unit}--config /srv/k.yaml\n");
    let cases: &[&[(&str, &str)]] = &[
        &[(CONFIG, endpoint)],
        &[("/etc/rancher/k3s/config.yaml.d/10-db.yaml", endpoint)],
        &[
            (CONFIG, "datastore-endpoint: mysql://old\n"),
            ("/etc/rancher/k3s/config.yaml.d/99.yaml", endpoint),
        ],
        &[(UNIT, &on_line)],
        &[(UNIT, &on_line), (CONFIG, "datastore-endpoint: mysql://old\n")],
        &[(UNIT, in_unit)],
        &[(UNIT, unit), ("/etc/systemd/system/k3s.service.env", variable)],
        &[
            ("/etc/systemd/system/k3s.service.env", "no"),
            (UNIT, unit),
            ("/etc/systemd/system/k3s.service.d/x.conf", start),
        ],
        &[("/usr/lib/systemd/system/k3s.service", unit), ("/etc/default/k3s", variable)],
        &[(UNIT, &elsewhere), ("/srv/k.yaml", endpoint)],
        &[
            ("/proc/9/cmdline", "/usr/local/bin/k3s server\0\0"),
            ("/proc/9/environ", "A=b\0K3S_DATASTORE_ENDPOINT=http://a:1\0"),
        ],
        &[("/proc/9/cmdline", "/usr/local/bin/k3s\0server\0--datastore-endpoint=http://a:1\0")],
    ];
    for files in cases {
        let all: Vec<_> = files.iter().copied().chain([STATE]).collect();
        let (_dir, host) = machine(&all);
        let found = find(&host, D::K3s, None).unwrap_or_else(|e| panic!("{files:?}: {e}"));
        assert_eq!(endpoints(&found), ["http://a:1"], "{files:?}");
    }
}

#[test]
fn drop_ins_come_in_order_and_a_plus_appends() {
    let (_dir, host) = machine(&[
        STATE,
        (CONFIG, "kube-apiserver-arg: [etcd-prefix=/one]\n"),
        (
            "/etc/rancher/k3s/config.yaml.d/20.yaml",
            "kube-apiserver-arg+:\n- encryption-provider-config=/x.yaml\n",
        ),
        ("/etc/rancher/k3s/config.yaml.d/10.yaml", "kube-apiserver-arg:\n- etcd-prefix=/two\n"),
        ("/etc/rancher/k3s/config.yaml.d/30.txt", "kube-apiserver-arg: [etcd-prefix=/three]\n"),
    ]);
    let found = find(&host, D::K3s, None).unwrap();
    assert_eq!(value(&found.prefix).as_deref(), Some("/two/"));
    assert_eq!(value(&found.config), Some(host.at("/x.yaml")));
    assert!(found.prefix.unwrap().from.contains("20.yaml"));
}

#[test]
fn relative_datastores_lie_in_the_server_s_directory() {
    for (endpoint, expected) in [
        ("sqlite://./db/other.db?_journal=WAL", "server/db/other.db"),
        ("sqlite://db/other.db", "server/db/other.db"),
        ("sqlite://", "server/db/state.db"),
        ("state-without-a-scheme", "server/db/state.db"),
    ] {
        let config = format!("data-dir: /srv/k3s\ndatastore-endpoint: '{endpoint}'\n");
        let (_dir, host) = machine(&[(CONFIG, &config)]);
        let found = find(&host, D::K3s, None).unwrap();
        assert_eq!(*kine(&found), host.at("/srv/k3s").join(expected), "{endpoint}");
    }
}

#[test]
fn rke2_by_its_pod() {
    let pod = "kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    args: ['--etcd-servers=https://127.0.0.1:2379', --etcd-prefix=/r, --encryption-provider-config=/var/lib/rancher/rke2/server/cred/encryption-config.json]\n";
    let (_dir, host) = machine(&[
        ("/var/lib/rancher/rke2/server/db/etcd/member/snap/db", "x"),
        ("/var/lib/rancher/rke2/agent/pod-manifests/kube-apiserver.yaml", pod),
    ]);
    let found = find(&host, D::Rke2, None).unwrap();
    assert_eq!(*data_dir(&found), host.at("/var/lib/rancher/rke2/server/db/etcd"));
    assert_eq!(value(&found.prefix).as_deref(), Some("/r/"));
    assert!(found.config.is_some());
    assert_eq!(present(&host), [D::Rke2]);
}

#[test]
fn k0s_with_each_of_its_stores() {
    let config = "/etc/k0s/k0s.yaml";
    let (_dir, host) = machine(&[
        ("/var/lib/k0s/etcd/member/snap/db", "x"),
        ("/var/lib/k0s/pki/apiserver-etcd-client.crt", "x"),
        (
            config,
            "spec:\n  api:\n    extraArgs: {encryption-provider-config: /etc/k0s/enc.yaml}\n  storage: {type: etcd}\n",
        ),
    ]);
    let found = find(&host, D::K0s, None).unwrap();
    assert_eq!(*data_dir(&found), host.at("/var/lib/k0s/etcd"));
    assert_eq!(value(&found.config), Some(host.at("/etc/k0s/enc.yaml")));
    assert_eq!(value(&found.cacert), Some(host.at("/var/lib/k0s/pki/etcd/ca.crt")));

    let (_dir, host) = machine(&[
        ("/var/lib/k0s/etcd/member/snap/db", "old"),
        (
            config,
            "spec: {storage: {type: kine, kine: {dataSource: 'sqlite:///var/lib/k0s/db/state.db?mode=rwc'}}}\n",
        ),
    ]);
    assert_eq!(*kine(&find(&host, D::K0s, None).unwrap()), host.at("/var/lib/k0s/db/state.db"));

    let (_dir, host) = machine(&[(
        config,
        "spec: {storage: {type: etcd, etcd: {externalCluster: {endpoints: ['https://a:1'], caFile: /ca, clientCertFile: /c, clientKeyFile: /k, etcdPrefix: k0s-1}}}}\n",
    )]);
    let found = find(&host, D::K0s, None).unwrap();
    assert_eq!(endpoints(&found), ["https://a:1"]);
    assert_eq!(
        (value(&found.prefix).as_deref(), value(&found.cert)),
        (Some("/k0s-1/"), Some(host.at("/c")))
    );
}

#[test]
fn microk8s_says_what_dqlite_is() {
    let args = "/var/snap/microk8s/current/args/kube-apiserver";
    let (_dir, mut host) = machine(&[(
        args,
        "# the store\n--etcd-servers=\"unix:///var/snap/microk8s/current/var/kubernetes/backend/kine.sock:12379\"\n--encryption-provider-config=${SNAP_DATA}/enc.yaml\n",
    )]);
    let failure = find(&host, D::Microk8s, None).unwrap_err().to_string();
    assert!(failure.contains("dqlite"), "{failure}");
    host.source = false;
    let found = find(&host, D::Microk8s, None).unwrap();
    assert_eq!(value(&found.config), Some(host.at("/var/snap/microk8s/current/enc.yaml")));
    let (_dir, host) = machine(&[(
        args,
        "--etcd-servers=https://127.0.0.1:12379\n--etcd-cafile=${SNAP_DATA}/certs/ca.crt\n",
    )]);
    let found = find(&host, D::Microk8s, None).unwrap();
    assert_eq!(endpoints(&found), ["https://127.0.0.1:12379"]);
    assert_eq!(value(&found.cacert), Some(host.at("/var/snap/microk8s/current/certs/ca.crt")));
}

#[test]
fn rke1_talos_and_kops() {
    let docker = r#"{"Path":"/opt/rke-tools/entrypoint.sh","Args":["kube-apiserver","--etcd-servers=https://a:2379","--encryption-provider-config=/etc/kubernetes/ssl/encryption.yaml"]}"#;
    let (_dir, host) = machine(&[
        ("/etc/kubernetes/ssl/kube-ca.pem", "x"),
        ("/var/lib/docker/containers/ab/config.v2.json", docker),
        ("/var/lib/docker/containers/aa/config.v2.json", r#"{"Args":["etcd"]}"#),
    ]);
    let found = find(&host, D::Rke1, None).unwrap();
    assert_eq!(endpoints(&found), ["https://a:2379"]);
    assert_eq!(value(&found.config), Some(host.at("/etc/kubernetes/ssl/encryption.yaml")));
    assert_eq!(present(&host), [D::Rke1]);

    let (_dir, host) = machine(&[("/lib/etcd/member/snap/db", "x"), ("/config.yaml", "x")]);
    let found = find(&host, D::Talos, None).unwrap();
    assert_eq!(*data_dir(&found), host.at("/lib/etcd"));
    assert_eq!(value(&found.config), Some(host.at("/config.yaml")));

    let kops = "kind: Pod\nspec:\n  containers:\n  - name: healthcheck\n    command: [/kube-apiserver-healthcheck]\n  - name: kube-apiserver\n    command: [/bin/sh, -c, 'exec /usr/local/bin/kube-apiserver --etcd-servers=https://127.0.0.1:4001 --etcd-servers-overrides=/events#https://127.0.0.1:4002']\n";
    let (_dir, host) = machine(&[(places::KOPS_MANIFEST, kops)]);
    let found = find(&host, D::Kops, None).unwrap();
    assert_eq!(endpoints(&found), ["https://127.0.0.1:4001"]);
    assert_eq!(found.overrides.len(), 1);
}
