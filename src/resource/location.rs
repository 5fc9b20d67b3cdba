//! etcd key → resource, namespace and name.

use std::borrow::Cow;

use super::catalogue::{
    INTERNAL, OPENSHIFT, OPENSHIFT_PREFIX, RENAMED, builtin_group, is_builtin_segment, lookup,
};

/// Where a key belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location<'a> {
    /// Group-qualified resource: `secrets`, `deployments.apps`, `widgets.example.com`.
    pub resource: Cow<'a, str>,
    /// Namespace, or `None` for cluster-scoped objects.
    pub namespace: Option<Cow<'a, str>>,
    /// Object name; may itself contain `:` and dots.
    pub name: Cow<'a, str>,
    /// Written by the API server without a transformer, so never encrypted even under `*.*`
    /// (kubernetes/kubernetes `pkg/registry/core/rest/storage_core.go`, `pkg/controlplane`), or
    /// not an API object at all.
    pub internal: bool,
    /// Where namespace and name begin in the key, bytes: all keys with the same beginning belong
    /// to the same resource.
    pub object_at: usize,
}

impl Location<'_> {
    /// Copies borrowed parts.
    #[must_use]
    pub fn into_owned(self) -> Location<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Location {
            resource: own(self.resource),
            namespace: self.namespace.map(own),
            name: own(self.name),
            internal: self.internal,
            object_at: self.object_at,
        }
    }

    /// Namespace and name with the bytes that `key` has, which need not be text; `key` is the one
    /// that was located.
    #[must_use]
    pub fn exactly<'k>(&self, key: &'k [u8]) -> (Option<&'k [u8]>, &'k [u8]) {
        let object = key.get(self.object_at..).unwrap_or_default();
        match object.iter().position(|b| *b == b'/').filter(|_| self.namespace.is_some()) {
            Some(slash) => (Some(&object[..slash]), &object[slash + 1..]),
            None => (None, object),
        }
    }
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Splits off the first path segment and the slash after it.
fn segment(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'/', path) {
        Some(i) => (&path[..i], Some(&path[i + 1..])),
        None => (path, None),
    }
}

fn internal<'a>(resource: impl Into<Cow<'a, str>>, name: &'a [u8]) -> Location<'a> {
    let object_at = name.len();
    Location {
        resource: resource.into(),
        namespace: None,
        name: text(name),
        internal: true,
        object_at,
    }
}

fn object<'a>(resource: Cow<'a, str>, rest: &'a [u8]) -> Location<'a> {
    let object_at = rest.len();
    let (first, second) = segment(rest);
    match second {
        Some(name) => Location {
            resource,
            namespace: Some(text(first)),
            name: text(name),
            internal: false,
            object_at,
        },
        None => {
            Location { resource, namespace: None, name: text(first), internal: false, object_at }
        }
    }
}

/// Finds out which resource an etcd key belongs to; `base` is what stands before all keys of the
/// API server, its last slash included. A key outside belongs to none.
#[must_use]
pub fn locate<'a>(key: &'a [u8], base: &[u8]) -> Location<'a> {
    let mut location = match key.strip_prefix(base) {
        Some(rest) if base.ends_with(OPENSHIFT_PREFIX.as_bytes()) => openshift(rest),
        Some(rest) => below(rest, base == b"/"),
        None => internal("", key),
    };
    // The helpers count from the key's end, which they share with it.
    location.object_at = key.len() - location.object_at;
    location
}

/// Where the keys of the API server that wrote this one begin, as far as the key itself tells:
/// bytes before the first segment that belongs to a resource.
#[must_use]
pub fn base_of(key: &[u8]) -> Option<usize> {
    if key.starts_with(OPENSHIFT_PREFIX.as_bytes()) {
        return Some(OPENSHIFT_PREFIX.len());
    }
    let mut at = 1;
    let mut path = key.strip_prefix(b"/")?;
    while let (first, Some(after)) = segment(path) {
        let group = at > 1 && first.contains(&b'.') && after.contains(&b'/');
        let builtin = match first {
            b"services" => after.starts_with(b"specs/") || after.starts_with(b"endpoints/"),
            first => is_builtin_segment(first),
        };
        if group || builtin {
            return Some(at);
        }
        at += first.len() + 1;
        path = after;
    }
    None
}

fn openshift(rest: &[u8]) -> Location<'_> {
    let (first, after) = segment(rest);
    let Some(after) = after else { return internal(text(first), rest) };
    let first = text(first);
    let (second, third) = segment(after);
    if let Some(third) = third
        && let Some(q) = lookup(OPENSHIFT, &format!("{first}/{}", text(second)))
    {
        return object(Cow::Borrowed(q), third);
    }
    match lookup(OPENSHIFT, &first) {
        Some(q) => object(Cow::Borrowed(q), after),
        None => below(rest, false),
    }
}

/// `at_root`: everything in the etcd is below, also what other prefixes hold.
fn below(rest: &[u8], at_root: bool) -> Location<'_> {
    let (first, rest_after) = segment(rest);
    let Some(after) = rest_after else {
        return internal(text(first), rest);
    };
    let first_text = text(first);
    if INTERNAL.contains(&first_text.as_ref()) {
        return internal(first_text, after);
    }
    if first == b"services" {
        // `services/specs/…` and `services/endpoints/…` share the first segment.
        let (second, third) = segment(after);
        if let Some(third) = third {
            match second {
                b"specs" => return object(Cow::Borrowed("services"), third),
                b"endpoints" => return object(Cow::Borrowed("endpoints"), third),
                _ => {}
            }
        }
    }
    if first.contains(&b'.')
        && !(at_root && [b"kubernetes.io", b"openshift.io".as_slice()].contains(&first))
    {
        return custom(first, after);
    }
    let resource = lookup(RENAMED, &first_text);
    match (resource, builtin_group(&first_text)) {
        (renamed, Some(group)) => {
            let name = renamed.unwrap_or(&first_text);
            object(Cow::Owned(format!("{name}.{group}")), after)
        }
        (Some(renamed), None) => object(Cow::Borrowed(renamed), after),
        (None, None) if is_builtin_segment(first) => object(first_text, after),
        // No object's name has a slash: what is deeper lies below a prefix of its own.
        (None, None) if at_root || memchr::memchr_iter(b'/', after).count() > 1 => {
            internal("", rest)
        }
        (None, None) => object(first_text, after),
    }
}

/// A resource below its group. An aggregated API server whose own prefix is below this one puts
/// a segment before the group, most often the group once more (kubernetes/sample-apiserver
/// `pkg/cmd/server/start.go`: `defaultEtcdPathPrefix`). Resources have no dots in their names.
fn custom<'a>(group: &'a [u8], after: &'a [u8]) -> Location<'a> {
    let (second, third) = segment(after);
    match third {
        None => internal(text(group), after),
        Some(third) if second.contains(&b'.') && third.contains(&b'/') => custom(second, third),
        Some(third) => object(Cow::Owned(format!("{}.{}", text(second), text(group))), third),
    }
}
