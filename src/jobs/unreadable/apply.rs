//! Saves entries that nobody can read, and deletes them.

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::plan::Unread;
use crate::entry::Entry;
use crate::source::SourceInfo;
use crate::source::live::{Commit, Kv, KvError};
use crate::temporary;

/// How often a member that does not answer, or is busy, is asked again.
const TRIES: u32 = 20;
/// And after which pause.
const AGAIN: Duration = Duration::from_millis(500);

/// What became of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// It was deleted, at this revision.
    Deleted(i64),
    /// It changed after it was looked at, and was left alone: its revision now.
    Changed(i64),
    /// It was no longer there.
    Gone,
    /// It was not deleted, or nobody knows.
    Failed(String),
}

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The entries cannot be read again.
    #[error("etcd cannot be read")]
    Read(#[source] KvError),
    /// They are not saved.
    #[error("the backup cannot be written")]
    Backup(#[source] io::Error),
}

#[derive(Serialize)]
struct Backup<'a> {
    schema: &'static str,
    created: String,
    source: &'a str,
    entries: Vec<Saved>,
}

/// An entry as etcd has it; key and value in base64.
#[derive(Serialize)]
struct Saved {
    key: String,
    value: String,
    create_revision: i64,
    mod_revision: i64,
    version: i64,
    lease: i64,
}

impl From<&Entry> for Saved {
    fn from(entry: &Entry) -> Self {
        Self {
            key: STANDARD.encode(&entry.key),
            value: STANDARD.encode(&entry.value),
            create_revision: entry.create_revision,
            mod_revision: entry.mod_revision,
            version: entry.version,
            lease: entry.lease,
        }
    }
}

/// Deletes `chosen`, each in a transaction of its own and only if it is as it was when it was
/// looked at, after all of them were written to a new file at `backup` (mode 0600). Returns what
/// became of each, in order.
///
/// # Errors
/// When they cannot be read or saved; nothing was deleted then.
pub fn run(
    kv: &Kv,
    source: &SourceInfo,
    chosen: &[&Unread],
    backup: &Path,
) -> Result<Vec<Done>, Error> {
    let mut entries = Vec::with_capacity(chosen.len());
    for unread in chosen {
        let found = kv.read(&[&[&unread.key]], None).map_err(Error::Read)?;
        entries.push(found.into_iter().next().flatten());
    }
    let same = |(entry, unread): (&Option<Entry>, &&Unread)| match entry {
        None => Err(Done::Gone),
        Some(entry) if entry.mod_revision == unread.mod_revision => Ok(()),
        Some(entry) => Err(Done::Changed(entry.mod_revision)),
    };
    let states: Vec<_> = entries.iter().zip(chosen).map(same).collect();
    let saved = entries.iter().zip(&states).filter(|(_, state)| state.is_ok());
    let saved: Vec<Saved> = saved.filter_map(|(entry, _)| entry.as_ref().map(Into::into)).collect();
    save(backup, source, saved).map_err(Error::Backup)?;
    let mut stopped = false;
    let delete = |(unread, state): (&&Unread, Result<(), Done>)| match state {
        Err(done) => done,
        Ok(()) if stopped => Done::Failed("not tried, after the failure before".to_owned()),
        Ok(()) => {
            let done = delete(kv, unread);
            stopped = matches!(done, Done::Failed(_));
            done
        }
    };
    Ok(chosen.iter().zip(states).map(delete).collect())
}

fn save(path: &Path, source: &SourceInfo, entries: Vec<Saved>) -> io::Result<()> {
    let document = Backup {
        schema: "atrest.deleted-entries/v1",
        created: jiff::Timestamp::now().to_string(),
        source: &source.location,
        entries,
    };
    let mut bytes = serde_json::to_vec_pretty(&document)?;
    bytes.push(b'\n');
    temporary::write(path, &bytes, false)
}

fn delete(kv: &Kv, unread: &Unread) -> Done {
    let mut lost = None;
    for attempt in 0..TRIES {
        if attempt > 0 {
            thread::sleep(AGAIN);
        }
        match kv.delete(&unread.key, unread.mod_revision) {
            Ok(Commit::Done(revision)) => return Done::Deleted(revision),
            Ok(Commit::Conflict(now)) => {
                // A request whose answer was lost may have been the one that deleted it.
                return now.first().copied().flatten().map_or(Done::Gone, Done::Changed);
            }
            Err(e @ (KvError::Busy | KvError::Lost(_))) => lost = Some(e.to_string()),
            Err(e) => return Done::Failed(e.to_string()),
        }
    }
    Done::Failed(lost.unwrap_or_default())
}
