//! An object → the bytes that the API server would store, and the etcd key under which.

use serde_json::Value;
use zeroize::Zeroizing;

use crate::resource::kind::builtin;
use crate::resource::{NamedKey, Scope, is_namespaced};
use crate::secret::Plaintext;
use crate::storage::{self, EncodeError};
use crate::transform::{ReadError, Transformers, WriteError};

/// Where the object belongs.
pub struct Options {
    /// Where the API server keeps its objects.
    pub scope: Scope,
    /// The namespaces that it may be of; empty is all. It is of the first if it says none itself.
    pub namespaces: Vec<String>,
    /// Its etcd key, or `RESOURCE/NAMESPACE/NAME`; without one, where the API server keeps such
    /// an object.
    pub key: Option<Vec<u8>>,
}

/// Why there are no bytes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no object, or not one of its kind.
    #[error("the object cannot be encoded")]
    Encode(#[from] EncodeError),
    /// It is of another namespace than those that were asked for.
    #[error("the object is of namespace {0}, not {names}", names = .1.join(", "))]
    Namespace(String, Vec<String>),
    /// The key cannot be understood, in words.
    #[error("{0}")]
    Key(String),
    /// The text names a prefix.
    #[error("`{0}` is no key of an object")]
    NoKey(String),
    /// Its resource has namespaces, and nobody said which.
    #[error("the object of {0} has no namespace")]
    NoNamespace(String),
    /// Only the key of a built-in kind is known without being told.
    #[error("the etcd key of this kind is not known")]
    UnknownKey,
    /// The write provider.
    #[error("the value cannot be encrypted")]
    Write(#[source] WriteError),
    /// The write provider does not read what it wrote.
    #[error("the encrypted value cannot be read back")]
    Read(#[source] ReadError),
    /// What it reads is something else.
    #[error("the encrypted value reads back differently")]
    Different,
}

/// An object as it is stored without encryption.
pub struct Outcome {
    /// The value.
    pub plaintext: Plaintext,
    /// Its etcd key, where that is known.
    pub key: Option<Vec<u8>>,
}

/// Encodes an object, which is wiped.
///
/// # Errors
/// See [`Error`].
pub fn run(mut object: Value, options: &Options) -> Result<Outcome, Error> {
    let encoded = storage::encode(&object);
    let key = key(options, &object);
    storage::wipe(&mut object);
    let plaintext = Plaintext::new(encoded?.to_vec());
    Ok(Outcome { plaintext, key: key? })
}

impl Outcome {
    /// Encrypts the value as the API server would, and reads it back.
    ///
    /// # Errors
    /// See [`Error`]: a value that nobody can read again must never leave the program.
    pub fn encrypt(
        &self,
        transformers: &Transformers,
        options: &Options,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let key = self.key.as_deref().ok_or(Error::UnknownKey)?;
        let location = options.scope.locate_named(key);
        let resource = transformers.for_resource(&location.resource);
        let value = resource.write(key, &self.plaintext).map_err(Error::Write)?;
        let back = resource.read(key, &value).map_err(Error::Read)?;
        if !back.plaintext.same(&self.plaintext) {
            return Err(Error::Different);
        }
        Ok(Zeroizing::new(value))
    }
}

/// The etcd key: the given one, or where the API server keeps such an object.
fn key(options: &Options, object: &Value) -> Result<Option<Vec<u8>>, Error> {
    let inside = object["metadata"]["namespace"].as_str();
    let asked_for = &options.namespaces;
    if let Some(inside) = inside.filter(|_| !asked_for.is_empty())
        && !asked_for.iter().any(|n| n == inside)
    {
        return Err(Error::Namespace(inside.to_owned(), asked_for.clone()));
    }
    let text = if let Some(key) = &options.key {
        let Ok(text) = std::str::from_utf8(key) else { return Ok(Some(key.clone())) };
        text.to_owned()
    } else {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = builtin(&word(&object["apiVersion"]), &word(&object["kind"]));
        let name = word(&object["metadata"]["name"]);
        let Some(resource) = kind.filter(|_| !name.is_empty()) else { return Ok(None) };
        let namespace = inside.map_or_else(String::new, |namespace| format!("{namespace}/"));
        format!("{resource}/{namespace}{name}")
    };
    let named = NamedKey::parse(&text, &options.scope, asked_for).map_err(Error::Key)?;
    let key = Some(named).filter(|key| !key.is_prefix).and_then(|k| k.keys.into_iter().next());
    let key = key.ok_or(Error::NoKey(text))?;
    let location = options.scope.locate_named(&key);
    if options.key.is_none()
        && location.namespace.is_none()
        && is_namespaced(&location.resource) == Some(true)
    {
        return Err(Error::NoNamespace(location.resource.into_owned()));
    }
    Ok(Some(key))
}
