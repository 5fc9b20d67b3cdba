//! Where plaintext of encrypted resources still lies, in one pass over every place of a source
//! that can hold it; and what was found, as files.

#[cfg(feature = "live")]
mod members;
pub(in crate::jobs) mod recover;
pub(in crate::jobs) mod search;

use std::collections::BTreeMap;
use std::path::Path;

use super::Observer;
use crate::agefile::Unlock;
use crate::archive::Archive;
use crate::bolt::BoltError;
use crate::export::ExportError;
use crate::forensics::Targets;
use crate::forensics::residue::{Bytes, Examined, Finding, Head, Sink, Totals};
use crate::resource::{Selection, Sought};
use crate::scan::Causes;
use crate::source::data_dir::{DataDir, Leftover};
#[cfg(feature = "kine")]
use crate::source::kine::Kine;
#[cfg(feature = "datastore")]
use crate::source::kine::server::Server;
#[cfg(feature = "live")]
use crate::source::live::LiveOptions;
use crate::source::snapshot::{Snapshot, SnapshotOptions};
use crate::source::{FileError, Input, Source, SourceError, SourceInfo, Visit};
use crate::transform::Transformers;
use recover::Recovery;

#[cfg(feature = "live")]
pub use self::members::Unsearched;

/// What is searched.
pub enum Opened {
    /// A database file.
    Snapshot(Snapshot),
    /// A database, its log, and what lies beside them.
    DataDir(DataDir),
    /// The rows of a database and its files.
    #[cfg(feature = "kine")]
    Kine(Box<Kine>),
    /// The rows of a database on a server.
    #[cfg(feature = "datastore")]
    Datastore(Box<Server>),
    /// What a source without files serves.
    Served(Box<dyn Source>),
}

impl Opened {
    /// A file that somebody calls a snapshot: a database, or an archive of objects.
    ///
    /// # Errors
    /// When it is neither, or cannot be read.
    pub fn file(
        path: &Path,
        unlock: &Unlock,
        options: &SnapshotOptions,
    ) -> Result<Self, SourceError> {
        let unreadable = |cause| FileError::Unreadable { path: path.to_owned(), cause };
        Self::of_file(path, Input::open(path, unlock).map_err(unreadable)?, options)
    }

    /// As [`Opened::file`], of one that is open already; `name` stands for its path.
    ///
    /// # Errors
    /// As there.
    pub fn of_file(
        name: &Path,
        file: Input,
        options: &SnapshotOptions,
    ) -> Result<Self, SourceError> {
        let unreadable = |cause| FileError::Unreadable { path: name.to_owned(), cause };
        let again = file.try_clone().map_err(unreadable)?;
        match Snapshot::of_file(name, file, options) {
            Err(SourceError::File(FileError::Objects { .. })) => {
                Ok(Self::Served(Box::new(Archive::of_file(name, again)?)))
            }
            database => database.map(Self::Snapshot),
        }
    }

    /// To read entries from.
    pub fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Snapshot(file) => file,
            Self::DataDir(dir) => dir,
            #[cfg(feature = "kine")]
            Self::Kine(database) => database.as_mut(),
            #[cfg(feature = "datastore")]
            Self::Datastore(server) => server.as_mut(),
            Self::Served(source) => source.as_mut(),
        }
    }

    /// To read entries from, and nothing else.
    #[must_use]
    pub fn into_source(self) -> Box<dyn Source> {
        match self {
            Self::Snapshot(file) => Box::new(file),
            Self::DataDir(dir) => Box::new(dir),
            #[cfg(feature = "kine")]
            Self::Kine(database) => database,
            #[cfg(feature = "datastore")]
            Self::Datastore(server) => server,
            Self::Served(source) => source,
        }
    }
}

/// What to look for.
pub struct Options<'o> {
    /// Which keys.
    pub targets: Targets,
    /// What was asked for, to be told whether it is there.
    pub selection: &'o Selection,
    /// Of that, what was asked for by name.
    pub sought: Sought,
    /// What is left of a damaged file is searched.
    pub salvage: bool,
    /// Writes what is found.
    pub recover: Option<Recover<'o>>,
    /// A snapshot of each member of this cluster is taken and searched, instead of what it serves.
    #[cfg(feature = "live")]
    pub members: Option<LiveOptions>,
}

/// How to write what is found.
pub struct Recover<'o> {
    /// Below this directory.
    pub dir: &'o Path,
    /// Existing files are replaced.
    pub force: bool,
    /// Objects lose what a server fills in.
    pub clean: bool,
    /// What decrypts encrypted records, or why they stay as they are.
    pub keys: Result<Transformers, &'static str>,
}

/// What was found.
pub struct Outcome {
    /// Where was searched.
    pub info: SourceInfo,
    /// Its revision and damage.
    pub visit: Visit,
    /// Live plaintext entries.
    pub head: Head,
    /// What was looked at.
    pub examined: Examined,
    /// What was not.
    pub not_examined: &'static [Unexamined],
    /// Members that could not be searched, of those that were to be.
    #[cfg(feature = "live")]
    pub unsearched: Vec<Unsearched>,
    /// Files that were searched although etcd does not use them, by their names.
    pub leftovers: Vec<(String, Leftover)>,
    /// Plaintext outside the live state, of what was asked for.
    pub findings: Vec<Finding>,
    /// Counts of it.
    pub totals: Totals,
    /// Counts of all there is, asked for or not.
    pub all: Totals,
    /// An entry of what is looked for is live. A source without files is asked for encrypted ones
    /// only to recover them.
    pub live: bool,
    /// What was asked for and seen: live, or as plaintext.
    pub seen: Sought,
    /// The same with encrypted records that are not live.
    pub seen_or_lost: Sought,
    /// Encrypted records of what was asked for that are not live. A source without files is asked
    /// for them only to recover them.
    pub lost: u64,
    /// What was written.
    pub recovered: Option<Recovered>,
}

/// A place that may hold plaintext and was not searched: it is not in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unexamined {
    /// The members' write-ahead logs.
    Logs,
    /// The members beside this one.
    Members,
    /// What the members' database files hold outside the key space.
    Pages,
    /// The members' write-ahead logs, and files that they left behind.
    LogsAndLeftovers,
    /// Rows that `PostgreSQL` deleted and did not overwrite.
    DeadTuples,
    /// `PostgreSQL`'s write-ahead log and its archive.
    ServerLog,
    /// Rows that `InnoDB` deleted and did not overwrite.
    DeletedRows,
    /// The binary, redo and undo logs of `MySQL` and `MariaDB`.
    BinaryLogs,
    /// Messages that `JetStream` removed and did not overwrite.
    StreamFiles,
    /// Replicas and mirrors of the stream, and backups of it.
    StreamCopies,
    /// Replicas of the database, and dumps and backups of it.
    Copies,
}

/// What was written.
#[derive(Default)]
pub struct Recovered {
    /// Whole objects.
    pub objects: u64,
    /// Parts, and what cannot be decoded.
    pub parts: u64,
    /// Encrypted records, by what decrypted them and where they lay.
    pub decrypted: BTreeMap<(String, &'static str), u64>,
    /// Encrypted records of which parts are gone, which nothing can decrypt.
    pub broken: u64,
    /// Encrypted records that no key reads, by cause.
    pub unread: Causes,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Its file is no database.
    #[error("cannot open the database")]
    Database(#[from] BoltError),
    /// What was found cannot be written.
    #[error(transparent)]
    Write(#[from] ExportError),
}

/// Searches a source, and writes what is found.
///
/// # Errors
/// See [`Error`].
pub fn run(
    opened: Opened,
    options: Options<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let Options { mut targets, selection, sought, salvage, recover, .. } = options;
    #[cfg(feature = "live")]
    let in_files = options.members.is_some() || !matches!(opened, Opened::Served(_));
    #[cfg(not(feature = "live"))]
    let in_files = !matches!(opened, Opened::Served(_));
    // In a file they are passed anyway; what is served would be kept until it is superseded.
    if recover.is_some() || in_files {
        targets = targets.with_encrypted();
    }
    let recovery = recover.map(|r| Recovery::new(r, targets.scope().clone())).transpose()?;
    for remark in recovery.iter().flat_map(Recovery::remarks) {
        observer.warning(&remark);
    }
    let mut found = Found {
        targets: &targets,
        selection,
        findings: Vec::new(),
        totals: Totals::default(),
        all: Totals::default(),
        lost: 0,
        live: false,
        seen_or_lost: sought.clone(),
        seen: sought,
        recovery,
    };
    #[cfg(feature = "live")]
    let (of_members, unsearched) = match &options.members {
        Some(connection) => members::search(connection, &targets, &mut found, observer)?,
        None => (None, Vec::new()),
    };
    #[cfg(not(feature = "live"))]
    let of_members = None;
    let searched = match of_members {
        Some(searched) => searched,
        None => search::search(opened, salvage, &targets, &mut found)?,
    };
    let Found { findings, totals, all, lost, live, seen, seen_or_lost, recovery, .. } = found;
    let recovered = recovery.map(Recovery::finish).transpose()?;
    let search::Searched { info, visit, head, examined, not_examined, leftovers, .. } = searched;
    Ok(Outcome {
        info,
        visit,
        head,
        examined,
        not_examined,
        #[cfg(feature = "live")]
        unsearched,
        leftovers,
        findings,
        totals,
        all,
        live,
        seen,
        seen_or_lost,
        lost,
        recovered,
    })
}

/// Collects what a search brings.
struct Found<'o> {
    targets: &'o Targets,
    selection: &'o Selection,
    findings: Vec<Finding>,
    /// Of what was asked for.
    totals: Totals,
    /// Of everything.
    all: Totals,
    /// Encrypted records of what was asked for, which are no residue.
    lost: u64,
    /// An entry is live.
    live: bool,
    seen: Sought,
    seen_or_lost: Sought,
    recovery: Option<Recovery>,
}

impl Found<'_> {
    fn saw(&mut self, key: &[u8], lost: bool) {
        if self.seen.is_complete() || lost && self.seen_or_lost.is_complete() {
            return;
        }
        if let Some(location) = self.selection.locate(key) {
            self.seen_or_lost.saw(&location);
            if !lost {
                self.seen.saw(&location);
            }
        }
    }
}

impl Sink for Found<'_> {
    fn found(&mut self, finding: Finding, bytes: Bytes<'_>) {
        // What has lost its key may be anybody's.
        let listed = finding.key.as_deref().is_none_or(|key| self.targets.lists(key));
        if !finding.encrypted {
            self.all.add(finding.place);
        } else if finding.key.is_none() {
            return;
        }
        if !listed {
            return;
        }
        if let Some(key) = finding.key.as_deref() {
            self.saw(key, finding.encrypted);
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.take(&finding, bytes);
        }
        if finding.encrypted {
            self.lost += 1;
        } else {
            self.totals.add(finding.place);
            self.findings.push(finding);
        }
    }

    fn live(&mut self, key: &[u8], value: &[u8]) {
        self.live = true;
        self.saw(key, false);
        if let Some(recovery) = &mut self.recovery {
            recovery.live(key, value);
        }
    }
}

impl search::Hunt for Found<'_> {
    #[cfg(feature = "kine")]
    fn lives(&mut self, key: &[u8]) {
        self.live = true;
        self.saw(key, false);
    }

    #[cfg(feature = "kine")]
    fn wants_digests(&self) -> bool {
        self.recovery.is_some()
    }

    #[cfg(feature = "kine")]
    fn are_live(&mut self, digests: &mut dyn Iterator<Item = recover::Digest>) {
        if let Some(recovery) = &mut self.recovery {
            recovery.are_live(digests);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::entry::EntryRef;
    use crate::jobs::Silent;
    use crate::resource::{Scope, Selector};
    use crate::source::{EntrySink, Query, Record, RecordSink, SourceKind};

    const KEY: &[u8] = b"/registry/secrets/ns/a";

    /// Serves revisions of one key, and counts how often it is read.
    struct Served(Vec<&'static [u8]>, Arc<AtomicUsize>);

    impl Source for Served {
        fn info(&self) -> SourceInfo {
            SourceInfo { kind: SourceKind::Etcd, location: "test".to_owned() }
        }

        fn visit(&mut self, _: &Query, _: &mut EntrySink<'_>) -> Result<Visit, SourceError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Ok(Visit::default())
        }

        fn history(&mut self, _: &Query, sink: &mut RecordSink<'_>) -> Result<Visit, SourceError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            for (revision, value) in (2..).zip(&self.0) {
                let entry = EntryRef {
                    create_revision: 2,
                    mod_revision: revision,
                    version: revision - 1,
                    ..EntryRef::new(KEY, value)
                };
                assert_eq!(sink(Record::Put(entry)), ControlFlow::Continue(()));
            }
            Ok(Visit::default())
        }
    }

    #[test]
    fn what_is_to_be_recovered_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let reads = Arc::new(AtomicUsize::new(0));
        let values: Vec<&[u8]> = vec![
            b"k8s:enc:aescbc:v1:k:1",
            b"k8s:enc:aescbc:v1:k:2",
            b"{}",
            b"k8s:enc:aescbc:v1:k:1",
        ];
        let served = Served(values, Arc::clone(&reads));
        let selection = Selection {
            scope: Scope::new("/registry/"),
            resources: vec![Selector::Exact("secrets".to_owned())],
            namespaces: vec![],
        };
        let options = Options {
            targets: Targets::new(selection.scope.clone(), selection.resources.clone(), vec![]),
            sought: Sought::new(&selection, true),
            selection: &selection,
            salvage: false,
            recover: Some(Recover {
                dir: dir.path(),
                force: false,
                clean: false,
                keys: Err("no keys"),
            }),
            #[cfg(feature = "live")]
            members: None,
        };
        let outcome = run(Opened::Served(Box::new(served)), options, &mut Silent).unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        assert!(outcome.seen.is_complete());
        assert_eq!((outcome.findings.len(), outcome.lost), (1, 2));
        let written = outcome.recovered.unwrap();
        assert_eq!((written.objects, written.parts), (1, 0), "what is plain");
        let unread = written.unread.sorted();
        assert_eq!(unread.len(), 1);
        assert_eq!(unread[0].1.entries, 1, "the other one is live");
    }
}
