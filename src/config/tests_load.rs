//! The forms of backups, and what random damage must not do.

use std::fmt::Write as _;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

const YAML: &str = "apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets]
    providers:
      - aescbc:
          keys:
            - name: key-a
              secret: FkTEN+oWtLP0zuEO4zutUx/Gg4mEpSrFPCK0kbSmvAY=
      - kms:
          apiVersion: v2
          name: vault
          endpoint: unix:///run/kms.sock
      - identity: {}
";

fn loads(bytes: &[u8]) -> Vec<Loaded> {
    load(bytes, "FILE").unwrap_or_else(|e| panic!("{e}"))
}

fn says(bytes: &[u8], part: &str) {
    let message = load(bytes, "FILE").err().unwrap().to_string();
    assert!(message.contains(part), "{message}");
}

fn secret(key: &str, name: &str, yaml: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: ns}}\ndata:\n  other: AAAA\n  {key}: {}\n",
        STANDARD.encode(yaml)
    )
}

fn tar(members: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_cksum();
        builder.append_data(&mut { header }, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn plain_files_keep_their_hash() {
    let all = loads(YAML.as_bytes());
    assert_eq!(all[0].location, "FILE");
    let hash = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";
    let state = format!("reencrypt_finished-{hash}");
    says(state.as_bytes(), "encryption-config.json");
    assert_eq!(all[0].sha256.len(), 64);
    says(b"", "FILE is not a valid encryption configuration (read as a configuration file)");
}

#[test]
fn secrets_carry_configurations() {
    for key in ["encryption-config", "encryption-config.yaml", "enc.yaml"] {
        let all = loads(secret(key, "encryption-config-openshift-apiserver", YAML).as_bytes());
        assert_eq!(
            all[0].location,
            format!("FILE: Secret ns/encryption-config-openshift-apiserver key {key}")
        );
        // The hash is that of the configuration, not of the manifest around it.
        assert_eq!(all[0].sha256, loads(YAML.as_bytes())[0].sha256);
    }
    let text: String = YAML.lines().fold(String::new(), |mut out, l| {
        let _ = writeln!(out, "    {l}");
        out
    });
    let plain =
        format!("kind: Secret\nmetadata: {{name: x}}\nstringData:\n  encryption-config: |\n{text}");
    assert_eq!(loads(plain.as_bytes()).len(), 1);
    let list = format!(
        "{{\"kind\":\"List\",\"apiVersion\":\"v1\",\"items\":[{{\"kind\":\"Secret\",\"metadata\":{{\"name\":\"a\"}},\"data\":{{\"encryption-config\":\"{}\"}}}},{{\"kind\":\"Secret\",\"data\":{{\"x\":\"eA==\"}}}}]}}",
        STANDARD.encode(YAML)
    );
    assert_eq!(loads(list.as_bytes()).len(), 1);
    let other = YAML.replace("key-a", "key-b");
    let documents = format!(
        "{}---\n{}",
        secret("encryption-config", "a", YAML),
        secret("encryption-config", "b", &other)
    );
    assert_eq!(loads(documents.as_bytes()).len(), 2);
    says(
        secret("password", "a", "hunter2").as_bytes(),
        "holds no encryption configuration (read as a Secret manifest)",
    );
    says(
        secret("encryption-config", "a", "kind: x").as_bytes(),
        "key encryption-config is not a valid",
    );
    says(
        secret("enc.yaml", "a", &YAML.replace("key-a", "''")).as_bytes(),
        "key enc.yaml is not a valid",
    );
}

#[test]
fn openshift_archives_carry_configurations() {
    let newer = YAML.replace("key-a", "key-b");
    let at = |n: u32| {
        format!(
            "static-pod-resources/kube-apiserver-pod-{n}/secrets/encryption-config/encryption-config"
        )
    };
    let members = [
        (at(9), YAML.to_owned()),
        (at(10), newer.clone()),
        (at(8), YAML.to_owned()),
        (
            "static-pod-resources/kube-apiserver-pod-10/kube-apiserver-pod.yaml".to_owned(),
            "kind: Pod\nspec: encryption-config Secret\n".to_owned(),
        ),
        (
            "static-pod-resources/kube-apiserver-pod-10/secrets/tls/tls.key".to_owned(),
            "x".to_owned(),
        ),
    ];
    let members: Vec<(&str, &str)> =
        members.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    let archive = tar(&members);
    for bytes in [archive.clone(), gzip(&archive)] {
        let all = loads(&bytes);
        // The newest revision first, the same content once.
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].location, format!("FILE: {}", at(10)));
        assert_eq!(all[0].config.entries[0].providers[0].keys()[0].name, "key-b");
    }
    assert_eq!(loads(&gzip(YAML.as_bytes())).len(), 1);
    assert_eq!(loads(&tar(&[("s.yaml", &secret("encryption-config", "a", YAML))])).len(), 1);
    says(&tar(&[("a", "b")]), "(read as a tar archive)");
    says(&gzip(&tar(&[("a", "b")])), "(read as a gzipped tar archive)");
    says(&tar(&[(&at(1), &YAML.replace("v2", "v9"))]), "is not a valid");
    let mut torn = gzip(&archive);
    torn.truncate(torn.len() / 2);
    says(&torn, "cannot be read as a gzipped tar archive");
    let mut torn = archive.clone();
    torn.truncate(600);
    assert!(load(&torn, "FILE").is_err());
}

#[test]
fn openshift_keys_make_a_configuration() {
    let key = |component: &str, number: u32, mode: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: encryption-key-{component}-{number}\n  namespace: openshift-config-managed\n  annotations:\n    encryption.apiserver.operator.openshift.io/mode: {mode}\ndata:\n  encryption.apiserver.operator.openshift.io-key: {}\n---\n",
            STANDARD.encode([u8::try_from(number).unwrap(); 32])
        )
    };
    let text = [
        key("openshift-kube-apiserver", 9, "aescbc"),
        key("openshift-kube-apiserver", 10, "aesgcm"),
        key("openshift-apiserver", 3, "aesgcm"),
        key("openshift-kube-apiserver", 8, "identity"),
    ]
    .concat();
    let all = loads(text.as_bytes());
    let [routes, kube] = &all[..] else { panic!("{}", all.len()) };
    assert_eq!(routes.config.entries[0].providers[0].keys()[0].name, "3");
    let providers = &kube.config.entries[0].providers;
    assert_eq!(providers.len(), 3);
    assert_eq!(providers[0].keys()[0].name, "10");
    assert_eq!(providers[1].keys()[0].name, "9");
}

/// Everything that an error or a warning could show.
fn shown(bytes: &[u8]) -> String {
    let findings =
        |all: &[Finding]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    match load(bytes, "FILE") {
        Ok(all) => all.iter().fold(String::new(), |mut out, l| {
            let _ =
                writeln!(out, "{}\n{}\n{}", l.location, findings(&l.warnings), findings(&l.advice));
            out
        }),
        Err(e) => {
            let mut out = format!("{e}\n{e:?}\n");
            if let LoadError::Invalid { errors, .. } = &e {
                out += &findings(&errors.errors);
                out += &findings(&errors.warnings);
            }
            out
        }
    }
}

/// Secrets of the corpus; none of their stretches of eight characters may be shown.
const SECRETS: [&str; 4] = [
    "u7mcOcHKbFh9eVluB18hbFIsVfwpvgbXv650QacDYXA=",
    "FkTEN+oWtLP0zuEO4zutUx/Gg4mEpSrFPCK0kbSmvAY=",
    "dXP+mRoAbKXe9ZuZ6aLgqQ==",
    "wIF9I9hjyf0o/7CEpVSSGl1sGmAJflX+",
];

fn leak(text: &str) -> Option<&'static str> {
    SECRETS.into_iter().find(|s| (0..=s.len() - 8).any(|i| text.contains(&s[i..i + 8])))
}

const BASES: [&str; 2] = [
    YAML,
    "{\"kind\":\"EncryptionConfiguration\",\"apiVersion\":\"apiserver.config.k8s.io/v1\",\"resources\":[{\"resources\":[\"secrets\"],\"providers\":[{\"aescbc\":{\"keys\":[{\"name\":\"a\",\"secret\":\"FkTEN+oWtLP0zuEO4zutUx/Gg4mEpSrFPCK0kbSmvAY=\"}]}},{\"identity\":{}}]}]}",
];

proptest! {
    #![proptest_config(crate::testing::cases(600))]

    #[test]
    fn damage_neither_panics_nor_leaks(
        base in 0..BASES.len(),
        edits in proptest::collection::vec((0usize..700, 0u8..6, any::<u8>()), 1..6),
    ) {
        let mut bytes = BASES[base].as_bytes().to_vec();
        for (at, how, byte) in edits {
            let at = at % bytes.len();
            let punctuation = b": \n-{}[],'\"#&*!|>%@`?\t";
            match how {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                2 => bytes.insert(at, punctuation[usize::from(byte) % punctuation.len()]),
                3 => bytes.truncate(at.max(1)),
                4 => {
                    // A line moves: secrets end up in other fields.
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let mut lines: Vec<&str> = text.lines().collect();
                    let line = lines.remove(at % lines.len());
                    lines.insert(usize::from(byte) % (lines.len() + 1), line);
                    bytes = lines.join("\n").into_bytes();
                }
                _ => {
                    // A secret lands in place of a word.
                    let secret = SECRETS[usize::from(byte) % SECRETS.len()].as_bytes();
                    let end = (at + usize::from(byte % 12)).min(bytes.len());
                    bytes.splice(at..end, secret.iter().copied());
                }
            }
            if bytes.is_empty() { bytes.push(b'{'); }
        }
        let text = shown(&bytes);
        prop_assert_eq!(leak(&text), None, "{}", text);
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = load(&bytes, "FILE");
    }

    #[test]
    fn any_yaml_like_text_is_survived(text in "[ \\-:{}\\[\\],&*!|>'\"%@#a-c\\n\\t0~<]{0,120}") {
        let _ = load(text.as_bytes(), "FILE");
    }
}
