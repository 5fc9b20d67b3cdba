//! Meta pages: read untrusted, believed only when magic, version and checksum agree.

use super::page::{HEADER, META_BODY as BODY};
use super::{BoltError, Endian, PAGE_SIZES};

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Bytes that the checksum covers.
const SUMMED: usize = 56;
/// `freelist` when none is written: etcd on Linux leaves it out.
pub const NO_FREELIST: u64 = u64::MAX;

/// A verified meta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Page size, bytes.
    pub page_size: u32,
    /// Root page of the bucket of buckets.
    pub root: u64,
    /// Freelist page, or [`NO_FREELIST`].
    pub freelist: u64,
    /// First page number that was never allocated.
    pub high_water_mark: u64,
    /// Transaction number.
    pub txid: u64,
}

/// What is wrong with a meta page, in the order bbolt checks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// The file ends first.
    #[error("beyond the end of the file")]
    Missing,
    /// Not a meta page.
    #[error("wrong magic number")]
    Magic,
    /// Written by another format version.
    #[error("format version {0}, not 2")]
    Version(u32),
    /// Bytes changed after they were written.
    #[error("checksum mismatch")]
    Checksum,
    /// A page size that is no power of two between 1 KiB and 16 MiB.
    #[error("impossible page size {0}")]
    PageSize(u32),
}

/// FNV-1a, 64 bits.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01B3))
}

/// Reads the meta page that begins at byte `at`.
pub(super) fn read(data: &[u8], at: usize) -> Result<(Meta, Endian), MetaError> {
    let start = at.checked_add(HEADER).ok_or(MetaError::Missing)?;
    let body = data.get(start..start + BODY).ok_or(MetaError::Missing)?;
    let endian = [Endian::Little, Endian::Big]
        .into_iter()
        .find(|e| e.u32(body, 0) == Some(MAGIC))
        .ok_or(MetaError::Magic)?;
    let u32_at = |at| endian.u32(body, at).ok_or(MetaError::Missing);
    let u64_at = |at| endian.u64(body, at).ok_or(MetaError::Missing);
    let version = u32_at(4)?;
    if version != VERSION {
        return Err(MetaError::Version(version));
    }
    if u64_at(56)? != fnv1a(&body[..SUMMED]) {
        return Err(MetaError::Checksum);
    }
    let page_size = u32_at(8)?;
    // A size that is no power of two would make every page offset meaningless.
    if !page_size.is_power_of_two() || !PAGE_SIZES.contains(&(page_size as usize)) {
        return Err(MetaError::PageSize(page_size));
    }
    let meta = Meta {
        page_size,
        root: u64_at(16)?,
        freelist: u64_at(32)?,
        high_water_mark: u64_at(40)?,
        txid: u64_at(48)?,
    };
    Ok((meta, endian))
}

#[derive(Clone, Copy)]
pub(super) struct PageSize {
    pub(super) bytes: usize,
    pub(super) endian: Endian,
}

/// Finds the page size: from page 0, else from the first intact meta at 1 KiB, 2 KiB, … 16 MiB.
pub(super) fn page_size(data: &[u8]) -> Result<PageSize, BoltError> {
    if data.len() < HEADER + BODY {
        return Err(BoltError::TooShort(data.len()));
    }
    let first = read(data, 0);
    if let Ok((meta, endian)) = first {
        return Ok(PageSize { bytes: meta.page_size as usize, endian });
    }
    let mut at = *PAGE_SIZES.start();
    let mut second = MetaError::Missing;
    while at <= *PAGE_SIZES.end() && at < data.len() {
        match read(data, at) {
            Ok((meta, endian)) if meta.page_size as usize == at => {
                return Ok(PageSize { bytes: at, endian });
            }
            Err(e @ (MetaError::Checksum | MetaError::Version(_) | MetaError::PageSize(_))) => {
                second = e;
            }
            _ => {}
        }
        at *= 2;
    }
    match first {
        Err(MetaError::Magic) if matches!(second, MetaError::Missing) => Err(BoltError::NotBolt),
        Err(first) => Err(BoltError::NoMeta { first, second }),
        Ok(_) => Err(BoltError::NotBolt),
    }
}
