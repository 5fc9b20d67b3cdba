//! Users, passwords and tokens.

use std::time::Duration;

use crate::support::certs::Certs;
use crate::support::proxy::Proxy;
use crate::support::{Etcd, Version, bin};

/// A server with users: `root`, and `reader`, who may read Secrets only.
pub fn with_users(version: Version, certs: Option<&Certs>, args: &[&str]) -> Etcd {
    let mut builder = Etcd::builder(version);
    if let Some(certs) = certs {
        builder = builder.tls(certs);
    }
    for arg in args {
        builder = builder.arg(arg);
    }
    let etcd = builder.start();
    etcd.put("/registry/secrets/default/a", crate::support::secret("a").as_bytes());
    etcd.put("/registry/configmaps/default/a", b"k8s\0a");
    for command in [
        "user add root:toor",
        "user grant-role root root",
        "role add reader",
        "role grant-permission reader read --prefix=true /registry/secrets/",
        "user add reader:read:er",
        "user grant-role reader reader",
    ] {
        let words: Vec<_> = command.split(' ').collect();
        // 3.5 has the role from the start, 3.4 makes it here.
        let done = etcd.try_ctl(&words, b"");
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }
    etcd.ctl(&["auth", "enable"]);
    etcd
}

#[test]
fn user_and_password_are_given_as_to_etcdctl() {
    for version in [Version::V34, Version::V35] {
        let etcd = with_users(version, None, &[]);
        let scan = || bin().words("scan -w json").args(etcd.args());
        let count = |b: crate::support::bin::Bin| b.run().ok().json()["totals"]["entries"].clone();
        assert_eq!(count(scan().words("--user root:toor")), 1);
        assert_eq!(count(scan().words("--user root --password toor")), 1);
        // A colon in a password.
        assert_eq!(count(scan().words("--user reader:read:er")), 1);
        assert_eq!(count(scan().env("ETCDCTL_USER", "root:toor")), 1);
        let both = scan().env("ETCDCTL_USER", "root").env("ETCDCTL_PASSWORD", "toor");
        assert_eq!(count(both), 1);
        let wrong = scan().words("--user root:wr0ngpass").run().fails_with_hint(1);
        assert!(wrong.stderr.contains("wrong user name or password for user \"root\""), "{wrong}");
        assert!(!wrong.stderr.contains("wr0ngpass"));
        scan().words("--user nobody:toor").run().fails_with_hint(1).says("\"nobody\"");
        scan().run().fails_with_hint(1).says("demands a user");
        scan()
            .words("--user reader:read:er --resource configmaps")
            .run()
            .fails_with_hint(1)
            .says("\"reader\" may not read");
        scan().words("--user root").run().fails_with_hint(2).says("without a password");
    }
}

#[test]
fn the_common_name_of_a_certificate_is_a_user() {
    let certs = Certs::new();
    let etcd = with_users(Version::V35, Some(&certs), &[]);
    let done = bin().words("scan -w json").args(etcd.args()).run().ok();
    assert_eq!(done.json()["totals"]["entries"], 1);
}

#[test]
fn credentials_that_nobody_asks_for_do_no_harm() {
    let etcd = Etcd::plain(Version::V35);
    bin()
        .words("scan --allow-empty --user root:toor")
        .args(etcd.args())
        .run()
        .ok()
        .says("authentication disabled");
}

#[test]
fn an_expired_token_is_renewed_in_the_middle_of_a_scan() {
    expires_in_the_middle(&["--auth-token-ttl=1"]);
}

/// A signed token, which etcd does not remember, says itself when it ends.
#[test]
fn an_expired_signed_token_is_renewed_in_the_middle_of_a_scan() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (private, public) = (path("private.pem"), path("public.pem"));
    let openssl = |args: &[&str]| {
        let done = std::process::Command::new("openssl").args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    openssl(&["genrsa", "-out", &private, "2048"]);
    openssl(&["rsa", "-in", &private, "-pubout", "-out", &public]);
    let token =
        format!("--auth-token=jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=2s");
    expires_in_the_middle(&[&token]);
}

fn expires_in_the_middle(args: &[&str]) {
    let etcd = with_users(Version::V35, None, args);
    let value = "v".repeat(40_000);
    etcd.ctl(&["auth", "disable", "--user=root:toor"]);
    let name = |i| (format!("/registry/secrets/default/s{i:03}"), value.clone());
    etcd.put_many((0..200).map(name));
    etcd.ctl(&["auth", "enable"]);
    let proxy = Proxy::new(&etcd.endpoint());
    proxy.hold_after(5 << 20);
    let child = bin()
        .words("scan -w json --command-timeout 30s --user root:toor --endpoints")
        .arg(&proxy.endpoint)
        .spawn();
    proxy.wait_until_held();
    // Tokens are dropped at most a second after their end.
    std::thread::sleep(Duration::from_secs(4));
    proxy.release();
    let done = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{stderr}");
    let json: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(json["totals"]["entries"], 201);
}

#[test]
fn who_may_read_but_not_write_is_told_so() {
    let etcd = with_users(Version::V35, None, &[]);
    for command in ["user add writer:w", "role add writer", "user grant-role writer writer"] {
        let words: Vec<_> = ["--user=root:toor"].into_iter().chain(command.split(' ')).collect();
        etcd.ctl(&words);
    }
    let grant = "--user=root:toor role grant-permission writer readwrite --prefix=true /registry/";
    etcd.ctl(&grant.split(' ').collect::<Vec<_>>());
    let config = crate::support::corpus::private_config("p1-secretbox");
    let migrate = |user: &str, words: &str| {
        let bin = bin().words("migrate --apply --user").arg(user).words(words);
        bin.args(etcd.args()).arg("--encryption-config").arg(&config).run()
    };
    let done = migrate("reader:read:er", "--no-backup").code(1);
    done.says("user \"reader\" may not write the keys").says("readwrite").says("half-written");
    let dir = tempfile::tempdir().unwrap();
    let backup = format!("--backup {}", dir.path().join("b.db").display());
    let done = migrate("writer:w", &backup).fails_with_hint(1);
    done.says("user \"writer\" may not save a snapshot").says("the role root");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    migrate("writer:w", "--no-backup").ok();
}

/// A history is read through a watch, whose token etcd looks at when it begins.
#[test]
fn a_history_outlives_its_token() {
    use atrest::source::live::{Credentials, Live, LiveOptions, Tempo};
    use atrest::source::{KeyRange, Query, Source as _};
    let etcd = with_users(Version::V35, None, &["--auth-token-ttl=1"]);
    let proxy = Proxy::new(&etcd.endpoint());
    let time = Duration::from_secs(30);
    let options = LiveOptions {
        endpoints: vec![proxy.endpoint.clone()],
        cacert: None,
        cert: None,
        key: None,
        credentials: Some(Credentials::new("root", "toor")),
        insecure_skip_tls_verify: false,
        insecure_transport: true,
        dial_timeout: time,
        command_timeout: time,
        keepalive_time: time,
        keepalive_timeout: time,
        tempo: Tempo::default(),
    };
    let mut live = Live::connect(&options).unwrap();
    // The answer that says which revision is the newest comes late.
    proxy.hold_after(1);
    let ranges = vec![KeyRange::prefix(b"/registry/secrets/")];
    let query = Query { ranges, revision: None, ordered: true };
    let reading = std::thread::spawn(move || {
        let mut records = 0;
        let visit = live.history(&query, &mut |_| {
            records += 1;
            std::ops::ControlFlow::Continue(())
        });
        visit.map(|_| records)
    });
    proxy.wait_until_held();
    // Tokens are dropped at most a second after their end.
    std::thread::sleep(Duration::from_secs(4));
    proxy.release();
    assert_eq!(reading.join().unwrap().unwrap(), 1);
}

#[test]
fn a_watch_outlives_its_token() {
    use std::io::BufRead as _;
    let etcd = with_users(Version::V35, None, &["--auth-token-ttl=1"]);
    let proxy = Proxy::new(&etcd.endpoint());
    let mut child = bin()
        .words("scan --watch --until-done --user root:toor --endpoints")
        .arg(&proxy.endpoint)
        .spawn();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut remaining = || {
        let line: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        line["remaining"].as_u64().unwrap()
    };
    assert_eq!(remaining(), 1);
    // Tokens are dropped at most a second after their end.
    std::thread::sleep(Duration::from_secs(4));
    proxy.drop_connections();
    etcd.ctl(&["--user=root:toor", "del", "/registry/secrets/default/a"]);
    assert_eq!(remaining(), 0);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Who may read exactly what is asked for gets it: no right to other keys is needed to read the
/// past of these.
#[test]
fn the_right_to_a_range_is_enough_for_its_past() {
    for version in [Version::V34, Version::V35] {
        let etcd = with_users(version, None, &[]);
        let root = |words: &str| {
            let words: Vec<_> = ["--user=root:toor"].into_iter().chain(words.split(' ')).collect();
            etcd.ctl(&words);
        };
        root("put /registry/secrets/default/a k8s:enc:secretbox:v1:k:sealed");
        root(
            r#"put /registry/secrets/default/b {"apiVersion":"v1","kind":"Secret","metadata":{"name":"b","namespace":"default"}}"#,
        );
        root("del /registry/secrets/default/b");
        root("put /registry/configmaps/default/b other");
        let run = |user: &str, words: &str| {
            let bin = bin().words(words).arg("--user").arg(user);
            bin.args(etcd.args()).words("--command-timeout 30s").run().ok()
        };
        let both = |words: &str| {
            let all = run("root:toor", words);
            let some = run("reader:read:er", words);
            (all, some)
        };
        let (all, some) = both("history -w jsonl secrets");
        assert_eq!(all.jsonl().len(), 4, "{all}");
        assert_eq!(all.jsonl(), some.jsonl());
        let one = run("reader:read:er", "history -w jsonl secrets/default/b");
        assert_eq!(one.jsonl().len(), 2, "{one}");
        let (all, some) = both("residue -w json");
        assert_eq!(all.json()["findings"], some.json()["findings"]);
        assert_eq!(all.json()["totals"]["superseded-revision"], 2);
        let (all, some) = both("keys -w json");
        let row = |done: &crate::support::bin::Done| {
            let keys = done.json()["keys"].as_array().unwrap().clone();
            let of = |k: &serde_json::Value| {
                (k["key"].clone(), k["entries"].clone(), k["history_entries"].clone())
            };
            keys.iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(row(&all), row(&some));
        some.says("only secrets could be read");
        // After a compaction, too.
        root("compact 6");
        let (all, some) = both("history -w jsonl secrets");
        assert_eq!(all.jsonl(), some.jsonl());
    }
}

/// The grant that the hint names helps.
#[test]
fn the_grant_of_the_hint_is_enough() {
    let etcd = with_users(Version::V35, None, &[]);
    etcd.ctl(&["--user=root:toor", "put", "/registry/roles/default/a", "k8s"]);
    let commands = [
        "scan --resource configmaps",
        "history roles/default/a",
        "get pods/default/a",
        "residue --resource services",
        "keys --resource endpoints",
    ];
    for command in commands {
        let run = || {
            let bin = bin().words(command).words("--user reader:read:er");
            bin.args(etcd.args()).words("--command-timeout 30s").run()
        };
        let done = run().fails_with_hint(1);
        let hint = done.stderr.lines().find_map(|l| l.strip_prefix("hint: etcdctl ")).unwrap();
        let grant = hint.split(" allows it").next().unwrap().replace("ROLE", "reader");
        let words: Vec<_> = ["--user=root:toor"].into_iter().chain(grant.split(' ')).collect();
        etcd.ctl(&words);
        let done = run();
        let refused = |line: &str| line.starts_with("error: ") && line.contains("may not");
        assert!(!done.stderr.lines().any(refused), "{command}: {done}");
    }
}
