//! Pure prefix classification of stored values: which provider wrote this, in which version,
//! under which key name. No keys, no I/O, and only at offset 0.
//!
//! Source: kubernetes/apiserver `pkg/storage/value/encrypt/*`,
//! `pkg/server/options/encryptionconfig/config.go`.

use std::borrow::Cow;

/// What every encrypted value begins with; nothing else makes a value "encrypted".
pub const ENCRYPTED_PREFIX: &[u8] = b"k8s:enc:";

/// Who wrote a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// AES-CBC with PKCS#7 padding, no integrity.
    AesCbc,
    /// AES-GCM.
    AesGcm,
    /// Stored unencrypted.
    Identity,
    /// A KMS plugin (v1 or v2).
    Kms,
    /// `XSalsa20`-`Poly1305`.
    Secretbox,
    /// Begins with `k8s:enc:` but fits no known provider.
    Unknown,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Identity, Self::Secretbox, Self::AesCbc, Self::AesGcm, Self::Kms, Self::Unknown];

    /// The word used in configuration files and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AesCbc => "aescbc",
            Self::AesGcm => "aesgcm",
            Self::Identity => "identity",
            Self::Kms => "kms",
            Self::Secretbox => "secretbox",
            Self::Unknown => "unknown",
        }
    }

    /// With one of its keys, for a sentence: "aescbc key `a`", "kms provider `p`", "identity".
    #[must_use]
    pub fn with_key(self, key: Option<&str>) -> ProviderKey {
        self.with_shown_key(key.map(|name| format!("`{name}`")))
    }

    /// As [`Provider::with_key`], of a key whose name is fit to be shown, in its quotes.
    #[must_use]
    pub fn with_shown_key(self, key: Option<String>) -> ProviderKey {
        ProviderKey { provider: self, version: None, key }
    }
}

/// A provider and its key, or a plugin, in words. See [`Provider::with_key`].
#[derive(Clone, Debug)]
pub struct ProviderKey {
    provider: Provider,
    version: Option<Version>,
    key: Option<String>,
}

impl ProviderKey {
    /// With the version, where a provider has several: "kms v2 `p`".
    #[must_use]
    pub fn of_version(self, version: Option<Version>) -> Self {
        Self { version: version.filter(|_| self.provider == Provider::Kms), ..self }
    }
}

impl std::fmt::Display for ProviderKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { provider, version, key } = self;
        match (version, key) {
            (Some(version), Some(name)) => write!(f, "{provider} {} {name}", version.as_str()),
            (None, Some(name)) if *provider == Provider::Kms => {
                write!(f, "{provider} provider {name}")
            }
            (None, Some(name)) => write!(f, "{provider} key {name}"),
            (_, None) => write!(f, "{provider}"),
        }
    }
}

/// All that a stored value's prefix says, in words: "secretbox v1 key secret-key-1",
/// "kms v2 key plugin (key ID 7f3a)".
#[derive(Clone, Copy, Debug)]
pub struct StoredUnder<'a> {
    /// The provider.
    pub provider: Provider,
    /// Its format version; none for identity.
    pub version: Option<Version>,
    /// Key or KMS plugin name, fit to be shown.
    pub key: Option<&'a str>,
    /// KMS v2 key ID, fit to be shown.
    pub kms_key_id: Option<&'a str>,
}

impl std::fmt::Display for StoredUnder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.provider)?;
        if let Some(version) = self.version {
            write!(f, " {}", version.as_str())?;
        }
        if let Some(name) = self.key {
            write!(f, " key {name}")?;
        }
        if let Some(id) = self.kms_key_id {
            write!(f, " (key ID {id})")?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Version of a provider's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `v1`
    V1,
    /// `v2` (KMS only)
    V2,
}

impl Version {
    /// `v1` or `v2`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// A recognised value prefix. `body` is everything after the provider's own prefix, that is
/// `<name>:<payload>`; for `identity` and `unknown` it is the whole value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The provider.
    pub provider: Provider,
    /// Format version; none for `identity` and `unknown`.
    pub version: Option<Version>,
    /// `<name>:<payload>`.
    pub body: &'a [u8],
}

const PREFIXES: [(&[u8], Provider, Version); 5] = [
    (b"secretbox:v1:", Provider::Secretbox, Version::V1),
    (b"aescbc:v1:", Provider::AesCbc, Version::V1),
    (b"aesgcm:v1:", Provider::AesGcm, Version::V1),
    (b"kms:v2:", Provider::Kms, Version::V2),
    (b"kms:v1:", Provider::Kms, Version::V1),
];

impl<'a> Envelope<'a> {
    /// Classifies stored bytes.
    #[must_use]
    pub fn of(value: &'a [u8]) -> Self {
        let Some(rest) = value.strip_prefix(ENCRYPTED_PREFIX) else {
            return Self { provider: Provider::Identity, version: None, body: value };
        };
        for (prefix, provider, version) in PREFIXES {
            if let Some(body) = rest.strip_prefix(prefix) {
                return Self { provider, version: Some(version), body };
            }
        }
        Self { provider: Provider::Unknown, version: None, body: value }
    }

    /// Whether the value is stored unencrypted, by the API server's own test.
    #[must_use]
    pub fn is_plaintext(&self) -> bool {
        self.provider == Provider::Identity
    }

    /// Key (or KMS plugin) name and payload. `known` are configured names of this provider and
    /// version: the longest that fits wins; without one the name ends at the first colon, or, where
    /// that colon is inside an RFC 3339 time (k3s and RKE2 name rotated keys
    /// `aescbckey-2024-05-01T10:11:12+02:00`), at the colon after the time.
    ///
    /// `None` when there is no name, as in a truncated value.
    #[must_use]
    pub fn split<'n>(
        &self,
        known: impl IntoIterator<Item = &'n str>,
    ) -> Option<(&'a [u8], &'a [u8])> {
        self.version?;
        let fits = |name: &&str| {
            self.body.get(name.len()) == Some(&b':') && self.body.starts_with(name.as_bytes())
        };
        let end = if let Some(len) = known.into_iter().filter(fits).map(str::len).max() {
            len
        } else {
            let colon = memchr::memchr(b':', self.body)?;
            time_end(self.body, colon).unwrap_or(colon)
        };
        Some((&self.body[..end], &self.body[end + 1..]))
    }

    /// The KMS v2 key ID that a payload from [`Envelope::split`] names in clear; `None` where the
    /// payload is not a complete message.
    #[must_use]
    pub fn kms_key_id(&self, payload: &'a [u8]) -> Option<Cow<'a, str>> {
        if self.provider != Provider::Kms || self.version != Some(Version::V2) {
            return None;
        }
        let mut id = None;
        for field in crate::proto::Fields::new(payload) {
            let field = field.ok()?;
            if field.number == 2 {
                id = Some(field.bytes()?);
            }
        }
        id.map(String::from_utf8_lossy)
    }
}

/// Where an RFC 3339 time ends whose first colon is at `colon`, if there is one and a colon
/// follows it. Times are written by Go's `time.RFC3339` (k3s-io/k3s
/// `pkg/server/handlers/secrets-encrypt.go`).
fn time_end(body: &[u8], colon: usize) -> Option<usize> {
    let fits = |at: usize, pattern: &[u8]| {
        let text = body.get(at..at + pattern.len())?;
        let same = text.iter().zip(pattern).all(|(b, p)| match p {
            b'0' => b.is_ascii_digit(),
            b'T' => b.eq_ignore_ascii_case(&b'T'),
            p => b == p,
        });
        same.then_some(at + pattern.len())
    };
    let number = |at: usize| 10 * u32::from(body[at] - b'0') + u32::from(body[at + 1] - b'0');
    let start = colon.checked_sub(b"2024-05-01T10".len())?;
    let mut end = fits(start, b"0000-00-00T00:00:00")?;
    let in_range = (1..=12).contains(&number(start + 5))
        && (1..=31).contains(&number(start + 8))
        && number(start + 11) < 24
        && number(start + 14) < 60
        && number(start + 17) <= 60;
    if !in_range {
        return None;
    }
    if body.get(end) == Some(&b'.') {
        let digits = body[end + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        end = (digits > 0).then_some(end + 1 + digits)?;
    }
    end = match body.get(end)? {
        b'Z' | b'z' => end + 1,
        b'+' | b'-' => fits(end + 1, b"00:00")?,
        _ => return None,
    };
    (body.get(end) == Some(&b':')).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(value: &[u8], known: &[&str]) -> (Provider, Option<Version>, Option<String>) {
        let e = Envelope::of(value);
        let name =
            e.split(known.iter().copied()).map(|(n, _)| String::from_utf8_lossy(n).into_owned());
        (e.provider, e.version, name)
    }

    #[test]
    fn prefixes_are_recognised_at_offset_zero_only() {
        use Provider::{AesCbc, AesGcm, Identity, Kms, Secretbox, Unknown};
        use Version::{V1, V2};
        let cases: &[(&[u8], Provider, Option<Version>, Option<&str>)] = &[
            (b"k8s:enc:secretbox:v1:k:xyz", Secretbox, Some(V1), Some("k")),
            (b"k8s:enc:aescbc:v1:k:xyz", AesCbc, Some(V1), Some("k")),
            (b"k8s:enc:aesgcm:v1:k:", AesGcm, Some(V1), Some("k")),
            (b"k8s:enc:kms:v1:p:x", Kms, Some(V1), Some("p")),
            (b"k8s:enc:kms:v2:p:x", Kms, Some(V2), Some("p")),
            (b"k8s:enc:aescbc:v1:v1:x", AesCbc, Some(V1), Some("v1")),
            (b"k8s:enc:aescbc:v1:", AesCbc, Some(V1), None),
            (b"k8s:enc:aescbc:v2:x:", Unknown, None, None),
            (b"k8s:enc:foo:v1:x:", Unknown, None, None),
            (b"k8s:enc:", Unknown, None, None),
            (b"K8S:ENC:aescbc:v1:x:", Identity, None, None),
            (b" k8s:enc:aescbc:v1:x:", Identity, None, None),
            (b"k8s:enc", Identity, None, None),
            (b"k8s\0\x0a\x08k8s:enc:aescbc:v1:x:", Identity, None, None),
            (b"", Identity, None, None),
        ];
        for (value, provider, version, name) in cases {
            assert_eq!(
                parts(value, &[]),
                (*provider, *version, name.map(str::to_owned)),
                "{}",
                value.escape_ascii()
            );
        }
    }

    #[test]
    fn configured_names_come_first_longest_first() {
        let value = b"k8s:enc:aescbc:v1:a:b:payload";
        assert_eq!(parts(value, &[]).2.unwrap(), "a");
        assert_eq!(parts(value, &["a", "a:b"]).2.unwrap(), "a:b");
        assert_eq!(parts(value, &["a"]).2.unwrap(), "a");
        assert_eq!(parts(value, &["a:b:payload"]).2.unwrap(), "a");
        let dated = b"k8s:enc:aescbc:v1:aescbckey-2024-05-01T10:11:12+02:00:xx";
        assert_eq!(
            parts(dated, &["aescbckey", "aescbckey-2024-05-01T10:11:12+02:00"]).2.unwrap(),
            "aescbckey-2024-05-01T10:11:12+02:00"
        );
    }

    #[test]
    fn a_name_keeps_the_colons_of_the_time_it_ends_in() {
        for name in [
            "aescbckey-2026-03-09T09:46:54+01:00",
            "aescbckey-2026-03-09T08:58:02Z",
            "secretboxkey-2026-12-31T23:59:60.123-09:30",
            "2026-03-09T08:58:02Z",
        ] {
            let value = format!("k8s:enc:aescbc:v1:{name}:\u{1}:2:");
            assert_eq!(parts(value.as_bytes(), &[]).2.unwrap(), name);
            assert_eq!(parts(value.as_bytes(), &["other"]).2.unwrap(), name);
            let shorter = &name[..name.find(':').unwrap()];
            assert_eq!(parts(value.as_bytes(), &[shorter]).2.unwrap(), shorter, "configured");
        }
        for (body, name) in [
            // No time, an impossible one, and one that does not end the name.
            ("key-2026-03-09T09:payload", "key-2026-03-09T09"),
            ("key-2026-13-09T09:46:54Z:x", "key-2026-13-09T09"),
            ("key-2026-03-09T09:46:54Zx:x", "key-2026-03-09T09"),
            ("key-2026-03-09T09:46:54+01:x", "key-2026-03-09T09"),
            ("a:key-2026-03-09T09:46:54Z:x", "a"),
            ("key-2026-03-09T09:46:54Z", "key-2026-03-09T09"),
            ("T09:46:54Z:x", "T09"),
        ] {
            assert_eq!(parts(format!("k8s:enc:aescbc:v1:{body}").as_bytes(), &[]).2.unwrap(), name);
        }
    }

    #[test]
    fn kms_key_id_is_read_only_from_a_complete_message() {
        let mut value = b"k8s:enc:kms:v2:p:".to_vec();
        value.extend([0x0a, 2, 1, 2, 0x12, 3, b'k', b'i', b'd']);
        let e = Envelope::of(&value);
        let (_, payload) = e.split([]).unwrap();
        assert_eq!(e.kms_key_id(payload).as_deref(), Some("kid"));
        assert_eq!(e.kms_key_id(&payload[..payload.len() - 1]), None);
    }
}
