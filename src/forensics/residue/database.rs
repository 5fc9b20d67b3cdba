//! Plaintext in a bbolt file of etcd's.

use std::ops::{ControlFlow, Range};

use super::orphan;
use super::terrain::Pages;
use super::terrain::location;
use super::{Bytes, Finding, Head, Place, Sink};
use crate::bolt::{Db, Element, PageDamage, PageKind, PageSet};
use crate::forensics::Targets;
use crate::forensics::carve::{Behind, Carver, Hit, LEG, Shape};
use crate::mvcc::{NotedRecord, Revision, State, key_value, record_key};

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

/// Looks through a whole file, several times over; `behind` hears of the parts.
pub fn examine(
    db: &Db<'_>,
    targets: &Targets,
    newer: &Newer<'_>,
    behind: &Behind<'_>,
    sink: &mut dyn Sink,
) -> Database {
    let mut outcome = Database::default();
    let live = live_tree(db, targets, newer, behind, &mut outcome, sink);
    let pages = Pages::new(db, &live);
    let windows = windows(db, &pages, behind);
    // Of plaintext alone: what an encrypted record once covered may be plaintext's again.
    let mut covered = Vec::new();
    Carver::new(targets).telling(behind).each(db.data(), &windows, &pages, &mut |hit| {
        let place =
            if pages.is_live(hit.at / pages.size()) { Place::PageSlack } else { Place::FreePage };
        report(db, place, &hit, targets, sink);
        if !hit.encrypted {
            covered.extend(hit.pieces);
        }
    });
    orphan::examine(db, &pages, targets, covered, behind, sink);
    outcome
}

/// Looks through a database file that is left over as a whole: nothing in it is live.
pub fn examine_leftover(name: &str, db: &Db<'_>, targets: &Targets, sink: &mut dyn Sink) {
    let none = PageSet::default();
    let pages = Pages::new(db, &none);
    let whole = 0..db.data().len();
    Carver::new(targets).each(db.data(), &[whole], &pages, &mut |hit| {
        let location = format!("{name} {}", location(pages.size(), hit.at));
        if let Some(finding) = finding(Place::LeftoverFile, location, &hit, targets) {
            sink.found(finding, Bytes::new(db.data(), hit.value_at, &hit.pieces));
        }
    });
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
        written: hit.written,
        deletion: hit.shape == Shape::Tombstone,
        size: hit.present() as u64,
        partial: hit.partial(),
        encrypted: hit.encrypted,
    })
}

fn report(db: &Db<'_>, place: Place, hit: &Hit<'_>, targets: &Targets, sink: &mut dyn Sink) {
    let location = location(db.page_size(), hit.at);
    if let Some(finding) = finding(place, location, hit, targets) {
        sink.found(finding, Bytes::new(db.data(), hit.value_at, &hit.pieces));
    }
}

/// The key space of a file: of the keys that are looked for, the newest record and those that are
/// looked for and are not the newest.
struct KeySpace<'a, 't> {
    targets: &'t Targets,
    /// Noted with a record: whether it is looked for, and is encrypted. Only of keys of which such
    /// a record was seen: where plaintext alone is looked for, there are few.
    newest: State<'a, Option<bool>>,
    superseded: Vec<NotedRecord<'a, Option<bool>>>,
    /// Newest revision of all keys.
    revision: i64,
    unread: Vec<PageDamage>,
}

impl<'a> KeySpace<'a, '_> {
    /// Takes a record, in ascending order of revisions.
    fn take(&mut self, page: u64, element: &Element<'a>) {
        let Some(at) = Revision::parse(element.key) else { return };
        self.revision = self.revision.max(at.main);
        let undecodable = || PageDamage {
            page,
            what: format!("the record of revision {} cannot be decoded", at.main),
        };
        let Some(key) = record_key(element.value) else {
            self.unread.push(undecodable());
            return;
        };
        if !self.targets.query().wants(key) {
            return;
        }
        let taken = match (!at.tombstone).then(|| key_value(element.value)) {
            Some(Ok(entry)) => {
                self.targets.takes(entry.stored()).filter(|_| self.targets.locate(key).is_some())
            }
            Some(Err(_)) => {
                self.unread.extend(self.targets.locate(key).map(|_| undecodable()));
                None
            }
            None => None,
        };
        if taken.is_some() || self.newest.has(key) {
            let new = NotedRecord { revision: at, record: element.value, page, note: taken };
            let old = self.newest.supersede(key, new);
            self.superseded.extend(old.filter(|old| old.note.is_some()));
        }
    }

    /// Tells what is live, and then what is not, in the order of revisions. Returns what is live
    /// and stored unencrypted.
    fn tell(
        mut self,
        db: &Db<'_>,
        newer: &Newer<'_>,
        behind: &Behind<'_>,
        sink: &mut dyn Sink,
    ) -> Head {
        let mut head = Head::default();
        let mut since = 0;
        for held in self.newest.into_records(false) {
            since += held.record.len();
            if since > LEG {
                behind(0..db.data().len());
                since = 0;
            }
            let (Some(encrypted), Ok(entry)) = (held.note, key_value(held.record)) else {
                continue;
            };
            if newer(entry.key).is_some_and(|(main, _)| main > held.revision.main) {
                self.superseded.push(held);
                continue;
            }
            if !encrypted {
                head.add(entry.key, self.targets);
            }
            sink.live(entry.key, entry.stored());
        }
        self.superseded.sort_by_key(|held| held.revision);
        let base = db.data().as_ptr().addr();
        for held in self.superseded {
            let (Some(encrypted), Ok(entry)) = (held.note, key_value(held.record)) else {
                continue;
            };
            let Some(found) = self.targets.locate(entry.key) else { continue };
            let value = entry.stored();
            let value_at = value.as_ptr().addr().saturating_sub(base);
            let finding = Finding {
                place: Place::SupersededRevision,
                location: location(db.page_size(), held.record.as_ptr().addr() - base),
                key: Some(entry.key.to_vec()),
                resource: found.resource.into_owned(),
                revision: Some(held.revision.main),
                written: None,
                deletion: false,
                size: value.len() as u64,
                partial: false,
                encrypted,
            };
            let piece = value_at..value_at + value.len();
            sink.found(finding, Bytes::new(db.data(), value_at, std::slice::from_ref(&piece)));
        }
        head
    }
}

/// Walks all buckets: tells what is live and which plaintext is superseded, and returns the pages
/// in use.
fn live_tree(
    db: &Db<'_>,
    targets: &Targets,
    newer: &Newer<'_>,
    behind: &Behind<'_>,
    outcome: &mut Database,
    sink: &mut dyn Sink,
) -> PageSet {
    let mut live = PageSet::default();
    let mut damage = Vec::new();
    let mut keys = KeySpace {
        targets,
        newest: State::new(0),
        superseded: Vec::new(),
        revision: 1,
        unread: Vec::new(),
    };
    // Neighbours in the tree lie anywhere in the file.
    let (mut last, mut since) = (u64::MAX, 0);
    for (name, bucket) in db.buckets(&mut live, &mut damage) {
        // The sink never breaks.
        let _ = db.walk(bucket, &mut live, &mut damage, &mut |page, element| {
            if page.id != last {
                (last, since) = (page.id, since + page.bytes.len());
            }
            if since > LEG {
                behind(0..db.data().len());
                since = 0;
            }
            match (name, element.key) {
                (b"key", _) => keys.take(page.id, &element),
                (b"meta", b"scheduledCompactRev" | b"finishedCompactRev") => {
                    let at = Revision::parse(element.value).map_or(0, |r| r.main);
                    keys.revision = keys.revision.max(at);
                }
                _ => {}
            }
            ControlFlow::Continue(())
        });
    }
    outcome.revision = keys.revision;
    damage.append(&mut keys.unread);
    outcome.damage = damage;
    outcome.head = keys.tell(db, newer, behind, sink);
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
        PageKind::Meta | PageKind::Freelist => vec![0..page.head()],
        PageKind::Leaf | PageKind::Branch => {
            let mut used = vec![0..page.head()];
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
