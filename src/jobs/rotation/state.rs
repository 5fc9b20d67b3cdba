//! What a rotation remembers between runs. No secret: of files their names and hashes, which API
//! servers publish too. Everything else is looked up anew.

use serde::{Deserialize, Serialize};

use super::Role;
use crate::envelope::Provider;

/// The form that is written.
const SCHEMA: &str = "atrest.rotation/v1";

/// A key, or the KMS provider or `identity` in its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its provider.
    pub provider: Provider,
    /// Its name; none of identity.
    pub name: Option<String>,
}

impl Key {
    /// Puts both together.
    #[must_use]
    pub fn new(provider: Provider, name: Option<&str>) -> Self {
        Self { provider, name: name.map(str::to_owned) }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.provider {
            Provider::Identity => f.write_str("identity (unencrypted)"),
            provider => write!(f, "{}", provider.with_key(self.name.as_deref())),
        }
    }
}

/// A file of the rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name, beside the state; the path as it was given of the first.
    pub file: String,
    /// `sha256:…` of its bytes.
    pub sha256: String,
}

/// What somebody said about the API servers, and nobody saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// The file that all of them have loaded.
    pub sha256: String,
    /// When, RFC 3339.
    pub at: String,
}

/// What a rotation remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// When it began, RFC 3339.
    pub begun: String,
    /// The entries that it is restricted to.
    pub resources: Vec<String>,
    /// The key that comes.
    pub new: Key,
    /// The key that goes.
    pub old: Key,
    /// The files that were written, and the first.
    files: [Option<File>; Role::ALL.len()],
    /// What was said of the API servers.
    pub said: Vec<Said>,
    /// What was done and seen, each with its time.
    pub log: Vec<(String, String)>,
}

/// Why a state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is no such file.
    #[error("it is not the state of a rotation")]
    Foreign(#[from] serde_json::Error),
    /// Another version wrote it.
    #[error("its form is `{0}`, and this program knows {SCHEMA}")]
    Schema(String),
    /// A provider that this program does not know.
    #[error("it names a provider `{0}`")]
    Provider(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    schema: String,
    begun: String,
    #[serde(default)]
    resources: Vec<String>,
    new: WrittenKey,
    old: WrittenKey,
    start: File,
    added: Option<File>,
    promoted: Option<File>,
    retired: Option<File>,
    #[serde(default)]
    said: Vec<Said>,
    #[serde(default)]
    log: Vec<Logged>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    provider: String,
    key: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Logged {
    at: String,
    what: String,
}

impl From<&Key> for WrittenKey {
    fn from(key: &Key) -> Self {
        Self { provider: key.provider.as_str().to_owned(), key: key.name.clone() }
    }
}

impl TryFrom<WrittenKey> for Key {
    type Error = StateError;

    fn try_from(written: WrittenKey) -> Result<Self, StateError> {
        use Provider::{AesCbc, AesGcm, Identity, Kms, Secretbox};
        let known = [AesCbc, AesGcm, Identity, Kms, Secretbox];
        let provider = known.into_iter().find(|p| p.as_str() == written.provider);
        let provider = provider.ok_or(StateError::Provider(written.provider))?;
        Ok(Self { provider, name: written.key })
    }
}

impl State {
    /// Of a rotation that begins.
    #[must_use]
    pub fn new(begun: String, start: File, (new, old): (Key, Key), resources: Vec<String>) -> Self {
        let files = [Some(start), None, None, None];
        Self { begun, resources, new, old, files, said: Vec::new(), log: Vec::new() }
    }

    /// A file, if it was written.
    #[must_use]
    pub fn file(&self, role: Role) -> Option<&File> {
        self.files[role as usize].as_ref()
    }

    /// Remembers that a file was written.
    pub fn wrote(&mut self, role: Role, file: File) {
        self.files[role as usize] = Some(file);
    }

    /// Which file has this hash.
    #[must_use]
    pub fn role_of(&self, sha256: &str) -> Option<Role> {
        // A key that was there from the start makes two files the same: the later one counts.
        let mut roles = Role::ALL.into_iter().rev();
        roles.find(|role| self.file(*role).is_some_and(|f| f.sha256 == sha256))
    }

    /// Reads what [`State::write`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(bytes: &[u8]) -> Result<Self, StateError> {
        let value: serde_json::Value = serde_json::from_slice(bytes)?;
        let schema = value.get("schema").and_then(serde_json::Value::as_str).unwrap_or_default();
        if schema != SCHEMA && schema.starts_with("atrest.rotation/") {
            return Err(StateError::Schema(schema.to_owned()));
        }
        let written: Written = serde_json::from_value(value)?;
        if written.schema != SCHEMA {
            return Err(StateError::Schema(written.schema));
        }
        Ok(Self {
            begun: written.begun,
            resources: written.resources,
            new: written.new.try_into()?,
            old: written.old.try_into()?,
            files: [Some(written.start), written.added, written.promoted, written.retired],
            said: written.said,
            log: written.log.into_iter().map(|l| (l.at, l.what)).collect(),
        })
    }

    /// As JSON, with a line feed.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which strings always can.
    pub fn write(&self) -> Result<Vec<u8>, serde_json::Error> {
        let file = |role| self.file(role).cloned();
        let written = Written {
            schema: SCHEMA.to_owned(),
            begun: self.begun.clone(),
            resources: self.resources.clone(),
            new: (&self.new).into(),
            old: (&self.old).into(),
            start: file(Role::Start)
                .unwrap_or_else(|| File { file: String::new(), sha256: String::new() }),
            added: file(Role::Added),
            promoted: file(Role::Promoted),
            retired: file(Role::Retired),
            said: self.said.clone(),
            log: self.log.iter().cloned().map(|(at, what)| Logged { at, what }).collect(),
        };
        let mut bytes = serde_json::to_vec_pretty(&written)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> File {
        File { file: name.to_owned(), sha256: format!("sha256:{name}") }
    }

    #[test]
    fn what_is_written_is_read() {
        let keys = (Key::new(Provider::Secretbox, Some("new")), Key::new(Provider::Identity, None));
        let mut state = State::new("t".to_owned(), file("start"), keys, vec!["secrets".into()]);
        state.wrote(Role::Added, file("added"));
        state.said.push(Said { sha256: "sha256:added".to_owned(), at: "t".to_owned() });
        state.log.push(("t".to_owned(), "x".to_owned()));
        let bytes = state.write().unwrap();
        assert_eq!(State::read(&bytes).unwrap(), state);
        assert_eq!(state.role_of("sha256:added"), Some(Role::Added));
        assert_eq!(state.role_of("sha256:other"), None);
        let text = String::from_utf8(bytes).unwrap();
        for (from, to, error) in [
            ("rotation/v1", "rotation/v9", "its form is `atrest.rotation/v9`"),
            ("atrest.rotation/v1", "other", "its form is `other`"),
            ("\"secretbox\"", "\"rot13\"", "it names a provider `rot13`"),
            ("\"said\"", "\"sad\"", "it is not the state"),
        ] {
            let error_now = State::read(text.replace(from, to).as_bytes()).unwrap_err();
            assert!(error_now.to_string().contains(error), "{error_now}");
        }
        assert!(State::read(b"").is_err());
    }
}
