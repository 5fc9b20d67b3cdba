//! `--kine URL`: the same answers from `PostgreSQL` and `MariaDB` as from an `SQLite` file with the
//! same rows.

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::bin::{Bin, Done};
use crate::support::database::{Kind, PASSWORD, Server};
use crate::support::{bin, corpus};

/// `atrest`, given the password of the user in the address, and time.
fn with_password(server: &Server) -> Bin {
    let variable = match server.kind {
        Kind::Postgres => "PGPASSWORD",
        Kind::MariaDb => "MYSQL_PWD",
    };
    bin().env(variable, PASSWORD)
}

/// Waits that do not end on a loaded machine.
pub const PATIENT: &str = "--dial-timeout 60s --command-timeout 60s";

/// What a command prints, without what differs between any two sources.
pub fn answer(run: Bin, words: &str, source: &[OsString]) -> (Vec<Value>, Option<i32>) {
    let done = run.words(words).args(source).run();
    assert!(!done.stderr.contains(PASSWORD), "the password is shown");
    let mut all = if done.stdout.is_empty() {
        vec![Value::from(done.stderr.lines().next().unwrap_or_default())]
    } else if words.contains("jsonl") {
        done.jsonl()
    } else {
        vec![done.json()]
    };
    for one in &mut all {
        if let Some(source) = one.get_mut("source") {
            assert_eq!(source["kind"], "kine", "{words}");
            source["location"].take();
        }
        // What only the files have.
        for field in ["remedy", "not_examined"] {
            if let Some(value) = one.get_mut(field) {
                value.take();
            }
        }
    }
    (all, done.code)
}

/// Compares a file and a server in every one of these commands.
fn compare(server: &Server, file: &Path, name: &str, commands: &[&str]) {
    let before = server.checksum(name);
    let url: Vec<OsString> = ["--kine".to_owned(), server.url("k3s", name)]
        .into_iter()
        .chain(PATIENT.split(' ').map(str::to_owned))
        .map(OsString::from)
        .collect();
    for words in commands {
        let mut expected = answer(bin(), words, &["--kine".into(), file.into()]);
        let got = answer(with_password(server), words, &url);
        if let Some(Value::String(error)) = expected.0.first_mut() {
            let shown = server.bare_url("", name).replace("//@", "//");
            *error = error.replace(&file.display().to_string(), &shown);
        }
        assert!(got == expected, "{:?} differs: {words}\n{:#?}\n{:#?}", server.kind, got, expected);
    }
    assert_eq!(server.checksum(name), before, "{:?}: something was written", server.kind);
}

#[test]
fn the_same_entries_as_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, c) = crate::kine::kine(dir.path(), "p1b-partial-migration");
    // Names that collations order in another way than bytes, beside those of a range.
    for name in ["/registry/secretsÄ/x", "/registry/Secrets/x", "/registry/secrets-x/y", "007"] {
        c.execute(
            "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
             VALUES (CAST(? AS TEXT), 1, 0, 0, 0, 60, '{}')",
            [name],
        )
        .unwrap();
    }
    let config = corpus::private_config("p1-secretbox");
    let config = config.display();
    let commands = [
        "scan -w json --list --all-resources".to_owned(),
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
    for server in Server::all() {
        server.load("entries", &c);
        compare(server, &path, "entries", &commands);
    }
}

#[test]
fn the_same_past_as_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let c = crate::past::kine(&path);
    let commands = [
        "history secrets/ configmaps/ -w jsonl",
        "scan -w json --list --resource secrets,configmaps --revision 600",
        "scan -w json --resource secrets --revision 99999",
        "get secrets/team-b/sb-1 -w json --revision 600",
        "get secrets/team-b/sb-1 -w json",
        "export -w json --resource configmaps --revision 600",
        "keys -w json",
    ];
    for server in Server::all() {
        server.load("past", &c);
        compare(server, &path, "past", &commands);
        residue(server, &path, "past");
        // The two are the same, object by object, and so is one revision of both.
        for at in ["", "@600"] {
            let done = with_password(server)
                .words("diff")
                .arg(format!("kine:{}{at}", path.display()))
                .arg(format!("kine:{}{at}", server.url("k3s", "past")))
                .words(PATIENT)
                .words("--resource configmaps")
                .run();
            done.ok();
        }
    }
    // kine compacts superseded rows away, and the row behind each keeps a copy of its value.
    c.execute(
        "DELETE FROM kine WHERE id IN (SELECT prev_revision FROM kine WHERE prev_revision <> 0
            AND id <= 650) OR (deleted <> 0 AND id <= 650)",
        [],
    )
    .unwrap();
    c.execute("INSERT INTO kine VALUES (1, 'compact_rev_key', 1, 0, 0, 650, 0, NULL, NULL)", [])
        .unwrap();
    for server in Server::all() {
        server.load("compacted", &c);
        compare(server, &path, "compacted", &commands);
        residue(server, &path, "compacted");
    }
}

/// Of the file, only what its rows hold.
fn residue(server: &Server, file: &Path, name: &str) {
    let run = |run: Bin, source: &str, more: &str| {
        run.words("residue -w json --list --kine").arg(source).words(more).run().ok().json()
    };
    let expected = run(bin(), file.to_str().unwrap(), "");
    let got = run(with_password(server), &server.url("k3s", name), PATIENT);
    let of_rows = |found: &Value| -> Vec<Value> {
        let all = found["findings"].as_array().unwrap();
        let of_row = |f: &&Value| {
            ["superseded-revision", "kine-old-value"].contains(&f["where"].as_str().unwrap())
        };
        all.iter().filter(of_row).cloned().collect()
    };
    assert!(!of_rows(&got).is_empty());
    assert!(of_rows(&got) == of_rows(&expected), "{:?}: residue differs", server.kind);
    assert_eq!(got["head"], expected["head"]);
    // What nobody sees by SQL is named, with what removes it.
    let said = got["not_examined"].to_string();
    let (removes, remedy) = match server.kind {
        Kind::Postgres => (["VACUUM FULL", "write-ahead log"], "VACUUM FULL kine"),
        Kind::MariaDb => (["OPTIMIZE TABLE", "PURGE BINARY LOGS"], "OPTIMIZE TABLE kine"),
    };
    assert!(removes.iter().all(|words| said.contains(words)), "{said}");
    assert!(said.contains("replicas"), "{said}");
    assert!(got["remedy"].to_string().contains(remedy), "{}", got["remedy"]);
}

fn scan(server: &Server, url: &str) -> Bin {
    with_password(server).words("scan --kine").arg(url).words(PATIENT)
}

/// Fails, says what, names a way out, and shows no password.
pub fn refused(run: Bin, what: &str) -> Done {
    let done = run.run().fails_with_hint(1);
    assert!(done.stderr.contains(what), "not {what:?}: {done}");
    assert!(!done.stderr.contains("hunter2") && !done.stderr.contains(PASSWORD), "{done}");
    done
}

#[test]
fn what_cannot_be_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for server in Server::all() {
        server.database("told");
        server.sql(server.admin(), "CREATE DATABASE hollow");
        server.sql(server.admin(), "CREATE DATABASE foreign_one");
        server.sql("foreign_one", "CREATE TABLE kine (id INTEGER, name VARCHAR(9))");
        match server.kind {
            Kind::Postgres => {}
            Kind::MariaDb => {
                for name in ["hollow", "foreign_one"] {
                    server.sql(name, &format!("GRANT SELECT ON {name}.* TO k3s@'%'"));
                }
            }
        }
        let url = |user: &str, name: &str| server.url(user, name);
        refused(scan(server, &url("k3s", "hollow")), "has no table `kine`");
        refused(scan(server, &url("k3s", "foreign_one")), "it has no column");
        refused(scan(server, &url("stranger", "told")), "may not read");
        let wrong = url("k3s:hunter2", "told");
        let said = refused(scan(server, &wrong), "refuses the user \"k3s\"");
        assert!(said.stderr.contains("can see the password on the command line"), "{said}");
        // The file counts more than what the address says.
        let file = dir.path().join("password");
        fs::write(&file, format!("{PASSWORD}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let empty = |run: Bin| run.words("--allow-empty").run().ok();
        empty(
            bin().words("scan --kine").arg(&wrong).words(PATIENT).arg("--password-file").arg(&file),
        );
        empty(
            bin()
                .words("scan --kine")
                .arg(url("x:y", "told"))
                .words(PATIENT)
                .arg("--user")
                .arg(format!("k3s:{PASSWORD}")),
        );
        // An empty table with nothing in it is not all well.
        refused(scan(server, &url("k3s", "told")), "no entry under /registry/");
        // Variables of an etcd are not for this server.
        empty(
            scan(server, &url("k3s", "told"))
                .env("ETCDCTL_USER", "a:b")
                .env("ETCDCTL_CACERT", "/none"),
        );
        if server.kind == Kind::Postgres {
            refused(scan(server, &url("k3s", "nowhere")), "does not exist");
        } else {
            // It tells nobody which databases there are.
            refused(scan(server, &url("k3s", "nowhere")), "may not read");
        }
        for (option, value) in [("--insecure-transport=false", ""), ("--keepalive-time", "1s")] {
            let run = scan(server, &url("k3s", "told")).arg(option);
            let run = if value.is_empty() { run } else { run.arg(value) };
            run.run().fails(2).says("a database server is read");
        }
    }
}

#[test]
fn tls() {
    for server in Server::all() {
        server.database("tls");
        let certs = &server.certs;
        let plain = server.url("tlsonly", "tls");
        let bare = server.bare_url("tlsonly", "tls");
        let told = match server.kind {
            Kind::Postgres => "demands TLS",
            // It says no more than that it does not take the user.
            Kind::MariaDb => "refuses the user",
        };
        refused(scan(server, &plain), told);
        let ok = |run: Bin| {
            run.words("--allow-empty").run().ok();
        };
        let verified = |ca: &Path| scan(server, &bare).arg("--cacert").arg(ca);
        ok(verified(&certs.ca));
        refused(verified(&certs.other_ca), "no TLS connection");
        ok(verified(&certs.other_ca).arg("--insecure-skip-tls-verify"));
        refused(verified(&certs.server.key), "holds no certificate");
        let (unverified, full) = match server.kind {
            Kind::Postgres => ("sslmode=require", "sslmode=verify-full"),
            Kind::MariaDb => ("tls=skip-verify", "tls=true"),
        };
        ok(scan(server, &format!("{bare}?{unverified}")));
        // The system's authorities did not sign it.
        refused(scan(server, &format!("{bare}?{full}")), "no TLS connection");
        if server.kind == Kind::Postgres {
            let by_url = format!("{bare}?{full}&sslrootcert={}", certs.ca.display());
            ok(scan(server, &by_url));
            // A certificate in place of a password.
            let url = server.bare_url("root", "tls");
            let client = |run: Bin| {
                run.arg("--cert").arg(&certs.client.cert).arg("--key").arg(&certs.client.key)
            };
            let run = bin().words("scan --kine").arg(&url).words(PATIENT);
            ok(client(run).arg("--cacert").arg(&certs.ca));
            refused(scan(server, &format!("{url}?sslmode=require")), "refuses the user");
            let both = format!("{bare}?sslmode=disable");
            scan(server, &both).arg("--cacert").arg(&certs.ca).run().fails(2).says("switches off");
        }
    }
}

/// A server of `PostgreSQL`'s protocol that has no TLS, and says so with one byte.
#[test]
fn a_server_without_tls() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 8];
        stream.read_exact(&mut asked).unwrap();
        stream.write_all(b"N").unwrap();
        // Until it has been read.
        let _ = stream.read(&mut asked);
    });
    let run = bin().words("scan --kine").arg(format!("postgres://u@127.0.0.1:{port}/d"));
    let done = refused(run.words(PATIENT), "does not offer TLS");
    assert!(done.stderr.contains("sslmode=disable"), "{done}");
    serving.join().unwrap();
}

#[test]
fn nobody_there() {
    // Nobody may listen on it, and no port that others get is this one.
    let port = 1;
    for url in [
        format!("postgres://u:hunter2@127.0.0.1:{port}/d?sslmode=disable"),
        format!("mysql://u:hunter2@tcp(127.0.0.1:{port})/d"),
    ] {
        refused(bin().words("scan --kine").arg(&url).words(PATIENT), "cannot connect to");
    }
    for (url, what) in [
        ("https://u:hunter2@h:2379", "kine's table in https is not read"),
        ("postgres://u:hunter2@h:x/d", "the port is no number"),
        ("postgres://u:hunter2@h/d?sslpassword=hunter2", "`sslpassword`"),
        ("mysql://u:hunter2@tcp(h)/d?tls=hunter2", "tls is none of"),
        ("postgres://h/d", "it names no user"),
    ] {
        refused(bin().words("scan --kine").arg(url), what);
    }
}

/// k3s's own settings: address and TLS files; an option counts more.
#[test]
fn a_profile_with_a_datastore() {
    for server in Server::all() {
        server.database("profiled");
        let root = TempDir::new().unwrap();
        let file = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let url = server.bare_url(&format!("tlsonly:{PASSWORD}"), "profiled");
        file(
            "etc/rancher/k3s/config.yaml",
            &format!("datastore-endpoint: '{url}'\ndatastore-cafile: /etc/db.crt\n"),
        );
        fs::copy(&server.certs.ca, root.path().join("etc/db.crt")).unwrap();
        let run = |words: &str| bin().words(words).words("--profile k3s --root").arg(root.path());
        let done = run("scan -w json --allow-empty").words(PATIENT).run().ok();
        assert_eq!(done.json()["source"]["kind"], "kine");
        assert!(!done.stderr.contains("command line"), "it does not stand there: {done}");
        let shown = run("profile").run().ok();
        assert!(shown.text().contains("db.crt") && !shown.text().contains(PASSWORD), "{shown}");
        let other = run("scan").words(PATIENT).arg("--cacert").arg(&server.certs.other_ca);
        refused(other, "no TLS connection");
    }
}

#[test]
fn a_served_api() {
    let dir = tempfile::tempdir().unwrap();
    let (path, c): (_, Connection) = crate::kine::kine(dir.path(), "p0-plaintext");
    for server in Server::all() {
        server.load("served", &c);
        let url = server.url("k3s", "served");
        let file = crate::support::served::Served::start(bin().arg("--kine").arg(&path), "");
        let run = with_password(server).arg("--kine").arg(url).words(PATIENT);
        let database = crate::support::served::Served::start(run, "");
        for path in ["/api/v1/secrets", "/api/v1/namespaces/default/configmaps"] {
            let names = |list: Value| -> Vec<String> {
                let items = list["items"].as_array().unwrap().clone();
                items.iter().map(|i| i["metadata"]["name"].to_string()).collect()
            };
            let expected = names(file.get(path));
            assert!(!expected.is_empty());
            assert_eq!(names(database.get(path)), expected, "{:?} {path}", server.kind);
        }
    }
}
