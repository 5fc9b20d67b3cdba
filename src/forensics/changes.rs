//! Which data keys of a Secret or `ConfigMap` changed from one revision to the next.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// The data of one revision: of each key the length and a digest, and its value only where it is
/// to be shown.
pub struct Contents(BTreeMap<String, Item>);

struct Item {
    size: u64,
    digest: [u8; 32],
    value: Option<Zeroizing<Vec<u8>>>,
}

/// One data key that differs. No `Debug`: it can hold values.
#[derive(Clone)]
pub struct Change {
    /// The data key.
    pub name: String,
    /// Length before, bytes; `None` where the key is new.
    pub old_size: Option<u64>,
    /// Length now, bytes; `None` where the key is gone.
    pub size: Option<u64>,
    /// Value before, where values are shown.
    pub old: Option<Zeroizing<Vec<u8>>>,
    /// Value now, where values are shown.
    pub new: Option<Zeroizing<Vec<u8>>>,
}

impl Change {
    /// `added`, `removed` or `changed`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match (self.old_size, self.size) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        }
    }
}

impl Contents {
    /// Takes the data of an object apart; `None` for kinds without data. With `keep`, values are
    /// kept for showing.
    #[must_use]
    pub fn of(object: &Value, keep: bool) -> Option<Self> {
        // Of a ConfigMap, `data` is text; everything else is base64 in JSON.
        let fields: &[(&str, bool)] = match object["kind"].as_str()? {
            "Secret" => &[("data", true)],
            "ConfigMap" => &[("data", false), ("binaryData", true)],
            _ => return None,
        };
        let mut items = BTreeMap::new();
        for (field, base64) in fields {
            for (name, value) in object[*field].as_object().into_iter().flatten() {
                let text = value.as_str().unwrap_or_default();
                let decoded = if *base64 { STANDARD.decode(text).ok() } else { None };
                let bytes = Zeroizing::new(decoded.unwrap_or_else(|| text.as_bytes().to_vec()));
                let item = Item {
                    size: bytes.len() as u64,
                    digest: Sha256::digest(&*bytes).into(),
                    value: keep.then_some(bytes),
                };
                items.insert(name.clone(), item);
            }
        }
        Some(Self(items))
    }

    /// Names and values, where they were kept.
    #[must_use]
    pub fn values(&self) -> Vec<(String, Zeroizing<Vec<u8>>)> {
        let kept = |(name, item): (&String, &Item)| Some((name.clone(), item.value.clone()?));
        self.0.iter().filter_map(kept).collect()
    }

    /// What differs from `before`, by name.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<Change> {
        let names: std::collections::BTreeSet<_> = self.0.keys().chain(before.0.keys()).collect();
        names
            .into_iter()
            .filter_map(|name| {
                let (old, new) = (before.0.get(name), self.0.get(name));
                if old.map(|i| i.digest) == new.map(|i| i.digest) {
                    return None;
                }
                Some(Change {
                    name: name.clone(),
                    old_size: old.map(|i| i.size),
                    size: new.map(|i| i.size),
                    old: old.and_then(|i| i.value.clone()),
                    new: new.and_then(|i| i.value.clone()),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(before: &Value, now: &Value) -> Vec<(String, &'static str, Option<u64>, Option<u64>)> {
        let of = |v| Contents::of(v, false).unwrap();
        of(now)
            .since(&of(before))
            .into_iter()
            .map(|c| {
                assert!(c.old.is_none() && c.new.is_none(), "values only when asked for");
                let word = c.word();
                (c.name, word, c.old_size, c.size)
            })
            .collect()
    }

    #[test]
    fn names_and_lengths_of_what_changed() {
        let before = json!({"kind": "Secret", "data": {"a": "b25l", "b": "dHdv", "c": "eA=="}});
        let now = json!({"kind": "Secret", "data": {"a": "b25l", "b": "dGhyZWU=", "d": ""}});
        assert_eq!(
            words(&before, &now),
            [
                ("b".to_owned(), "changed", Some(3), Some(5)),
                ("c".to_owned(), "removed", Some(1), None),
                ("d".to_owned(), "added", None, Some(0)),
            ]
        );
        assert_eq!(words(&now, &now), []);
        let map = json!({"kind": "ConfigMap", "data": {"a": "text"}, "binaryData": {"b": "AAA="}});
        let empty = json!({"kind": "ConfigMap"});
        assert_eq!(
            words(&empty, &map),
            [("a".to_owned(), "added", None, Some(4)), ("b".to_owned(), "added", None, Some(2))]
        );
        assert!(Contents::of(&json!({"kind": "Pod", "data": {}}), false).is_none());
    }

    #[test]
    fn values_are_kept_when_they_are_to_be_shown() {
        let before = json!({"kind": "Secret", "data": {"a": "b25l"}});
        let now = json!({"kind": "Secret", "data": {"a": "dHdv"}});
        let of = |v| Contents::of(v, true).unwrap();
        let changes = of(&now).since(&of(&before));
        assert_eq!(changes[0].old.as_deref().map(Vec::as_slice), Some(&b"one"[..]));
        assert_eq!(changes[0].new.as_deref().map(Vec::as_slice), Some(&b"two"[..]));
    }
}
