//! etcdctl's own forms (etcd `etcdctl/ctlv3/command/printer_{json,fields,simple}.go`) and those of
//! the gRPC gateway, whose numbers are texts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Form, NotAValue, Pasted, text};

type Read = Result<(Form, Vec<Pasted>), NotAValue>;

const INSTEAD: &str = "give what `etcdctl get KEY -w json` prints, whole";

/// JSON: an answer of etcd, entries of it (alone, in a list or one after another, as jq prints
/// them), or else the value itself.
pub(super) fn json(input: &[u8]) -> Read {
    let documents: Vec<Value> =
        match serde_json::Deserializer::from_slice(input).into_iter().collect() {
            Ok(documents) => documents,
            // A damaged value is still one; nothing of etcdctl's is JSON that does not end.
            Err(_) if names_a_kind(input) => return Ok(value(input)),
            Err(e) => {
                return Err(NotAValue::new(
                    format!("malformed JSON (line {} column {})", e.line(), e.column()),
                    INSTEAD,
                ));
            }
        };
    if let [one] = documents.as_slice()
        && is_object(one)
    {
        return Ok(value(input));
    }
    let mut entries = Vec::new();
    for document in &documents {
        collect(document, &mut entries)?;
    }
    Ok((Form::EtcdctlJson, entries))
}

fn value(input: &[u8]) -> (Form, Vec<Pasted>) {
    (Form::Value, vec![Pasted::printed(None, input)])
}

/// The API server cannot read an object without these two.
fn is_object(document: &Value) -> bool {
    ["apiVersion", "kind"].iter().all(|name| document.get(name).is_some_and(Value::is_string))
}

/// Whether JSON, damaged or not, has the two fields that an object must have.
pub(super) fn names_a_kind(input: &[u8]) -> bool {
    let has = |name: &[u8]| memchr::memmem::find(input, name).is_some();
    has(b"\"apiVersion\"") && has(b"\"kind\"")
}

fn collect(document: &Value, entries: &mut Vec<Pasted>) -> Result<(), NotAValue> {
    if let Value::Array(items) = document {
        if items.is_empty() {
            return Err(nothing());
        }
        return items.iter().try_for_each(|item| collect(item, entries));
    }
    if let Value::String(text) = document
        && let Some(one) = text::base64(text.as_bytes())
    {
        entries.push(one);
        return Ok(());
    }
    let Value::Object(map) = document else {
        return Err(NotAValue::new(
            "JSON that is neither an object nor a list of entries",
            INSTEAD,
        ));
    };
    let answer = map.get("header").is_some_and(|h| h.get("cluster_id").is_some());
    if let Some(kvs) = map.get("kvs").filter(|kvs| kvs.is_array()) {
        return collect(kvs, entries);
    }
    if answer {
        return Err(nothing());
    }
    if map.contains_key("key")
        && ["value", "mod_revision", "create_revision"].iter().any(|name| map.contains_key(*name))
    {
        entries.push(entry(map)?);
        return Ok(());
    }
    Err(if map.contains_key("level") && map.contains_key("msg") {
        NotAValue::new("a line of etcdctl's log", "give its standard output only, without 2>&1")
    } else if is_object(document) {
        NotAValue::new("several Kubernetes objects", "give one value at a time")
    } else {
        NotAValue::new(
            "JSON, but neither a Kubernetes object (it lacks apiVersion or kind) nor what etcdctl prints",
            INSTEAD,
        )
    })
}

fn nothing() -> NotAValue {
    NotAValue::new(
        "an answer of etcd without any entry",
        "the key may be misspelt, or lie below another prefix",
    )
}

fn entry(map: &serde_json::Map<String, Value>) -> Result<Pasted, NotAValue> {
    let bytes = |name: &str| match map.get(name) {
        None => Some(Vec::new()),
        Some(value) => STANDARD.decode(value.as_str()?).ok(),
    };
    let (Some(key), Some(value)) = (bytes("key"), bytes("value")) else {
        return Err(NotAValue::new(
            "an entry as etcdctl prints it in JSON, but key or value are not base64",
            INSTEAD,
        ));
    };
    if value.is_empty() {
        return Err(NotAValue::new(
            "an entry without a value",
            "leave out --keys-only: etcdctl get KEY -w json",
        ));
    }
    let number = |name: &str| {
        let value = map.get(name);
        value.and_then(|v| v.as_i64().or_else(|| v.as_str()?.parse().ok())).unwrap_or(0)
    };
    Ok(Pasted {
        create_revision: number("create_revision"),
        mod_revision: number("mod_revision"),
        version: number("version"),
        ..Pasted::exact(Some(key), value)
    })
}

/// Names of the lines of `-w fields`.
const FIELDS: [&str; 13] = [
    "ClusterID",
    "MemberID",
    "Revision",
    "RaftTerm",
    "Key",
    "CreateRevision",
    "ModRevision",
    "Version",
    "Value",
    "Lease",
    "More",
    "Count",
    "Deleted",
];

/// `-w fields`: lines of `"Name" : value`, texts as Go quotes them.
pub(super) fn fields(input: &[u8]) -> Option<Read> {
    name_of(input)?;
    Some(read_fields(input))
}

/// The name that a line begins with, and its value.
fn name_of(line: &[u8]) -> Option<(&'static str, &[u8])> {
    let rest = line.trim_ascii().strip_prefix(b"\"")?;
    FIELDS.iter().find_map(|name| {
        let value = rest.strip_prefix(name.as_bytes())?.strip_prefix(b"\"")?;
        Some((*name, value.trim_ascii_start().strip_prefix(b":")?.trim_ascii()))
    })
}

fn read_fields(input: &[u8]) -> Read {
    let mut entries: Vec<Pasted> = Vec::new();
    let mut current = Pasted::exact(None, Vec::new());
    let cut = |name: &str| {
        NotAValue::new(
            format!("etcdctl's output of -w fields, whose line \"{name}\" is cut or wrapped"),
            INSTEAD,
        )
    };
    for line in input.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let Some((name, value)) = name_of(line) else { return Err(cut("Value")) };
        let number = || std::str::from_utf8(value).ok().and_then(|t| t.parse().ok());
        match name {
            "Key" => {
                let key = text::go_unquoted(value).ok_or_else(|| cut(name))?;
                let key = super::dump::escaped(&key).unwrap_or_else(|| key.to_vec());
                current = Pasted::exact(Some(key), Vec::new());
            }
            "CreateRevision" => current.create_revision = number().unwrap_or(0),
            "ModRevision" => current.mod_revision = number().unwrap_or(0),
            "Version" => current.version = number().unwrap_or(0),
            "Value" => {
                let value = text::go_unquoted(value).ok_or_else(|| cut(name))?;
                let value = super::dump::escaped(&value).unwrap_or_else(|| value.to_vec());
                if value.is_empty() {
                    return Err(NotAValue::new(
                        "an entry without a value",
                        "leave out --keys-only: etcdctl get KEY -w fields",
                    ));
                }
                let whole = Pasted::exact(current.key.clone(), value);
                entries.push(Pasted { readings: whole.readings, ..current.clone() });
            }
            _ => {}
        }
    }
    if entries.is_empty() {
        return Err(NotAValue::new(
            "etcdctl's output of -w fields without the line \"Value\"",
            "give all of it, or the line that begins with \"Value\"",
        ));
    }
    Ok((Form::EtcdctlFields, entries))
}
