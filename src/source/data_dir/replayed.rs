//! The log of a member applied to its database, as etcd does when it starts.

use super::{DataDir, live};
use crate::mvcc::Store;
use crate::source::fold::fold;
use crate::source::snapshot::{checked, note_metas};
use crate::source::trail::Trail;
use crate::source::{Damage, DataDirError, KeyRange, Query, SourceError, Visit};
use crate::wal::replay::{Change, Machine};
use crate::wal::{EntryKind, Log, request};

/// A database and what its log makes of it.
pub(super) struct Replayed<'a> {
    pub(super) store: Store<'a>,
    pub(super) machine: Machine<'a>,
    pub(super) visit: Visit,
}

impl<'a> Replayed<'a> {
    /// The newest revision of database and log, and the compacted one.
    pub(super) fn bounds(&self, newest: i64) -> (i64, i64) {
        let compacted = self.store.bookkeeping.compacted();
        (newest.max(self.machine.revision), compacted.max(self.machine.compacted))
    }

    pub(super) fn changes(&self, query: &Query) -> impl Iterator<Item = &Change<'a>> {
        let limit = query.revision.filter(|r| *r > 0).unwrap_or(i64::MAX);
        self.machine.changes.iter().filter(move |c| c.revision.main <= limit && query.wants(c.key))
    }
}

fn changes_something(request: &request::Request<'_>) -> bool {
    use request::Request;
    !matches!(request, Request::Nothing | Request::Legacy | Request::Other(_))
}

impl DataDir {
    /// Opens the database and applies the log to it.
    pub(super) fn replayed(&self) -> Result<Replayed<'_>, SourceError> {
        let store = self.store()?;
        let mut visit = Visit::default();
        note_metas(store.db(), &mut visit.notes);
        let log = self.log();
        self.report_breaks(&log, &mut visit);
        let requests = self.pending(&store, &log, &mut visit)?;
        let mut machine = Machine::default();
        if requests.iter().any(changes_something) {
            machine = self.machine(&store, &mut visit);
            for request in &requests {
                machine.apply(request);
            }
            if machine.unchecked > 0 {
                visit.notes.push(format!(
                    "etcd's own authentication is on; {} requests of the log were taken as permitted",
                    machine.unchecked
                ));
            }
            if !machine.changes.is_empty() {
                visit.notes.push(format!(
                    "{} changes were taken from the write-ahead log; the database file does not have them yet",
                    machine.changes.len()
                ));
            }
        }
        Ok(Replayed { store, machine, visit })
    }

    fn report_breaks(&self, log: &Log<'_>, visit: &mut Visit) {
        for broken in &log.breaks {
            let name = self.segment_name(broken.segment);
            if broken.torn {
                visit.notes.push(format!(
                    "{name} ends in the middle of a write at offset {}, as after a crash; etcd drops that write too",
                    broken.offset
                ));
            } else {
                visit.damage.push(Damage {
                    location: format!("{name} offset {}", broken.offset),
                    what: broken.what.clone(),
                });
            }
        }
    }

    fn segment_name(&self, number: usize) -> &str {
        self.segments.get(number).map_or("", |(name, _)| name)
    }

    /// The requests that count and that the database does not have yet, in order.
    fn pending<'a>(
        &self,
        store: &Store<'_>,
        log: &Log<'a>,
        visit: &mut Visit,
    ) -> Result<Vec<request::Request<'a>>, SourceError> {
        let applied = store.bookkeeping.consistent_index.unwrap_or(0);
        let commit = self.committed(store, log, applied, visit);
        let mut pending = Vec::new();
        let mut next = applied.saturating_add(1);
        for entry in log.effective().filter(|e| e.index > applied && e.index <= commit) {
            if entry.index != next {
                self.gap(next, entry.index, visit)?;
            }
            next = entry.index.saturating_add(1);
            let what = match (entry.kind, request::decode(entry.data)) {
                (EntryKind::ConfChange, _) => continue,
                (EntryKind::Normal, Ok(request)) => {
                    pending.push(request);
                    continue;
                }
                (EntryKind::Normal, Err(_)) => "holds a request that cannot be decoded",
                (EntryKind::Other(_), _) => "is of a kind that etcd does not know",
            };
            visit.damage.push(Damage {
                location: format!("{} offset {}", self.segment_name(entry.segment), entry.offset),
                what: format!("entry {} {what}", entry.index),
            });
        }
        Ok(pending)
    }

    /// The index up to which entries count, when `applied` is the last one in the database.
    /// Reports a log that has lost its end, and entries of which it is not known.
    fn committed(&self, store: &Store<'_>, log: &Log<'_>, applied: u64, visit: &mut Visit) -> u64 {
        let last = log.effective().last().map_or(0, |e| e.index);
        // A member that is alone commits all it has as soon as it starts.
        let alone = Voters::new(store, log, applied).alone();
        let commit = if alone { last } else { log.hard_state.commit };
        // A member that received its database from a leader has only a record of that.
        let reached = log.snapshots.iter().map(|(index, _)| *index).fold(last, u64::max);
        let mut report = |what| {
            if let Some((name, _)) = self.segments.last() {
                visit.damage.push(Damage { location: name.clone(), what });
            }
        };
        // An entry is in the log, on disk, before the database gets it.
        if reached < applied {
            report(format!(
                "the log ends at entry {reached}, before entry {applied} that the database already holds: \
                 it has lost its end, and with it any later changes"
            ));
        }
        if reached < log.hard_state.commit {
            report(format!(
                "the log ends at entry {reached}, but says that entry {} is committed",
                log.hard_state.commit
            ));
        }
        let unsure = log.effective().filter(|e| e.index > commit).count();
        if unsure > 0 {
            visit.notes.push(format!(
                "{unsure} entries at the end of the log are not known to be committed and are left out; other members decide on them"
            ));
        }
        commit
    }

    /// An entry that should be there is not.
    fn gap(&self, expected: u64, found: u64, visit: &mut Visit) -> Result<(), DataDirError> {
        if !self.salvage && visit.damage.is_empty() {
            return Err(DataDirError::Gap { path: self.member.clone(), found, expected });
        }
        let what = format!("the log goes on at entry {found}, but entry {expected} is missing");
        visit.damage.push(Damage { location: self.member.display().to_string(), what });
        Ok(())
    }

    /// The whole state of the database, to apply requests to.
    fn machine<'a>(&self, store: &Store<'a>, visit: &mut Visit) -> Machine<'a> {
        let everything = Query {
            ranges: vec![KeyRange { start: Vec::new(), end: None }],
            revision: None,
            ordered: false,
        };
        let mut found = Visit::default();
        let (state, newest) =
            fold(store, &everything, self.salvage, Trail::new(&self.db), &mut found, &mut |_| ());
        visit.notes.append(&mut found.notes);
        // -1 is etcd's word for "never".
        let compacted = Some(store.bookkeeping.compacted()).filter(|c| *c > 0).unwrap_or(-1);
        let mut machine = Machine::new(newest, compacted);
        for held in state.into_records(false) {
            // What cannot be decoded is told when the records are visited.
            if let Some(entry) = checked(&held, &mut Vec::new()) {
                machine.keys.insert(entry.key, live(entry));
            }
        }
        for (id, _) in store.rows(b"lease") {
            machine.leases.extend(<[u8; 8]>::try_from(id).map(i64::from_be_bytes));
        }
        for (alarm, _) in store.rows(b"alarm") {
            machine.alarms.extend(alarm_member(alarm));
        }
        machine.auth = store.rows(b"auth").contains(&(&b"authEnabled"[..], &[1][..]));
        machine
    }
}

/// Members that vote, by ID.
struct Voters(std::collections::BTreeSet<u64>);

impl Voters {
    /// From the database, and the changes of membership behind it.
    fn new(store: &Store<'_>, log: &Log<'_>, applied: u64) -> Self {
        let mut voters = std::collections::BTreeSet::new();
        for (id, json) in store.rows(b"members") {
            let id = std::str::from_utf8(id).ok().and_then(|s| u64::from_str_radix(s, 16).ok());
            let learner = serde_json::from_slice::<serde_json::Value>(json)
                .is_ok_and(|m| m["isLearner"] == true);
            voters.extend(id.filter(|_| !learner));
        }
        let changes = log.effective().filter(|e| e.kind == EntryKind::ConfChange);
        for change in changes.filter(|e| e.index > applied) {
            let field = |wanted| {
                let mut fields = crate::proto::Fields::new(change.data).filter_map(Result::ok);
                fields.find(|f| f.number == wanted).and_then(|f| f.varint()).unwrap_or(0)
            };
            // raftpb.ConfChange: type = 2, node_id = 3.
            match field(2) {
                0 => voters.insert(field(3)),
                1 => voters.remove(&field(3)),
                _ => false,
            };
        }
        Self(voters)
    }

    fn alone(&self) -> bool {
        self.0.len() == 1
    }
}

fn alarm_member(bytes: &[u8]) -> Option<(u64, u64)> {
    let (mut member, mut kind) = (0, 0);
    for field in crate::proto::Fields::new(bytes) {
        let field = field.ok()?;
        match field.number {
            1 => member = field.varint()?,
            2 => kind = field.varint()?,
            _ => {}
        }
    }
    Some((kind, member))
}
