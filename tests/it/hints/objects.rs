//! KEYs, values from stdin, manifests, and what lies in the source itself.

use std::path::{Path, PathBuf};

use super::says;
use crate::support::bin::Bin;
use crate::support::{Etcd, Version, bin, corpus};

const KEY: &str = "/registry/secrets/default/login2";

fn private(name: &str) -> PathBuf {
    corpus::private_config(name)
}

fn with(words: &str, config: &Path) -> Bin {
    bin().words(words).arg("--encryption-config").arg(config)
}

#[test]
fn keys_of_entries() {
    let db = corpus::db("p1-secretbox");
    let get = |words: &str| with(words, &private("p1-secretbox")).arg("--snapshot").arg(&db).run();
    let printed = get("get secrets/nosuch");
    let forms = says("or secrets/NAME with -n NAMESPACE; `atrest scan --list` shows them all");
    forms.helps(&printed, |_| {
        let listed = get("scan --list -w json").json();
        let entries = listed["entries"].as_array().unwrap();
        let key = entries.iter().find(|e| e["status"] == "current").unwrap();
        let text = |field: &str| key[field].as_str().unwrap().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        get(&format!("get {}", text("key"))).ok();
        get(&format!("get secrets/{namespace}/{name}")).ok();
        get(&format!("get secrets/{name} -n {namespace}"))
    });
    says("name one of them, such as {}; `atrest scan --list {}` lists them").helps(
        &get("get secrets/default"),
        |said| {
            let scan = said.split("`atrest ").nth(1).unwrap().split('`').next().unwrap();
            get(scan).ok();
            get(&scan.replace("scan --list", "export")).ok();
            let one = said.strip_prefix("name one of them, such as ").unwrap();
            get(&format!("get {}", one.split(';').next().unwrap()))
        },
    );
    says("write it like /registry/secrets/default/login or secrets/default/login")
        .helps(&get("get *.x/y"), |_| get("get secrets/default/login2"));
}

/// A key that was deleted: its past tells when, and can be read.
#[test]
fn a_key_of_the_past() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/gone", crate::support::secret("x").as_bytes());
    etcd.put("/registry/secrets/a/kept", crate::support::secret("y").as_bytes());
    etcd.ctl(&["del", "/registry/secrets/a/gone"]);
    let run = |words: &str| bin().words(words).args(etcd.args()).run();
    says("`atrest history KEY` shows whether it existed; --revision reads an older state").helps(
        &run("get secrets/a/gone"),
        |_| {
            let rows = run("history secrets/a/gone -w jsonl").ok().jsonl();
            let written = rows.iter().find(|r| r["deleted"] == false).unwrap();
            run(&format!("get secrets/a/gone --revision {}", written["revision"]))
        },
    );
}

/// Deleted and compacted: what is left of it is in the pages of the file.
#[test]
fn a_key_that_was_compacted() {
    use std::io::Read as _;
    let dir = tempfile::tempdir().unwrap();
    let packed = std::fs::read(corpus::fixtures("lost").join("after.db.gz")).unwrap();
    let (db, config) = (dir.path().join("after.db"), dir.path().join("enc.yaml"));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    std::fs::write(&db, bytes).unwrap();
    let text = std::fs::read_to_string(corpus::fixtures("lost").join("enc.yaml")).unwrap();
    super::private_at(&config, &text);
    let run = |words: &str| with(words, &config).arg("--snapshot").arg(&db).run();
    let out = dir.path().join("out");
    says("`history --lost` shows it")
        .helps(&run("history secrets/default/a07"), |_| run("history secrets/default/a07 --lost"));
    says("--lost reads what is left of that state in the file; without --revision")
        .helps(&run("get secrets/default/a07 --revision 9"), |_| {
            run("get secrets/default/a07 --revision 9 --lost")
        });
    says("`atrest history KEY --lost` shows at which revisions").helps(
        &run("get secrets/default/a07 --lost"),
        |_| {
            let rows = run("history secrets/default/a07 --lost -w jsonl").ok().jsonl();
            run(&format!("get secrets/default/a07 --lost --revision {}", rows[0]["revision"]))
        },
    );
    let recovered = dir.path().join("recovered");
    says("`atrest residue --recover DIR` writes what was deleted")
        .helps(&run("export --salvage --resource secrets"), |_| {
            run(&format!("residue --resource secrets --recover {}", recovered.display()))
        });
    let live = bin().words("history x/y --lost --endpoints 127.0.0.1:1").run();
    says("`etcdctl snapshot save` copies its free pages")
        .helps(&live, |_| run("history secrets/default/a07 --lost"));
    says("`atrest residue --recover DIR` reads what is left of them in files")
        .helps(&run("history secrets/default/a07"), |_| {
            run(&format!("residue --allow-empty --recover {}", out.display()))
        });
    let found = std::process::Command::new("find").arg(&out).args(["-name", "*.yaml"]).output();
    assert!(String::from_utf8(found.unwrap().stdout).unwrap().contains("a07"));
}

#[test]
fn values_from_stdin() {
    let etcd = Etcd::restored(Version::V35, &corpus::db("p3-aesgcm"));
    let config = private("p3-aesgcm");
    let decode =
        |more: &str, input: Vec<u8>| with("decode", &config).words(more).stdin(input).run();
    let listed = with("scan --list -w json", &config).args(etcd.args()).run().json();
    let of = |provider: &str| {
        let entries = listed["entries"].as_array().unwrap();
        let found = entries.iter().find(|e| e["provider"] == provider);
        found.unwrap()["key"].as_str().unwrap().to_owned()
    };
    let (gcm, value) = (of("aesgcm"), etcd.get(&of("aesgcm")).unwrap());
    says("give the etcd key with --key; AES-GCM and KMS values cannot")
        .helps(&decode("", value.clone()), |_| decode(&format!("--key {gcm}"), value.clone()));
    says("give the API server's file with --encryption-config")
        .helps(&bin().words("decode --key").arg(&gcm).stdin(value.clone()).run(), |_| {
            decode(&format!("--key {gcm}"), value.clone())
        });
    says("etcdctl prints nothing for a key that does not exist")
        .helps(&decode("", etcd.ctl(&["get", "/registry/secrets/a/nosuch"])), |_| {
            decode("", etcd.ctl(&["get", &gcm]))
        });
    // A terminal has nothing to say.
    says("pipe a value in: etcdctl get /registry/secrets/NS/NAME | atrest decode")
        .helps(&with("decode", &config).on_a_terminal(), |_| decode("", etcd.ctl(&["get", &gcm])));
    let two = |form: &[&str]| {
        let words = [&["get", "--prefix", "/registry/secrets/"], form].concat();
        etcd.ctl(&words)
    };
    let several = says("if the input holds several entries, give them as `etcdctl get -w json`");
    several.leads_to(0, &decode("", two(&["--limit=2"])), |_| {
        decode("", two(&["--limit=2", "-w", "json"]))
    });
}

/// A file of rancher-backup: the authenticated data are namespace and name.
#[test]
fn a_file_of_rancher_backup() {
    let config = super::private_copy(&corpus::fixtures("decode").join("rancher-enc.yaml"));
    let bytes = std::fs::read(corpus::fixtures("decode").join("rancher.json")).unwrap();
    let decode = |more: &str| with("decode", config.path()).words(more).stdin(bytes.clone()).run();
    says("or NAMESPACE#NAME for a file of a rancher-backup archive")
        .helps(&decode(""), |_| decode("--key default#db"));
}

/// A row of kine's table that sqlite3 prints ends at the first zero byte of its value.
#[test]
fn a_row_of_kine() {
    let config = private("p1-secretbox");
    let dir = tempfile::tempdir().unwrap();
    let (_path, c) = crate::kine::kine(dir.path(), "p1-secretbox");
    let query = "SELECT id, name, value FROM kine WHERE name = ?";
    let (id, value): (i64, Vec<u8>) =
        c.query_row(query, [KEY], |r| Ok((r.get(0)?, r.get(2)?))).unwrap();
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len() / 2);
    let row = [format!("{id}|{KEY}|1|0|0|0|0|").as_bytes(), &value[..end], b"|\n"].concat();
    let decode = |input: Vec<u8>| with("decode", &config).stdin(input).run();
    says("give what `select name, hex(value) from kine` prints").helps(&decode(row), |_| {
        let hex: String =
            c.query_row("SELECT hex(value) FROM kine WHERE name = ?", [KEY], |r| r.get(0)).unwrap();
        decode(format!("{KEY}|{hex}\n").into_bytes())
    });
}

/// What is no stored value in any form.
#[test]
fn what_decode_is_given_instead() {
    let etcd = Etcd::plain(Version::V35);
    let key = "/registry/secrets/a/b";
    etcd.put(key, crate::support::secret("x").as_bytes());
    let decode = |input: Vec<u8>| bin().words("decode").stdin(input).run();
    let json = || etcd.ctl(&["get", key, "-w", "json"]);
    let right = |_: &str| decode(json());
    let keys_only = |form: &str| etcd.ctl(&["get", key, "--keys-only", "-w", form]);
    says("leave out --keys-only: etcdctl get KEY -w json").helps(&decode(keys_only("json")), right);
    says("leave out --keys-only: etcdctl get KEY -w fields")
        .helps(&decode(keys_only("fields")), |_| decode(etcd.ctl(&["get", key, "-w", "fields"])));
    says("the key may be misspelt, or lie below another prefix")
        .helps(&decode(etcd.ctl(&["get", "/tenant/x", "-w", "json"])), right);
    says("give a stored value, or what `etcdctl get KEY -w json` prints; `atrest decode --help`")
        .helps(&decode(b"no value in any form".to_vec()), |_| {
            bin().words("decode --help").run().ok();
            decode(json())
        });
    let keys = format!("{key}\n\n/registry/secrets/a/c\n\n").into_bytes();
    says("leave out --keys-only: etcdctl get KEY")
        .helps(&decode(keys), |_| decode(etcd.ctl(&["get", key])));
    says("give what `etcdctl get KEY -w json` prints, whole")
        .helps(&decode(b"\"k8s:enc:secretbox:v1:k:cut off".to_vec()), right);
    let mixed = [key.as_bytes(), b"\r\nk8s:enc:secretbox:v1:k:one\ntwo\r\nthree\n"].concat();
    says("give what `etcdctl get KEY -w json` prints: it survives terminals and editors")
        .helps(&decode(mixed), right);
    let behind = [b"value: ".as_slice(), b"k8s:enc:secretbox:v1:k:x"].concat();
    says("give what `etcdctl get KEY -w json` prints").helps(&decode(behind), right);
    let dump = |bytes: &[u8], with: &str| {
        use std::fmt::Write as _;
        let mut text = String::new();
        for (i, line) in bytes.chunks(16).enumerate() {
            let pairs: Vec<_> = line.iter().map(|b| format!("{b:02x}")).collect();
            writeln!(text, "{:08x}{with} {}", i * 16, pairs.join(" ")).unwrap();
        }
        text.into_bytes()
    };
    let value = etcd.get(key).unwrap();
    let swapped = b"0000000 5b22 7061 5669 7265 6973 6e6f 3a22 7622\n0000010\n".to_vec();
    says("give what `hexdump -C` or `xxd` prints")
        .helps(&decode(swapped), |_| decode(dump(&value, ":")));
    says("give the dump of what `etcdctl get KEY` prints")
        .helps(&decode(dump(b"no value begins like this one", ":")), |_| {
            decode(dump(&etcd.ctl(&["get", key]), ":"))
        });
    let (db, dir) = (corpus::db("p0-plaintext"), tempfile::tempdir().unwrap());
    says("read it with `atrest scan --snapshot FILE`")
        .helps(&decode(std::fs::read(&db).unwrap()), |_| {
            bin().words("scan --snapshot").arg(&db).run()
        });
    let (kine, connection) = crate::kine::kine(dir.path(), "p0-plaintext");
    drop(connection);
    says("read it with `atrest scan --kine FILE`")
        .helps(&decode(std::fs::read(&kine).unwrap()), |_| {
            bin().words("scan --kine").arg(&kine).run()
        });
    let packed = {
        use std::io::Write as _;
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(&std::fs::read(&db).unwrap()).unwrap();
        out.finish().unwrap()
    };
    let backup = dir.path().join("backup.gz");
    std::fs::write(&backup, &packed).unwrap();
    says("unpack it, and give one stored value; a whole backup is read with --snapshot")
        .helps(&decode(packed), |_| bin().words("scan --snapshot").arg(&backup).run());
}

#[test]
fn manifests() {
    let manifest = "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: b}\n";
    let encode = |more: &str, text: &str| {
        with("encode", &private("p3-aesgcm")).words(more).stdin(text).run()
    };
    says("write it like /registry/secrets/default/login or secrets/default/login")
        .helps(&encode("--key */x", manifest), |_| encode("--key secrets/b/a", manifest));
    says("give it with -n NAMESPACE")
        .helps(&encode("", &manifest.replace(", namespace: b", "")), |_| {
            encode("-n b", &manifest.replace(", namespace: b", ""))
        });
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("value");
    let file = super::private(&dir, "m.yaml", manifest);
    let encode_file = || bin().words("encode").arg(&file);
    says("pipe them on, or write them to a file with --out").helps(
        &encode_file().on_a_terminal(),
        |_| {
            encode_file().arg("--out").arg(&out).on_a_terminal().ok();
            assert!(out.exists());
            encode_file().run()
        },
    );
    // A kind whose resource nobody knows from here.
    let manifest = "apiVersion: example.com/v1\nkind: Gizmo\nmetadata: {name: a, namespace: b}\n";
    let key = "aesgcm: {keys: [{name: a, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}";
    let config = super::private(&dir, "c.yaml", &super::providers("gizmos.example.com", key));
    let encode = |more: &str| with("encode", &config).words(more).stdin(manifest).run();
    says("give it with --key: it is authenticated with the value")
        .helps(&encode(""), |_| encode("--key /registry/example.com/gizmos/b/a"));
}

/// Configurations that lie in the source.
#[test]
fn configurations_inside() {
    let etcd = Etcd::plain(Version::V35);
    let text = std::fs::read_to_string(corpus::config("p1-secretbox")).unwrap();
    let map = |kind: &str, field: &str, text: &str| {
        serde_json::json!({"apiVersion": "v1", "kind": kind,
            "metadata": {"name": "enc", "namespace": "kube-system"}, field: {"enc.yaml": text}})
        .to_string()
    };
    etcd.put("/registry/configmaps/kube-system/enc", map("ConfigMap", "data", &text).as_bytes());
    let run = |words: &str| bin().words(words).args(etcd.args()).run();
    let scan = |of: &str| run(&format!("scan --allow-empty --encryption-config {of}"));
    says("`atrest scan --list --resource secrets,configmaps` shows what it has").helps(
        &scan("etcd:kube-system/nosuch"),
        |_| {
            let listed =
                run("scan --list --resource secrets,configmaps --allow-empty -w json").ok();
            let key = listed.json()["entries"][0]["key"].as_str().unwrap().to_owned();
            scan(&format!("etcd:{key}"))
        },
    );
    says("write etcd:NAMESPACE/NAME of a Secret or ConfigMap, or etcd: and an etcd key").helps(
        &scan("etcd:nosuch"),
        |_| {
            scan("etcd:/registry/configmaps/kube-system/enc").ok();
            scan("etcd:kube-system/enc")
        },
    );
    // Encrypted by another one.
    let (other, manifest) = (private("p3-aesgcm"), map("Secret", "stringData", &text));
    let bytes = with("encode", &other).stdin(manifest).run().ok();
    etcd.put("/registry/secrets/kube-system/enc", &bytes.stdout);
    says("with another --encryption-config").helps(&scan("etcd:kube-system/enc"), |_| {
        scan(&format!("{} --encryption-config etcd:kube-system/enc", other.display()))
    });
    let decode = || bin().words("decode --encryption-config");
    says("give the configuration in a file")
        .helps(&decode().arg("etcd:kube-system/enc").stdin(text_value()).run(), |_| {
            decode().arg(private("p1-secretbox")).stdin(text_value()).run()
        });
}

fn text_value() -> String {
    crate::support::secret("x")
}

#[test]
fn the_bootstrap_record() {
    let etcd = Etcd::plain(Version::V35);
    etcd.put("/registry/secrets/a/b", text_value().as_bytes());
    let scan = |more: &str| bin().words("scan").words(more).args(etcd.args()).run();
    let dir = tempfile::tempdir().unwrap();
    let token = super::private(&dir, "token", "K10abcdef::server:throwaway-token\n");
    let file = format!("--token-file {}", token.display());
    let config = super::private(&dir, "encryption-config.json", &super::identity("secrets"));
    says("give its encryption-config.json with --encryption-config")
        .helps(&scan(&file), |_| scan(&format!("--encryption-config {}", config.display())));
    let record = std::fs::read(corpus::fixtures("bootstrap").join("record.txt")).unwrap();
    etcd.put("/bootstrap/596fdd9362af", &record);
    says("give it with --token-file FILE, such as")
        .helps(&scan("--encryption-config etcd:/bootstrap"), |_| scan(&file));
}
