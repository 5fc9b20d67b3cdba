//! Objects → the bytes that the API server would store, for repair by hand.
//!
//! What is written when a field is absent follows the generated Go marshallers: plain strings,
//! numbers, booleans and structs always, pointers, lists, maps and byte strings only when set
//! (kubernetes/api `*/generated.pb.go`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::PROTOBUF_MAGIC;
use super::schema::{FieldDef, Kind, Message, Schema, Shape};
use crate::proto::{put_bytes, put_varint};

/// The object cannot be stored as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// `apiVersion`, `kind` or the object itself is missing.
    #[error("not a Kubernetes object: {0} is missing")]
    NotAnObject(&'static str),
    /// A field has another type than its kind has.
    #[error("{path}: expected {expected}")]
    Type {
        /// JSON path.
        path: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A number is beyond the largest that the API server can hold.
    #[error("a number is too large for the API server")]
    Number,
    /// The kind has no such field; leaving it out would lose it.
    #[error("{path}: {kind} has no such field")]
    UnknownField {
        /// JSON path.
        path: String,
        /// The kind of the object.
        kind: String,
    },
}

/// The bytes of an object as the API server stores it: protobuf for built-in kinds, JSON for all
/// others. `metadata.resourceVersion` and `selfLink` are left out, as they are in storage, and a
/// Secret's `stringData` becomes data.
///
/// # Errors
/// When a field is unknown or of another type. Nothing of its value is in the error.
pub fn encode(object: &Value) -> Result<Zeroizing<Vec<u8>>, EncodeError> {
    let Value::Object(map) = object else { return Err(EncodeError::NotAnObject("the object")) };
    let text = |name: &'static str| {
        map.get(name)
            .and_then(Value::as_str)
            .filter(|t| !t.is_empty())
            .ok_or(EncodeError::NotAnObject(name))
    };
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    let mut map = map.clone();
    for value in map.values_mut() {
        super::number::normalise(value).map_err(|_| EncodeError::Number)?;
    }
    if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
        metadata.remove("resourceVersion");
        metadata.remove("selfLink");
    }
    if (api_version, kind) == ("v1", "Secret") {
        string_data(&mut map)?;
    }
    let schema = Schema::get();
    let Some(message) = schema.kind(api_version, kind) else {
        let mut bytes = serde_json::to_vec(&map).unwrap_or_default();
        bytes.push(b'\n');
        return Ok(Zeroizing::new(bytes));
    };
    map.remove("apiVersion");
    map.remove("kind");
    let mut encoder = Encoder { schema, kind, path: Vec::new() };
    let body = encoder.message(message, &map)?;
    let mut type_meta = Vec::new();
    put_bytes(&mut type_meta, 1, api_version.as_bytes());
    put_bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(body.len() + type_meta.len() + 32);
    out.extend_from_slice(PROTOBUF_MAGIC);
    put_bytes(&mut out, 1, &type_meta);
    put_bytes(&mut out, 2, &body);
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    Ok(Zeroizing::new(out))
}

/// The API server writes `stringData` into `data` (pkg/apis/core/v1/conversion.go).
fn string_data(secret: &mut Map<String, Value>) -> Result<(), EncodeError> {
    let wrong = |path: &str, expected| EncodeError::Type { path: path.into(), expected };
    let plain = match secret.remove("stringData") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(plain)) => plain,
        Some(_) => return Err(wrong("stringData", "a map")),
    };
    let data = secret.entry("data").or_insert(Value::Null);
    if data.is_null() {
        *data = Value::Object(Map::new());
    }
    let Value::Object(data) = data else { return Err(wrong("data", "a map")) };
    for (name, value) in plain {
        let Value::String(text) = value else {
            return Err(wrong(&format!("stringData[{name:?}]"), "text"));
        };
        data.insert(name, STANDARD.encode(text).into());
    }
    Ok(())
}

fn put_number(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, value);
}

/// Inside a stateful set it says its type in JSON, but not in protobuf.
const CLAIM: &str = "core/v1.PersistentVolumeClaim";

/// The encoded form of one value: what follows the tag.
enum Wire {
    Varint(u64),
    Bytes(Zeroizing<Vec<u8>>),
}

struct Encoder<'a> {
    schema: &'static Schema,
    kind: &'a str,
    path: Vec<String>,
}

impl Encoder<'_> {
    fn message(
        &mut self,
        message: &Message,
        json: &Map<String, Value>,
    ) -> Result<Zeroizing<Vec<u8>>, EncodeError> {
        let mut known = self.names(message);
        if message.name == CLAIM && !self.path.is_empty() {
            known.extend(["apiVersion", "kind"]);
        }
        if let Some(name) = json.keys().find(|k| !known.contains(&k.as_str())) {
            self.path.push(name.clone());
            return Err(EncodeError::UnknownField {
                path: self.path(),
                kind: self.kind.to_owned(),
            });
        }
        self.fields(message, json)
    }

    /// JSON names of a message, those of inlined structs included.
    fn names(&self, message: &Message) -> Vec<&'static str> {
        let mut names = Vec::new();
        for field in &message.fields {
            match (field.name, field.kind) {
                ("", Kind::Message(inner)) => {
                    names.extend(self.names(self.schema.message(inner)));
                }
                (name, _) => names.push(name),
            }
        }
        names
    }

    fn fields(
        &mut self,
        message: &Message,
        json: &Map<String, Value>,
    ) -> Result<Zeroizing<Vec<u8>>, EncodeError> {
        let mut out = Zeroizing::new(Vec::new());
        for field in &message.fields {
            if let ("", Kind::Message(inner)) = (field.name, field.kind) {
                let inner = self.schema.message(inner);
                let body = self.fields(inner, json)?;
                let names = self.names(inner);
                let set = json.iter().any(|(k, v)| !v.is_null() && names.contains(&k.as_str()));
                if field.shape == Shape::Plain || set {
                    put_bytes(&mut out, field.number, &body);
                }
                continue;
            }
            let value = json.get(field.name).filter(|v| !v.is_null());
            self.path.push(field.name.to_owned());
            self.field(field, value, &mut out)?;
            self.path.pop();
        }
        Ok(out)
    }

    fn field(
        &mut self,
        field: &FieldDef,
        value: Option<&Value>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        match (field.shape, value) {
            (Shape::Pointer | Shape::List | Shape::Map, None) => {}
            (Shape::Plain, None) if field.removed || field.kind == Kind::Bytes => {}
            (Shape::Plain | Shape::Pointer, value) => {
                let wire = self.value(field.kind, value)?;
                put(out, field.number, &wire);
            }
            (Shape::List, Some(Value::Array(items))) => {
                for (i, item) in items.iter().enumerate() {
                    self.path.push(format!("[{i}]"));
                    let wire = self.value(field.kind, Some(item))?;
                    put(out, field.number, &wire);
                    self.path.pop();
                }
            }
            (Shape::Map, Some(Value::Object(map))) => {
                for (name, item) in map {
                    self.path.push(format!("[{name:?}]"));
                    let mut entry = Zeroizing::new(Vec::new());
                    put_bytes(&mut entry, 1, name.as_bytes());
                    if !(field.kind == Kind::Bytes && item.is_null()) {
                        let wire = self.value(field.kind, Some(item))?;
                        put(&mut entry, 2, &wire);
                    }
                    put_bytes(out, field.number, &entry);
                    self.path.pop();
                }
            }
            (Shape::List, Some(_)) => return Err(self.expected("a list")),
            (Shape::Map, Some(_)) => return Err(self.expected("a map")),
        }
        Ok(())
    }

    fn value(&mut self, kind: Kind, value: Option<&Value>) -> Result<Wire, EncodeError> {
        let value = value.filter(|v| !v.is_null());
        let text = |v: Option<&Value>, expected| match v {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(self.expected(expected)),
        };
        let mut out = Zeroizing::new(Vec::new());
        match kind {
            Kind::Int => return Ok(Wire::Varint(self.int(value)?)),
            Kind::Bool => match value {
                None => return Ok(Wire::Varint(0)),
                Some(Value::Bool(b)) => return Ok(Wire::Varint(u64::from(*b))),
                Some(_) => return Err(self.expected("true or false")),
            },
            Kind::String => out.extend_from_slice(text(value, "text")?.as_bytes()),
            Kind::Bytes => {
                let text = Zeroizing::new(text(value, "base64")?);
                let bytes = STANDARD.decode(&*text).map_err(|_| self.expected("base64"))?;
                out = Zeroizing::new(bytes);
            }
            Kind::Message(index) => {
                let empty = Map::new();
                let map = match value {
                    None => &empty,
                    Some(Value::Object(map)) => map,
                    Some(_) => return Err(self.expected("an object")),
                };
                out = self.message(self.schema.message(index), map)?;
            }
            Kind::Time | Kind::MicroTime => {
                if let Some(value) = value {
                    let (seconds, nanos) = self.time(kind, value)?;
                    put_number(&mut out, 1, seconds);
                    put_number(&mut out, 2, nanos);
                }
            }
            Kind::Quantity => {
                let number = value.filter(|v| v.is_number()).map(ToString::to_string);
                let text = number.map_or_else(|| text(value, "a quantity"), Ok)?;
                let text = if text.is_empty() { "0" } else { &text };
                put_bytes(&mut out, 1, text.as_bytes());
            }
            Kind::IntOrString => {
                let (is_text, number, text) = match value {
                    Some(Value::String(text)) => (1, 0, text.as_str()),
                    value => (0, self.int(value)?, ""),
                };
                put_number(&mut out, 1, is_text);
                put_number(&mut out, 2, number);
                put_bytes(&mut out, 3, text.as_bytes());
            }
            Kind::RawExtension | Kind::FieldsV1 => {
                if let Some(value) = value {
                    put_bytes(&mut out, 1, value.to_string().as_bytes());
                }
            }
            Kind::Strings => {
                let items = value.map_or(Ok(&[][..]), |v| {
                    v.as_array().map(Vec::as_slice).ok_or_else(|| self.expected("a list"))
                })?;
                for item in items {
                    let item = item.as_str().ok_or_else(|| self.expected("a list of texts"))?;
                    put_bytes(&mut out, 1, item.as_bytes());
                }
            }
        }
        Ok(Wire::Bytes(out))
    }

    fn int(&self, value: Option<&Value>) -> Result<u64, EncodeError> {
        match value {
            None => Ok(0),
            Some(v) => {
                v.as_i64().map(i64::cast_unsigned).ok_or_else(|| self.expected("a whole number"))
            }
        }
    }

    fn time(&self, kind: Kind, value: &Value) -> Result<(u64, u64), EncodeError> {
        let wrong = || self.expected("an RFC 3339 time");
        let time: jiff::Timestamp =
            value.as_str().and_then(|t| t.parse().ok()).ok_or_else(wrong)?;
        let nanos = if kind == Kind::Time { 0 } else { time.subsec_nanosecond() };
        let nanos = u64::try_from(nanos - nanos % 1000).map_err(|_| wrong())?;
        Ok((time.as_second().cast_unsigned(), nanos))
    }

    fn expected(&self, expected: &'static str) -> EncodeError {
        EncodeError::Type { path: self.path(), expected }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            if !path.is_empty() && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(step);
        }
        path
    }
}

fn put(out: &mut Vec<u8>, field: u32, wire: &Wire) {
    match wire {
        Wire::Varint(value) => put_number(out, field, *value),
        Wire::Bytes(bytes) => put_bytes(out, field, bytes),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::storage::decode;

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        for object in [
            json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true,
                "metadata": {"name": "a", "namespace": "n", "labels": {"x": "y"},
                    "creationTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["a/b"]},
                "data": {"p": "aHVudGVyMg==", "empty": ""}}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"},
                "data": {"a": "b"}, "binaryData": {"b": "/wA="}}),
            json!({"apiVersion": "example.com/v1", "kind": "Widget", "spec": {"size": 3}}),
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "l"},
                "spec": {"renewTime": "2026-01-02T03:04:05.123456Z", "leaseDurationSeconds": 40}}),
        ] {
            assert_eq!(decode(&encode(&object).unwrap()).unwrap().json, object);
        }
    }

    #[test]
    fn string_data_becomes_data() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"p": "hi"}});
        let stored = decode(&encode(&secret).unwrap()).unwrap().json;
        assert_eq!(stored["data"]["p"], "aGk=");
        assert!(stored.get("stringData").is_none());
    }

    #[test]
    fn errors_name_the_field_and_not_its_value() {
        for (object, text) in [
            (json!({"kind": "Secret"}), "not a Kubernetes object: apiVersion is missing"),
            (json!({"apiVersion": "v1"}), "not a Kubernetes object: kind is missing"),
            (json!([]), "not a Kubernetes object: the object is missing"),
            (
                json!({"apiVersion": "v1", "kind": "Secret", "data": {"p": "hunter2!"}}),
                "data[\"p\"]: expected base64",
            ),
            (
                json!({"apiVersion": "v1", "kind": "Secret", "data": ["hunter2"]}),
                "data: expected a map",
            ),
            (
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"nam": "hunter2"}}),
                "metadata.nam: Secret has no such field",
            ),
            (
                json!({"apiVersion": "v1", "kind": "Secret",
                    "metadata": {"creationTimestamp": "hunter2"}}),
                "metadata.creationTimestamp: expected an RFC 3339 time",
            ),
            (
                json!({"apiVersion": "v1", "kind": "Secret", "immutable": "hunter2"}),
                "immutable: expected true or false",
            ),
        ] {
            assert_eq!(encode(&object).unwrap_err().to_string(), text);
        }
    }
}
