//! What `get` and `decode` print of objects.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::Value;
use zeroize::Zeroizing;

use super::{Format, table};
use crate::jobs::get::Object;
use crate::storage;

/// Writes objects, and wipes them: one as itself, several as a list (JSON) or documents (YAML).
///
/// # Errors
/// When `out` cannot be written.
pub fn write(format: Format, mut objects: Vec<Object>, out: &mut dyn Write) -> io::Result<()> {
    if format == Format::Json && objects.len() > 1 {
        let items = objects.iter_mut().map(|object| std::mem::take(&mut object.json)).collect();
        let mut list = list(items);
        let written = json(&list, out);
        storage::wipe(&mut list);
        return written;
    }
    for (i, object) in objects.iter().enumerate() {
        if format == Format::Json {
            json(&object.json, out)?;
            continue;
        }
        if i > 0 {
            writeln!(out, "---")?;
        }
        writeln!(out, "# {}", header(object))?;
        let text = Zeroizing::new(if format == Format::Yaml {
            storage::yaml::to_string(&object.json)
        } else {
            storage::fields::to_string(&object.json)
        });
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

fn json(value: &Value, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// What an object is called in a sentence.
#[must_use]
pub fn name(object: &Object) -> String {
    match object.key.as_slice() {
        // A value from stdin may come without its key and revision.
        [] => "value".to_owned(),
        key => table::visible(&String::from_utf8_lossy(key)),
    }
}

/// How it is stored, in a line.
fn header(object: &Object) -> String {
    let mut header = format!("{}: {}, {} bytes", name(object), object.stored_as, object.size);
    if object.revision > 0 {
        let _ = write!(header, ", revision {}", object.revision);
    }
    header
}

/// A list as kubectl prints it.
#[allow(clippy::needless_pass_by_value)] // It becomes a part of the result.
fn list(items: Vec<Value>) -> Value {
    serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items })
}
