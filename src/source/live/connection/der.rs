//! What a certificate says (RFC 5280 section 4.1): just enough DER to tell a user what is wrong
//! with it.

use std::time::{SystemTime, UNIX_EPOCH};

/// `id-ce-extKeyUsage`
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1D, 0x25];
/// `anyExtendedKeyUsage`
const ANY_USAGE: &[u8] = &[0x55, 0x1D, 0x25, 0];
/// `id-kp-serverAuth`
const SERVER_AUTH: &[u8] = &[0x2B, 6, 1, 5, 5, 7, 3, 1];
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

/// A certificate, read in place.
#[derive(Debug)]
pub(super) struct Certificate<'c> {
    /// Who signed it.
    pub issuer: &'c [u8],
    /// Whose it is.
    pub subject: &'c [u8],
    pub validity: Validity,
    /// `AlgorithmIdentifier` of the key.
    algorithm: &'c [u8],
    key: &'c [u8],
    extensions: &'c [u8],
}

impl<'c> Certificate<'c> {
    /// Reads a certificate; `None` for one that is malformed.
    pub fn read(certificate: &'c [u8]) -> Option<Self> {
        let (0x30, certificate, _) = element(certificate)? else { return None };
        let (0x30, tbs, _) = element(certificate)? else { return None };
        // version [0] is optional; then serialNumber, signature.
        let (tag, _, mut rest) = element(tbs)?;
        if tag == 0xA0 {
            rest = element(rest)?.2;
        }
        let (_, _, rest) = element(rest)?;
        let (0x30, issuer, rest) = element(rest)? else { return None };
        let (0x30, validity, rest) = element(rest)? else { return None };
        let (0x30, subject, rest) = element(rest)? else { return None };
        let (0x30, info, mut rest) = element(rest)? else { return None };
        let (0x30, algorithm, key) = element(info)? else { return None };
        let (0x03, key, _) = element(key)? else { return None };
        let mut extensions: &[u8] = &[];
        while !rest.is_empty() {
            let (tag, content, after) = element(rest)?;
            if tag == 0xA3 {
                (_, extensions, _) = element(content)?;
            }
            rest = after;
        }
        let (tag, from, after) = element(validity)?;
        let from = time(tag, from)?;
        let (tag, until, _) = element(after)?;
        let validity = Validity { from, until: time(tag, until)? };
        Some(Self { issuer, subject, validity, algorithm, key, extensions })
    }

    /// Whether it may be a server's: without a list of purposes it may be anything.
    pub fn is_for_servers(&self) -> Option<bool> {
        let mut rest = self.extensions;
        while !rest.is_empty() {
            let (_, extension, after) = element(rest)?;
            rest = after;
            let (6, id, mut value) = element(extension)? else { return None };
            if id != EXTENDED_KEY_USAGE {
                continue;
            }
            // Whether it is critical may stand between.
            if let (1, _, after) = element(value)? {
                value = after;
            }
            let (4, value, _) = element(value)? else { return None };
            let (0x30, mut purposes, _) = element(value)? else { return None };
            while !purposes.is_empty() {
                let (_, purpose, after) = element(purposes)?;
                if purpose == SERVER_AUTH || purpose == ANY_USAGE {
                    return Some(true);
                }
                purposes = after;
            }
            return Some(false);
        }
        Some(true)
    }

    /// What is wrong with its key: what kind it is, where it cannot be used.
    pub fn unusable_key(&self) -> Option<String> {
        if !contains(self.algorithm, RSA) {
            return unusable_key(self.algorithm).map(str::to_owned);
        }
        // A bit string of whole bytes: SEQUENCE { modulus, exponent }.
        let (0x30, numbers, _) = element(self.key.get(1..)?)? else { return None };
        let (2, modulus, _) = element(numbers)? else { return None };
        let zeros = modulus.iter().take_while(|b| **b == 0).count();
        let first = modulus.get(zeros)?;
        let bits = 8 * (modulus.len() - zeros) - first.leading_zeros() as usize;
        (!(2048..=8192).contains(&bits)).then(|| format!("an RSA key of {bits} bits"))
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

/// From when until when a certificate is valid, seconds since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// `notBefore`
    pub from: i64,
    /// `notAfter`
    pub until: i64,
}

impl Validity {
    /// Reads a certificate; `None` for one that is malformed.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        Some(Certificate::read(certificate)?.validity)
    }

    /// In words, if the certificate is not valid now.
    pub fn complaint(self) -> Option<&'static str> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let now = i64::try_from(now).ok()?;
        if now > self.until {
            Some("has expired")
        } else if now < self.from {
            Some("is not valid yet")
        } else {
            None
        }
    }
}

/// Tag, content and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], mut rest) = der.split_first_chunk::<2>()?;
    let mut len = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7F);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (bytes, after) = rest.split_at_checked(count)?;
        len = bytes.iter().fold(0, |len, &b| len << 8 | usize::from(b));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// `UTCTime` (0x17) or `GeneralizedTime` (0x18), always in UTC.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, text.len()) {
        (0x17, 12) => {
            let year: i64 = text[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        (0x18, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let part = |i: usize| rest[i..i + 2].parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    // Days since 1970 in the proleptic Gregorian calendar, years beginning in March.
    let shifted = year - i64::from(month <= 2);
    let days = 365 * shifted + shifted.div_euclid(4) - shifted.div_euclid(100)
        + shifted.div_euclid(400)
        + (153 * ((month + 9) % 12) + 2) / 5
        + day
        - 1
        - 719_468;
    Some(days * 86400 + part(4)? * 3600 + part(6)? * 60 + part(8)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_when_it_is_valid() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1999, 12, 31);
        params.not_after = rcgen::date_time_ymd(2000, 3, 1);
        let cert = params.self_signed(&key).unwrap();
        let validity = Validity::of(cert.der()).unwrap();
        assert_eq!(validity, Validity { from: 946_598_400, until: 951_868_800 });
        assert_eq!(validity.complaint(), Some("has expired"));
        params.not_after = rcgen::date_time_ymd(4096, 1, 1);
        let cert = params.self_signed(&key).unwrap();
        assert_eq!(Validity::of(cert.der()).unwrap().complaint(), None);
        for len in 0..120 {
            assert_eq!(Validity::of(&cert.der()[..len]), None, "truncated to {len}");
        }
    }
}
