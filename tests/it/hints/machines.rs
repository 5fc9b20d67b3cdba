//! `--profile`: nodes that are not as it expects.

use std::fs;
use std::path::{Path, PathBuf};

use super::says;
use crate::support::bin::Done;
use crate::support::{Etcd, Version, bin, corpus};

struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, words: &str) -> Done {
        bin().words(words).arg("--root").arg(self.0.path()).run()
    }
}

/// A static pod of an API server with this etcd, and further flags.
fn manifest(etcd: &Etcd, more: &str) -> String {
    format!(
        "kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command: [kube-apiserver, '--etcd-servers={}'{more}]\n",
        etcd.url()
    )
}

const MANIFEST: &str = "etc/kubernetes/manifests/kube-apiserver.yaml";

fn filled() -> Etcd {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/b", crate::support::secret("x").as_bytes());
    etcd
}

fn kine_at(path: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let (made, connection) = crate::kine::kine(dir.path(), "p1b-partial-migration");
    drop(connection);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy(made, path).unwrap();
}

#[test]
fn which_distribution() {
    let etcd = filled();
    let root = Root::new();
    says("or give --root DIR for the disk of one, or name the distribution with --profile").helps(
        &root.run("profile"),
        |_| {
            root.file(MANIFEST, &manifest(&etcd, ""));
            root.run("profile --profile kubeadm").ok();
            root.run("profile")
        },
    );
    // Two of them left something.
    root.file("etc/rancher/k3s/config.yaml", "datastore-endpoint: 'http://127.0.0.1:1'\n");
    let doctor = |more: &str| root.run(&format!("doctor {more}"));
    let printed = doctor("");
    says("name one with --profile").helps(&printed, |_| {
        let done = doctor("--profile kubeadm");
        assert!(done.stdout.starts_with(b"") && matches!(done.code, Some(0 | 4)), "{done}");
        root.run("profile --profile kubeadm")
    });
    // What was found says nothing.
    let root = Root::new();
    root.file(MANIFEST, "kind: Pod\nspec: {containers: []}\n");
    says("name the distribution with --profile").helps(&root.run("profile"), |_| {
        kine_at(&root.0.path().join("var/lib/rancher/k3s/server/db/state.db"));
        root.run("profile --profile k3s")
    });
}

#[test]
fn files_that_are_elsewhere() {
    let etcd = filled();
    let root = Root::new();
    let scan = |more: &str| root.run(&format!("scan --profile kubeadm {more}"));
    let moved = root.file("moved.yaml", &manifest(&etcd, ""));
    says("run on a control-plane node, or name another file with {option}").helps(
        &scan(""),
        |said| {
            let option = said.rsplit(' ').next().unwrap();
            assert_eq!(option, "--manifest");
            scan(&format!("{option} {}", moved.display()))
        },
    );
    says("check the path of --manifest").helps(&scan("--manifest /nowhere.yaml"), |_| {
        scan(&format!("--manifest {}", moved.display()))
    });
    // A file that the manifest names and the disk has not.
    root.file(MANIFEST, &manifest(&etcd, ", '--encryption-provider-config=/etc/nosuch.yaml'"));
    let config = corpus::private_config("p1-secretbox");
    says("run on a control-plane node, or name another file with {option}").helps(
        &scan(""),
        |said| {
            let option = said.rsplit(' ').next().unwrap();
            scan(&format!("{option} {}", config.display()))
        },
    );
    root.file(MANIFEST, "kind: Pod\nspec:\n  containers: [\n");
    says("check the file, or name the source with --endpoints, --cacert").helps(
        &scan(""),
        |said| {
            assert!(said.contains("--endpoints, --cacert, --cert and --key"), "{said}");
            let run = bin().words("scan --encryption-config").arg(&config).args(etcd.args());
            run.run().ok();
            root.file(MANIFEST, &manifest(&etcd, ""));
            scan("")
        },
    );
}

/// A certificate in a volume that is on no disk.
#[test]
fn files_in_volumes() {
    let etcd = filled();
    let root = Root::new();
    let text = manifest(&etcd, ", '--encryption-provider-config=/enc/enc.yaml'")
        + "    volumeMounts:\n    - {mountPath: /enc, name: enc}\n  volumes:\n  - {name: enc, secret: {secretName: enc}}\n";
    root.file(MANIFEST, &text);
    let config = corpus::private_config("p1-secretbox");
    let scan = |more: &str| root.run(&format!("scan --profile kubeadm {more}"));
    says("copy it out and name it with {option}").helps(&scan(""), |said| {
        let option = said.rsplit(' ').next().unwrap();
        scan(&format!("{option} {}", config.display()))
    });
}

#[test]
fn a_machine_without_its_data() {
    let root = Root::new();
    let etcd = filled();
    let kine = root.0.path().join("kept/state.db");
    kine_at(&kine);
    let dir = corpus::data_dir();
    let scan = |more: &str| root.run(&format!("scan --profile k3s {more}"));
    root.file("etc/rancher/k3s/config.yaml", "{}\n");
    says("run on a server node, or name the source with --kine, --data-dir or --endpoints").helps(
        &scan(""),
        |_| {
            scan(&format!("--kine {}", kine.display())).ok();
            scan(&format!("--data-dir {}", dir.path().display())).ok();
            scan(&format!("--endpoints {}", etcd.endpoint()))
        },
    );
    // What another program serves as an etcd is read from there.
    root.file("etc/rancher/k3s/config.yaml", "datastore-endpoint: 'jetstream://u:p@db'\n");
    says("start one beside it and give its --endpoints")
        .helps(&scan(""), |_| scan(&format!("--endpoints {}", etcd.endpoint())));
}
