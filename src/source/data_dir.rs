//! The data directory of a stopped member: its database, and the write-ahead log applied on top,
//! so that the state is what etcd would serve after a restart.

mod held;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::file::{Bytes, InUse, read};
use super::fold::fold;
use super::snapshot::{SnapshotOptions, checked, note_metas, open_store, records, revision};
use super::trail::Trail;
use super::{
    Damage, EntrySink, HeldSink, KeyRange, Query, Record, RecordSink, Source, SourceError,
    SourceInfo, SourceKind, Visit,
};
use crate::entry::{EntryRef, Value};
use crate::mvcc::Store;
use crate::wal::replay::{Change, Live, Machine};
use crate::wal::{EntryKind, Log, Segment, parse_name, request};

/// An open data directory.
#[derive(Debug)]
pub struct DataDir {
    dir: PathBuf,
    member: PathBuf,
    db_path: PathBuf,
    db: Bytes,
    segments: Vec<(String, Bytes)>,
    salvage: bool,
}

/// Whether an etcd runs on a data directory. Its lock is tried, and given back at once.
///
/// # Errors
/// When the database cannot be opened.
pub fn in_use(dir: &Path) -> std::io::Result<bool> {
    Ok(super::file::in_use(&std::fs::File::open(dir.join("member/snap/db"))?))
}

/// A file that a running or crashed etcd left beside the ones it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Where it is.
    pub path: PathBuf,
    /// What it is, in words.
    pub what: &'static str,
    /// Its size, bytes.
    pub size: u64,
}

impl Leftover {
    /// Its bytes.
    ///
    /// # Errors
    /// When it cannot be read, or is no regular file or empty.
    pub fn read(&self) -> Result<Bytes, SourceError> {
        read(&self.path, InUse::Allow)
    }
}

impl DataDir {
    /// Opens a data directory, or the `member` directory in one.
    ///
    /// # Errors
    /// When it is none, when a part is missing, or when an etcd uses it. With `salvage` only when
    /// there is no database.
    pub fn open(dir: &Path, options: &SnapshotOptions) -> Result<Self, SourceError> {
        let member = member_dir(dir)?;
        let db_path = member.join("snap").join("db");
        if !db_path.exists() {
            return Err(SourceError::new(format!(
                "{} has no database: {} does not exist",
                dir.display(),
                db_path.display()
            ))
            .hint("--data-dir takes the directory that etcd was started with"));
        }
        let in_use = if options.salvage { InUse::Allow } else { InUse::Refuse };
        let db = read(&db_path, in_use)?;
        let wal = member.join("wal");
        let segments = if options.salvage && !wal.is_dir() {
            Vec::new()
        } else {
            open_segments(dir, &wal, &db_path)?
        };
        let salvage = options.salvage;
        let opened = Self { dir: dir.to_owned(), member, db_path, db, segments, salvage };
        let store = opened.store()?;
        if store.db().is_truncated() && !salvage {
            return Err(SourceError::new(format!(
                "{} is cut short: its database needs {} bytes, the file has {}",
                opened.db_path.display(),
                store.db().needed_bytes(),
                opened.db.len()
            ))
            .hint("take a whole copy; --salvage reads what is there"));
        }
        Ok(opened)
    }

    /// The `member` directory.
    #[must_use]
    pub fn member(&self) -> &Path {
        &self.member
    }

    /// Path and bytes of the database.
    #[must_use]
    pub fn database(&self) -> (&Path, &Bytes) {
        (&self.db_path, &self.db)
    }

    /// The segments of the log in order: file name and bytes.
    #[must_use]
    pub fn segments(&self) -> &[(String, Bytes)] {
        &self.segments
    }

    /// The log of these segments.
    #[must_use]
    pub fn log(&self) -> Log<'_> {
        let segments: Vec<_> =
            self.segments.iter().map(|(name, data)| Segment { name, data }).collect();
        Log::read(&segments)
    }

    fn store(&self) -> Result<Store<'_>, SourceError> {
        open_store(&self.db_path, &self.db, self.salvage)
    }

    /// As [`Source::visit`], which needs no more than this.
    ///
    /// # Errors
    /// As [`Source::visit`].
    pub fn entries(&self, query: &Query, sink: &mut EntrySink<'_>) -> Result<Visit, SourceError> {
        let mut replayed = self.replayed()?;
        let mut visit = std::mem::take(&mut replayed.visit);
        let (state, newest) = fold(
            &replayed.store,
            query,
            self.salvage,
            Trail::new(&self.db),
            &mut visit,
            &mut |_| (),
        );
        let (newest, compacted) = replayed.bounds(newest);
        visit.revision = revision(&self.dir, query, newest, compacted)?;
        let mut entries: hashbrown::HashMap<&[u8], EntryRef<'_>> = state
            .into_records(false)
            .filter_map(|held| checked(&held, &mut visit.damage))
            .map(|entry| (entry.key, entry))
            .collect();
        for change in replayed.changes(query) {
            match &change.live {
                Some(live) => entries.insert(change.key, entry(change.key, live)),
                None => entries.remove(change.key),
            };
        }
        let mut entries: Vec<_> = entries.into_values().collect();
        if query.ordered {
            entries.sort_unstable_by_key(|e| e.key);
        }
        let _ = entries.into_iter().try_for_each(sink);
        Ok(visit)
    }

    /// What the log adds to the database: the newest revision of each key that it changes, and
    /// whether that is a deletion.
    ///
    /// # Errors
    /// As [`Source::visit`].
    pub fn newer(&self) -> Result<hashbrown::HashMap<Vec<u8>, (i64, bool)>, SourceError> {
        let replayed = self.replayed()?;
        let newest = |c: &Change<'_>| (c.key.to_vec(), (c.revision.main, c.live.is_none()));
        Ok(replayed.machine.changes.iter().map(newest).collect())
    }

    fn replayed(&self) -> Result<Replayed<'_>, SourceError> {
        let store = self.store()?;
        let mut visit = Visit::default();
        note_metas(store.db(), &mut visit.notes);
        let log = self.log();
        for broken in &log.breaks {
            let name = self.segments.get(broken.segment).map_or("", |(n, _)| n.as_str());
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
        let applied = store.bookkeeping.consistent_index.unwrap_or(0);
        let voters = Voters::new(&store, &log, applied);
        let last = log.effective().last().map_or(0, |e| e.index);
        // A member that is alone commits all it has as soon as it starts.
        let commit = if voters.alone() { last } else { log.hard_state.commit };
        // A member that received its database from a leader has only a record of that.
        let reached = log.snapshots.iter().map(|(index, _)| *index).fold(last, u64::max);
        if reached < applied
            && let Some((name, _)) = self.segments.last()
        {
            // An entry is in the log, on disk, before the database gets it.
            visit.damage.push(Damage {
                location: name.clone(),
                what: format!(
                    "the log ends at entry {reached}, before entry {applied} that the database already holds: \
                     it has lost its end, and with it any later changes"
                ),
            });
        }
        if log.hard_state.commit > reached
            && let Some((name, _)) = self.segments.last()
        {
            let committed = log.hard_state.commit;
            visit.damage.push(Damage {
                location: name.clone(),
                what: format!(
                    "the log ends at entry {reached}, but says that entry {committed} is committed"
                ),
            });
        }
        let unsure = log.effective().filter(|e| e.index > commit).count();
        if unsure > 0 {
            visit.notes.push(format!(
                "{unsure} entries at the end of the log are not known to be committed and are left out; other members decide on them"
            ));
        }
        let mut pending = Vec::new();
        let mut next = applied + 1;
        for entry in log.effective().filter(|e| e.index > applied && e.index <= commit) {
            if entry.index != next {
                self.gap(next, entry.index, &mut visit)?;
            }
            next = entry.index + 1;
            let what = match (entry.kind, request::decode(entry.data)) {
                (EntryKind::ConfChange, _) => continue,
                (EntryKind::Normal, Ok(request)) => {
                    pending.push(request);
                    continue;
                }
                (EntryKind::Normal, Err(_)) => "holds a request that cannot be decoded",
                (EntryKind::Other(_), _) => "is of a kind that etcd does not know",
            };
            let name = self.segments.get(entry.segment).map_or("", |(n, _)| n.as_str());
            visit.damage.push(Damage {
                location: format!("{name} offset {}", entry.offset),
                what: format!("entry {} {what}", entry.index),
            });
        }
        let mut machine = Machine::default();
        if pending.iter().any(changes_something) {
            machine = self.machine(&store, &mut visit);
            for request in &pending {
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

    /// An entry that should be there is not.
    fn gap(&self, expected: u64, found: u64, visit: &mut Visit) -> Result<(), SourceError> {
        let what = format!("the log goes on at entry {found}, but entry {expected} is missing");
        if !self.salvage && visit.damage.is_empty() {
            return Err(SourceError::new(format!(
                "{}: {what}; the database and the log do not belong together",
                self.member.display()
            ))
            .hint("--snapshot with the db file reads the database alone; --salvage applies what there is"));
        }
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

struct Replayed<'a> {
    store: Store<'a>,
    machine: Machine<'a>,
    visit: Visit,
}

impl<'a> Replayed<'a> {
    /// The newest revision of database and log, and the compacted one.
    fn bounds(&self, newest: i64) -> (i64, i64) {
        let compacted = self.store.bookkeeping.compacted();
        (newest.max(self.machine.revision), compacted.max(self.machine.compacted))
    }

    fn changes(&self, query: &Query) -> impl Iterator<Item = &Change<'a>> {
        let limit = query.revision.filter(|r| *r > 0).unwrap_or(i64::MAX);
        self.machine.changes.iter().filter(move |c| c.revision.main <= limit && query.wants(c.key))
    }
}

fn changes_something(request: &request::Request<'_>) -> bool {
    use request::Request;
    !matches!(request, Request::Nothing | Request::Legacy | Request::Other(_))
}

fn live(entry: EntryRef<'_>) -> Live<'_> {
    Live {
        value: entry.stored(),
        create_revision: entry.create_revision,
        mod_revision: entry.mod_revision,
        version: entry.version,
        lease: entry.lease,
    }
}

fn entry<'a>(key: &'a [u8], live: &Live<'a>) -> EntryRef<'a> {
    EntryRef {
        key,
        value: Value(live.value),
        create_revision: live.create_revision,
        mod_revision: live.mod_revision,
        version: live.version,
        lease: live.lease,
    }
}

fn record<'a>(change: &Change<'a>) -> Record<'a> {
    match &change.live {
        Some(live) => Record::Put(entry(change.key, live)),
        None => Record::Delete { key: change.key, revision: change.revision.main },
    }
}

impl Source for DataDir {
    fn info(&self) -> SourceInfo {
        SourceInfo { kind: SourceKind::DataDir, location: self.dir.to_string_lossy().into_owned() }
    }

    fn visit(&mut self, query: &Query, sink: &mut EntrySink<'_>) -> Result<Visit, SourceError> {
        self.entries(query, sink)
    }

    fn history(&mut self, query: &Query, sink: &mut RecordSink<'_>) -> Result<Visit, SourceError> {
        let mut replayed = self.replayed()?;
        let mut visit = std::mem::take(&mut replayed.visit);
        let mut flow = ControlFlow::Continue(());
        let newest = records(&replayed.store, query, self.salvage, &mut visit, &mut |record| {
            flow = sink(record);
            flow
        });
        let (newest, compacted) = replayed.bounds(newest);
        visit.compacted = compacted.max(0);
        visit.revision = query.revision.filter(|r| *r > 0).unwrap_or(newest);
        for change in replayed.changes(query) {
            if flow.is_break() {
                break;
            }
            flow = sink(record(change));
        }
        Ok(visit)
    }

    fn held(&mut self, query: &Query, sink: &mut HeldSink<'_>) -> Result<Visit, SourceError> {
        held::read(self, query, sink)
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

fn member_dir(dir: &Path) -> Result<PathBuf, SourceError> {
    let name = dir.display();
    let metadata = std::fs::metadata(dir).map_err(|e| {
        SourceError::new(format!("cannot read {name}"))
            .because(e)
            .hint("check the path and its permissions")
    })?;
    if !metadata.is_dir() {
        return Err(SourceError::new(format!("{name} is a file, not a data directory"))
            .hint("a snapshot or a copy of member/snap/db is opened with --snapshot"));
    }
    for candidate in [dir.join("member"), dir.to_owned()] {
        if candidate.join("snap").is_dir() || candidate.join("wal").is_dir() {
            return Ok(candidate);
        }
        // Without the right to look inside, "nothing there" would be a guess.
        if let Err(e) = std::fs::read_dir(&candidate)
            && e.kind() == std::io::ErrorKind::PermissionDenied
        {
            return Err(SourceError::new(format!("cannot read {}", candidate.display()))
                .because(e)
                .hint("run as a user who may read it, such as root"));
        }
    }
    Err(SourceError::new(format!("{name} is no etcd data directory: it has no member/snap"))
        .hint("--data-dir takes the directory that etcd was started with, often /var/lib/etcd"))
}

fn open_segments(dir: &Path, wal: &Path, db: &Path) -> Result<Vec<(String, Bytes)>, SourceError> {
    let missing = |what: &str| {
        SourceError::new(format!("{} has no write-ahead log: {what}", dir.display())).hint(format!(
            "if it was kept elsewhere (--wal-dir), link it there; --snapshot {} reads the database alone, which can lag behind",
            db.display()
        ))
    };
    if !wal.is_dir() {
        return Err(missing(&format!("{} does not exist", wal.display())));
    }
    let cannot = |e: std::io::Error| {
        SourceError::new(format!("cannot read {}", wal.display()))
            .because(e)
            .hint("run as a user who may read it, such as root")
    };
    let mut names = Vec::new();
    for file in std::fs::read_dir(wal).map_err(cannot)? {
        let name = file.map_err(cannot)?.file_name();
        names.extend(name.to_str().filter(|n| parse_name(n).is_some()).map(str::to_owned));
    }
    names.sort_unstable();
    if names.is_empty() {
        return Err(missing(&format!("{} has no .wal files", wal.display())));
    }
    names
        .into_iter()
        .map(|name| {
            // Logs carry other locks than databases; the database's says whether etcd runs.
            let bytes = read(&wal.join(&name), InUse::Allow)?;
            Ok((name, bytes))
        })
        .collect()
}

/// Files in a `member` directory that etcd does not read, or only in passing, but that can hold
/// entries: `db.tmp.*`, `*.snap.db`, `*.snap`, `*.broken`, `*.tmp`.
///
/// # Errors
/// When a directory cannot be listed.
pub fn leftovers(member: &Path) -> std::io::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for part in ["snap", "wal"] {
        let dir = member.join(part);
        if dir.is_dir() {
            collect(&dir, part, None, &mut found)?;
        }
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn collect(
    dir: &Path,
    part: &str,
    inherited: Option<&'static str>,
    found: &mut Vec<Leftover>,
) -> std::io::Result<()> {
    for file in std::fs::read_dir(dir)? {
        let file = file?;
        let path = file.path();
        let name = file.file_name();
        let name = name.to_string_lossy();
        let what = inherited.or_else(|| describe(part, &name));
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            // `wal.tmp` and `wal.broken.<time>` hold whole logs.
            if inherited.is_none() {
                collect(
                    &path,
                    part,
                    Some(what.unwrap_or("a directory that is not etcd's")),
                    found,
                )?;
            }
        } else if let Some(what) = what {
            found.push(Leftover { path, what, size: metadata.len() });
        }
    }
    Ok(())
}

/// What a file beside the used ones is; `None` for those in use.
fn describe(part: &str, name: &str) -> Option<&'static str> {
    let ends = |suffix| name.ends_with(suffix);
    match part {
        "snap" if name == "db" => None,
        "snap" if name.starts_with("db.tmp") => Some("an unfinished defragmentation"),
        "snap" if ends(".snap.db") => Some("a database received from a leader"),
        "snap" if ends(".snap") => Some("a raft snapshot"),
        "wal" if parse_name(name).is_some() => None,
        "wal" if ends(".tmp") => Some("a preallocated segment"),
        _ if ends(".broken") => Some("set aside by a repair"),
        _ if name.starts_with("tmp") => Some("a partial file"),
        _ => Some("a file that is not etcd's"),
    }
}
