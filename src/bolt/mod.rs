//! bbolt files, read-only, over a byte slice: every bound on stored numbers lives here.
//!
//! Source: etcd-io/bbolt `internal/common/{page,meta,inode,bucket}.go`, `db.go`, `tx_check.go`.
//!
//! A damaged subtree is reported and skipped; its siblings are still read. Nothing here trusts a
//! page number, count, offset or length before it has been checked against the file.

mod leaves;
mod meta;
mod page;
mod walk;
pub mod write;

pub use leaves::Leaves;
pub use meta::{Meta, MetaError, NO_FREELIST};
pub use page::{Element, Page, PageKind};
pub use walk::{Bucket, Gap, PageSet};

/// Smallest and largest page sizes that are believed, bytes.
const PAGE_SIZES: std::ops::RangeInclusive<usize> = 1024..=16 << 20;

/// Byte order of the host that wrote the file: structures are memory images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// amd64, arm64, riscv64, ppc64le.
    Little,
    /// s390x, ppc64.
    Big,
}

impl Endian {
    #[inline]
    fn u16(self, b: &[u8], at: usize) -> Option<u16> {
        let raw = b.get(at..at + 2)?.try_into().ok()?;
        Some(if self == Self::Little { u16::from_le_bytes(raw) } else { u16::from_be_bytes(raw) })
    }

    #[inline]
    fn u32(self, b: &[u8], at: usize) -> Option<u32> {
        let raw = b.get(at..at + 4)?.try_into().ok()?;
        Some(if self == Self::Little { u32::from_le_bytes(raw) } else { u32::from_be_bytes(raw) })
    }

    #[inline]
    fn u64(self, b: &[u8], at: usize) -> Option<u64> {
        let raw = b.get(at..at + 8)?.try_into().ok()?;
        Some(if self == Self::Little { u64::from_le_bytes(raw) } else { u64::from_be_bytes(raw) })
    }
}

/// Why a file cannot be opened as a bbolt database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoltError {
    /// Shorter than two pages of the smallest size.
    #[error("{0} bytes are too few for a database")]
    TooShort(usize),
    /// No meta page anywhere, not even a damaged one.
    #[error("not a bbolt database")]
    NotBolt,
    /// There are meta pages, but none is intact.
    #[error("both meta pages are damaged (page 0: {first}; page 1: {second})")]
    NoMeta {
        /// What is wrong with page 0.
        first: MetaError,
        /// What is wrong with page 1.
        second: MetaError,
    },
}

/// Something in the file that could not be read, by page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageDamage {
    /// Page number.
    pub page: u64,
    /// What is wrong; never stored bytes.
    pub what: String,
}

/// The page size and byte order at which most pages carry their own number.
fn guess(data: &[u8]) -> Option<(usize, Endian)> {
    let mut best: Option<(usize, usize, Endian)> = None;
    let mut size = *PAGE_SIZES.start();
    while size <= *PAGE_SIZES.end() && size * 2 < data.len() {
        for endian in [Endian::Little, Endian::Big] {
            let pages = (2..data.len() / size).filter(|n| {
                let at = n * size;
                Page::header(&data[at..], endian)
                    .is_ok_and(|page| page.id == *n as u64 && page.kind != PageKind::Meta)
            });
            let pages = pages.count();
            if pages > best.map_or(0, |(n, ..)| n) {
                best = Some((pages, size, endian));
            }
        }
        size *= 2;
    }
    best.map(|(_, size, endian)| (size, endian))
}

/// An open database.
#[derive(Clone, Debug)]
pub struct Db<'a> {
    data: &'a [u8],
    page_size: usize,
    endian: Endian,
    meta: Meta,
    metas: [Result<Meta, MetaError>; 2],
}

impl<'a> Db<'a> {
    /// Opens the bytes of a file. Bytes behind the high water mark (a trailer, preallocation)
    /// do no harm.
    ///
    /// # Errors
    /// When no meta page is intact.
    pub fn open(data: &'a [u8]) -> Result<Self, BoltError> {
        let size = meta::page_size(data)?;
        let metas = [meta::read(data, 0), meta::read(data, size.bytes)];
        let (first, second) = (&metas[0], &metas[1]);
        // The larger transaction among the intact ones; `txid mod 2` says nothing in copies.
        let meta = match (first, second) {
            (Ok((a, _)), Ok((b, _))) => *(if b.txid > a.txid { b } else { a }),
            (Ok((m, _)), Err(_)) | (Err(_), Ok((m, _))) => *m,
            (Err(a), Err(b)) => {
                return Err(BoltError::NoMeta { first: a.clone(), second: b.clone() });
            }
        };
        let metas = metas.map(|m| m.map(|(meta, _)| meta));
        Ok(Self { data, page_size: size.bytes, endian: size.endian, meta, metas })
    }

    /// Opens what may have been a database: as [`Db::open`], but when no meta page is intact, the
    /// page size is the one at which most pages carry their own number, and there is no tree.
    ///
    /// # Errors
    /// When nothing looks like a page at any size.
    pub fn salvage(data: &'a [u8]) -> Result<Self, BoltError> {
        let error = match Self::open(data) {
            Ok(db) => return Ok(db),
            Err(error) => error,
        };
        let Some((page_size, endian)) = guess(data) else { return Err(error) };
        let metas = [meta::read(data, 0), meta::read(data, page_size)].map(|m| m.map(|(m, _)| m));
        let meta = Meta {
            page_size: u32::try_from(page_size).unwrap_or(u32::MAX),
            root: 0,
            freelist: NO_FREELIST,
            high_water_mark: (data.len() / page_size) as u64,
            txid: 0,
        };
        Ok(Self { data, page_size, endian, meta, metas })
    }

    /// The meta page in force.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Both meta pages, judged separately.
    pub fn metas(&self) -> &[Result<Meta, MetaError>; 2] {
        &self.metas
    }

    /// Page size, bytes.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Byte order of the writing host.
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// The whole file.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Bytes that the file must have for all allocated pages.
    pub fn needed_bytes(&self) -> u64 {
        self.meta.high_water_mark.saturating_mul(self.page_size as u64)
    }

    /// Whether allocated pages lie beyond the end of the file.
    pub fn is_truncated(&self) -> bool {
        self.needed_bytes() > self.data.len() as u64
    }

    /// Where page `id` begins, bytes; the length of the file for one that lies behind it.
    pub fn offset(&self, id: u64) -> usize {
        let at = usize::try_from(id).ok().and_then(|id| id.checked_mul(self.page_size));
        at.map_or(self.data.len(), |at| at.min(self.data.len()))
    }

    /// Reads and checks page `id`.
    ///
    /// # Errors
    /// When its header or bounds are wrong.
    pub fn page(&self, id: u64) -> Result<Page<'a>, PageDamage> {
        page::read(self, id)
    }
}

#[cfg(test)]
mod tests;
