//! One stored entry: exact bytes and the revisions etcd keeps beside them.

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
}

impl<'a> EntryRef<'a> {
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
