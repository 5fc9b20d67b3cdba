//! Tree → raw configuration, strict as the API server's decoder: unknown and duplicate fields,
//! wrong case and wrong types are errors (apimachinery `pkg/runtime/serializer/json`, strict).

use std::time::Duration;

use zeroize::Zeroizing;

use super::finding::{Finding, shown, shown_field};
use crate::yaml_tree::{Field, Node, Position, Value};

/// A field that may be missing, or present and already reported as wrong.
#[derive(Clone)]
pub(super) enum Given<T> {
    /// Not there or null; the position is that of the enclosing object.
    Absent(Position),
    /// Reported; nothing more is said about it.
    Wrong,
    /// The value.
    Is(T, Position),
}

#[derive(Default)]
pub(super) struct Raw {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) header_at: Position,
    pub(super) entries: Vec<RawEntry>,
    pub(super) entries_at: Position,
    pub(super) entries_wrong: bool,
}

pub(super) struct RawEntry {
    pub(super) resources: Given<Vec<(String, Position)>>,
    pub(super) providers: Given<Vec<RawProvider>>,
}

#[derive(Default)]
pub(super) struct RawProvider {
    pub(super) at: Position,
    /// Something in it was reported; counting what is set would mislead.
    pub(super) wrong: bool,
    pub(super) kms: Option<RawKms>,
    pub(super) aesgcm: Option<RawKeys>,
    pub(super) aescbc: Option<RawKeys>,
    pub(super) secretbox: Option<RawKeys>,
    pub(super) identity: bool,
}

pub(super) struct RawKeys {
    pub(super) at: Position,
    pub(super) keys: Given<Vec<RawKey>>,
}

pub(super) struct RawKey {
    pub(super) name: Given<String>,
    pub(super) secret: Given<Zeroizing<String>>,
}

pub(super) struct RawKms {
    pub(super) api_version: Given<String>,
    pub(super) name: Given<String>,
    pub(super) endpoint: Given<String>,
    pub(super) cachesize: Given<i32>,
    pub(super) timeout: Given<GoDuration>,
}

/// A Go duration; `None` is zero or negative.
pub(super) type GoDuration = Option<Duration>;

/// Decodes the top-level object.
pub(super) fn decode(node: &Node, findings: &mut Vec<Finding>) -> Raw {
    let mut d = Decoder { findings };
    let mut raw = Raw { header_at: node.at, entries_at: node.at, ..Raw::default() };
    let Some(fields) = d.object(node, "", &["apiVersion", "kind", "resources"]) else {
        raw.entries_wrong = true;
        return raw;
    };
    if let Given::Is(text, _) = d.string(fields, "", "apiVersion", node.at) {
        raw.api_version = text.to_string();
    }
    if let Given::Is(text, at) = d.string(fields, "", "kind", node.at) {
        raw.kind = text.to_string();
        raw.header_at = at;
    }
    match d.list(fields, "", "resources", node.at) {
        Given::Absent(_) => {}
        Given::Wrong => raw.entries_wrong = true,
        Given::Is(items, at) => {
            raw.entries_at = at;
            let entry = |(i, item): (usize, &Node)| d.entry(item, &format!("resources[{i}]"));
            raw.entries = items.iter().enumerate().map(entry).collect();
        }
    }
    raw
}

struct Decoder<'f> {
    findings: &'f mut Vec<Finding>,
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn find<'n>(fields: &'n [Field], name: &str) -> Option<&'n Field> {
    fields.iter().find(|f| f.name.as_str() == name)
}

impl Decoder<'_> {
    fn report(&mut self, path: &str, message: impl Into<String>, at: Position) {
        self.findings.push(Finding::new(path, message, at));
    }

    /// The fields of an object, after reporting unknown and repeated ones. Null is an object
    /// without fields.
    fn object<'n>(&mut self, node: &'n Node, path: &str, known: &[&str]) -> Option<&'n [Field]> {
        let fields = match &node.value {
            Value::Map(fields) => fields,
            Value::Null => return Some(&[]),
            other => {
                self.report(path, format!("must be an object, not {}", other.kind()), node.at);
                return None;
            }
        };
        for (i, field) in fields.iter().enumerate() {
            let name = field.name.as_str();
            let full = child(path, &shown_field(name));
            if fields[..i].iter().any(|f| f.name == field.name) {
                self.report(&full, "duplicate field", field.at);
            } else if !known.contains(&name) {
                let message = match known.iter().find(|k| k.eq_ignore_ascii_case(name)) {
                    Some(right) => format!("unknown field: the case must be `{right}`"),
                    None => format!("unknown field: expected one of {}", known.join(", ")),
                };
                self.report(&full, message, field.at);
            }
        }
        Some(fields)
    }

    fn list<'n>(
        &mut self,
        fields: &'n [Field],
        path: &str,
        name: &str,
        parent: Position,
    ) -> Given<&'n [Node]> {
        let Some(field) = find(fields, name) else { return Given::Absent(parent) };
        match &field.node.value {
            Value::Null => Given::Absent(field.at),
            Value::List(items) => Given::Is(items, field.at),
            other => {
                let message = format!("must be a list, not {}", other.kind());
                self.report(&child(path, name), message, field.node.at);
                Given::Wrong
            }
        }
    }

    fn string<'n>(
        &mut self,
        fields: &'n [Field],
        path: &str,
        name: &str,
        parent: Position,
    ) -> Given<&'n Zeroizing<String>> {
        let Some(field) = find(fields, name) else { return Given::Absent(parent) };
        match &field.node.value {
            Value::Null => Given::Absent(field.at),
            Value::Text(text) => Given::Is(text, field.node.at),
            other => {
                let hint = match other {
                    Value::Bool(_) | Value::Int(_) | Value::Float => ": put it in quotes",
                    _ => "",
                };
                let message = format!("must be a string, not {}{hint}", other.kind());
                self.report(&child(path, name), message, field.node.at);
                Given::Wrong
            }
        }
    }

    fn owned(
        &mut self,
        fields: &[Field],
        path: &str,
        name: &str,
        parent: Position,
    ) -> Given<String> {
        match self.string(fields, path, name, parent) {
            Given::Is(text, at) => Given::Is(text.to_string(), at),
            Given::Absent(at) => Given::Absent(at),
            Given::Wrong => Given::Wrong,
        }
    }

    fn entry(&mut self, node: &Node, path: &str) -> RawEntry {
        let mut entry = RawEntry { resources: Given::Wrong, providers: Given::Wrong };
        let Some(fields) = self.object(node, path, &["resources", "providers"]) else {
            return entry;
        };
        entry.resources = match self.list(fields, path, "resources", node.at) {
            Given::Is(items, at) => {
                let mut all = Vec::new();
                let mut wrong = false;
                for (i, item) in items.iter().enumerate() {
                    match &item.value {
                        Value::Text(text) => all.push((text.to_string(), item.at)),
                        // Go reads null as the empty string.
                        Value::Null => all.push((String::new(), item.at)),
                        other => {
                            wrong = true;
                            let message = format!("must be a string, not {}", other.kind());
                            self.report(&format!("{path}.resources[{i}]"), message, item.at);
                        }
                    }
                }
                if wrong { Given::Wrong } else { Given::Is(all, at) }
            }
            Given::Absent(at) => Given::Absent(at),
            Given::Wrong => Given::Wrong,
        };
        entry.providers = match self.list(fields, path, "providers", node.at) {
            Given::Is(items, at) => {
                let provider =
                    |(i, n): (usize, &Node)| self.provider(n, &format!("{path}.providers[{i}]"));
                Given::Is(items.iter().enumerate().map(provider).collect(), at)
            }
            Given::Absent(at) => Given::Absent(at),
            Given::Wrong => Given::Wrong,
        };
        entry
    }

    fn provider(&mut self, node: &Node, path: &str) -> RawProvider {
        let before = self.findings.len();
        let mut provider = RawProvider { at: node.at, ..RawProvider::default() };
        let known = ["aesgcm", "aescbc", "secretbox", "identity", "kms"];
        if let Some(fields) = self.object(node, path, &known) {
            provider.wrong = self.findings.len() > before;
            let set = |name: &str| {
                find(fields, name).map(|f| &f.node).filter(|n| !matches!(n.value, Value::Null))
            };
            let mut keys = |name: &str| set(name).map(|n| self.keys(n, &child(path, name)));
            provider.aesgcm = keys("aesgcm");
            provider.aescbc = keys("aescbc");
            provider.secretbox = keys("secretbox");
            if let Some(n) = set("identity") {
                provider.identity = true;
                self.object(n, &child(path, "identity"), &[]);
            }
            provider.kms = set("kms").map(|n| self.kms(n, &child(path, "kms")));
        } else {
            provider.wrong = true;
        }
        provider
    }

    fn keys(&mut self, node: &Node, path: &str) -> RawKeys {
        let mut keys = RawKeys { at: node.at, keys: Given::Wrong };
        let Some(fields) = self.object(node, path, &["keys"]) else { return keys };
        keys.keys = match self.list(fields, path, "keys", node.at) {
            Given::Is(items, at) => {
                let key = |(i, n): (usize, &Node)| self.key(n, &format!("{path}.keys[{i}]"));
                Given::Is(items.iter().enumerate().map(key).collect(), at)
            }
            Given::Absent(at) => Given::Absent(at),
            Given::Wrong => Given::Wrong,
        };
        keys
    }

    fn key(&mut self, node: &Node, path: &str) -> RawKey {
        let Some(fields) = self.object(node, path, &["name", "secret"]) else {
            return RawKey { name: Given::Wrong, secret: Given::Wrong };
        };
        let name = self.owned(fields, path, "name", node.at);
        let secret = match self.string(fields, path, "secret", node.at) {
            Given::Is(text, at) => Given::Is(text.clone(), at),
            Given::Absent(at) => Given::Absent(at),
            Given::Wrong => Given::Wrong,
        };
        RawKey { name, secret }
    }

    fn kms(&mut self, node: &Node, path: &str) -> RawKms {
        let known = ["apiVersion", "name", "cachesize", "endpoint", "timeout"];
        let Some(fields) = self.object(node, path, &known) else {
            return RawKms {
                api_version: Given::Wrong,
                name: Given::Wrong,
                endpoint: Given::Wrong,
                cachesize: Given::Wrong,
                timeout: Given::Wrong,
            };
        };
        let timeout = self.timeout(fields, path, node);
        self.kms_of(fields, path, node, timeout)
    }

    fn timeout(&mut self, fields: &[Field], path: &str, node: &Node) -> Given<GoDuration> {
        let number = find(fields, "timeout").map(|f| (&f.node.value, f.node.at));
        if let Some((value @ (Value::Int(_) | Value::Float), at)) = number {
            // Quotes alone would make no duration of it.
            let example = match value {
                Value::Int(n) if *n > 0 => format!("{n}s"),
                _ => "3s".to_owned(),
            };
            let message =
                format!("is a number without a unit: write a duration such as `{example}`");
            self.report(&child(path, "timeout"), message, at);
            return Given::Wrong;
        }
        match self.string(fields, path, "timeout", node.at) {
            Given::Is(text, at) => {
                if let Some(duration) = go_duration(text) {
                    Given::Is(duration, at)
                } else {
                    let message =
                        format!("{} is not a duration such as `3s` or `500ms`", shown(text));
                    self.report(&child(path, "timeout"), message, at);
                    Given::Wrong
                }
            }
            Given::Absent(at) => Given::Absent(at),
            Given::Wrong => Given::Wrong,
        }
    }

    fn kms_of(
        &mut self,
        fields: &[Field],
        path: &str,
        node: &Node,
        timeout: Given<GoDuration>,
    ) -> RawKms {
        let cachesize = match find(fields, "cachesize").map(|f| &f.node) {
            None => Given::Absent(node.at),
            Some(n) => match &n.value {
                Value::Null => Given::Absent(n.at),
                Value::Int(i) if i32::try_from(*i).is_ok() => {
                    Given::Is(i32::try_from(*i).unwrap_or_default(), n.at)
                }
                other => {
                    let message = format!(
                        "must be a 32-bit integer, not {}",
                        match other {
                            Value::Int(_) => "a larger number",
                            other => other.kind(),
                        }
                    );
                    self.report(&child(path, "cachesize"), message, n.at);
                    Given::Wrong
                }
            },
        };
        RawKms {
            api_version: self.owned(fields, path, "apiVersion", node.at),
            name: self.owned(fields, path, "name", node.at),
            endpoint: self.owned(fields, path, "endpoint", node.at),
            cachesize,
            timeout,
        }
    }
}

/// Go's `time.ParseDuration`: `None` is no duration, `Some(None)` zero or negative.
pub(super) fn go_duration(text: &str) -> Option<GoDuration> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(None);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanos = nanos.checked_add(whole.checked_mul(scale)?)?;
        let mut unit_left = scale;
        for digit in fraction.bytes() {
            unit_left /= 10;
            nanos += u128::from(digit - b'0') * unit_left;
        }
        // Go's durations end at 2^63 nanoseconds.
        if nanos > i64::MAX as u128 {
            return None;
        }
        rest = next;
    }
    let duration = Duration::from_nanos(u64::try_from(nanos).ok()?);
    Some((!negative && nanos > 0).then_some(duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (text, expected) in [
            ("3s", Some(Some(Duration::from_secs(3)))),
            ("+1m30s", Some(Some(Duration::from_secs(90)))),
            ("1.5h", Some(Some(Duration::from_mins(90)))),
            (".5s", Some(Some(Duration::from_millis(500)))),
            ("5.s", Some(Some(Duration::from_secs(5)))),
            ("100us", Some(Some(Duration::from_micros(100)))),
            ("100µs", Some(Some(Duration::from_micros(100)))),
            ("0", Some(None)),
            ("0s", Some(None)),
            ("-3s", Some(None)),
            ("", None),
            ("3", None),
            ("s", None),
            (".s", None),
            ("1..5s", None),
            ("3 s", None),
            ("3x", None),
            ("9999999999h", None),
        ] {
            assert_eq!(go_duration(text), expected, "{text}");
        }
    }
}
