//! Custom resources stored as CBOR (apimachinery `pkg/runtime/serializer/cbor`): strings and map
//! keys are byte strings; readers accept text strings too.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use ciborium::Value as Cbor;
use serde_json::{Map, Value};

use super::{DecodeError, UnknownField, Why, number};

/// Deepest nesting accepted, in levels; API objects stay far below.
const MAX_DEPTH: usize = 256;

/// Decodes a self-described CBOR map.
pub(super) fn decode(bytes: &[u8], unknown: &mut Vec<UnknownField>) -> Result<Value, DecodeError> {
    let mut rest = bytes;
    let value: Cbor = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|_| DecodeError::Cbor)?;
    let Cbor::Tag(55799, value) = value else { return Err(DecodeError::Cbor) };
    if !rest.is_empty() || !value.is_map() {
        return Err(DecodeError::Cbor);
    }
    convert(*value, &mut Vec::new(), unknown)
}

fn convert(
    value: Cbor,
    path: &mut Vec<String>,
    unknown: &mut Vec<UnknownField>,
) -> Result<Value, DecodeError> {
    Ok(match value {
        Cbor::Null => Value::Null,
        Cbor::Bool(b) => b.into(),
        Cbor::Integer(i) => {
            let i = i128::from(i);
            if let Ok(i) = i64::try_from(i) {
                i.into()
            } else {
                u64::try_from(i).map_err(|_| DecodeError::Cbor)?.into()
            }
        }
        // The API server refuses what is no number (apimachinery
        // `pkg/runtime/serializer/cbor/internal/modes/decode.go`).
        Cbor::Float(f) => Value::Number(number::float(f).map_err(|_| DecodeError::Cbor)?),
        Cbor::Text(text) => text.into(),
        Cbor::Bytes(bytes) => text(bytes, path, unknown).into(),
        // Expected later encodings (RFC 8949 section 3.4.5.2): bytes that JSON shows as text.
        Cbor::Tag(tag @ 21..=23, inner) => match (tag, *inner) {
            (21, Cbor::Bytes(b)) => URL_SAFE.encode(b).into(),
            (22, Cbor::Bytes(b)) => STANDARD.encode(b).into(),
            (23, Cbor::Bytes(b)) => crate::hex::hex(&b).into(),
            (_, inner) => convert(inner, path, unknown)?,
        },
        Cbor::Tag(_, inner) => convert(*inner, path, unknown)?,
        Cbor::Array(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (i, item) in items.into_iter().enumerate() {
                path.push(format!("[{i}]"));
                list.push(convert(item, path, unknown)?);
                path.pop();
            }
            list.into()
        }
        Cbor::Map(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                let key = match key {
                    Cbor::Text(text) => text,
                    Cbor::Bytes(bytes) => text(bytes, path, unknown),
                    _ => return Err(DecodeError::Cbor),
                };
                path.push(format!(".{key}"));
                let value = convert(value, path, unknown)?;
                path.pop();
                map.insert(key, value);
            }
            map.into()
        }
        _ => return Err(DecodeError::Cbor),
    })
}

fn text(bytes: Vec<u8>, path: &[String], unknown: &mut Vec<UnknownField>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| {
        let path = || {
            const STEP_SHOWN: usize = 64;
            let short = path.iter().map(|s| &s[..s.floor_char_boundary(STEP_SHOWN)]);
            let path = short.collect::<String>();
            path.strip_prefix('.').unwrap_or(&path).to_owned()
        };
        super::remember(unknown, path, (1, e.as_bytes().len(), Why::NotUtf8));
        String::from_utf8_lossy(e.as_bytes()).into_owned()
    })
}
