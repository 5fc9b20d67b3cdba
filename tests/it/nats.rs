//! `--kine nats://…`: the same answers from a bucket of NATS as from an `SQLite` file with the same
//! rows.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::Value;

use crate::datastore::{PATIENT, answer, refused};
use crate::support::bin::Bin;
use crate::support::database::PASSWORD;
use crate::support::nats::{Row, Server};
use crate::support::{bin, corpus, secret};

/// As the user that may read. What stands alone in an address would be a token.
fn with_password() -> Bin {
    bin().words("--user k3s").env("NATS_PASSWORD", PASSWORD)
}

fn scan(url: &str) -> Bin {
    with_password().words("scan --kine").arg(url).words(PATIENT)
}

/// Compares a file and a bucket in every one of these commands.
fn compare(server: &Server, file: &Path, name: &str, commands: &[&str]) {
    let before = server.checksum(name);
    let url: Vec<OsString> = ["--kine".to_owned(), server.url("", name)]
        .into_iter()
        .chain(PATIENT.split(' ').map(str::to_owned))
        .map(OsString::from)
        .collect();
    let shown = format!("nats://127.0.0.1:{}?bucket={name}", server.port);
    for words in commands {
        let mut expected = answer(bin(), words, &["--kine".into(), file.into()]);
        let got = answer(with_password(), words, &url);
        if let Some(Value::String(error)) = expected.0.first_mut() {
            *error = error.replace(&file.display().to_string(), &shown);
        }
        assert!(got == expected, "differs: {words}\n{got:?}\n{expected:?}");
    }
    assert_eq!(server.checksum(name), before, "something was written");
    server.unread(name);
}

#[test]
fn the_same_entries_as_from_the_file() {
    let Some(server) = Server::get() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (path, c) = crate::kine::kine(dir.path(), "p1b-partial-migration");
    // Subjects have no empty parts, and dots of their own.
    for name in ["/registry/secretsÄ/x", "/registry/a.b//c/", "/registry/secrets-x/y", "007/x", "7"]
    {
        c.execute(
            "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
             VALUES (CAST(? AS TEXT), 1, 0, 0, 0, 60, '{}')",
            [name],
        )
        .unwrap();
    }
    server.load("entries", &c);
    let config = corpus::private_config("p1-secretbox");
    let config = config.display();
    let commands = [
        "scan -w json --list --all-resources".to_owned(),
        "scan -w json --list --all-resources --prefix /".to_owned(),
        format!("scan -w json --list --verify --encryption-config {config}"),
        "scan -w json --list --resource secrets,configmaps -n team-a -n team-b".to_owned(),
        "scan -w json --prefix /nowhere".to_owned(),
        format!("get secrets/default/login1 --reveal -w json --encryption-config {config}"),
        "get secrets/default/none -w json".to_owned(),
        format!("export -w json --resource secrets --encryption-config {config}"),
        format!("keys -w json --encryption-config {config}"),
        format!("posture -w json --encryption-config {config}"),
    ];
    let commands: Vec<_> = commands.iter().map(String::as_str).collect();
    compare(server, &path, "entries", &commands);
}

/// The past of an etcd as kine's rows: every second revision, because a deletion takes two of a
/// bucket's; without the copies that kine keeps in databases of SQL.
fn past(path: &Path) -> Connection {
    let c = crate::past::kine(path);
    c.execute_batch(
        "BEGIN;
         UPDATE kine SET id = -2 * id, create_revision = 2 * create_revision,
            prev_revision = 2 * prev_revision;
         UPDATE kine SET id = -id;
         UPDATE kine SET old_value = NULL WHERE deleted = 0;
         COMMIT",
    )
    .unwrap();
    c
}

#[test]
fn the_same_past_as_from_the_file() {
    let Some(server) = Server::get() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let c = past(&path);
    let commands = [
        "history secrets/ configmaps/ -w jsonl",
        "scan -w json --list --resource secrets,configmaps",
        "scan -w json --list --resource secrets,configmaps --revision 1200",
        "scan -w json --resource secrets --revision 99999",
        "get secrets/team-b/sb-1 -w json --revision 1200",
        "get secrets/team-b/sb-1 -w json",
        "export -w json --resource configmaps --revision 1200",
        "keys -w json",
    ];
    let past = server.load("past", &c);
    // A last deletion takes one more revision of the bucket.
    c.execute(
        "INSERT OR IGNORE INTO kine VALUES (?1, 'gap-' || ?1, 0, 1, 0, 0, 0, NULL, NULL)",
        [past.last],
    )
    .unwrap();
    compare(server, &path, "past", &commands);
    residue(server, &path, "past");
    for at in ["", "@1200"] {
        let done = with_password()
            .words("diff")
            .arg(format!("kine:{}{at}", path.display()))
            .arg(format!("kine:{}{at}", server.url("", "past")))
            .words(PATIENT)
            .words("--resource configmaps")
            .run();
        done.ok();
    }
    // kine's compaction removes nothing from a bucket; older revisions are refused all the same.
    let next = past.last + 1;
    c.execute(
        "INSERT INTO kine VALUES (?, 'compact_rev_key_apiserver', 1, 0, 0, 0, 0,
            CAST('2|1210' AS BLOB), NULL)",
        [next],
    )
    .unwrap();
    c.execute("INSERT INTO kine VALUES (1, 'compact_rev_key', 1, 0, 0, 1210, 0, NULL, NULL)", [])
        .unwrap();
    server.load("compacted", &c);
    compare(server, &path, "compacted", &commands);
    residue(server, &path, "compacted");
}

/// Of the file, only what its rows hold.
fn residue(server: &Server, file: &Path, name: &str) {
    let run = |run: Bin, source: &str, more: &str| {
        run.words("residue -w json --list --kine").arg(source).words(more).run().ok().json()
    };
    let expected = run(bin(), file.to_str().unwrap(), "");
    let got = run(with_password(), &server.url("", name), PATIENT);
    let of_rows = |found: &Value, place: &str| -> Vec<Value> {
        let all = found["findings"].as_array().unwrap();
        all.iter().filter(|f| f["where"] == place).cloned().collect()
    };
    for place in ["superseded-revision", "kine-old-value"] {
        let found = of_rows(&got, place);
        assert!(found == of_rows(&expected, place), "{place} differs");
    }
    assert!(!of_rows(&got, "superseded-revision").is_empty());
    assert_eq!(got["head"], expected["head"]);
    let said = got["not_examined"].to_string();
    assert!(["block files", "replicas", "backups"].iter().all(|w| said.contains(w)), "{said}");
    assert!(got["remedy"].to_string().contains("--max-msgs-per-subject=1"), "{}", got["remedy"]);
}

fn row(id: i64, create: i64, prev: i64, text: &str) -> Row {
    Row {
        id,
        name: "/registry/secrets/default/busy".to_owned(),
        created: create == 0,
        create_revision: create,
        prev_revision: prev,
        value: secret(text).into_bytes(),
        ..Row::default()
    }
}

/// A bucket keeps few revisions of a key: what it dropped is not what was never there.
#[test]
fn what_the_bucket_dropped_is_told() {
    let Some(server) = Server::get() else { return };
    let mut writer = server.bucket("short", 2, 1);
    let quiet = Row { name: "/registry/secrets/default/quiet".to_owned(), ..row(1, 0, 0, "q") };
    writer.put(&quiet);
    for (id, create, prev) in [(2, 0, 0), (3, 2, 2), (4, 2, 3), (5, 2, 4)] {
        writer.put(&row(id, create, prev, &format!("v{id}")));
    }
    let late = Row { name: "/registry/secrets/default/late".to_owned(), ..row(6, 0, 0, "l") };
    writer.put(&late);
    writer.finish();
    let url = server.url("", "short");
    let at = |revision: &str| scan(&url).words("--list -w json --revision").arg(revision).run();
    for (revision, there) in [("4", 2), ("5", 2), ("6", 3)] {
        let done = at(revision).ok();
        assert_eq!(done.json()["totals"]["entries"], there, "{revision}: {done}");
    }
    // At 1 it was not there yet, which nothing says any more.
    for (revision, there) in [("3", 1), ("2", 1), ("1", 1)] {
        let done = at(revision).code(4);
        assert_eq!(done.json()["totals"]["entries"], there, "{revision}: {done}");
        let told = format!("how it was stored at revision {revision} is no longer in the bucket");
        assert!(done.stderr.contains(&told) && done.stderr.contains("default/busy"), "{done}");
        assert!(!done.stderr.contains("default/late"), "it came later: {done}");
    }
    // What the remedy says removes what is superseded, and a deletion's copy of the last value.
    let deleted = Row { deleted: true, created: false, ..row(7, 2, 5, "v5") };
    writer.put(&deleted);
    writer.finish();
    let findings = || {
        let run = with_password().words("residue -w json --list --kine").arg(&url).words(PATIENT);
        run.run().ok().json()["findings"].as_array().unwrap().len()
    };
    assert_eq!(findings(), 1, "the copy");
    writer.keep(1);
    assert_eq!(findings(), 0);
}

#[test]
fn messages_that_kine_did_not_write() {
    let Some(server) = Server::get() else { return };
    let mut writer = server.bucket("foreign", 10, 1);
    writer.put(&row(1, 0, 0, "v"));
    writer.raw("/registry/secrets/default/plain", b"not compressed");
    writer.raw("/registry/pods/default/other", b"nobody asks for it");
    writer.finish();
    let done = scan(&server.url("", "foreign")).words("-w json").run().code(4);
    assert_eq!(done.json()["totals"]["entries"], 1, "{done}");
    assert!(done.stderr.contains("revision 2"), "{done}");
    assert!(!done.stderr.contains("revision 3"), "{done}");
}

#[test]
fn what_cannot_be_read_is_told() {
    let Some(server) = Server::get() else { return };
    server.bucket("told", 10, 1);
    let url = |user: &str, bucket: &str| server.url(user, bucket);
    refused(scan(&url("", "told")), "no entry under /registry/");
    scan(&url("", "told")).words("--allow-empty").run().ok();
    let said = refused(scan(&url("", "nowhere")), "does not exist");
    assert!(said.stderr.contains("bucket=NAME"), "{said}");
    let alone = |url: &str| bin().words("scan --allow-empty --kine").arg(url).words(PATIENT);
    let who = |user: &str| alone(&url("", "told")).arg("--user").arg(format!("{user}:{PASSWORD}"));
    for wrong in ["k3s:hunter2", "hunter2"] {
        refused(alone(&url(wrong, "told")), "refuses the user");
    }
    refused(alone(&url("", "told")), "refuses the user");
    refused(who("stranger"), "may not be read by this user");
    refused(who("elsewhere"), "has no JetStream for this user");
    let done = alone(&url(&format!("k3s:{PASSWORD}"), "told")).run().ok();
    assert!(done.stderr.contains("can see the password on the command line"), "{done}");
    // What is given counts more than what the address says.
    scan(&url("x:y", "told")).words("--allow-empty").run().ok();
    for (option, value) in [("--insecure-transport=false", ""), ("--keepalive-time", "1s")] {
        let run = scan(&url("", "told")).arg(option);
        let run = if value.is_empty() { run } else { run.arg(value) };
        run.run().fails(2).says("a database server is read");
    }
}

#[test]
fn addresses_that_name_no_server() {
    for (url, what) in [
        // Nobody may listen on it, and no port that others get is this one.
        (
            "nats://u:hunter2@127.0.0.1:1?noEmbed",
            "cannot connect to nats://127.0.0.1:1?bucket=kine",
        ),
        ("nats://hunter2@127.0.0.1:1,nats://127.0.0.1:1", "cannot connect to"),
        ("nats://u:hunter2@h:x", "the port is no number"),
        ("nats://u:hunter2@h?tls=hunter2", "`tls`"),
        ("nats://u:hunter2@h?bucket=a.b", "its bucket is no name"),
        ("nats://?dontListen", "listens nowhere"),
        ("nats://u:hunter2@h?credsFile=/nonexistent", "cannot use /nonexistent"),
        ("nats://?contextFile=/nonexistent", "cannot use /nonexistent"),
    ] {
        refused(bin().words("scan --kine").arg(url).words(PATIENT), what);
    }
}

#[test]
fn tls() {
    let (Some(plain), Some(server)) = (Server::get(), Server::tls()) else { return };
    let certs = &server.certs;
    let url = server.url("", "none");
    let client =
        |run: Bin| run.arg("--cert").arg(&certs.client.cert).arg("--key").arg(&certs.client.key);
    // Whoever gets as far as the bucket is connected.
    let connected = |run: Bin| {
        refused(run, "does not exist");
    };
    connected(client(scan(&url)).arg("--cacert").arg(&certs.ca));
    connected(client(scan(&url)).arg("--insecure-skip-tls-verify"));
    // The system's authorities did not sign it.
    refused(scan(&url), "no TLS connection");
    refused(client(scan(&url)).arg("--cacert").arg(&certs.other_ca), "no TLS connection");
    refused(scan(&url).arg("--cacert").arg(&certs.ca), "connect");
    let said =
        refused(scan(&plain.url("", "none")).arg("--cacert").arg(&certs.ca), "does not offer TLS");
    assert!(said.stderr.contains("give no certificates"), "{said}");
}

/// A context of the `nats` program in place of an address.
#[test]
fn a_context() {
    let Some(server) = Server::get() else { return };
    server.bucket("context", 10, 1);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("k3s.json");
    let text = format!(
        r#"{{"description": "", "url": "nats://127.0.0.1:{}", "user": "k3s", "password": "{PASSWORD}",
            "token": "", "creds": ""}}"#,
        server.port
    );
    fs::write(&file, text).unwrap();
    let url = |bucket: &str| format!("nats://?contextFile={}&bucket={bucket}", file.display());
    bin().words("scan --allow-empty --kine").arg(url("context")).words(PATIENT).run().ok();
    refused(bin().words("scan --kine").arg(url("nowhere")).words(PATIENT), "does not exist");
    fs::write(&file, r#"{"url": "nats://127.0.0.1:1", "nsc": "hunter2"}"#).unwrap();
    refused(bin().words("scan --kine").arg(url("context")).words(PATIENT), "nsc");
    fs::write(&file, "hunter2").unwrap();
    refused(bin().words("scan --kine").arg(url("context")).words(PATIENT), "cannot use");
}

/// k3s's own settings: the address and TLS files.
#[test]
fn a_profile() {
    let Some(server) = Server::tls() else { return };
    let root = tempfile::tempdir().unwrap();
    let file = |path: &str, text: &[u8]| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let url = server.url(&format!("k3s:{PASSWORD}"), "none");
    let config = format!(
        "datastore-endpoint: '{url}'\ndatastore-cafile: /etc/db.crt\n\
         datastore-certfile: /etc/client.crt\ndatastore-keyfile: /etc/client.key\n"
    );
    file("etc/rancher/k3s/config.yaml", config.as_bytes());
    for (name, from) in [
        ("etc/db.crt", &server.certs.ca),
        ("etc/client.crt", &server.certs.client.cert),
        ("etc/client.key", &server.certs.client.key),
    ] {
        file(name, &fs::read(from).unwrap());
    }
    let run = |words: &str| bin().words(words).words("--profile k3s --root").arg(root.path());
    refused(run("scan").words(PATIENT), "?bucket=none does not exist");
    let shown = run("profile").run().ok();
    assert!(shown.text().contains("db.crt") && !shown.text().contains(PASSWORD), "{shown}");
}
