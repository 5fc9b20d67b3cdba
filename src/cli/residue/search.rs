//! Every place of a source that can hold plaintext, searched one after the other.

use std::ops::ControlFlow;
use std::path::Path;

use super::Found;
use crate::bolt::{Db, PageDamage};
use crate::chain::chain;
use crate::cli::failure::Failure;
use crate::cli::{Ctx, open};
use crate::entry::{Entry, EntryRef};
use crate::envelope::Envelope;
use crate::forensics::Targets;
use crate::forensics::residue::{self, Bytes, Examined, Finding, Head, KineFile, KnownRows, Place};
use crate::source::data_dir::{DataDir, Leftover, leftovers};
use crate::source::kine::Kine;
use crate::source::snapshot::{Snapshot, SnapshotOptions};
use crate::source::{Damage, Record, Source, SourceInfo, Visit};
use crate::wal::Segment;

/// What a search says beside its findings.
pub struct Searched {
    pub info: SourceInfo,
    pub visit: Visit,
    pub head: Head,
    pub examined: Examined,
    pub not_examined: Vec<String>,
}

/// Searches the source that the options name.
pub fn search(ctx: &Ctx, targets: &Targets, found: &mut Found<'_>) -> Result<Searched, Failure> {
    let g = &ctx.global;
    let options = SnapshotOptions { skip_hash_check: g.skip_hash_check, salvage: g.salvage };
    if let Some(path) = &g.snapshot {
        return snapshot(Snapshot::open(path, &options)?, g.salvage, targets, found);
    }
    if let Some(dir) = &g.data_dir {
        return data_dir(&DataDir::open(dir, &options)?, g.salvage, targets, found);
    }
    if let Some(path) = &g.kine {
        return kine(Kine::open(path)?, targets, found);
    }
    held(open::source(ctx)?.as_mut(), targets, found)
}

fn open_db(bytes: &[u8], salvage: bool) -> Result<Db<'_>, Failure> {
    let db = if salvage { Db::salvage(bytes) } else { Db::open(bytes) };
    db.map_err(|e| Failure::new("cannot open the database").because(&e))
}

fn damage(d: PageDamage) -> Damage {
    Damage { location: format!("page {}", d.page), what: d.what }
}

fn snapshot(
    mut file: Snapshot,
    salvage: bool,
    targets: &Targets,
    found: &mut Found<'_>,
) -> Result<Searched, Failure> {
    let bytes = file.bytes().clone();
    let db = open_db(&bytes, salvage)?;
    let behind = |part| bytes.forget(part);
    let mut sink = |f: Finding, b: Bytes<'_>| found.take(f, b);
    let searched = residue::examine(&db, targets, &|_| None, &behind, &mut sink);
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
        not_examined: vec![
            "the write-ahead logs of the members: search each with --data-dir".to_owned(),
        ],
    })
}

fn data_dir(
    dir: &DataDir,
    salvage: bool,
    targets: &Targets,
    found: &mut Found<'_>,
) -> Result<Searched, Failure> {
    let (_, bytes) = dir.database();
    let db = open_db(bytes, salvage)?;
    let newer = dir.newer()?;
    let state = |key: &[u8]| newer.get(key).copied();
    let mut sink = |f: Finding, b: Bytes<'_>| found.take(f, b);
    let behind = |part| bytes.forget(part);
    let searched = residue::examine(&db, targets, &state, &behind, &mut sink);

    let segments: Vec<_> =
        dir.segments().iter().map(|(name, data)| Segment { name, data }).collect();
    let log = dir.log();
    let changes = dir.whole_log(&log, searched.revision).unwrap_or_default();
    residue::examine_log(&segments, &log, &changes, targets, &mut sink);

    let mut visit = Visit::default();
    match leftovers(dir.member()) {
        Ok(files) => {
            for file in files {
                leftover(dir.member(), &file, targets, &mut visit, &mut sink);
            }
        }
        Err(e) => visit.damage.push(Damage {
            location: dir.member().display().to_string(),
            what: format!("its files cannot be listed: {e}"),
        }),
    }
    // The state that etcd would serve has what only the log knows.
    let mut head = Head::default();
    let state = dir.entries(targets.query(), &mut |entry| {
        let plain = Envelope::of(entry.stored()).is_plaintext();
        if plain && targets.locate(entry.key).is_some() {
            head.add(entry.key, targets);
        }
        ControlFlow::Continue(())
    })?;
    visit.revision = state.revision;
    visit.notes.extend(state.notes);
    for d in searched.damage.into_iter().map(damage).chain(state.damage) {
        if !visit.damage.contains(&d) {
            visit.damage.push(d);
        }
    }
    Ok(Searched {
        info: dir.info(),
        visit,
        head,
        examined: Examined { pages: true, wal: true, kine: false },
        not_examined: vec!["the other members: search each of them".to_owned()],
    })
}

/// A file that etcd left behind.
fn leftover(
    member: &Path,
    file: &Leftover,
    targets: &Targets,
    visit: &mut Visit,
    sink: &mut dyn FnMut(Finding, Bytes<'_>),
) {
    let name = file.path.strip_prefix(member).unwrap_or(&file.path).display().to_string();
    visit.notes.push(format!(
        "{name} is {}, {}; it is searched too",
        file.what,
        crate::report::table::bytes(file.size)
    ));
    if file.size == 0 {
        return;
    }
    let bytes = match file.read() {
        Ok(bytes) => bytes,
        Err(e) => {
            visit.damage.push(Damage { location: name, what: chain(&e) });
            return;
        }
    };
    match Db::open(&bytes) {
        Ok(db) => residue::examine_leftover(&name, &db, targets, sink),
        Err(_) => residue::examine_bytes(&name, Place::LeftoverFile, &bytes, targets, sink),
    }
}

/// Which row of a key is the newest: known before values are looked at, none of them needs to be
/// kept.
struct Newest {
    /// Row numbers by key.
    rows: hashbrown::HashMap<Vec<u8>, i64>,
    /// The last row there was; those that k3s adds meanwhile are not looked at.
    last: i64,
    revision: i64,
}

impl Newest {
    fn of(source: &mut Kine, targets: &Targets) -> Result<Self, Failure> {
        let mut newest = Self { rows: hashbrown::HashMap::new(), last: 0, revision: 0 };
        let visit = source.rows(targets.query(), &mut |row| {
            newest.last = newest.last.max(row.id);
            if targets.locate(row.name).is_some() {
                newest.rows.insert(row.name.to_vec(), row.id);
            }
            ControlFlow::Continue(())
        })?;
        newest.revision = visit.revision;
        Ok(newest)
    }
}

/// What `SQLite` did not erase in the files of a database.
fn kine_files(
    files: &[std::path::PathBuf],
    targets: &Targets,
    known: &KnownRows,
    found: &mut Found<'_>,
    visit: &mut Visit,
) {
    for (path, kind) in files.iter().zip([KineFile::Database, KineFile::Wal, KineFile::Other]) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kind = match kind {
            KineFile::Database => KineFile::Database,
            _ if name.ends_with("-wal") => KineFile::Wal,
            _ => KineFile::Other,
        };
        let mut sink = |f: Finding, b: Bytes<'_>| found.take(f, b);
        let examined = std::fs::File::open(path)
            .and_then(|file| residue::examine_kine(kind, &name, &file, targets, known, &mut sink));
        if let Err(e) = examined {
            visit.damage.push(Damage {
                location: path.display().to_string(),
                what: format!("it cannot be read: {e}"),
            });
        }
    }
}

/// A kine database: its rows, kine's copies of superseded values, and what `SQLite` did not erase.
fn kine(mut source: Kine, targets: &Targets, found: &mut Found<'_>) -> Result<Searched, Failure> {
    let mut known = KnownRows::default();
    let Newest { rows: newest, last, revision } = Newest::of(&mut source, targets)?;
    let mut head = Head::default();
    let mut report = |place, row: i64, revision: i64, key: &[u8], value: &[u8], encrypted| {
        let Some(location) = targets.locate(key) else { return };
        let finding = Finding {
            place,
            location: format!("row {row}"),
            key: Some(key.to_vec()),
            resource: location.resource.into_owned(),
            revision: (revision > 0).then_some(revision),
            size: value.len() as u64,
            partial: false,
            encrypted,
        };
        let whole = 0..value.len();
        found.take(finding, Bytes::new(value, 0, std::slice::from_ref(&whole)));
    };
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
            report(Place::KineOldValue, row.id, revision, row.name, old_value, encrypted);
        }
        if let Some(encrypted) = of_value {
            if row.deleted || newest.get(row.name) != Some(&row.id) {
                report(Place::SupersededRevision, row.id, row.id, row.name, value, encrypted);
            } else if !encrypted {
                head.add(row.name, targets);
            }
        }
        ControlFlow::Continue(())
    })?;
    visit.revision = revision;
    let info = source.info();
    let files = source.files();
    // Closing a file that SQLite has open would give up its locks.
    drop(source);
    kine_files(&files, targets, &known, found, &mut visit);
    Ok(Searched {
        info,
        visit,
        head,
        examined: Examined { pages: true, wal: true, kine: true },
        not_examined: Vec::new(),
    })
}

/// A source without files to look into: what it still serves.
fn held(
    source: &mut dyn Source,
    targets: &Targets,
    found: &mut Found<'_>,
) -> Result<Searched, Failure> {
    // Values are kept until it is known whether a newer revision supersedes them.
    let mut newest: hashbrown::HashMap<Vec<u8>, Entry> = hashbrown::HashMap::new();
    let mut superseded = |entry: Entry| {
        let Some(location) = targets.locate(&entry.key) else { return };
        let finding = Finding {
            place: Place::SupersededRevision,
            location: format!("revision {}", entry.mod_revision),
            key: Some(entry.key.clone()),
            resource: location.resource.into_owned(),
            revision: Some(entry.mod_revision),
            size: entry.value.len() as u64,
            partial: false,
            encrypted: !Envelope::of(&entry.value).is_plaintext(),
        };
        let whole = 0..entry.value.len();
        found.take(finding, Bytes::new(&entry.value, 0, std::slice::from_ref(&whole)));
    };
    let visit = source.history(targets.query(), &mut |record| {
        let (key, entry) = match record {
            Record::Put(entry) => (entry.key, Some(entry)),
            Record::Delete { key, .. } => (key, None),
        };
        if let Some(old) = newest.remove(key) {
            superseded(old);
        }
        let takes = |e: &EntryRef<'_>| targets.takes(e.stored()).is_some();
        if let Some(entry) = entry.filter(takes).filter(|e| targets.locate(e.key).is_some()) {
            newest.insert(key.to_vec(), entry.to_entry());
        }
        ControlFlow::Continue(())
    })?;
    let mut head = Head::default();
    let plain = newest.values().filter(|e| Envelope::of(&e.value).is_plaintext());
    plain.for_each(|e| head.add(&e.key, targets));
    Ok(Searched {
        info: source.info(),
        visit,
        head,
        examined: Examined::default(),
        not_examined: vec![
            "free pages and page slack: search a snapshot of each member (etcdctl snapshot save) with --snapshot"
                .to_owned(),
            "write-ahead logs and leftover files: search the data directory of each member, stopped, with --data-dir"
                .to_owned(),
        ],
    })
}
