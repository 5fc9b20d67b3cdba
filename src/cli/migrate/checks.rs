//! What is made sure of before anything is written.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    Args, ConfigSet, Ctx, Database, Exit, Failure, Live, Plan, Selection, Stop, Transformers,
    Writing, table,
};
use crate::cli::configuration;
use crate::envelope::Provider;
use crate::migrate::plan::Written;
use crate::scan::{ByPrefix, Judge as _, Status};
use crate::source::Source as _;
use crate::source::live::NO_SPACE;
use crate::temporary::Unplaced;

/// etcd's quota where none is set (etcd `server/storage/quota.go`: `DefaultQuotaBytes`).
const DEFAULT_QUOTA: u64 = 2 << 30;

/// etcd refuses a request that could bring the database to its quota, bytes (etcd
/// `server/storage/quota.go`: `backendQuota.Available`, and `DefaultMaxRequestBytes`).
const REQUEST: u64 = 3 << 19;

/// Writes after which an AES-GCM key with random nonces is to be replaced (Kubernetes
/// documentation, "Encrypting Confidential Data at Rest").
const GCM_WRITES: u64 = 200_000;

/// What is left of what the configuration serves and nobody asked for: `-n` and `--resource` narrow
/// what is rewritten, not whether something is left.
pub fn elsewhere(
    live: &mut Live,
    selection: &Selection,
    configs: &ConfigSet,
    transformers: &Transformers,
) -> Result<Option<String>, Failure> {
    let judged = selection.judged(Some(configs.resources()));
    let whole = judged.resources.iter().all(|r| selection.resources.contains(r));
    if whole && selection.namespaces.is_empty() {
        return Ok(None);
    }
    let judge = ByPrefix(transformers);
    let mut left = 0;
    live.visit(&judged.query(None, false), &mut |entry| {
        if selection.locate(entry.key).is_none()
            && let Some(location) = judged.locate(entry.key).filter(|l| !l.internal)
        {
            let stored = judge.judge(&location.resource, entry.key, entry.stored());
            left += u64::from(stored.status != Some(Status::Current));
        }
        ControlFlow::Continue(())
    })?;
    Ok((left > 0).then(|| format!("{} not asked for and not current either", table::entries(left))))
}

/// Options that do not go together.
pub fn options(args: &Args) -> Result<(), Failure> {
    if args.batch > 1 && !args.no_apiserver {
        return Err(Failure::usage(
            "--batch above 1 gives several entries one revision, of which clients of a running \
             API server can miss some",
        )
        .hint("leave --batch out; or stop every API server and say --no-apiserver"));
    }
    if args.via_api {
        // Said before anything is looked at.
        crate::cli::apiserver::clients(&args.apiserver)?;
    }
    Ok(())
}

/// Whether the other API servers have the same configuration.
pub fn confirm(configs: &ConfigSet, others: &[PathBuf]) -> Result<(), Failure> {
    let ours = configs.current();
    for path in others {
        let theirs = configuration::load(&configuration::read(path)?)?;
        if theirs.first().is_none_or(|theirs| theirs.sha256 != ours.sha256) {
            return Err(Failure::new(format!("{} differs from {}", path.display(), ours.location))
                .hint(
                    "give every API server the same configuration and restart it before migrating",
                ));
        }
    }
    Ok(())
}

/// Alarms of the cluster; true when nothing can be written for lack of space.
pub fn alarms(ctx: &Ctx, live: &Live, apply: bool) -> Result<bool, Failure> {
    let alarms = match live.alarms() {
        Ok(alarms) => alarms,
        Err(e) => {
            ctx.ui.warn(&format!("the cluster's alarms are not known: {e}"));
            return Ok(false);
        }
    };
    for alarm in alarms.iter().filter(|a| *a != NO_SPACE) {
        if apply {
            return Err(Failure::new(format!("the cluster has the alarm {alarm}"))
                .hint("repair it first; `etcdctl alarm list` names the member"));
        }
        ctx.ui.warn(&format!("the cluster has the alarm {alarm}"));
    }
    let full = alarms.iter().any(|a| a == NO_SPACE);
    if full && !apply {
        ctx.ui.warn("the cluster has the alarm NOSPACE: nothing can be written now");
    }
    Ok(full)
}

/// Nothing can be written.
pub fn no_space() -> Failure {
    Failure::new("etcd's database has reached its quota: nothing can be written")
        .hint("etcdctl compact, defrag every member, alarm disarm; then run it again to continue")
}

/// The database and what the plan adds to it; none if the member does not tell.
pub fn database(
    live: &Live,
    plan: &Plan,
    written_by: &BTreeMap<String, Written>,
    quota: Option<u64>,
) -> Option<Database> {
    let status = live.status().ok()?;
    Some(Database {
        size: status.db_size,
        in_use: status.db_size_in_use,
        quota: quota.or(status.quota),
        growth: plan.growth(written_by),
    })
}

/// Whether the new revisions fit.
pub fn quota(ctx: &Ctx, database: Option<&Database>, apply: bool) -> Result<(), Failure> {
    let Some(d) = database else { return Ok(()) };
    let free = d.size.saturating_sub(d.in_use);
    let after = d.size + d.growth.saturating_sub(free);
    if after + REQUEST < d.quota.unwrap_or(DEFAULT_QUOTA) {
        return Ok(());
    }
    let text = format!(
        "the database would grow to about {}, which leaves no room under its quota of {}",
        table::bytes(after),
        d.quota.map_or("2 GiB, if that is etcd's default".to_owned(), table::bytes)
    );
    let hint = "compact and defragment first, or migrate in parts with --namespace or --resource";
    if d.quota.is_some() && apply {
        return Err(Failure::new(text).hint(hint));
    }
    ctx.ui.warn(&format!("{text}: {hint}"));
    Ok(())
}

/// Entries that lose their encryption: meant, or a resource is missing in the configuration.
pub fn unencrypted(ctx: &Ctx, plan: &Plan, written_by: &BTreeMap<String, Written>) {
    let mut losing: BTreeMap<&str, u64> = BTreeMap::new();
    for (group, share) in &plan.groups {
        let to = written_by.get(&group.resource).map(|w| w.by.provider);
        if to == Some(Provider::Identity) && group.provider != Provider::Identity {
            *losing.entry(&group.resource).or_default() += share.stored.entries;
        }
    }
    for (resource, entries) in losing {
        ctx.ui.warn(&format!(
            "by this configuration, {} of {resource} are stored unencrypted",
            table::entries(entries)
        ));
    }
}

/// Random nonces of AES-GCM repeat themselves sooner or later.
pub fn nonces(ctx: &Ctx, plan: &Plan, written_by: &BTreeMap<String, Written>) {
    let mut entries: BTreeMap<String, u64> = BTreeMap::new();
    for (group, share) in &plan.groups {
        if let Some(w) = written_by.get(&group.resource)
            && w.by.provider == Provider::AesGcm
        {
            *entries.entry(w.by.to_string()).or_default() += share.stored.entries;
        }
    }
    for (key, entries) in entries.into_iter().filter(|(_, n)| *n >= GCM_WRITES) {
        ctx.ui.warn(&format!(
            "{key} would encrypt {}: Kubernetes wants a new AES-GCM key after 200,000 writes",
            table::entries(entries)
        ));
    }
}

/// Why there is no plan to begin with.
pub fn no_plan(stop: Stop) -> Failure {
    match stop {
        Stop::Interrupted => interrupted(),
        Stop::Source(e) => e.into(),
        stop => Failure::new("the entries cannot be looked at").because(&stop),
    }
}

/// Stopped by a signal early enough.
fn interrupted() -> Failure {
    let failure = Failure::new("interrupted before anything was written");
    Failure { exit: Exit::Interrupted, ..failure }
}

/// Takes bytes until somebody interrupts.
struct Until<'a, W> {
    stop: &'a AtomicBool,
    out: W,
}

impl<W: std::io::Write> std::io::Write for Until<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("interrupted"));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Where the backup goes: the file that was asked for, or one named for the time in the working
/// directory. `None` when none is wanted.
pub fn backup_path(writing: &Writing) -> Option<PathBuf> {
    if writing.no_backup {
        return None;
    }
    let name = || jiff::Timestamp::now().strftime("atrest-backup-%Y%m%dT%H%M%SZ.db").to_string();
    Some(writing.backup.clone().unwrap_or_else(|| name().into()))
}

/// Saves a snapshot of the member, private from the start and under its name only when complete.
pub fn backup(ctx: &Ctx, live: &Live, path: &Path, stop: &AtomicBool) -> Result<(), Failure> {
    if path.exists() {
        return Err(Failure::new(format!("{} exists already", path.display())).hint(
            "choose another name; or --no-backup, if it is the backup from before an earlier run",
        ));
    }
    let cannot =
        |e: &std::io::Error| Failure::new(format!("cannot write {}", path.display())).because(e);
    let temporary = Unplaced::beside(path).map_err(|e| cannot(&e))?;
    let mut out = BufWriter::with_capacity(1 << 20, temporary);
    let written = live.backup(&mut Until { stop, out: &mut out });
    if stop.load(Ordering::Relaxed) {
        return Err(interrupted());
    }
    let size = written?;
    out.flush().map_err(|e| cannot(&e))?;
    let temporary = out.into_inner().map_err(|e| cannot(e.error()))?;
    temporary.place(false).map_err(|e| cannot(&e))?;
    ctx.ui.note(&format!(
        "backup of {} in {}: everything as it was, also what is not encrypted yet; delete it once \
         it is not needed",
        table::bytes(size),
        path.display()
    ));
    Ok(())
}
