//! Walking buckets.

use std::ops::ControlFlow;

use super::page::{Element, Page, PageKind, inline};
use super::{Db, PageDamage};

/// Trees deeper than this are damaged: with two elements a page, 2^64 pages fit below.
const DEEPEST: usize = 64;

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
            match self.bucket_of(page, &element) {
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

    fn bucket_of(&self, page: &Page<'a>, element: &Element<'a>) -> Result<Bucket<'a>, String> {
        if !element.is_bucket {
            return Err("a plain value stands among the buckets".into());
        }
        let root = self.endian.u64(element.value, 0).filter(|_| element.value.len() >= 16);
        match root {
            None => Err("bucket header is cut short".into()),
            Some(0) if element.value.len() < 32 => Err("inline bucket is cut short".into()),
            Some(0) => {
                let offset = element.offset + element.key.len() + 16;
                Ok(Bucket::Inline(&element.value[16..], page.id, offset))
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
        let mut order = Order::default();
        match bucket {
            Bucket::Inline(image, at, _) => match inline(image, self.endian) {
                Ok(page) => {
                    let page = Page { id: at, ..page };
                    leaf(&page, &mut order, damage, sink)
                }
                Err(what) => {
                    damage.push(PageDamage { page: at, what });
                    ControlFlow::Continue(())
                }
            },
            Bucket::Tree(root) => self.walk_tree(root, &mut order, seen, damage, sink),
        }
    }

    fn walk_tree(
        &self,
        root: u64,
        order: &mut Order<'a>,
        seen: &mut PageSet,
        damage: &mut Vec<PageDamage>,
        sink: &mut Sink<'_, 'a>,
    ) -> ControlFlow<()> {
        // Each level: a branch page and the next element to follow.
        let mut stack: Vec<(Page<'a>, usize)> = Vec::new();
        let mut next = Some(root);
        loop {
            if let Some(id) = next.take() {
                match self.claim(id, seen) {
                    Err(d) => damage.push(d),
                    Ok(page) if page.kind == PageKind::Leaf => leaf(&page, order, damage, sink)?,
                    Ok(page) if page.kind == PageKind::Branch && stack.len() < DEEPEST => {
                        if page.count == 0 {
                            damage.push(PageDamage { page: id, what: "empty branch page".into() });
                        }
                        stack.push((page, 0));
                    }
                    Ok(page) => {
                        let what = if page.kind == PageKind::Branch {
                            "tree is too deep".into()
                        } else {
                            format!("a {:?} page stands in a tree", page.kind).to_lowercase()
                        };
                        damage.push(PageDamage { page: id, what });
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
                Err(what) => damage.push(PageDamage { page: page.id, what }),
            }
            *i += 1;
        }
    }

    /// Reads a page of a tree and marks it and its overflow pages as used.
    fn claim(&self, id: u64, seen: &mut PageSet) -> Result<Page<'a>, PageDamage> {
        if id < 2 {
            return Err(PageDamage { page: id, what: "a tree points at a meta page".into() });
        }
        if seen.contains(id) {
            return Err(PageDamage { page: id, what: "page is used twice".into() });
        }
        let page = self.page(id)?;
        for p in id..=id + u64::from(page.overflow) {
            if !seen.insert(p) {
                return Err(PageDamage { page: p, what: "page is used twice".into() });
            }
        }
        Ok(page)
    }
}

/// The last key seen: keys ascend through the whole bucket.
#[derive(Default)]
struct Order<'a> {
    last: &'a [u8],
}

fn leaf<'a>(
    page: &Page<'a>,
    order: &mut Order<'a>,
    damage: &mut Vec<PageDamage>,
    sink: &mut Sink<'_, 'a>,
) -> ControlFlow<()> {
    for i in 0..page.count {
        match page.element(i) {
            Ok(element) => {
                if element.key <= order.last {
                    let what = format!("element {i} is out of order");
                    damage.push(PageDamage { page: page.id, what });
                }
                order.last = element.key;
                sink(page, element)?;
            }
            Err(what) => damage.push(PageDamage { page: page.id, what }),
        }
    }
    ControlFlow::Continue(())
}
