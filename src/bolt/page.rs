//! Pages and their elements, bounded.

use super::{Db, Endian, PageDamage};

/// Bytes of a page's header.
pub(super) const HEADER: usize = 16;
/// Bytes of what follows it in a meta page.
pub(super) const META_BODY: usize = 64;
/// Bytes of an element in the table that follows it in a branch or leaf page.
pub(super) const ELEMENT: usize = 16;
/// Kinds of pages (`Flags` of etcd-io/bbolt `internal/common/page.go`).
pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const META: u16 = 0x04;
const FREELIST: u16 = 0x10;

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Keys and child pages.
    Branch,
    /// Keys and values.
    Leaf,
    /// Page 0 or 1.
    Meta,
    /// Free page numbers.
    Freelist,
}

/// A page whose header has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Page number; 0 for the page image of an inline bucket.
    pub id: u64,
    /// What it is.
    pub kind: PageKind,
    /// Number of elements.
    pub count: usize,
    /// Additional contiguous pages.
    pub overflow: u32,
    /// All bytes, header and overflow pages included.
    pub bytes: &'a [u8],
    pub(super) endian: Endian,
}

/// One element of a leaf or branch page.
#[derive(Clone, Copy)]
pub struct Element<'a> {
    /// Key bytes.
    pub key: &'a [u8],
    /// Value bytes; empty in branch pages.
    pub value: &'a [u8],
    /// The value is a bucket (leaf pages).
    pub is_bucket: bool,
    /// Child page (branch pages).
    pub child: u64,
    /// Offset of the key from the start of the page, bytes; the value follows the key.
    pub offset: usize,
}

/// Reads page `id` of `db`.
pub(super) fn read<'a>(db: &Db<'a>, id: u64) -> Result<Page<'a>, PageDamage> {
    let damage = |what: String| PageDamage { page: id, what };
    let size = db.page_size as u64;
    if id >= db.meta.high_water_mark {
        return Err(damage("page number beyond the high water mark".into()));
    }
    let file = db.data.len() as u64;
    let start = id.checked_mul(size).filter(|s| s.saturating_add(size) <= file);
    let Some(start) = start.and_then(|s| usize::try_from(s).ok()) else {
        return Err(damage("page lies beyond the end of the file".into()));
    };
    let page = Page::header(&db.data[start..], db.endian).map_err(&damage)?;
    if page.id != id {
        return Err(damage(format!("page calls itself {}", page.id)));
    }
    // Computed in u64: the overflow field is any 32-bit number.
    let pages = u64::from(page.overflow) + 1;
    if id + pages > db.meta.high_water_mark {
        return Err(damage("overflow pages lie beyond the high water mark".into()));
    }
    let len = pages * size;
    let Some(bytes) = usize::try_from(len).ok().and_then(|len| db.data[start..].get(..len)) else {
        return Err(damage("overflow pages lie beyond the end of the file".into()));
    };
    let page = Page { bytes, ..page };
    page.check_table().map_err(damage)?;
    Ok(page)
}

/// Reads a page image that ends with `bytes`, as in an inline bucket.
pub(super) fn inline(bytes: &[u8], endian: Endian) -> Result<Page<'_>, String> {
    let page = Page::header(bytes, endian)?;
    if page.kind != PageKind::Leaf {
        return Err("inline bucket is not a leaf".into());
    }
    page.check_table()?;
    Ok(page)
}

impl<'a> Page<'a> {
    /// Reads the header of the page that begins with `bytes`, which are not looked at any further
    /// (etcd-io/bbolt `internal/common/page.go`).
    ///
    /// # Errors
    /// With what is wrong.
    pub fn header(bytes: &'a [u8], endian: Endian) -> Result<Self, String> {
        let short = || "shorter than a page header".to_owned();
        let kind = match endian.u16(bytes, 8).ok_or_else(short)? {
            BRANCH => PageKind::Branch,
            LEAF => PageKind::Leaf,
            META => PageKind::Meta,
            FREELIST => PageKind::Freelist,
            flags => return Err(format!("unknown page type {flags:#x}")),
        };
        Ok(Self {
            id: endian.u64(bytes, 0).ok_or_else(short)?,
            kind,
            count: usize::from(endian.u16(bytes, 10).ok_or_else(short)?),
            overflow: endian.u32(bytes, 12).ok_or_else(short)?,
            bytes,
            endian,
        })
    }

    /// Reads a page header found by sweeping, where no tree vouches for it; `bytes` run to the
    /// end of the file.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn sweep(bytes: &'a [u8], page_size: usize, endian: Endian) -> Result<Self, String> {
        let page = Page::header(bytes, endian)?;
        let len = (u64::from(page.overflow) + 1).saturating_mul(page_size as u64);
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
        let page = Self { bytes: &bytes[..len], ..page };
        page.check_table()?;
        Ok(page)
    }

    /// Bytes at the beginning that are the format's own: the header and what it is followed by, a
    /// meta body or the table of elements.
    #[must_use]
    pub fn head(&self) -> usize {
        HEADER
            + match self.kind {
                PageKind::Meta => META_BODY,
                PageKind::Freelist => 0,
                PageKind::Branch | PageKind::Leaf => self.count * ELEMENT,
            }
    }

    /// An element table beyond the page would let elements read each other's bytes.
    fn check_table(&self) -> Result<(), String> {
        let is_tree = matches!(self.kind, PageKind::Branch | PageKind::Leaf);
        if is_tree && self.head() > self.bytes.len() {
            return Err(format!("{} elements do not fit into the page", self.count));
        }
        Ok(())
    }

    /// Element `i`.
    ///
    /// # Errors
    /// With what is wrong: data outside the page, or an empty key.
    #[inline]
    pub fn element(&self, i: usize) -> Result<Element<'a>, String> {
        let at = HEADER + i * ELEMENT;
        let table_end = HEADER + self.count * ELEMENT;
        let short = || format!("element {i} lies outside the page");
        if at + ELEMENT > table_end {
            return Err(short());
        }
        let u32_at = |at| self.endian.u32(self.bytes, at).ok_or_else(short);
        let leaf = self.kind == PageKind::Leaf;
        let (pos, ksize, vsize) = if leaf {
            (u32_at(at + 4)?, u32_at(at + 8)?, u32_at(at + 12)?)
        } else {
            (u32_at(at)?, u32_at(at + 4)?, 0)
        };
        // In u64: three attacker-sized 32-bit numbers cannot overflow it.
        let start = at as u64 + u64::from(pos);
        let key_end = start + u64::from(ksize);
        let end = key_end + u64::from(vsize);
        if start < table_end as u64 || end > self.bytes.len() as u64 {
            return Err(short());
        }
        if ksize == 0 {
            return Err(format!("element {i} has an empty key"));
        }
        #[allow(clippy::cast_possible_truncation)] // all below the page's length
        let (start, key_end, end) = (start as usize, key_end as usize, end as usize);
        let child = if leaf { 0 } else { self.endian.u64(self.bytes, at + 8).ok_or_else(short)? };
        Ok(Element {
            key: &self.bytes[start..key_end],
            value: &self.bytes[key_end..end],
            is_bucket: leaf && u32_at(at)? & 1 != 0,
            child,
            offset: start,
        })
    }
}
