//! Incremental snapshots of Gardener's etcd-backup-restore: the changes since the snapshot before.
//!
//! A JSON list of events and the SHA-256 of it, 32 bytes, compressed or not
//! (gardener/etcd-backup-restore `pkg/snapshot/snapshotter/snapshotter.go`: `TakeDeltaSnapshot`,
//! `handleDeltaWatchEvents`; etcd `api/mvccpb/kv.pb.go` for the names of the fields).

use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use base64::Engine as _;
use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor as SerdeVisitor};
use zeroize::Zeroizing;

use super::input::Input;
use super::magic::EVENTS;
use super::walk::{Failed, Visitor, walk};
use super::{Damage, FileError, Record, RecordSink, SourceError, Visit, open_file};
use crate::entry::EntryRef;

/// More than any event: etcd stops at 1.5 MiB by default.
const LARGEST_EVENT: u64 = 128 << 20;
/// Bytes of the SHA-256 at the end.
const TRAILER: usize = 32;
/// What is read at once.
const CHUNK: usize = 64 << 10;

/// A snapshot of changes.
#[derive(Debug)]
pub struct Incremental {
    path: PathBuf,
    input: Input,
}

impl Incremental {
    /// Opens a file; whether it is such a snapshot, reading it tells.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let cannot = |cause| FileError::Unreadable { path: path.to_owned(), cause };
        Ok(Self::of_file(path, open_file(path).map_err(cannot)?))
    }

    /// As [`Incremental::open`], of a file that is open already; `name` stands for its path.
    #[must_use]
    pub fn of_file(name: &Path, file: impl Into<Input>) -> Self {
        Self { path: name.to_owned(), input: file.into() }
    }

    /// Calls `sink` for every change, in ascending revision order. `None` if it is no such
    /// snapshot.
    ///
    /// # Errors
    /// When it cannot be unpacked at all.
    pub fn changes(&self, sink: &mut RecordSink<'_>) -> Result<Option<Visit>, SourceError> {
        let mut reading = Reading { sink, visit: None };
        let walked = walk(&self.input, &mut reading);
        match (reading.visit, walked) {
            (Some(visit), _) => Ok(Some(visit)),
            (None, Ok(())) => Ok(None),
            (None, Err(failed)) => Err(failed.of(&self.path).into()),
        }
    }
}

struct Reading<'s, 'r> {
    sink: &'s mut RecordSink<'r>,
    /// Of the first snapshot that was met.
    visit: Option<Visit>,
}

impl Visitor for Reading<'_, '_> {
    fn member(&mut self, _name: &[u8]) -> Result<bool, Failed> {
        Ok(self.visit.is_none())
    }

    fn takes(&self, head: &[u8]) -> bool {
        head.starts_with(EVENTS)
    }

    fn take(&mut self, _name: &[u8], reader: &mut dyn Read) -> Result<(), Failed> {
        let mut events = Events { sink: self.sink, count: 0, visit: Visit::default() };
        let since = Rc::new(Cell::new(0));
        let mut body = Body::new(reader, Rc::clone(&since));
        let mut json = serde_json::Deserializer::from_reader(BufReader::new(&mut body));
        let read = Seq { events: &mut events, since: &since }.deserialize(&mut json);
        let read = read.and_then(|()| json.end());
        drop(json);
        let what = match read {
            // The text of the error quotes nothing of what was read.
            Err(e) if e.is_data() => Some("it is no list of events of etcd".to_owned()),
            Err(e) => Some(format!("it is cut or damaged, and nothing more was read: {e}")),
            Ok(()) if body.is_sound() => None,
            Ok(()) => Some("it does not match its own SHA-256: it was changed".to_owned()),
        };
        let location = format!("behind event {}", events.count);
        events.visit.damage.extend(what.map(|what| Damage { location, what }));
        self.visit = Some(events.visit);
        Ok(())
    }
}

/// All but the last bytes of a stream, which are the digest of the others.
struct Body<'r> {
    reader: &'r mut dyn Read,
    held: Vec<u8>,
    given: usize,
    ended: bool,
    digest: Context,
    /// Bytes since the last event.
    since: Rc<Cell<u64>>,
}

impl<'r> Body<'r> {
    fn new(reader: &'r mut dyn Read, since: Rc<Cell<u64>>) -> Self {
        let digest = Context::new(&SHA256);
        Self { reader, held: Vec::new(), given: 0, ended: false, digest, since }
    }

    /// Whether the digest is that of what was read.
    fn is_sound(&self) -> bool {
        self.ended && self.held[self.given..] == *self.digest.clone().finish().as_ref()
    }

    fn fill(&mut self) -> io::Result<()> {
        self.held.drain(..self.given);
        self.given = 0;
        while !self.ended && self.held.len() <= TRAILER {
            let before = self.held.len();
            self.held.resize(before + CHUNK, 0);
            let read = self.reader.read(&mut self.held[before..]);
            self.held.truncate(before + *read.as_ref().unwrap_or(&0));
            self.ended = read? == 0;
        }
        Ok(())
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.held.len() - self.given <= TRAILER {
            self.fill()?;
        }
        let left = (self.held.len() - self.given).saturating_sub(TRAILER);
        let n = left.min(buffer.len());
        let bytes = &self.held[self.given..self.given + n];
        buffer[..n].copy_from_slice(bytes);
        self.digest.update(bytes);
        self.given += n;
        self.since.set(self.since.get() + n as u64);
        if self.since.get() > LARGEST_EVENT {
            return Err(io::Error::other("an event is larger than any of etcd's"));
        }
        Ok(n)
    }
}

impl Drop for Body<'_> {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.held);
    }
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "etcdEvent")]
    event: EtcdEvent,
}

#[derive(Deserialize)]
struct EtcdEvent {
    /// 0, and then left out, for a put; 1 for a deletion.
    #[serde(default, rename = "type")]
    kind: u8,
    kv: KeyValue,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeyValue {
    key: String,
    value: String,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    lease: i64,
}

struct Events<'s, 'r> {
    sink: &'s mut RecordSink<'r>,
    count: u64,
    visit: Visit,
}

impl Events<'_, '_> {
    fn take(&mut self, event: EtcdEvent) -> ControlFlow<()> {
        self.count += 1;
        let text = Zeroizing::new(event.kv.value);
        let bytes = |text: &str| base64::engine::general_purpose::STANDARD.decode(text);
        let (Ok(key), Ok(value)) = (bytes(&event.kv.key), bytes(&text)) else {
            self.visit.damage.push(Damage {
                location: format!("event {}", self.count),
                what: "its key or value is no base64".to_owned(),
            });
            return ControlFlow::Continue(());
        };
        let value = Zeroizing::new(value);
        let KeyValue { create_revision, mod_revision, version, lease, .. } = event.kv;
        self.visit.revision = self.visit.revision.max(mod_revision);
        (self.sink)(match event.kind {
            0 => Record::Put(EntryRef {
                create_revision,
                mod_revision,
                version,
                lease,
                ..EntryRef::new(&key, &value)
            }),
            _ => Record::Delete { key: &key, revision: mod_revision },
        })
    }
}

/// Reads the list event by event, so that one is in memory at a time.
struct Seq<'e, 's, 'r> {
    events: &'e mut Events<'s, 'r>,
    since: &'e Cell<u64>,
}

impl<'de> DeserializeSeed<'de> for Seq<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> SerdeVisitor<'de> for Seq<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut wanted = true;
        while let Some(Event { event }) = seq.next_element()? {
            self.since.set(0);
            // What nobody wants any more is read all the same: the digest is of all.
            wanted = wanted && self.events.take(event).is_continue();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn signed(events: &str) -> Vec<u8> {
        let digest = ring::digest::digest(&SHA256, events.as_bytes());
        [events.as_bytes(), digest.as_ref()].concat()
    }

    fn read(bytes: &[u8]) -> Option<(Vec<String>, Visit)> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut seen = Vec::new();
        let snapshot = Incremental::of_file(Path::new("Incr"), file);
        let visit = snapshot.changes(&mut |record| {
            seen.push(match record {
                Record::Put(e) => format!(
                    "{}={} {}/{}/{}/{}",
                    e.key.escape_ascii(),
                    e.stored().escape_ascii(),
                    e.create_revision,
                    e.mod_revision,
                    e.version,
                    e.lease
                ),
                Record::Delete { key, revision } => format!("-{} {revision}", key.escape_ascii()),
            });
            ControlFlow::Continue(())
        });
        Some((seen, visit.unwrap()?))
    }

    const EVENTS: &str = r#"[{"etcdEvent":{"kv":{"key":"L2E=","create_revision":5,"mod_revision":7,"version":2,"value":"eA==","lease":9}},"time":"2026-01-01T00:00:00Z"},{"etcdEvent":{"type":1,"kv":{"key":"L2I=","mod_revision":8}},"time":"2026-01-01T00:00:01Z"}]"#;

    #[test]
    fn events_are_changes() {
        let whole = signed(EVENTS);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&whole).unwrap();
        for bytes in [whole.clone(), gzip.finish().unwrap()] {
            let (seen, visit) = read(&bytes).unwrap();
            assert_eq!(seen, ["/a=x 5/7/2/9", "-/b 8"]);
            assert_eq!((visit.revision, visit.damage), (8, vec![]));
        }
        assert!(read(b"something else").is_none());
        let cut = read(&whole[..whole.len() / 2 + 60]).unwrap();
        assert_eq!((cut.0.len(), cut.1.damage.len()), (1, 1));
        let mut changed = whole;
        let at = EVENTS.find("eA==").unwrap();
        changed[at] = b'f';
        let (seen, visit) = read(&changed).unwrap();
        assert_eq!(seen.len(), 2);
        assert!(visit.damage[0].what.contains("SHA-256"), "{:?}", visit.damage);
        let foreign = read(&signed(r#"[{"etcdEvent":{"kv":3}}]"#)).unwrap();
        assert!(foreign.1.damage[0].what.contains("no list of events"), "{:?}", foreign.1.damage);
    }
}
