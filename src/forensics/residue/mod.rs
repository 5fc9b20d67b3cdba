//! Where plaintext of resources that should be encrypted still lies outside the live state, and
//! what removes it.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `database` | a bbolt file: superseded revisions, free pages, page slack |
//! | `terrain` | which pages can hold one record together |
//! | `log` | segments of the write-ahead log, and files without structure |
//! | `sqlite` | the bytes of a kine database |
//! | `orphan` | pieces of Secrets whose beginning was overwritten |

mod database;
mod log;
mod orphan;
mod sqlite;
mod terrain;

pub use database::{Database, Newer, examine, examine_leftover};
pub use log::{examine_bytes, examine_log};
pub use sqlite::{File as KineFile, KnownRows, Parts, examine_kine};

use std::ops::Range;

use zeroize::Zeroizing;

use super::{Targets, Written, carve};

/// The kinds of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A revision of the key space that is not the newest of its key.
    SupersededRevision,
    /// A page that no bucket uses, or one that was never allocated.
    FreePage,
    /// A page in use, beside its elements.
    PageSlack,
    /// A segment of the write-ahead log.
    Wal,
    /// A file that etcd left behind.
    LeftoverFile,
    /// kine's copy of the superseded value, beside the live one.
    KineOldValue,
}

impl Place {
    /// Every kind, in the order of reports.
    pub const ALL: [Self; 6] = [
        Self::SupersededRevision,
        Self::FreePage,
        Self::PageSlack,
        Self::Wal,
        Self::LeftoverFile,
        Self::KineOldValue,
    ];

    /// The word in JSON output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SupersededRevision => "superseded-revision",
            Self::FreePage => "free-page",
            Self::PageSlack => "page-slack",
            Self::Wal => "wal",
            Self::LeftoverFile => "leftover-file",
            Self::KineOldValue => "kine-old-value",
        }
    }
}

/// One place where plaintext lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of place.
    pub place: Place,
    /// Where exactly, in words: `page 17 offset 212`.
    pub location: String,
    /// The full etcd key; `None` where it was overwritten.
    pub key: Option<Vec<u8>>,
    /// Group-qualified resource.
    pub resource: String,
    /// Revision of the write, where known.
    pub revision: Option<i64>,
    /// What the record says of its key, where it does.
    pub written: Option<Written>,
    /// It is the record of a deletion. Only of these places, and only where that was asked for.
    pub deletion: bool,
    /// Bytes of the value that are there.
    pub size: u64,
    /// Parts of the value were overwritten or cut off.
    pub partial: bool,
    /// The value is encrypted: no residue, but an object that was lost can be read from it.
    pub encrypted: bool,
}

/// A finding's bytes, for recovery.
#[derive(Clone, Copy)]
pub struct Bytes<'a> {
    data: &'a [u8],
    value_at: usize,
    pieces: &'a [Range<usize>],
}

impl<'a> Bytes<'a> {
    /// Parts of `data`, zeros between them; `value_at` is where the value began.
    #[must_use]
    pub fn new(data: &'a [u8], value_at: usize, pieces: &'a [Range<usize>]) -> Self {
        Self { data, value_at, pieces }
    }

    /// The value, zeros where parts were overwritten.
    #[must_use]
    pub fn value(&self) -> Zeroizing<Vec<u8>> {
        carve::assemble(self.data, self.value_at, self.pieces)
    }

    /// Where in the data the value's bytes lie.
    #[must_use]
    pub fn pieces(&self) -> &'a [Range<usize>] {
        self.pieces
    }
}

/// Receives what an examination finds.
pub trait Sink {
    /// Takes a finding.
    fn found(&mut self, finding: Finding, bytes: Bytes<'_>);

    /// Is told of an entry that is looked for and is live, before anything is found that is not.
    fn live(&mut self, key: &[u8], value: &[u8]) {
        let _ = (key, value);
    }
}

impl<F: FnMut(Finding, Bytes<'_>)> Sink for F {
    fn found(&mut self, finding: Finding, bytes: Bytes<'_>) {
        self(finding, bytes);
    }
}

/// Live entries that are stored unencrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Those that were asked for.
    pub listed: u64,
    /// Others that are looked for.
    pub elsewhere: u64,
}

impl Head {
    /// Counts one.
    pub fn add(&mut self, key: &[u8], targets: &Targets) {
        if targets.lists(key) {
            self.listed += 1;
        } else {
            self.elsewhere += 1;
        }
    }

    /// All of them.
    #[must_use]
    pub fn sum(self) -> u64 {
        self.listed + self.elsewhere
    }
}

/// Findings by kind of place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals([u64; Place::ALL.len()]);

impl Totals {
    /// Counts one finding.
    pub fn add(&mut self, place: Place) {
        self.0[place as usize] += 1;
    }

    /// Findings in one kind of place.
    #[must_use]
    pub fn get(&self, place: Place) -> u64 {
        self.0[place as usize]
    }

    /// Findings in all places.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// What was looked at, which decides what can be advised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// Pages of a database file.
    pub pages: bool,
    /// Segments of the write-ahead log.
    pub wal: bool,
    /// It is a kine database.
    pub kine: bool,
    /// It is one on a server.
    pub server: Option<Server>,
}

/// Servers that keep kine's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// `PostgreSQL`.
    Postgres,
    /// `MySQL` or `MariaDB`.
    MySql,
    /// NATS `JetStream`, which keeps some messages of each key whatever kine compacts.
    Nats,
}

/// kine's compaction removes no message (k3s-io/kine `pkg/drivers/nats/backend.go`: `Compact`); a
/// lower limit does, where a deletion's copy of the value goes before the bucket's own mark.
const NATS: &str = "lower the number of messages that the stream keeps of each subject to 1 (nats stream edit KV_BUCKET --max-msgs-per-subject=1), then set it back to what it was before kine starts again: kine's compaction removes none";

/// What removes the plaintext, in the order in which it must be done. Empty when there is none.
#[must_use]
pub fn remedy(head: u64, totals: &Totals, revision: i64, examined: Examined) -> Vec<String> {
    let mut steps = Vec::new();
    if head > 0 {
        steps.push(format!(
            "re-encrypt the {head} live plaintext entries (`atrest migrate`), then look again"
        ));
    }
    if totals.sum() == 0 {
        return steps;
    }
    if examined.kine {
        let compacts = examined.server != Some(Server::Nats);
        if compacts && totals.get(Place::SupersededRevision) > 0 {
            steps.push(format!("let kine compact to revision {revision} (it does so by itself)"));
        }
        if compacts && totals.get(Place::KineOldValue) > 0 {
            steps.push(
                "write the objects once more: kine keeps the value before the last write beside the live one"
                    .into(),
            );
        }
        steps.push(
            match examined.server {
                None => {
                    "stop k3s and run VACUUM on the database, then checkpoint its write-ahead log"
                }
                Some(Server::Postgres) => {
                    "run VACUUM FULL kine, then wait for the server's write-ahead log to rotate, or force it (pg_switch_wal, CHECKPOINT)"
                }
                Some(Server::Nats) => NATS,
                Some(Server::MySql) => {
                    "run OPTIMIZE TABLE kine, then rotate and purge the binary logs (FLUSH BINARY LOGS, PURGE BINARY LOGS)"
                }
            }
            .into(),
        );
    } else {
        if totals.get(Place::SupersededRevision) > 0 || head > 0 {
            steps.push(format!("compact to revision {revision}"));
        }
        let in_pages = [Place::SupersededRevision, Place::FreePage, Place::PageSlack]
            .into_iter()
            .any(|p| totals.get(p) > 0);
        if in_pages || head > 0 {
            steps.push("defragment every member".into());
        }
        if totals.get(Place::Wal) > 0 || head > 0 || !examined.wal {
            steps.push(
                "wait for the write-ahead log to rotate on every member, or force it: restart each with --snapshot-count=100 --max-wals=1 and write 150 MB, as one key again and again"
                    .into(),
            );
        }
        if totals.get(Place::LeftoverFile) > 0 {
            steps.push("delete the leftover files".into());
        }
    }
    steps.push("replace old backups and snapshots taken before this".into());
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_come_in_the_order_in_which_they_work() {
        let pages = Examined { pages: true, ..Examined::default() };
        let mut totals = Totals::default();
        assert_eq!(remedy(0, &totals, 9, pages), Vec::<String>::new());
        totals.add(Place::FreePage);
        let free = remedy(0, &totals, 9, pages);
        assert_eq!(free.len(), 3, "nothing to compact: {free:?}");
        assert!(free[0].starts_with("defragment"));
        totals.add(Place::SupersededRevision);
        let all = remedy(1, &totals, 9, pages);
        let words: Vec<_> = all.iter().map(|s| s.split(' ').next().unwrap()).collect();
        assert_eq!(words, ["re-encrypt", "compact", "defragment", "wait", "replace"]);
        assert_eq!(all[1], "compact to revision 9");
        let mut wal = Totals::default();
        wal.add(Place::Wal);
        let only_wal =
            remedy(0, &wal, 9, Examined { pages: true, wal: true, ..Examined::default() });
        assert_eq!(only_wal.len(), 2, "{only_wal:?}");
    }
}
