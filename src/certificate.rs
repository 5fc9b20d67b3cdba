//! Certificates (RFC 5280): whose they are, who signed them, when they are valid, with which key.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate, X509Name};
use x509_parser::public_key::PublicKey;

/// A certificate. What it says is what it says: nothing is verified but by [`Self::signed_by`].
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    /// The common name of its subject, else the whole name, or `?`.
    pub subject: String,
    /// The same of its issuer.
    pub issuer: String,
    /// DNS names and addresses that it is for.
    pub names: Vec<String>,
    /// From when on it is valid.
    pub starts: Timestamp,
    /// When it ends.
    pub ends: Timestamp,
    /// Its key.
    pub key: Key,
    /// It was signed over a hash that can be forged (MD5, SHA-1).
    pub weak_hash: bool,
    /// It may sign others.
    pub authority: bool,
}

/// The key of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// RSA, with the bits of its modulus.
    Rsa(usize),
    /// On an elliptic curve, with the bits of a coordinate.
    Ec(usize),
    /// Ed25519.
    Ed25519,
    /// Another, by its object identifier.
    Other(String),
}

impl Key {
    /// Shorter than what is taken as safe (NIST SP 800-131A: RSA 2048, curves of 224 bits).
    #[must_use]
    pub fn is_weak(&self) -> bool {
        match self {
            Self::Rsa(bits) => *bits < 2048,
            Self::Ec(bits) => *bits < 224,
            Self::Ed25519 | Self::Other(_) => false,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            // A coordinate of P-521 takes 66 bytes.
            Self::Ec(528) => f.write_str("ECDSA P-521"),
            Self::Ec(bits) => write!(f, "ECDSA P-{bits}"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Other(what) => write!(f, "key type {what}"),
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, until {})", self.subject, self.ends)
    }
}

/// Signatures over MD5 and SHA-1: RSA (RFC 8017, and OIW's own name for it), ECDSA (RFC 3279).
const WEAK: [&str; 4] =
    ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.3.14.3.2.29", "1.2.840.10045.4.1"];

/// How long before its end a certificate is worth a word, seconds.
pub const SOON: i64 = 30 * 86_400;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates in PEM text; none for anything else.
#[must_use]
pub fn in_pem(bytes: &[u8]) -> Vec<Certificate> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
    let mut found = Vec::new();
    for part in text.split(BEGIN).skip(1) {
        let Some((body, _)) = part.split_once(END) else { continue };
        let packed: String = body.chars().filter(|c| !c.is_whitespace()).collect();
        found.extend(STANDARD.decode(packed).ok().and_then(|der| Certificate::from_der(&der)));
    }
    found
}

impl Certificate {
    /// Reads one in DER; `None` where it is malformed.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let algorithm = &parsed.signature_algorithm.algorithm;
        Some(Self {
            subject: name(parsed.subject()),
            issuer: name(parsed.issuer()),
            names: names(&parsed),
            starts: time(parsed.validity().not_before.timestamp()),
            ends: time(parsed.validity().not_after.timestamp()),
            key: key(&parsed),
            weak_hash: WEAK.contains(&&*algorithm.to_id_string()),
            authority: parsed.is_ca(),
            der: der.to_vec(),
        })
    }

    /// Whether it is for the host, a DNS name or an address (RFC 6125: one leftmost label may be
    /// `*`; the common name does not count, as in Go).
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.names.iter().any(|n| n.parse() == Ok(address));
        }
        let host = host.trim_end_matches('.');
        self.names.iter().any(|name| {
            name.eq_ignore_ascii_case(host)
                || name.strip_prefix("*.").is_some_and(|rest| {
                    host.split_once('.').is_some_and(|(_, r)| r.eq_ignore_ascii_case(rest))
                })
        })
    }

    fn parsed(&self) -> Option<X509Certificate<'_>> {
        X509Certificate::from_der(&self.der).ok().map(|(_, parsed)| parsed)
    }

    /// In words, if it is not valid now.
    #[must_use]
    pub fn complaint(&self) -> Option<&'static str> {
        let now = Timestamp::now();
        if now > self.ends {
            Some("has expired")
        } else if now < self.starts {
            Some("is not valid yet")
        } else {
            None
        }
    }

    /// Whether it may be a server's: without a list of purposes it may be anything. `None` where
    /// the list is malformed.
    #[must_use]
    pub fn is_for_servers(&self) -> Option<bool> {
        let parsed = self.parsed()?;
        let purposes = parsed.extended_key_usage().ok()?;
        Some(purposes.is_none_or(|p| p.value.any || p.value.server_auth))
    }

    /// The object identifiers of its key's kind, as they are encoded: of the algorithm, and of the
    /// curve where it has one.
    #[must_use]
    pub fn key_algorithm(&self) -> Option<Vec<u8>> {
        let parsed = self.parsed()?;
        let algorithm = &parsed.public_key().algorithm;
        let curve = algorithm.parameters.as_ref().map_or(&[][..], |p| p.data);
        Some([algorithm.algorithm.as_bytes(), curve].concat())
    }

    /// Whether it says that `authority` signed it.
    #[must_use]
    pub fn names_as_issuer(&self, authority: &Self) -> bool {
        let (own, other) = (self.parsed(), authority.parsed());
        own.zip(other).is_some_and(|(own, o)| own.issuer().as_raw() == o.subject().as_raw())
    }

    /// Whether `authority` signed it; `None` where the signature cannot be computed here.
    #[must_use]
    pub fn signed_by(&self, authority: &Self) -> Option<bool> {
        use x509_parser::error::X509Error;
        if !self.names_as_issuer(authority) {
            return Some(false);
        }
        let (own, other) = (self.parsed()?, authority.parsed()?);
        match own.verify_signature(Some(other.public_key())) {
            Ok(()) => Some(true),
            Err(X509Error::SignatureUnsupportedAlgorithm) => None,
            Err(_) => Some(false),
        }
    }
}

/// The nearest that can be told: one without an end says the last second of the year 9999
/// (RFC 5280, 4.1.2.5), which is a little later.
fn time(seconds: i64) -> Timestamp {
    let last = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(seconds).unwrap_or(last)
}

fn name(of: &X509Name<'_>) -> String {
    let common = of.iter_common_name().last().and_then(|n| n.as_str().ok());
    let whole = || Some(of.to_string()).filter(|n| !n.is_empty());
    common.map(str::to_owned).or_else(whole).unwrap_or_else(|| "?".to_owned())
}

fn names(of: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = of.subject_alternative_name() else { return Vec::new() };
    let one = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
            .ok()
            .map(|a| a.to_string()),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(one).collect()
}

fn key(of: &X509Certificate<'_>) -> Key {
    let info = of.public_key();
    match info.parsed() {
        Ok(PublicKey::RSA(rsa)) => {
            let zeros = rsa.modulus.iter().take_while(|b| **b == 0).count();
            let first = rsa.modulus.get(zeros).map_or(0, |b| b.leading_zeros() as usize);
            Key::Rsa(8 * (rsa.modulus.len() - zeros) - first)
        }
        Ok(PublicKey::EC(point)) => Key::Ec(point.key_size()),
        _ if info.algorithm.algorithm == oid::OID_SIG_ED25519 => Key::Ed25519,
        _ => Key::Other(info.algorithm.algorithm.to_id_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str], key: &rcgen::KeyPair) -> String {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a.example");
        params.not_before = rcgen::date_time_ymd(2021, 1, 2);
        params.not_after = rcgen::date_time_ymd(2031, 5, 17);
        params.self_signed(key).unwrap().pem()
    }

    #[test]
    fn what_another_implementation_made() {
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = made(&["a.example", "*.b.example", "10.0.0.1", "::1"], &key);
        let all = in_pem(format!("{pem}\n{BEGIN}MII={END}\n{pem}").as_bytes());
        let [one, other] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(one, other);
        assert_eq!((one.subject.as_str(), one.issuer.as_str()), ("a.example", "a.example"));
        assert_eq!(one.starts, "2021-01-02T00:00:00Z".parse().unwrap());
        assert_eq!(one.ends, "2031-05-17T00:00:00Z".parse().unwrap());
        assert_eq!(one.key, Key::Ec(256));
        assert!(!one.key.is_weak() && !one.weak_hash && !one.authority);
        for host in ["a.example", "A.example.", "x.b.example", "10.0.0.1", "0:0::1"] {
            assert!(one.is_for(host), "{host}");
        }
        for host in ["b.example", "x.y.b.example", "10.0.0.2", "example"] {
            assert!(!one.is_for(host), "{host}");
        }
        assert_eq!(one.signed_by(other), Some(true));
        let stranger = in_pem(made(&[], &rcgen::KeyPair::generate().unwrap()).as_bytes());
        assert_eq!(one.signed_by(&stranger[0]), Some(false), "the same name, another key");
        let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert_eq!(in_pem(made(&["a"], &ed).as_bytes())[0].key, Key::Ed25519);
        assert_eq!(in_pem(key.serialize_pem().as_bytes()), []);
        assert_eq!(in_pem(format!("{BEGIN}MII={END}{BEGIN}").as_bytes()), []);
    }

    #[test]
    fn a_certificate_says_when_it_is_valid() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1999, 12, 31);
        params.not_after = rcgen::date_time_ymd(2000, 3, 1);
        let cert = params.self_signed(&key).unwrap();
        let old = Certificate::from_der(cert.der()).unwrap();
        let validity = (old.starts.as_second(), old.ends.as_second());
        assert_eq!(validity, (946_598_400, 951_868_800));
        assert_eq!(old.complaint(), Some("has expired"));
        params.not_after = rcgen::date_time_ymd(4096, 1, 1);
        let cert = params.self_signed(&key).unwrap();
        assert_eq!(Certificate::from_der(cert.der()).unwrap().complaint(), None);
        for len in 0..120 {
            assert_eq!(Certificate::from_der(&cert.der()[..len]), None, "truncated to {len}");
        }
        params.not_after = rcgen::date_time_ymd(9999, 12, 31);
        let cert = params.self_signed(&key).unwrap();
        assert_eq!(Certificate::from_der(cert.der()).unwrap().ends, Timestamp::MAX);
    }
}
