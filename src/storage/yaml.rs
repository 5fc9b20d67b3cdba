//! Objects as YAML that every reader takes for what they are: block scalars for text of several
//! lines, quotes where YAML 1.1 (which Go's and Python's readers follow) would see a number, a
//! date or a boolean.

use serde::ser::{Serialize, Serializer};
use serde_json::Value;

use super::{DecodeError, number};

/// The object as a YAML document that ends with a line feed.
#[must_use]
pub fn to_string(value: &Value) -> String {
    let options = serde_saphyr::ser_options! {
        // Never `>`: folding keeps the meaning, but nobody can search or compare folded text.
        folded_wrap_chars: usize::MAX,
    };
    // JSON is YAML: if the writer refuses a document, its JSON still says the same.
    let mut text = serde_saphyr::to_string_with_options(&Node(value), options)
        .unwrap_or_else(|_| format!("{value:#}"));
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The first document of stored YAML, as the API server reads it (sigs.k8s.io/yaml).
///
/// # Errors
/// When it is damaged, without its bytes.
pub(super) fn from_bytes(bytes: &[u8]) -> Result<Value, DecodeError> {
    let text = String::from_utf8_lossy(bytes);
    // `no` and `y` are text where they stand plain: the API server's writer quotes neither a
    // boolean nor leaves such text unquoted.
    // Go's writer uses no aliases at all; each may stand for megabytes.
    let options = serde_saphyr::options! {
        strict_booleans: true,
        budget: serde_saphyr::budget! { max_aliases: 64 },
    };
    let documents = serde_saphyr::from_multiple_with_options::<Value>(&text, options);
    let mut value = documents
        .map_err(|e| {
            let (line, column) = e.location().map_or((0, 0), |l| (l.line(), l.column()));
            DecodeError::Yaml { line, column }
        })?
        .into_iter()
        .next()
        .unwrap_or_default();
    number::normalise(&mut value).map_err(|_| DecodeError::Number)?;
    Ok(value)
}

/// A value whose numbers are written as numbers: `serde_json` keeps their text, which other
/// writers would not understand.
struct Node<'a>(&'a Value);

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Number(n) => match (number::whole(n), n.as_f64()) {
                (Some(whole), _) => match i64::try_from(whole) {
                    Ok(small) => serializer.serialize_i64(small),
                    Err(_) => serializer.serialize_i128(whole),
                },
                (None, Some(float)) => serializer.serialize_f64(float),
                (None, None) => serializer.serialize_str(n.as_str()),
            },
            Value::Array(items) => serializer.collect_seq(items.iter().map(Node)),
            Value::Object(map) => {
                serializer.collect_map(map.iter().map(|(name, value)| (name, Node(value))))
            }
            other => other.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn back(text: &str) -> Value {
        serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
    }

    #[test]
    fn text_of_several_lines_stands_as_it_is() {
        let value = json!({"data": {"a.conf": "one\n  two\n", "b": "x\n\ny"}});
        let text = to_string(&value);
        assert_eq!(text, "data:\n  a.conf: |\n    one\n      two\n  b: |-\n    x\n\n    y\n");
        assert_eq!(back(&text), value);
    }

    #[test]
    fn what_yaml_1_1_takes_for_something_else_is_quoted() {
        for text in [
            "yes",
            "No",
            "on",
            "OFF",
            "y",
            "n",
            "true",
            "null",
            "~",
            "",
            "1",
            "1e3",
            "0x1f",
            "012",
            "1_000",
            ".5",
            "1:30",
            "190:20:30",
            "2026-01-01",
            "2026-01-01T00:00:00Z",
            "=",
            "<<",
            "- a",
            "a: b",
            "a #b",
            "#a",
            "'",
            "\"",
            "@a",
            "`a",
            "%a",
            "!a",
            "&a",
            "*a",
            "{a",
            "[a",
            " a",
            "a ",
            "\ta",
            "a\t",
            "---",
            "...",
            "? a",
            "|",
            ">",
            "\u{7f}",
            "\u{85}",
            "\u{feff}",
            "\u{2028}",
            "a\r\nb",
            "\n",
            "\n\n",
            " \n a",
            "a\n ",
            "\u{0}",
            "é",
        ] {
            let value = json!({ text: text, "list": [text] });
            let yaml = to_string(&value);
            assert_eq!(back(&yaml), value, "{text:?} as {yaml:?}");
            let plain = yaml.lines().any(|l| l == format!("- {text}"));
            assert!(!plain || text == "é", "{text:?} stands plain in {yaml:?}");
        }
    }

    #[test]
    fn long_text_is_not_folded() {
        let value = json!({"a": "word ".repeat(60).trim()});
        assert_eq!(to_string(&value).lines().count(), 1);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[ \t\n\r#:'\"|>~!&*?{}\\[\\],%@`=a1.-]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ \ta-z0-9.:#'\"~-]{0,6}", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any_json()) {
            let text = to_string(&value);
            prop_assert_eq!(&back(&text), &value, "{}", text);
        }
    }
}
