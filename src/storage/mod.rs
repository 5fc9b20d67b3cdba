//! Decrypted storage bytes ↔ objects as `kubectl get -o json` prints them.
//!
//! Four encodings occur, recognised at offset 0 (kubernetes/apimachinery
//! `pkg/runtime/serializer`): protobuf behind the magic `k8s\0` for built-in kinds, JSON for custom
//! resources, definitions and API services, CBOR for custom resources where that gate is on, and
//! YAML, which is what is none of these, of an API server with
//! `--storage-media-type=application/yaml`.
//!
//! The room is synchronous and pure. Its errors name fields, never stored bytes.

mod cbor;
pub mod difference;
mod encode;
pub mod fields;
mod number;
mod object;
mod protobuf;
mod raw;
mod redact;
mod schema;
pub mod shape;
pub mod yaml;

pub use encode::{EncodeError, encode};
pub use object::{NoObject, TypeMeta, begins_as_object, is_object, type_meta};
pub use redact::{redact, wipe};

use serde_json::Value;

use crate::envelope::ENCRYPTED_PREFIX;

/// What a protobuf value begins with (apimachinery `pkg/runtime/serializer/protobuf`).
pub(crate) const PROTOBUF_MAGIC: &[u8] = b"k8s\0";
/// What a CBOR value begins with: tag 55799 (apimachinery `pkg/runtime/serializer/cbor`).
pub(crate) const CBOR_MAGIC: &[u8] = &[0xD9, 0xD9, 0xF7];

/// How an object was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `k8s\0` and `runtime.Unknown`.
    Protobuf,
    /// A JSON object.
    Json,
    /// A self-described CBOR map.
    Cbor,
    /// YAML text.
    Yaml,
}

/// A decoded object.
#[derive(Clone, PartialEq)]
pub struct Object {
    /// `apiVersion` as stored.
    pub api_version: String,
    /// `kind` as stored.
    pub kind: String,
    /// The object at its stored version, as kubectl prints it with `--show-managed-fields`, but
    /// without `metadata.resourceVersion`, which is not in storage.
    pub json: Value,
    /// What could not be shown in `json`. Never empty when something was left out.
    pub unknown: Vec<UnknownField>,
    /// How it was stored.
    pub encoding: Encoding,
}

/// A part of a stored object that is not in its JSON form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownField {
    /// Where, by JSON names; a field without a known name is `#` and its number. Empty for what is
    /// only counted.
    pub path: String,
    /// How many they are: one, or all that are too many to be remembered one by one.
    pub count: usize,
    /// Length of the stored value in bytes.
    pub len: usize,
    /// Why it is left out.
    pub why: Why,
}

impl std::fmt::Display for UnknownField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, count, len, why } = self;
        match count {
            1 => write!(f, "{path}: {why} ({len} bytes)"),
            _ => write!(f, "{count} more, such as {why} ({len} bytes)"),
        }
    }
}

/// Parts of one object that are remembered one by one. A value of a megabyte can have half a
/// million.
const REMEMBERED: usize = 100;
/// Bytes of a path that are kept. A map's key can be as long as a value.
const LONGEST_PATH: usize = 256;

/// Notes a part that is not shown; `path` is asked for only while there is room.
fn remember(
    unknown: &mut Vec<UnknownField>,
    path: impl FnOnce() -> String,
    (count, len, why): (usize, usize, Why),
) {
    if unknown.len() < REMEMBERED && count == 1 {
        let mut path = path();
        if path.len() > LONGEST_PATH {
            path.truncate(path.floor_char_boundary(LONGEST_PATH));
            path.push('…');
        }
        unknown.push(UnknownField { path, count, len, why });
        return;
    }
    match unknown.last_mut().filter(|last| last.path.is_empty()) {
        Some(last) => {
            last.count += count;
            last.len = last.len.saturating_add(len);
            // What makes an object hollow is not forgotten.
            if why == Why::UnknownKind {
                last.why = why;
            }
        }
        None => unknown.push(UnknownField { path: String::new(), count, len, why }),
    }
}

/// Why a part of an object is not in its JSON form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The kind is not known; its metadata are decoded.
    #[error("a field of an unknown kind")]
    UnknownKind,
    /// The kind is known, the field is newer.
    #[error("a field newer than this program")]
    UnknownField,
    /// Text that is not UTF-8: shown with replacement characters.
    #[error("not UTF-8, shown with replacement characters")]
    NotUtf8,
    /// An embedded document that is neither JSON nor anything else known.
    #[error("an embedded object of unknown format")]
    Opaque,
}

impl Object {
    /// Sets `metadata.resourceVersion`, which is the entry's modification revision in etcd.
    pub fn set_resource_version(&mut self, mod_revision: i64) {
        if let Some(metadata) = self.metadata_mut() {
            metadata.insert("resourceVersion".into(), mod_revision.to_string().into());
        }
    }

    /// Removes `metadata.managedFields`, which kubectl shows only when asked to.
    pub fn hide_managed_fields(&mut self) {
        if let Some(metadata) = self.metadata_mut() {
            metadata.remove("managedFields");
        }
    }

    /// Whether nothing but the metadata could be decoded, because the kind is not known.
    #[must_use]
    pub fn is_hollow(&self) -> bool {
        self.unknown.iter().any(|field| field.why == Why::UnknownKind)
    }

    fn metadata_mut(&mut self) -> Option<&mut serde_json::Map<String, Value>> {
        self.json.get_mut("metadata").and_then(Value::as_object_mut)
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object")
            .field("api_version", &self.api_version)
            .field("kind", &self.kind)
            .field("encoding", &self.encoding)
            .field("unknown", &self.unknown)
            .finish_non_exhaustive()
    }
}

/// The bytes are not an object that can be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No encoding of the API server begins like this.
    #[error("not a Kubernetes object ({len} bytes that begin as no stored encoding does)")]
    NotAnObject {
        /// Length of the value in bytes.
        len: usize,
    },
    /// The value is still encrypted.
    #[error("the value is encrypted (it begins with k8s:enc:)")]
    Encrypted,
    /// The protobuf is damaged.
    #[error("malformed protobuf in {path}")]
    Protobuf {
        /// JSON path of the message or field.
        path: String,
    },
    /// The object's own encoding inside the protobuf envelope is not protobuf.
    #[error("the protobuf envelope holds another encoding")]
    ContentType,
    /// The JSON is damaged.
    #[error("malformed JSON at line {line} column {column}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
    /// The YAML is damaged.
    #[error("malformed YAML at line {line} column {column}")]
    Yaml {
        /// Line, from 1.
        line: u64,
        /// Column in characters, from 1.
        column: u64,
    },
    /// A number beyond the largest that the API server can hold.
    #[error("a number that is too large for the API server")]
    Number,
    /// The CBOR is damaged.
    #[error("malformed CBOR")]
    Cbor,
    /// A value nests deeper than any real object.
    #[error("{path} nests too deep")]
    TooDeep {
        /// JSON path of the field.
        path: String,
    },
}

/// The encoding that bytes begin as; YAML begins as nothing in particular.
fn recognise(bytes: &[u8]) -> Option<Encoding> {
    if bytes.starts_with(PROTOBUF_MAGIC) {
        Some(Encoding::Protobuf)
    } else if bytes.starts_with(CBOR_MAGIC) {
        Some(Encoding::Cbor)
    } else {
        let first = bytes.iter().find(|b| !b.is_ascii_whitespace() && **b != 0x0B);
        (first == Some(&b'{')).then_some(Encoding::Json)
    }
}

/// Whether decrypted bytes begin as something the API server stores: the protobuf magic
/// `k8s\0`, a JSON object after optional white space, or the CBOR self-description tag
/// (apimachinery `pkg/runtime/serializer/{protobuf/protobuf,json/json,cbor/cbor}.go`).
#[must_use]
pub fn is_kubernetes_value(bytes: &[u8]) -> bool {
    recognise(bytes).is_some()
}

/// Decodes the decrypted bytes of one stored object.
///
/// # Errors
/// When the bytes are no object or are damaged. Kinds and fields that are merely unknown are no
/// error: see [`Object::unknown`].
pub fn decode(bytes: &[u8]) -> Result<Object, DecodeError> {
    decode_inside(bytes, 0)
}

/// As [`decode`], of an object that lies inside that many others.
fn decode_inside(bytes: &[u8], others: usize) -> Result<Object, DecodeError> {
    match recognise(bytes) {
        Some(Encoding::Protobuf) => protobuf::decode(&bytes[PROTOBUF_MAGIC.len()..], others),
        Some(Encoding::Json) => Ok(from_json(raw::parse_json(bytes)?, Vec::new(), Encoding::Json)),
        Some(Encoding::Cbor) => {
            let mut unknown = Vec::new();
            let json = cbor::decode(bytes, &mut unknown)?;
            Ok(from_json(json, unknown, Encoding::Cbor))
        }
        _ if bytes.starts_with(ENCRYPTED_PREFIX) => Err(DecodeError::Encrypted),
        _ if is_object(bytes) => {
            Ok(from_json(yaml::from_bytes(bytes)?, Vec::new(), Encoding::Yaml))
        }
        _ => Err(DecodeError::NotAnObject { len: bytes.len() }),
    }
}

fn from_json(json: Value, unknown: Vec<UnknownField>, encoding: Encoding) -> Object {
    let text = |field: &str| json[field].as_str().unwrap_or_default().to_owned();
    Object { api_version: text("apiVersion"), kind: text("kind"), json, unknown, encoding }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_kinds;
