//! One stored entry: exact bytes and the revisions etcd keeps beside them.

use std::borrow::Cow;

/// A live key-value pair, borrowed from its source (mapped file, response buffer).
///
/// Mirrors `mvccpb.KeyValue` (etcd `api/mvccpb/kv.proto`). Bytes are exact: nothing is trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// The full etcd key, e.g. `/registry/secrets/ns/name`.
    pub key: &'a [u8],
    /// The stored value, still wrapped in whatever envelope it has.
    pub value: Value<'a>,
    /// Revision of the put that created the key.
    pub create_revision: i64,
    /// Revision of the last put.
    pub mod_revision: i64,
    /// Number of puts since creation, starting at 1; 0 if unknown (kine after a compaction).
    pub version: i64,
    /// Lease id (kine: TTL in seconds), 0 for none.
    pub lease: i64,
    /// What the value is bound to, where it is encrypted.
    pub bound_to: BoundTo,
}

/// What encryption binds a value to: the data that AES-GCM and KMS authenticate with it, so that
/// a value that was moved elsewhere cannot be read there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BoundTo {
    /// The etcd key, as the API server does (kubernetes/apiserver `pkg/storage/etcd3/store.go`:
    /// `authenticatedDataString`).
    #[default]
    Key,
    /// Namespace and name as `namespace#name`, or the name where there is no namespace, as
    /// rancher-backup does (rancher/backup-restore-operator `pkg/resourcesets/collector.go`:
    /// `additionalAuthenticatedData`).
    Name {
        /// Where namespace and name begin in the key, bytes.
        at: u32,
    },
}

/// The place of a value, and what of it is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    key: &'a [u8],
    bound_to: BoundTo,
}

impl<'a> Place<'a> {
    /// The full etcd key.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// The data that were authenticated. `proxy_namespace` stands before the keys in etcd, and the
    /// API server never saw it.
    #[must_use]
    pub fn authenticated(&self, proxy_namespace: &[u8]) -> Cow<'a, [u8]> {
        match self.bound_to {
            BoundTo::Key => {
                Cow::Borrowed(self.key.strip_prefix(proxy_namespace).unwrap_or(self.key))
            }
            BoundTo::Name { at } => {
                let object = self.key.get(at as usize..).unwrap_or_default();
                match object.iter().position(|b| *b == b'/') {
                    Some(slash) => {
                        let mut data = object.to_vec();
                        data[slash] = b'#';
                        Cow::Owned(data)
                    }
                    None => Cow::Borrowed(object),
                }
            }
        }
    }
}

impl<'a> From<&'a [u8]> for Place<'a> {
    /// An etcd key, which is authenticated.
    fn from(key: &'a [u8]) -> Self {
        Self { key, bound_to: BoundTo::Key }
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Place<'a> {
    fn from(key: &'a [u8; N]) -> Self {
        key.as_slice().into()
    }
}

impl<'a> From<&'a Vec<u8>> for Place<'a> {
    fn from(key: &'a Vec<u8>) -> Self {
        key.as_slice().into()
    }
}

impl<'a> From<EntryRef<'a>> for Place<'a> {
    fn from(entry: EntryRef<'a>) -> Self {
        Self { key: entry.key, bound_to: entry.bound_to }
    }
}

impl<'a> From<&'a Entry> for Place<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self { key: &entry.key, bound_to: entry.bound_to }
    }
}

impl<'a> EntryRef<'a> {
    /// An entry of which nothing but its key and its value is known.
    #[must_use]
    pub fn new(key: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            key,
            value: Value(value),
            create_revision: 0,
            mod_revision: 0,
            version: 0,
            lease: 0,
            bound_to: BoundTo::Key,
        }
    }

    /// The stored bytes.
    #[must_use]
    pub fn stored(&self) -> &'a [u8] {
        self.value.0
    }

    /// Copies the entry out of its source.
    #[must_use]
    pub fn to_entry(&self) -> Entry {
        Entry {
            key: self.key.to_vec(),
            value: self.value.0.to_vec(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
            bound_to: self.bound_to,
        }
    }
}

/// Stored bytes, which may be plaintext secrets: `Debug` prints the length only.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value<'a>(pub &'a [u8]);

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

/// An owned [`EntryRef`]. The value is wiped from memory when dropped, because an entry stored
/// under `identity` is a plaintext secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// See [`EntryRef::key`].
    pub key: Vec<u8>,
    /// See [`EntryRef::value`].
    pub value: Vec<u8>,
    /// See [`EntryRef::create_revision`].
    pub create_revision: i64,
    /// See [`EntryRef::mod_revision`].
    pub mod_revision: i64,
    /// See [`EntryRef::version`].
    pub version: i64,
    /// See [`EntryRef::lease`].
    pub lease: i64,
    /// See [`EntryRef::bound_to`].
    pub bound_to: BoundTo,
}

impl Entry {
    /// Borrows the entry.
    #[must_use]
    pub fn as_ref(&self) -> EntryRef<'_> {
        EntryRef {
            key: &self.key,
            value: Value(&self.value),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
            bound_to: self.bound_to,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.value);
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_ref().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_authenticated_is_the_key_or_the_name() {
        let key = b"px/registry/secrets/ns/a";
        let mut entry = EntryRef::new(key, b"");
        assert_eq!(*Place::from(entry).authenticated(b"px"), b"/registry/secrets/ns/a"[..]);
        assert_eq!(*Place::from(entry).authenticated(b"other"), key[..]);
        entry.bound_to = BoundTo::Name { at: 20 };
        assert_eq!(*Place::from(entry).authenticated(b"px"), b"ns#a"[..]);
        entry.bound_to = BoundTo::Name { at: 23 };
        assert_eq!(*Place::from(entry).authenticated(b""), b"a"[..]);
        entry.bound_to = BoundTo::Name { at: 99 };
        assert!(Place::from(entry).authenticated(b"").is_empty(), "no key is that short");
    }
}
