//! Whether decrypted bytes are an object at all, and which, without decoding it.

use std::borrow::Cow;

use serde::de::{self, Deserializer as _, IgnoredAny, MapAccess};
use serde_json::Value;
use serde_saphyr::granit_parser::{Event, Parser};

use super::{CBOR_MAGIC, PROTOBUF_MAGIC, cbor, recognise};
use crate::envelope::ENCRYPTED_PREFIX;
use crate::proto::Fields;

/// What every stored object says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeMeta<'a> {
    /// `apiVersion`: `v1`, `apps/v1`.
    pub api_version: Cow<'a, str>,
    /// `kind`: `Secret`.
    pub kind: Cow<'a, str>,
    /// `metadata.namespace`; empty for a cluster-scoped object.
    pub namespace: Cow<'a, str>,
    /// `metadata.name`.
    pub name: Cow<'a, str>,
    /// `metadata.uid`: no two objects of a cluster ever have the same.
    pub uid: Cow<'a, str>,
}

/// Why bytes are no object: the API server cannot decode them, whatever their envelope. Holds no
/// stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoObject {
    /// There are none.
    #[error("the value is empty")]
    Empty,
    /// Still, or again, encrypted.
    #[error("the value is no object: inside is another encrypted value (it begins with k8s:enc:)")]
    Encrypted,
    /// No encoding of the API server begins like this.
    #[error("the value is no object: its {0} bytes begin as no encoding of the API server does")]
    Unrecognised(usize),
    /// They begin as this encoding and do not go on so.
    #[error("the value is no object: {0} that is damaged or cut off")]
    Damaged(&'static str),
    /// Well-formed, without `apiVersion` or `kind`.
    #[error("the value is no object: {0} without apiVersion and kind")]
    Untyped(&'static str),
}

impl NoObject {
    /// Of a value that was read as `how` says (`decrypted with …`): why that is not enough.
    #[must_use]
    pub fn after(&self, how: &str) -> String {
        let why = self.to_string();
        let why = why.strip_prefix("the value is no object: ").unwrap_or(&why);
        format!("{how}, but no Kubernetes object: {why}")
    }
}

/// The type of the object that `bytes` are, decided as the API server does before it looks at
/// fields: protobuf behind its magic with a whole `runtime.Unknown`, or a JSON, CBOR or YAML map,
/// with an `apiVersion` and a `kind` (kubernetes/apimachinery
/// `pkg/runtime/serializer/recognizer/recognizer.go`, `json/json.go`, `protobuf/protobuf.go`). All
/// of the outer structure is read, so a value that was cut off is none; the fields of a protobuf
/// kind are not.
///
/// # Errors
/// Why they are none.
pub fn type_meta(bytes: &[u8]) -> Result<TypeMeta<'_>, NoObject> {
    if bytes.is_empty() {
        return Err(NoObject::Empty);
    }
    if bytes.starts_with(ENCRYPTED_PREFIX) {
        return Err(NoObject::Encrypted);
    }
    let (name, found) = match recognise(bytes) {
        Some(super::Encoding::Protobuf) => ("protobuf", protobuf(&bytes[PROTOBUF_MAGIC.len()..])),
        Some(super::Encoding::Cbor) => ("CBOR", cbor_types(bytes)),
        Some(super::Encoding::Json) => ("JSON", json(bytes)),
        _ => match yaml(bytes) {
            Some(found) => ("YAML", Some(found)),
            None => return Err(NoObject::Unrecognised(bytes.len())),
        },
    };
    let meta = found.ok_or(NoObject::Damaged(name))?;
    let version = meta.api_version.rsplit('/').next().unwrap_or_default();
    if meta.kind.is_empty() || version.is_empty() || meta.api_version.matches('/').count() > 1 {
        return Err(NoObject::Untyped(name));
    }
    Ok(meta)
}

/// Whether bytes begin as one of the encodings, judged without reading them: what begins so may be
/// no object all the same. YAML is taken to begin with text that has a colon.
#[must_use]
pub fn begins_as_object(bytes: &[u8]) -> bool {
    /// A line of YAML that names a field is short.
    const LOOKED_AT: usize = 256;
    recognise(bytes).is_some() || {
        let head = &bytes[..bytes.len().min(LOOKED_AT)];
        head.contains(&b':')
            && !head.iter().any(|b| b.is_ascii_control() && !b.is_ascii_whitespace())
    }
}

/// Whether bytes are an object that the API server can take up; see [`type_meta`].
#[must_use]
pub fn is_object(bytes: &[u8]) -> bool {
    type_meta(bytes).is_ok()
}

impl TypeMeta<'_> {
    /// Before anything is read: nothing is said.
    const NOTHING: Self = Self {
        api_version: Cow::Borrowed(""),
        kind: Cow::Borrowed(""),
        namespace: Cow::Borrowed(""),
        name: Cow::Borrowed(""),
        uid: Cow::Borrowed(""),
    };
}

/// `runtime.Unknown` (apimachinery `pkg/runtime/generated.proto`) and, in it, the `ObjectMeta`
/// that every kind has as its first field (`pkg/apis/meta/v1/generated.proto`).
fn protobuf(envelope: &[u8]) -> Option<TypeMeta<'_>> {
    let mut meta = TypeMeta::NOTHING;
    let (mut types, mut body) = (false, false);
    for field in Fields::new(envelope) {
        let field = field.ok()?;
        match field.number {
            1 => {
                types = true;
                for field in Fields::new(field.bytes()?) {
                    let field = field.ok()?;
                    match field.number {
                        1 => meta.api_version = String::from_utf8_lossy(field.bytes()?),
                        2 => meta.kind = String::from_utf8_lossy(field.bytes()?),
                        _ => {}
                    }
                }
            }
            2 => {
                for field in Fields::new(field.bytes()?) {
                    let field = field.ok()?;
                    body = true;
                    if let (1, Some(metadata)) = (field.number, field.bytes()) {
                        object_meta(metadata, &mut meta)?;
                    }
                }
            }
            3 | 4 => {
                field.bytes()?;
            }
            _ => {}
        }
    }
    // The writer leaves out no metadata, so that no object is without a field: a value that ends
    // before them was cut off.
    (body || !types).then_some(meta)
}

fn object_meta<'a>(metadata: &'a [u8], meta: &mut TypeMeta<'a>) -> Option<()> {
    for field in Fields::new(metadata) {
        let field = field.ok()?;
        let place = match field.number {
            1 => &mut meta.name,
            3 => &mut meta.namespace,
            5 => &mut meta.uid,
            _ => continue,
        };
        *place = String::from_utf8_lossy(field.bytes()?);
    }
    Some(())
}

fn cbor_types(bytes: &[u8]) -> Option<TypeMeta<'static>> {
    debug_assert!(bytes.starts_with(CBOR_MAGIC));
    let value = cbor::decode(bytes, &mut Vec::new()).ok()?;
    Some(TypeMeta::of(&value).into_owned())
}

impl<'a> TypeMeta<'a> {
    /// What a decoded object says about itself.
    #[must_use]
    pub fn of(object: &'a Value) -> Self {
        fn text<'a>(at: &'a Value, name: &str) -> Cow<'a, str> {
            Cow::Borrowed(at.get(name).and_then(Value::as_str).unwrap_or_default())
        }
        let metadata = object.get("metadata").unwrap_or(&Value::Null);
        Self {
            api_version: text(object, "apiVersion"),
            kind: text(object, "kind"),
            namespace: text(metadata, "namespace"),
            name: text(metadata, "name"),
            uid: text(metadata, "uid"),
        }
    }

    /// Copies what is borrowed.
    #[must_use]
    pub fn into_owned(self) -> TypeMeta<'static> {
        let own = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        TypeMeta {
            api_version: own(self.api_version),
            kind: own(self.kind),
            namespace: own(self.namespace),
            name: own(self.name),
            uid: own(self.uid),
        }
    }

    /// Where a field of `metadata`, or of the object, is kept.
    fn place(&mut self, in_metadata: bool, field: &str) -> Option<&mut Cow<'a, str>> {
        Some(match (in_metadata, field) {
            (false, "apiVersion") => &mut self.api_version,
            (false, "kind") => &mut self.kind,
            (true, "namespace") => &mut self.namespace,
            (true, "name") => &mut self.name,
            (true, "uid") => &mut self.uid,
            _ => return None,
        })
    }
}

/// Takes a few fields out of a map and goes over the rest. The last of several counts, as in Go's
/// `encoding/json`.
struct Visitor<'m, 'de> {
    meta: &'m mut TypeMeta<'de>,
    in_metadata: bool,
}

impl<'de> de::Visitor<'de> for Visitor<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
            if let Some(place) = self.meta.place(self.in_metadata, &key) {
                *place = map.next_value::<Option<Text<'de>>>()?.map_or(Cow::Borrowed(""), |t| t.0);
            } else if !self.in_metadata && key == "metadata" {
                map.next_value_seed(Visitor { meta: &mut *self.meta, in_metadata: true })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de> de::DeserializeSeed<'de> for Visitor<'_, 'de> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn json(bytes: &[u8]) -> Option<TypeMeta<'_>> {
    // The vertical tab counts as white space for the recogniser but not for JSON.
    let start = bytes.iter().position(|b| *b != 0x0B)?;
    let mut reader = serde_json::Deserializer::from_slice(&bytes[start..]);
    let mut meta = TypeMeta::NOTHING;
    reader.deserialize_map(Visitor { meta: &mut meta, in_metadata: false }).ok()?;
    reader.end().ok()?;
    Some(meta)
}

/// YAML is what the API server tries last: text that is nothing else. Aliases are not followed,
/// so that nothing expands.
fn yaml(bytes: &[u8]) -> Option<TypeMeta<'static>> {
    let text = std::str::from_utf8(bytes).ok()?;
    if !(text.contains("apiVersion") && text.contains("kind")) {
        return None;
    }
    let mut meta = TypeMeta::NOTHING;
    // Of the map at each depth, the key whose value comes next; none where a key comes next.
    let mut keys: Vec<Option<String>> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.ok()?;
        let value = match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                if keys.is_empty() && !matches!(event, Event::MappingStart(..)) {
                    return None;
                }
                keys.push(None);
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => {
                keys.pop();
                // The API server reads the first document.
                if keys.is_empty() {
                    return Some(meta);
                }
                None
            }
            Event::Scalar(text, ..) => Some(text.into_owned()),
            Event::Alias(_) => None,
            _ => continue,
        };
        // A node has ended: it was a key, or the value of one.
        let in_metadata = match &keys[..] {
            [] => return None,
            [_] => false,
            [Some(outer), _] if outer == "metadata" => true,
            _ => {
                // Deeper, only keys and values alternate; what they are nobody asks.
                continue;
            }
        };
        let key = keys.last_mut()?;
        match (key.take(), value) {
            (None, value) => *key = Some(value.unwrap_or_default()),
            (Some(name), Some(value)) => {
                if let Some(place) = meta.place(in_metadata, &name) {
                    *place = Cow::Owned(value);
                }
            }
            (Some(_), None) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Secret as the API server writes it.
    fn secret() -> Vec<u8> {
        let value = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "db", "namespace": "default"},
            "data": {"password": "aHVudGVyMg=="}, "type": "Opaque",
        });
        super::super::encode(&value).unwrap().to_vec()
    }

    #[test]
    fn a_protobuf_object_is_one_as_a_whole_only() {
        let whole = secret();
        let meta = type_meta(&whole).unwrap();
        assert_eq!((&*meta.api_version, &*meta.kind), ("v1", "Secret"));
        assert_eq!((&*meta.namespace, &*meta.name, &*meta.uid), ("default", "db", ""));
        // The writer ends with two empty fields, without which nothing is missing.
        assert!(whole.ends_with(&[0x1a, 0, 0x22, 0]));
        for len in 0..whole.len() - 4 {
            assert!(!is_object(&whole[..len]), "cut off at {len}");
        }
    }

    #[test]
    fn what_says_its_type_is_an_object_in_every_encoding() {
        for yes in [
            &br#"{"kind":"Secret","apiVersion":"v1"}"#[..],
            b" \r\n\t{\"apiVersion\":\"example.com/v1\",\"kind\":\"Widget\",\"spec\":{\"kind\":1}}\n",
            b"{\"apiVersion\":\"v1\",\"kind\":\"A\",\"kind\":\"B\"}",
            b"apiVersion: v1\ndata:\n  a: b\nkind: Secret\nmetadata:\n  name: x\n",
            b"---\n# stored as YAML\nkind: 'Secret'\n\"apiVersion\": v1\n",
            b"\xd9\xd9\xf7\xa2\x4aapiVersion\x42v1\x44kind\x46Secret",
        ] {
            assert!(is_object(yes), "{}", yes.escape_ascii());
        }
    }

    #[test]
    fn every_encoding_says_which_object_it_is() {
        let names = |bytes: &[u8]| {
            let meta = type_meta(bytes).unwrap();
            format!("{} {}/{} {}", meta.kind, meta.namespace, meta.name, meta.uid)
        };
        let value = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "data": {"name": "bm8="},
            "metadata": {
                "annotations": {"name": "no", "uid": "no"}, "name": "db", "namespace": "prod",
                "ownerReferences": [{"name": "no", "uid": "no", "kind": "No", "apiVersion": "no"}],
                "uid": "u-1",
            },
        });
        assert_eq!(names(&super::super::encode(&value).unwrap()), "Secret prod/db u-1");
        assert_eq!(names(value.to_string().as_bytes()), "Secret prod/db u-1");
        assert_eq!(names(super::super::yaml::to_string(&value).as_bytes()), "Secret prod/db u-1");
        let mut cbor = CBOR_MAGIC.to_vec();
        ciborium::into_writer(&value, &mut cbor).unwrap();
        assert_eq!(names(&cbor), "Secret prod/db u-1");
        assert_eq!(names(b"{\"kind\":\"A\",\"apiVersion\":\"v1\",\"metadata\":null}"), "A / ");
        assert_eq!(TypeMeta::of(&value), type_meta(value.to_string().as_bytes()).unwrap());
    }

    #[test]
    fn everything_else_is_named_for_what_it_is() {
        use NoObject::{Damaged, Empty, Encrypted, Unrecognised, Untyped};
        for (bytes, why) in [
            (&b""[..], Empty),
            (b"k8s:enc:aescbc:v1:key1:0123", Encrypted),
            (b"\xf3\x91garbage", Unrecognised(9)),
            (b"garbage", Unrecognised(7)),
            (b"- apiVersion: v1\n  kind: Secret\n", Unrecognised(32)),
            (b"apiVersion and kind", Unrecognised(19)),
            (b"k8s\0", Untyped("protobuf")),
            (b"k8s\0garbage", Damaged("protobuf")),
            (b"k8s\0\x0a\x06\x0a\0\x12\x02ab\x12\x02\x0a\0", Untyped("protobuf")),
            (b"k8s\0\x0a\x06\x0a\x02v1\x12\0", Damaged("protobuf")),
            (b"{", Damaged("JSON")),
            (b"{\"apiVersion\":\"v1\",\"kind\":\"Secret\"", Damaged("JSON")),
            (b"{\"apiVersion\":\"v1\",\"kind\":\"Secret\"} x", Damaged("JSON")),
            (b"{\"apiVersion\":\"v1\"}", Untyped("JSON")),
            (b"{\"apiVersion\":\"a/b/c\",\"kind\":\"A\"}", Untyped("JSON")),
            (b"{\"apiVersion\":\"v1\",\"kind\":\"\"}", Untyped("JSON")),
            (b"spec:\n  apiVersion: v1\n  kind: Secret\n", Untyped("YAML")),
            (b"\xd9\xd9\xf7", Damaged("CBOR")),
            (b"\xd9\xd9\xf7\xa0", Untyped("CBOR")),
        ] {
            assert_eq!(type_meta(bytes).unwrap_err(), why, "{}", bytes.escape_ascii());
        }
    }
}
