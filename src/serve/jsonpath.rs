//! The `JSONPath` of printer columns (client-go `util/jsonpath`), as far as it reads one place of an
//! object: fields, indexes, slices, wildcards, recursive descent and filters by a comparison.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    Wildcard,
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Descend(String),
    /// Elements whose field compares so with a literal.
    Filter(Vec<Step>, Comparison, Value),
    /// Elements that have the field.
    Has(Vec<Step>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A path that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Reads `.spec.size`, `.status.conditions[?(@.type=="Ready")].status`, …; `None` for what
    /// this reader does not know.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        steps(text.strip_prefix('$').unwrap_or(text)).map(Self)
    }

    /// Everything that the path leads to.
    #[must_use]
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        walk(&self.0, value)
    }
}

fn walk<'v>(steps: &[Step], value: &'v Value) -> Vec<&'v Value> {
    let mut found = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            take(step, value, &mut next);
        }
        found = next;
    }
    found
}

fn take<'v>(step: &Step, value: &'v Value, next: &mut Vec<&'v Value>) {
    match step {
        Step::Field(name) => next.extend(value.get(name)),
        Step::Wildcard => match value {
            Value::Array(items) => next.extend(items),
            Value::Object(map) => next.extend(map.values()),
            _ => {}
        },
        Step::Index(index) => {
            if let Value::Array(items) = value {
                next.extend(position(*index, items.len()).and_then(|at| items.get(at)));
            }
        }
        Step::Slice(from, to) => {
            if let Value::Array(items) = value {
                let at = |i: &i64| {
                    usize::try_from(if *i < 0 { *i + len(items) } else { *i }).unwrap_or(0)
                };
                let from = from.as_ref().map_or(0, at).min(items.len());
                let to = to.as_ref().map_or(items.len(), at).min(items.len());
                next.extend(items.get(from..to).unwrap_or_default());
            }
        }
        Step::Descend(name) => descend(name, value, next),
        Step::Filter(path, comparison, literal) => {
            let kept = |item: &&Value| {
                walk(path, item).first().is_some_and(|left| compare(left, *comparison, literal))
            };
            next.extend(value.as_array().into_iter().flatten().filter(kept));
        }
        Step::Has(path) => {
            let kept = |item: &&Value| !walk(path, item).is_empty();
            next.extend(value.as_array().into_iter().flatten().filter(kept));
        }
    }
}

fn len(items: &[Value]) -> i64 {
    i64::try_from(items.len()).unwrap_or(i64::MAX)
}

fn position(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index + i64::try_from(len).ok()? } else { index };
    usize::try_from(index).ok()
}

fn descend<'v>(name: &str, value: &'v Value, next: &mut Vec<&'v Value>) {
    match value {
        Value::Object(map) => {
            next.extend(map.get(name));
            map.values().for_each(|v| descend(name, v, next));
        }
        Value::Array(items) => items.iter().for_each(|v| descend(name, v, next)),
        _ => {}
    }
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> bool {
    use std::cmp::Ordering;
    let order = match (left, right) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b))
        }
        _ => None,
    };
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

fn steps(mut text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !text.is_empty() {
        if let Some(rest) = text.strip_prefix('[') {
            let end = closing(rest)?;
            steps.push(bracket(rest[..end].trim())?);
            text = &rest[end + 1..];
            continue;
        }
        let (rest, descends) = match text.strip_prefix("..") {
            Some(rest) => (rest, true),
            None => (text.strip_prefix('.').unwrap_or(text), false),
        };
        let (name, after) = word(rest);
        if name.is_empty() {
            // `.` alone is the object, and `.[0]` the same as `[0]`.
            if !after.is_empty() && !after.starts_with('[') {
                return None;
            }
        } else if name == "*" {
            steps.push(Step::Wildcard);
        } else if descends {
            steps.push(Step::Descend(name));
        } else {
            steps.push(Step::Field(name));
        }
        text = after;
    }
    Some(steps)
}

/// A field's name, `\.` standing for a dot in it.
fn word(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket ends, quotes and inner brackets considered.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Option<Step> {
    if inner == "*" {
        return Some(Step::Wildcard);
    }
    if let Some(name) = quoted(inner) {
        return Some(Step::Field(name));
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        return condition(filter.trim());
    }
    if let Some((from, to)) = inner.split_once(':') {
        let number = |text: &str| match text.trim() {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        };
        return Some(Step::Slice(number(from)?, number(to)?));
    }
    inner.parse().ok().map(Step::Index)
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(quote)).then(|| inner.to_owned())
}

fn condition(text: &str) -> Option<Step> {
    const OPERATORS: [(&str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let path = |text: &str| steps(text.trim().strip_prefix('@')?);
    for (word, comparison) in OPERATORS {
        if let Some((left, right)) = text.split_once(word) {
            let right = right.trim();
            let literal = match quoted(right) {
                Some(text) => Value::String(text),
                None => serde_json::from_str(right).ok()?,
            };
            return Some(Step::Filter(path(left)?, comparison, literal));
        }
    }
    path(text).map(Step::Has)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_printer_columns() {
        let object = json!({
            "spec": {"size": 3, "a.b": "dotted", "list": [1, 2, 3]},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "reason": "r[0]"},
                {"type": "Other", "status": "False"}]}});
        for (path, found) in [
            (".spec.size", json!([3])),
            ("{.spec.size}", json!([3])),
            ("$.spec.size", json!([3])),
            ("spec.size", json!([3])),
            (r".spec.a\.b", json!(["dotted"])),
            (".spec['a.b']", json!(["dotted"])),
            (".spec.list[-1]", json!([3])),
            (".spec.list[0:2]", json!([1, 2])),
            (".spec.list[*]", json!([1, 2, 3])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.type=='Other')].status", json!(["False"])),
            (".status.conditions[?(@.type!='Ready')].type", json!(["Other"])),
            (".status.conditions[?(@.reason)].reason", json!(["r[0]"])),
            (".status..type", json!(["Ready", "Other"])),
            (".spec.none.at.all", json!([])),
        ] {
            let parsed = JsonPath::parse(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(json!(parsed.find(&object)), found, "{path}");
        }
        for wrong in [".spec[", ".a[b c]", ".a[?(x)]"] {
            assert_eq!(JsonPath::parse(wrong), None, "{wrong}");
        }
    }
}
