//! `doctor`: trees of machines broken in each way, and a real etcd that is asked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::support::certs::Certs;
use crate::support::{Etcd, Version, bin, corpus};

/// A sound kubeadm machine: encrypted disk, whole flags, sealed Secrets.
fn machine(root: &Path, etcd: &Etcd, certs: &Certs) {
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
        ("client.crt", &certs.client.cert),
        ("client.key", &certs.client.key),
    ] {
        put(&format!("etc/kubernetes/pki/{name}"), &fs::read_to_string(from).unwrap());
    }
    put("etc/kubernetes/pki/ca.crt", "another CA");
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
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
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
    assert!(run("-w html").ok().text().contains("<td class=\"fail\">"));
    let table = run("").ok();
    assert!(table.text().contains("stored-encrypted") && table.text().contains("to do:"));
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
