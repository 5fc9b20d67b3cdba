//! What is asked for narrows what is shown, never what is judged: an all-clear is about everything
//! that the configuration serves.

use crate::support::kms_plugin::{Behaviour, Listen, Running};
use crate::support::snapshot::Crafted;
use crate::support::{Etcd, Version, bin, corpus};
use serde_json::Value;

/// Live Secrets that are stored unencrypted, and how many of them are in kube-system.
fn plaintext_secrets(phase: &str) -> (usize, usize) {
    let entries = corpus::entries(phase).entries;
    let of = |start: &str| {
        entries.iter().filter(|e| e.key.starts_with(start) && e.prefix.is_empty()).count()
    };
    (of("/registry/secrets/"), of("/registry/secrets/kube-system/"))
}

fn identity(keys: &Value) -> &Value {
    keys["keys"].as_array().unwrap().iter().find(|k| k["provider"] == "identity").unwrap()
}

const NARROW: [&str; 5] = [
    "-n kube-system",
    "--resource configmaps",
    "-n kube-system --resource configmaps",
    "--resource widgets.example.com",
    "-n default --resource events",
];

#[test]
fn no_key_is_safe_because_the_question_was_narrow() {
    let phase = "p1b-partial-migration";
    let (all, there) = plaintext_secrets(phase);
    assert!(all > there, "the corpus has plaintext Secrets elsewhere");
    for more in NARROW {
        for configured in [true, false] {
            let mut run = bin().words("keys -w json --snapshot").arg(corpus::db(phase)).words(more);
            if configured {
                run = run.arg("--encryption-config").arg(corpus::config("p1-secretbox"));
            }
            let keys = run.run().ok().json();
            let identity = identity(&keys);
            assert_eq!(identity["safe_to_remove"], false, "{more}, {configured}: {identity}");
            let reason = identity["reason"].as_str().unwrap();
            assert!(reason.contains("not asked for"), "{more}, {configured}: {reason}");
        }
    }
}

/// Plaintext that the API server reads without an identity provider keeps none.
#[test]
fn identity_may_go_where_only_unserved_resources_are_plaintext() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("enc.yaml");
    let text = std::fs::read_to_string(corpus::config("p1-secretbox")).unwrap();
    std::fs::write(&config, text).unwrap();
    let keys = |db: &std::path::Path| {
        let run = bin().words("keys -w json --snapshot").arg(db).arg("--encryption-config");
        run.arg(&config).run().ok().json()
    };
    let sealed = b"k8s:enc:secretbox:v1:secret-key-1:sealed";
    let done = Crafted::new()
        .put("/registry/secrets/a/1", sealed)
        .put("/registry/pods/a/1", b"k8s\0plain");
    let served = keys(done.file().path());
    assert_eq!(identity(&served)["safe_to_remove"], true, "{}", identity(&served));
    let left = done.put("/registry/secrets/b/1", b"k8s\0plain");
    let served = keys(left.file().path());
    assert_eq!(identity(&served)["safe_to_remove"], false, "{}", identity(&served));
}

#[test]
fn identity_is_not_retired_by_a_narrow_question() {
    let dir = tempfile::tempdir().unwrap();
    for more in ["", "-n kube-system"] {
        let out = dir.path().join("next.yaml");
        let run = bin()
            .words("config rotate --step retire --provider identity --encryption-config")
            .arg(corpus::private_config("p1-secretbox"))
            .arg("--snapshot")
            .arg(corpus::db("p1b-partial-migration"))
            .arg("--out")
            .arg(&out)
            .words(more)
            .run();
        assert!(matches!(run.code, Some(1 | 2)), "{run}");
        assert!(!out.exists());
    }
}

#[test]
fn residue_is_not_clean_because_the_question_was_narrow() {
    let run = |more: &str| {
        bin()
            .words("residue -w json --snapshot")
            .arg(corpus::db("p7-migrated-uncompacted"))
            .arg("--encryption-config")
            .arg(corpus::config("p6-sb2"))
            .words(more)
            .run()
            .ok()
            .json()
    };
    let sum = |document: &Value| -> u64 {
        document["totals"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
    };
    let whole = run("");
    assert_eq!(whole["elsewhere"], serde_json::json!({"plaintext": 0, "findings": 0}));
    assert_eq!(whole["verdict"], "residue");
    for more in ["-n kube-system", "-n default", "--resource widgets.example.com"] {
        let narrow = run(more);
        let elsewhere = narrow["elsewhere"]["findings"].as_u64().unwrap();
        assert_eq!(sum(&narrow) + elsewhere, sum(&whole), "{more}");
        assert_eq!(narrow["verdict"], "residue", "{more}");
        assert_eq!(narrow["remedy"], whole["remedy"], "{more}");
        assert_eq!(narrow["findings"].as_array().unwrap().len() as u64, sum(&narrow), "{more}");
    }
    let text = bin()
        .words("residue --fail-on residue -n kube-system --snapshot")
        .arg(corpus::db("p7-migrated-uncompacted"))
        .arg("--encryption-config")
        .arg(corpus::config("p6-sb2"))
        .run()
        .code(3);
    assert!(text.text().contains("of what was not"), "{text}");
}

/// The keys of a plugin are its own: one writes, and of the others it is said whether anything
/// needs them.
#[test]
fn a_plugin_writes_with_the_key_that_it_names_now() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let plugin = Running::start(Listen::Path(socket.clone()), Behaviour::new("kek-1"));
    let config = dir.path().join("enc.yaml");
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers:\n  - kms: {{apiVersion: v2, name: p, endpoint: \
         'unix://{}'}}\n  - identity: {{}}\n",
        socket.display()
    );
    std::fs::write(&config, text).unwrap();
    let encode = |name: &str| {
        let key = format!("/registry/secrets/default/{name}");
        let manifest = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: default}}\n"
        );
        let file = dir.path().join("value");
        bin()
            .words("encode --encryption-config")
            .arg(&config)
            .arg("--out")
            .arg(&file)
            .stdin(manifest)
            .run()
            .ok();
        let value = std::fs::read(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        (key, value)
    };
    let (a, under_1) = encode("a");
    plugin.set(|b| "kek-2".clone_into(&mut b.key_id));
    let (b, under_2) = encode("b");
    plugin.set(|b| "kek-3".clone_into(&mut b.key_id));
    let db = Crafted::new().put(a, under_1).put(b, under_2).file();
    let keys = || {
        let done = bin()
            .words("keys -w json --encryption-config")
            .arg(&config)
            .arg("--snapshot")
            .arg(db.path())
            .run()
            .ok();
        let rows = done.json()["keys"].as_array().unwrap().clone();
        let kms = rows.into_iter().filter(|k| k["provider"] == "kms");
        let shape = |k: Value| {
            let writes = !k["write_key_for"].as_array().unwrap().is_empty();
            let id = k["kms_key_id"].as_str().unwrap_or("-").to_owned();
            (id, k["entries"].as_u64().unwrap(), writes)
        };
        (kms.map(shape).collect::<Vec<_>>(), done.stderr)
    };
    let is = |id: &str, entries, writes| (id.to_owned(), entries, writes);
    let (rows, _) = keys();
    assert_eq!(rows, [is("kek-1", 1, false), is("kek-2", 1, false), is("kek-3", 0, true)]);
    drop(plugin);
    let (rows, stderr) = keys();
    assert_eq!(rows, [is("-", 0, true), is("kek-1", 1, false), is("kek-2", 1, false)]);
    assert!(stderr.contains("writes with is not known"), "{stderr}");
}

#[test]
fn configurations_that_differ_are_a_finding() {
    let a = corpus::private_config("p6-sb2");
    let b = corpus::private_config("p1-secretbox");
    let check = |files: &[&std::path::Path]| bin().words("config check").args(files).run();
    check(&[&a, &a]).ok();
    let done = check(&[&a, &b]).code(3);
    assert!(done.text().contains("difference:"), "{done}");
    // The same settings in other bytes are a difference too: API servers publish the hash.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy.yaml");
    let text = std::fs::read_to_string(&a).unwrap();
    std::fs::write(&copy, format!("# a copy\n{text}")).unwrap();
    let done = check(&[&a, &copy]).code(3);
    assert!(done.text().contains("byte by byte"), "{done}");
}

/// What the README guarantees: of a Secret's data nothing comes out that was not asked for.
#[test]
fn secret_data_leave_only_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let phase = "p1b-partial-migration";
    let config = corpus::private_config("p1-secretbox");
    let run = |line: &str| {
        let run = bin().words(line).arg("--snapshot").arg(corpus::db(phase));
        run.arg("--encryption-config").arg(&config).run()
    };
    let shown = run("get -w json --reveal secrets/default/login2").ok().json();
    let data: Vec<String> = shown["data"]
        .as_object()
        .unwrap()
        .values()
        .map(|v| v.as_str().unwrap().trim_end_matches('=').to_owned())
        .collect();
    assert!(data.len() >= 2 && data.iter().all(|d| d.len() > 6));
    let plain: Vec<String> = data
        .iter()
        .map(|d| {
            use base64::Engine as _;
            let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(d).unwrap();
            String::from_utf8(bytes).unwrap()
        })
        .collect();
    let holds = |bytes: &[u8]| {
        let has = |d: &String| memchr::memmem::find(bytes, d.as_bytes()).is_some();
        data.iter().any(has) || plain.iter().any(has)
    };
    for line in [
        "scan --verify --list -w table",
        "scan --verify -w jsonl",
        "scan --list -w csv",
        "scan -w html",
        "scan -w prometheus",
        "get secrets/default/login2",
        "get secrets/default/login2 -w json",
        "history secrets/default/login2",
        "history secrets/default/login2 -w jsonl",
        "history secrets/default/login2 -w csv",
        "keys -w json",
        "residue --list",
        "residue -w jsonl",
        "config explain secrets",
    ] {
        let done = run(line);
        assert!(matches!(done.code, Some(0 | 2)), "{line}: {done}");
        assert!(!holds(&done.stdout) && !holds(done.stderr.as_bytes()), "{line}");
    }
    // And the ways out that the page names are ways out.
    let exported = run("export -w json -n default").ok();
    assert!(holds(&exported.stdout));
    let identity = dir.path().join("identity.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replacen("providers:\n", "providers:\n      - identity: {}\n", 1);
    std::fs::write(&identity, text).unwrap();
    for (to, comes_out) in [(&config, false), (&identity, true)] {
        let out = dir.path().join(format!("{comes_out}.db"));
        let done = bin()
            .words("rewrite --drop-history --snapshot")
            .arg(corpus::db(phase))
            .arg("--encryption-config")
            .arg(&config)
            .arg("--write-config")
            .arg(to)
            .arg("--out")
            .arg(&out)
            .run();
        done.ok();
        assert_eq!(holds(&std::fs::read(&out).unwrap()), comes_out);
    }
}

#[test]
fn nothing_to_rewrite_here_is_not_nothing_to_rewrite() {
    let phase = "p1b-partial-migration";
    let (all, there) = plaintext_secrets(phase);
    let etcd = Etcd::restored(Version::V35, &corpus::db(phase));
    let config = corpus::private_config("p1-secretbox");
    let plan = |more: &str| {
        let run = bin().words("migrate").words(more).args(etcd.args());
        run.arg("--encryption-config").arg(&config).run().ok()
    };
    // Everything of team-a was rewritten; everything that is left lies elsewhere.
    let narrow = plan("-n team-a");
    assert!(narrow.text().contains("nothing to rewrite"), "{narrow}");
    narrow.says(&format!("{all} entries not asked for and not current either"));
    let system = plan("-n kube-system");
    system.says(&format!("{} entries not asked for and not current either", all - there));
    assert!(!plan("").stderr.contains("not asked for"));
}
