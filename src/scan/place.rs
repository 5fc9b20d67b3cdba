//! Whether an entry holds the object that its key names.
//!
//! Encryption does not tell: secretbox and AES-CBC do not authenticate the etcd key, and what is
//! stored unencrypted authenticates nothing. The object itself says which one it is.

use std::collections::HashMap;
use std::ops::ControlFlow;

use crate::entry::EntryRef;
use crate::resource::kind::{Fit, fits, plural};
use crate::resource::{Location, Scope, Selector, merge_ranges};
use crate::source::{KeyRange, Query, Source, SourceError};
use crate::storage::TypeMeta;
use crate::visible::visible;

/// An object at another object's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// Which object it is.
    pub object: TypeMeta<'static>,
    /// Where it belongs.
    pub home: Vec<u8>,
    /// What is stored there now; none as long as nobody has looked.
    pub at_home: Option<AtHome>,
}

/// What is stored where a misplaced object belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtHome {
    /// The same object, by its UID: what is misplaced is a copy.
    Same,
    /// Another object, or a later one of the same name.
    Another,
    /// Something that could not be read.
    Unread,
    /// No entry.
    Nothing,
}

impl std::fmt::Display for Misplaced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TypeMeta { api_version, kind, namespace, name, uid } = &self.object;
        write!(f, "the object inside is {} ", visible(kind))?;
        if api_version != "v1" {
            write!(f, "({}) ", visible(api_version))?;
        }
        match (&**namespace, &**name) {
            (_, "") => f.write_str("without a name")?,
            ("", name) => f.write_str(&visible(name))?,
            (namespace, name) => write!(f, "{}/{}", visible(namespace), visible(name))?,
        }
        if !uid.is_empty() {
            write!(f, ", UID {}", visible(uid))?;
        }
        let home = visible(&String::from_utf8_lossy(&self.home));
        match self.at_home {
            None => Ok(()),
            Some(AtHome::Same) if uid.is_empty() => {
                write!(f, "; that object is at {home}, where it belongs")
            }
            Some(AtHome::Same) => write!(f, "; the same UID is at {home}, where it belongs"),
            Some(AtHome::Another) if uid.is_empty() => {
                write!(f, "; another object is at {home}, where it belongs")
            }
            Some(AtHome::Another) => {
                write!(f, "; at {home}, where it belongs, is an object with another UID")
            }
            Some(AtHome::Unread) => {
                write!(f, "; it belongs at {home}, whose entry cannot be read")
            }
            Some(AtHome::Nothing) => write!(f, "; nothing is at {home}, where it belongs"),
        }
    }
}

/// Whether `object`, which is stored at `key`, is another one than the key says. What is no object
/// of the API, such as the lease of an API server, has no name to tell by.
#[must_use]
pub fn misplaced(location: &Location<'_>, key: &[u8], object: &TypeMeta<'_>) -> Option<Misplaced> {
    if location.internal {
        return None;
    }
    let kind = fits(&location.resource, &object.api_version, &object.kind);
    let below = key.get(location.object_at..).unwrap_or_default();
    if kind != Fit::No && is_at(below, object, kind == Fit::Unknown) {
        return None;
    }
    let mut home = match kind {
        Fit::No => beginning(key, location, object),
        Fit::Yes | Fit::Unknown => key[..key.len() - below.len()].to_vec(),
    };
    if !object.namespace.is_empty() {
        home.extend_from_slice(object.namespace.as_bytes());
        home.push(b'/');
    }
    home.extend_from_slice(object.name.as_bytes());
    Some(Misplaced { object: object.clone().into_owned(), home, at_home: None })
}

/// Misplaced objects whose homes are looked at: more say no more.
const LOOKED_AT: usize = 1000;

/// Looks at what is stored at `revision` where misplaced objects belong; `read` reads the value at
/// a key.
///
/// # Errors
/// When the source cannot be read again.
pub fn look(
    source: &mut dyn Source,
    revision: i64,
    found: &mut [&mut Misplaced],
    read: &dyn Fn(EntryRef<'_>) -> Option<TypeMeta<'static>>,
) -> Result<(), SourceError> {
    let few = LOOKED_AT.min(found.len());
    let found = &mut found[..few];
    if found.is_empty() {
        return Ok(());
    }
    let homes = found.iter().map(|m| KeyRange::single(&m.home)).collect();
    let query = Query { ranges: merge_ranges(homes), revision: Some(revision), ordered: false };
    let mut there: HashMap<Vec<u8>, Option<TypeMeta<'static>>> = HashMap::new();
    source.visit(&query, &mut |entry| {
        there.insert(entry.key.to_vec(), read(entry));
        ControlFlow::Continue(())
    })?;
    for misplaced in found {
        let TypeMeta { kind, namespace, name, uid, .. } = &misplaced.object;
        misplaced.at_home = Some(match there.get(&misplaced.home) {
            None => AtHome::Nothing,
            Some(None) => AtHome::Unread,
            Some(Some(object)) => {
                let same = object.uid == *uid
                    && object.kind == *kind
                    && object.namespace == *namespace
                    && object.name == *name;
                if same { AtHome::Same } else { AtHome::Another }
            }
        });
    }
    Ok(())
}

/// Whether the end of a key is the object's namespace and name. `more` may stand before them
/// where a layout is not known, as in a control plane of several clusters.
fn is_at(below: &[u8], object: &TypeMeta<'_>, more: bool) -> bool {
    let Some(rest) = below.strip_suffix(object.name.as_bytes()) else { return false };
    let rest = if object.namespace.is_empty() {
        rest
    } else {
        let rest = rest.strip_suffix(b"/");
        let Some(rest) = rest.and_then(|r| r.strip_suffix(object.namespace.as_bytes())) else {
            return false;
        };
        rest
    };
    rest.is_empty() || (more && rest.ends_with(b"/"))
}

/// How the keys of the object's resource begin, in the key space that `key` is of.
fn beginning(key: &[u8], location: &Location<'_>, object: &TypeMeta<'_>) -> Vec<u8> {
    let name = match object.api_version.split_once('/') {
        Some((group, _)) => format!("{}.{group}", plural(&object.kind)),
        None => plural(&object.kind),
    };
    // The prefix is what stands before the place that this resource's keys have below it.
    let base = Selector::Exact(location.resource.clone().into_owned())
        .ranges("/")
        .into_iter()
        .find_map(|range| {
            let below = &range.start[1..];
            key[..location.object_at].strip_suffix(below).map(<[u8]>::to_vec)
        })
        .and_then(|base| String::from_utf8(base).ok());
    let base = base.unwrap_or_else(|| Scope::new("/registry/").base().to_owned());
    let ranges = Selector::parse(&name).map(|s| s.ranges(&base)).unwrap_or_default();
    ranges.into_iter().next().map(|r| r.start).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::locate;

    fn object(api_version: &str, kind: &str, namespace: &str, name: &str) -> TypeMeta<'static> {
        let own = |text: &str| std::borrow::Cow::Owned(text.to_owned());
        TypeMeta {
            api_version: own(api_version),
            kind: own(kind),
            namespace: own(namespace),
            name: own(name),
            uid: own("u"),
        }
    }

    fn home(key: &str, object: &TypeMeta<'_>) -> Option<String> {
        let location = locate(key.as_bytes(), b"/registry/");
        let found = misplaced(&location, key.as_bytes(), object)?;
        Some(String::from_utf8(found.home).unwrap())
    }

    #[test]
    fn an_object_at_its_own_key_is_where_it_belongs() {
        for (key, api_version, kind, namespace, name) in [
            ("/registry/secrets/a/b", "v1", "Secret", "a", "b"),
            ("/registry/minions/n", "v1", "Node", "", "n"),
            ("/registry/services/endpoints/a/b", "v1", "Endpoints", "a", "b"),
            ("/registry/services/specs/a/b", "v1", "Service", "a", "b"),
            ("/registry/events/a/b.17f", "v1", "Event", "a", "b.17f"),
            ("/registry/ingress/a/b", "extensions/v1beta1", "Ingress", "a", "b"),
            (
                "/registry/clusterroles/system:node",
                "rbac.authorization.k8s.io/v1",
                "ClusterRole",
                "",
                "system:node",
            ),
            ("/registry/example.com/widgets/a/b", "example.com/v1", "Widget", "a", "b"),
            ("/registry/example.com/widgets/root/a/b", "example.com/v1", "Index", "a", "b"),
            (
                "/registry/wardle.example.com/wardle.example.com/flunders/a/b",
                "wardle.example.com/v1",
                "Flunder",
                "a",
                "b",
            ),
        ] {
            assert_eq!(home(key, &object(api_version, kind, namespace, name)), None, "{key}");
        }
    }

    #[test]
    fn kind_namespace_and_name_each_tell() {
        let secret = object("v1", "Secret", "a", "b");
        for (key, at) in [
            ("/registry/secrets/a/c", "/registry/secrets/a/b"),
            ("/registry/secrets/x/b", "/registry/secrets/a/b"),
            ("/registry/secrets/xa/b", "/registry/secrets/a/b"),
            ("/registry/secrets/b", "/registry/secrets/a/b"),
            ("/registry/configmaps/a/b", "/registry/secrets/a/b"),
            ("/registry/services/specs/a/b", "/registry/secrets/a/b"),
            ("/registry/example.com/widgets/a/b", "/registry/secrets/a/b"),
        ] {
            assert_eq!(home(key, &secret).as_deref(), Some(at), "{key}");
        }
        for (key, api_version, kind, at) in [
            ("/registry/secrets/a/b", "apps/v1", "Deployment", "/registry/deployments/a/b"),
            (
                "/registry/secrets/a/b",
                "example.com/v1",
                "Widget",
                "/registry/example.com/widgets/a/b",
            ),
            ("/registry/secrets/a/b", "v1", "Endpoints", "/registry/services/endpoints/a/b"),
        ] {
            assert_eq!(home(key, &object(api_version, kind, "a", "b")).as_deref(), Some(at));
        }
        assert!(home("/registry/secrets/a/b", &object("v1", "Secret", "", "b")).is_some());
        assert!(home("/registry/secrets/a/b", &object("v1", "Secret", "a", "")).is_some());
    }

    #[test]
    fn the_home_is_under_the_same_prefix() {
        let key = b"/registry/cluster1/secrets/a/c";
        let location = locate(key, b"/registry/cluster1/");
        let map = object("v1", "ConfigMap", "a", "b");
        let found = misplaced(&location, key, &map).unwrap();
        assert_eq!(found.home, b"/registry/cluster1/configmaps/a/b");
        assert_eq!(
            Misplaced { at_home: Some(AtHome::Same), ..found }.to_string(),
            "the object inside is ConfigMap a/b, UID u; the same UID is at \
             /registry/cluster1/configmaps/a/b, where it belongs"
        );
    }
}
