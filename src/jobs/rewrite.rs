//! A snapshot file → a new one with other envelopes, under its name only when it is whole and
//! reads back.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, Write as _};
use std::ops::ControlFlow;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::Observer;
use crate::bolt::{BoltError, Db};
use crate::migrate::rewrite::{Counts, Fate, RewriteError, rewrite};
use crate::mvcc::Store;
use crate::range::KeyRange;
use crate::resource::Scope;
use crate::source::snapshot::{Snapshot, SnapshotOptions};
use crate::source::{Query, Source as _, SourceError};
use crate::temporary::Unplaced;
use crate::transform::Transformers;

/// What to write, and where.
pub struct Options<'o> {
    /// The new file. It must not exist.
    pub out: &'o Path,
    /// Which keys are an API server's.
    pub scope: Scope,
    /// Reads what `writer` does not.
    pub reader: &'o Transformers,
    /// What is not as this would write it is written so.
    pub writer: &'o Transformers,
    /// Superseded revisions and deletions are left out.
    pub drop_history: bool,
    /// Values that cannot be read are copied as they are.
    pub keep_unreadable: bool,
}

/// Why there is no new file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The input is no database.
    #[error("cannot read the snapshot")]
    Database(#[from] BoltError),
    /// The input is damaged, or the output cannot be written.
    #[error("cannot rewrite the snapshot")]
    Rewrite(#[from] RewriteError),
    /// Values that cannot be read, which are not to be copied.
    #[error("values cannot be read")]
    Unreadable(Counts),
    /// The output.
    #[error("cannot write the new file")]
    Write(#[source] io::Error),
    /// The new file has more or less than was written.
    #[error("the new file does not read back as it was written")]
    Different,
}

/// Writes the new file.
///
/// # Errors
/// See [`Error`]; there is no new file then.
pub fn run(
    snapshot: &mut Snapshot,
    options: &Options<'_>,
    observer: &mut dyn Observer,
) -> Result<Counts, Error> {
    let everything = Query { ranges: Vec::new(), revision: None, ordered: false };
    // An empty visit still waits for the file's hash.
    let visit = snapshot.visit(&everything, &mut |_| ControlFlow::Continue(()))?;
    for note in &visit.notes {
        observer.note(note);
    }
    let bytes = snapshot.bytes().clone();
    let store = Store::open(Db::open(&bytes)?);
    // Private from the start, and gone again unless everything went well.
    let temporary = Unplaced::beside(options.out).map_err(Error::Write)?;
    let Options { scope, reader, writer, .. } = options;
    let mut decide = |key: &[u8], value: &[u8]| fate(scope, reader, writer, key, value);
    let out = BufWriter::with_capacity(1 << 20, temporary);
    let (out, counts) = rewrite(&store, out, options.drop_history, &mut decide)?;
    if !counts.unreadable.is_empty() && !options.keep_unreadable {
        return Err(Error::Unreadable(counts));
    }
    let mut temporary = out.into_inner().map_err(|e| Error::Write(e.into_error()))?;
    append_hash(temporary.as_file_mut()).map_err(Error::Write)?;
    check(temporary.path(), &counts)?;
    temporary.place(false).map_err(Error::Write)?;
    Ok(counts)
}

/// What becomes of one value.
fn fate(
    scope: &Scope,
    reader: &Transformers,
    writer: &Transformers,
    key: &[u8],
    value: &[u8],
) -> Fate {
    let location = scope.locate(key);
    if location.internal {
        return Fate::Keep;
    }
    let to = writer.for_resource(&location.resource);
    // By reading, not by name: an old and a new key may share one.
    let plaintext = match to.read(key, value) {
        Ok(opened) if !opened.stale => return Fate::Keep,
        Ok(opened) => opened.plaintext,
        Err(_) => match reader.for_resource(&location.resource).read(key, value) {
            Ok(opened) => opened.plaintext,
            Err(e) => return Fate::Unreadable(e.to_string()),
        },
    };
    // Another envelope would only hide what it is.
    if let Err(e) = crate::storage::type_meta(plaintext.expose()) {
        return Fate::Unreadable(e.to_string());
    }
    let written = match to.write(key, &plaintext) {
        Ok(written) => written,
        Err(e) => return Fate::Unreadable(format!("cannot be written: {e}")),
    };
    match to.read(key, &written) {
        Ok(back) if back.plaintext.same(&plaintext) => Fate::Replace(written),
        _ => Fate::Unreadable("does not read back as it was written".to_owned()),
    }
}

/// Appends the SHA-256 that `etcdctl snapshot save` appends and `snapshot restore` checks.
fn append_hash(file: &mut File) -> io::Result<()> {
    let mut hash = Sha256::new();
    file.rewind()?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        hash.update(&chunk[..n]);
    }
    file.write_all(&hash.finalize())?;
    file.sync_all()
}

/// Opens the new file as a reader would, before it gets its name.
fn check(path: &Path, counts: &Counts) -> Result<(), Error> {
    let mut snapshot = Snapshot::open(path, &SnapshotOptions::default())?;
    let mut records = 0;
    let all = Query {
        ranges: vec![KeyRange { start: Vec::new(), end: None }],
        revision: None,
        ordered: false,
    };
    let visit = snapshot.history(&all, &mut |_| {
        records += 1;
        ControlFlow::Continue(())
    })?;
    (visit.damage.is_empty() && records == counts.events).then_some(()).ok_or(Error::Different)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bolt::write::Writer;

    #[test]
    fn a_new_file_that_lacks_or_has_more_than_was_written_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::new(file, 4096).unwrap();
        let mut keys = writer.bucket(b"key");
        for main in 2..5u8 {
            let mut revision = [0; 17];
            (revision[7], revision[8]) = (main, b'_');
            keys.put(&revision, &[0x0A, 1, b'a' + main, 0x10, main, 0x18, main, 0x20, 1]).unwrap();
        }
        // As `snapshot restore --bump-revision` leaves it: a record, but no event.
        let mut marker = [0; 17];
        (marker[7], marker[8]) = (9, b'_');
        keys.put(&marker, &[]).unwrap();
        keys.finish().unwrap();
        let mut file = writer.finish(3).unwrap();
        append_hash(file.as_file_mut()).unwrap();
        let counts = |events| Counts { records: 4, events, ..Counts::default() };
        assert!(check(file.path(), &counts(3)).is_ok());
        for wrong in [2, 4] {
            assert!(check(file.path(), &counts(wrong)).is_err(), "{wrong}");
        }
    }
}
