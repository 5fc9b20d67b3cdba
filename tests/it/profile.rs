//! `--profile`: on a machine's fake root, one option is the whole command.

use std::fs;
use std::path::Path;

use crate::support::certs::Certs;
use crate::support::{Etcd, Version, bin, corpus};

/// kubeadm's files below `root`, for an API server that uses `etcd`.
fn kubeadm(root: &Path, etcd: &Etcd, certs: &Certs) {
    let pki = root.join("srv/pki");
    fs::create_dir_all(pki.join("etcd")).unwrap();
    fs::copy(&certs.ca, pki.join("etcd/ca.crt")).unwrap();
    fs::copy(&certs.client.cert, pki.join("apiserver-etcd-client.crt")).unwrap();
    fs::copy(&certs.client.key, pki.join("apiserver-etcd-client.key")).unwrap();
    fs::create_dir_all(root.join("etc/kubernetes/enc")).unwrap();
    let enc = root.join("etc/kubernetes/enc/enc.yaml");
    fs::copy(corpus::private_config("p1-secretbox"), &enc).unwrap();
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: kube-apiserver, namespace: kube-system}}
spec:
  containers:
  - name: kube-apiserver
    command:
    - kube-apiserver
    - --encryption-provider-config=/etc/kubernetes/enc/enc.yaml
    - --etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt
    - --etcd-certfile=/etc/kubernetes/pki/apiserver-etcd-client.crt
    - --etcd-keyfile=/etc/kubernetes/pki/apiserver-etcd-client.key
    - --etcd-servers={}
    volumeMounts:
    - {{mountPath: /etc/kubernetes/pki, name: k8s-certs, readOnly: true}}
    - {{mountPath: /etc/kubernetes/enc, name: enc, readOnly: true}}
  hostNetwork: true
  volumes:
  - hostPath: {{path: /srv/pki, type: DirectoryOrCreate}}
    name: k8s-certs
  - hostPath: {{path: /etc/kubernetes/enc, type: DirectoryOrCreate}}
    name: enc
",
        etcd.url()
    );
    fs::create_dir_all(root.join("etc/kubernetes/manifests")).unwrap();
    fs::write(root.join("etc/kubernetes/manifests/kube-apiserver.yaml"), manifest).unwrap();
}

#[test]
fn kubeadm_is_the_whole_command() {
    let phase = "p1b-partial-migration";
    let certs = Certs::new();
    let etcd = Etcd::builder(Version::V35).tls(&certs).restore(corpus::db(phase)).start();
    let root = tempfile::tempdir().unwrap();
    kubeadm(root.path(), &etcd, &certs);
    let config = corpus::private_config("p1-secretbox");
    let expected = bin()
        .words("scan -w json --verify --snapshot")
        .arg(corpus::db(phase))
        .arg("--encryption-config")
        .arg(&config)
        .run()
        .ok()
        .json();
    let scan = || bin().words("scan -w json --verify --profile kubeadm --root").arg(root.path());
    let got = scan().run().ok().json();
    assert_eq!(got["source"]["kind"], "etcd");
    assert_eq!(got["groups"], expected["groups"]);
    assert_eq!(got["totals"], expected["totals"]);
    assert_eq!(got["config"]["sha256"], expected["config"]["sha256"]);
    assert!(got["totals"]["stale"].as_u64().unwrap() > 0);

    // A variable of the environment is no request.
    let from_env = scan()
        .env("ETCDCTL_ENDPOINTS", "127.0.0.1:1")
        .env("ETCDCTL_CERT", "/nonexistent")
        .run()
        .ok()
        .json();
    assert_eq!(from_env["groups"], expected["groups"]);

    // Explicit options win.
    let snapshot = scan().arg("--snapshot").arg(corpus::db("p0-plaintext")).run().ok().json();
    assert_eq!(snapshot["source"]["kind"], "snapshot");
    assert_eq!(snapshot["config"]["sha256"], expected["config"]["sha256"]);
    assert_eq!(snapshot["totals"]["encrypted"], 0);
    scan()
        .args(["--endpoints", "https://127.0.0.1:1", "--dial-timeout=1s"])
        .run()
        .fails_with_hint(1);
    scan().arg("--cacert").arg(&certs.other_ca).run().fails(1);
    let other = corpus::private_config("p6-sb2");
    let got = scan().arg("--encryption-config").arg(&other).run();
    assert_ne!(got.json()["config"]["sha256"], expected["config"]["sha256"]);
    scan().args(["--prefix", "/nothing/"]).run().fails_with_hint(1);

    // `get` and the others take it, too.
    let key = "/registry/secrets/default/login2";
    let got =
        bin().words("get -w json --profile kubeadm --root").arg(root.path()).arg(key).run().ok();
    assert_eq!(got.json()["metadata"]["name"], "login2");
    bin().words("config check --profile kubeadm --root").arg(root.path()).run().ok();
    bin().words("keys --profile kubeadm --root").arg(root.path()).run().ok();

    // A manifest elsewhere, its other files where they were.
    let moved = root.path().join("moved.yaml");
    fs::rename(root.path().join("etc/kubernetes/manifests/kube-apiserver.yaml"), &moved).unwrap();
    scan().run().fails_with_hint(1).says("kube-apiserver.yaml").says("--manifest");
    let got = scan().arg("--manifest").arg(&moved).run().ok().json();
    assert_eq!(got["groups"], expected["groups"]);

    // One that is missing is named.
    fs::remove_file(root.path().join("srv/pki/apiserver-etcd-client.key")).unwrap();
    scan().arg("--manifest").arg(&moved).run().fails_with_hint(1).says("apiserver-etcd-client.key");
}

#[test]
fn options_that_say_nothing_are_refused() {
    let wrong = |line: &str| bin().words(line).run().fails(2);
    wrong("scan --manifest /x");
    wrong("scan --root /x");
    wrong("scan --profile k3s --manifest /x");
    wrong("scan --profile nosuch");
}

#[test]
fn a_stopped_server_s_files() {
    let phase = "p8-compacted-not-defragged";
    for (name, member) in [
        ("k3s", "var/lib/rancher/k3s/server/db/etcd"),
        ("rke2", "var/lib/rancher/rke2/server/db/etcd"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(member);
        fs::create_dir_all(dir.parent().unwrap()).unwrap();
        let source = corpus::data_dir();
        fs::rename(source.path().join("member"), {
            fs::create_dir_all(&dir).unwrap();
            dir.join("member")
        })
        .unwrap();
        let got = bin()
            .words("scan -w json --profile")
            .arg(name)
            .arg("--root")
            .arg(root.path())
            .run()
            .ok()
            .json();
        assert_eq!(got["source"]["kind"], "data-dir");
        assert_eq!(got["source"]["location"], dir.to_str().unwrap());
        let expected = corpus::entries(phase)
            .entries
            .iter()
            .filter(|e| e.key.starts_with("/registry/secrets/"))
            .count();
        assert_eq!(got["totals"]["entries"], expected);
    }
}

#[test]
fn a_machine_that_is_no_server() {
    let root = tempfile::tempdir().unwrap();
    for name in ["kubeadm", "k3s", "rke2", "openshift", "microshift"] {
        let run = |words: &str| bin().words(words).arg(name).arg("--root").arg(root.path()).run();
        run("scan --profile").fails_with_hint(1);
        run("get /registry/secrets/a/b --profile").fails_with_hint(1);
    }
}

/// Resources in an etcd of their own are not taken for examined.
#[test]
fn a_second_etcd_is_not_silently_left_out() {
    let main = Etcd::plain(Version::V35);
    main.put("/registry/secrets/a/1", b"k8s:enc:secretbox:v1:k:sealed");
    let events = Etcd::plain(Version::V34);
    events.put("/registry/events/a/1", b"k8s\0plain");
    let dir = tempfile::tempdir().unwrap();
    let manifest = dir.path().join("m.yaml");
    let text = format!(
        "kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command: [kube-apiserver, '--etcd-servers={}', '--etcd-servers-overrides=/events#{}']\n",
        main.url(),
        events.url()
    );
    fs::write(&manifest, text).unwrap();
    let scan = |words: &str| {
        let run = bin().words("scan -q --profile kubeadm --manifest").arg(&manifest).words(words);
        run.run()
    };
    scan("--fail-on plaintext").ok();
    for words in ["--resource events,secrets --fail-on plaintext", "--all-resources"] {
        let done = scan(words).code(4).says("another etcd").says("--endpoints");
        // What it says to do finds them.
        let line = done.stderr.lines().find(|l| l.contains("another etcd")).unwrap();
        let advice = line.split("it is read with ").nth(1).unwrap();
        let found = scan(&format!("{advice} --fail-on plaintext")).code(3);
        assert!(!found.stderr.contains("another etcd"), "{found}");
    }
    let keys = bin()
        .words("keys -w json --all-resources --profile kubeadm --manifest")
        .arg(&manifest)
        .run()
        .code(4)
        .json();
    assert!(keys["keys"].as_array().unwrap().iter().all(|k| k["safe_to_remove"] == false));
}

/// The arguments of a process that runs count, and are shown as such.
#[test]
fn what_runs_counts() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/1", b"k8s\0plain");
    let root = tempfile::tempdir().unwrap();
    let manifests = root.path().join("etc/kubernetes/manifests");
    fs::create_dir_all(&manifests).unwrap();
    fs::write(
        manifests.join("kube-apiserver.yaml"),
        "kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command: [kube-apiserver, '--etcd-servers=http://127.0.0.1:1']\n",
    )
    .unwrap();
    std::os::unix::fs::symlink("/proc", root.path().join("proc")).unwrap();
    let mut server = std::process::Command::new("bash")
        .args(["-c", "exec -a kube-apiserver sh -c 'read x' -- --etcd-servers=\"$0\"", &etcd.url()])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It is what it will be once the shell has become it.
    let name = format!("/proc/{}/cmdline", server.id());
    while !fs::read(&name).unwrap().starts_with(b"kube-apiserver\0") {
        std::thread::yield_now();
    }
    let done = bin().words("scan -w json --profile kubeadm --root").arg(root.path()).run().ok();
    assert_eq!(done.json()["totals"]["entries"], 1);
    let pid = format!("process {}", server.id());
    done.says(&pid).says("--etcd-servers");
    let shown = bin().words("--profile kubeadm -w json --root").arg(root.path()).run().ok();
    let settings = shown.json()["profiles"][0]["settings"].clone();
    assert_eq!(settings[0]["option"], "--endpoints");
    assert_eq!(settings[0]["value"], etcd.url());
    assert!(settings[0]["from"].as_str().unwrap().contains(&pid), "{settings}");
    drop(server.stdin.take());
    server.wait().unwrap();
}

/// Without a name, everything that left something is shown.
#[test]
fn what_is_found_is_shown_with_where_it_stands() {
    let root = tempfile::tempdir().unwrap();
    let show = || bin().words("profile --root").arg(root.path()).run();
    show().fails_with_hint(1);
    let config = root.path().join("etc/rancher/k3s/config.yaml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(&config, "datastore-endpoint: 'http://u:hunter2@127.0.0.1:1'\n").unwrap();
    let done = show().ok();
    assert!(done.text().contains("config.yaml"), "{}", done.text());
    assert!(!done.text().contains("hunter2"));
    bin().words("profile --profile k3s --manifest /x").run().fails(2);
}
