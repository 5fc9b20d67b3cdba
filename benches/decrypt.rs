//! Reading one value: provider by provider, beside independent crates on the same payload.
//!
//! ```text
//! cargo bench --bench decrypt
//! ```
//!
//! `atrest` is the whole of `ResourceTransformers::read`: prefix, key lookup, decryption into a
//! buffer that is wiped afterwards. The KMS v2 key is derived anew for each value, as it is when
//! every value is read once.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use atrest::config::{ConfigSet, Kms, load};
use atrest::kms::{KmsError, Sealed, Unwrap, WrappedKey};
use atrest::secret::{KeyMaterial, Plaintext};
use atrest::transform::Transformers;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const PATH: &[u8] = b"/registry/secrets/default/a";
const SIZES: [usize; 3] = [1024, 4096, 65536];
const KEY: [u8; 32] = [7; 32];

/// A plugin in this process: what gRPC costs is paid once a data key, not once a value.
struct Local;

impl Unwrap for Local {
    fn unwrap_v1(&self, _: &Kms, wrapped: &[u8]) -> Result<KeyMaterial, KmsError> {
        Ok(KeyMaterial::new(wrapped.to_vec()))
    }

    fn unwrap_v2(&self, _: &Kms, _: WrappedKey<'_>) -> Result<KeyMaterial, KmsError> {
        Ok(KeyMaterial::new(KEY.to_vec()))
    }

    fn key_id(&self, _: &Kms) -> Result<Arc<str>, KmsError> {
        Ok("kek".into())
    }

    // Every value has a data key of its own; wrapped it is itself here.
    fn wrap_v1(&self, _: &Kms, data_key: &KeyMaterial) -> Result<Vec<u8>, KmsError> {
        Ok(data_key.expose().to_vec())
    }

    fn seal_v2(&self, _: &Kms) -> Result<Arc<Sealed>, KmsError> {
        Ok(Arc::new(Sealed {
            seed: KeyMaterial::new(KEY.to_vec()),
            key_id: "kek".to_owned(),
            source: vec![1; 60],
            annotations: vec![("version.example.com".to_owned(), b"1".to_vec())],
        }))
    }
}

fn transformers(provider: &str) -> Transformers {
    let secret = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let provider = match provider {
        "kms-v1" => "kms: {name: k, endpoint: 'unix:///x'}".to_owned(),
        "kms-v2" => "kms: {apiVersion: v2, name: k, endpoint: 'unix:///x'}".to_owned(),
        name => format!("{name}: {{keys: [{{name: k, secret: {secret}}}]}}"),
    };
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n  \
         - resources: [secrets]\n    providers:\n      - {provider}\n"
    );
    let set = ConfigSet::new(load(text.as_bytes(), "bench").unwrap()).unwrap();
    Transformers::new(&set, Arc::new(Local)).unwrap()
}

/// What an independent crate makes of the payload after `k8s:enc:…:k:`.
fn other(provider: &str, payload: &[u8]) -> Option<Vec<u8>> {
    use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
    match provider {
        "secretbox" => {
            use crypto_secretbox::aead::Aead as _;
            let cipher = <crypto_secretbox::XSalsa20Poly1305 as
                crypto_secretbox::aead::KeyInit>::new_from_slice(&KEY).ok()?;
            let nonce = crypto_secretbox::Nonce::from_slice(&payload[..24]);
            cipher.decrypt(nonce, &payload[24..]).ok()
        }
        "aesgcm" => {
            let cipher = aes_gcm::Aes256Gcm::new_from_slice(&KEY).ok()?;
            let nonce = aes_gcm::Nonce::try_from(&payload[..12]).ok()?;
            cipher.decrypt(&nonce, Payload { msg: &payload[12..], aad: PATH }).ok()
        }
        _ => None,
    }
}

fn decrypt(c: &mut Criterion) {
    for provider in ["secretbox", "aescbc", "aesgcm", "kms-v1", "kms-v2"] {
        let all = transformers(provider);
        let t = all.for_resource("secrets");
        let mut group = c.benchmark_group(provider);
        for size in SIZES {
            let mut plain = vec![b'x'; size];
            plain[..4].copy_from_slice(b"k8s\0");
            let value = t.write(PATH, &Plaintext::new(plain.clone())).unwrap();
            assert!(t.read(PATH, &value).unwrap().plaintext.expose() == plain);
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_with_input(BenchmarkId::new("atrest", size), &value, |b, value| {
                b.iter(|| t.read(PATH, black_box(value)).unwrap());
            });
            let payload = &value[format!("k8s:enc:{provider}:v1:k:").len().min(value.len())..];
            let independent = other(provider, payload);
            if independent.is_some_and(|p| p == plain) {
                group.bench_with_input(BenchmarkId::new("other crate", size), payload, |b, p| {
                    b.iter(|| other(provider, black_box(p)).unwrap());
                });
            }
            group.bench_with_input(BenchmarkId::new("by prefix", size), &value, |b, value| {
                b.iter(|| black_box(t.classify(black_box(value)).status));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = decrypt
}
criterion_main!(benches);
