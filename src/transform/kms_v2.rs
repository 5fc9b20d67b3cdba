//! `kms` v2: a protobuf message that names the plugin's key and carries a wrapped data key or
//! seed, shared by many values.
//!
//! Source: kubernetes/apiserver `pkg/storage/value/encrypt/envelope/kmsv2/envelope.go`,
//! `…/kmsv2/v2/api.proto`, `pkg/storage/value/encrypt/aes/aes_extended_nonce.go`.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::aesgcm;
use super::error::CipherError;
use crate::kms::{validate_annotations, validate_key_id, validate_source};
use crate::proto::{Fields, Wire, put_bytes};
use crate::random;
use crate::secret::{KeyMaterial, Plaintext};

/// Bytes of the HKDF info that precedes the nonce under a seed.
const INFO: usize = 32;
/// Smallest seed in bytes.
const MIN_SEED: usize = 32;

/// What the plugin wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceType {
    /// An AES key, used as it is (Kubernetes 1.25 to 1.28).
    AesGcmKey,
    /// A seed, from which each value's key is derived (default since 1.29).
    HkdfSeed,
}

impl SourceType {
    /// The word in JSON output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AesGcmKey => "key",
            Self::HkdfSeed => "seed",
        }
    }
}

/// Annotations of a plugin: name and bytes.
pub type Annotations<'a> = Vec<(&'a str, &'a [u8])>;

/// A decoded and validated `EncryptedObject`.
#[derive(Clone, PartialEq, Eq)]
pub struct Object<'a> {
    /// The encrypted value.
    pub data: &'a [u8],
    /// The plugin's key, in clear.
    pub key_id: &'a str,
    /// The data key or seed, as the plugin wrapped it.
    pub source: &'a [u8],
    /// What the plugin wants back with it. Sorted by name.
    pub annotations: Annotations<'a>,
    /// What `source` is.
    pub source_type: SourceType,
}

impl<'a> Object<'a> {
    /// Decodes and validates a payload as the API server does.
    ///
    /// # Errors
    /// When it is no such message or a field is out of its limits.
    pub fn parse(payload: &'a [u8]) -> Result<Self, CipherError> {
        let malformed = CipherError::Malformed;
        let mut data: &[u8] = &[];
        let mut key_id: &[u8] = &[];
        let mut source: &[u8] = &[];
        let mut annotations = Annotations::new();
        let mut source_type = 0;
        for field in Fields::new(payload) {
            let field = field.map_err(|_| malformed("not a complete KMS v2 message"))?;
            // The last of duplicate scalars wins; unknown fields are skipped.
            match (field.number, field.value) {
                (1, Wire::Bytes(b)) => data = b,
                (2, Wire::Bytes(b)) => key_id = b,
                (3, Wire::Bytes(b)) => source = b,
                (4, Wire::Bytes(b)) => {
                    let (name, value) = annotation(b)?;
                    annotations.retain(|(n, _)| *n != name);
                    annotations.push((name, value));
                }
                (5, Wire::Varint(v)) => source_type = v,
                _ => {}
            }
        }
        annotations.sort_unstable();
        let object = Self {
            data,
            key_id: std::str::from_utf8(key_id)
                .map_err(|_| malformed("the KMS key ID is not UTF-8"))?,
            source,
            annotations,
            source_type: match source_type {
                0 => SourceType::AesGcmKey,
                1 => SourceType::HkdfSeed,
                _ => return Err(malformed("unknown type of KMS data key source")),
            },
        };
        object.validate()?;
        Ok(object)
    }

    /// The API server's checks, on reading and on writing.
    fn validate(&self) -> Result<(), CipherError> {
        let malformed = CipherError::Malformed;
        if self.data.is_empty() {
            return Err(malformed("the KMS v2 message has no encrypted data"));
        }
        validate_key_id(self.key_id).map_err(malformed)?;
        validate_source(self.source).map_err(malformed)?;
        validate_annotations(&self.annotations).map_err(malformed)
    }

    /// Encodes the message and appends it to `out`.
    ///
    /// # Errors
    /// When a field is out of its limits.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), CipherError> {
        self.validate()?;
        put_bytes(out, 1, self.data);
        put_bytes(out, 2, self.key_id.as_bytes());
        put_bytes(out, 3, self.source);
        for (name, value) in &self.annotations {
            let mut entry = Vec::with_capacity(name.len() + value.len() + 8);
            put_bytes(&mut entry, 1, name.as_bytes());
            put_bytes(&mut entry, 2, value);
            put_bytes(out, 4, &entry);
        }
        if self.source_type == SourceType::HkdfSeed {
            out.extend_from_slice(&[5 << 3, 1]);
        }
        Ok(())
    }
}

/// One entry of the map: key 1, value 2.
fn annotation(entry: &[u8]) -> Result<(&str, &[u8]), CipherError> {
    let mut name: &[u8] = &[];
    let mut value: &[u8] = &[];
    for field in Fields::new(entry) {
        let field = field.map_err(|_| CipherError::Malformed("a KMS annotation is damaged"))?;
        match (field.number, field.value) {
            (1, Wire::Bytes(b)) => name = b,
            (2, Wire::Bytes(b)) => value = b,
            _ => {}
        }
    }
    let name = std::str::from_utf8(name)
        .map_err(|_| CipherError::Malformed("a KMS annotation's name is not UTF-8"))?;
    Ok((name, value))
}

/// An unwrapped data key or seed, ready for use.
pub enum DataKey {
    /// [`SourceType::AesGcmKey`]
    Key(Box<aesgcm::Cipher>),
    /// [`SourceType::HkdfSeed`]
    Seed(Seed),
}

/// HKDF-Expand with the seed as its pseudorandom key; there is no extract step.
pub struct Seed(Box<Hkdf<Sha256>>);

impl DataKey {
    /// Prepares what the plugin returned.
    ///
    /// # Errors
    /// When its length fits neither AES nor a seed.
    pub fn new(source_type: SourceType, unwrapped: &KeyMaterial) -> Result<Self, CipherError> {
        match source_type {
            SourceType::AesGcmKey => aesgcm::Cipher::new(unwrapped).map(|c| Self::Key(Box::new(c))),
            SourceType::HkdfSeed => {
                let bad = CipherError::KeyLength(unwrapped.len());
                if unwrapped.len() < MIN_SEED {
                    return Err(bad);
                }
                let hkdf = Hkdf::from_prk(unwrapped.expose()).map_err(|_| bad)?;
                Ok(Self::Seed(Seed(Box::new(hkdf))))
            }
        }
    }

    /// Decrypts [`Object::data`] that was stored at `etcd_key`.
    ///
    /// # Errors
    /// When it is too short or its tag does not match the key, the bytes or the etcd key.
    pub fn open(&self, etcd_key: &[u8], data: &[u8]) -> Result<Plaintext, CipherError> {
        match self {
            Self::Key(cipher) => cipher.open(etcd_key, data),
            Self::Seed(seed) => {
                let Some((info, rest)) = data.split_first_chunk::<INFO>() else {
                    let min = INFO + aesgcm::NONCE + aesgcm::TAG;
                    return Err(CipherError::TooShort { len: data.len(), min });
                };
                seed.derive(info)?.open(etcd_key, rest)
            }
        }
    }

    /// Encrypts for `etcd_key`: [`Object::data`] under a random info and nonce.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn seal(&self, etcd_key: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, CipherError> {
        self.seal_with(random::bytes()?, random::bytes()?, etcd_key, plaintext)
    }

    pub(super) fn seal_with(
        &self,
        info: [u8; INFO],
        nonce: [u8; aesgcm::NONCE],
        etcd_key: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, CipherError> {
        let mut out = Vec::with_capacity(INFO + aesgcm::NONCE + plaintext.len() + aesgcm::TAG);
        match self {
            Self::Key(cipher) => cipher.seal_with(nonce, etcd_key, plaintext, &mut out)?,
            Self::Seed(seed) => {
                out.extend_from_slice(&info);
                seed.derive(&info)?.seal_with(nonce, etcd_key, plaintext, &mut out)?;
            }
        }
        Ok(out)
    }
}

impl Seed {
    pub(super) fn derive_bytes(
        &self,
        info: &[u8; INFO],
    ) -> Result<Zeroizing<[u8; 32]>, CipherError> {
        let mut key = Zeroizing::new([0; 32]);
        self.0.expand(info, &mut *key).map_err(|_| CipherError::KeyLength(32))?;
        Ok(key)
    }

    fn derive(&self, info: &[u8; INFO]) -> Result<aesgcm::Cipher, CipherError> {
        aesgcm::Cipher::from_slice(&*self.derive_bytes(info)?)
    }
}
