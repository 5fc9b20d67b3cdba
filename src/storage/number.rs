//! Numbers as the API server reads and prints them.
//!
//! Without a type, a number is an `int64` if it is written as a whole number and fits, and a
//! `float64` otherwise (kubernetes-sigs/json `internal/golang/encoding/json/kubernetes_patch.go`
//! and `decode.go`, `convertNumber`), and a `float64` is printed with the fewest digits that read
//! back the same, with an exponent below 1e-6 and from 1e21 on (Go `encoding/json`, `floatEncoder`).
//! [`Value`] keeps the text of a number, so what is here decides what every output says.

use serde_json::{Number, Value};

/// A number that no API server could have stored or read: beyond the largest `float64`, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfRange;

/// Rewrites every number in a document.
pub(super) fn normalise(value: &mut Value) -> Result<(), OutOfRange> {
    match value {
        Value::Number(number) => {
            let text = number.as_str();
            let plain = text.strip_prefix('-').unwrap_or(text);
            // What most numbers are needs no second look.
            if plain.len() > 18 || plain == "0" || !plain.bytes().all(|b| b.is_ascii_digit()) {
                *number = read(text)?;
            }
        }
        Value::Array(items) => items.iter_mut().try_for_each(normalise)?,
        Value::Object(map) => map.values_mut().try_for_each(normalise)?,
        _ => {}
    }
    Ok(())
}

/// A number by the text that is stored.
fn read(text: &str) -> Result<Number, OutOfRange> {
    if !text.contains(['.', 'e', 'E'])
        && let Ok(whole) = text.parse::<i64>()
    {
        return Ok(whole.into());
    }
    float(text.parse().map_err(|_| OutOfRange)?)
}

/// A `float64`.
pub(super) fn float(number: f64) -> Result<Number, OutOfRange> {
    if !number.is_finite() {
        return Err(OutOfRange);
    }
    go(number).parse().map_err(|_| OutOfRange)
}

/// The text of a finite number as Go's `encoding/json` writes it.
fn go(number: f64) -> String {
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        // Go writes the sign of an exponent, and at least one digit after `e-`.
        let text = format!("{number:e}");
        return if text.contains("e-") { text } else { text.replace('e', "e+") };
    }
    // The fewest digits, filled up with zeros before the point.
    format!("{number}")
}

/// For writers of other formats: the number as an integer, if it is written as one. Negative zero
/// is none.
pub(super) fn whole(number: &Number) -> Option<i128> {
    number.as_str().parse().ok().filter(|_| number.as_str() != "-0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_go_prints_them() {
        for (stored, printed) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "-0"),
            ("1.0", "1"),
            ("1e3", "1000"),
            ("975096051.8897327", "975096051.8897327"),
            ("0.1", "0.1"),
            ("9007199254740993", "9007199254740993"),
            ("9007199254740993.0", "9007199254740992"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9223372036854775808", "9223372036854776000"),
            ("9223372036854775809", "9223372036854776000"),
            ("18446744073709551616", "18446744073709552000"),
            ("123456789012345678901234567890", "1.2345678901234568e+29"),
            ("1e20", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("-1E+21", "-1e+21"),
            ("999999999999999999999", "1e+21"),
            ("0.000001", "0.000001"),
            ("0.0000009", "9e-7"),
            ("1.5e-300", "1.5e-300"),
            ("5e-324", "5e-324"),
            ("1e-400", "0"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ] {
            let mut value: Value = serde_json::from_str(&format!("[{stored}]")).unwrap();
            normalise(&mut value).unwrap();
            assert_eq!(value.to_string(), format!("[{printed}]"), "{stored}");
            assert_eq!(
                whole(value[0].as_number().unwrap()).is_some(),
                !printed.contains(['.', 'e']) && printed != "-0",
                "{stored}"
            );
        }
        for beyond in ["1e309", "-1e400"] {
            assert_eq!(read(beyond), Err(OutOfRange), "{beyond}");
        }
        assert_eq!(float(f64::NAN), Err(OutOfRange));
    }
}
