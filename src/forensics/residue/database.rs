//! Plaintext in a bbolt file of etcd's.

use std::ops::{ControlFlow, Range};

use super::orphan;
use super::terrain::Pages;
use super::terrain::location;
use super::{Bytes, Finding, Head, Place, Sink};
use crate::bolt::{Db, PageDamage, PageKind, PageSet};
use crate::forensics::Targets;
use crate::forensics::carve::{Behind, Carver, Hit, LEG};
use crate::mvcc::{Revision, key_value, record_key};

/// What an examination of a file says beside its findings.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// Live entries of the targets that are stored unencrypted.
    pub head: Head,
    /// The newest revision in the file.
    pub revision: i64,
    /// Parts that could not be read. What lies in them counts as free pages.
    pub damage: Vec<PageDamage>,
}

/// Newer knowledge than the file's, as from a write-ahead log: the newest revision of a key, and
/// whether it is deleted.
pub type Newer<'n> = dyn Fn(&[u8]) -> Option<(i64, bool)> + 'n;

/// The bytes of a page's header and of each element's.
const HEADER: usize = 16;

/// Looks through a whole file, several times over; `behind` hears of the parts.
pub fn examine(
    db: &Db<'_>,
    targets: &Targets,
    newer: &Newer<'_>,
    behind: &Behind<'_>,
    sink: &mut Sink<'_>,
) -> Database {
    let mut outcome = Database::default();
    let live = live_tree(db, targets, newer, behind, &mut outcome, sink);
    let pages = Pages::new(db, &live);
    let windows = windows(db, &pages, behind);
    let hits = Carver::new(targets).telling(behind).search(db.data(), &windows, &pages);
    for hit in &hits {
        let place =
            if pages.is_live(hit.at / pages.size()) { Place::PageSlack } else { Place::FreePage };
        report(db, place, hit, targets, sink);
    }
    orphan::examine(db, &pages, targets, &hits, behind, sink);
    outcome
}

/// Looks through a database file that is left over as a whole: nothing in it is live.
pub fn examine_leftover(name: &str, db: &Db<'_>, targets: &Targets, sink: &mut Sink<'_>) {
    let none = PageSet::default();
    let pages = Pages::new(db, &none);
    let whole = 0..db.data().len();
    for hit in Carver::new(targets).search(db.data(), &[whole], &pages) {
        let location = format!("{name} {}", location(pages.size(), hit.at));
        let Some(finding) = finding(Place::LeftoverFile, location, &hit, targets) else { continue };
        sink(finding, Bytes::new(db.data(), hit.value_at, &hit.pieces));
    }
}

/// What a hit is as a finding.
pub(super) fn finding(
    place: Place,
    location: String,
    hit: &Hit<'_>,
    targets: &Targets,
) -> Option<Finding> {
    let resource = targets.locate(hit.key)?.resource.into_owned();
    Some(Finding {
        place,
        location,
        key: Some(hit.key.to_vec()),
        resource,
        revision: hit.revision,
        size: hit.present() as u64,
        partial: hit.partial(),
        encrypted: hit.encrypted,
    })
}

fn report(db: &Db<'_>, place: Place, hit: &Hit<'_>, targets: &Targets, sink: &mut Sink<'_>) {
    let location = location(db.page_size(), hit.at);
    if let Some(finding) = finding(place, location, hit, targets) {
        sink(finding, Bytes::new(db.data(), hit.value_at, &hit.pieces));
    }
}

/// A record of the key space that is looked for.
struct Plain<'a> {
    key: &'a [u8],
    revision: Revision,
    /// The message.
    record: &'a [u8],
    value: &'a [u8],
    encrypted: bool,
}

/// Walks all buckets: reports superseded plaintext, and returns the pages in use.
fn live_tree(
    db: &Db<'_>,
    targets: &Targets,
    newer: &Newer<'_>,
    behind: &Behind<'_>,
    outcome: &mut Database,
    sink: &mut Sink<'_>,
) -> PageSet {
    let mut live = PageSet::default();
    let mut damage = Vec::new();
    let mut plain: Vec<Plain<'_>> = Vec::new();
    // The newest revision of each key of which a plaintext revision was seen. Only those are
    // kept: in an encrypted database there are few.
    let mut newest: hashbrown::HashMap<&[u8], Revision> = hashbrown::HashMap::new();
    let mut revision = 1;
    let mut unread = Vec::new();
    // Neighbours in the tree lie anywhere in the file.
    let (mut last, mut since) = (u64::MAX, 0);
    for (name, bucket) in db.buckets(&mut live, &mut damage) {
        let is_keys = name == b"key";
        let is_meta = name == b"meta";
        // The sink never breaks.
        let _ = db.walk(bucket, &mut live, &mut damage, &mut |page, element| {
            if page.id != last {
                (last, since) = (page.id, since + page.bytes.len());
            }
            if since > LEG {
                behind(0..db.data().len());
                since = 0;
            }
            if is_meta && matches!(element.key, b"scheduledCompactRev" | b"finishedCompactRev") {
                revision = revision.max(Revision::parse(element.value).map_or(0, |r| r.main));
            }
            let Some(at) = Revision::parse(element.key).filter(|_| is_keys) else {
                return ControlFlow::Continue(());
            };
            revision = revision.max(at.main);
            let undecodable = || PageDamage {
                page: page.id,
                what: format!("the record of revision {} cannot be decoded", at.main),
            };
            let Some(key) = record_key(element.value) else {
                unread.push(undecodable());
                return ControlFlow::Continue(());
            };
            if !targets.query().wants(key) {
                return ControlFlow::Continue(());
            }
            let entry = (!at.tombstone).then(|| key_value(element.value));
            if matches!(entry, Some(Err(_))) && targets.locate(key).is_some() {
                unread.push(undecodable());
            }
            if let Some(Ok(entry)) = entry
                && let value = entry.stored()
                && let Some(encrypted) = targets.takes(value)
                && targets.locate(key).is_some()
            {
                plain.push(Plain { key, revision: at, record: element.value, value, encrypted });
                newest.insert(key, at);
            } else if let Some(known) = newest.get_mut(key) {
                *known = at;
            }
            ControlFlow::Continue(())
        });
    }
    damage.append(&mut unread);
    outcome.revision = revision;
    outcome.damage = damage;
    for p in &plain {
        let gone_later = newer(p.key).filter(|(main, _)| *main > p.revision.main);
        let head = gone_later.is_none() && newest.get(p.key) == Some(&p.revision);
        if head {
            if !p.encrypted {
                outcome.head.add(p.key, targets);
            }
            continue;
        }
        let base = db.data().as_ptr().addr();
        let at = p.record.as_ptr().addr() - base;
        let value_at = p.value.as_ptr().addr().saturating_sub(base);
        let Some(found) = targets.locate(p.key) else { continue };
        let finding = Finding {
            place: Place::SupersededRevision,
            location: location(db.page_size(), at),
            key: Some(p.key.to_vec()),
            resource: found.resource.into_owned(),
            revision: Some(p.revision.main),
            size: p.value.len() as u64,
            partial: false,
            encrypted: p.encrypted,
        };
        let piece = value_at..value_at + p.value.len();
        sink(finding, Bytes::new(db.data(), value_at, std::slice::from_ref(&piece)));
    }
    live
}

/// Everything that no element of a page in use covers, in ascending order.
fn windows(db: &Db<'_>, pages: &Pages<'_, '_>, behind: &Behind<'_>) -> Vec<Range<usize>> {
    let size = pages.size();
    let end = db.data().len();
    let mut windows: Vec<Range<usize>> = Vec::new();
    let mut add = |window: Range<usize>| match windows.last_mut() {
        Some(last) if last.end == window.start => last.end = window.end,
        _ if window.is_empty() => {}
        _ => windows.push(window),
    };
    let mut page = 0;
    let mut told = 0;
    while page < pages.count() {
        let start = page * size;
        if start - told > LEG {
            behind(told..start);
            told = start;
        }
        let read = db.page(page as u64).ok().filter(|p| p.bytes.len() >= size);
        let in_use = page < 2 || pages.is_live(page);
        let Some(p) = read.filter(|_| in_use) else {
            add(start..(start + size).min(end));
            page += 1;
            continue;
        };
        let mut from = start;
        for u in used(&p) {
            if start + u.start > from {
                add(from..start + u.start);
            }
            from = from.max(start + u.end);
        }
        let stop = start + p.bytes.len();
        if from < stop {
            add(from..stop);
        }
        page += p.bytes.len() / size;
    }
    windows
}

/// What a page in use holds, in ascending order.
fn used(page: &crate::bolt::Page<'_>) -> Vec<Range<usize>> {
    match page.kind {
        PageKind::Meta => vec![0..HEADER + 64],
        PageKind::Freelist => vec![0..HEADER],
        PageKind::Leaf | PageKind::Branch => {
            let mut used = vec![0..HEADER + page.count * HEADER];
            for i in 0..page.count {
                if let Ok(e) = page.element(i) {
                    let range = e.offset..e.offset + e.key.len() + e.value.len();
                    match used.last_mut() {
                        Some(last) if last.end == range.start => last.end = range.end,
                        _ => used.push(range),
                    }
                }
            }
            used.sort_unstable_by_key(|r| r.start);
            used
        }
    }
}
