//! What members say about themselves.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message;

use crate::proto::Malformed;
use crate::source::live::wire::status::{ALARM, Alarms, Listed, MEMBERS, Members, STATUS, Status};
use crate::source::live::{Live, connection};
use crate::source::{EtcdError, SourceError};

/// Room for an answer, bytes.
const LIMIT: usize = 4 << 20;

/// What a member says about itself (`etcdserverpb.StatusResponse`). Sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberStatus {
    /// etcd's version.
    pub version: String,
    /// Size of the database file.
    pub db_size: u64,
    /// The part of it that is in use; the rest is reused before the file grows.
    pub db_size_in_use: u64,
    /// What the file may grow to, where the member says so (3.6 and later).
    pub quota: Option<u64>,
    /// What the member complains about.
    pub errors: Vec<String>,
    /// The member's own number.
    pub id: u64,
    /// The number of the member that it takes for the leader; 0 for none.
    pub leader: u64,
    /// The newest entry of the log that it knows.
    pub raft_index: u64,
    /// The newest entry that it has applied.
    pub applied: u64,
    /// It does not vote.
    pub learner: bool,
}

/// A member as the cluster lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedMember {
    /// Its number.
    pub id: u64,
    /// Its name; empty until it was started.
    pub name: String,
    /// Where it serves clients, as it says.
    pub client_urls: Vec<String>,
    /// It does not vote.
    pub learner: bool,
}

/// Alarms of a cluster, in words (`etcdserverpb.AlarmType`).
pub const NO_SPACE: &str = "NOSPACE";

impl Live {
    /// What the current member says about itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<MemberStatus, SourceError> {
        let status: Status = self.ask(STATUS)?;
        let bytes = |n: i64| u64::try_from(n).unwrap_or_default();
        Ok(MemberStatus {
            db_size: bytes(status.db_size),
            db_size_in_use: bytes(status.db_size_in_use),
            // Servers before 3.6 do not tell.
            quota: Some(bytes(status.db_size_quota)).filter(|n| *n > 0),
            version: status.version,
            errors: status.errors,
            id: status.header.unwrap_or_default().member_id,
            leader: status.leader,
            raft_index: status.raft_index,
            applied: status.raft_applied_index,
            learner: status.is_learner,
        })
    }

    /// What the current member's database may grow to, bytes, as its metrics say it: members
    /// before 3.6 tell it nowhere else (etcd `server/storage/quota.go`: `NewBackendQuota`, which
    /// knows a default for none and no limit for less).
    #[must_use]
    pub fn quota(&self) -> Option<u64> {
        let index = self.session.current.load(Ordering::Relaxed);
        let metric = self.session.metric(index, "etcd_server_quota_backend_bytes");
        let quota = self.runtime().ok()?.block_on(metric)?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // it is a number of bytes
        match quota {
            0.0 => None,
            bytes if bytes < 0.0 => Some(u64::MAX),
            bytes => Some(bytes as u64),
        }
    }

    /// The members of the cluster.
    ///
    /// # Errors
    /// When no member answers.
    pub fn members(&self) -> Result<Vec<ListedMember>, SourceError> {
        let answer: Members = self.ask(MEMBERS)?;
        let listed = |m: Listed| ListedMember {
            id: m.id,
            name: m.name,
            client_urls: m.client_urls,
            learner: m.is_learner,
        };
        Ok(answer.members.into_iter().map(listed).collect())
    }

    /// The alarms that are raised, as `NOSPACE`, `CORRUPT`.
    ///
    /// # Errors
    /// When no member answers.
    pub fn alarms(&self) -> Result<Vec<String>, SourceError> {
        let answer: Alarms = self.ask(ALARM)?;
        let mut words: Vec<String> = Vec::new();
        for alarm in answer.alarms {
            let word = match alarm.alarm {
                0 => continue,
                1 => NO_SPACE.to_owned(),
                2 => "CORRUPT".to_owned(),
                other => format!("alarm {other}"),
            };
            if !words.contains(&word) {
                words.push(word);
            }
        }
        Ok(words)
    }

    /// The answer to a request without fields.
    fn ask<T: Message + Default>(&self, path: &'static str) -> Result<T, SourceError> {
        let answer = self
            .runtime()?
            .block_on(self.session.call(path, Bytes::new(), LIMIT))
            .map_err(|refusal| connection::refusal(&self.session, &refusal))?;
        Ok(T::decode(answer).map_err(|_| EtcdError::Malformed(Malformed { offset: 0 }))?)
    }
}
