//! Nonces, initialization vectors and data keys, from the system.

use ring::rand::{SecureRandom, SystemRandom};

use super::error::CipherError;

/// `N` random bytes.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N], CipherError> {
    let mut out = [0; N];
    SystemRandom::new().fill(&mut out).map_err(|_| CipherError::Random)?;
    Ok(out)
}
