//! Configurations: checked, explained, made and rotated.

use std::path::Path;

use super::{private, private_at, providers, says};
use crate::support::bin::Done;
use crate::support::{Etcd, Version, bin, corpus, secret};

/// Two throwaway keys.
const ONE: &str =
    "secretbox: {keys: [{name: one, secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=}]}";
const TWO: &str =
    "secretbox: {keys: [{name: two, secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=}]}";

#[test]
fn files_to_read() {
    let config = corpus::private_config("p1-secretbox");
    let text = std::fs::read_to_string(&config).unwrap();
    let run = |words: &str| bin().words(words).run();
    says("give files, `-` for stdin, or --encryption-config FILE").helps(
        &run("config check"),
        |_| {
            bin().words("config check").arg(&config).run().ok();
            bin().words("config check -").stdin(text.clone()).run().ok();
            bin().words("config check --encryption-config").arg(&config).run()
        },
    );
    let give = says("give it with --encryption-config FILE");
    give.helps(&run("config explain secrets"), |_| {
        bin().words("config explain secrets --encryption-config").arg(&config).run()
    });
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).display().to_string();
    let rotate = format!("config rotate --step add --provider secretbox --out {}", out("a.yaml"));
    give.helps(&run(&rotate), |_| {
        bin().words(&rotate).arg("--encryption-config").arg(&config).run()
    });
    // A pipe with a name waits for somebody who writes to it.
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    says("give `-` and pipe the configuration in")
        .helps(&bin().words("config explain secrets --encryption-config").arg(&pipe).run(), |_| {
            bin().words("config explain secrets --encryption-config -").stdin(text.clone()).run()
        });
}

#[test]
fn files_to_write() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let new = |more: &str| bin().words("config new --provider secretbox").words(more).run();
    let out = |name: &str| format!("--out {}", dir.path().join(name).display());
    says("give --out FILE; it is made with mode 0600").helps(&new(""), |_| {
        let done = new(&out("a.yaml"));
        let mode = std::fs::metadata(dir.path().join("a.yaml")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        done
    });
    says("give another --out, or --force to replace it").helps(&new(&out("a.yaml")), |_| {
        new(&out("b.yaml")).ok();
        new(&format!("{} --force", out("a.yaml")))
    });
}

fn rotate(config: &Path, out: &Path, words: &str) -> Done {
    let run = bin().words("config rotate --step retire").words(words).arg("--encryption-config");
    run.arg(config).arg("--out").arg(out).run()
}

#[test]
fn what_is_retired_is_not_needed() {
    let dir = tempfile::tempdir().unwrap();
    let etcd = Etcd::plain(Version::V35);
    let at = format!("--endpoints {}", etcd.endpoint());
    etcd.put("/registry/secrets/a/b", secret("x").as_bytes());
    let config = |name: &str, text: &str| private(&dir, name, &providers("secrets", text));
    let migrate = |config: &Path| {
        let run = bin().words("migrate --apply --no-backup").words(&at);
        run.arg("--encryption-config").arg(config).run()
    };
    let out = |name: &str| dir.path().join(name);
    let first = config("first.yaml", &format!("{ONE}\nidentity: {{}}"));
    says("give the source (--endpoints, --snapshot, …), or --force if you know that nothing is")
        .helps(&rotate(&first, &out("a.yaml"), "--provider identity"), |_| {
            rotate(&first, &out("b.yaml"), "--provider identity --force")
        });
    says("encrypt them first: atrest migrate --apply with this configuration").helps(
        &rotate(&first, &out("c.yaml"), &format!("--provider identity {at}")),
        |_| {
            migrate(&first).ok();
            rotate(&first, &out("c.yaml"), &format!("--provider identity {at}"))
        },
    );
    let second = config("second.yaml", &format!("{TWO}\n{ONE}\nidentity: {{}}"));
    let words = format!("--provider secretbox --key-name one {at}");
    says("rewrite them first: atrest migrate --apply with this configuration").helps(
        &rotate(&second, &out("d.yaml"), &words),
        |_| {
            migrate(&second).ok();
            rotate(&second, &out("d.yaml"), &words)
        },
    );
    let add = |more: &str| {
        let run = bin().words("config rotate --step add --provider secretbox").words(more);
        run.arg("--encryption-config").arg(&second).arg("--out").arg(out("e.yaml")).run()
    };
    says("the other steps read no source").helps(&add(&at), |_| add(""));
}

#[test]
fn a_configuration_in_a_secret_is_taken_out_first() {
    let dir = tempfile::tempdir().unwrap();
    let text = providers("secrets", &format!("{ONE}\nidentity: {{}}"));
    let manifest = serde_json::json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "enc", "namespace": "a"}, "stringData": {"enc.yaml": text}});
    let wrapped = private(&dir, "secret.yaml", &manifest.to_string());
    let out = dir.path().join("out.yaml");
    let add = |config: &Path| {
        let run = bin().words("config rotate --step add --provider secretbox --encryption-config");
        run.arg(config).arg("--out").arg(&out).run()
    };
    says("take the configuration out of its Secret or archive").helps(&add(&wrapped), |_| {
        let plain = dir.path().join("plain.yaml");
        private_at(&plain, &text);
        add(&plain)
    });
}

/// What a step leaves open, and a name that is taken.
#[test]
fn a_step_that_is_not_clear() {
    let dir = tempfile::tempdir().unwrap();
    let step = |config: &Path, words: &str| {
        let run = bin().words("config rotate").words(words).arg("--encryption-config").arg(config);
        run.arg("--force").arg("--out").arg(dir.path().join("out.yaml")).run()
    };
    let plain = private(&dir, "plain.yaml", &providers("secrets", "identity: {}"));
    says("--provider says which static provider shall encrypt")
        .helps(&step(&plain, "--step add"), |_| step(&plain, "--step add --provider secretbox"));
    // Each entry has another second key.
    let [one, two] = [ONE, TWO].map(|key| key.split_once('[').unwrap().1.replace("]}", ""));
    let both = |first: &str, second: &str| format!("secretbox: {{keys: [{first}, {second}]}}");
    let second = providers("configmaps", &both(&two, &one));
    let (_, second) = second.split_once("resources:\n").unwrap();
    let text = format!("{}{second}", providers("secrets", &both(&one, &two)));
    let several = private(&dir, "several.yaml", &text);
    says("name it with --key-name").helps(&step(&several, "--step promote"), |_| {
        step(&several, "--step promote --key-name two")
    });
    says("choose another name with --key-name")
        .helps(&step(&several, "--step add --key-name one"), |_| {
            step(&several, "--step add --key-name four")
        });
}

/// `kms check` is about plugins.
#[test]
fn plugins_to_check() {
    let dir = tempfile::tempdir().unwrap();
    let run = |words: &str| bin().words(words).run();
    let config = private(&dir, "plain.yaml", &providers("secrets", "identity: {}"));
    let explain = format!("config explain secrets --encryption-config {}", config.display());
    says("`atrest config explain RESOURCE` says what it encrypts with")
        .helps(&run(&format!("kms check --encryption-config {}", config.display())), |_| {
            run(&explain)
        });
    let plugs = crate::support::plugs::Plugs::start("kek-2026-02");
    let config = plugs.config("p5-kmsv2");
    says("give it with --encryption-config FILE or --profile").helps(&run("kms check"), |_| {
        run(&format!("kms check --encryption-config {}", config.display()))
    });
}

#[test]
fn programs_for_plugins_that_are_configured() {
    let (db, config) = (corpus::db("p5-kmsv2"), corpus::private_config("p5-kmsv2"));
    let scan = || bin().words("scan --kms-exec vault-v2=cat --snapshot").arg(&db);
    says("give a configuration with KMS providers: --encryption-config FILE")
        .helps(&scan().run(), |_| scan().arg("--encryption-config").arg(&config).run());
}
