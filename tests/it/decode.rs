//! `decode`: what `etcdctl get` prints, in its forms, is understood.

use base64::Engine as _;
use serde_json::Value;

use crate::support::{Etcd, Version, bin, corpus};

fn truth(phase: &str, name: &str) -> Value {
    let list = corpus::kubectl(phase);
    let all = list["items"].as_array().unwrap();
    let mut object = all
        .iter()
        .find(|o| o["kind"] == "Secret" && o["metadata"]["name"] == name)
        .unwrap()
        .clone();
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    object
}

fn without_revision(mut object: Value) -> Value {
    object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    object
}

#[test]
fn every_form_of_etcdctl_get_for_every_provider() {
    for (phase, config, names) in [
        ("p1-secretbox", "p1-secretbox", ["login2", "login1"]),
        ("p2-aescbc", "p2-aescbc", ["cbc2-1", "cbc1-1"]),
        ("p3-aesgcm", "p3-aesgcm", ["gcm-1", "gcm-2"]),
    ] {
        let etcd = Etcd::builder(Version::V35).restore(corpus::db(phase)).start();
        let config = corpus::private_config(config);
        for name in names {
            let list = corpus::kubectl(phase);
            let namespace = list["items"]
                .as_array()
                .unwrap()
                .iter()
                .find(|o| o["kind"] == "Secret" && o["metadata"]["name"] == name);
            let namespace = namespace.unwrap_or_else(|| panic!("{phase} has no {name}"));
            let namespace = namespace["metadata"]["namespace"].as_str().unwrap();
            let key = format!("/registry/secrets/{namespace}/{name}");
            let decode = |bytes: Vec<u8>, with_key: bool| {
                let mut run =
                    bin().words("decode -w json --reveal --encryption-config").arg(&config);
                if with_key {
                    run = run.args(["--key", &key]);
                }
                without_revision(run.stdin(bytes).run().ok().json())
            };
            let expected = truth(phase, name);
            assert!(decode(etcd.ctl(&["get", &key]), false) == expected, "{phase} {name} simple");
            assert!(
                decode(etcd.ctl(&["get", &key, "-w", "json"]), false) == expected,
                "{phase} {name} json"
            );
            assert!(
                decode(etcd.ctl(&["get", &key, "-w", "fields"]), false) == expected,
                "{phase} {name} fields"
            );
            let hex = etcd.ctl(&["get", &key, "--hex", "--print-value-only"]);
            assert!(decode(hex, true) == expected, "{phase} {name} hex");
            let value = etcd.ctl(&["get", &key, "--print-value-only"]);
            assert!(decode(value.clone(), true) == expected, "{phase} {name} value");
            assert!(decode(etcd.get(&key).unwrap(), true) == expected, "{phase} {name} raw");
        }
    }
}

/// AES-CBC and secretbox do not authenticate the etcd key, so nobody has to give it.
#[test]
fn a_value_that_needs_no_key_is_read_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("encryption.yaml");
    std::fs::write(
        &config,
        "apiVersion: apiserver.config.k8s.io/v1\n\
         kind: EncryptionConfiguration\n\
         resources:\n\
         - resources: [configmaps]\n\
         \x20 providers: [{identity: {}}]\n\
         - resources: [secrets]\n\
         \x20 providers:\n\
         \x20 - aescbc: {keys: [{name: 'k:1', secret: AAECAwQFBgcICQoLDA0ODw==}]}\n\
         \x20 - identity: {}\n",
    )
    .unwrap();
    let manifest = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a","namespace":"b"},"data":{"c":"ZA=="}}"#;
    let value = bin()
        .words("encode --key /registry/secrets/b/a --encryption-config")
        .arg(&config)
        .stdin(manifest)
        .run()
        .ok()
        .stdout;
    let read = bin()
        .words("decode -w json --reveal --encryption-config")
        .arg(&config)
        .stdin(value)
        .run()
        .ok();
    assert_eq!(read.json()["data"]["c"], "ZA==");
}

#[test]
fn a_value_that_a_terminal_garbled_is_recognised() {
    let value = "k8s:enc:aesgcm:v1:gcm-a:\u{FFFD}\u{FFFD}xyz";
    bin()
        .words("decode --key /registry/secrets/a/b --encryption-config")
        .arg(corpus::private_config("p3-aesgcm"))
        .stdin(value)
        .run()
        .code(4)
        .says("replacement characters");
}

#[test]
fn a_value_that_needs_its_key_says_so() {
    let mut value = b"k8s:enc:aesgcm:v1:gcm-a:".to_vec();
    value.extend([7; 60]);
    bin()
        .words("decode --encryption-config")
        .arg(corpus::private_config("p3-aesgcm"))
        .stdin(value)
        .run()
        .code(4)
        .says("--key");
}

#[test]
fn what_cannot_be_told_apart_is_explained() {
    let config = corpus::private_config("p1-secretbox");
    let decode = |input: Vec<u8>| {
        bin().words("decode --encryption-config").arg(&config).stdin(input).run().code(4)
    };
    let value = [b"k8s:enc:secretbox:v1:secret-key-1:".as_slice(), &[7; 60]].concat();
    // Where the first value ends and the second key begins is not in the simple form.
    let two = [b"/registry/secrets/a/b\n".as_slice(), &value, b"\n/registry/secrets/a/c\n", &value];
    decode(two.concat()).says("-w json");
}

#[test]
fn nothing_and_nonsense_are_errors() {
    bin().arg("decode").run().fails_with_hint(1).says("nothing on stdin");
    // The hint of each says what to give; none of them is called a stored value.
    for (input, looks) in [
        (&b"hello"[..], "text of 5 bytes"),
        (b"\"ClusterID\" : 1234\n\"Key\" : \"/registry\"\n", "without the line \"Value\""),
        (br"\x2f\x72\x65", "text of 12 bytes"),
        (br#"{"health":"true"}"#, "lacks apiVersion or kind"),
        (b"0000000 386b 3a73\n", "which swaps bytes"),
    ] {
        let done = bin().arg("decode").stdin(input).run().fails_with_hint(1);
        assert!(done.stdout.is_empty() && !done.stderr.contains("unencrypted"), "{done}");
        done.says(looks);
    }
    let health =
        bin().arg("decode").stdin("/registry/health\n{\"health\":\"true\"}\n").run().code(4);
    assert!(!health.stderr.contains("unencrypted"), "{health}");
    let sealed = bin().arg("decode").stdin("k8s:enc:secretbox:v1:k:0123456789").run().code(4);
    assert!(!sealed.says("--encryption-config").stderr.contains("--key"));
    bin()
        .arg("decode")
        .stdin(r#"{"header":{"cluster_id":1,"revision":3}}"#)
        .run()
        .fails_with_hint(1);
}

#[test]
fn a_plain_object_of_any_kind() {
    let done = bin()
        .words("decode -w json")
        .stdin(r#"{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"size":3.0}}"#)
        .run()
        .ok();
    assert_eq!(done.json()["spec"]["size"], 3);
}

fn fixture(name: &str) -> std::path::PathBuf {
    corpus::fixtures("decode").join(name)
}

/// What people paste, as the tools printed it.
#[test]
fn what_people_paste() {
    let dump = std::fs::read(fixture("dump.txt")).unwrap();
    let fields = std::fs::read_to_string(fixture("fields.txt")).unwrap();
    let base64 = std::fs::read_to_string(fixture("value.b64")).unwrap();
    let base64 = base64.trim_end();
    let line = fields.lines().find(|l| l.starts_with("\"Value\"")).unwrap();
    let string = line.split_once(" : ").unwrap().1;
    let entry = format!(
        r#"{{"key":"L3JlZ2lzdHJ5L3NlY3JldHMvZGVmYXVsdC9kYg==","create_revision":5,"mod_revision":5,"version":1,"value":"{base64}"}}"#
    );
    let bytes = base64::prelude::BASE64_STANDARD.decode(base64).unwrap();
    let hex = corpus::hex(&bytes);
    let lines = |line: usize| {
        let text = |chunk: &[u8]| format!("{}\n", str::from_utf8(chunk).unwrap());
        hex.as_bytes().chunks(line).map(text).collect::<String>()
    };
    let xxd = bytes.chunks(16).enumerate().map(|(i, row)| {
        let pairs = row.chunks(2).map(corpus::hex);
        let text = row.iter().map(|b| if b.is_ascii_graphic() { *b as char } else { '.' });
        let pairs = pairs.collect::<Vec<String>>().join(" ");
        format!("{:08x}: {pairs:<39}  {}\n", i * 16, text.collect::<String>())
    });
    for (form, input) in [
        ("xxd", xxd.collect::<String>().into_bytes()),
        ("xxd -p", lines(60).into_bytes()),
        ("select hex(value)", format!("{}\n", hex.to_uppercase()).into_bytes()),
        ("select value", [&bytes[..], b"\n"].concat()),
        ("-w fields", fields.clone().into_bytes()),
        ("-w fields through a terminal", fields.replace('\n', "\r\n").into_bytes()),
        ("its Value line", line.as_bytes().to_vec()),
        ("the string", string.as_bytes().to_vec()),
        ("hexdump -C", dump),
        ("base64", format!("{base64}\n").into_bytes()),
        ("base64 in quotes", format!("\"{base64}\"\n").into_bytes()),
        ("jq .kvs[0]", entry.clone().into_bytes()),
        ("jq .kvs", format!("[\n{entry}\n]\n").into_bytes()),
        ("select *", std::fs::read(fixture("row.bin")).unwrap()),
        ("select quote(value)", std::fs::read(fixture("quote.txt")).unwrap()),
    ] {
        let done = bin()
            .words("decode -w json --reveal --encryption-config")
            .arg(fixture("enc.yaml"))
            .stdin(input)
            .run()
            .ok();
        assert_eq!(done.json()["metadata"]["name"], "db", "{form}");
    }
}

/// A terminal turns each line feed into two bytes, also those inside ciphertext.
#[test]
fn carriage_returns_of_a_terminal_are_undone() {
    let etcd = Etcd::builder(Version::V35).restore(corpus::db("p1-secretbox")).start();
    let (key, value) = (0..)
        .find_map(|i| {
            let key = format!("/registry/secrets/default/crlf-{i}");
            let manifest = format!(r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"crlf-{i}","namespace":"default"}}}}"#);
            let value = bin()
                .words("encode --encryption-config")
                .arg(corpus::private_config("p1-secretbox"))
                .stdin(manifest)
                .run()
                .ok()
                .stdout;
            value.contains(&b'\n').then_some((key, value))
        })
        .unwrap();
    etcd.put(&key, &value);
    let output = etcd.ctl(&["get", &key]);
    let changed: Vec<u8> = output
        .iter()
        .flat_map(|b| if *b == b'\n' { vec![b'\r', b'\n'] } else { vec![*b] })
        .collect();
    bin()
        .words("decode -w json --encryption-config")
        .arg(corpus::private_config("p1-secretbox"))
        .stdin(changed)
        .run()
        .ok()
        .says("carriage returns");
}

/// rancher-backup writes `"<base64>"`, and authenticates `namespace#name`.
#[test]
fn a_file_of_a_rancher_backup() {
    let file = std::fs::read(fixture("rancher.json")).unwrap();
    let decode = |words: &str| {
        bin()
            .words(words)
            .arg("--encryption-config")
            .arg(fixture("rancher-enc.yaml"))
            .stdin(file.clone())
            .run()
    };
    decode("decode").code(4).says("NAMESPACE#NAME");
    assert_eq!(decode("decode -w json --key default#db").ok().json()["metadata"]["name"], "db");
}
