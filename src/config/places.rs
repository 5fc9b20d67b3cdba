//! Field path → where it stands in the text, for remarks made after parsing.

use std::collections::BTreeMap;

use super::finding::shown_field;
use crate::yaml_tree::{Node, Position, Value};

/// Where every field of a configuration stands.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<String, Position>);

impl Places {
    pub(super) fn of(document: &Node) -> Self {
        let mut places = Self::default();
        places.walk(document, String::new());
        places
    }

    /// The place of a field, or of the nearest enclosing one that has a place.
    #[must_use]
    pub fn of_path(&self, path: &str) -> Option<Position> {
        let mut path = path;
        loop {
            if let Some(at) = self.0.get(path) {
                return Some(*at);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    fn walk(&mut self, node: &Node, path: String) {
        match &node.value {
            Value::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.walk(item, format!("{path}[{i}]"));
                }
            }
            Value::Map(fields) => {
                for field in fields {
                    let name = shown_field(&field.name);
                    let child = if path.is_empty() { name } else { format!("{path}.{name}") };
                    self.walk(&field.node, child);
                }
            }
            _ => {}
        }
        if node.at.line > 0 {
            self.0.entry(path).or_insert(node.at);
        }
    }
}
