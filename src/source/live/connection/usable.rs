//! Which keys and signatures TLS accepts here, and what others are called.

use crate::certificate::{Certificate, Key};

/// `rsaEncryption` (RFC 8017)
const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1];
/// Keys that ring can use (RFC 5480, RFC 8410): P-256, P-384, Ed25519.
const USABLE: [&[u8]; 3] =
    [&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1, 7], &[0x2B, 0x81, 4, 0, 34], &[0x2B, 0x65, 0x70]];
/// Keys that it cannot.
const OTHERS: [(&[u8], &str); 5] = [
    (&[0x2B, 0x81, 4, 0, 35], "a P-521 key"),
    (&[0x2B, 0x81, 4, 0, 33], "a P-224 key"),
    (&[0x2B, 0x81, 4, 0, 10], "a secp256k1 key"),
    (&[0x2B, 0x65, 0x71], "an Ed448 key"),
    (&[0x2A, 0x86, 0x48, 0xCE, 0x38, 4, 1], "a DSA key"),
];
/// Signatures that are not accepted: with RSA (RFC 8017) and ECDSA (RFC 5758).
const SIGNATURES: [(&[u8], &str); 4] = [
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 5], "SHA-1"),
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 1], "SHA-1"),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 4], "MD5"),
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 4], "SHA-512 and an ECDSA key"),
];

/// What is wrong with a certificate's key: what kind it is, where it cannot be used.
pub(super) fn unusable(certificate: &Certificate) -> Option<String> {
    match &certificate.key {
        Key::Rsa(bits) => {
            (!(2048..=8192).contains(bits)).then(|| format!("an RSA key of {bits} bits"))
        }
        _ => unusable_key(&certificate.key_algorithm()?).map(str::to_owned),
    }
}

/// The kind of a key, by its `AlgorithmIdentifier`, where it cannot be used.
pub(super) fn unusable_key(algorithm: &[u8]) -> Option<&'static str> {
    if contains(algorithm, RSA) || USABLE.iter().any(|id| contains(algorithm, id)) {
        return None;
    }
    let named = OTHERS.iter().find(|(id, _)| contains(algorithm, id));
    Some(named.map_or("a key of an unknown kind", |(_, words)| words))
}

/// What a signature is made with, by its `AlgorithmIdentifier`, where it is not accepted.
pub(super) fn unusable_signature(algorithm: &[u8]) -> &'static str {
    let named = SIGNATURES.iter().find(|(id, _)| contains(algorithm, id));
    named.map_or("an algorithm that is not accepted", |(_, words)| words)
}

fn contains(algorithm: &[u8], id: &[u8]) -> bool {
    memchr::memmem::find(algorithm, id).is_some()
}
