//! What is wrong, or worth knowing, about a configuration. Never quotes key material.

use std::fmt;

use crate::yaml_tree::Position;

/// One error or warning about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Path of the field as the API server names it (`resources[0].providers[1].kms.name`);
    /// empty for the document as a whole.
    pub path: String,
    /// What is wrong, in words.
    pub message: String,
    /// Where, if it is at one place of the text.
    pub at: Option<Position>,
}

impl Finding {
    /// About a field at a place.
    pub(crate) fn new(path: &str, message: impl Into<String>, at: Position) -> Self {
        Self { path: path.to_owned(), message: message.into(), at: (at.line > 0).then_some(at) }
    }

    /// About the document as a whole.
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self { path: String::new(), message: message.into(), at: None }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "line {}, column {}: ", at.line, at.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Why a configuration is refused: every error at once.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", summary(.errors))]
pub struct ConfigErrors {
    /// What the API server would refuse.
    pub errors: Vec<Finding>,
    /// What it would accept and a person should know.
    pub warnings: Vec<Finding>,
}

fn summary(errors: &[Finding]) -> String {
    match errors {
        [one] => one.to_string(),
        many => format!(
            "{} errors, the first: {}",
            many.len(),
            many.first().map_or_else(String::new, ToString::to_string)
        ),
    }
}

/// A value from the file for a message, unless it may be a secret that went astray (wrong
/// indentation, swapped fields) or is too long to help.
pub(crate) fn shown(value: &str) -> String {
    if value.chars().count() > 80 || looks_secret(value) || value.contains(char::is_control) {
        format!("<{} characters, not shown>", value.chars().count())
    } else {
        format!("`{value}`")
    }
}

/// A field's name for a path; see [`shown`].
pub(crate) fn shown_field(name: &str) -> String {
    let plain =
        name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '.'));
    if name.len() <= 40 && plain && !looks_secret(name) && !name.is_empty() {
        name.to_owned()
    } else {
        format!("<{} characters>", name.chars().count())
    }
}

/// A run of 12 or more base64 characters that mixes cases and digits. Names in Kubernetes are
/// lower case; sixteen bytes of key are 22 characters or more.
fn looks_secret(value: &str) -> bool {
    value
        .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=')))
        .filter(|run| run.len() >= 12)
        .any(|run| {
            let has = |test: fn(&char) -> bool| run.chars().any(|c| test(&c));
            let upper = has(char::is_ascii_uppercase);
            let lower = has(char::is_ascii_lowercase);
            let digit = has(|c| c.is_ascii_digit() || matches!(c, '+' | '/'));
            (upper && lower && digit) || run.ends_with('=')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        for secret in [
            "u7mcOcHKbFh9eVluB18hbFIsVfwpvgbXv650QacDYXA=",
            "wIF9I9hjyf0o/7CEpVSSGl1sGmAJflX+",
            "dXP+mRoAbKXe9ZuZ6aLgqQ==",
            "secret: dXP+mRoAbKXe9ZuZ6aLgqQ",
        ] {
            assert!(!shown(secret).contains(&secret[8..12]), "{secret}");
            assert!(!shown_field(secret).contains(&secret[8..12]), "{secret}");
        }
        for name in [
            "secrets",
            "widgets.example.com",
            "unix:///run/kms/v1.sock",
            "Secrets",
            "tcp://localhost:8080",
        ] {
            assert_eq!(shown(name), format!("`{name}`"));
        }
        assert_eq!(shown_field("apiVersion"), "apiVersion");
        assert_eq!(shown_field("experimentalEncryptionProvider"), "experimentalEncryptionProvider");
    }
}
