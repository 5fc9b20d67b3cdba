//! Which API servers there are and what they have loaded, in words.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Args, ConfigSet, Ctx, Failure, Live};
use crate::chain::chain;
use crate::cli::failure::Exit;
use crate::cli::observer::Told;
use crate::cli::{apiserver, open};
use crate::jobs::migrate::canary::{self, Leftover, SECONDS, Wanted};
use crate::jobs::migrate::servers::{self as job, Ask, Error, Known, Obstacle};
use crate::report::table;
use crate::transform::Transformers;

const ALONE: &str = "without --batch and --no-apiserver each entry has a transaction of its own, \
                     which is safe while API servers run";
const EACH: &str = "name each one's own address with --apiserver";

/// The API servers that etcd knows of, and how many of their configurations were compared. Nothing
/// is written unless all that are asked have loaded this one, and none may be running where
/// entries are to share a transaction.
pub fn known(
    ctx: &Ctx,
    args: &Args,
    live: &mut Live,
    (configs, transformers): (&ConfigSet, &Transformers),
    stop: Option<&Arc<AtomicBool>>,
) -> Result<Known, Failure> {
    let ask = if args.confirm_apiserver {
        let clients = apiserver::clients(&args.apiserver)?;
        Some(Ask { clients, file: format!("sha256:{}", configs.current().sha256) })
    } else {
        None
    };
    let scope = open::scope(ctx);
    let options = job::Options {
        bases: scope.bases(),
        transformers,
        none: args.no_apiserver,
        // The first configuration is that of one server.
        confirmed: 1 + args.confirm_config.len(),
        ask,
        canary: stop.map(|stop| Wanted {
            config: &configs.current().config,
            apply: args.apply,
            stop: Arc::clone(stop),
        }),
    };
    let outcome = job::run(live, &options, &mut Told::new(&ctx.ui)).map_err(|e| refused(&e))?;
    tell_left(ctx, &outcome.leftovers);
    for obstacle in &outcome.obstacles {
        let (text, hint) = words(obstacle);
        if args.apply {
            return Err(Failure::new(text).hint(hint));
        }
        if args.canary && matches!(obstacle, Obstacle::Untold { .. }) {
            ctx.ui.note(&format!("{text}: --apply finds it out with a canary"));
            continue;
        }
        ctx.ui.warn(&format!("{text}: --apply would refuse; {hint}"));
    }
    Ok(outcome.known)
}

/// Tells of canaries of other runs.
pub fn tell_left(ctx: &Ctx, leftovers: &[Leftover]) {
    for one in leftovers {
        let key = table::visible(&String::from_utf8_lossy(&one.key));
        ctx.ui.warn(&if one.leased {
            format!("a canary of another run is in etcd, and goes within {SECONDS} s: {key}")
        } else {
            format!("a canary is in etcd that nothing removes: {key}; `etcdctl del {key}` does")
        });
    }
}

fn refused(error: &Error) -> Failure {
    let failure = match error {
        Error::Running(server) => {
            let until = server.until.map_or(String::new(), |t| format!(", until {t:.0}"));
            let key = table::visible(&server.key);
            Failure::new(format!(
                "an API server may be running, in spite of --no-apiserver: {key} says so{until}"
            ))
        }
        Error::Unreadable(key) => {
            let error = Error::Unreadable(table::visible(key));
            Failure::new(error.to_string())
        }
        Error::Canary(error) => return unread(error),
        Error::Ask(_) => return Failure::new(error.to_string()).because(error),
        Error::Unseen(_) => Failure::new(error.to_string()).because(error),
    };
    failure.hint(ALONE)
}

/// Why nobody knows who reads a canary.
pub fn unread(error: &canary::Error) -> Failure {
    let failure = Failure::new(error.to_string()).because(error);
    match error {
        canary::Error::Interrupted => Failure { exit: Exit::Interrupted, ..failure },
        canary::Error::Unwritten(_) => failure
            .hint("migrate writes as the canary is written, and would fail as well: mend that"),
        canary::Error::Ask(_) => failure,
        canary::Error::Left(..) => {
            failure.hint("nothing was migrated; run it again when etcd answers")
        }
        canary::Error::Late => {
            failure.hint("nothing was migrated; run it again when the API servers answer sooner")
        }
    }
}

/// Why nothing is to be written, and what to do about it.
fn words(obstacle: &Obstacle) -> (String, &'static str) {
    match obstacle {
        Obstacle::Other { name, file } => (
            format!(
                "the API server {} has loaded another configuration: {file}",
                table::visible(name)
            ),
            "copy the file to it, and wait until it has loaded it or restart it",
        ),
        Obstacle::Untold { name, version } => (
            format!(
                "the API server {} ({}) does not say which configuration it has loaded; Kubernetes 1.34 and later do, where encryption is configured",
                table::visible(name),
                version.as_deref().unwrap_or("of unknown version")
            ),
            "compare the files of all of them with --confirm-config instead, and restart each; or --canary has each read a made-up object",
        ),
        Obstacle::Cannot { name, why } => (
            format!(
                "the API server {} cannot read what this configuration writes: {}",
                table::visible(name),
                table::visible(why)
            ),
            "copy the file to it, and restart it",
        ),
        Obstacle::Elsewhere(name) => (
            format!(
                "the API server {} does not find what was put into etcd: it reads another etcd, or under another prefix",
                table::visible(name)
            ),
            "name this cluster's API servers with --apiserver or --context, or its etcd with --endpoints and --prefix",
        ),
        Obstacle::Unshown(resources) => (
            format!(
                "a canary is a Secret or a config map, and shows no key that {} is written with",
                table::visible(&resources.join(", "))
            ),
            "compare the files of all API servers with --confirm-config instead, and restart each",
        ),
        Obstacle::NoAnswer { address, why } => (
            format!("{} was not asked: {}", table::visible(address), chain(why)),
            "name addresses that answer with --apiserver, once for each",
        ),
        Obstacle::Silent(host) => (
            format!(
                "the API server on {}, which etcd knows of, was not reached",
                table::visible(host)
            ),
            EACH,
        ),
        Obstacle::Fewer { answered, seen } => {
            (format!("{answered} of {seen} API servers that etcd knows of were reached"), EACH)
        }
    }
}
