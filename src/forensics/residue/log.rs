//! Plaintext in segments of the write-ahead log, and in files without any structure.
//!
//! Segments are searched as bytes, not entry by entry: what lies behind a break, in entries that
//! were overwritten or never committed, and in preallocated space that was used before, is
//! plaintext just as well.

use std::collections::BTreeMap;

use super::database::finding;
use super::{Bytes, Place, Sink};
use crate::forensics::Targets;
use crate::forensics::carve::{Carver, Flat, Hit, Shape};
use crate::wal::replay::Change;
use crate::wal::{Log, LogEntry, Segment};

/// Looks through the segments of a log, of which `log` is what can be read in order and `changes`
/// what [`crate::wal::replay::whole`] says that it did.
pub fn examine_log(
    segments: &[Segment<'_>],
    log: &Log<'_>,
    changes: &[(u64, Change<'_>)],
    targets: &Targets,
    sink: &mut dyn Sink,
) {
    let puts = changes.iter().filter(|(_, c)| c.live.is_some());
    let revisions: BTreeMap<(u64, &[u8]), i64> =
        puts.map(|(index, c)| ((*index, c.key), c.revision.main)).collect();
    let carver = Carver::new(targets);
    for (number, segment) in segments.iter().enumerate() {
        let entries: Vec<_> = log.entries.iter().filter(|e| e.segment == number).collect();
        for hit in search(&carver, segment.data) {
            let around = around(&entries, segment, &hit);
            let location = match around {
                Some(e) => format!("{} entry {} offset {}", segment.name, e.index, hit.at),
                None => format!("{} offset {}", segment.name, hit.at),
            };
            let Some(mut found) = finding(Place::Wal, location, &hit, targets) else { continue };
            if let (Some(e), Shape::Put) = (around.filter(|e| !e.replaced), hit.shape) {
                let put = (e.index, hit.key);
                found.revision = revisions.get(&put).copied();
            }
            sink.found(found, Bytes::new(segment.data, hit.value_at, &hit.pieces));
        }
    }
}

/// Looks through bytes of which nothing is known.
pub fn examine_bytes(
    name: &str,
    place: Place,
    data: &[u8],
    targets: &Targets,
    sink: &mut dyn Sink,
) {
    for hit in search(&Carver::new(targets), data) {
        let location = format!("{name} offset {}", hit.at);
        let Some(found) = finding(place, location, &hit, targets) else { continue };
        sink.found(found, Bytes::new(data, hit.value_at, &hit.pieces));
    }
}

fn search<'a>(carver: &Carver<'_>, data: &'a [u8]) -> Vec<Hit<'a>> {
    carver.search(data, &[0..data.len()], &Flat { len: data.len() })
}

/// The entry that a hit lies in. `entries` are those of the segment, ascending by offset.
fn around<'e, 'a>(
    entries: &[&'e LogEntry<'a>],
    segment: &Segment<'a>,
    hit: &Hit<'_>,
) -> Option<&'e LogEntry<'a>> {
    let after = entries.partition_point(|e| e.offset <= hit.at);
    let entry = entries[..after].last()?;
    let start = segment.offset_of(entry.data)?;
    (start..start + entry.data.len()).contains(&hit.at).then_some(*entry)
}
