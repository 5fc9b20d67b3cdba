//! What writes: to etcd, to files, and on a socket.

use std::path::Path;

use super::{private, providers, says};
use crate::live::auth::with_users;
use crate::migrate::all_objects::{self, Memory};
use crate::migrate::canary::older;
use crate::migrate::confirm::metrics;
use crate::migrate::servers::lease;
use crate::support::apiserver::{ApiServer, Response};
use crate::support::bin::{Bin, Done};
use crate::support::certs::Certs;
use crate::support::served::{Served, kubectl};
use crate::support::{Etcd, Version, bin, corpus, secret};

fn filled() -> Etcd {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/b", secret("x").as_bytes());
    etcd
}

fn migrate(etcd: &Etcd, words: &str) -> Bin {
    let config = corpus::private_config("p1-secretbox");
    let run = bin().words("migrate --encryption-config").arg(config).args(etcd.args());
    run.words(words)
}

const APPLY: &str = "--apply --no-backup";

#[test]
fn several_entries_in_one_transaction() {
    let etcd = filled();
    lease(&etcd, "cp-1", 2);
    let run = |more: &str| migrate(&etcd, &format!("{APPLY} {more}")).run();
    says("without --batch and --no-apiserver each entry has a transaction of its own")
        .helps(&run("--batch 8 --no-apiserver"), |_| run(""));
    let etcd = filled();
    let run = |more: &str| migrate(&etcd, &format!("{APPLY} {more}")).run();
    says("leave --batch out; or stop every API server and say --no-apiserver").helps(
        &run("--batch 8"),
        |_| {
            run("--batch 8 --no-apiserver").ok();
            run("")
        },
    );
}

#[test]
fn the_backup_before() {
    let etcd = filled();
    let dir = tempfile::tempdir().unwrap();
    let file = private(&dir, "taken.db", "");
    let run = |words: &str| migrate(&etcd, &format!("--apply {words}")).run();
    says("choose another name; or --no-backup, if it is the backup from before").helps(
        &run(&format!("--backup {}", file.display())),
        |_| {
            run(&format!("--backup {}", dir.path().join("new.db").display())).ok();
            run("--no-backup")
        },
    );
    let etcd = with_users(Version::V35, None, &[]);
    let root = |words: &str| {
        etcd.ctl(&["--user=root:toor"].into_iter().chain(words.split(' ')).collect::<Vec<_>>());
    };
    root("role grant-permission reader readwrite --prefix=true /registry/");
    let run = |name: &str| {
        let words = format!("--apply --user reader:read:er --backup {name}");
        migrate(&etcd, &words).current_dir(dir.path()).run()
    };
    says("only users with the role root may save a snapshot (etcdctl user grant-role NAME root)")
        .helps(&run("x.db"), |_| {
            root("user grant-role reader root");
            run("x.db")
        });
}

#[test]
fn a_database_without_room() {
    let quota = 8 << 20;
    let start = || {
        let etcd =
            Etcd::builder(Version::V35).arg(format!("--quota-backend-bytes={quota}")).start();
        let value = "v".repeat(40_000);
        // Superseded revisions fill it, of which a compaction frees all but the last.
        let mut n = 0;
        loop {
            let key = format!("/registry/secrets/a/s{:02}", n % 20);
            let done = etcd.try_ctl(&["put", "--", &key], secret(&value).as_bytes());
            if !done.status.success() {
                break etcd;
            }
            n += 1;
            assert!(n < 2000, "it has no quota");
        }
    };
    let compact = |etcd: &Etcd| {
        let answer = etcd.ctl(&["get", "x", "-w", "json"]);
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        etcd.ctl(&["compact", "--physical", &answer["header"]["revision"].to_string()]);
        etcd.ctl(&["--command-timeout=60s", "defrag"]);
    };
    let etcd = start();
    let run = || migrate(&etcd, &format!("{APPLY} --quota-backend-bytes {quota}")).run();
    says("compact and defragment first, or migrate in parts").helps(&run(), |_| {
        compact(&etcd);
        etcd.ctl(&["alarm", "disarm"]);
        run()
    });
    let etcd = start();
    let run = || migrate(&etcd, APPLY).run();
    says("etcdctl compact, defrag every member, alarm disarm; then run it again").helps(
        &run(),
        |_| {
            compact(&etcd);
            etcd.ctl(&["alarm", "disarm"]);
            run()
        },
    );
}

/// `--kubeconfig` and what it holds.
#[test]
fn kubeconfigs() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = filled();
    let file = std::fs::read(corpus::private_config("p1-secretbox")).unwrap();
    let server = ApiServer::start(&certs, move |_| Response::new(200, metrics("cp-1", &file)));
    let one = server.kubeconfig(&certs, dir.path());
    let run = |more: &str| migrate(&etcd, &format!("{APPLY} --confirm-apiserver {more}"));
    let home = |b: Bin| b.env("HOME", "/nonexistent");
    let with = |path: &Path| home(run("--kubeconfig").arg(path)).run();
    says("name a kubeconfig: --kubeconfig /etc/kubernetes/admin.conf")
        .helps(&home(run("")).run(), |_| with(&one));
    let other = private(&dir, "other", "apiVersion: v1\nkind: Config\n");
    let both = format!("{}:{}", one.display(), other.display());
    let several = home(run("")).env("KUBECONFIG", &both).run();
    says("kubectl config view --flatten --raw writes one; name it with --kubeconfig").helps(
        &several,
        |_| {
            let mut command = std::process::Command::new(kubectl());
            command.env_clear().env("KUBECONFIG", &both).env("HOME", dir.path());
            let done = command.args(["config", "view", "--flatten", "--raw"]).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            with(&private(&dir, "flat", std::str::from_utf8(&done.stdout).unwrap()))
        },
    );
    let text = std::fs::read_to_string(&one).unwrap();
    let lost =
        private(&dir, "lost", &text.replace("current-context: it\n", "current-context: x\n"));
    let hint = says("--context chooses one of those that `kubectl config get-contexts` lists");
    hint.helps(&with(&lost), |_| {
        let mut command = std::process::Command::new(kubectl());
        command.env_clear().env("KUBECONFIG", &lost).env("HOME", dir.path());
        let done = command.args(["config", "get-contexts", "-o", "name"]).output().unwrap();
        let names = String::from_utf8(done.stdout).unwrap();
        let name = names.lines().next().unwrap();
        home(run(&format!("--context {name} --kubeconfig")).arg(&lost)).run()
    });
}

/// `--confirm-apiserver`: every server that etcd knows of, asked by itself.
#[test]
fn api_servers_that_confirm() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let etcd = filled();
    let file = std::fs::read(corpus::private_config("p1-secretbox")).unwrap();
    let server = |host: &'static str, file: Vec<u8>| {
        ApiServer::start(&certs, move |_| Response::new(200, metrics(host, &file)))
    };
    let (first, second) = (server("cp-1", file.clone()), server("cp-2", file.clone()));
    let behind = server("cp-2", b"old".to_vec());
    let older = ApiServer::start(&certs, |_| {
        Response::new(200, "kubernetes_build_info{git_version=\"v1.29.3\"} 1\n")
    });
    let kubeconfig = first.kubeconfig(&certs, dir.path());
    let run = |words: &str| {
        let words = format!("{APPLY} {words} --confirm-apiserver --kubeconfig");
        migrate(&etcd, &words).arg(&kubeconfig).run()
    };
    let all = |of: &[&ApiServer]| {
        run(&of.iter().map(|s| format!("--apiserver {}", s.url)).collect::<Vec<_>>().join(" "))
    };
    lease(&etcd, "cp-1", 2);
    lease(&etcd, "cp-2", 2);
    let name = says("name each one's own address with --apiserver");
    name.helps(&all(&[&first]), |_| all(&[&first, &second]));
    says("copy the file to it, and wait until it has loaded it or restart it")
        .helps(&all(&[&first, &behind]), |_| all(&[&first, &second]));
    says("name addresses that answer with --apiserver, once for each")
        .helps(&run(&format!("--apiserver {} --apiserver https://127.0.0.1:1", first.url)), |_| {
            all(&[&first, &second])
        });
    let same = corpus::private_config("p1-secretbox");
    says("compare the files of all of them with --confirm-config instead")
        .helps(&all(&[&first, &older]), |_| {
            migrate(&etcd, &format!("{APPLY} --confirm-config {}", same.display())).run()
        });
}

/// `--canary`: servers that do not say what they have loaded.
#[test]
fn api_servers_that_are_shown_a_canary() {
    let certs = Certs::new();
    let dir = tempfile::tempdir().unwrap();
    let (etcd, elsewhere) = (filled(), filled());
    let file = corpus::private_config("p1-secretbox");
    let server = older(&certs, &etcd, file.clone(), &[1]);
    let other = older(&certs, &elsewhere, file, &[2]);
    let kubeconfig = server.kubeconfig(&certs, dir.path());
    let run = |words: &str| {
        let words = format!("{APPLY} {words} --confirm-apiserver --kubeconfig");
        migrate(&etcd, &words).arg(&kubeconfig).run()
    };
    says("or --canary has each read a made-up object").helps(&run(""), |_| run("--canary"));
    says("name this cluster's API servers with --apiserver or --context").helps(
        &run(&format!("--canary --apiserver {}", other.url)),
        |_| {
            let at = |etcd: &Etcd, server: &ApiServer| {
                let words =
                    format!("{APPLY} --canary --confirm-apiserver --apiserver {}", server.url);
                migrate(etcd, &format!("{words} --kubeconfig")).arg(&kubeconfig).run()
            };
            // Or its etcd.
            at(&elsewhere, &other).ok();
            at(&etcd, &server)
        },
    );
    let two = format!(
        "{}- resources: [widgets.example.com]\n  providers:\n  - identity: {{}}\n",
        providers(
            "secrets",
            "secretbox: {keys: [{name: k, secret: \
                  YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=}]}\nidentity: {}"
        )
    );
    let two = private(&dir, "two.yaml", &two);
    let plain = filled();
    let run = |words: &str| {
        let run = bin().words("migrate --encryption-config").arg(&two).args(plain.args());
        run.words(APPLY).words(words)
    };
    let confirm = run("--canary --confirm-apiserver --kubeconfig").arg(&kubeconfig).run();
    says("compare the files of all API servers with --confirm-config instead")
        .helps(&confirm, |_| run("--confirm-config").arg(&two).run());
}

#[test]
fn snapshots_with_other_keys() {
    let db = corpus::db("p3-aesgcm");
    let dir = tempfile::tempdir().unwrap();
    let new = private(&dir, "new.yaml", &providers("secrets", "identity: {}"));
    let run = |out: &str, more: &str| {
        let run = bin().words("rewrite --write-config").arg(&new).arg("--snapshot").arg(&db);
        run.arg("--out").arg(dir.path().join(out)).words(more).run()
    };
    let (old, gcm) = (corpus::private_config("p1-secretbox"), corpus::private_config("p3-aesgcm"));
    let old = format!("--encryption-config {}", old.display());
    says("as another --encryption-config, or copy them as they are with --keep-unreadable").helps(
        &run("a.db", &old),
        |_| {
            run("b.db", &format!("{old} --keep-unreadable")).code(4);
            run("c.db", &format!("{old} --encryption-config {}", gcm.display()))
        },
    );
    says("choose another name; nothing is overwritten")
        .helps(&run("c.db", &format!("{old} --encryption-config {}", gcm.display())), |_| {
            run("d.db", &format!("{old} --encryption-config {}", gcm.display()))
        });
}

#[test]
fn manifests() {
    let db = corpus::db("p0-plaintext");
    let dir = tempfile::tempdir().unwrap();
    let run = |words: &str| bin().words(words).arg("--snapshot").arg(&db).run();
    let out = |name: &str| dir.path().join(name).display().to_string();
    says("atrest export --restore --out DIR, or atrest restore plan").helps(
        &run("export --keep-ips"),
        |_| {
            run("restore plan --keep-ips").ok();
            run(&format!("export --restore --keep-ips --out {}", out("restored")))
        },
    );
    run(&format!("export --out {}", out("tree"))).ok();
    says("choose an empty directory, or replace files with --force").helps(
        &run(&format!("export --out {}", out("tree"))),
        |_| {
            run(&format!("export --out {}", out("other"))).ok();
            run(&format!("export --force --out {}", out("tree")))
        },
    );
}

/// A server of `serve` that runs has done what was wanted.
fn serves(options: &str) -> Done {
    let snapshot = corpus::db("p0-plaintext");
    let served = Served::start(bin().arg("--snapshot").arg(snapshot), options);
    assert!(served.kubectl_ok("get namespaces -o name").contains("namespace/default"));
    bin().arg("version").run()
}

#[test]
fn sockets() {
    let db = corpus::db("p0-plaintext");
    let printed = bin().words("serve --listen 0.0.0.0:0 --snapshot").arg(&db).run();
    says("listen on 127.0.0.1, or add --allow-remote").helps(&printed, |_| {
        // That another machine gets in is not to be tried out here.
        serves("--listen 127.0.0.1:0 --allow-remote").ok();
        serves("--listen 127.0.0.1:0")
    });
}

/// `--all-objects`: what is said of etcd, and a file of another run.
#[test]
fn every_object_through_the_api_server() {
    let memory = Memory::with([(all_objects::secret("s"), true)]);
    let (_files, _server, kubeconfig) = all_objects::served(&memory);
    let run = |words: &str| all_objects::run(&kubeconfig, words).run();
    says("--via-api has the same written without it").helps(
        &bin()
            .words("migrate --storage-version-migration --all-objects --resource secrets")
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .run(),
        |_| run("--resource secrets"),
    );
    says("say --via-api or --storage-version-migration, too")
        .helps(&bin().words("migrate --all-objects --resource secrets").run(), |_| {
            run("--resource secrets")
        });
    says("leave it out; or leave --all-objects out, and etcd says which objects are stale")
        .helps(&run("--resource secrets --prefix /x"), |_| run("--resource secrets"));
    let dir = tempfile::tempdir().unwrap();
    let file = private(&dir, "progress.json", "{}");
    let with = |file: &Path| run(&format!("--resource secrets --progress {}", file.display()));
    says("name another file with --progress, or delete that one")
        .helps(&with(&file), |_| with(&dir.path().join("new.json")));
}
