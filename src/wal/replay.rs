//! Applies requests to a state the way etcd does, so that a stopped member's database and log
//! together give what it would serve.
//!
//! Source: etcd-io/etcd `server/etcdserver/apply*.go`, `server/storage/mvcc/kvstore_txn.go`,
//! `server/lease/lessor.go`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::request::{self, Compare, Compared, Op, Put, Relation, Request, Span, Txn};
use super::{EntryKind, Log};
use crate::mvcc::Revision;

/// A live key.
#[derive(Clone, Copy)]
pub struct Live<'a> {
    /// The stored value.
    pub value: &'a [u8],
    /// Revision of the put that created the key.
    pub create_revision: i64,
    /// Revision of the last put.
    pub mod_revision: i64,
    /// Number of puts since creation.
    pub version: i64,
    /// Lease id, 0 for none.
    pub lease: i64,
}

/// One record that the replay adds: a put, or a deletion where `live` is `None`.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    /// Its revision.
    pub revision: Revision,
    /// The full etcd key.
    pub key: &'a [u8],
    /// What was put.
    pub live: Option<Live<'a>>,
}

/// The key space and what decides whether a request succeeds.
#[derive(Default)]
pub struct Machine<'a> {
    /// Live keys.
    pub keys: BTreeMap<&'a [u8], Live<'a>>,
    /// Current revision.
    pub revision: i64,
    /// Revision of the last compaction, -1 for none.
    pub compacted: i64,
    /// Leases that exist.
    pub leases: BTreeSet<i64>,
    /// Alarms that are raised: kind and member.
    pub alarms: BTreeSet<(u64, u64)>,
    /// Requests need permissions, which are not checked here.
    pub auth: bool,
    /// Everything that was changed, by ascending revision.
    pub changes: Vec<Change<'a>>,
    /// Requests that needed permissions and changed something.
    pub unchecked: u64,
    /// Changes of the request being applied.
    sub: i64,
}

const NO_SPACE: u64 = 1;
const CORRUPT: u64 = 2;

impl<'a> Machine<'a> {
    /// An empty key space at a revision; `compacted` is -1 for never.
    #[must_use]
    pub fn new(revision: i64, compacted: i64) -> Self {
        Self { revision, compacted, ..Self::default() }
    }

    /// Applies one request. One that etcd would refuse changes nothing.
    pub fn apply(&mut self, request: &Request<'a>) {
        self.sub = 0;
        let raised = |kind| self.alarms.iter().any(|(k, _)| *k == kind);
        let (full, corrupt) = (raised(NO_SPACE), raised(CORRUPT));
        match request {
            Request::Alarm { raise: true, member, kind } => {
                self.alarms.insert((*kind, *member));
            }
            Request::Alarm { raise: false, member, kind } => {
                self.alarms.remove(&(*kind, *member));
            }
            Request::Auth(on) => self.auth = *on,
            // Nothing else is done after corruption was found.
            _ if corrupt => {}
            Request::Put(put) if !full && self.can_put(put) => self.put(put),
            Request::Delete(span) => self.delete(span),
            Request::Txn(txn) if !(full && costs(txn)) => self.txn(txn),
            Request::Compact(at) if *at > self.compacted && *at <= self.revision => {
                self.compacted = *at;
            }
            Request::LeaseGrant(id) if !full => {
                self.leases.insert(*id);
            }
            Request::LeaseRevoke(id) if self.leases.remove(id) => {
                let attached: Vec<_> =
                    self.keys.iter().filter(|(_, l)| l.lease == *id).map(|(k, _)| *k).collect();
                for key in attached {
                    self.remove(key);
                }
            }
            _ => {}
        }
        if self.sub > 0 {
            self.revision = self.revision.saturating_add(1);
            self.unchecked += u64::from(self.auth);
        }
    }

    fn can_put(&self, put: &Put<'_>) -> bool {
        let keeps = put.ignore_value || put.ignore_lease;
        (!keeps || self.keys.contains_key(put.key))
            && (put.lease == 0 || self.leases.contains(&put.lease))
    }

    fn next_revision(&mut self, tombstone: bool) -> Revision {
        let revision = Revision { main: self.revision.saturating_add(1), sub: self.sub, tombstone };
        self.sub += 1;
        revision
    }

    fn put(&mut self, put: &Put<'a>) {
        let revision = self.next_revision(false);
        let old = self.keys.get(put.key).copied();
        let live = Live {
            value: old.filter(|_| put.ignore_value).map_or(put.value, |o| o.value),
            create_revision: old.map_or(revision.main, |o| o.create_revision),
            mod_revision: revision.main,
            version: old.map_or(0, |o| o.version).saturating_add(1),
            lease: old.filter(|_| put.ignore_lease).map_or(put.lease, |o| o.lease),
        };
        self.keys.insert(put.key, live);
        self.changes.push(Change { revision, key: put.key, live: Some(live) });
    }

    fn delete(&mut self, span: &Span<'a>) {
        let doomed: Vec<_> = self.range(span).map(|(key, _)| key).collect();
        for key in doomed {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: &'a [u8]) {
        self.keys.remove(key);
        let revision = self.next_revision(true);
        self.changes.push(Change { revision, key, live: None });
    }

    fn range(&self, span: &Span<'_>) -> impl Iterator<Item = (&'a [u8], &Live<'a>)> {
        let start = Bound::Included(span.key);
        let end = match span.end {
            [] => Bound::Included(span.key),
            [0] => Bound::Unbounded,
            end => Bound::Excluded(end),
        };
        // A range that ends before it begins is empty, which the map would not take for an answer.
        let empty = matches!(end, Bound::Excluded(end) if end <= span.key);
        (!empty)
            .then(|| self.keys.range::<[u8], _>((start, end)))
            .into_iter()
            .flatten()
            .map(|(k, v)| (*k, v))
    }

    fn txn(&mut self, txn: &Txn<'a>) {
        // All comparisons, nested ones too, see the state before the transaction.
        let mut path = Vec::new();
        self.decide(txn, &mut path);
        let mut decisions = path.iter().copied();
        if self.can_run(txn, true, &mut decisions) {
            let mut decisions = path.iter().copied();
            self.run(txn, &mut decisions);
        }
    }

    fn decide(&self, txn: &Txn<'_>, path: &mut Vec<bool>) {
        let holds = txn.compares.iter().all(|c| self.holds(c));
        path.push(holds);
        for op in if holds { &txn.success } else { &txn.failure } {
            if let Op::Txn(inner) = op {
                self.decide(inner, path);
            }
        }
    }

    /// Whether every operation on the path would succeed; if one would not, none is done.
    ///
    /// A member that starts drops the reads of its log's transactions, as nobody waits for their
    /// answers, though not those of nested ones (etcd `server/etcdserver/apply.go`:
    /// `removeNeedlessRangeReqs`). So a read of a revision that is compacted or yet to come, which
    /// made the transaction fail at first, no longer does.
    fn can_run(
        &self,
        txn: &Txn<'_>,
        outermost: bool,
        path: &mut dyn Iterator<Item = bool>,
    ) -> bool {
        let taken = if path.next().unwrap_or(false) { &txn.success } else { &txn.failure };
        taken.iter().all(|op| match op {
            Op::Range(at) => {
                outermost || *at == 0 || (*at >= self.compacted && *at <= self.revision)
            }
            Op::Put(put) => self.can_put(put),
            Op::Delete(_) => true,
            Op::Txn(inner) => self.can_run(inner, false, path),
        })
    }

    fn run(&mut self, txn: &Txn<'a>, path: &mut dyn Iterator<Item = bool>) {
        let taken = if path.next().unwrap_or(false) { &txn.success } else { &txn.failure };
        for op in taken {
            match op {
                Op::Range(_) => {}
                Op::Put(put) => self.put(put),
                Op::Delete(span) => self.delete(span),
                Op::Txn(inner) => self.run(inner, path),
            }
        }
    }

    fn holds(&self, compare: &Compare<'_>) -> bool {
        let mut keys = self.range(&compare.span).peekable();
        if keys.peek().is_none() {
            // A missing key has revisions, version and lease 0, but no value.
            return !matches!(compare.target, Compared::Value(_))
                && relates(
                    compare,
                    &Live { value: &[], create_revision: 0, mod_revision: 0, version: 0, lease: 0 },
                );
        }
        keys.all(|(_, live)| relates(compare, live))
    }
}

fn relates(compare: &Compare<'_>, live: &Live<'_>) -> bool {
    let order = match compare.target {
        Compared::Version(n) => live.version.cmp(&n),
        Compared::Create(n) => live.create_revision.cmp(&n),
        Compared::Mod(n) => live.mod_revision.cmp(&n),
        Compared::Value(v) => live.value.cmp(v),
        Compared::Lease(n) => live.lease.cmp(&n),
    };
    match compare.relation {
        Relation::Equal => order == Ordering::Equal,
        Relation::Greater => order == Ordering::Greater,
        Relation::Less => order == Ordering::Less,
        Relation::NotEqual => order != Ordering::Equal,
    }
}

/// Whether etcd refuses the transaction while its alarm for space is raised: it does when either
/// list has a put.
fn costs(txn: &Txn<'_>) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| matches!(op, Op::Put(_)))
}

/// What a log changed that is whole from a cluster's first entry on: revisions by the entry that
/// made them. `None` where the log does not tell: its beginning was purged, something is missing
/// in it, or it begins anew on data that it never saw, as on a member restored from a snapshot.
/// That shows in the database: it had applied the entries up to `applied`, and then stood at
/// `revision`.
#[must_use]
pub fn whole<'a>(log: &Log<'a>, applied: u64, revision: i64) -> Option<Vec<(u64, Change<'a>)>> {
    let mut machine = Machine::new(1, -1);
    let mut owners = Vec::new();
    let mut agrees = applied == 0 && revision <= 1;
    for (expected, entry) in (1..).zip(log.effective()) {
        if entry.index != expected {
            break;
        }
        if entry.kind == EntryKind::Normal {
            let Ok(request) = request::decode(entry.data) else { break };
            machine.apply(&request);
            owners.resize(machine.changes.len(), entry.index);
        }
        if entry.index == applied {
            agrees = machine.revision == revision;
        }
    }
    agrees.then(|| owners.into_iter().zip(machine.changes).collect())
}
