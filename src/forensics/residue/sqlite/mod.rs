//! Plaintext in the bytes of a kine database: rows that `SQLite` deleted but did not overwrite.
//!
//! `SQLite` (<https://sqlite.org/fileformat2.html>) keeps the content of freed pages and of freed
//! cells in pages in use; its write-ahead log and journal hold older images of pages. A row of
//! kine's table is known by its record header: nine columns, of which the second is the key.

mod pages;
mod record;

use std::collections::HashSet;
use std::io;
use std::ops::Range;

use memchr::memmem::Finder;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use pages::Parts;
use pages::{Pages, Window};
use record::Row;

use super::{Bytes, Finding, Sink};
use crate::forensics::Targets;

/// Which file of a database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The database itself.
    Database,
    /// `-wal`: frames of a header and a page.
    Wal,
    /// `-journal` and anything else.
    Other,
}

/// Rows that a query returns: what they hold is told as rows, wherever their bytes lie.
#[derive(Default)]
pub struct KnownRows {
    whole: HashSet<[u8; 32]>,
    /// Without their values, for records of which not all is at hand.
    outlines: HashSet<[u8; 32]>,
}

impl KnownRows {
    /// Adds a row.
    #[cfg(feature = "kine")]
    pub fn add(&mut self, row: &crate::source::kine::KineRow<'_>) {
        // A row that creates its key has no revision of creation; the reader fills in its own.
        let create = if row.created { 0 } else { row.create_revision };
        self.whole.insert(digest(row.name, create, row.prev_revision, row.value.0));
        self.outlines.insert(digest(row.name, create, row.prev_revision, &[]));
    }

    fn has(&self, row: &Row<'_>, value: &[u8]) -> bool {
        self.whole.contains(&digest(row.name, row.create_revision, row.prev_revision, value))
    }

    /// Whether it may be one of them. kine writes no two rows that supersede the same.
    fn has_alike(&self, row: &Row<'_>) -> bool {
        self.outlines.contains(&digest(row.name, row.create_revision, row.prev_revision, &[]))
    }
}

fn digest(name: &[u8], create_revision: i64, prev_revision: i64, value: &[u8]) -> [u8; 32] {
    let mut sha = Sha256::new();
    for part in [name, &create_revision.to_be_bytes(), &prev_revision.to_be_bytes(), value] {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    sha.finalize().into()
}

/// How much is searched at a time, bytes.
const WINDOW: usize = 4 << 20;
/// What is in memory besides on either side, bytes: the page of a record that begins there.
const MARGIN: usize = 2 * Pages::LARGEST;

/// Looks through one file of a kine database.
///
/// # Errors
/// When the file cannot be read.
pub fn examine_kine(
    file: File,
    name: &str,
    parts: &dyn Parts,
    targets: &Targets,
    known: &KnownRows,
    sink: &mut dyn Sink,
) -> io::Result<()> {
    examine_by(WINDOW, file, name, parts, targets, known, sink)
}

fn examine_by(
    step: usize,
    file: File,
    name: &str,
    parts: &dyn Parts,
    targets: &Targets,
    known: &KnownRows,
    sink: &mut dyn Sink,
) -> io::Result<()> {
    let pages = Pages::new(file, parts)?;
    let needles = targets.needles();
    let needles: Vec<_> = needles.iter().filter(|n| !n.is_empty()).map(Finder::new).collect();
    let mut window = Window { at: 0, data: Zeroizing::default() };
    for start in (0..pages.len).step_by(step) {
        let end = (start + step).min(pages.len);
        pages.fill(&mut window, start.saturating_sub(MARGIN)..(end + MARGIN).min(pages.len))?;
        let here = start - window.at..end - window.at;
        let mut hits: Vec<usize> = needles.iter().flat_map(|n| n.find_iter(&window.data)).collect();
        hits.retain(|at| here.contains(at));
        hits.sort_unstable();
        hits.dedup();
        for key_at in hits {
            let Some(row) = record::row(&window.data, key_at) else { continue };
            look(&row.shifted(window.at), &window, &pages, name, targets, known, sink)?;
        }
    }
    Ok(())
}

/// Tells the plaintext of one record.
fn look(
    row: &Row<'_>,
    window: &Window,
    pages: &Pages<'_>,
    name: &str,
    targets: &Targets,
    known: &KnownRows,
    sink: &mut dyn Sink,
) -> io::Result<()> {
    let Some(found) = targets.locate(row.name) else { return Ok(()) };
    let (place, location, active) = pages.describe(name, row.at, window);
    let payload = pages.payload(row)?;
    let part = |range: &Range<usize>| {
        payload.get(range.start - row.at..(range.end - row.at).min(payload.len()))
    };
    let is_whole = row.value.end - row.at <= payload.len();
    let is_known = match part(&row.value).filter(|_| is_whole) {
        Some(value) => known.has(row, value),
        None => known.has_alike(row),
    };
    if active && is_known {
        return Ok(());
    }
    let finding = |revision: Option<i64>, deletion| Finding {
        place,
        location: location.clone(),
        key: Some(row.name.to_vec()),
        resource: found.resource.clone().into_owned(),
        revision: revision.filter(|r| *r > 0),
        written: None,
        deletion,
        size: 0,
        partial: false,
        encrypted: false,
    };
    let of_deletion = row.deleted && targets.wants_deletions();
    if of_deletion && row.id.is_some() {
        sink.found(finding(row.id, true), Bytes::new(&[], 0, &[]));
    }
    // What a deletion has as its value is that of the row before.
    let own = (!of_deletion).then_some((&row.value, row.id.filter(|_| !row.deleted)));
    for (range, revision) in own.into_iter().chain([(&row.old_value, Some(row.prev_revision))]) {
        let Some(bytes) = part(range) else { continue };
        let Some(encrypted) = targets.sees(bytes) else { continue };
        let finding = Finding {
            size: bytes.len() as u64,
            partial: bytes.len() < range.len(),
            encrypted,
            ..finding(revision, false)
        };
        let all = 0..bytes.len();
        sink.found(finding, Bytes::new(bytes, 0, std::slice::from_ref(&all)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Scope, Selector};

    /// Rows of all sizes, half of them deleted without a trace in the tables.
    fn database() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(
            "PRAGMA secure_delete = 0; CREATE TABLE kine (id INTEGER PRIMARY KEY, name INTEGER,
             created INTEGER, deleted INTEGER, create_revision INTEGER, prev_revision INTEGER,
             lease INTEGER, value BLOB, old_value BLOB); BEGIN",
        )
        .unwrap();
        for id in 1..=300u32 {
            let name = format!("/registry/secrets/ns/name-{id:03}");
            let value = [b"k8s\0".to_vec(), vec![b'x'; (id * id % 20_011) as usize]].concat();
            let old: Option<&[u8]> = (id % 5 == 0).then_some(b"k8s\0old");
            let row = rusqlite::params![id, name, id, id - 1, value, old];
            let insert = "INSERT INTO kine VALUES (?1, ?2, 1, 0, ?3, ?4, 0, ?5, ?6)";
            db.execute(insert, row).unwrap();
        }
        db.execute_batch("DELETE FROM kine WHERE id % 2 = 0; COMMIT").unwrap();
        drop(db);
        std::fs::read(path).unwrap()
    }

    #[test]
    fn windows_of_any_size_show_the_same() {
        let data = database();
        let targets = Targets::new(
            Scope::new("/registry/"),
            vec![Selector::parse("secrets").unwrap()],
            vec![],
        );
        let findings = |step| {
            let mut all = Vec::new();
            let known = KnownRows::default();
            let mut sink = |f: Finding, b: Bytes<'_>| all.push((format!("{f:?}"), b.value()));
            let parts = &data[..];
            examine_by(step, File::Database, "db", &parts, &targets, &known, &mut sink).unwrap();
            all
        };
        let whole = findings(usize::MAX >> 1);
        // All that is in the table, with its old values, and some of what was deleted.
        assert!(whole.len() > 150 + 30, "{}", whole.len());
        assert!(whole.iter().any(|(_, value)| value.len() > 3 * 4096), "none on several pages");
        for step in [777, 4096, 70_001] {
            assert!(findings(step) == whole, "{step}");
        }
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        struct Shrunk;
        impl Parts for Shrunk {
            fn size(&self) -> io::Result<u64> {
                Ok(10_000)
            }

            fn read(&self, at: usize, into: &mut [u8]) -> io::Result<()> {
                (&[0; 5000][..]).read(at, into)
            }
        }
        let targets = Targets::new(Scope::new("/registry/"), vec![Selector::All], vec![]);
        let known = KnownRows::default();
        let mut sink = |_: Finding, _: Bytes<'_>| panic!("nothing is there");
        let examined = examine_kine(File::Database, "db", &Shrunk, &targets, &known, &mut sink);
        assert_eq!(examined.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
