//! What a migration meets and how it ends, in words.

use super::job::{Error, Outcome, Remark};
use crate::cli::failure::{self, Exit, Failure};
use crate::cli::{Ctx, open};
use crate::jobs::migrate::servers::Known;
use crate::migrate::apply::Stop;
use crate::report::table;
use crate::scan::Causes;
use crate::source::{EtcdError, SourceError, Wish};

const VALUES_REMAIN: &str = "the values as they were before remain in etcd's history and files; \
     `atrest residue` finds them and says what removes them";
const SAY_QUOTA: &str = "say the quota that etcd was started with, with --quota-backend-bytes; where that is the default, compact and defragment first";
const SMALLER: &str =
    "compact and defragment first, or migrate in parts with --namespace or --resource";
const AGAIN: &str = "nothing is half-written; run it again to continue";

/// Tells it on stderr.
pub fn tell(ctx: &Ctx, remark: &Remark<'_>) {
    match remark {
        Remark::Backup { path, size } => ctx.ui.note(&format!(
            "backup of {} in {}: everything as it was, also what is not encrypted yet; delete it \
             once it is not needed",
            table::bytes(*size),
            path.display()
        )),
        Remark::ValuesRemain => ctx.ui.note(VALUES_REMAIN),
        remark => ctx.ui.warn(&warning(remark)),
    }
}

fn warning(remark: &Remark<'_>) -> String {
    match remark {
        Remark::Elsewhere(n) => {
            format!("{} not asked for and not current either", table::entries(*n))
        }
        Remark::AlarmsUnknown(e) => format!("the cluster's alarms are not known: {e}"),
        Remark::Alarm(alarm) => format!("the cluster has the alarm {alarm}"),
        Remark::Full => "the cluster has the alarm NOSPACE: nothing can be written now".to_owned(),
        Remark::Quota { after, quota } => format!("{}: {SMALLER}", no_room(*after, *quota)),
        Remark::Unencrypted { resource, entries } => format!(
            "by this configuration, {} of {resource} are stored unencrypted",
            table::entries(*entries)
        ),
        Remark::Nonces { key, entries } => format!(
            "{key} would encrypt {}: Kubernetes wants a new AES-GCM key after 200,000 writes",
            table::entries(*entries)
        ),
        Remark::Servers { known, keys } => every_api_server(known, keys),
        Remark::Later(later) => format!(
            "{}: the newest entry, of revision {}, is stored under {}, although revision {} was \
             written as this configuration says: an API server that has not loaded it may be \
             running",
            later.resource,
            later.revision,
            table::visible(&later.under),
            later.current
        ),
        Remark::Backup { .. } | Remark::ValuesRemain => String::new(),
    }
}

/// The database would be full.
fn no_room(after: u64, quota: Option<u64>) -> String {
    format!(
        "the database would grow to about {}, which leaves no room under its quota of {}",
        table::bytes(after),
        quota.map_or("2 GiB, if that is etcd's default".to_owned(), table::bytes)
    )
}

/// The one condition that cannot be checked from here, unless the configuration of every API
/// server was compared.
fn every_api_server(known: &Known, keys: &str) -> String {
    let names = known.names.join(", ");
    let seen = match known.seen {
        None | Some(0) => String::new(),
        Some(1) => format!("; etcd knows of 1 API server ({names})"),
        Some(n) => format!(
            "; etcd knows of {n} API servers ({names}), and the configuration of {} was given",
            if known.confirmed == 1 { "one".to_owned() } else { known.confirmed.to_string() }
        ),
    };
    format!(
        "every API server must be able to read what {keys} writes before it is written: roll the \
         configuration out to all of them first (--confirm-config compares their files){seen}"
    )
}

/// Why nothing was written.
pub fn refused(error: Error) -> Failure {
    let hint = match &error {
        Error::Source(_)
        | Error::Provider(_)
        | Error::Interrupted
        | Error::Backup(..)
        | Error::Api(_) => None,
        Error::Alarm(_) => Some("repair it first; `etcdctl alarm list` names the member"),
        Error::NoSpace => return no_space(),
        Error::Quota { .. } => Some(SMALLER),
        Error::QuotaUnknown { .. } => Some(SAY_QUOTA),
        Error::NoMigrator(_) => return no_migrator(&error),
        Error::Exists(_) => Some(
            "choose another name; or --no-backup, if it is the backup from before an earlier run",
        ),
    };
    let failure = match error {
        Error::Source(e) => return e.into(),
        Error::Quota { after, quota } => Failure::new(no_room(after, Some(quota))),
        Error::QuotaUnknown { after } => Failure::new(no_room(after, None)),
        Error::Interrupted => {
            Failure { exit: Exit::Interrupted, ..Failure::new(Error::Interrupted.to_string()) }
        }
        error => Failure::new(error.to_string()).because(&error),
    };
    Failure { hint: hint.map(str::to_owned), ..failure }
}

/// The cluster cannot migrate by itself.
pub fn no_migrator(error: &Error) -> Failure {
    Failure::new(error.to_string()).hint(
        "--via-api has the same written without it; Kubernetes serves it from 1.30 on, where its feature gate and API version are switched on",
    )
}

/// Nothing can be written.
fn no_space() -> Failure {
    Failure::new(Error::NoSpace.to_string())
        .hint("etcdctl compact, defrag every member, alarm disarm; then run it again to continue")
}

/// What went wrong, on stderr, and the exit code.
pub fn conclude(ctx: &Ctx, applied: bool, outcome: &Outcome) -> Exit {
    let done = &outcome.done;
    let mut causes = Causes::default();
    done.failed.iter().for_each(|f| causes.add(&f.key, &f.reason));
    for line in causes.lines("failed:") {
        let all = if line.contains(" more") { "; -w json names them all" } else { "" };
        ctx.ui.warn(&format!("{line}{all}"));
    }
    match &done.stop {
        Some(Stop::Interrupted) => {
            ctx.ui.note("interrupted; run it again to continue");
            return Exit::Interrupted;
        }
        Some(stop) => {
            ctx.ui.failure(&stopped(ctx, stop));
            return Exit::Failed;
        }
        None => {}
    }
    if !done.failed.is_empty() {
        return Exit::Partial;
    }
    if applied && outcome.remaining > 0 {
        ctx.ui.warn(&format!(
            "{} not current: somebody still writes with another configuration",
            table::entries(outcome.remaining)
        ));
        return Exit::Partial;
    }
    Exit::Ok
}

/// What ended the writing.
fn stopped(ctx: &Ctx, stop: &Stop) -> Failure {
    let advice = match stop {
        Stop::NoSpace => return no_space(),
        Stop::Source(SourceError::Etcd(EtcdError::Denied { wish: Wish::Write, .. })) => {
            Some(failure::grant_to_write(open::scope(ctx).bases()))
        }
        Stop::Source(e) => failure::hint(e),
        _ => None,
    };
    let hint = advice.map_or(AGAIN.to_owned(), |hint| format!("{hint}; {AGAIN}"));
    Failure::new("the migration stopped").because(stop).hint(hint)
}
