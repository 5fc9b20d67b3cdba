//! Which API servers there are and what they have loaded, in words.

use super::{Args, ConfigSet, Ctx, Failure, Live};
use crate::chain::chain;
use crate::cli::observer::Told;
use crate::cli::{apiserver, open};
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
    configs: &ConfigSet,
    transformers: &Transformers,
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
    };
    let outcome = job::run(live, &options, &mut Told::new(&ctx.ui)).map_err(|e| refused(&e))?;
    for obstacle in &outcome.obstacles {
        let (text, hint) = words(obstacle);
        if args.apply {
            return Err(Failure::new(text).hint(hint));
        }
        ctx.ui.warn(&format!("{text}: --apply would refuse; {hint}"));
    }
    Ok(outcome.known)
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
        Error::Ask(_) => return Failure::new(error.to_string()).because(error),
        Error::Unseen(_) => Failure::new(error.to_string()).because(error),
    };
    failure.hint(ALONE)
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
            "compare the files of all of them with --confirm-config instead, and restart each",
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
