//! Writes a new bbolt file front to back: buckets are filled with ascending keys, and nothing is
//! ever changed in place. For rewritten snapshots and crafted test files.
//!
//! Source: etcd-io/bbolt `node.go`, `tx.go`, `db.go` (the layout it reads; not its algorithm).

use std::io::{self, Seek, SeekFrom, Write};

use super::meta::{NO_FREELIST, fnv1a};
use super::page::{BRANCH, ELEMENT, HEADER, LEAF, META};

/// bbolt's limit on elements of one page.
const MOST_ELEMENTS: usize = 0xFFFE;

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// What the system said.
    #[error("cannot write the database")]
    Io(#[from] io::Error),
    /// Keys must ascend; a reader could not find them otherwise.
    #[error("keys are not ascending")]
    Order,
    /// An empty key, or one or a value longer than bbolt allows.
    #[error("a key or value has a length that bbolt does not allow")]
    Length,
}

/// Writes one file.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    page_size: usize,
    next: u64,
    buckets: Vec<(Vec<u8>, u64)>,
}

impl<W: Write + Seek> Writer<W> {
    /// Starts a file with pages of `page_size` bytes, a power of two.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn new(mut out: W, page_size: usize) -> Result<Self, WriteError> {
        // The meta pages are filled in last, so that a file cut short is no database.
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&vec![0; 2 * page_size])?;
        Ok(Self { out, page_size, next: 2, buckets: Vec::new() })
    }

    /// Starts a top-level bucket, to be filled with ascending keys.
    pub fn bucket<'w>(&'w mut self, name: &[u8]) -> BucketWriter<'w, W> {
        BucketWriter { name: name.to_vec(), tree: Tree::default(), writer: self }
    }

    /// Writes the list of buckets and the meta pages, both with `txid` as a copy has them, and
    /// gives the file back.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn finish(mut self, txid: u64) -> Result<W, WriteError> {
        let mut buckets = std::mem::take(&mut self.buckets);
        buckets.sort();
        let mut tree = Tree::default();
        for (name, root) in &buckets {
            let mut header = [0; 16];
            header[..8].copy_from_slice(&root.to_le_bytes());
            tree.put(&mut self, name, &header, true)?;
        }
        let root = tree.finish(&mut self)?;
        for page in 0..2u64 {
            let mut bytes = vec![0; self.page_size];
            bytes[..8].copy_from_slice(&page.to_le_bytes());
            bytes[8..10].copy_from_slice(&META.to_le_bytes());
            let body = &mut bytes[HEADER..];
            body[..4].copy_from_slice(&0xED0C_DAEDu32.to_le_bytes());
            body[4..8].copy_from_slice(&2u32.to_le_bytes());
            let size = u32::try_from(self.page_size).map_err(|_| WriteError::Length)?;
            body[8..12].copy_from_slice(&size.to_le_bytes());
            body[16..24].copy_from_slice(&root.to_le_bytes());
            body[32..40].copy_from_slice(&NO_FREELIST.to_le_bytes());
            body[40..48].copy_from_slice(&self.next.to_le_bytes());
            body[48..56].copy_from_slice(&txid.saturating_sub(page).to_le_bytes());
            let sum = fnv1a(&body[..56]);
            body[56..64].copy_from_slice(&sum.to_le_bytes());
            self.out.seek(SeekFrom::Start(page * self.page_size as u64))?;
            self.out.write_all(&bytes)?;
        }
        self.out.flush()?;
        Ok(self.out)
    }

    /// Writes a page and returns its number.
    fn page(&mut self, kind: u16, elements: &Elements) -> Result<u64, WriteError> {
        let id = self.next;
        let used = elements.size();
        let pages = used.div_ceil(self.page_size).max(1);
        let overflow = u32::try_from(pages - 1).map_err(|_| WriteError::Length)?;
        let count = u16::try_from(elements.table.len()).map_err(|_| WriteError::Length)?;
        let mut bytes = Vec::with_capacity(pages * self.page_size);
        bytes.extend(id.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(overflow.to_le_bytes());
        let table = elements.table.len() * ELEMENT;
        for (i, e) in elements.table.iter().enumerate() {
            let pos = table - i * ELEMENT + e.start;
            let pos = u32::try_from(pos).map_err(|_| WriteError::Length)?;
            if kind == LEAF {
                bytes.extend(u32::from(e.is_bucket).to_le_bytes());
                bytes.extend(pos.to_le_bytes());
                bytes.extend(e.ksize.to_le_bytes());
                bytes.extend(e.vsize.to_le_bytes());
            } else {
                bytes.extend(pos.to_le_bytes());
                bytes.extend(e.ksize.to_le_bytes());
                bytes.extend(e.child.to_le_bytes());
            }
        }
        bytes.extend(&elements.data);
        bytes.resize(pages * self.page_size, 0);
        self.out.write_all(&bytes)?;
        zeroize::Zeroize::zeroize(&mut bytes);
        self.next += pages as u64;
        Ok(id)
    }
}

/// Fills one bucket.
#[derive(Debug)]
pub struct BucketWriter<'w, W> {
    name: Vec<u8>,
    tree: Tree,
    writer: &'w mut Writer<W>,
}

impl<W: Write + Seek> BucketWriter<'_, W> {
    /// Adds a key that is greater than all before.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        self.tree.put(self.writer, key, value, false)
    }

    /// Ends the bucket.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(self) -> Result<(), WriteError> {
        let root = self.tree.finish(self.writer)?;
        self.writer.buckets.push((self.name, root));
        Ok(())
    }
}

#[derive(Default)]
struct Elements {
    table: Vec<Slot>,
    data: Vec<u8>,
}

impl std::fmt::Debug for Elements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // They may hold plaintext.
        write!(f, "<{} elements, {} bytes>", self.table.len(), self.data.len())
    }
}

#[derive(Debug)]
struct Slot {
    start: usize,
    ksize: u32,
    vsize: u32,
    child: u64,
    is_bucket: bool,
}

impl Elements {
    fn size(&self) -> usize {
        HEADER + self.table.len() * ELEMENT + self.data.len()
    }

    fn is_full(&self, more: usize, page_size: usize) -> bool {
        !self.table.is_empty()
            && (self.size() + ELEMENT + more > page_size || self.table.len() >= MOST_ELEMENTS)
    }

    fn push(
        &mut self,
        key: &[u8],
        value: &[u8],
        child: u64,
        is_bucket: bool,
    ) -> Result<(), WriteError> {
        let short = |n: usize| u32::try_from(n).map_err(|_| WriteError::Length);
        let (ksize, vsize) = (short(key.len())?, short(value.len())?);
        self.table.push(Slot { start: self.data.len(), ksize, vsize, child, is_bucket });
        self.data.extend(key);
        self.data.extend(value);
        Ok(())
    }

    fn first_key(&self) -> Vec<u8> {
        self.table.first().map_or(Vec::new(), |s| self.data[..s.ksize as usize].to_vec())
    }

    fn clear(&mut self) {
        self.table.clear();
        zeroize::Zeroize::zeroize(&mut self.data);
        self.data.clear();
    }
}

/// A tree under construction: the open leaf, and the first keys of finished ones.
#[derive(Debug, Default)]
struct Tree {
    leaf: Elements,
    last: Vec<u8>,
    children: Vec<(Vec<u8>, u64)>,
}

impl Tree {
    fn put<W: Write + Seek>(
        &mut self,
        writer: &mut Writer<W>,
        key: &[u8],
        value: &[u8],
        is_bucket: bool,
    ) -> Result<(), WriteError> {
        if key.is_empty() || key.len() > 32768 || value.len() > 0x7FFF_FFFE {
            return Err(WriteError::Length);
        }
        if key <= self.last.as_slice() {
            return Err(WriteError::Order);
        }
        if self.leaf.is_full(key.len() + value.len(), writer.page_size) {
            self.flush(writer)?;
        }
        self.leaf.push(key, value, 0, is_bucket)?;
        key.clone_into(&mut self.last);
        Ok(())
    }

    fn flush<W: Write + Seek>(&mut self, writer: &mut Writer<W>) -> Result<(), WriteError> {
        let id = writer.page(LEAF, &self.leaf)?;
        self.children.push((self.leaf.first_key(), id));
        self.leaf.clear();
        Ok(())
    }

    /// Writes what is open and the branch pages above; returns the root.
    fn finish<W: Write + Seek>(mut self, writer: &mut Writer<W>) -> Result<u64, WriteError> {
        // An empty bucket is an empty leaf.
        if !self.leaf.table.is_empty() || self.children.is_empty() {
            self.flush(writer)?;
        }
        let mut level = self.children;
        while level.len() > 1 {
            let mut above = Vec::new();
            let mut branch = Elements::default();
            for (key, child) in &level {
                // A branch of one child would make the tree taller without end.
                if branch.table.len() > 1 && branch.is_full(key.len(), writer.page_size) {
                    above.push((branch.first_key(), writer.page(BRANCH, &branch)?));
                    branch.clear();
                }
                branch.push(key, &[], *child, false)?;
            }
            above.push((branch.first_key(), writer.page(BRANCH, &branch)?));
            level = above;
        }
        Ok(level.first().map_or(0, |(_, id)| *id))
    }
}
