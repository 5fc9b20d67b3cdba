//! The plan, carried out.

use std::collections::HashSet;
use std::sync::mpsc;

use super::look::Look;
use super::{Error, Options, Writer};
use crate::jobs::Observer;
use crate::migrate::apply::{Outcome, Pace, apply};
use crate::migrate::plan::Plan;
use crate::migrate::via_api::{self, cluster};
use crate::source::live::{Kv, Live};

/// Passes over the resources: entries that others write meanwhile with an old configuration come
/// up in the next one.
const PASSES: usize = 3;
/// Transactions of single entries at once, where nobody says how many.
const ALONE: u32 = 128;
/// Transactions of several entries.
const TOGETHER: u32 = 4;
/// Requests to an API server.
pub(super) const REQUESTS: u32 = 16;

/// Rewrites, and looks again for what others wrote meanwhile; returns how many entries are not
/// current in the end.
pub(super) fn all(
    live: &mut Live,
    options: &Options<'_>,
    mut plan: Plan,
    observer: &mut dyn Observer,
    outcome: &mut Outcome,
) -> Result<u64, Error> {
    let kv = live.kv()?;
    let look = Look::narrow(options);
    let mut failed: HashSet<Vec<u8>> = HashSet::new();
    for pass in 1.. {
        let total = plan.items.len() as u64;
        let done = one(&kv, options, &plan, observer);
        let left = total - done.written.min(total);
        let left = left.saturating_sub(done.already + done.deleted);
        failed.extend(done.failed.iter().map(|f| f.key.clone()));
        outcome.add(done);
        if outcome.stop.is_some() {
            return Ok(plan.remaining(left));
        }
        match look.plan(live, &failed, observer) {
            Ok((next, _)) => plan = next,
            Err(why) => {
                // What was not written is known all the same.
                outcome.stop = Some(why.into());
                return Ok(plan.remaining(left));
            }
        }
        if plan.items.is_empty() || pass >= PASSES {
            break;
        }
    }
    Ok(plan.remaining(plan.items.len() as u64))
}

/// One pass over a plan.
fn one(kv: &Kv, options: &Options<'_>, plan: &Plan, observer: &mut dyn Observer) -> Outcome {
    let Options { qps, stop, .. } = *options;
    let concurrency = options.concurrency.unwrap_or(match options.writer {
        Writer::Api(_) | Writer::Cluster(_) => REQUESTS,
        Writer::Etcd { batch } if batch > 1 => TOGETHER,
        Writer::Etcd { .. } => ALONE,
    });
    let write = |advance: &(dyn Fn(u64) + Sync)| match options.writer {
        Writer::Etcd { batch } => apply(kv, plan, Pace { concurrency, qps, batch }, stop, advance),
        Writer::Api(client) => {
            let pace = via_api::Pace { concurrency, qps };
            via_api::run(kv, client, plan, &options.selection.scope, pace, stop, advance)
        }
        Writer::Cluster(client) => {
            cluster::run(kv, client, plan, &options.selection.scope, stop, advance)
        }
    };
    observer.begin("entries", &mut || Some(plan.items.len() as u64));
    // An observer is told by one thread only, whichever of them get on.
    let outcome = std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let writing = scope.spawn(move || {
            write(&|n| {
                // Nobody listens any more only when this is over.
                let _ = tell.send(n);
            })
        });
        for n in told {
            observer.advance(n);
        }
        writing.join()
    });
    observer.end();
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
