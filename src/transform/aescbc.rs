//! `aescbc`: AES-CBC with PKCS#7 padding, without integrity.
//!
//! Payload: initialization vector (16 bytes) ‖ ciphertext. Padding is checked as loosely as the
//! API server does: the last byte says how many equal bytes end the plaintext, up to 255 of them.
//! Source: kubernetes/apiserver `pkg/storage/value/encrypt/aes/aes.go`.

use aes::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aes::{Aes128, Aes192, Aes256};

use super::error::CipherError;
use crate::random;
use crate::secret::{KeyMaterial, Plaintext};

const BLOCK: usize = 16;

/// One key, ready for use.
pub struct Cipher(Box<Schedule>);

// One box around all sizes: the large one costs nothing there.
#[allow(clippy::large_enum_variant)]
enum Schedule {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl Cipher {
    /// Takes a key of 16, 24 or 32 bytes.
    ///
    /// # Errors
    /// For any other length.
    pub fn new(key: &KeyMaterial) -> Result<Self, CipherError> {
        let bytes = key.expose();
        let bad = |_| CipherError::KeyLength(bytes.len());
        Ok(Self(Box::new(match bytes.len() {
            16 => Schedule::Aes128(Aes128::new_from_slice(bytes).map_err(bad)?),
            24 => Schedule::Aes192(Aes192::new_from_slice(bytes).map_err(bad)?),
            32 => Schedule::Aes256(Aes256::new_from_slice(bytes).map_err(bad)?),
            len => return Err(CipherError::KeyLength(len)),
        })))
    }

    /// Decrypts a payload. Success proves little: under a wrong key the padding fits by chance
    /// once in about 256 values, so the caller must look at what comes out.
    ///
    /// # Errors
    /// When it is not whole blocks after the vector (a vector alone is refused; the API server
    /// panics there) or the padding is impossible.
    pub fn open(&self, payload: &[u8]) -> Result<Plaintext, CipherError> {
        let Some((iv, ciphertext)) = payload.split_first_chunk::<BLOCK>() else {
            return Err(CipherError::TooShort { len: payload.len(), min: 2 * BLOCK });
        };
        if ciphertext.is_empty() {
            return Err(CipherError::TooShort { len: payload.len(), min: 2 * BLOCK });
        }
        if !ciphertext.len().is_multiple_of(BLOCK) {
            return Err(CipherError::Misaligned { len: ciphertext.len() });
        }
        let mut out = zeroize::Zeroizing::new(ciphertext.to_vec());
        let (blocks, _) = Array::slice_as_chunks_mut(&mut out);
        let iv = &Array::from(*iv);
        match &*self.0 {
            Schedule::Aes128(key) => {
                cbc::Decryptor::inner_iv_init(key.clone(), iv).decrypt_blocks(blocks);
            }
            Schedule::Aes192(key) => {
                cbc::Decryptor::inner_iv_init(key.clone(), iv).decrypt_blocks(blocks);
            }
            Schedule::Aes256(key) => {
                cbc::Decryptor::inner_iv_init(key.clone(), iv).decrypt_blocks(blocks);
            }
        }
        let len = unpadded(&out).ok_or(CipherError::Padding)?;
        out.truncate(len);
        Ok(Plaintext::new(std::mem::take(&mut *out)))
    }

    /// Encrypts under a random vector and appends the payload to `out`.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn seal(&self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), CipherError> {
        self.seal_with(&random::bytes()?, plaintext, out);
        Ok(())
    }

    pub(super) fn seal_with(&self, iv: &[u8; BLOCK], plaintext: &[u8], out: &mut Vec<u8>) {
        // At once: growing later would leave a copy of the plaintext behind.
        out.reserve(2 * BLOCK + plaintext.len());
        out.extend_from_slice(iv);
        let start = out.len();
        out.extend_from_slice(plaintext);
        // PKCS#7: 1 to 16 bytes, each saying how many.
        let pad = BLOCK - plaintext.len() % BLOCK;
        out.resize(out.len() + pad, u8::try_from(pad).unwrap_or_default());
        let (blocks, _) = Array::slice_as_chunks_mut(&mut out[start..]);
        let iv = &Array::from(*iv);
        match &*self.0 {
            Schedule::Aes128(key) => {
                cbc::Encryptor::inner_iv_init(key.clone(), iv).encrypt_blocks(blocks);
            }
            Schedule::Aes192(key) => {
                cbc::Encryptor::inner_iv_init(key.clone(), iv).encrypt_blocks(blocks);
            }
            Schedule::Aes256(key) => {
                cbc::Encryptor::inner_iv_init(key.clone(), iv).encrypt_blocks(blocks);
            }
        }
    }
}

/// Length without padding; `None` where the padding is impossible.
fn unpadded(padded: &[u8]) -> Option<usize> {
    let pad = usize::from(*padded.last()?);
    let len = padded.len().checked_sub(pad)?;
    (pad > 0 && padded[len..].iter().all(|b| usize::from(*b) == pad)).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_as_lax_as_the_api_servers() {
        let ends = |n: usize, last: &[u8]| {
            let mut v = vec![0xAA; n];
            v.extend_from_slice(last);
            unpadded(&v)
        };
        assert_eq!(ends(15, &[1]), Some(15));
        assert_eq!(ends(0, &[16; 16]), Some(0));
        assert_eq!(ends(15, &[17; 17]), Some(15), "more than a block is accepted");
        assert_eq!(ends(1, &[255; 255]), Some(1));
        assert_eq!(ends(15, &[0]), None, "zero is not");
        assert_eq!(ends(15, &[17]), None, "longer than the data");
        assert_eq!(ends(30, &[3, 2, 3]), None, "unequal bytes");
        assert_eq!(ends(16, &[255; 16]), None);
    }
}
