//! Keys and prefixes as the user names them → key ranges.

use super::failure::Failure;
use crate::resource::{Scope, Selector};
use crate::source::KeyRange;

/// What a `KEY` argument can mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The argument as given.
    pub text: String,
    /// Where it can lie.
    pub keys: Vec<Vec<u8>>,
    /// It ends in a slash, so it cannot be a key of an object.
    pub is_prefix: bool,
}

impl Target {
    /// Reads an etcd key (`/registry/secrets/ns/name`) or an object (`secrets/ns/name`,
    /// `nodes/name`), or the beginning of either.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse(text: &str, scope: &Scope) -> Result<Self, Failure> {
        let target = |keys| Target { text: text.to_owned(), keys, is_prefix: text.ends_with('/') };
        // Bookkeeping like `compact_rev_key` has no slash at all.
        if text.starts_with('/') || !text.contains('/') && text.contains('_') {
            return Ok(target(vec![text.as_bytes().to_vec()]));
        }
        let (resource, rest) = text.split_once('/').unwrap_or((text, ""));
        let Ok(selector @ Selector::Exact(_)) = Selector::parse(resource) else {
            return Err(Failure::usage(format!(
                "`{text}` is neither an etcd key nor RESOURCE/NAMESPACE/NAME"
            ))
            .hint("write it like /registry/secrets/default/login or secrets/default/login"));
        };
        let mut keys = Vec::new();
        for base in &scope.bases {
            for range in selector.ranges(base) {
                let mut key = range.start;
                key.extend_from_slice(rest.as_bytes());
                keys.push(key);
            }
        }
        Ok(Self { is_prefix: rest.is_empty() || rest.ends_with('/'), ..target(keys) })
    }

    /// The ranges of exactly these keys.
    #[must_use]
    pub fn singles(&self) -> Vec<KeyRange> {
        crate::resource::merge_ranges(self.keys.iter().map(|k| KeyRange::single(k)).collect())
    }

    /// The ranges of all keys that begin so.
    #[must_use]
    pub fn prefixes(&self) -> Vec<KeyRange> {
        crate::resource::merge_ranges(self.keys.iter().map(|k| KeyRange::prefix(k)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_objects_and_prefixes() {
        let scope = Scope::new("/registry/");
        let parse = |text: &str| {
            let target = Target::parse(text, &scope).unwrap();
            let key = String::from_utf8(target.keys[0].clone()).unwrap();
            assert_eq!(target.keys.len(), 1, "{text}");
            (key, target.is_prefix)
        };
        for (text, key, is_prefix) in [
            ("/registry/secrets/a/b", "/registry/secrets/a/b", false),
            ("/registry/secrets/", "/registry/secrets/", true),
            ("secrets/a/b", "/registry/secrets/a/b", false),
            ("secrets/a/", "/registry/secrets/a/", true),
            ("secrets", "/registry/secrets/", true),
            ("nodes/n1", "/registry/minions/n1", false),
            ("deployments/a/b", "/registry/deployments/a/b", false),
            ("widgets.example.com/a/b", "/registry/example.com/widgets/a/b", false),
            ("compact_rev_key", "compact_rev_key", false),
        ] {
            assert_eq!(parse(text), (key.to_owned(), is_prefix), "{text}");
        }
        for text in ["", "*.*/a/b", "*.apps"] {
            assert!(Target::parse(text, &scope).is_err(), "{text}");
        }
    }
}
