//! What `get`, `decode` and `export` say of objects.

use serde_json::Value;

use super::table;

/// Fields that a sentence names.
const NAMED: usize = 10;

/// A list as kubectl prints it.
#[must_use]
#[allow(clippy::needless_pass_by_value)] // It becomes a part of the result.
pub fn list(items: Vec<Value>) -> Value {
    serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// Fields in a sentence: the first, and how many more there are.
#[must_use]
pub fn fields(unknown: &[String]) -> String {
    let named: Vec<_> = unknown.iter().take(NAMED).map(|f| table::visible(f)).collect();
    match unknown.len() - named.len() {
        0 => named.join(", "),
        more => format!("{}, and {} more", named.join(", "), table::count(more as u64)),
    }
}
