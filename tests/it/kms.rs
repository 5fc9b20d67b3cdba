//! KMS plugins over real sockets and real gRPC.

mod check;
mod escrow;
mod exec;
mod keyring;
mod needs;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use atrest::config::{ConfigSet, Kms, load};
use atrest::envelope::Version;
use atrest::kms::{KmsError, Plugins, Unwrap};
use atrest::secret::Plaintext;
use atrest::transform::{ReadError, ResourceTransformers, Status, Transformers};

use crate::support::kms_plugin::{Behaviour, Listen, Running};

const PATH: &[u8] = b"/registry/secrets/default/a";
const PLAIN: &[u8] = br#"{"kind":"Secret"}"#;

fn plain() -> Plaintext {
    Plaintext::new(PLAIN.to_vec())
}

struct Rig {
    _dir: tempfile::TempDir,
    socket: PathBuf,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("kms.sock");
        Self { _dir: dir, socket }
    }

    fn start(&self, behaviour: Behaviour) -> Running {
        Running::start(Listen::Path(self.socket.clone()), behaviour)
    }

    fn transformers(&self, version: &str) -> Arc<ResourceTransformers> {
        transformers(version, &format!("unix://{}", self.socket.display()), "60s")
    }
}

fn config(version: &str, endpoint: &str, timeout: &str) -> ConfigSet {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n  \
         - resources: [secrets]\n    providers:\n      - kms: {{apiVersion: {version}, name: p, \
         endpoint: '{endpoint}', timeout: {timeout}}}\n      - identity: {{}}\n"
    );
    ConfigSet::new(load(text.as_bytes(), "test").unwrap()).unwrap()
}

fn transformers(version: &str, endpoint: &str, timeout: &str) -> Arc<ResourceTransformers> {
    let all =
        Transformers::new(&config(version, endpoint, timeout), Arc::new(Plugins::new())).unwrap();
    all.for_resource("secrets")
}

fn settings(set: &ConfigSet) -> Kms {
    match &set.current().config.entries[0].providers[0] {
        atrest::config::ProviderConfiguration::Kms(kms) => kms.clone(),
        _ => unreachable!("the configuration above"),
    }
}

#[track_caller]
fn assert_reads(t: &ResourceTransformers, value: &[u8]) {
    match t.read(PATH, value) {
        Ok(opened) => assert!(opened.plaintext.expose() == PLAIN),
        Err(error) => panic!("{error}"),
    }
}

#[track_caller]
fn error(t: &ResourceTransformers, value: &[u8]) -> ReadError {
    match t.read(PATH, value) {
        Ok(_) => panic!("reads"),
        Err(error) => error,
    }
}

#[test]
fn both_versions_write_and_read() {
    for version in ["v1", "v2"] {
        let rig = Rig::new();
        let plugin = rig.start(Behaviour::new("kek"));
        let value = rig.transformers(version).write(PATH, &plain()).unwrap();
        // Another process would have nothing cached.
        let t = rig.transformers(version);
        let opened = t.read(PATH, &value).unwrap();
        assert!(opened.plaintext.expose() == PLAIN && !opened.stale);
        assert_eq!(opened.used.kms_key_id.as_deref(), (version == "v2").then_some("kek"));
        assert_eq!(plugin.counts().decrypt.load(SeqCst), 1);
    }
}

#[test]
fn sockets_in_every_spelling() {
    let dir = tempfile::tempdir().unwrap();
    let spaced = dir.path().join("a b.sock");
    let _spaced = Running::start(Listen::Path(spaced.clone()), Behaviour::new("kek"));
    let url = format!("unix://{}", spaced.display()).replace(' ', "%20");
    let t = transformers("v2", &url, "60s");
    assert_reads(&t, &t.write(PATH, &plain()).unwrap());

    let name = format!("atrest-test-{}", std::process::id());
    let _abstract = Running::start(Listen::Abstract(name.clone()), Behaviour::new("kek"));
    let t = transformers("v2", &format!("unix:///@{name}"), "60s");
    assert_reads(&t, &t.write(PATH, &plain()).unwrap());
    // Passes the API server's validation, and never connects.
    let t = transformers("v2", &format!("unix://@{name}"), "60s");
    let error = t.write(PATH, &plain()).err().unwrap().to_string();
    assert!(error.contains("names no socket"), "{error}");
}

#[test]
fn a_new_key_makes_old_values_stale() {
    let rig = Rig::new();
    let plugin = rig.start(Behaviour::new("kek-1"));
    let old = rig.transformers("v2").write(PATH, &plain()).unwrap();
    plugin.set(|b| "kek-2".clone_into(&mut b.key_id));
    let t = rig.transformers("v2");
    let reason = "KMS key ID `kek-1` is not the plugin's current one (`kek-2`)";
    assert_eq!(t.classify(&old).reason.as_deref(), Some(reason));
    assert_eq!(t.read(PATH, &old).unwrap().reason.as_deref(), Some(reason));
    let new = t.write(PATH, &plain()).unwrap();
    assert_eq!(t.classify(&new).status, Status::Current);
}

#[test]
fn one_call_however_many_threads_ask() {
    for version in ["v1", "v2"] {
        let rig = Rig::new();
        let plugin = rig.start(Behaviour::new("kek"));
        let value = rig.transformers(version).write(PATH, &plain()).unwrap();
        plugin.set(|b| b.delay = Duration::from_millis(200));
        let t = rig.transformers(version);
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| assert_reads(&t, &value));
            }
        });
        assert_reads(&t, &value);
        assert_eq!(plugin.counts().decrypt.load(SeqCst), 1, "{version}");
    }
}

#[test]
fn seeds_are_shared_by_writes() {
    let rig = Rig::new();
    let plugin = rig.start(Behaviour::new("kek"));
    let t = rig.transformers("v2");
    let values: Vec<_> = (0..10).map(|_| t.write(PATH, &plain()).unwrap()).collect();
    assert_eq!(plugin.counts().encrypt.load(SeqCst), 1);
    for value in &values {
        assert_reads(&t, value);
    }
    assert_eq!(plugin.counts().decrypt.load(SeqCst), 1);
    let t = rig.transformers("v1");
    for _ in 0..3 {
        t.write(PATH, &plain()).unwrap();
    }
    assert_eq!(plugin.counts().encrypt.load(SeqCst), 4, "v1: a data key for each value");
}

#[test]
fn calls_in_flight_are_bounded() {
    let rig = Rig::new();
    let plugin = rig.start(Behaviour::new("kek"));
    let t = rig.transformers("v1");
    let values: Vec<_> = (0..48).map(|_| t.write(PATH, &plain()).unwrap()).collect();
    plugin.set(|b| b.delay = Duration::from_millis(100));
    let t = rig.transformers("v1");
    std::thread::scope(|s| {
        for value in &values {
            s.spawn(|| assert_reads(&t, value));
        }
    });
    let most = plugin.counts().most_in_flight.load(SeqCst);
    assert!((2..=16).contains(&most), "{most}");
}

#[test]
fn nobody_listens() {
    let rig = Rig::new();
    let value = {
        let _plugin = rig.start(Behaviour::new("kek"));
        rig.transformers("v2").write(PATH, &plain()).unwrap()
    };
    let t = rig.transformers("v2");
    let started = Instant::now();
    for _ in 0..1000 {
        let error = error(&t, &value);
        assert!(matches!(error, ReadError::KmsUnreachable(_)));
        assert!(error.to_string().contains("cannot be reached"), "{error}");
    }
    // Far less than a thousand attempts to connect, however slow the machine.
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
    // By the prefix the value is what would be written; by its key ID, nobody knows.
    assert_eq!(t.classify(&value).status, Status::Unknown);
    assert!(t.read(PATH, PLAIN).unwrap().stale, "other providers go on");
}

#[test]
fn a_plugin_that_hangs_costs_its_timeout_once() {
    let rig = Rig::new();
    let value = {
        let _plugin = rig.start(Behaviour::new("kek"));
        rig.transformers("v2").write(PATH, &plain()).unwrap()
    };
    let _silent = UnixListener::bind(&rig.socket).unwrap();
    let t = transformers("v2", &format!("unix://{}", rig.socket.display()), "300ms");
    let started = Instant::now();
    for _ in 0..100 {
        assert!(matches!(error(&t, &value), ReadError::KmsUnreachable(_)));
    }
    // A hundred timeouts are thirty seconds.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn unhealthy_and_foreign_plugins_are_not_used() {
    let rig = Rig::new();
    let plugin = rig.start(Behaviour::new("kek"));
    let value = rig.transformers("v2").write(PATH, &plain()).unwrap();
    let says = |change: fn(&mut Behaviour)| {
        plugin.set(|b| {
            *b = Behaviour::new("kek");
            change(b);
        });
        error(&rig.transformers("v2"), &value).to_string()
    };
    let error = says(|b| "OK".clone_into(&mut b.healthz));
    assert!(error.contains("its status is `OK`, not `ok`"), "{error}");
    let error = says(|b| "v1".clone_into(&mut b.v2_version));
    assert!(error.contains("version `v1`"), "{error}");
    let error = says(|b| b.key_id.clear());
    assert!(error.contains("key ID is empty"), "{error}");
    let error = says(|b| b.key_id = "k".repeat(1025));
    assert!(error.contains("over 1024"), "{error}");

    plugin.set(|b| {
        *b = Behaviour::new("kek");
        "v2beta1".clone_into(&mut b.v2_version);
    });
    assert_reads(&rig.transformers("v2"), &value);

    plugin.set(|b| "v1beta2".clone_into(&mut b.v1_version));
    let error = rig.transformers("v1").write(PATH, &plain()).err().unwrap().to_string();
    assert!(error.contains("version `v1beta2`"), "{error}");
}

#[test]
fn encrypting_under_another_key_than_status_names_is_refused() {
    let rig = Rig::new();
    let plugin = rig.start(Behaviour::new("kek"));
    plugin.set(|b| b.encrypt_key_id = Some("other".to_owned()));
    let error = rig.transformers("v2").write(PATH, &plain()).err().unwrap().to_string();
    assert!(error.contains("another key ID than Status names"), "{error}");
}

#[test]
fn a_plugin_must_not_change_its_version() {
    let rig = Rig::new();
    let plugin = rig.start(Behaviour::new("kek"));
    let t = rig.transformers("v2");
    assert_eq!(t.write_key().kms_key_id.as_deref(), Some("kek"));
    plugin.set(|b| {
        "v2beta1".clone_into(&mut b.v2_version);
        // Has the status asked for again.
        b.encrypt_key_id = Some("other".to_owned());
    });
    let error = t.write(PATH, &plain()).err().unwrap().to_string();
    assert!(error.contains("changed from `v2` to `v2beta1`"), "{error}");
}

#[test]
fn a_refused_key_is_one_values_failure() {
    let rig = Rig::new();
    let plugin = rig.start(Behaviour::new("kek"));
    let t = rig.transformers("v1");
    let foreign = t.write(PATH, &plain()).unwrap();
    plugin.set(|b| "another".clone_into(&mut b.key_id));
    let own = t.write(PATH, &plain()).unwrap();
    let t = rig.transformers("v1");
    for _ in 0..5 {
        let error = error(&t, &foreign);
        assert!(matches!(error, ReadError::Failed(_)), "{error}");
        assert!(error.to_string().contains("not wrapped with this key"), "{error}");
        assert_reads(&t, &own);
    }
    assert_eq!(plugin.counts().decrypt.load(SeqCst), 2, "refusals are remembered too");
}

#[test]
fn the_alpha_package_of_v2() {
    let rig = Rig::new();
    let plugin = rig.start(Behaviour::new("kek"));
    plugin.set(|b| {
        b.alpha = true;
        "v2alpha1".clone_into(&mut b.v2_version);
    });
    let t = rig.transformers("v2");
    assert_reads(&t, &t.write(PATH, &plain()).unwrap());
}

#[test]
fn a_plugin_that_comes_back_is_asked_again() {
    let rig = Rig::new();
    let set = config("v2", &format!("unix://{}", rig.socket.display()), "60s");
    let settings = settings(&set);
    assert_eq!(settings.api_version, Version::V2);
    let plugins = Plugins::new();
    let down = plugins.key_id(&settings).err().unwrap();
    assert!(matches!(down, KmsError::Unreachable { .. }));
    let _plugin = rig.start(Behaviour::new("kek"));
    assert_eq!(plugins.key_id(&settings).err(), Some(down), "left alone for a while");
    assert_eq!(&*Plugins::new().key_id(&settings).unwrap(), "kek");
}

#[test]
fn works_inside_another_runtime() {
    let rig = Rig::new();
    let _plugin = rig.start(Behaviour::new("kek"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let t = rig.transformers("v2");
        assert_reads(&t, &t.write(PATH, &plain()).unwrap());
    });
}

/// API servers send v1 plugins the socket's path as `:authority`, which no Rust client can.
#[test]
fn the_test_plugin_tolerates_any_authority() {
    let rig = Rig::new();
    let _plugin = rig.start(Behaviour::new("kek"));
    let mut stream = UnixStream::connect(&rig.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let frame = |kind: u8, flags: u8, id: u8, payload: &[u8]| {
        let len = u8::try_from(payload.len()).unwrap();
        [&[0, 0, len, kind, flags, 0, 0, 0, id], payload].concat()
    };
    let literal = |name: &[u8], value: &[u8]| {
        let mut out = name.to_vec();
        out.push(u8::try_from(value.len()).unwrap());
        out.extend(value);
        out
    };
    let headers = |first: bool| {
        // POST, http; then the authority, the first time literally and later by its index, 62.
        let mut block = vec![0x83, 0x86];
        if first {
            block.extend(literal(&[0x41], b"/run/kms/v1.sock"));
        } else {
            block.push(0xBE);
        }
        block.extend(literal(&[0x04], b"/v1beta1.KeyManagementService/Version"));
        block.extend(literal(&[0x0f, 0x10], b"application/grpc"));
        block.extend(literal(&[0x00, 2, b't', b'e'], b"trailers"));
        block
    };
    let message = [&[0, 0, 0, 0, 9, 0x0a, 7][..], b"v1beta1"].concat();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    for (id, first) in [(1, true), (3, false)] {
        bytes.extend(frame(1, 4, id, &headers(first)));
        bytes.extend(frame(0, 1, id, &message));
    }
    stream.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    let twice =
        |answer: &[u8]| answer.windows(18).filter(|w| w == b"atrest-test-plugin").count() == 2;
    while !twice(&answer) {
        let n = stream.read(&mut chunk).expect("an answer to both requests");
        assert!(n > 0, "the plugin hung up");
        answer.extend(&chunk[..n]);
    }
}
