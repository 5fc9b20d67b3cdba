//! JSON documents as the API server reads and prints them.

use serde_json::Value;

use super::{DecodeError, number};

/// Parses a document; its numbers become what the API server prints.
pub(super) fn parse_json(bytes: &[u8]) -> Result<Value, DecodeError> {
    // The vertical tab counts as white space for the recogniser but not for JSON.
    let start = bytes.iter().position(|b| *b != 0x0B).unwrap_or(0);
    let mut value = serde_json::from_slice(&bytes[start..]).map_err(|e| {
        if e.to_string().starts_with("recursion limit") {
            DecodeError::TooDeep { path: "the object".to_owned() }
        } else {
            DecodeError::Json { line: e.line(), column: e.column() }
        }
    })?;
    number::normalise(&mut value).map_err(|_| DecodeError::Number)?;
    Ok(value)
}
