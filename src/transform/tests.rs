//! The list logic against crafted configurations: order, prefixes, fall-through, staleness.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use sha2::{Digest, Sha256};

use super::kms_v2::SourceType::{AesGcmKey, HkdfSeed};
use super::*;
use crate::config::{ConfigSet, Kms, load};
use crate::envelope::Provider;
use crate::kms::{KmsError, NoPlugins, Sealed, Unwrap, WrappedKey};
use crate::secret::{KeyMaterial, Plaintext};

const PATH: &[u8] = b"/registry/secrets/default/a";
const PLAIN: &[u8] = br#"{"kind":"Secret"}"#;

/// Wraps like the plugins of the corpus: nonce ‖ AES-256-GCM(SHA-256(key ID), data key).
struct Fake {
    key_id: &'static str,
    calls: AtomicUsize,
}

impl Fake {
    fn new(key_id: &'static str) -> Arc<Self> {
        Arc::new(Self { key_id, calls: AtomicUsize::new(0) })
    }

    fn kek(key_id: &str) -> aesgcm::Cipher {
        aesgcm::Cipher::new(&KeyMaterial::new(Sha256::digest(key_id).to_vec())).unwrap()
    }

    fn unwrap(&self, key_id: &str, wrapped: &[u8]) -> Result<KeyMaterial, KmsError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let refused = |_| KmsError::Refused {
            endpoint: "test".to_owned(),
            unknown_request: false,
            cause: "no such key".to_owned(),
        };
        let plain = Self::kek(key_id).open(b"", wrapped).map_err(refused)?;
        Ok(KeyMaterial::new(plain.expose().to_vec()))
    }

    fn wrap(key_id: &str, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Self::kek(key_id).seal(b"", key, &mut out).unwrap();
        out
    }
}

impl Unwrap for Fake {
    fn unwrap_v1(&self, _: &Kms, wrapped: &[u8]) -> Result<KeyMaterial, KmsError> {
        self.unwrap("kek-v1", wrapped)
    }

    fn unwrap_v2(&self, _: &Kms, wrapped: WrappedKey<'_>) -> Result<KeyMaterial, KmsError> {
        self.unwrap(wrapped.key_id, wrapped.source)
    }

    fn key_id(&self, _: &Kms) -> Result<Arc<str>, KmsError> {
        Ok(self.key_id.into())
    }

    fn wrap_v1(&self, _: &Kms, data_key: &KeyMaterial) -> Result<Vec<u8>, KmsError> {
        Ok(Self::wrap("kek-v1", data_key.expose()))
    }

    fn seal_v2(&self, _: &Kms) -> Result<Arc<Sealed>, KmsError> {
        let seed = KeyMaterial::new((0..32).collect());
        let source = Self::wrap(self.key_id, seed.expose());
        let annotations = vec![("version.example.com".to_owned(), b"1".to_vec())];
        Ok(Arc::new(Sealed { seed, key_id: self.key_id.to_owned(), source, annotations }))
    }
}

/// `aescbc a=1 b=2`: a provider with keys and the number that fills each.
fn provider(text: &str) -> String {
    let mut words = text.split(' ');
    let kind = words.next().unwrap();
    match kind {
        "identity" => "      - identity: {}\n".to_owned(),
        "kms" => {
            let (version, name) = (words.next().unwrap(), words.next().unwrap());
            format!("      - kms: {{apiVersion: {version}, name: {name}, endpoint: 'unix:///x'}}\n")
        }
        _ => {
            let keys = words.map(|w| {
                let (name, fill) = w.rsplit_once('=').unwrap();
                let secret = base64::engine::general_purpose::STANDARD
                    .encode([fill.parse::<u8>().unwrap(); 32]);
                format!("{{name: '{name}', secret: {secret}}}")
            });
            format!("      - {kind}: {{keys: [{}]}}\n", keys.collect::<Vec<_>>().join(", "))
        }
    }
}

fn entry(resource: &str, providers: &[&str]) -> String {
    let providers: String = providers.iter().map(|p| provider(p)).collect();
    format!("  - resources: ['{resource}']\n    providers:\n{providers}")
}

fn transformers(files: &[&[String]], kms: Arc<dyn Unwrap>) -> Transformers {
    let loaded = files.iter().enumerate().flat_map(|(i, entries)| {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n{}",
            entries.concat()
        );
        load(text.as_bytes(), &format!("file-{i}.yaml")).unwrap()
    });
    Transformers::new(&ConfigSet::new(loaded.collect()).unwrap(), kms).unwrap()
}

/// One configuration with one entry for secrets.
fn secrets(providers: &[&str]) -> Arc<ResourceTransformers> {
    with_kms(providers, Arc::new(NoPlugins))
}

fn with_kms(providers: &[&str], kms: Arc<dyn Unwrap>) -> Arc<ResourceTransformers> {
    transformers(&[&[entry("secrets", providers)]], kms).for_resource("secrets")
}

fn plain() -> Plaintext {
    Plaintext::new(PLAIN.to_vec())
}

/// What `providers` write.
fn written(providers: &[&str]) -> Vec<u8> {
    secrets(providers).write(PATH, &plain()).unwrap()
}

/// Status and key by reading, and the reason.
fn read(t: &ResourceTransformers, value: &[u8]) -> (Status, String) {
    match t.read(PATH, value) {
        Ok(o) => {
            assert!(o.plaintext.expose() == PLAIN, "another plaintext");
            assert_eq!(o.stale, o.reason.is_some());
            let status = if o.stale { Status::Stale } else { Status::Current };
            (status, o.reason.unwrap_or_default())
        }
        Err(e) => (Status::Unreadable, e.to_string()),
    }
}

/// Status by prefix, and the reason.
fn classify(t: &ResourceTransformers, value: &[u8]) -> (Status, String) {
    let verdict = t.classify(value);
    assert_eq!(verdict.status == Status::Current, verdict.reason.is_none());
    (verdict.status, verdict.reason.unwrap_or_default().into_owned())
}

/// Both ways agree; returns what they say.
#[track_caller]
fn both(t: &ResourceTransformers, value: &[u8]) -> (Status, String) {
    let by_prefix = classify(t, value);
    assert_eq!(by_prefix, read(t, value));
    by_prefix
}

#[track_caller]
fn assert_both(t: &ResourceTransformers, value: &[u8], status: Status, reason: &str) {
    let (got, why) = both(t, value);
    assert_eq!((got, why.as_str()), (status, reason));
}

#[test]
fn each_provider_reads_what_it_writes() {
    for p in
        ["identity", "secretbox k=1", "aescbc k=1", "aesgcm k=1", "kms v1 plugin", "kms v2 plugin"]
    {
        let t = with_kms(&[p], Fake::new("kek"));
        let value = t.write(PATH, &plain()).unwrap();
        assert_both(&t, &value, Status::Current, "");
        let used = t.read(PATH, &value).unwrap().used;
        assert_eq!(used, t.write_key(), "{p}");
        assert_eq!(value.starts_with(b"k8s:enc:"), p != "identity");
    }
}

#[test]
fn staleness_is_position() {
    let t = secrets(&["secretbox n=2 o=1", "aescbc c=3", "identity"]);
    let s = Status::Stale;
    assert_both(&t, &written(&["secretbox n=2"]), Status::Current, "");
    assert_both(&t, &written(&["secretbox o=1"]), s, "key `o` is not the write key (`n`)");
    assert_both(
        &t,
        &written(&["aescbc c=3"]),
        s,
        "aescbc key `c` is not the write key (secretbox key `n`)",
    );
    assert_both(&t, PLAIN, s, "stored unencrypted, while secretbox key `n` is what is written");
}

#[test]
fn case_1_names_with_colons_and_common_beginnings() {
    let dated = "aescbckey-2024-05-01T10:11:12+02:00";
    for name in [dated, "v1", "x", "with space", "ключ", &"n".repeat(10_000)] {
        // The helper splits at spaces.
        let name = name.replace(' ', "_");
        let config = format!("aescbc {name}=1 other=2");
        let value = written(&[&format!("aescbc {name}=1")]);
        assert_both(&secrets(&[&config]), &value, Status::Current, "");
        assert_eq!(secrets(&[&config]).classify(&value).key_name.unwrap(), name);
    }
    // `a` is tried on values of `a:b` too, fails, and does not end the search.
    for p in ["aesgcm", "secretbox", "aescbc"] {
        let value = written(&[&format!("{p} a:b=2")]);
        let t = secrets(&[&format!("{p} a=1 a:b=2")]);
        assert_both(&t, &value, Status::Stale, "key `a:b` is not the write key (`a`)");
        let t = secrets(&[&format!("{p} a:b=2 a=1")]);
        assert_both(&t, &value, Status::Current, "");
    }
}

#[test]
fn case_2_values_without_a_body() {
    let t = secrets(&["aescbc x=1", "identity"]);
    let unreadable = |value: &[u8], reason: &str| {
        assert_both(&t, value, Status::Unreadable, reason);
    };
    let unknown = "begins with `k8s:enc:` but names no known provider";
    unreadable(b"k8s:enc:", unknown);
    unreadable(b"k8s:enc:aescbc:v2:x:", unknown);
    unreadable(b"k8s:enc:foo:v1:x:abc", unknown);
    unreadable(b"k8s:enc:secretbox:v1:x:abc", "no secretbox v1 provider is configured for secrets");
    // The provider matches, no key does; and a key matches, with nothing to decrypt.
    let value = b"k8s:enc:aescbc:v1:";
    assert_eq!(classify(&t, value), (Status::Unreadable, "truncated: it names no key".to_owned()));
    assert_eq!(read(&t, value).1, "aescbc provider has no key of this name");
    let value = b"k8s:enc:aescbc:v1:x:";
    assert!(matches!(t.read(PATH, value), Err(ReadError::Malformed(_))));
    // Not encrypted, whatever it looks like.
    for value in [&b""[..], b"K8S:ENC:aescbc:v1:x:", b" k8s:enc:aescbc:v1:x:"] {
        assert_eq!(classify(&t, value).0, Status::Stale);
        assert!(t.read(PATH, value).unwrap().plaintext.expose() == value);
    }
}

#[test]
fn case_3_the_prefix_inside_plaintext_is_data() {
    let value = b"k8s\0\x0a\x05k8s:enc:aescbc:v1:x:";
    let t = secrets(&["identity", "aescbc x=1"]);
    assert_eq!(classify(&t, value).0, Status::Current);
    assert!(t.read(PATH, value).unwrap().plaintext.expose() == value);
}

#[test]
fn case_4_one_name_with_two_secrets() {
    for p in ["aesgcm", "secretbox", "aescbc"] {
        // Many values, because CBC padding under the first key fits now and then.
        let (one, two) = (format!("{p} k=1"), format!("{p} k=2"));
        let t = secrets(&[&one, &two]);
        let same_provider = secrets(&[&format!("{p} k=1 k=2")]);
        for _ in 0..100 {
            let value = written(&[&two]);
            let stale =
                (Status::Stale, "key `k` is not the write key, which has the same name".to_owned());
            assert_eq!(read(&t, &value), stale);
            assert_eq!(read(&same_provider, &value), stale);
        }
        assert_eq!(read(&t, &written(&[&one])).0, Status::Current);
    }
}

#[test]
fn case_5_a_wrong_cbc_key_whose_padding_fits() {
    // About one value in 256 gets past the padding check under the wrong key.
    let wrong = secrets(&["aescbc k=1"]);
    let cipher = aescbc::Cipher::new(&KeyMaterial::new(vec![1; 32])).unwrap();
    let fits = |value: &[u8]| cipher.open(&value[b"k8s:enc:aescbc:v1:k:".len()..]).is_ok();
    let value = std::iter::repeat_with(|| written(&["aescbc k=2"]))
        .take(20_000)
        .find(|value| fits(value))
        .expect("one value in 256 fits");
    let error = wrong.read(PATH, &value).err().unwrap();
    assert_eq!(
        error.to_string(),
        "aescbc key `k`: what it decrypts to is not a Kubernetes object (another key's, or damaged)"
    );
    assert!(matches!(error, ReadError::Failed(_)));
    let t = secrets(&["aescbc k=1", "aescbc k=2"]);
    assert_eq!(read(&t, &value).0, Status::Stale, "the garbage does not hide the right key");
}

#[test]
fn case_7_copies_under_another_etcd_key() {
    let other = b"/registry/secrets/default/b";
    for (p, detected) in [
        ("secretbox k=1", false),
        ("aescbc k=1", false),
        ("aesgcm k=1", true),
        ("kms v1 p", true),
        ("kms v2 p", true),
    ] {
        let t = with_kms(&[p], Fake::new("kek"));
        let value = t.write(PATH, &plain()).unwrap();
        assert_eq!(t.read(other, &value).is_err(), detected, "{p}");
        // An attacker who may write to etcd can do this unnoticed.
        assert_eq!(t.classify(&value).status, Status::Current);
    }
}

#[test]
fn case_9_kms_v1_bodies_in_cbc() {
    let t = with_kms(&["kms v1 p"], Fake::new("kek"));
    let data_key = KeyMaterial::new(vec![9; 32]);
    let wrapped = Fake::wrap("kek-v1", data_key.expose());
    let mut value = b"k8s:enc:kms:v1:p:".to_vec();
    value.extend(u16::try_from(wrapped.len()).unwrap().to_be_bytes());
    value.extend(&wrapped);
    aescbc::Cipher::new(&data_key).unwrap().seal(PLAIN, &mut value).unwrap();
    let (status, reason) = read(&t, &value);
    assert_eq!(status, Status::Stale);
    assert!(reason.contains("AES-CBC"), "{reason}");
}

#[test]
fn case_11_kms_v1_data_keys() {
    let t = with_kms(&["kms v1 p"], Fake::new("kek"));
    for (len, status) in [
        (16, Status::Current),
        (24, Status::Current),
        (32, Status::Current),
        (31, Status::Unreadable),
        (0, Status::Unreadable),
    ] {
        let data_key = KeyMaterial::new(vec![9; len]);
        let wrapped = Fake::wrap("kek-v1", data_key.expose());
        let mut value = b"k8s:enc:kms:v1:p:".to_vec();
        if kms_v1::seal(&data_key, &wrapped, PATH, PLAIN, &mut value).is_err() {
            value.extend(u16::try_from(wrapped.len()).unwrap().to_be_bytes());
            value.extend(&wrapped);
            value.extend([1; 60]);
        }
        assert_eq!(read(&t, &value).0, status, "{len} bytes");
    }
}

#[test]
fn case_10_and_11_kms_v2_data_keys() {
    let t = with_kms(&["kms v2 p"], Fake::new("kek"));
    let value = |source_type, len: usize| {
        let data_key = KeyMaterial::new(vec![5; len]);
        // A key of a wrong length encrypts nothing: any bytes will do.
        let data = kms_v2::DataKey::new(source_type, &data_key)
            .map_or_else(|_| vec![1; 80], |k| k.seal(PATH, PLAIN).unwrap());
        let source = Fake::wrap("kek", data_key.expose());
        let object = kms_v2::Object {
            data: &data,
            key_id: "kek",
            source: &source,
            annotations: vec![],
            source_type,
        };
        let mut out = b"k8s:enc:kms:v2:p:".to_vec();
        object.encode(&mut out).unwrap();
        out
    };
    for len in [16, 24, 32] {
        assert_both(
            &t,
            &value(AesGcmKey, len),
            Status::Stale,
            "its data key is no seed, as Kubernetes 1.28 and older wrote it",
        );
    }
    assert_eq!(both(&t, &value(HkdfSeed, 32)).0, Status::Current);
    assert_eq!(both(&t, &value(HkdfSeed, 48)).0, Status::Current);
    assert_eq!(read(&t, &value(AesGcmKey, 31)).0, Status::Unreadable);
    assert_eq!(read(&t, &value(HkdfSeed, 31)).0, Status::Unreadable, "a short seed");
    let broken = b"k8s:enc:kms:v2:p:\x0a\x05abc";
    assert_eq!(classify(&t, broken).0, Status::Unreadable);
    assert!(matches!(t.read(PATH, broken), Err(ReadError::Malformed(_))));
}

#[test]
fn kms_v2_is_stale_by_its_key_id() {
    let value = with_kms(&["kms v2 p"], Fake::new("kek-1")).write(PATH, &plain()).unwrap();
    let moved = with_kms(&["kms v2 p"], Fake::new("kek-2"));
    assert_both(
        &moved,
        &value,
        Status::Stale,
        "KMS key ID `kek-1` is not the plugin's current one (`kek-2`)",
    );
    let verdict = moved.classify(&value);
    assert_eq!(verdict.key_name.unwrap(), "p");
    assert_eq!(verdict.kms_key_id.unwrap(), "kek-1");
    // A plugin that does not answer: nobody knows, and nothing can be read.
    let silent = secrets(&["kms v2 p"]);
    let (status, reason) = classify(&silent, &value);
    assert_eq!(status, Status::Unknown);
    assert!(reason.contains("whether KMS key ID `kek-1` is the current one is not known"));
    assert!(matches!(silent.read(PATH, &value), Err(ReadError::KmsUnreachable(_))));
}

#[test]
fn one_call_for_each_data_key_of_kms_v2() {
    let fake = Fake::new("kek");
    let t = with_kms(&["kms v2 p"], Arc::clone(&fake) as _);
    let value = t.write(PATH, &plain()).unwrap();
    for _ in 0..5 {
        t.read(PATH, &value).unwrap();
    }
    assert_eq!(fake.calls.load(Ordering::Relaxed), 1);
}

#[test]
fn an_unreachable_plugin_leaves_other_providers_alone() {
    let t = secrets(&["kms v2 p", "kms v1 q", "aesgcm k=1", "identity"]);
    assert_eq!(read(&t, &written(&["aesgcm k=1"])).0, Status::Stale);
    assert_eq!(read(&t, PLAIN).0, Status::Stale);
    let value = with_kms(&["kms v1 q"], Fake::new("kek")).write(PATH, &plain()).unwrap();
    let error = t.read(PATH, &value).err().unwrap();
    assert!(matches!(error, ReadError::KmsUnreachable(_)));
    assert_eq!(error.to_string(), "kms provider `q`: no KMS plugin is connected");
}

#[test]
fn case_12_aes_192() {
    let secret = base64::engine::general_purpose::STANDARD.encode([7; 24]);
    for p in ["aescbc", "aesgcm"] {
        let entry = format!(
            "  - resources: [secrets]\n    providers:\n      - {p}: {{keys: [{{name: k, secret: {secret}}}]}}\n"
        );
        let t = transformers(&[&[entry]], Arc::new(NoPlugins)).for_resource("secrets");
        let value = t.write(PATH, &plain()).unwrap();
        assert_both(&t, &value, Status::Current, "");
    }
}

#[test]
fn case_13_one_resource_in_two_entries() {
    let entries =
        [entry("secrets", &["aescbc a=1"]), entry("secrets", &["aescbc b=2", "identity"])];
    let t = transformers(&[&entries], Arc::new(NoPlugins)).for_resource("secrets");
    assert_both(&t, &written(&["aescbc a=1"]), Status::Current, "");
    let reason = "key `b` is not the write key (`a`)";
    assert_both(&t, &written(&["aescbc b=2"]), Status::Stale, reason);
    assert_eq!(both(&t, PLAIN).0, Status::Stale);
}

#[test]
fn case_14_identity_first_last_and_absent() {
    let absent = secrets(&["aescbc k=1"]);
    assert_both(
        &absent,
        PLAIN,
        Status::Unreadable,
        "stored unencrypted, and no identity provider is configured for secrets",
    );
    let first = secrets(&["identity", "aescbc k=1"]);
    assert_both(&first, PLAIN, Status::Current, "");
    assert_both(
        &first,
        &written(&["aescbc k=1"]),
        Status::Stale,
        "encrypted with aescbc key `k`, while the configuration writes unencrypted",
    );
    assert!(first.write(PATH, &plain()).unwrap() == PLAIN);

    let all = transformers(&[&[entry("secrets", &["aescbc k=1"])]], Arc::new(NoPlugins));
    let implied = all.for_resource("configmaps");
    assert_both(&implied, PLAIN, Status::Current, "");
    assert_both(
        &implied,
        &written(&["aescbc k=1"]),
        Status::Unreadable,
        "encrypted, and the configuration does not serve configmaps",
    );
    assert!(implied.write(PATH, &plain()).unwrap() == PLAIN);
    assert_eq!(implied.write_key().provider, Provider::Identity);
}

#[test]
fn wildcards_serve_what_nothing_else_names() {
    let entries = [
        entry("secrets", &["aescbc s=1", "identity"]),
        entry("*.apps", &["aesgcm a=2", "identity"]),
        entry("*.*", &["secretbox w=3", "identity"]),
    ];
    let t = transformers(&[&entries], Arc::new(NoPlugins));
    for (resource, key) in [
        ("secrets", "s"),
        ("deployments.apps", "a"),
        ("configmaps", "w"),
        ("widgets.example.com", "w"),
    ] {
        assert_eq!(t.for_resource(resource).write_key().key.as_deref(), Some(key), "{resource}");
    }
}

#[test]
fn several_configurations() {
    let now = [entry("secrets", &["aescbc n=2", "identity"])];
    let old =
        [entry("secrets", &["aescbc n=9", "aescbc o=1"]), entry("configmaps", &["aesgcm c=3"])];
    let all = transformers(&[&now, &old], Arc::new(NoPlugins));
    let t = all.for_resource("secrets");
    assert_both(&t, &written(&["aescbc n=2"]), Status::Current, "");
    let value = written(&["aescbc o=1"]);
    assert_both(&t, &value, Status::Stale, "key `o` is only in file-1.yaml");
    assert_eq!(t.read(PATH, &value).unwrap().used.config, 1);
    // The same name with another secret: only decrypting tells.
    let value = written(&["aescbc n=9"]);
    assert_eq!(classify(&t, &value).0, Status::Current);
    assert_eq!(read(&t, &value), (Status::Stale, "key `n` is only in file-1.yaml".to_owned()));
    // Neither has it: every attempt is listed.
    let error = t.read(PATH, &written(&["aescbc n=77"])).err().unwrap();
    assert_eq!(error.attempts().iter().filter(|a| a.key.as_deref() == Some("n")).count(), 2);

    let t = all.for_resource("configmaps");
    let value = written(&["aesgcm c=3"]);
    assert_both(&t, &value, Status::Stale, "aesgcm key `c` is only in file-1.yaml");
}

#[test]
fn errors_and_reasons_hold_no_secrets() {
    let value = written(&["aesgcm k=42"]);
    let t = secrets(&["aesgcm k=43"]);
    let error = t.read(PATH, &value).err().unwrap();
    let text = format!("{error} {error:?}");
    assert!(!text.contains("Secret") && !text.contains("42"), "{text}");
    // A name in a damaged value may be anything: it is cut and escaped.
    let mut value = b"k8s:enc:aescbc:v1:".to_vec();
    value.extend([0x1b, b'[', b'3', b'1', b'm']);
    value.extend([b'x'; 5000]);
    value.extend(b":payload");
    let (_, reason) = classify(&secrets(&["aescbc k=1"]), &value);
    assert!(reason.len() < 300 && !reason.contains('\x1b'), "{reason}");
}
