//! A new configuration's text. The caller brings the key's bytes.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::envelope::Provider;
use crate::secret::KeyMaterial;

/// The comment over an identity provider that comes after others.
pub(super) const IDENTITY_READS: &str =
    "# Reads what is still stored unencrypted; remove it when nothing is.";
/// The comment over one that comes first, where [`IDENTITY_READS`] would be wrong.
pub(super) const IDENTITY_WRITES: &str =
    "# Writes unencrypted; the providers after it read what is still encrypted.";

/// What a new configuration is to hold.
pub struct New<'a> {
    /// `resources[].resources[]`.
    pub resources: &'a [String],
    /// What writes.
    pub writer: Writer<'a>,
}

/// The first provider of a new configuration.
pub enum Writer<'a> {
    /// secretbox, aescbc or aesgcm with one key.
    Static {
        /// Which.
        provider: Provider,
        /// The key's name.
        name: &'a str,
        /// 32 bytes.
        secret: &'a KeyMaterial,
    },
    /// A KMS v2 plugin.
    Kms {
        /// The provider's name.
        name: &'a str,
        /// `unix:///…`
        endpoint: &'a str,
        /// As Go writes durations; the API server's default (3s) without.
        timeout: Option<&'a str>,
    },
}

/// Writes the configuration, as YAML with comments or as JSON.
#[must_use]
pub fn generate(new: &New<'_>, json: bool) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::new());
    // Writing to a string cannot fail.
    let _ = if json { write_json(&mut out, new) } else { write_yaml(&mut out, new) };
    out
}

/// A string that YAML 1.1, YAML 1.2 and JSON readers take as this string.
#[must_use]
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

/// As [`quoted`], without quotes where every reader takes the plain text as a string.
pub(super) fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.len() > 3
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
        && text.chars().any(|c| c.is_ascii_lowercase() && !matches!(c, 'e' | 'n' | 'u' | 'l'))
        && !matches!(text, "true" | "false");
    if plain { text.to_owned() } else { quoted(text) }
}

/// Base64 of a key, wiped when dropped.
pub(super) fn encode(secret: &KeyMaterial) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(secret.expose()))
}

fn write_yaml(out: &mut String, new: &New<'_>) -> std::fmt::Result {
    writeln!(out, "apiVersion: apiserver.config.k8s.io/v1")?;
    writeln!(out, "kind: EncryptionConfiguration")?;
    writeln!(out, "resources:")?;
    writeln!(out, "  - resources:")?;
    for resource in new.resources {
        writeln!(out, "      - {}", scalar(resource))?;
    }
    writeln!(out, "    providers:")?;
    match &new.writer {
        Writer::Static { provider, name, secret } => {
            writeln!(out, "      - {provider}:")?;
            writeln!(out, "          keys:")?;
            writeln!(out, "            - name: {}", scalar(name))?;
            writeln!(out, "              secret: {}", *encode(secret))?;
        }
        Writer::Kms { name, endpoint, timeout } => {
            writeln!(out, "      - kms:")?;
            writeln!(out, "          apiVersion: v2")?;
            writeln!(out, "          name: {}", scalar(name))?;
            writeln!(out, "          endpoint: {}", quoted(endpoint))?;
            if let Some(timeout) = timeout {
                writeln!(out, "          timeout: {}", quoted(timeout))?;
            }
        }
    }
    writeln!(out, "      {IDENTITY_READS}")?;
    writeln!(out, "      - identity: {{}}")
}

fn write_json(out: &mut String, new: &New<'_>) -> std::fmt::Result {
    let resources: Vec<_> = new.resources.iter().map(|r| quoted(r)).collect();
    write!(
        out,
        "{{\"kind\":\"EncryptionConfiguration\",\"apiVersion\":\"apiserver.config.k8s.io/v1\",\"resources\":[{{\"resources\":[{}],\"providers\":[",
        resources.join(",")
    )?;
    match &new.writer {
        Writer::Static { provider, name, secret } => write!(
            out,
            "{{\"{provider}\":{{\"keys\":[{{\"name\":{},\"secret\":\"{}\"}}]}}}}",
            quoted(name),
            *encode(secret)
        )?,
        Writer::Kms { name, endpoint, timeout } => {
            write!(
                out,
                "{{\"kms\":{{\"apiVersion\":\"v2\",\"name\":{},\"endpoint\":{}",
                quoted(name),
                quoted(endpoint)
            )?;
            if let Some(timeout) = timeout {
                write!(out, ",\"timeout\":{}", quoted(timeout))?;
            }
            write!(out, "}}}}")?;
        }
    }
    writeln!(out, ",{{\"identity\":{{}}}}]}}]}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_generated_is_accepted_and_says_what_was_asked() {
        let secret = KeyMaterial::new((7..39).collect());
        let resources = ["secrets".to_owned(), "*.*".to_owned(), "widgets.example.com".to_owned()];
        for json in [false, true] {
            for provider in [Provider::Secretbox, Provider::AesCbc, Provider::AesGcm] {
                for name in
                    ["key-20260101", "yes", "a: b # c", "1", "\"", "null", "é\n", "e100", "1e3"]
                {
                    let writer = Writer::Static { provider, name, secret: &secret };
                    let text = generate(&New { resources: &resources[..1], writer }, json);
                    let Ok(parsed) = crate::config::parse(text.as_bytes()) else {
                        panic!("{provider} {name} {json}")
                    };
                    let entry = &parsed.config.entries[0];
                    assert_eq!(entry.resources, resources[..1]);
                    assert_eq!(entry.providers[0].provider(), provider);
                    assert_eq!(entry.providers[0].keys()[0].name, name);
                    assert!(entry.providers[0].keys()[0].secret.same(&secret));
                    assert_eq!(entry.providers[1].provider(), Provider::Identity);
                }
            }
            let writer =
                Writer::Kms { name: "vault", endpoint: "unix:///@kms", timeout: Some("5s") };
            let text = generate(&New { resources: &resources[1..2], writer }, json);
            assert!(crate::config::parse(text.as_bytes()).is_ok(), "{}", *text);
        }
        for text in ["secrets", "widgets.example.com", "key-20260101"] {
            assert_eq!(scalar(text), text);
        }
        for text in ["*.*", "null", "true", "on", "e100", "~", "0x1f"] {
            assert!(scalar(text).starts_with('"'), "{text}");
        }
    }
}
