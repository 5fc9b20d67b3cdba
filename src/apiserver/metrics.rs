//! What an API server's `/metrics` say about encryption at rest.
//!
//! The series come and go with versions (kubernetes/apiserver
//! `pkg/server/options/encryptionconfig/metrics/metrics.go`, `pkg/storage/value/metrics.go`,
//! `pkg/storage/value/encrypt/envelope/metrics/metrics.go`): which configuration is loaded is told
//! since 1.34, reloads since 1.27, each with the server's own hash since 1.29.

use std::collections::BTreeMap;

/// What the series say; empty where there are none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encryption {
    /// The server's version, `v1.36.0`.
    pub version: Option<String>,
    /// When its process began, seconds since 1970.
    pub began: Option<f64>,
    /// Which configuration is loaded.
    pub loaded: Vec<Loaded>,
    /// Reloads of the configuration file.
    pub reloads: Vec<Reload>,
    /// Which key of each KMS v2 plugin was seen last.
    pub key_ids: Vec<KeyId>,
    /// Values that were encrypted or decrypted.
    pub transformations: Vec<Transformations>,
}

/// A configuration that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// [`super::id_hash`] of the server.
    pub server: Option<String>,
    /// [`super::hash`] of the file's bytes.
    pub file: String,
}

/// How the last reload of one outcome went.
#[derive(Clone, Debug, PartialEq)]
pub struct Reload {
    /// [`super::id_hash`] of the server, since 1.29.
    pub server: Option<String>,
    /// It could be used.
    pub success: bool,
    /// When, seconds since 1970.
    pub at: f64,
}

/// A KMS v2 key as a server saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyId {
    /// [`super::id_hash`] of the server, since 1.29.
    pub server: Option<String>,
    /// The plugin's name in the configuration.
    pub provider: String,
    /// [`super::hash`] of the key ID.
    pub key_id: String,
    /// When its plugin named it last in an answer about its status, seconds since 1970.
    pub at: f64,
}

/// Values of one resource that went one way.
#[derive(Clone, Debug, PartialEq)]
pub struct Transformations {
    /// The resource, since 1.31.
    pub resource: Option<String>,
    /// Encrypted, not decrypted.
    pub written: bool,
    /// The envelope's prefix, `k8s:enc:kms:v2:NAME:`; empty for identity.
    pub prefix: String,
    /// `OK`, or a gRPC status.
    pub status: String,
    /// How many.
    pub count: f64,
}

/// Reads the text exposition format (Prometheus `docs/instrumenting/exposition_formats.md`).
/// Lines that are of no interest or malformed are passed over.
#[must_use]
pub fn parse(text: &str) -> Encryption {
    let mut found = Encryption::default();
    for line in text.lines() {
        let Some((name, mut labels, value)) = sample(line) else { continue };
        let mut take = |name: &str| labels.remove(name).filter(|v| !v.is_empty());
        match name {
            "apiserver_encryption_config_controller_last_config_info" if value > 0.0 => {
                if let Some(file) = take("hash") {
                    found.loaded.push(Loaded { server: take("apiserver_id_hash"), file });
                }
            }
            "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds" => {
                found.reloads.push(Reload {
                    server: take("apiserver_id_hash"),
                    success: take("status").as_deref() == Some("success"),
                    at: value,
                });
            }
            "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds" => {
                if let (Some(provider), Some(key_id)) = (take("provider_name"), take("key_id_hash"))
                {
                    let server = take("apiserver_id_hash");
                    found.key_ids.push(KeyId { server, provider, key_id, at: value });
                }
            }
            "apiserver_storage_transformation_operations_total" => {
                found.transformations.push(Transformations {
                    resource: take("resource"),
                    written: take("transformation_type").as_deref() == Some("to_storage"),
                    prefix: take("transformer_prefix").unwrap_or_default(),
                    status: take("status").unwrap_or_default(),
                    count: value,
                });
            }
            "process_start_time_seconds" => found.began = Some(value),
            "kubernetes_build_info" => found.version = take("git_version"),
            _ => {}
        }
    }
    found
}

/// Name, labels and value of a line; none for comments and what is malformed.
fn sample(line: &str) -> Option<(&str, BTreeMap<String, String>, f64)> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, quoted) = rest.split_once("=\"")?;
            let (value, after) = unquote(quoted)?;
            labels.insert(label.trim().to_owned(), value);
            rest = after;
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, labels, value))
}

/// A label's value up to its quote, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server of 1.36 with a KMS v2 plugin answers.
    const V1_36: &str = "\
# TYPE apiserver_encryption_config_controller_last_config_info gauge
apiserver_encryption_config_controller_last_config_info{apiserver_id_hash=\"sha256:73095bbbe8f317654631b5a70d7c53951e472e19c3daa5b71a50958a5e82991b\",hash=\"sha256:85913722fad6b8cd78e915f9b3f6de597b8a26e541548b5f3a4126f048f879df\"} 1
apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds{apiserver_id_hash=\"sha256:73095bbbe8f317654631b5a70d7c53951e472e19c3daa5b71a50958a5e82991b\",key_id_hash=\"sha256:a88f6baccce0e5e8d6fddbd78fda7efd548f1f884c65c612f4932506d56b629f\",provider_name=\"vault-v2\"} 1.7955652280178673e+09
apiserver_storage_transformation_operations_total{resource=\"configmaps\",status=\"OK\",transformation_type=\"from_storage\",transformer_prefix=\"k8s:enc:kms:v1:vault-v1:\"} 22
kubernetes_build_info{build_date=\"x\",git_version=\"v1.36.0\",major=\"1\"} 1
";
    /// The name of the Lease of that server.
    const LEASE: &str = "apiserver-wlv32tlttr4jl3gtroqexyxapa";

    #[test]
    fn a_server_says_which_configuration_and_key_it_has() {
        let found = parse(V1_36);
        assert_eq!(found.version.as_deref(), Some("v1.36.0"));
        assert_eq!(found.loaded.len(), 1);
        assert_eq!(found.loaded[0].server, Some(super::super::id_hash(LEASE)));
        assert!(found.loaded[0].file.starts_with("sha256:8591"));
        assert_eq!(found.key_ids[0].provider, "vault-v2");
        assert!(found.key_ids[0].at > 1.79e9);
        let of = &found.transformations[0];
        assert_eq!(
            (of.resource.as_deref(), of.written, of.count),
            (Some("configmaps"), false, 22.0)
        );
    }

    /// Before 1.34 the configuration is not told, before 1.29 not even by whom.
    #[test]
    fn older_servers_say_less() {
        let found = parse(
            "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds{apiserver_id_hash=\"sha256:ab\",status=\"success\"} 1.7e9\n\
             apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds{status=\"failure\"} 1.6e9\n\
             apiserver_storage_transformation_operations_total{status=\"OK\",transformation_type=\"to_storage\",transformer_prefix=\"\"} 3 1395066363000\n\
             process_start_time_seconds 1.70000000012e+09\n",
        );
        assert_eq!(found.began, Some(1_700_000_000.12));
        assert!(found.loaded.is_empty() && found.version.is_none());
        let reloads: Vec<_> =
            found.reloads.iter().map(|r| (r.success, r.server.is_some())).collect();
        assert_eq!(reloads, [(true, true), (false, false)]);
        assert_eq!((found.transformations[0].written, found.transformations[0].count), (true, 3.0));
    }

    #[test]
    fn what_is_malformed_is_passed_over() {
        let name = "apiserver_encryption_config_controller_last_config_info";
        for line in [
            "{hash=\"sha256:a\"",
            "{hash=\"sha256:a} 1",
            "{hash=\"sha256:a\"}",
            "{hash} 1",
            "{} 1",
            "{hash=\"sha256:a\"} x",
            // A configuration that was replaced.
            "{hash=\"sha256:a\"} 0",
        ] {
            assert_eq!(parse(&format!("{name}{line}\n")), Encryption::default(), "{line}");
        }
        let escaped = parse(&format!("{name}{{hash=\"a\\\\b\\\"c\\nd\",}} 1"));
        assert_eq!(escaped.loaded[0].file, "a\\b\"c\nd");
    }
}
