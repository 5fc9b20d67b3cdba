//! Credentials where none should be, by the forms that their makers gave them.

use serde_json::Value;

use super::uses;

/// What a well-known credential begins with, how many characters of its alphabet follow at least,
/// and what it is.
const PREFIXES: [(&str, usize, &str); 12] = [
    ("AKIA", 16, "an AWS access key ID"),
    ("ASIA", 16, "an AWS access key ID"),
    ("ghp_", 36, "a GitHub token"),
    ("gho_", 36, "a GitHub token"),
    ("ghs_", 36, "a GitHub token"),
    ("github_pat_", 40, "a GitHub token"),
    ("glpat-", 20, "a GitLab token"),
    ("xoxb-", 20, "a Slack token"),
    ("xoxp-", 20, "a Slack token"),
    ("sk_live_", 20, "a Stripe key"),
    ("AIza", 35, "a Google API key"),
    ("hvs.", 24, "a Vault token"),
];

/// What a text holds, if it is a credential.
fn credential(text: &str) -> Option<&'static str> {
    if text.contains("PRIVATE KEY-----") && text.contains("-----BEGIN") {
        return Some("a private key");
    }
    for (prefix, least, what) in PREFIXES {
        for (at, _) in text.match_indices(prefix) {
            // In the middle of a word it is chance.
            let before = text[..at].chars().next_back();
            let follows = text[at + prefix.len()..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
                .count();
            if follows >= least && !before.is_some_and(|c| c.is_ascii_alphanumeric()) {
                return Some(what);
            }
        }
    }
    None
}

/// Keys of a `ConfigMap` that hold credentials, and which.
pub(super) fn config_map(object: &Value) -> Vec<(String, &'static str)> {
    let data = object["data"].as_object().into_iter().flatten();
    data.filter_map(|(key, value)| Some((key.clone(), credential(value.as_str()?)?))).collect()
}

/// Variables of containers that hold credentials: container, variable, what.
pub(super) fn environment(resource: &str, object: &Value) -> Vec<(String, String, &'static str)> {
    let Some(spec) = uses::pod_spec(resource, object) else { return Vec::new() };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for container in uses::containers(spec) {
        for variable in container["env"].as_array().into_iter().flatten() {
            let Some(value) = variable["value"].as_str() else { continue };
            let name = text(&variable["name"]);
            let what = credential(value).or_else(|| by_name(&name, value));
            found.extend(what.map(|what| (text(&container["name"]), name, what)));
        }
    }
    found
}

/// A value that its variable's name calls a password. Names of files and references to other
/// variables are none.
fn by_name(name: &str, value: &str) -> Option<&'static str> {
    const WORDS: [&str; 5] = ["PASSWORD", "PASSWD", "SECRET_KEY", "API_KEY", "ACCESS_TOKEN"];
    let name = name.to_uppercase();
    let named = WORDS.iter().any(|word| name == *word || name.ends_with(&format!("_{word}")));
    let literal = value.len() >= 4
        && !value.contains("$(")
        && !value.starts_with('/')
        && !matches!(value, "true" | "false" | "none" | "null");
    (named && literal).then_some("a literal password")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn forms_of_credentials() {
        for (text, expected) in [
            ("-----BEGIN RSA PRIVATE KEY-----\nMII", Some("a private key")),
            ("-----BEGIN CERTIFICATE-----\nMII", None),
            ("key = AKIAIOSFODNN7EXAMPLE", Some("an AWS access key ID")),
            ("MAKIAIOSFODNN7EXAMPLE", None),
            ("AKIASHORT", None),
            ("ghp_012345678901234567890123456789012345", Some("a GitHub token")),
            ("hello", None),
        ] {
            assert_eq!(credential(text), expected, "{text}");
        }
    }

    #[test]
    fn variables_by_name() {
        let pod = json!({"spec": {"containers": [{"name": "c", "env": [
            {"name": "DB_PASSWORD", "value": "hunter2"},
            {"name": "DB_PASSWORD_FILE", "value": "/run/secret"},
            {"name": "PASSWORD", "value": "$(OTHER)"},
            {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "s"}}},
            {"name": "PLAIN", "value": "hunter2"}]}]}});
        let found = environment("pods", &pod);
        assert_eq!(found, [("c".to_owned(), "DB_PASSWORD".to_owned(), "a literal password")]);
    }
}
