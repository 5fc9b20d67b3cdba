//! Every place of a source that can hold plaintext, searched one after the other.

use std::ops::ControlFlow;

#[cfg(feature = "kine")]
use super::recover::{Digest, digest};
use super::{Error, Opened, Unexamined};
use crate::bolt::{Db, PageDamage};
use crate::chain::chain;
use crate::entry::{Entry, EntryRef};
use crate::envelope::Envelope;
use crate::forensics::Targets;
use crate::forensics::residue::{self, Bytes, Examined, Finding, Head, Place, Sink};
#[cfg(feature = "kine")]
use crate::forensics::residue::{KineFile, KnownRows};
use crate::source::data_dir::{DataDir, Leftover};
#[cfg(feature = "kine")]
use crate::source::kine::database::Database;
#[cfg(feature = "kine")]
use crate::source::kine::{Kine, Part};
use crate::source::snapshot::Snapshot;
use crate::source::{Damage, Record, Source, SourceInfo, Visit};
use crate::wal::Segment;

/// What a source without files does not have.
pub(in crate::jobs) const SERVED: &[Unexamined] =
    &[Unexamined::Pages, Unexamined::LogsAndLeftovers];

/// Receives what a search brings.
pub(in crate::jobs) trait Hunt: Sink {
    /// Is told of a key that is live, where its value is not at hand.
    #[cfg(feature = "kine")]
    fn lives(&mut self, key: &[u8]) {
        let _ = key;
    }

    /// Whether [`Hunt::are_live`] is of use.
    #[cfg(feature = "kine")]
    fn wants_digests(&self) -> bool {
        false
    }

    /// Is told the digests of live entries, before anything is found that is not live.
    #[cfg(feature = "kine")]
    fn are_live(&mut self, digests: &mut dyn Iterator<Item = Digest>) {
        let _ = digests;
    }
}

/// What a search says beside its findings.
pub(in crate::jobs) struct Searched {
    pub info: SourceInfo,
    pub visit: Visit,
    pub head: Head,
    pub examined: Examined,
    pub not_examined: &'static [Unexamined],
    pub leftovers: Vec<(String, Leftover)>,
    /// What was searched, where it can be read on.
    pub opened: Option<Opened>,
}

/// Searches what was opened.
pub(in crate::jobs) fn search(
    opened: Opened,
    salvage: bool,
    targets: &Targets,
    found: &mut dyn Hunt,
) -> Result<Searched, Error> {
    match opened {
        Opened::Snapshot(file) => of_snapshot(file, salvage, targets, found),
        Opened::DataDir(dir) => data_dir(dir, salvage, targets, found),
        #[cfg(feature = "kine")]
        Opened::Kine(database) => kine(*database, targets, found),
        #[cfg(feature = "datastore")]
        Opened::Datastore(server) => datastore(server, targets, found),
        Opened::Served(mut source) => {
            let searched = match (served(source.as_mut(), targets, found), targets.in_namespaces())
            {
                // The user may not read what the verdict is about, but what was asked for.
                (Err(Error::Source(e)), Some(narrowed)) if e.is_unreadable_to_user() => {
                    let mut searched = served(source.as_mut(), &narrowed, found)?;
                    let location = format!("namespace {}", targets.namespaces().join(", "));
                    let what = format!("nothing outside was searched, and so not judged: {e}");
                    searched.visit.damage.push(Damage { location, what });
                    Ok(searched)
                }
                (searched, _) => searched,
            };
            searched.map(|searched| Searched { opened: Some(Opened::Served(source)), ..searched })
        }
    }
}

fn open_db(bytes: &[u8], salvage: bool) -> Result<Db<'_>, Error> {
    Ok(if salvage { Db::salvage(bytes) } else { Db::open(bytes) }?)
}

fn damage(d: PageDamage) -> Damage {
    Damage { location: format!("page {}", d.page), what: d.what }
}

/// A database file.
pub(super) fn of_snapshot(
    mut file: Snapshot,
    salvage: bool,
    targets: &Targets,
    found: &mut dyn Hunt,
) -> Result<Searched, Error> {
    let bytes = file.bytes().clone();
    let db = open_db(&bytes, salvage)?;
    let behind = |part| bytes.forget(part);
    let searched = residue::examine(&db, targets, &|_| None, &behind, found);
    Ok(Searched {
        info: file.info(),
        visit: Visit {
            revision: searched.revision,
            damage: searched.damage.into_iter().map(damage).collect(),
            notes: file.verify()?,
            ..Visit::default()
        },
        head: searched.head,
        examined: Examined { pages: true, ..Examined::default() },
        not_examined: &[Unexamined::Logs],
        leftovers: Vec::new(),
        opened: Some(Opened::Snapshot(file)),
    })
}

fn data_dir(
    dir: DataDir,
    salvage: bool,
    targets: &Targets,
    found: &mut dyn Hunt,
) -> Result<Searched, Error> {
    let (_, bytes) = dir.database();
    let db = open_db(bytes, salvage)?;
    // The state that etcd would serve has what only the log knows.
    let mut head = Head::default();
    let mut state = dir.entries(targets.query(), &mut |entry| {
        if targets.locate(entry.key).is_some() {
            if Envelope::of(entry.stored()).is_plaintext() {
                head.add(entry.key, targets);
            }
            found.live(entry.key, entry.stored());
        }
        ControlFlow::Continue(())
    })?;
    let newer = dir.newer()?;
    let newest = |key: &[u8]| newer.get(key).copied();
    let behind = |part| bytes.forget(part);
    let searched = residue::examine(&db, targets, &newest, &behind, found);

    let segments: Vec<_> =
        dir.segments().iter().map(|(name, data)| Segment { name, data }).collect();
    let log = dir.log();
    let changes = dir.whole_log(&log, searched.revision).unwrap_or_default();
    residue::examine_log(&segments, &log, &changes, targets, found);

    let mut visit = Visit { revision: state.revision, ..Visit::default() };
    let leftovers = leftovers_of(&dir, targets, found, &mut visit);
    visit.notes.append(&mut state.notes);
    for d in searched.damage.into_iter().map(damage).chain(state.damage) {
        if !visit.damage.contains(&d) {
            visit.damage.push(d);
        }
    }
    Ok(Searched {
        info: dir.info(),
        visit,
        head,
        examined: Examined { pages: true, wal: true, ..Examined::default() },
        not_examined: &[Unexamined::Members],
        leftovers,
        opened: Some(Opened::DataDir(dir)),
    })
}

/// Searches the files that etcd left behind.
fn leftovers_of(
    dir: &DataDir,
    targets: &Targets,
    found: &mut dyn Hunt,
    visit: &mut Visit,
) -> Vec<(String, Leftover)> {
    let member = dir.member();
    let files = dir.leftovers().unwrap_or_else(|e| {
        visit.damage.push(Damage {
            location: member.display().to_string(),
            what: format!("its files cannot be listed: {e}"),
        });
        Vec::new()
    });
    let name = |file: &Leftover| {
        file.path.strip_prefix(member).unwrap_or(&file.path).display().to_string()
    };
    let files: Vec<_> = files.into_iter().map(|file| (name(&file), file)).collect();
    for (name, file) in files.iter().filter(|(_, file)| file.size > 0) {
        let bytes = match file.read() {
            Ok(bytes) => bytes,
            Err(e) => {
                visit.damage.push(Damage { location: name.clone(), what: chain(&e) });
                continue;
            }
        };
        match Db::open(&bytes) {
            Ok(db) => residue::examine_leftover(name, &db, targets, found),
            Err(_) => residue::examine_bytes(name, Place::LeftoverFile, &bytes, targets, found),
        }
    }
    files
}

/// Which row of a key is the newest: known before values are looked at, none of them needs to be
/// kept.
#[cfg(feature = "kine")]
struct Newest {
    /// Row numbers by key.
    rows: hashbrown::HashMap<Vec<u8>, i64>,
    /// Digests of the newest rows' values, by row number, where they are to be known.
    digests: hashbrown::HashMap<i64, Digest>,
    /// The last row there was; those that k3s adds meanwhile are not looked at.
    last: i64,
    revision: i64,
}

#[cfg(feature = "kine")]
impl Newest {
    fn of(source: &mut dyn Database, targets: &Targets, digested: bool) -> Result<Self, Error> {
        let (rows, digests) = (hashbrown::HashMap::new(), hashbrown::HashMap::new());
        let mut newest = Self { rows, digests, last: 0, revision: 0 };
        let visit = source.rows(targets.query(), &mut |row| {
            newest.last = newest.last.max(row.id);
            if targets.locate(row.name).is_some() {
                if let Some(before) = newest.rows.insert(row.name.to_vec(), row.id) {
                    newest.digests.remove(&before);
                }
                if digested && !row.deleted {
                    newest.digests.insert(row.id, digest(row.name, row.value.0));
                }
            }
            ControlFlow::Continue(())
        })?;
        newest.revision = visit.revision;
        Ok(newest)
    }
}

/// What `SQLite` did not erase in the files of a database.
#[cfg(feature = "kine")]
fn kine_files(
    files: &[Part],
    targets: &Targets,
    known: &KnownRows,
    found: &mut dyn Hunt,
    visit: &mut Visit,
) {
    for (part, kind) in files.iter().zip([KineFile::Database, KineFile::Wal, KineFile::Other]) {
        let path = &part.path;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kind = match kind {
            KineFile::Database => KineFile::Database,
            _ if name.ends_with("-wal") => KineFile::Wal,
            _ => KineFile::Other,
        };
        let examined = part
            .open()
            .and_then(|file| residue::examine_kine(kind, &name, &file, targets, known, found));
        if let Err(e) = examined {
            visit.damage.push(Damage {
                location: path.display().to_string(),
                what: format!("it cannot be read: {e}"),
            });
        }
    }
}

/// A kine database: its rows, kine's copies of superseded values, and what `SQLite` did not erase.
#[cfg(feature = "kine")]
fn kine(mut source: Kine, targets: &Targets, found: &mut dyn Hunt) -> Result<Searched, Error> {
    let mut known = KnownRows::default();
    let (head, mut visit) = kine_rows(&mut source, targets, &mut known, found)?;
    let info = Source::info(&source);
    let files = source.files();
    // Closing a file that SQLite has open would give up its locks.
    drop(source);
    kine_files(&files, targets, &known, found, &mut visit);
    Ok(Searched {
        info,
        visit,
        head,
        examined: Examined { pages: true, wal: true, kine: true, ..Examined::default() },
        not_examined: &[],
        leftovers: Vec::new(),
        opened: None,
    })
}

/// kine's table on a server, of whose files nothing is seen.
#[cfg(feature = "datastore")]
fn datastore(
    mut source: Box<crate::source::kine::server::Server>,
    targets: &Targets,
    found: &mut dyn Hunt,
) -> Result<Searched, Error> {
    use crate::forensics::residue::Server;
    use crate::source::datastore::Kind;
    let (head, visit) = kine_rows(source.as_mut(), targets, &mut KnownRows::default(), found)?;
    let (server, not_examined): (_, &[_]) = match source.kind() {
        Kind::Postgres => {
            (Server::Postgres, &[Unexamined::DeadTuples, Unexamined::ServerLog, Unexamined::Copies])
        }
        Kind::MySql => {
            (Server::MySql, &[Unexamined::DeletedRows, Unexamined::BinaryLogs, Unexamined::Copies])
        }
        Kind::Nats => (Server::Nats, &[Unexamined::StreamFiles, Unexamined::StreamCopies]),
    };
    Ok(Searched {
        info: Source::info(source.as_ref()),
        visit,
        head,
        examined: Examined { kine: true, server: Some(server), ..Examined::default() },
        not_examined,
        leftovers: Vec::new(),
        opened: Some(Opened::Datastore(source)),
    })
}

/// The rows of kine's table, and kine's copies of superseded values.
#[cfg(feature = "kine")]
fn kine_rows(
    source: &mut dyn Database,
    targets: &Targets,
    known: &mut KnownRows,
    found: &mut dyn Hunt,
) -> Result<(Head, Visit), Error> {
    let Newest { rows: newest, digests, last, revision } =
        Newest::of(source, targets, found.wants_digests())?;
    found.are_live(&mut digests.into_values());
    let mut head = Head::default();
    let mut visit = source.rows(targets.query(), &mut |row| {
        if row.id > last || targets.locate(row.name).is_none() {
            return ControlFlow::Continue(());
        }
        // An empty value is a deletion's, or no object at all.
        let takes = |v: &[u8]| targets.takes(v).filter(|_| !v.is_empty());
        let (value, old_value) = (row.value.0, row.old_value.0);
        let (of_value, of_old_value) = (takes(value), takes(old_value));
        if of_value.is_some() || of_old_value.is_some() {
            known.add(&row);
        }
        if let Some(encrypted) = of_old_value {
            let revision = row.prev_revision;
            let value = (row.name, old_value, encrypted);
            of_row(Place::KineOldValue, row.id, revision, value, targets, found);
        }
        if let Some(encrypted) = of_value {
            if row.deleted || newest.get(row.name) != Some(&row.id) {
                let value = (row.name, value, encrypted);
                of_row(Place::SupersededRevision, row.id, row.id, value, targets, found);
            } else {
                found.lives(row.name);
                if !encrypted {
                    head.add(row.name, targets);
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    visit.revision = revision;
    Ok((head, visit))
}

/// Tells a value that a row holds: its key, its bytes, whether it is encrypted.
#[cfg(feature = "kine")]
fn of_row(
    place: Place,
    row: i64,
    revision: i64,
    (key, value, encrypted): (&[u8], &[u8], bool),
    targets: &Targets,
    found: &mut dyn Hunt,
) {
    let Some(location) = targets.locate(key) else { return };
    let finding = Finding {
        place,
        location: format!("row {row}"),
        key: Some(key.to_vec()),
        resource: location.resource.into_owned(),
        revision: (revision > 0).then_some(revision),
        written: None,
        deletion: false,
        size: value.len() as u64,
        partial: false,
        encrypted,
    };
    let whole = 0..value.len();
    found.found(finding, Bytes::new(value, 0, std::slice::from_ref(&whole)));
}

/// A source without files to look into: what it still serves.
fn served(
    source: &mut dyn Source,
    targets: &Targets,
    found: &mut dyn Hunt,
) -> Result<Searched, Error> {
    // Values are kept until it is known whether a newer revision supersedes them; encrypted ones
    // until it is known what is live.
    let mut newest: hashbrown::HashMap<Vec<u8>, Entry> = hashbrown::HashMap::new();
    let mut encrypted = Vec::new();
    let visit = source.history(targets.query(), &mut |record| {
        let (key, entry) = match record {
            Record::Put(entry) => (entry.key, Some(entry)),
            Record::Delete { key, .. } => (key, None),
        };
        match newest.remove(key) {
            Some(old) if is_plain(&old) => superseded(&old, targets, found),
            old => encrypted.extend(old),
        }
        let takes = |e: &EntryRef<'_>| targets.takes(e.stored()).is_some();
        if let Some(entry) = entry.filter(takes).filter(|e| targets.locate(e.key).is_some()) {
            newest.insert(key.to_vec(), entry.to_entry());
        }
        ControlFlow::Continue(())
    })?;
    let mut head = Head::default();
    for entry in newest.values() {
        if is_plain(entry) {
            head.add(&entry.key, targets);
        }
        found.live(&entry.key, &entry.value);
    }
    for entry in &encrypted {
        superseded(entry, targets, found);
    }
    Ok(Searched {
        info: source.info(),
        visit,
        head,
        examined: Examined::default(),
        not_examined: SERVED,
        leftovers: Vec::new(),
        opened: None,
    })
}

fn is_plain(entry: &Entry) -> bool {
    Envelope::of(&entry.value).is_plaintext()
}

fn superseded(entry: &Entry, targets: &Targets, found: &mut dyn Hunt) {
    let Some(location) = targets.locate(&entry.key) else { return };
    let finding = Finding {
        place: Place::SupersededRevision,
        location: format!("revision {}", entry.mod_revision),
        key: Some(entry.key.clone()),
        resource: location.resource.into_owned(),
        revision: Some(entry.mod_revision),
        written: None,
        deletion: false,
        size: entry.value.len() as u64,
        partial: false,
        encrypted: !is_plain(entry),
    };
    let whole = 0..entry.value.len();
    found.found(finding, Bytes::new(&entry.value, 0, std::slice::from_ref(&whole)));
}
