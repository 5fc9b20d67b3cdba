//! What to do about files that cannot be read.

use std::io;

use crate::agefile::Sealed;
use crate::source::{DataDirError, FileError, Foreign, KineError, RevisionError};

const GIVE_SNAPSHOT: &str =
    "give a file that `etcdctl snapshot save` wrote, or a copy of member/snap/db";
const STATE_DB: &str =
    "--kine takes kine's database, on k3s /var/lib/rancher/k3s/server/db/state.db";
const SAVE_FIRST: &str = "save it to a file first; the pages of a database are not read in order";

pub(super) fn file(e: &FileError) -> Option<String> {
    let hint = match e {
        FileError::Unreadable { cause, .. } => return unreadable(cause).map(str::to_owned),
        FileError::Directory { .. } => "a member's data directory is opened with --data-dir",
        FileError::NotRegular { .. } => SAVE_FIRST,
        FileError::Empty { .. } => {
            "save it anew with `etcdctl snapshot save`; one that fails leaves a .part file behind"
        }
        FileError::InUse { .. } => {
            "read the running etcd with --endpoints, or take a copy with `etcdctl snapshot save`"
        }
        FileError::Sealed { why, .. } => match why {
            Sealed::Locked | Sealed::NotForThese => {
                "give the identity of one of its recipients with --identity FILE"
            }
            Sealed::Passphrase => "decrypt it with `age -d` first",
            Sealed::Damaged => "take another copy",
        },
        FileError::Member { .. } => "unpack it where nothing can be harmed, and give the directory",
        FileError::Unpack { .. } => "take another copy, or unpack it and give the snapshot file",
        FileError::Databases { .. } => "unpack it and give one of them",
        FileError::Bomb { .. } => "unpack it and give the snapshot file",
        FileError::NoRoom { .. } => "point TMPDIR to a directory with room for it",
        FileError::Objects { .. } => {
            "`atrest scan --snapshot FILE` and `atrest export --snapshot FILE` read its objects; give the etcd snapshot itself"
        }
        FileError::Foreign { what, .. } => match what {
            Foreign::Sqlite => "a k3s or kine database is opened with --kine",
            Foreign::Bzip2 => "unpack it with `bunzip2` first",
            Foreign::Incremental => {
                "`atrest backups DIRECTORY` judges it beside the Full-* file that it goes on from; --snapshot takes that one"
            }
            Foreign::Value => "pipe a single value into `atrest decode`",
        },
        FileError::NotSnapshot { .. }
        | FileError::NotEtcd { .. }
        | FileError::NoDatabase { .. } => GIVE_SNAPSHOT,
        FileError::Damaged { .. } => "take another copy; --salvage reads what is left",
        FileError::Digest { .. } | FileError::Size { .. } | FileError::NoDigest { .. } => {
            "take a whole copy; --skip-hash-check reads it all the same"
        }
        FileError::CutShort { .. } => "take a whole copy; --salvage reads what is there",
    };
    Some(hint.to_owned())
}

fn unreadable(cause: &io::Error) -> Option<&'static str> {
    match cause.kind() {
        io::ErrorKind::NotFound => Some("check the path"),
        io::ErrorKind::PermissionDenied => Some("run as a user who may read it, such as root"),
        _ => None,
    }
}

pub(super) fn data_dir(e: &DataDirError) -> String {
    match e {
        DataDirError::Several { .. } => {
            "unpack it and give one of them, the directory with `member` in it".to_owned()
        }
        DataDirError::File { .. } => {
            "a snapshot or a copy of member/snap/db is opened with --snapshot".to_owned()
        }
        DataDirError::NotEtcd { .. } => {
            "--data-dir takes the directory that etcd was started with, often /var/lib/etcd"
                .to_owned()
        }
        DataDirError::NoDatabase { .. } => {
            "--data-dir takes the directory that etcd was started with".to_owned()
        }
        DataDirError::NoLog { db, .. } | DataDirError::EmptyLog { db, .. } => format!(
            "if it was kept elsewhere (--wal-dir), link it there; --snapshot {} reads the database alone, which can lag behind",
            db.display()
        ),
        DataDirError::Gap { .. } => {
            "--snapshot with the db file reads the database alone; --salvage applies what there is"
                .to_owned()
        }
    }
}

pub(super) fn kine(e: &KineError) -> Option<&'static str> {
    Some(match e {
        KineError::Unreadable { cause, .. } if cause.kind() == io::ErrorKind::NotFound => {
            "check the path; on k3s it is /var/lib/rancher/k3s/server/db/state.db, and with embedded etcd there is none"
        }
        KineError::Unreadable { cause, .. } => return unreadable(cause),
        KineError::Directory { .. } => {
            "--kine takes the database itself, on k3s /var/lib/rancher/k3s/server/db/state.db; an etcd data directory is opened with --data-dir"
        }
        KineError::NotRegular { .. } => SAVE_FIRST,
        KineError::Empty { .. } => "on k3s the database is /var/lib/rancher/k3s/server/db/state.db",
        KineError::NotSqlite { bolt: true, .. } => {
            "this is an etcd database: open it with --snapshot"
        }
        KineError::NotSqlite { zip: true, .. } => "a compressed snapshot is opened with --snapshot",
        KineError::NotSqlite { .. } | KineError::NotKine { .. } | KineError::NoColumn { .. } => {
            STATE_DB
        }
        KineError::Damaged { .. } => {
            "take another copy, its -wal file included; `sqlite3 FILE .recover` rebuilds what is left"
        }
        KineError::Locked { .. } => "try again, or read a copy made with `sqlite3 … .backup`",
        KineError::Failed { .. } => "read a copy made with `sqlite3 … .backup`",
        KineError::Unwritable { .. } => "only its owner may, or root",
        KineError::Unwritten { .. } => "what was done before is done; run it again to continue",
        KineError::Copy { .. } => "point TMPDIR to a directory with room for it",
        KineError::Restless { .. } => {
            "stop the server that writes it, or read a copy made with `sqlite3 … .backup`"
        }
        KineError::Changed { .. } => "a server was started on it; run the command again",
    })
}

pub(super) fn revision(e: &RevisionError) -> String {
    match e {
        RevisionError::Future { compacted, newest, .. } => {
            format!("--revision takes {} to {newest} here", compacted.max(&1))
        }
        RevisionError::Compacted { compacted, newest, .. } => {
            format!("--revision takes {compacted} to {newest} here")
        }
        RevisionError::NotReached(_) => NOT_REACHED.to_owned(),
        RevisionError::Forgotten(_) => {
            "give a newer --revision, or none for the newest; a snapshot taken before may still hold it"
                .to_owned()
        }
        RevisionError::CompactedMeanwhile(_) => {
            "run it again; if it happens each time, scan a snapshot (etcdctl snapshot save)"
                .to_owned()
        }
        RevisionError::HistoryCompacted(_) => {
            "run it again, or read a snapshot (etcdctl snapshot save)".to_owned()
        }
        RevisionError::Gone => "run it again".to_owned(),
    }
}

pub(super) const NO_HISTORY: &str = "`atrest scan` without --revision says how its objects are stored; revisions are in a snapshot of the etcd that they came from";

pub(super) const NOT_REACHED: &str =
    "give a --revision that has been reached, or none for the newest";
