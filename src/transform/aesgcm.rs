//! `aesgcm`: AES-GCM with the full etcd key as associated data.
//!
//! Payload: nonce (12 bytes) ‖ ciphertext ‖ tag (16).
//! Source: kubernetes/apiserver `pkg/storage/value/encrypt/aes/aes.go`.
//!
//! 16- and 32-byte keys run on ring, whose fused assembly is two to three times as fast as the
//! portable crate; ring has no AES-192, so 24-byte keys run on `aes-gcm`.

use aes_gcm::aead::{AeadInOut, KeyInit, consts::U12};
use aes_gcm::{AesGcm, aes::Aes192};
use ring::aead;

use super::error::CipherError;
use crate::random;
use crate::secret::{KeyMaterial, Plaintext};

/// Nonce length in bytes.
pub(super) const NONCE: usize = 12;
/// Tag length in bytes.
pub(super) const TAG: usize = 16;

/// One key, ready for use.
pub struct Cipher(Schedule);

// Data keys are used once and kept on the stack; a box for each would cost more.
#[allow(clippy::large_enum_variant)]
enum Schedule {
    Ring(RingKey),
    Aes192(Box<AesGcm<Aes192, U12>>),
}

/// ring does not wipe its keys; this overwrites the expanded key with that of an all-zero key.
struct RingKey(aead::LessSafeKey);

impl Drop for RingKey {
    fn drop(&mut self) {
        static ZERO: std::sync::OnceLock<Option<aead::LessSafeKey>> = std::sync::OnceLock::new();
        let zero = ZERO.get_or_init(|| {
            let key = aead::UnboundKey::new(&aead::AES_256_GCM, &[0; 32]).ok()?;
            Some(aead::LessSafeKey::new(key))
        });
        if let Some(zero) = zero {
            self.0.clone_from(zero);
            // Keeps the compiler from dropping the write to memory about to be freed.
            std::hint::black_box(&self.0);
        }
    }
}

impl Cipher {
    /// Takes a key of 16, 24 or 32 bytes.
    ///
    /// # Errors
    /// For any other length.
    pub fn new(key: &KeyMaterial) -> Result<Self, CipherError> {
        Self::from_slice(key.expose())
    }

    pub(super) fn from_slice(bytes: &[u8]) -> Result<Self, CipherError> {
        let algorithm = match bytes.len() {
            16 => &aead::AES_128_GCM,
            24 => {
                let cipher = AesGcm::new_from_slice(bytes)
                    .map_err(|_| CipherError::KeyLength(bytes.len()))?;
                return Ok(Self(Schedule::Aes192(Box::new(cipher))));
            }
            32 => &aead::AES_256_GCM,
            len => return Err(CipherError::KeyLength(len)),
        };
        let key = aead::UnboundKey::new(algorithm, bytes)
            .map_err(|_| CipherError::KeyLength(bytes.len()))?;
        Ok(Self(Schedule::Ring(RingKey(aead::LessSafeKey::new(key)))))
    }

    /// Decrypts a payload that was stored at `etcd_key`.
    ///
    /// # Errors
    /// When it is too short or its tag does not match the key, the bytes or the etcd key.
    pub fn open(&self, etcd_key: &[u8], payload: &[u8]) -> Result<Plaintext, CipherError> {
        let short = CipherError::TooShort { len: payload.len(), min: NONCE + TAG };
        let Some((nonce, sealed)) = payload.split_first_chunk::<NONCE>() else {
            return Err(short);
        };
        let Some(len) = sealed.len().checked_sub(TAG) else {
            return Err(short);
        };
        let failed = CipherError::AuthenticationOrPath;
        let mut out = zeroize::Zeroizing::new(Vec::new());
        match &self.0 {
            Schedule::Ring(key) => {
                // The tag goes along: ring takes it in place, behind the ciphertext.
                out.extend_from_slice(sealed);
                let nonce = aead::Nonce::assume_unique_for_key(*nonce);
                key.0
                    .open_in_place(nonce, aead::Aad::from(etcd_key), &mut out[..])
                    .map_err(|_| failed)?;
                out.truncate(len);
            }
            Schedule::Aes192(key) => {
                let (ciphertext, tag) = sealed.split_at(len);
                out.extend_from_slice(ciphertext);
                let tag = aes_gcm::Tag::try_from(tag).map_err(|_| failed.clone())?;
                key.decrypt_inout_detached(&(*nonce).into(), etcd_key, (&mut out[..]).into(), &tag)
                    .map_err(|_| failed)?;
            }
        }
        Ok(Plaintext::new(std::mem::take(&mut *out)))
    }

    /// Encrypts for `etcd_key` under a random nonce and appends the payload to `out`.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn seal(
        &self,
        etcd_key: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CipherError> {
        self.seal_with(random::bytes()?, etcd_key, plaintext, out)
    }

    pub(super) fn seal_with(
        &self,
        nonce: [u8; NONCE],
        etcd_key: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CipherError> {
        let large = |_| CipherError::TooLarge("the value");
        out.reserve(NONCE + plaintext.len() + TAG);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(plaintext);
        match &self.0 {
            Schedule::Ring(key) => {
                let nonce = aead::Nonce::assume_unique_for_key(nonce);
                let tag = key
                    .0
                    .seal_in_place_separate_tag(nonce, aead::Aad::from(etcd_key), &mut out[start..])
                    .map_err(|_| CipherError::TooLarge("the value"))?;
                out.extend_from_slice(tag.as_ref());
            }
            Schedule::Aes192(key) => {
                let tag = key
                    .encrypt_inout_detached(&nonce.into(), etcd_key, (&mut out[start..]).into())
                    .map_err(large)?;
                out.extend_from_slice(&tag);
            }
        }
        Ok(())
    }
}
