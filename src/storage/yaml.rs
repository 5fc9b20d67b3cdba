//! Objects as YAML that every reader takes for what they are: block scalars for text of several
//! lines, quotes where YAML 1.1 (which Go's and Python's readers follow) would see a number, a
//! date or a boolean.

use serde_json::Value;

/// The object as a YAML document that ends with a line feed.
#[must_use]
pub fn to_string(value: &Value) -> String {
    let options = serde_saphyr::ser_options! {
        // Never `>`: folding keeps the meaning, but nobody can search or compare folded text.
        folded_wrap_chars: usize::MAX,
    };
    // JSON is YAML: if the writer refuses a document, its JSON still says the same.
    let mut text = serde_saphyr::to_string_with_options(value, options)
        .unwrap_or_else(|_| format!("{value:#}"));
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
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
