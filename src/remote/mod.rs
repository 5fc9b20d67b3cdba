//! Backups in object stores and behind HTTPS: an address → a nameless local file, and what lies
//! below an address.
//!
//! `address` takes addresses apart and hides what is secret in them; `stores` asks S3, Google
//! Cloud Storage and Azure (crate `object_store`); `http` is the one HTTP client beneath; `error`
//! says what went wrong, without credentials. Nothing is kept whole in memory: the pages of a
//! database are not read in order, so an object is put into a temporary file (mode 0600) that has
//! no name, and is gone when the program ends, however it does.

mod address;
mod error;
mod http;
mod stores;

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tokio::runtime::Runtime;
use tokio_stream::{Stream, StreamExt as _};

pub use self::address::Address;
pub use self::error::RemoteError;

use self::address::Scheme;
use self::error::Scrubber;
use self::http::Client;

/// Nobody has a database this large: etcd's own limit is 8 GiB. Bytes.
pub const LARGEST: u64 = 32 << 30;
/// Most objects of one listing.
pub const MOST: usize = 100_000;
/// How much of an object is looked at before the rest of it is asked for, bytes.
const HEAD: usize = (64 << 10) + 64;

/// How to reach the stores.
#[derive(Clone, Default)]
pub struct Options {
    /// Variables by the names that the stores' own tools know: `AWS_*`, `GOOGLE_*`, `AZURE_*`.
    pub environment: Vec<(String, String)>,
    /// Certificate authorities instead of the system's, PEM.
    pub roots: Option<Vec<u8>>,
    /// Largest object that is fetched, bytes; 0 is [`LARGEST`].
    pub largest: u64,
}

/// One object of a listing.
#[derive(Clone, Debug)]
pub struct Object {
    /// Where it is.
    pub address: Address,
    /// Bytes.
    pub size: u64,
    /// When it was last written, seconds since 1970.
    pub modified: i64,
    /// What the store calls this version of its content, if it does.
    pub tag: Option<String>,
}

/// What came of an address.
#[derive(Debug)]
pub enum Fetched {
    /// All of it, from its first byte on.
    Whole(File),
    /// Its first bytes are not of what is wanted; the rest was not asked for.
    Unwanted,
}

/// Fetches and lists.
pub struct Remote {
    runtime: Runtime,
    client: Client,
    options: Options,
    scrubber: Scrubber,
}

impl Remote {
    /// Prepares; connects to nothing.
    ///
    /// # Errors
    /// When the certificate authorities cannot be used.
    pub fn new(options: Options) -> Result<Self, RemoteError> {
        let setup = |what: String| RemoteError::Setup { what };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| setup(e.to_string()))?;
        let client = Client::new(options.roots.as_deref()).map_err(setup)?;
        let scrubber = Scrubber::new(&options.environment);
        Ok(Self { runtime, client, options, scrubber })
    }

    fn largest(&self) -> u64 {
        if self.options.largest == 0 { LARGEST } else { self.options.largest }
    }

    /// Brings an object here. `wanted` sees its first 64 KiB, or all of a smaller one; `advance`
    /// is told how many bytes came.
    ///
    /// # Errors
    /// When it cannot be read, is larger than what is fetched, or there is no room for it.
    pub fn fetch(
        &self,
        address: &Address,
        wanted: &dyn Fn(&[u8]) -> bool,
        advance: &mut dyn FnMut(u64),
    ) -> Result<Fetched, RemoteError> {
        self.runtime.block_on(async {
            if address.scheme == Scheme::Https {
                let (size, body) = self
                    .client
                    .get(&address.target)
                    .await
                    .map_err(|e| self.scrubber.http(address.place(), &e))?;
                return self.spool(address, size, body, wanted, advance).await;
            }
            let (store, key) = self.store(address)?;
            let got =
                store.get(&key).await.map_err(|e| self.scrubber.store(address.place(), &e))?;
            let size = got.meta.size;
            self.spool(address, Some(size), got.into_stream(), wanted, advance).await
        })
    }

    /// What lies at or below an address, in the order of the names.
    ///
    /// # Errors
    /// When nothing does, when there is too much, or when it cannot be listed.
    pub fn list(&self, address: &Address) -> Result<Vec<Object>, RemoteError> {
        if address.scheme == Scheme::Https {
            if address.is_directory() {
                return Err(RemoteError::NoListing { at: address.shown().to_owned() });
            }
            return Ok(vec![Object { address: address.clone(), size: 0, modified: 0, tag: None }]);
        }
        self.runtime.block_on(async {
            let (store, key) = self.store(address)?;
            let mut found = Vec::new();
            let mut all = store.list((!key.as_ref().is_empty()).then_some(&key));
            while let Some(meta) = all.next().await {
                let meta = meta.map_err(|e| self.scrubber.store(address.place(), &e))?;
                if found.len() == MOST {
                    let at = address.shown().to_owned();
                    return Err(RemoteError::TooMany { at, most: MOST });
                }
                found.push(Object {
                    address: address.with_key(meta.location.as_ref()),
                    size: meta.size,
                    modified: meta.last_modified.timestamp(),
                    tag: meta.e_tag,
                });
            }
            if found.is_empty() && !key.as_ref().is_empty() {
                // The address of a single object is no prefix of others.
                let meta =
                    store.head(&key).await.map_err(|e| self.scrubber.store(address.place(), &e))?;
                found.push(Object {
                    address: address.clone(),
                    size: meta.size,
                    modified: meta.last_modified.timestamp(),
                    tag: meta.e_tag,
                });
            }
            found.sort_by(|a, b| a.address.key.cmp(&b.address.key));
            Ok(found)
        })
    }

    /// Writes an object, whole or not at all, in place of one that is there.
    ///
    /// # Errors
    /// When the address is a single file's, or it cannot be written.
    pub fn put(&self, address: &Address, bytes: Vec<u8>) -> Result<(), RemoteError> {
        address.writable()?;
        let (store, key) = self.store(address)?;
        let put = self.runtime.block_on(store.put(&key, bytes.into()));
        put.map(|_| ()).map_err(|e| self.scrubber.put(address.place(), &e))
    }

    fn store(&self, address: &Address) -> Result<(Arc<dyn ObjectStore>, Key), RemoteError> {
        let store = stores::open(address, &self.options, &self.client)
            .map_err(|e| self.scrubber.store(address.place(), &e))?;
        let key = Key::parse(&address.key).map_err(|_| RemoteError::Address {
            shown: address.shown().to_owned(),
            why: "it has an empty part, or one of dots alone",
        })?;
        Ok((store, key))
    }

    async fn spool<E: std::error::Error + 'static>(
        &self,
        address: &Address,
        size: Option<u64>,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
        wanted: &dyn Fn(&[u8]) -> bool,
        advance: &mut dyn FnMut(u64),
    ) -> Result<Fetched, RemoteError> {
        let most = self.largest();
        let at = || address.shown().to_owned();
        if let Some(bytes) = size.filter(|size| *size > most) {
            return Err(RemoteError::TooLarge { at: at(), bytes: Some(bytes), most });
        }
        let room = |cause| RemoteError::NoRoom { at: at(), cause };
        let mut file = tempfile::tempfile().map_err(room)?;
        let mut head = zeroize::Zeroizing::new(Vec::with_capacity(HEAD));
        let (mut len, mut looked) = (0u64, false);
        while let Some(part) = body.next().await {
            let part = part.map_err(|e| self.scrubber.broken(address.place(), &e))?;
            len += part.len() as u64;
            if len > most {
                return Err(RemoteError::TooLarge { at: at(), bytes: None, most });
            }
            if !looked {
                let missing = HEAD - head.len();
                head.extend_from_slice(&part[..part.len().min(missing)]);
                looked = head.len() == HEAD;
                if looked && !wanted(&head) {
                    return Ok(Fetched::Unwanted);
                }
            }
            file.write_all(&part).map_err(room)?;
            advance(part.len() as u64);
        }
        if size.is_some_and(|size| size != len) {
            return Err(RemoteError::CutShort { at: at(), needs: size.unwrap_or(len), has: len });
        }
        if !looked && !wanted(&head) {
            return Ok(Fetched::Unwanted);
        }
        file.seek(SeekFrom::Start(0)).map_err(room)?;
        Ok(Fetched::Whole(file))
    }
}

#[cfg(test)]
mod tests;
