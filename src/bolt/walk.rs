//! Walking buckets.

use std::ops::ControlFlow;

use super::page::{Element, Page, PageKind, inline};
use super::{Db, PageDamage};

/// Trees deeper than this are damaged: with two elements a page, 2^64 pages fit below.
pub(super) const DEEPEST: usize = 64;

/// A set of page numbers.
#[derive(Clone, Debug, Default)]
pub struct PageSet(Vec<u64>);

impl PageSet {
    /// Adds a page; false when it was there.
    pub fn insert(&mut self, page: u64) -> bool {
        let Ok(word) = usize::try_from(page / 64) else { return false };
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let bit = 1 << (page % 64);
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// Whether a page is in the set.
    #[must_use]
    pub fn contains(&self, page: u64) -> bool {
        usize::try_from(page / 64)
            .ok()
            .and_then(|word| self.0.get(word))
            .is_some_and(|w| w & (1 << (page % 64)) != 0)
    }
}

/// Where a bucket's tree is.
#[derive(Clone, Copy)]
pub enum Bucket<'a> {
    /// A tree rooted at a page.
    Tree(u64),
    /// A page image inside the parent's leaf: the image, the page it lies in, and its offset
    /// there, bytes.
    Inline(&'a [u8], u64, usize),
}

type Sink<'s, 'a> = dyn FnMut(&Page<'a>, Element<'a>) -> ControlFlow<()> + 's;

impl<'a> Db<'a> {
    /// The top-level buckets by name. `seen` collects the pages of the tree that lists them.
    pub fn buckets(
        &self,
        seen: &mut PageSet,
        damage: &mut Vec<PageDamage>,
    ) -> Vec<(&'a [u8], Bucket<'a>)> {
        let mut buckets = Vec::new();
        let mut broken = Vec::new();
        let root = Bucket::Tree(self.meta.root);
        // The sink never breaks.
        let _ = self.walk(root, seen, damage, &mut |page, element| {
            match self.bucket_of(page.id, &element) {
                Ok(bucket) => buckets.push((element.key, bucket)),
                Err(what) => broken.push(PageDamage { page: page.id, what }),
            }
            ControlFlow::Continue(())
        });
        damage.append(&mut broken);
        buckets
    }

    /// One top-level bucket.
    pub fn bucket(
        &self,
        name: &[u8],
        seen: &mut PageSet,
        damage: &mut Vec<PageDamage>,
    ) -> Option<Bucket<'a>> {
        self.buckets(seen, damage).into_iter().find(|(n, _)| *n == name).map(|(_, b)| b)
    }

    /// The page image of an inline bucket, and the image's offset in the page of `element`.
    pub fn inline_image(&self, element: &Element<'a>) -> Option<(Page<'a>, usize)> {
        match self.bucket_of(0, element).ok()? {
            Bucket::Inline(image, _, offset) => {
                inline(image, self.endian).ok().map(|page| (page, offset))
            }
            Bucket::Tree(_) => None,
        }
    }

    fn bucket_of(&self, page: u64, element: &Element<'a>) -> Result<Bucket<'a>, String> {
        if !element.is_bucket {
            return Err("a plain value stands among the buckets".into());
        }
        let root = self.endian.u64(element.value, 0).filter(|_| element.value.len() >= 16);
        match root {
            None => Err("bucket header is cut short".into()),
            Some(0) if element.value.len() < 32 => Err("inline bucket is cut short".into()),
            Some(0) => {
                let offset = element.offset + element.key.len() + 16;
                Ok(Bucket::Inline(&element.value[16..], page, offset))
            }
            Some(id) => Ok(Bucket::Tree(id)),
        }
    }

    /// Calls `sink` for every leaf element of a bucket in key order. Pages that were reached are
    /// added to `seen`, overflow pages included; a page reached twice is damage, which ends
    /// cycles.
    pub fn walk(
        &self,
        bucket: Bucket<'a>,
        seen: &mut PageSet,
        damage: &mut Vec<PageDamage>,
        sink: &mut Sink<'_, 'a>,
    ) -> ControlFlow<()> {
        self.walk_gaps(bucket, seen, damage, &mut Vec::new(), sink)
    }

    /// As [`Db::walk`]; `gaps` collects the stretches of keys that damage took out, between the
    /// keys that were read before and after it.
    pub fn walk_gaps(
        &self,
        bucket: Bucket<'a>,
        seen: &mut PageSet,
        damage: &mut Vec<PageDamage>,
        gaps: &mut Vec<Gap<'a>>,
        sink: &mut Sink<'_, 'a>,
    ) -> ControlFlow<()> {
        let mut walk = Walk { seen, damage, gaps, last: &[], open: false };
        let flow = match bucket {
            Bucket::Inline(image, at, _) => match inline(image, self.endian) {
                Ok(page) => walk.leaf(&Page { id: at, ..page }, sink),
                Err(what) => {
                    walk.lost(PageDamage { page: at, what });
                    ControlFlow::Continue(())
                }
            },
            Bucket::Tree(root) => walk.tree(self, root, sink),
        };
        if walk.open {
            let after = walk.last;
            walk.gaps.push(Gap { after, before: None });
        }
        flow
    }

    /// Leaf pages that a linear sweep finds among the pages that are not in `skip`: those that
    /// carry their own number and whose element table fits. Nothing says that a tree uses them,
    /// so they may be of any age.
    pub fn sweep<'s>(&'s self, skip: &'s PageSet) -> impl Iterator<Item = Page<'a>> + 's {
        // The last page may have lost its end.
        let pages = self.data.len().div_ceil(self.page_size) as u64;
        (2..pages).filter(|id| !skip.contains(*id)).filter_map(|id| {
            let at = usize::try_from(id).ok()?.checked_mul(self.page_size)?;
            let page = Page::sweep(self.data.get(at..)?, self.page_size, self.endian).ok()?;
            (page.id == id && page.kind == PageKind::Leaf && page.count > 0).then_some(page)
        })
    }
}

/// Keys that damage made unreadable, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap<'a> {
    /// The last key read before; empty for none.
    pub after: &'a [u8],
    /// The first key read behind; `None` is the bucket's end.
    pub before: Option<&'a [u8]>,
}

impl Gap<'_> {
    /// The whole bucket.
    pub const ALL: Gap<'static> = Gap { after: &[], before: None };

    /// Whether `key` lies in the gap.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key > self.after && self.before.is_none_or(|before| key < before)
    }
}

/// Elements of one page whose damage is spelled out; the rest is counted.
const SPELLED_OUT: usize = 4;

struct Walk<'w, 'a> {
    seen: &'w mut PageSet,
    damage: &'w mut Vec<PageDamage>,
    gaps: &'w mut Vec<Gap<'a>>,
    /// The last key read: keys ascend through the whole bucket.
    last: &'a [u8],
    /// Something was lost behind `last`.
    open: bool,
}

impl<'a> Walk<'_, 'a> {
    fn lost(&mut self, damage: PageDamage) {
        self.damage.push(damage);
        self.open = true;
    }

    fn tree(&mut self, db: &Db<'a>, root: u64, sink: &mut Sink<'_, 'a>) -> ControlFlow<()> {
        // Each level: a branch page and the next element to follow.
        let mut stack: Vec<(Page<'a>, usize)> = Vec::new();
        let mut next = Some(root);
        loop {
            if let Some(id) = next.take() {
                match self.claim(db, id) {
                    Err(d) => self.lost(d),
                    Ok(page) if page.kind == PageKind::Leaf => {
                        if page.count == 0 && !stack.is_empty() {
                            self.lost(PageDamage { page: id, what: "empty leaf page".into() });
                        }
                        self.leaf(&page, sink)?;
                    }
                    Ok(page) if page.kind == PageKind::Branch && stack.len() < DEEPEST => {
                        if page.count == 0 {
                            self.lost(PageDamage { page: id, what: "empty branch page".into() });
                        }
                        stack.push((page, 0));
                    }
                    Ok(page) => {
                        let what = if page.kind == PageKind::Branch {
                            "tree is too deep".into()
                        } else {
                            format!("a {:?} page stands in a tree", page.kind).to_lowercase()
                        };
                        self.lost(PageDamage { page: id, what });
                    }
                }
            }
            let Some((page, i)) = stack.last_mut() else { return ControlFlow::Continue(()) };
            if *i >= page.count {
                stack.pop();
                continue;
            }
            match page.element(*i) {
                Ok(element) => next = Some(element.child),
                Err(what) => {
                    let page = page.id;
                    self.lost(PageDamage { page, what });
                }
            }
            if let Some((_, i)) = stack.last_mut() {
                *i += 1;
            }
        }
    }

    /// Reads a page of a tree and marks it and its overflow pages as used.
    fn claim(&mut self, db: &Db<'a>, id: u64) -> Result<Page<'a>, PageDamage> {
        if id < 2 {
            return Err(PageDamage { page: id, what: "a tree points at a meta page".into() });
        }
        if self.seen.contains(id) {
            return Err(PageDamage { page: id, what: "page is used twice".into() });
        }
        let page = db.page(id)?;
        for p in id..=id + u64::from(page.overflow) {
            if !self.seen.insert(p) {
                return Err(PageDamage { page: p, what: "page is used twice".into() });
            }
        }
        Ok(page)
    }

    fn leaf(&mut self, page: &Page<'a>, sink: &mut Sink<'_, 'a>) -> ControlFlow<()> {
        let mut bad = 0;
        for i in 0..page.count {
            let what = match page.element(i) {
                Ok(element) => {
                    // Neighbours of a gap are only known where the order holds.
                    if element.key > self.last {
                        if self.open {
                            self.gaps.push(Gap { after: self.last, before: Some(element.key) });
                            self.open = false;
                        }
                        self.last = element.key;
                        sink(page, element)?;
                        continue;
                    }
                    sink(page, element)?;
                    format!("element {i} is out of order")
                }
                Err(what) => {
                    self.open = true;
                    what
                }
            };
            bad += 1;
            if bad <= SPELLED_OUT {
                self.damage.push(PageDamage { page: page.id, what });
            }
        }
        if bad > SPELLED_OUT {
            let what = format!("{} more elements like that", bad - SPELLED_OUT);
            self.damage.push(PageDamage { page: page.id, what });
        }
        ControlFlow::Continue(())
    }
}
