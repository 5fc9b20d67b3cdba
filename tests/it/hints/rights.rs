//! Users, and what they may do.

use super::says;
use crate::live::auth::with_users;
use crate::support::bin::Done;
use crate::support::{Etcd, Version, bin, corpus};

fn run(etcd: &Etcd, words: &str) -> Done {
    bin().words(words).args(etcd.args()).words("--command-timeout 30s").run()
}

/// Runs as root what a hint says, `etcdctl` in front left out.
fn as_root(etcd: &Etcd, command: &str) {
    let words: Vec<_> = ["--user=root:toor"].into_iter().chain(command.split(' ')).collect();
    etcd.ctl(&words);
}

#[test]
fn users_and_passwords() {
    let etcd = with_users(Version::V35, None, &[]);
    let right = || run(&etcd, "scan --user root:toor");
    says("check --user and the password, also in ETCDCTL_USER and ETCDCTL_PASSWORD").helps(
        &run(&etcd, "scan --user root:wrong"),
        |_| {
            bin()
                .words("scan")
                .args(etcd.args())
                .env("ETCDCTL_USER", "root")
                .env("ETCDCTL_PASSWORD", "toor")
                .run()
                .ok();
            right()
        },
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "toor\n").unwrap();
    let by_file = |_: &str| {
        let words = bin().words("scan --user root --password-file").arg(file.path());
        words.args(etcd.args()).run()
    };
    says("give --user NAME with --password-file FILE (on a terminal it is asked for)")
        .helps(&run(&etcd, "scan"), by_file);
    says("--password-file FILE and ETCDCTL_PASSWORD keep it from others").helps(
        &run(&etcd, "scan --user root"),
        |_| {
            right().ok();
            bin().words("scan --user root").args(etcd.args()).env("ETCDCTL_PASSWORD", "toor").run()
        },
    );
}

#[test]
fn grants_to_read() {
    let etcd = with_users(Version::V35, None, &[]);
    as_root(&etcd, "put /registry/roles/default/a k8s");
    as_root(&etcd, "put /registry/pods/default/a k8s");
    let hint =
        says("etcdctl role grant-permission ROLE read {what} allows it; or narrow --resource");
    for command in ["scan --resource configmaps", "get roles/default/a", "history pods/default/a"] {
        let command = format!("{command} --user reader:read:er");
        let printed = run(&etcd, &command);
        let said = hint.of(&printed);
        if command.starts_with("history") {
            says("--prefix=true {}").of(&printed);
        }
        let grant = said.strip_prefix("etcdctl ").unwrap().split(" allows it").next().unwrap();
        as_root(&etcd, &grant.replace("ROLE", "reader"));
        let done = run(&etcd, &command);
        let refused = |line: &str| line.starts_with("error: ") && line.contains("may not");
        assert!(!done.stderr.lines().any(refused), "{command}: {done}");
    }
    let all = run(&etcd, "scan --all-resources --user reader:read:er");
    hint.helps(&all, |_| run(&etcd, "scan --resource secrets --user reader:read:er"));
}

#[test]
fn grants_to_write() {
    let etcd = with_users(Version::V35, None, &[]);
    as_root(&etcd, "put /tenant/secrets/default/a k8s");
    as_root(&etcd, "role grant-permission reader read --prefix=true /tenant/");
    let config = corpus::private_config("p1-secretbox");
    for prefix in ["/registry", "/tenant"] {
        let migrate = || {
            let words =
                format!("migrate --apply --no-backup --prefix {prefix} --user reader:read:er");
            run(&etcd, &format!("{words} --encryption-config {}", config.display()))
        };
        let value = crate::support::secret("a");
        as_root(&etcd, &format!("put {prefix}/secrets/default/a {value}"));
        says("etcdctl role grant-permission ROLE readwrite --prefix=true {base} allows it").helps(
            &migrate(),
            |said| {
                let grant = said.strip_prefix("etcdctl ").unwrap().split(" allows it").next();
                assert!(grant.unwrap().ends_with(&format!("{prefix}/")), "{said}");
                as_root(&etcd, &grant.unwrap().replace("ROLE", "reader"));
                migrate()
            },
        );
    }
}

/// A member whose tokens have ended before they arrive.
#[test]
fn a_token_that_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let openssl = |args: &[&str]| {
        let done = std::process::Command::new("openssl").args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let (private, public) = (path("private.pem"), path("public.pem"));
    openssl(&["genrsa", "-out", &private, "2048"]);
    openssl(&["rsa", "-in", &private, "-pubout", "-out", &public]);
    let scan = |ttl: &str| {
        let token = format!("jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl={ttl}");
        let etcd = with_users(Version::V35, None, &[&format!("--auth-token={token}")]);
        run(&etcd, "scan --user root:toor")
    };
    says("check the server's --auth-token setting and the clocks")
        .helps(&scan("-1m"), |_| scan("5m"));
}
