//! The bootstrap record of k3s and RKE2: the cluster's certificates and its encryption
//! configuration, in the datastore that the configuration protects, encrypted under the server
//! token (k3s-io/k3s `pkg/cluster/encrypt.go`, `pkg/cluster/storage.go`).
//!
//! Key: `/bootstrap/` and the first 12 hexadecimal digits of the token's SHA-256. Value: a salt, a
//! colon, and base64 of AES-256-GCM under PBKDF2-HMAC-SHA1(token, salt, 4096 rounds).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::aesgcm;
use crate::hex::hex;
use crate::secret::KeyMaterial;

/// What the keys of all such records begin with.
pub const PREFIX: &[u8] = b"/bootstrap/";

const ROUNDS: std::num::NonZeroU32 = std::num::NonZeroU32::new(4096).unwrap();

/// Why a record gives no configuration. Holds nothing of the token or the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// Not a salt, a colon and base64.
    #[error("the bootstrap record is damaged")]
    Damaged,
    /// Another token.
    #[error("the token does not open the bootstrap record")]
    Token,
    /// Opened, but encryption is not turned on.
    #[error("the bootstrap record holds no encryption configuration")]
    NoConfig,
}

/// The passphrases that a token stands for, the likeliest first: its password alone, and all of
/// it, as old releases used it.
#[must_use]
pub fn passphrases(token: &str) -> Vec<Zeroizing<String>> {
    let token = token.trim_end_matches(['\n', '\r']);
    let mut all = Vec::new();
    // `K10<hash of the CA>::<user>:<password>` (k3s `pkg/clientaccess/token.go`).
    if let Some(rest) = token.strip_prefix("K10")
        && let Some((_, user)) = rest.split_once("::")
        && let Some((_, password)) = user.split_once(':')
    {
        all.push(Zeroizing::new(password.to_owned()));
    }
    all.push(Zeroizing::new(token.to_owned()));
    all
}

/// The key of the record that a passphrase opens.
#[must_use]
pub fn key(passphrase: &str) -> Vec<u8> {
    let digest = Sha256::digest(passphrase.as_bytes());
    [PREFIX, hex(&digest[..6]).as_bytes()].concat()
}

/// The encryption configuration in a record, as the bytes of its file.
///
/// # Errors
/// When the passphrase does not open it, or there is none.
pub fn configuration(passphrase: &str, value: &[u8]) -> Result<Zeroizing<Vec<u8>>, BootstrapError> {
    use BootstrapError::{Damaged, NoConfig, Token};
    let colon = memchr::memchr(b':', value).ok_or(Damaged)?;
    let sealed = STANDARD.decode(value[colon + 1..].trim_ascii()).map_err(|_| Damaged)?;
    let mut key = Zeroizing::new([0; 32]);
    ring::pbkdf2::derive(
        ring::pbkdf2::PBKDF2_HMAC_SHA1,
        ROUNDS,
        &value[..colon],
        passphrase.as_bytes(),
        &mut *key,
    );
    let cipher = aesgcm::Cipher::new(&KeyMaterial::new(key.to_vec())).map_err(|_| Damaged)?;
    let plain = cipher.open(b"", &sealed).map_err(|_| Token)?;
    // Files by name: `{"EncryptionConfig":{"Timestamp":…,"Content":"<base64>"},…}`, and in old
    // releases the base64 alone.
    let mut files: serde_json::Value =
        serde_json::from_slice(plain.expose()).map_err(|_| Damaged)?;
    let file = &files["EncryptionConfig"];
    let content = file.as_str().or_else(|| file["Content"].as_str());
    let decoded = content.map(|text| STANDARD.decode(text).map(Zeroizing::new));
    crate::storage::wipe(&mut files);
    match decoded {
        None => Err(NoConfig),
        Some(Err(_)) => Err(Damaged),
        Some(Ok(bytes)) if bytes.is_empty() => Err(NoConfig),
        Some(Ok(bytes)) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by Python's `cryptography` with the throwaway token `throwaway-token`.
    const RECORD: &[u8] = include_bytes!("../../fixtures/bootstrap/record.txt");

    #[test]
    fn a_record_of_another_implementation_is_opened() {
        let token = "K10abc::server:throwaway-token\n";
        let passphrases = passphrases(token);
        assert_eq!(*passphrases[0], "throwaway-token");
        assert_eq!(key(&passphrases[0]), b"/bootstrap/596fdd9362af");
        let config = configuration(&passphrases[0], RECORD).unwrap();
        assert!(config.starts_with(b"{\"kind\":\"EncryptionConfiguration\""));
        assert_eq!(configuration("other", RECORD), Err(BootstrapError::Token));
        assert_eq!(configuration("other", b"no colon"), Err(BootstrapError::Damaged));
        assert_eq!(configuration("other", b"salt:%%%"), Err(BootstrapError::Damaged));
    }

    #[test]
    fn tokens_without_their_envelope_are_passphrases() {
        assert_eq!(passphrases("a:b").len(), 1);
        assert_eq!(*passphrases("a:b")[0], "a:b");
        assert_eq!(*passphrases("K10h::node:p::q")[0], "p::q");
    }
}
