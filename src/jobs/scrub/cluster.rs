//! The members of a cluster, each reached by itself.

use std::ops::ControlFlow;

use super::search::{self, Found};
use super::{Member, Options, Progress, SLOW, Stop};
use crate::chain::chain;
use crate::jobs::members::{self, connect};
use crate::range::KeyRange;
use crate::source::live::{Live, LiveOptions, MemberStatus};
use crate::source::{Query, Source as _, SourceError};

/// Where an API server notes how far it has forgotten (kubernetes/apiserver
/// `pkg/storage/etcd3/compact.go`: `compactRevKey`).
const COMPACTOR: &[u8] = b"compact_rev_key";
/// Entries of the log that a member may lack while it is busy.
const BEHIND: u64 = 1000;

/// A cluster.
pub(super) struct Cluster<'o> {
    options: &'o Options<'o>,
    pub members: Vec<Member>,
    compactor: bool,
}

impl<'o> Cluster<'o> {
    /// Asks for the members, and finds out which endpoint leads to which.
    pub fn find(options: &'o Options<'o>) -> Result<Self, SourceError> {
        let mut any = Live::connect(&options.connection)?;
        let query =
            Query { ranges: vec![KeyRange::single(COMPACTOR)], revision: None, ordered: true };
        let mut compactor = false;
        any.visit(&query, &mut |_| {
            compactor = true;
            ControlFlow::Break(())
        })?;
        let listed = members::list(&options.connection, &any)?;
        let members = listed.into_iter().map(|listed| Member {
            free: room(options, &listed.name),
            id: listed.id,
            name: listed.name,
            endpoint: listed.endpoint,
            leader: false,
            learner: listed.learner,
            version: String::new(),
            size: 0,
            in_use: 0,
            progress: Progress::Unknown,
            before: None,
            after: None,
        });
        let members = members.collect();
        Ok(Self { options, members, compactor })
    }

    pub fn has_compactor(&self) -> bool {
        self.compactor
    }

    /// Name and address.
    pub fn name(&self, at: usize) -> String {
        let member = &self.members[at];
        format!("{} ({})", member.name, member.endpoint)
    }

    /// Whether every member answers, has no complaint, follows the same leader and has caught up.
    pub fn health(&mut self) -> Result<(), Stop> {
        let statuses = self.statuses()?;
        let mut alarms = Vec::new();
        for (status, raised) in &statuses {
            alarms.extend(raised.iter().cloned());
            // The cluster's alarms are complaints of its members, too.
            if let Some(member) = self.members.iter_mut().find(|m| m.id == status.id) {
                member.leader = status.leader == status.id;
                member.version.clone_from(&status.version);
                member.size = status.db_size;
                member.in_use = status.db_size_in_use;
            }
        }
        if let Some(alarm) = alarms.into_iter().next() {
            return Err(Stop::Alarm(alarm));
        }
        let newest = statuses.iter().map(|(s, _)| s.raft_index).max().unwrap_or_default();
        let leader = statuses.first().map_or(0, |(s, _)| s.leader);
        for (at, (status, _)) in statuses.iter().enumerate() {
            let why = if status.id != self.members[at].id {
                "another member answers at this address".to_owned()
            } else if !status.errors.is_empty() {
                status.errors.join("; ")
            } else if status.leader == 0 {
                "it knows of no leader".to_owned()
            } else if status.leader != leader {
                "it follows another leader than the others".to_owned()
            } else if status.applied + BEHIND < newest {
                "it has not caught up with the others".to_owned()
            } else {
                continue;
            };
            return Err(Stop::Unhealthy { member: self.name(at), why });
        }
        Ok(())
    }

    /// What all members say. Who does not answer is told before anything that follows from it.
    fn statuses(&self) -> Result<Vec<(MemberStatus, Vec<String>)>, Stop> {
        let mut all = Vec::new();
        for (at, member) in self.members.iter().enumerate() {
            let answer = connect(&self.options.connection, &member.endpoint)
                .and_then(|live| Ok((live.status()?, live.alarms()?)));
            let answer =
                answer.map_err(|e| Stop::Unhealthy { member: self.name(at), why: chain(&e) })?;
            all.push(answer);
        }
        Ok(all)
    }

    /// What speaks against taking members away one by one.
    pub fn obstacle(&self) -> Option<Stop> {
        for (at, member) in self.members.iter().enumerate() {
            let found = member.before.as_ref()?;
            if let Some(what) = found.damage.first() {
                return Some(Stop::Damaged { member: self.name(at), what: what.clone() });
            }
            if found.live > 0 {
                return Some(Stop::Live(found.live));
            }
        }
        let pending = |m: &&Member| m.progress == Progress::Pending;
        for member in self.members.iter().filter(pending) {
            let (name, needed) = (member.name.clone(), member.in_use);
            match member.free {
                None => return Some(Stop::Room { member: name, needed }),
                Some(free) if free < needed => {
                    return Some(Stop::NoRoom { member: name, free, needed });
                }
                Some(_) => {}
            }
        }
        None
    }

    /// The member to deal with next: the leader last.
    pub fn next(&self) -> Option<usize> {
        let pending = |leader| {
            let mut all = self.members.iter();
            all.position(|m| m.progress == Progress::Pending && m.leader == leader)
        };
        pending(false).or_else(|| pending(true))
    }

    /// Searches a fresh snapshot of a member.
    pub fn search(&self, at: usize) -> Result<Found, Stop> {
        let live = connect(&self.options.connection, &self.members[at].endpoint);
        let found = live.and_then(|live| search::search(&live, self.options.targets));
        found.map_err(|e| self.failed(at, "a snapshot", &e))
    }

    /// Forgets the past, asking the leader.
    pub fn compact(&self, revision: i64) -> Result<(), Stop> {
        let at = self.members.iter().position(|m| m.leader).unwrap_or_default();
        let done = self.slow(at).and_then(|live| live.compact(revision));
        done.map_err(|e| self.failed(at, "the compaction", &e))
    }

    /// Has a member write its file anew.
    pub fn defragment(&self, at: usize) -> Result<(), Stop> {
        let done = self.slow(at).and_then(|live| live.defragment());
        done.map_err(|e| self.failed(at, "the defragmentation", &e))
    }

    fn slow(&self, at: usize) -> Result<Live, SourceError> {
        let command_timeout = self.options.connection.command_timeout.max(SLOW);
        let options = LiveOptions { command_timeout, ..self.options.connection.clone() };
        connect(&options, &self.members[at].endpoint)
    }

    fn failed(&self, at: usize, what: &'static str, error: &SourceError) -> Stop {
        Stop::Failed { member: self.name(at), what, why: chain(error) }
    }
}

/// Room on the disk of a member, bytes.
fn room(options: &Options<'_>, name: &str) -> Option<u64> {
    if let Some(dir) = options.data_dirs.get(name) {
        let disk = rustix::fs::statvfs(dir).ok()?;
        return Some(disk.f_bavail.saturating_mul(disk.f_frsize));
    }
    options.free.get(name).copied()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use std::collections::BTreeMap;

    use super::*;
    use crate::forensics::Targets;
    use crate::resource::Scope;

    #[test]
    fn the_leader_comes_last() {
        use Progress::{Clean, Pending, Scrubbed};
        let stop = AtomicBool::new(false);
        let targets = Targets::new(Scope::new("/registry/"), Vec::new(), Vec::new());
        let second = Duration::from_secs(1);
        let connection = LiveOptions {
            endpoints: Vec::new(),
            cacert: None,
            cert: None,
            key: None,
            credentials: None,
            insecure_skip_tls_verify: false,
            insecure_transport: true,
            dial_timeout: second,
            command_timeout: second,
            keepalive_time: second,
            keepalive_timeout: second,
            tempo: crate::source::live::Tempo::default(),
        };
        let options = Options {
            connection,
            targets: &targets,
            apply: true,
            compact_now: false,
            free: BTreeMap::new(),
            data_dirs: BTreeMap::new(),
            settle: second,
            stop: &stop,
        };
        let member = |id, progress| Member {
            id,
            name: id.to_string(),
            endpoint: String::new(),
            leader: id == 0,
            learner: false,
            version: String::new(),
            size: 0,
            in_use: 7,
            free: Some(7),
            progress,
            before: Some(Found::default()),
            after: None,
        };
        let of = |progress: [Progress; 3]| {
            let members = (0..).zip(progress).map(|(id, p)| member(id, p)).collect();
            Cluster { options: &options, members, compactor: false }
        };
        assert_eq!(of([Pending, Clean, Pending]).next(), Some(2));
        assert_eq!(of([Pending, Scrubbed, Clean]).next(), Some(0));
        assert_eq!(of([Scrubbed, Scrubbed, Clean]).next(), None);
        let mut cluster = of([Pending, Clean, Clean]);
        assert!(cluster.obstacle().is_none());
        cluster.members[0].free = Some(6);
        assert!(matches!(cluster.obstacle(), Some(Stop::NoRoom { .. })));
        cluster.members[0].free = None;
        assert!(matches!(cluster.obstacle(), Some(Stop::Room { .. })));
    }
}
