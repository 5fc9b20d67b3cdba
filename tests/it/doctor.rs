//! `doctor`: trees of machines broken in each way, and a real etcd that is asked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::migrate::confirm::metrics;
use crate::migrate::servers::lease;
use crate::support::apiserver::{ApiServer, Response};
use crate::support::certs::Certs;
use crate::support::{Etcd, Version, bin, corpus};

/// A sound kubeadm machine: encrypted disk, whole flags, sealed Secrets.
pub fn machine(root: &Path, etcd: &Etcd, certs: &Certs) {
    let put = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let url = etcd.url();
    let pki = "/etc/kubernetes/pki";
    let api = [
        format!("--etcd-servers={url}"),
        format!("--etcd-cafile={pki}/etcd/ca.crt"),
        format!("--etcd-certfile={pki}/client.crt"),
        format!("--etcd-keyfile={pki}/client.key"),
        format!("--tls-cert-file={pki}/a.crt"),
        format!("--tls-private-key-file={pki}/a.key"),
        format!("--client-ca-file={pki}/ca.crt"),
        format!("--kubelet-client-certificate={pki}/k.crt"),
        format!("--kubelet-client-key={pki}/k.key"),
        format!("--kubelet-certificate-authority={pki}/ca.crt"),
        "--encryption-provider-config=/etc/kubernetes/enc/enc.yaml".to_owned(),
        "--audit-policy-file=/etc/kubernetes/audit.yaml".to_owned(),
    ];
    let of_etcd = [
        "--data-dir=/var/lib/etcd".to_owned(),
        format!("--cert-file={pki}/etcd/s.crt"),
        format!("--key-file={pki}/etcd/s.key"),
        "--client-cert-auth=true".to_owned(),
        format!("--trusted-ca-file={pki}/etcd/ca.crt"),
        format!("--peer-cert-file={pki}/etcd/p.crt"),
        format!("--peer-key-file={pki}/etcd/p.key"),
        "--peer-client-cert-auth=true".to_owned(),
        format!("--peer-trusted-ca-file={pki}/etcd/ca.crt"),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        "--listen-peer-urls=https://127.0.0.1:2380".to_owned(),
        "--initial-advertise-peer-urls=https://127.0.0.1:2380".to_owned(),
    ];
    for (name, image, flags) in [
        ("kube-apiserver", "kube-apiserver:v1.33.0", &api[..]),
        ("etcd", "etcd:3.5.21-0", &of_etcd),
    ] {
        let flags = format!("    - {}\n", flags.join("\n    - "));
        let text = format!(
            "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: {name}\n    image: registry.k8s.io/{image}\n    command:\n    - {name}\n{flags}"
        );
        put(&format!("etc/kubernetes/manifests/{name}.yaml"), &text);
    }
    for (name, from) in [
        ("etcd/ca.crt", &certs.ca),
        ("etcd/s.crt", &certs.server.cert),
        ("etcd/p.crt", &certs.server.cert),
        ("client.crt", &certs.client.cert),
        ("client.key", &certs.client.key),
        ("a.crt", &certs.stranger.cert),
        ("k.crt", &certs.stranger.cert),
        ("ca.crt", &certs.other_ca),
    ] {
        put(&format!("etc/kubernetes/pki/{name}"), &fs::read_to_string(from).unwrap());
    }
    let config = fs::read_to_string(corpus::config("p1-secretbox")).unwrap();
    put("etc/kubernetes/enc/enc.yaml", &config);
    put(
        "etc/kubernetes/audit.yaml",
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n  resources: [{group: '', resources: [secrets]}]\n- level: RequestResponse\n",
    );
    put("var/lib/etcd/member/snap/db", "small");
    fs::set_permissions(root.join("var/lib/etcd"), fs::Permissions::from_mode(0o700)).unwrap();
    // The whole tree is on an encrypted device, through LVM.
    put("proc/1/mountinfo", "22 1 254:1 / / rw - ext4 /dev/mapper/vg-root rw\n");
    put("proc/swaps", "Filename Type Size Used Priority\n");
    put("sys/dev/block/254:1/dm/uuid", "LVM-abc\n");
    put("sys/dev/block/254:1/slaves/dm-0/dm/uuid", "CRYPT-LUKS2-0123-luks\n");
}

fn doctor(root: &Path, more: &str) -> Value {
    let run = bin().words("doctor -w json --profile kubeadm --root").arg(root).words(more);
    let document = run.run().ok().json();
    assert_eq!(document["schema"], "atrest.doctor/v1");
    document
}

fn result(document: &Value, id: &str) -> String {
    let checks = document["checks"].as_array().unwrap();
    let check = checks.iter().find(|c| c["id"] == id);
    let check = check.unwrap_or_else(|| panic!("no check {id}: {document:#}"));
    check["result"].as_str().unwrap().to_owned()
}

#[test]
fn a_sound_machine_and_one_broken_in_each_way() {
    let certs = Certs::new();
    let etcd = Etcd::builder(Version::V35).tls(&certs).start();
    etcd.put("/registry/secrets/a/1", b"k8s:enc:secretbox:v1:secret-key-1:sealed");
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    machine(root, &etcd, &certs);
    let sound = doctor(root, "");
    let bad: Vec<_> = sound["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["result"] == "fail" || c["result"] == "unknown")
        .map(|c| c["id"].as_str().unwrap())
        .collect();
    assert_eq!(bad, ["apiserver-config-loaded"], "only what was not asked: {sound:#}");
    assert_eq!(sound["totals"]["fail"], 0);
    for id in ["data-encrypted", "etcd-refuses-no-certificate", "etcd-refuses-plain-http"] {
        assert_eq!(result(&sound, id), "pass");
    }

    let manifest = |name: &str| root.join(format!("etc/kubernetes/manifests/{name}.yaml"));
    let swap = |path: &Path, from: &str, to: &str, id: &str, expected: &str| {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(path, text.replace(from, to)).unwrap();
        let broken = doctor(root, "");
        assert_eq!(result(&broken, id), expected, "{id}: {broken:#}");
        let check = broken["checks"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap();
        assert!(check["remedy"].is_string(), "{check}");
        fs::write(path, text).unwrap();
    };
    let (api, of_etcd) = (manifest("kube-apiserver"), manifest("etcd"));
    swap(&api, "--client-ca-file", "--other", "apiserver-client-ca", "fail");
    swap(&api, "--encryption-provider-config", "--other", "encryption-configured", "fail");
    swap(
        &of_etcd,
        "--client-cert-auth=true",
        "--client-cert-auth=false",
        "etcd-client-cert-auth",
        "fail",
    );
    swap(&of_etcd, "--data-dir", "--auto-tls=true\n    - --data-dir", "etcd-auto-tls", "fail");
    swap(
        &of_etcd,
        "--listen-peer-urls=https",
        "--listen-peer-urls=http",
        "etcd-https-urls",
        "fail",
    );
    swap(&of_etcd, "etcd:3.5.21-0", "etcd:3.5.1-0", "etcd-version", "fail");
    let audit = root.join("etc/kubernetes/audit.yaml");
    swap(&audit, "level: Metadata", "level: RequestResponse", "audit-secrets", "fail");
    let config = root.join("etc/kubernetes/enc/enc.yaml");
    swap(
        &config,
        "providers:\n",
        "providers:\n      - identity: {}\n",
        "encryption-providers",
        "fail",
    );
    let device = root.join("sys/dev/block/254:1/slaves/dm-0/dm/uuid");
    swap(&device, "CRYPT-", "LVM-", "data-encrypted", "fail");
    swap(
        &root.join("proc/swaps"),
        "Priority\n",
        "Priority\n/dev/none partition 1 0 -2\n",
        "swap-encrypted",
        "unknown",
    );
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(result(&doctor(root, ""), "encryption-config-mode"), "fail");
    fs::copy(corpus::db("p9-defragged"), root.join("etc/kubernetes/enc/backup.db")).unwrap();
    assert_eq!(result(&doctor(root, ""), "keys-apart-from-backups"), "fail");

    etcd.put("/registry/secrets/a/2", b"k8s\0plain");
    etcd.put("/registry/secrets/a/2", b"k8s\0plain again");
    let plain = doctor(root, "");
    assert_eq!(result(&plain, "stored-encrypted"), "fail");
    assert_eq!(result(&plain, "no-old-plaintext"), "warn");
    let run =
        |words: &str| bin().words("doctor --profile kubeadm --root").arg(root).words(words).run();
    run("--fail-on fail").code(3);
    let sarif = run("-w sarif").ok().json();
    assert_eq!(sarif["version"], "2.1.0");
    assert!(run("-w html").ok().text().contains("<tr class=\"bad\"><td>fail</td>"));
    let table = run("").ok();
    assert!(table.text().contains("stored-encrypted") && table.text().contains("to do:"));
}

fn evidence(document: &Value, id: &str) -> String {
    let checks = document["checks"].as_array().unwrap();
    checks.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("no {id}"))["evidence"]
        .to_string()
}

#[test]
fn certificates_by_file_and_as_they_are_shown() {
    let certs = Certs::new();
    let etcd = Etcd::builder(Version::V35).tls(&certs).start();
    etcd.put("/registry/secrets/a/1", b"k8s:enc:secretbox:v1:secret-key-1:sealed");
    let root = tempfile::tempdir().unwrap();
    machine(root.path(), &etcd, &certs);
    let pki = root.path().join("etc/kubernetes/pki");
    let ids = [
        "certificates-valid",
        "certificate-keys",
        "certificate-chains",
        "etcd-cert-names",
        "etcd-cert-in-use",
    ];
    let sound = doctor(root.path(), "");
    for id in ids {
        assert_eq!(result(&sound, id), "pass", "{sound:#}");
    }
    assert!(evidence(&sound, "etcd-cert-in-use").contains("ECDSA P-256"), "{sound:#}");
    // One file at a time is another, and the checks that see it say so; the others stay.
    let swap = |name: &str, with: &[u8], expected: &[(&str, &str)]| {
        let path = pki.join(name);
        let before = fs::read(&path).unwrap();
        fs::write(&path, with).unwrap();
        let document = doctor(root.path(), "");
        for id in ids {
            let wanted = expected.iter().find(|(i, _)| *i == id).map_or("pass", |(_, r)| *r);
            assert_eq!(result(&document, id), wanted, "{name} {id}: {document:#}");
        }
        fs::write(&path, before).unwrap();
        document
    };
    let file = |path: &Path| fs::read(path).unwrap();
    let ended =
        swap("client.crt", &file(&certs.expired_client.cert), &[("certificates-valid", "fail")]);
    assert!(evidence(&ended, "certificates-valid").contains(" ended 2001-"), "{ended:#}");
    swap("a.crt", b"no certificate", &[("certificates-valid", "unknown")]);
    let (chains, names, used) =
        (("certificate-chains", "fail"), ("etcd-cert-names", "fail"), ("etcd-cert-in-use", "warn"));
    swap("etcd/s.crt", &file(&certs.server_elsewhere.cert), &[names, used]);
    swap("etcd/p.crt", &file(&certs.stranger.cert), &[chains]);
    let short = pki.join("short.pem");
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:1024", "-nodes", "-days", "9", "-subj", "/CN=short"])
        .args(["-sha1", "-keyout", "/dev/null", "-out"])
        .arg(&short)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let weak = [("certificates-valid", "warn"), ("certificate-keys", "fail")];
    let weak = swap("k.crt", &file(&short), &weak);
    assert!(evidence(&weak, "certificate-keys").contains("short, RSA 1024"), "{weak:#}");
}

/// What servers of 1.36, of 1.29 and of 1.34 without a configuration say.
#[test]
fn running_api_servers_are_asked() {
    let (certs, root) = (Certs::new(), tempfile::tempdir().unwrap());
    let etcd = Etcd::builder(Version::V35).tls(&certs).start();
    machine(root.path(), &etcd, &certs);
    etcd.put("/registry/secrets/a/1", b"k8s:enc:secretbox:v1:secret-key-1:sealed");
    lease(&etcd, "cp-1", 2);
    let file = fs::read(root.path().join("etc/kubernetes/enc/enc.yaml")).unwrap();
    let ask = |says: String| {
        let server = ApiServer::start(&certs, move |request| {
            assert_eq!((&*request.method, &*request.path), ("GET", "/metrics"));
            Response::new(200, says.clone())
        });
        let kubeconfig = server.kubeconfig(&certs, root.path());
        doctor(root.path(), &format!("--kubeconfig {}", kubeconfig.display()))
    };
    let transformed = |resource: &str, direction: &str, prefix: &str, status: &str| {
        format!(
            "apiserver_storage_transformation_operations_total{{resource=\"{resource}\",\
             status=\"{status}\",transformation_type=\"{direction}\",transformer_prefix=\"{prefix}\"}} 3\n"
        )
    };
    let reload = |status: &str, at: u32| {
        format!(
            "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds\
             {{apiserver_id_hash=\"sha256:x\",status=\"{status}\"}} {at}\n"
        )
    };
    let box_ = "k8s:enc:secretbox:v1:";
    let good = transformed("secrets", "to_storage", box_, "OK");
    let ids = [
        "apiserver-config-loaded",
        "apiserver-config-reload",
        "apiserver-writes-encrypted",
        "apiserver-reads",
    ];
    let expect = |document: &Value, results: [&str; 4]| {
        for (id, wanted) in ids.iter().zip(results) {
            assert_eq!(result(document, id), wanted, "{id}: {document:#}");
        }
    };
    let sound = ask(metrics("cp-1", &file) + &good + &reload("success", 1_790_000_000));
    expect(&sound, ["pass"; 4]);
    let check = &sound["checks"].as_array().unwrap().iter().find(|c| c["id"] == ids[0]).unwrap();
    assert_eq!(check["layer"], "apiserver");
    assert!(check["evidence"][0].as_str().unwrap().starts_with("cp-1 (v1.36.0) has loaded "));
    let broken = ask(metrics("cp-1", b"old")
        + &good
        + &transformed("secrets", "to_storage", "", "OK")
        + &transformed("secrets", "from_storage", "unknown", "Unknown")
        + &reload("success", 1_780_000_000)
        + &reload("failure", 1_790_000_000));
    expect(&broken, ["fail"; 4]);
    // Another server answers than the one that etcd knows of.
    let other = ask(metrics("cp-2", &file) + &good);
    assert_eq!(result(&other, ids[0]), "unknown");
    assert!(evidence(&other, ids[0]).contains("on cp-1, which etcd knows of, was not reached"));
    let old = ask("kubernetes_build_info{git_version=\"v1.29.3\"} 1\n".to_owned());
    assert_eq!(result(&old, ids[0]), "unknown");
    assert!(evidence(&old, ids[0]).contains("(v1.29.3) does not say"), "{old:#}");
    let kubeconfig = root.path().join("kubeconfig");
    assert!(kubeconfig.exists());
    let words = format!("--apiserver https://127.0.0.1:1 --kubeconfig {}", kubeconfig.display());
    let away = doctor(root.path(), &words);
    assert!(evidence(&away, ids[0]).contains("was not asked"), "{away:#}");
}

/// An etcd that asks nobody for anything is found out, whatever its flags say.
#[test]
fn an_open_etcd_is_found_by_asking_it() {
    let certs = Certs::new();
    let etcd = Etcd::plain(Version::V34);
    let root = tempfile::tempdir().unwrap();
    machine(root.path(), &etcd, &certs);
    let open = doctor(root.path(), "");
    assert_eq!(result(&open, "etcd-refuses-plain-http"), "fail");
    assert_eq!(result(&open, "apiserver-etcd-https"), "fail");
    assert_eq!(result(&open, "stored-encrypted"), "unknown", "nothing is there");
}

#[test]
fn no_machine_is_no_result() {
    let root = tempfile::tempdir().unwrap();
    bin().words("doctor --root").arg(root.path()).run().fails_with_hint(1);
}
