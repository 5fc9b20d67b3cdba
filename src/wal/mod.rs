//! etcd's write-ahead log, read from the bytes of its segments: frames, the running checksum,
//! raft entries and which of them count.
//!
//! Source: etcd-io/etcd `server/storage/wal/{wal,decoder,repair}.go`,
//! `server/storage/wal/walpb/record.proto`; etcd-io/raft `raftpb/raft.proto`.
//!
//! A log that is broken in the middle is reported and read on behind the break: what lies there
//! may not count for the state, but it is still there.

mod frame;
pub mod replay;
pub mod request;

use frame::{Frame, Frames};

use crate::proto::Fields;

/// One segment file.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    /// File name, `<16 hex sequence>-<16 hex first index>.wal`.
    pub name: &'a str,
    /// All bytes of the file.
    pub data: &'a [u8],
}

impl std::fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} <{} bytes>", self.name, self.data.len())
    }
}

impl Segment<'_> {
    /// Offset in the file of bytes that were borrowed from it.
    #[must_use]
    pub fn offset_of(&self, part: &[u8]) -> Option<usize> {
        let offset = (part.as_ptr() as usize).checked_sub(self.data.as_ptr() as usize)?;
        (offset.checked_add(part.len())? <= self.data.len()).then_some(offset)
    }
}

/// Sequence number and first raft index in a segment's name.
#[must_use]
pub fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (seq, index) = name.strip_suffix(".wal")?.split_once('-')?;
    let hex = |s: &str| {
        let digits = s.len() == 16 && s.bytes().all(|b| b.is_ascii_hexdigit());
        if digits { u64::from_str_radix(s, 16).ok() } else { None }
    };
    Some((hex(seq)?, hex(index)?))
}

/// What kind of raft entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A request, see [`request::decode`].
    Normal,
    /// A change of membership.
    ConfChange,
    /// Not known to etcd, which ends when it is to apply it.
    Other(u64),
}

/// A raft entry and where it lies.
#[derive(Clone, Copy)]
pub struct LogEntry<'a> {
    /// Kind of entry.
    pub kind: EntryKind,
    /// Raft term.
    pub term: u64,
    /// Raft index.
    pub index: u64,
    /// The request or change; may hold secrets.
    pub data: &'a [u8],
    /// Position of the segment in the list that was read.
    pub segment: usize,
    /// Offset of the frame in the segment, bytes.
    pub offset: usize,
    /// A later entry of the same or a lower index took its place: it never counted.
    pub replaced: bool,
}

/// `raftpb.HardState`: what a member promised to remember.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Raft term.
    pub term: u64,
    /// The member voted for.
    pub vote: u64,
    /// Index up to which entries are known to be committed.
    pub commit: u64,
}

/// A place where the log is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// Position of the segment in the list that was read.
    pub segment: usize,
    /// Offset in the segment, bytes.
    pub offset: usize,
    /// What is wrong, without stored bytes.
    pub what: String,
    /// The end of the last write before a crash: etcd cuts it off and goes on.
    pub torn: bool,
}

/// Everything that the segments hold.
#[derive(Default)]
pub struct Log<'a> {
    /// All entries in the order they were written, replaced ones included.
    pub entries: Vec<LogEntry<'a>>,
    /// The last state that was written.
    pub hard_state: HardState,
    /// Index and term of the snapshots that were recorded.
    pub snapshots: Vec<(u64, u64)>,
    /// Where the log is broken.
    pub breaks: Vec<Break>,
}

impl<'a> Log<'a> {
    /// Reads segments, which must be given in ascending order of their sequence numbers.
    #[must_use]
    pub fn read(segments: &[Segment<'a>]) -> Self {
        let mut log = Self::default();
        let mut reader = LogReader { log: &mut log, crc: 0, metadata: None };
        for (i, segment) in segments.iter().enumerate() {
            if i > 0 && !follows(segments[i - 1].name, segment.name) {
                reader.damage(i, 0, "a segment is missing before this one".into(), false);
                // The running checksum begins anew with the segment's own.
                reader.crc = 0;
            }
            reader.segment(i, segment.data, i + 1 == segments.len());
        }
        if reader.metadata.is_none() && !reader.log.entries.is_empty() {
            reader.damage(0, 0, "the log does not say whose it is".into(), false);
        }
        log.mark_replaced();
        log.check_terms();
        log
    }

    /// Entries that were not replaced, by ascending index.
    pub fn effective(&self) -> impl Iterator<Item = &LogEntry<'a>> {
        self.entries.iter().filter(|e| !e.replaced)
    }

    /// An entry drops all earlier ones of its own index and above (raft's overwrite rule).
    fn mark_replaced(&mut self) {
        let mut lowest = u64::MAX;
        for entry in self.entries.iter_mut().rev() {
            entry.replaced = entry.index >= lowest;
            lowest = lowest.min(entry.index);
        }
    }

    /// The checksum of a record does not cover its type: one that was taken for an entry shows in
    /// its term.
    fn check_terms(&mut self) {
        let mut highest = 0;
        let mut broken = None;
        for entry in self.effective() {
            if entry.term < highest {
                broken = Some((entry.segment, entry.offset));
                break;
            }
            highest = entry.term;
        }
        if let Some((segment, offset)) = broken {
            let what = "an entry of an earlier term than the one before it".into();
            self.breaks.push(Break { segment, offset, what, torn: false });
        }
    }
}

/// Whether `next` carries the sequence number behind that of `name`.
fn follows(name: &str, next: &str) -> bool {
    match (parse_name(name), parse_name(next)) {
        (Some((a, _)), Some((b, _))) => a.checked_add(1) == Some(b),
        _ => true,
    }
}

struct LogReader<'l, 'a> {
    log: &'l mut Log<'a>,
    /// CRC-32C over all data so far.
    crc: u32,
    /// Whose log it is; every segment says it anew.
    metadata: Option<&'a [u8]>,
}

impl<'a> LogReader<'_, 'a> {
    fn damage(&mut self, segment: usize, offset: usize, what: String, torn: bool) {
        self.log.breaks.push(Break { segment, offset, what, torn });
    }

    fn segment(&mut self, number: usize, data: &'a [u8], last: bool) {
        let mut frames = Frames::new(data);
        while let Some(frame) = frames.next() {
            match frame {
                Ok(frame) => {
                    let offset = frame.offset;
                    let Err(what) = self.record(number, &frame) else { continue };
                    let torn = last && frame.is_torn();
                    self.damage(number, offset, what, torn);
                    if torn {
                        return;
                    }
                }
                // Without a length there is no next frame; a write that a crash cut short ends
                // at the end of the file.
                Err(bad) => {
                    self.damage(number, bad.offset, bad.what, last && bad.at_end);
                    return;
                }
            }
        }
    }

    fn record(&mut self, segment: usize, frame: &Frame<'a>) -> Result<(), String> {
        let record = frame.record()?;
        if record.kind == frame::CRC {
            let expected = self.crc;
            self.crc = record.crc;
            // The first segment given may begin in the middle of the chain.
            if expected != 0 && expected != record.crc {
                return Err("the checksum carried over from the segment before differs".into());
            }
            return Ok(());
        }
        let crc = crc32c::crc32c_append(self.crc, record.data);
        // With the record's own, what follows can be checked even when this does not hold.
        self.crc = record.crc;
        if crc != record.crc {
            return Err("checksum mismatch".into());
        }
        let malformed = |_| "a record cannot be decoded".to_owned();
        match record.kind {
            frame::METADATA => {
                if *self.metadata.get_or_insert(record.data) != record.data {
                    return Err("it says that this is another member's log".into());
                }
            }
            frame::ENTRY => {
                let entry = entry(record.data, segment, frame.offset).map_err(malformed)?;
                self.log.entries.push(entry);
            }
            frame::STATE => {
                let new = hard_state(record.data).map_err(malformed)?;
                let old = std::mem::replace(&mut self.log.hard_state, new);
                if new.term < old.term || new.commit < old.commit {
                    return Err("a state that is older than the one before it".into());
                }
            }
            frame::SNAPSHOT => {
                let (mut index, mut term) = (0, 0);
                for field in Fields::new(record.data) {
                    let field = field.map_err(malformed)?;
                    match field.number {
                        1 => index = field.varint().unwrap_or(0),
                        2 => term = field.varint().unwrap_or(0),
                        _ => {}
                    }
                }
                self.log.snapshots.push((index, term));
            }
            kind => return Err(format!("unknown record type {kind}")),
        }
        Ok(())
    }
}

fn entry(
    data: &[u8],
    segment: usize,
    offset: usize,
) -> Result<LogEntry<'_>, crate::proto::Malformed> {
    let mut entry = LogEntry {
        kind: EntryKind::Normal,
        term: 0,
        index: 0,
        data: &[],
        segment,
        offset,
        replaced: false,
    };
    for field in Fields::new(data) {
        let field = field?;
        let wrong = crate::proto::Malformed { offset: field.offset };
        match field.number {
            1 => {
                entry.kind = match field.varint().ok_or(wrong)? {
                    0 => EntryKind::Normal,
                    1 => EntryKind::ConfChange,
                    other => EntryKind::Other(other),
                }
            }
            2 => entry.term = field.varint().ok_or(wrong)?,
            3 => entry.index = field.varint().ok_or(wrong)?,
            4 => entry.data = field.bytes().ok_or(wrong)?,
            _ => {}
        }
    }
    Ok(entry)
}

fn hard_state(data: &[u8]) -> Result<HardState, crate::proto::Malformed> {
    let mut state = HardState::default();
    for field in Fields::new(data) {
        let field = field?;
        let number = field.varint().ok_or(crate::proto::Malformed { offset: field.offset });
        match field.number {
            1 => state.term = number?,
            2 => state.vote = number?,
            3 => state.commit = number?,
            _ => {}
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests;
