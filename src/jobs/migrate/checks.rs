//! What is made sure of before anything is written.

use std::collections::BTreeMap;

use super::{Error, Remark};
use crate::envelope::Provider;
use crate::migrate::plan::{Plan, Written};
use crate::source::live::{Live, NO_SPACE};

/// etcd's quota where none is set (etcd `server/storage/quota.go`: `DefaultQuotaBytes`).
const DEFAULT_QUOTA: u64 = 2 << 30;

/// etcd refuses a request that could bring the database to its quota, bytes (etcd
/// `server/storage/quota.go`: `backendQuota.Available`, and `DefaultMaxRequestBytes`).
const REQUEST: u64 = 3 << 19;

/// Writes after which an AES-GCM key with random nonces is to be replaced (Kubernetes
/// documentation, "Encrypting Confidential Data at Rest").
const GCM_WRITES: u64 = 200_000;

/// What is known about the database. Bytes.
#[derive(Clone, Copy, Debug)]
pub struct Database {
    /// Size of its file.
    pub size: u64,
    /// The part in use.
    pub in_use: u64,
    /// What it may grow to, where the member or the user says so.
    pub quota: Option<u64>,
    /// What the new revisions need, before compaction takes the old ones away.
    pub growth: u64,
}

/// Alarms of the cluster; true when nothing can be written for lack of space.
pub(super) fn alarms(
    live: &Live,
    apply: bool,
    remark: &mut dyn FnMut(&Remark<'_>),
) -> Result<bool, Error> {
    let alarms = match live.alarms() {
        Ok(alarms) => alarms,
        Err(e) => {
            remark(&Remark::AlarmsUnknown(&e));
            return Ok(false);
        }
    };
    for alarm in alarms.iter().filter(|a| *a != NO_SPACE) {
        if apply {
            return Err(Error::Alarm(alarm.clone()));
        }
        remark(&Remark::Alarm(alarm));
    }
    let full = alarms.iter().any(|a| a == NO_SPACE);
    if full && !apply {
        remark(&Remark::Full);
    }
    Ok(full)
}

/// The database and what the plan adds to it; none if the member does not tell.
pub(super) fn database(
    live: &Live,
    plan: &Plan,
    written_by: &BTreeMap<String, Written>,
    quota: Option<u64>,
    full: bool,
) -> Option<Database> {
    let status = live.status().ok()?;
    Some(Database {
        size: status.db_size,
        in_use: status.db_size_in_use,
        // Of a full database, it is of no more interest.
        quota: quota.or(status.quota).or_else(|| if full { None } else { live.quota() }),
        growth: plan.growth(written_by),
    })
}

/// Whether the new revisions fit.
pub(super) fn quota(
    database: Option<&Database>,
    apply: bool,
    remark: &mut dyn FnMut(&Remark<'_>),
) -> Result<(), Error> {
    let Some(d) = database else { return Ok(()) };
    let free = d.size.saturating_sub(d.in_use);
    let after = d.size + d.growth.saturating_sub(free);
    if after + REQUEST < d.quota.unwrap_or(DEFAULT_QUOTA) {
        return Ok(());
    }
    match d.quota {
        Some(quota) if apply => return Err(Error::Quota { after, quota }),
        None if apply => return Err(Error::QuotaUnknown { after }),
        quota => remark(&Remark::Quota { after, quota }),
    }
    Ok(())
}

/// Entries that lose their encryption.
pub(super) fn unencrypted(
    plan: &Plan,
    written_by: &BTreeMap<String, Written>,
    remark: &mut dyn FnMut(&Remark<'_>),
) {
    let mut losing: BTreeMap<&str, u64> = BTreeMap::new();
    for (group, share) in &plan.groups {
        let to = written_by.get(&group.resource).map(|w| w.by.provider);
        if to == Some(Provider::Identity) && group.provider != Provider::Identity {
            *losing.entry(&group.resource).or_default() += share.stored.entries;
        }
    }
    for (resource, entries) in losing {
        remark(&Remark::Unencrypted { resource, entries });
    }
}

/// Keys whose random nonces may repeat themselves.
pub(super) fn nonces(
    plan: &Plan,
    written_by: &BTreeMap<String, Written>,
    remark: &mut dyn FnMut(&Remark<'_>),
) {
    let mut entries: BTreeMap<String, u64> = BTreeMap::new();
    for (group, share) in &plan.groups {
        if let Some(w) = written_by.get(&group.resource)
            && w.by.provider == Provider::AesGcm
        {
            *entries.entry(w.by.to_string()).or_default() += share.stored.entries;
        }
    }
    for (key, entries) in entries.into_iter().filter(|(_, n)| *n >= GCM_WRITES) {
        remark(&Remark::Nonces { key: &key, entries });
    }
}

/// Which keys the values get, for sentences.
pub(super) fn keys(written_by: &BTreeMap<String, Written>) -> String {
    let mut names: Vec<String> = written_by.values().map(|w| w.by.to_string()).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_known_quota_nothing_is_written_beyond_the_default() {
        let of = |size, told, apply| {
            let mut warned = false;
            let database = Database { size, in_use: size, quota: told, growth: 100 << 20 };
            let ends = quota(Some(&database), apply, &mut |_| warned = true);
            (ends.err().map(|e| e.to_string()), warned)
        };
        let (small, large) = (1 << 30, 2 << 30);
        assert_eq!(of(small, None, true), (None, false));
        let (why, _) = of(large, None, true);
        assert!(why.is_some_and(|why| why.contains("is not told")), "it could end in an outage");
        assert_eq!(of(large, None, false), (None, true), "a plan may say so");
        assert_eq!(of(large, Some(8 << 30), true), (None, false));
        assert!(of(small, Some(small), true).0.is_some());
        // No limit.
        assert_eq!(of(large, Some(u64::MAX), true), (None, false));
    }
}
