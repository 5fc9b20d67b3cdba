//! Which pages of a bbolt file can hold one record together.
//!
//! A record that needs several pages is written to contiguous ones, of which only the first has a
//! header (etcd-io/bbolt `internal/common/page.go`). Once freed, any of them may be given to
//! another record, which then writes a header of its own; the rest keep their bytes.

use std::ops::Range;

use crate::bolt::{Db, Endian, Page, PageSet};
use crate::forensics::carve::Terrain;

/// Pages of one file.
pub(super) struct Pages<'a, 'l> {
    data: &'a [u8],
    size: usize,
    endian: Endian,
    /// Pages in use; empty in a file that is left over as a whole.
    live: &'l PageSet,
}

impl<'a, 'l> Pages<'a, 'l> {
    pub(super) fn new(db: &Db<'a>, live: &'l PageSet) -> Self {
        Self { data: db.data(), size: db.page_size(), endian: db.endian(), live }
    }

    /// Bytes a page has.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Whether a bucket uses the page.
    pub(super) fn is_live(&self, page: usize) -> bool {
        self.live.contains(page as u64)
    }

    /// Pages, whole or cut short.
    pub(super) fn count(&self) -> usize {
        self.data.len().div_ceil(self.size)
    }

    /// The pages that a page's own header says it has, itself included; `None` for a page
    /// without header.
    pub(super) fn headed(&self, page: usize) -> Option<usize> {
        let header = Page::header(self.data.get(page * self.size..)?, self.endian).ok()?;
        (header.id == page as u64).then(|| (header.overflow as usize).saturating_add(1))
    }
}

impl Terrain for Pages<'_, '_> {
    fn pieces(&self, start: usize, end: usize) -> Vec<Range<usize>> {
        let end = end.min(self.data.len());
        let first = start / self.size;
        if self.is_live(first) {
            // Slack ends with its page.
            return vec![start..end.min((first + 1) * self.size)];
        }
        let mut pieces = Vec::new();
        let mut open = Some(start);
        // Pages before this one belong to a younger record.
        let mut taken = 0;
        for page in first + 1..end.div_ceil(self.size) {
            if let Some(pages) = self.headed(page) {
                taken = taken.max(page.saturating_add(pages));
            }
            let boundary = page * self.size;
            if self.is_live(page) || page < taken {
                pieces.extend(open.take().map(|from| from..boundary));
            } else {
                open.get_or_insert(boundary);
            }
        }
        pieces.extend(open.map(|from| from..end).filter(|p| !p.is_empty()));
        pieces
    }
}

/// `page 17 offset 212`.
pub(super) fn location(page_size: usize, at: usize) -> String {
    format!("page {} offset {}", at / page_size, at % page_size)
}
