//! A KEY as somebody writes it → the etcd keys that it can mean.

use super::catalogue::is_namespaced;
use super::location::Location;
use super::scope::Scope;
use super::selector::Selector;
use crate::range::{KeyRange, merge_ranges};

/// What a KEY can mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedKey {
    /// As it was written.
    pub text: String,
    /// The etcd keys that it can mean, most likely first; never empty.
    pub keys: Vec<Vec<u8>>,
    /// It is the beginning of keys and no object's own.
    pub is_prefix: bool,
}

impl NamedKey {
    /// Reads an etcd key in full (`/registry/secrets/ns/name`, `compact_rev_key`) or an object
    /// (`secrets/ns/name`, `nodes/name`, or `secrets/name` where `namespaces` complete it), or the
    /// beginning of either.
    ///
    /// # Errors
    /// When the text is neither, in words.
    pub fn parse(text: &str, scope: &Scope, namespaces: &[String]) -> Result<Self, String> {
        let named = |keys| Self { text: text.to_owned(), keys, is_prefix: text.ends_with('/') };
        if text.starts_with('/') {
            let mut keys = vec![text.as_bytes().to_vec()];
            // Behind a proxy, the API server's own key and the stored one are both understood.
            if !text.starts_with(scope.namespace()) {
                keys.insert(0, format!("{}{text}", scope.namespace()).into_bytes());
            }
            return Ok(named(keys));
        }
        // Bookkeeping like `compact_rev_key` has no slash at all; no resource has an underscore.
        if !text.contains('/') && text.contains('_') {
            return Ok(named(vec![text.as_bytes().to_vec()]));
        }
        let (resource, rest) = text.split_once('/').unwrap_or((text, ""));
        let Ok(selector @ Selector::Exact(_)) = Selector::parse(resource) else {
            return Err(format!("`{text}` is neither an etcd key nor RESOURCE/NAMESPACE/NAME"));
        };
        let mut keys = Vec::new();
        for base in scope.bases() {
            for range in selector.ranges(base) {
                let key = |rest: &str| [range.start.as_slice(), rest.as_bytes()].concat();
                keys.extend(
                    objects(&selector.to_string(), rest, namespaces).iter().map(|r| key(r)),
                );
            }
        }
        Ok(Self { is_prefix: rest.is_empty() || rest.ends_with('/'), ..named(keys) })
    }

    /// The ranges of exactly these keys.
    #[must_use]
    pub fn singles(&self) -> Vec<KeyRange> {
        merge_ranges(self.keys.iter().map(|k| KeyRange::single(k)).collect())
    }

    /// The ranges of all keys that begin so.
    #[must_use]
    pub fn prefixes(&self) -> Vec<KeyRange> {
        merge_ranges(self.keys.iter().map(|k| KeyRange::prefix(k)).collect())
    }
}

/// What `rest` can mean below a resource: as it stands, or in one of the namespaces.
fn objects(resource: &str, rest: &str, namespaces: &[String]) -> Vec<String> {
    let inside = || namespaces.iter().map(|namespace| format!("{namespace}/{rest}"));
    match is_namespaced(resource) {
        _ if rest.contains('/') || namespaces.is_empty() => vec![rest.to_owned()],
        Some(false) => vec![rest.to_owned()],
        Some(true) => inside().collect(),
        None => inside().chain([rest.to_owned()]).collect(),
    }
}

/// Whether an object that a KEY names is in one of the namespaces; an object without one is never
/// elsewhere.
#[must_use]
pub fn is_in(location: &Location<'_>, namespaces: &[String]) -> bool {
    let within = |namespace: &str| namespaces.iter().any(|n| n == namespace);
    namespaces.is_empty() || location.namespace.as_deref().is_none_or(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str, scope: &Scope, namespaces: &[&str]) -> (Vec<String>, bool) {
        let namespaces: Vec<_> = namespaces.iter().map(|n| (*n).to_owned()).collect();
        let named = NamedKey::parse(text, scope, &namespaces).unwrap();
        let keys = named.keys.into_iter().map(|k| String::from_utf8(k).unwrap()).collect();
        (keys, named.is_prefix)
    }

    #[test]
    fn keys_objects_and_prefixes() {
        let scope = Scope::new("/registry/");
        for (text, key, is_prefix) in [
            ("/registry/secrets/a/b", "/registry/secrets/a/b", false),
            ("/registry/secrets/", "/registry/secrets/", true),
            ("secrets/a/b", "/registry/secrets/a/b", false),
            ("secrets/a/", "/registry/secrets/a/", true),
            ("secrets", "/registry/secrets/", true),
            ("nodes/n1", "/registry/minions/n1", false),
            ("deployments/a/b", "/registry/deployments/a/b", false),
            ("compact_rev_key", "compact_rev_key", false),
        ] {
            assert_eq!(keys(text, &scope, &[]), (vec![key.to_owned()], is_prefix), "{text}");
        }
        for text in ["", "*.*/a/b", "*.apps"] {
            assert!(NamedKey::parse(text, &scope, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn namespaces_complete_what_has_none() {
        let scope = Scope::new("/registry/");
        for (text, namespaces, expected) in [
            ("secrets/b", &["a"][..], &["/registry/secrets/a/b"][..]),
            ("secrets/b", &["a", "c"], &["/registry/secrets/a/b", "/registry/secrets/c/b"]),
            ("secrets/c/b", &["a"], &["/registry/secrets/c/b"]),
            ("secrets", &["a"], &["/registry/secrets/a/"]),
            // Objects of a cluster have no namespace, whatever is asked for.
            ("namespaces/default", &["default"], &["/registry/namespaces/default"]),
            ("clusterroles/x", &["a"], &["/registry/clusterroles/x"]),
            // What a custom resource has, its key does not tell.
            (
                "widgets.example.com/w",
                &["a"],
                &[
                    "/registry/example.com/widgets/a/w",
                    "/registry/example.com/widgets/w",
                    "/registry/example.com/example.com/widgets/a/w",
                    "/registry/example.com/example.com/widgets/w",
                ],
            ),
        ] {
            assert_eq!(keys(text, &scope, namespaces).0, expected, "{text} -n {namespaces:?}");
        }
    }

    #[test]
    fn the_second_place_of_openshift_and_a_proxy() {
        let routes = keys("routes.route.openshift.io/a/b", &Scope::new("kubernetes.io"), &[]).0;
        assert!(routes.contains(&"/openshift.io/routes/a/b".to_owned()), "{routes:?}");
        let proxy = Scope::behind("/tenant", "/registry");
        assert_eq!(keys("secrets/a/b", &proxy, &[]).0, ["/tenant/registry/secrets/a/b"]);
        let full = ["/tenant/registry/secrets/a/b", "/registry/secrets/a/b"];
        assert_eq!(keys("/registry/secrets/a/b", &proxy, &[]).0, full);
        assert_eq!(keys(full[0], &proxy, &[]).0, [full[0]]);
    }
}
