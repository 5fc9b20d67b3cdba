//! JSON documents as the API server reads and prints them.

use serde_json::{Number, Value};

/// Parses a document; whole numbers written as floats become integers, because the API server
/// prints them so (Go's `encoding/json`).
pub(super) fn parse_json(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    // The vertical tab counts as white space for the recogniser but not for JSON.
    let start = bytes.iter().position(|b| *b != 0x0B).unwrap_or(0);
    let mut value = serde_json::from_slice(&bytes[start..])?;
    whole_numbers(&mut value);
    Ok(value)
}

/// A float as Go prints it: without a fraction where there is none.
pub(super) fn float(number: f64) -> Value {
    #[allow(clippy::cast_possible_truncation)] // Checked to be whole and in range.
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(f) = number.as_f64() {
                *value = float(f);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_the_api_server_prints_them() {
        let value = parse_json(b" {\"a\":[1.0,1.5,-0.0,9007199254740993,1e3]}").unwrap();
        assert_eq!(value.to_string(), "{\"a\":[1,1.5,0,9007199254740993,1000]}");
    }
}
