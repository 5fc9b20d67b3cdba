//! `--profile`: on a machine's fake root, one option is the whole command.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

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

/// A kubeadm manifest whose API server keeps events in another etcd than the rest.
fn overriding(dir: &Path, main: &str, events: &str, more: &str) -> PathBuf {
    let manifest = dir.join("m.yaml");
    let text = format!(
        "kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command: [kube-apiserver, '--etcd-servers={main}', '--etcd-servers-overrides=/events#{events}'{more}]\n"
    );
    fs::write(&manifest, text).unwrap();
    manifest
}

/// Resources in an etcd of their own are read there, at its own revision, in the same scan.
#[test]
fn a_second_etcd_is_read_in_the_same_scan() {
    let certs = Certs::new();
    let main = Etcd::builder(Version::V35).tls(&certs).start();
    main.put("/registry/secrets/a/1", b"k8s:enc:secretbox:v1:k:sealed");
    let events = Etcd::builder(Version::V34).tls(&certs).start();
    for n in 0..3 {
        events.put(&format!("/registry/events/a/{n}"), b"k8s\0plain");
    }
    // What lies there of other resources is nobody's.
    events.put("/registry/secrets/a/2", b"k8s\0plain");
    let dir = tempfile::tempdir().unwrap();
    let more = format!(
        ", '--etcd-cafile={}', '--etcd-certfile={}', '--etcd-keyfile={}'",
        certs.ca.display(),
        certs.client.cert.display(),
        certs.client.key.display()
    );
    let manifest = overriding(dir.path(), &main.url(), &events.url(), &more);
    let scan = |words: &str| {
        bin().words("scan --profile kubeadm --manifest").arg(&manifest).words(words).run()
    };
    let group = |document: &serde_json::Value, resource: &str| {
        let groups = document["groups"].as_array().unwrap();
        groups.iter().find(|g| g["resource"] == resource).map(|g| g["entries"].as_u64().unwrap())
    };
    let config = dir.path().join("enc.yaml");
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [events]\n  providers: [{identity: {}}]\n";
    fs::write(&config, text).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    let verify = format!("--all-resources --verify --encryption-config {}", config.display());
    for words in ["--resource events,secrets", "--all-resources", "--all-resources --list", &verify]
    {
        let done = scan(&format!("-w json {words}"));
        assert!(matches!(done.code, Some(0 | 4)), "{done}");
        let document = done.json();
        assert_eq!(group(&document, "events"), Some(3), "{words}");
        assert_eq!(group(&document, "secrets"), Some(1), "{words}");
        assert_eq!(document["also"][0]["resources"], serde_json::json!(["events"]));
        assert_eq!(document["also"][0]["revision"], 5);
        assert_eq!(document["source"]["revision"], 2);
        assert!(!done.stderr.contains("not examined"), "{done}");
        if let Some(entries) = document["entries"].as_array() {
            let keys: Vec<_> = entries.iter().map(|e| e["key"].as_str().unwrap()).collect();
            assert!(keys.is_sorted() && keys.len() == 4, "{keys:?}");
        }
    }
    scan("--fail-on plaintext").ok();
    scan("--resource events,secrets --fail-on plaintext").code(3);
    let text = scan("--all-resources").ok();
    assert!(text.text().contains("\nevents from etcd "), "{}", text.text());
    assert!(text.text().contains(" at revision 5\n"), "{}", text.text());
    assert!(scan("--all-resources -w html").ok().text().contains("events from etcd "));
    scan("--resource events").ok();
    // A revision is of one etcd.
    scan("--resource events,secrets --revision 2").code(4).says("not examined");
    events.ctl(&["del", "/registry/events/", "--prefix"]);
    scan("--resource events").fails_with_hint(1);
}

/// What the API server left behind in the main etcd is counted apart.
#[test]
fn what_was_stored_before_an_override_is_residue() {
    let (main, events) = (Etcd::plain(Version::V35), Etcd::plain(Version::V34));
    main.put("/registry/secrets/a/1", b"k8s:enc:secretbox:v1:k:sealed");
    for n in 0..2 {
        main.put(&format!("/registry/events/a/{n}"), b"k8s\0old");
    }
    events.put("/registry/events/a/1", b"k8s:enc:secretbox:v1:k:sealed");
    let dir = tempfile::tempdir().unwrap();
    let manifest = overriding(dir.path(), &main.url(), &events.url(), "");
    for words in ["", "--list"] {
        let done = bin()
            .words("scan -w json --all-resources --fail-on plaintext --profile kubeadm --manifest")
            .arg(&manifest)
            .words(words)
            .run()
            .ok()
            .says("2 entries of events in this etcd, left from before");
        let document = done.json();
        assert_eq!(document["left_behind"], serde_json::json!({"events": 2}));
        assert_eq!(document["totals"]["entries"], 2);
    }
}

/// A second etcd that cannot be read is not taken for examined, nor is it by other commands.
#[test]
fn a_second_etcd_is_not_silently_left_out() {
    let main = Etcd::plain(Version::V35);
    main.put("/registry/secrets/a/1", b"k8s:enc:secretbox:v1:k:sealed");
    let dir = tempfile::tempdir().unwrap();
    let [port] = crate::support::etcd::free_ports();
    let gone = format!("http://127.0.0.1:{port}");
    let manifest = overriding(dir.path(), &main.url(), &gone, "");
    let scan = |words: &str| {
        bin().words("scan --profile kubeadm --manifest").arg(&manifest).words(words).run()
    };
    scan("--fail-on plaintext").ok();
    for words in ["--resource events,secrets --fail-on plaintext", "--all-resources"] {
        let done = scan(words).code(4).says("another etcd").says(&gone).says("not examined");
        assert!(!done.stderr.contains("left from before"), "{done}");
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
