//! Where pages lie in the files of a database, and the bytes of records that cross them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;

use zeroize::Zeroizing;

use super::File;
use super::record::{Row, varint};
use crate::forensics::residue::Place;

/// A file that is read part by part: a database may be larger than memory, and is not mapped
/// because a running k3s may shorten it.
pub trait Parts {
    /// Bytes in the file.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self) -> io::Result<u64>;

    /// Reads all of `into` from offset `at` on.
    ///
    /// # Errors
    /// What the system says; also when the file ends before.
    fn read(&self, at: usize, into: &mut [u8]) -> io::Result<()>;
}

impl Parts for std::fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, at: usize, into: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, into, at as u64)
    }
}

impl Parts for &[u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read(&self, at: usize, into: &mut [u8]) -> io::Result<()> {
        let part = self.get(at..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Where pages lie in a file, and which of them are free.
pub(super) struct Pages<'a> {
    parts: &'a dyn Parts,
    pub(super) len: usize,
    file: File,
    size: usize,
    free: HashSet<usize>,
    /// In a log, the frames that hold each page, ascending, from 0.
    frames: HashMap<usize, Vec<usize>>,
    /// In a log, the frames that end a transaction, ascending, from 0.
    commits: Vec<usize>,
}

/// Bytes of a file around what is being looked at.
pub(super) struct Window {
    /// Where in the file they begin.
    pub(super) at: usize,
    pub(super) data: Zeroizing<Vec<u8>>,
}

impl Window {
    fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        self.data.get(range.start.checked_sub(self.at)?..range.end.checked_sub(self.at)?)
    }
}

impl<'a> Pages<'a> {
    const WAL_HEADER: usize = 32;
    const FRAME_HEADER: usize = 24;
    /// The largest page, and so what belongs to a record on either side of it.
    pub(super) const LARGEST: usize = 65_536;

    pub(super) fn new(file: File, parts: &'a dyn Parts) -> io::Result<Self> {
        let len = usize::try_from(parts.size()?).map_err(io::Error::other)?;
        let mut pages = Self {
            parts,
            len,
            file,
            size: 0,
            free: HashSet::new(),
            frames: HashMap::new(),
            commits: Vec::new(),
        };
        let size = match file {
            File::Database => pages.array(16)?.map(|b| match u16::from_be_bytes(b) {
                1 => Self::LARGEST,
                n => usize::from(n),
            }),
            File::Wal => pages.number(8)?,
            File::Other => None,
        };
        pages.size =
            size.filter(|s| s.is_power_of_two() && (512..=Self::LARGEST).contains(s)).unwrap_or(0);
        match file {
            _ if pages.size == 0 => {}
            File::Database => pages.find_free()?,
            File::Wal => pages.find_frames()?,
            File::Other => {}
        }
        Ok(pages)
    }

    fn find_frames(&mut self) -> io::Result<()> {
        let frame = self.size + Self::FRAME_HEADER;
        for (number, at) in (Self::WAL_HEADER..self.len).step_by(frame).enumerate() {
            // Page number, then the size of the database where a transaction ends, else 0.
            let (Some(page), Some(after)) = (self.number(at)?, self.number(at + 4)?) else { break };
            self.frames.entry(page).or_default().push(number);
            self.commits.extend((after != 0).then_some(number));
        }
        Ok(())
    }

    /// Trunks: the next one, a count, and that many leaves.
    fn find_free(&mut self) -> io::Result<()> {
        let mut trunk = self.number(32)?.unwrap_or(0);
        while trunk > 0 && self.free.insert(trunk) {
            let Some(page) = self.page((trunk - 1).saturating_mul(self.size))? else { break };
            let mut numbers =
                page.chunks_exact(4).map(|b| b.iter().fold(0, |n, b| n << 8 | usize::from(*b)));
            trunk = numbers.next().unwrap_or(0);
            let count = numbers.next().unwrap_or(0);
            self.free.extend(numbers.take(count));
        }
        Ok(())
    }

    /// Fills `window` with a part of the file.
    pub(super) fn fill(&self, window: &mut Window, range: Range<usize>) -> io::Result<()> {
        window.at = range.start;
        // Never moved, which would leave copies behind.
        if window.data.capacity() < range.len() {
            window.data = Zeroizing::new(Vec::with_capacity(range.len()));
        }
        window.data.resize(range.len(), 0);
        self.parts.read(range.start, &mut window.data)
    }

    /// Some bytes, where the file has them.
    fn array<const N: usize>(&self, at: usize) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        if at.checked_add(N).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        self.parts.read(at, &mut bytes)?;
        Ok(Some(bytes))
    }

    fn number(&self, at: usize) -> io::Result<Option<usize>> {
        Ok(self.array(at)?.map(|b| u32::from_be_bytes(b) as usize))
    }

    /// The page that begins at an offset, where the file has all of it.
    fn page(&self, at: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        if at.checked_add(self.size).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        let mut page = Zeroizing::new(vec![0; self.size]);
        self.parts.read(at, &mut page)?;
        Ok(Some(page))
    }

    /// Page or frame number, from 1, and where the page begins.
    fn page_of(&self, at: usize) -> Option<(usize, usize)> {
        match self.file {
            _ if self.size == 0 => None,
            File::Database => Some((at / self.size + 1, at / self.size * self.size)),
            File::Wal => {
                let frame = at.checked_sub(Self::WAL_HEADER)? / (self.size + Self::FRAME_HEADER);
                let start = Self::WAL_HEADER
                    + frame * (self.size + Self::FRAME_HEADER)
                    + Self::FRAME_HEADER;
                Some((frame + 1, start))
            }
            File::Other => None,
        }
    }

    /// The bytes of a record, of which its own page holds a beginning and a chain of others the
    /// rest. Shorter than it should be where the chain breaks.
    pub(super) fn payload(&self, row: &Row<'_>) -> io::Result<Zeroizing<Vec<u8>>> {
        let len = (row.old_value.end - row.at).min(self.len);
        let end = self.end_of_payload(row).max(row.at);
        // Never moved, which would leave copies behind.
        let mut payload = Zeroizing::new(Vec::with_capacity(len));
        payload.resize((end - row.at).min(len), 0);
        self.parts.read(row.at, &mut payload)?;
        let Some((frame, _)) = self.page_of(row.at).filter(|_| payload.len() < len) else {
            return Ok(payload);
        };
        let mut next = self.number(end)?.unwrap_or(0);
        // Every page of the chain adds something, so it ends.
        while payload.len() < len && next != 0 {
            let Some(start) = self.start_of(next, frame) else { break };
            let Some(page) = self.page(start)? else { break };
            let (link, content) = page.split_at(4);
            next = link.iter().fold(0, |n, b| n << 8 | usize::from(*b));
            let missing = len - payload.len();
            payload.extend_from_slice(&content[..content.len().min(missing)]);
        }
        Ok(payload)
    }

    /// Where a page begins; in a log, as the transaction of a frame saw it.
    fn start_of(&self, page: usize, frame: usize) -> Option<usize> {
        match self.file {
            File::Database => (page - 1).checked_mul(self.size),
            File::Wal => {
                let frame = frame - 1;
                let commit = self.commits.partition_point(|c| *c < frame);
                let last = self.commits.get(commit).copied().unwrap_or(usize::MAX);
                let images = self.frames.get(&page)?;
                let image = images[..images.partition_point(|f| *f <= last)].last()?;
                let at = image.checked_mul(self.size + Self::FRAME_HEADER)?;
                at.checked_add(Self::WAL_HEADER + Self::FRAME_HEADER)
            }
            File::Other => None,
        }
    }

    /// Where the part of a record ends that lies in its own page.
    fn end_of_payload(&self, row: &Row<'_>) -> usize {
        let Some((_, start)) = self.page_of(row.at) else {
            return self.len;
        };
        let page_end = (start + self.size).min(self.len);
        let payload = row.old_value.end - row.at;
        // kine reserves no bytes at the end of pages.
        let usable = self.size;
        let local = if payload <= usable - 35 {
            payload
        } else {
            let least = (usable - 12) * 32 / 255 - 23;
            let some = least + (payload - least) % (usable - 4);
            if some <= usable - 35 { some } else { least }
        };
        (row.at + local).min(page_end)
    }

    /// What kind of place, where, and whether a page in use lists the record as one of its own.
    pub(super) fn describe(&self, name: &str, at: usize, window: &Window) -> (Place, String, bool) {
        let Some((page, start)) = self.page_of(at) else {
            return (Place::LeftoverFile, format!("{name} offset {at}"), false);
        };
        let active = self.is_cell(start, at, window);
        let offset = at.saturating_sub(start);
        match self.file {
            File::Wal => (Place::Wal, format!("{name} frame {page} offset {offset}"), active),
            _ if self.free.contains(&page) => {
                (Place::FreePage, format!("page {page} offset {offset}"), false)
            }
            _ => (Place::PageSlack, format!("page {page} offset {offset}"), active),
        }
    }

    /// Whether one of the page's cells has its record at `at`.
    fn is_cell(&self, start: usize, at: usize, window: &Window) -> bool {
        const LEAF: u8 = 0x0D;
        // The first page of the file begins with the file's header.
        let header = if self.file == File::Database && start == 0 { 100 } else { 0 };
        let Some(page) = window.get(start..(start + self.size).min(self.len)) else {
            return false;
        };
        let Some(head) = page.get(header..header + 8).filter(|h| h[0] == LEAF) else {
            return false;
        };
        let count = usize::from(u16::from_be_bytes([head[3], head[4]]));
        let pointers = page.get(header + 8..).unwrap_or_default();
        pointers.chunks_exact(2).take(count).any(|p| {
            let cell = usize::from(u16::from_be_bytes([p[0], p[1]]));
            let Some(mut rest) = page.get(cell..) else { return false };
            let before = rest.len();
            // Length of the payload, then the row's number.
            varint(&mut rest).and_then(|_| varint(&mut rest)).is_some()
                && start + cell + (before - rest.len()) == at
        })
    }
}
