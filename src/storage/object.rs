//! Whether decrypted bytes are an object at all, without decoding it.

use std::borrow::Cow;

use serde::de::{self, Deserializer as _, IgnoredAny, MapAccess};
use serde_saphyr::granit_parser::{Event, Parser};

use super::{CBOR_MAGIC, PROTOBUF_MAGIC, cbor, recognise};
use crate::proto::Fields;

/// What every stored object says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeMeta<'a> {
    /// `apiVersion`: `v1`, `apps/v1`.
    pub api_version: Cow<'a, str>,
    /// `kind`: `Secret`.
    pub kind: Cow<'a, str>,
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
    if bytes.starts_with(b"k8s:enc:") {
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
    let (api_version, kind) = found.ok_or(NoObject::Damaged(name))?;
    let (Some(api_version), Some(kind)) = (api_version, kind) else {
        return Err(NoObject::Untyped(name));
    };
    let version = api_version.rsplit('/').next().unwrap_or_default();
    if kind.is_empty() || version.is_empty() || api_version.matches('/').count() > 1 {
        return Err(NoObject::Untyped(name));
    }
    Ok(TypeMeta { api_version, kind })
}

/// Whether bytes are an object that the API server can take up; see [`type_meta`].
#[must_use]
pub fn is_object(bytes: &[u8]) -> bool {
    type_meta(bytes).is_ok()
}

/// `apiVersion` and `kind` as far as they are there.
type Types<'a> = (Option<Cow<'a, str>>, Option<Cow<'a, str>>);

/// `runtime.Unknown` (apimachinery `pkg/runtime/generated.proto`).
fn protobuf(envelope: &[u8]) -> Option<Types<'_>> {
    let (mut types, mut meta, mut body) = ((None, None), false, false);
    for field in Fields::new(envelope) {
        let field = field.ok()?;
        match field.number {
            1 => {
                meta = true;
                for field in Fields::new(field.bytes()?) {
                    let field = field.ok()?;
                    match field.number {
                        1 => types.0 = Some(String::from_utf8_lossy(field.bytes()?)),
                        2 => types.1 = Some(String::from_utf8_lossy(field.bytes()?)),
                        _ => {}
                    }
                }
            }
            2 => {
                for field in Fields::new(field.bytes()?) {
                    field.ok()?;
                    body = true;
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
    (body || !meta).then_some(types)
}

fn cbor_types(bytes: &[u8]) -> Option<Types<'static>> {
    debug_assert!(bytes.starts_with(CBOR_MAGIC));
    let value = cbor::decode(bytes, &mut Vec::new()).ok()?;
    let text = |name: &str| value.get(name)?.as_str().map(|s| Cow::Owned(s.to_owned()));
    Some((text("apiVersion"), text("kind")))
}

/// Takes the two fields out of a map and goes over the rest. The last of several counts, as in
/// Go's `encoding/json`.
struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Types<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Types<'de>, A::Error> {
        let mut types = (None, None);
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::ApiVersion => types.0 = map.next_value::<Option<Text<'de>>>()?.map(|t| t.0),
                Key::Kind => types.1 = map.next_value::<Option<Text<'de>>>()?.map(|t| t.0),
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(types)
    }
}

#[derive(serde::Deserialize)]
enum Key {
    #[serde(rename = "apiVersion")]
    ApiVersion,
    #[serde(rename = "kind")]
    Kind,
    #[serde(other)]
    Other,
}

#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn json(bytes: &[u8]) -> Option<Types<'_>> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let types = reader.deserialize_map(Visitor).ok()?;
    reader.end().ok()?;
    Some(types)
}

/// YAML is what the API server tries last: text that is nothing else. Aliases are not followed,
/// so that nothing expands.
fn yaml(bytes: &[u8]) -> Option<Types<'static>> {
    let text = std::str::from_utf8(bytes).ok()?;
    if !(text.contains("apiVersion") && text.contains("kind")) {
        return None;
    }
    let mut types = (None, None);
    let (mut depth, mut key) = (0usize, None);
    let mut is_key = true;
    for event in Parser::new_from_str(text) {
        let (event, _) = event.ok()?;
        let node_ends = match event {
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                if depth == 0 && !matches!(event, Event::MappingStart(..)) {
                    return None;
                }
                depth += 1;
                false
            }
            Event::MappingEnd | Event::SequenceEnd => {
                depth -= 1;
                if depth == 0 {
                    // The API server reads the first document.
                    return Some(types);
                }
                true
            }
            Event::Scalar(text, ..) => {
                match depth {
                    0 => return None,
                    1 if is_key => key = Some(text.into_owned()),
                    1 => match key.take().as_deref() {
                        Some("apiVersion") => types.0 = Some(Cow::Owned(text.into_owned())),
                        Some("kind") => types.1 = Some(Cow::Owned(text.into_owned())),
                        _ => {}
                    },
                    _ => {}
                }
                true
            }
            Event::Alias(_) => true,
            _ => false,
        };
        if depth == 1 && node_ends {
            is_key = !is_key;
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
