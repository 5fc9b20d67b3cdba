//! The leaves of a sound tree in the order of the file: the fast way through a large bucket.
//!
//! A tree's leaves are scattered over the file in no order once pages have been freed and used
//! again. Reading them as they lie lets the machine read ahead, and lets a caller give back what
//! lies behind. The price is that nothing can be said about damage: at the first sign of any, the
//! caller starts over with [`Db::walk_gaps`], which knows what to report.

use std::ops::Range;

use super::Db;
use super::page::{Element, Page, PageKind};
use super::walk::{Bucket, DEEPEST, PageSet};

/// Leaves whose headers are asked for at once.
const AHEAD: usize = 8;

/// Bytes that a processor fetches at once; etcd's keys mostly end within that.
const LINE: usize = 64;

/// A leaf, and the branch element that points at it.
struct Leaf {
    id: u64,
    parent: u32,
    index: u16,
}

/// The leaf pages of a tree whose branch pages are sound. The leaves themselves are looked at
/// when they are read.
pub struct Leaves<'a> {
    db: Db<'a>,
    /// The branch pages just above the leaves, in key order.
    parents: Vec<Page<'a>>,
    /// Ascending by page number.
    pages: Vec<Leaf>,
    /// Pages that are in use by others than the leaves.
    taken: PageSet,
}

impl<'a> Db<'a> {
    /// The leaves of `bucket`, if its tree has branch pages, which are sound and all of whose
    /// leaves should be equally deep. `taken` are pages of other trees.
    #[must_use]
    pub fn leaves(&self, bucket: Bucket<'a>, mut taken: PageSet) -> Option<Leaves<'a>> {
        let Bucket::Tree(root) = bucket else { return None };
        let mut level = vec![root];
        // Each turn claims at least one page, and no page twice.
        for _ in 0..DEEPEST {
            let mut parents = Vec::with_capacity(level.len());
            for id in level {
                let page = self.page(id).ok().filter(|p| p.kind == PageKind::Branch)?;
                let fresh = (id..=id + u64::from(page.overflow)).all(|p| p > 1 && taken.insert(p));
                if !fresh || page.count == 0 {
                    return None;
                }
                parents.push(page);
            }
            let first = parents.first()?.element(0).ok()?.child;
            if self.page(first).ok()?.kind == PageKind::Leaf {
                return Leaves::new(self.clone(), parents, taken);
            }
            level = Vec::new();
            for page in &parents {
                for i in 0..page.count {
                    level.push(page.element(i).ok()?.child);
                }
            }
        }
        None
    }
}

impl<'a> Leaves<'a> {
    fn new(db: Db<'a>, parents: Vec<Page<'a>>, taken: PageSet) -> Option<Self> {
        let mut pages = Vec::with_capacity(parents.iter().map(|p| p.count).sum());
        for (n, page) in parents.iter().enumerate() {
            let parent = u32::try_from(n).ok()?;
            for i in 0..page.count {
                let id = page.element(i).ok()?.child;
                pages.push(Leaf { id, parent, index: u16::try_from(i).ok()? });
            }
        }
        pages.sort_unstable_by_key(|leaf| leaf.id);
        Some(Self { db, parents, pages, taken })
    }

    /// Number of leaf pages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Where leaf `i` begins, bytes; the length of the file behind the last one.
    #[must_use]
    pub fn offset(&self, i: usize) -> usize {
        self.pages.get(i).map_or(self.db.data.len(), |leaf| self.db.offset(leaf.id))
    }

    /// Calls `sink` for the elements of some leaves, the leaves in the order of the file. The
    /// branch pages prove that they are in key order. `None` as soon as anything is not sound or
    /// `sink` says so.
    pub fn read(
        &self,
        range: Range<usize>,
        sink: &mut impl FnMut(&Page<'a>, Element<'a>) -> Option<()>,
    ) -> Option<()> {
        for i in range {
            let leaf = self.pages.get(i)?;
            let page = self.db.page(leaf.id).ok()?;
            let end = leaf.id + u64::from(page.overflow);
            let free = (leaf.id..=end).all(|p| p > 1 && !self.taken.contains(p))
                && self.pages.get(i + 1).is_none_or(|next| end < next.id);
            if page.kind != PageKind::Leaf || page.count == 0 || !free {
                return None;
            }
            self.fetch(&page, i);
            let (mut lowest, limit) = self.bounds(leaf)?;
            let mut first = true;
            for n in 0..page.count {
                let element = page.element(n).ok()?;
                if element.key < lowest || (element.key == lowest && !first) {
                    return None;
                }
                (lowest, first) = (element.key, false);
                sink(&page, element)?;
            }
            if limit.is_some_and(|limit| lowest >= limit) {
                return None;
            }
        }
        Some(())
    }

    /// Asks for what will be read of leaf `i`, and now and then for the headers of leaves to come:
    /// side by side, so that memory is waited for once and not element by element.
    fn fetch(&self, page: &Page<'a>, i: usize) {
        let byte = |at: usize| self.db.data.get(at).copied().unwrap_or(0);
        let mut all = 0;
        if i.is_multiple_of(AHEAD) {
            for at in (i + AHEAD..i + 2 * AHEAD).map(|next| self.offset(next)) {
                all ^= byte(at) ^ byte(at + LINE);
            }
        }
        for element in (0..page.count).filter_map(|n| page.element(n).ok()) {
            all ^= element.key[0] ^ element.value.get(LINE).copied().unwrap_or(0);
        }
        std::hint::black_box(all);
    }

    /// The keys that a leaf may hold: from one, inclusive, to another, exclusive.
    fn bounds(&self, leaf: &Leaf) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        let (n, i) = (leaf.parent as usize, usize::from(leaf.index));
        let parent = self.parents.get(n)?;
        let from = parent.element(i).ok()?.key;
        let next = if i + 1 < parent.count {
            Some(parent.element(i + 1))
        } else {
            self.parents.get(n + 1).map(|p| p.element(0))
        };
        let to = match next {
            Some(next) => Some(next.ok()?.key),
            None => None,
        };
        Some((from, to))
    }
}
