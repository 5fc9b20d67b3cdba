//! Which API servers there are, and what they have loaded.

use std::collections::BTreeMap;

use super::{Args, ConfigSet, Ctx, Failure, Live, Selection, Transformers, table};
use crate::chain::chain;
use crate::cli::apiserver;
use crate::cli::observer::Told;
use crate::jobs::confirm::{self, Loaded};
use crate::migrate::plan::Written;
use crate::migrate::servers::{self, Server, Servers};
use crate::report::migrate::{Asked, Known};

/// The API servers that etcd knows of, and how many of their configurations were compared. None
/// may be running where entries are to share a transaction.
pub fn known(
    ctx: &Ctx,
    args: &Args,
    live: &mut Live,
    selection: &Selection,
    transformers: &Transformers,
) -> Result<(Known, Servers), Failure> {
    let now = jiff::Timestamp::now();
    // The first configuration is that of one server.
    let confirmed = 1 + args.confirm_config.len();
    let found = servers::find(live, selection.scope.bases(), transformers, now);
    if args.no_apiserver {
        const HINT: &str = "without --batch and --no-apiserver each entry has a transaction of \
                            its own, which is safe while API servers run";
        match &found {
            Err(e) => {
                let failure = "whether an API server runs cannot be seen in etcd";
                return Err(Failure::new(failure).because(e).hint(HINT));
            }
            Ok(found) => {
                if let Some(server) = found.running() {
                    let until = server.until.map_or(String::new(), |t| format!(", until {t:.0}"));
                    let key = table::visible(&server.key);
                    return Err(Failure::new(format!(
                        "an API server may be running, in spite of --no-apiserver: {key} says so{until}"
                    ))
                    .hint(HINT));
                }
                if let Some(key) = found.unreadable.first() {
                    return Err(Failure::new(format!(
                        "whether an API server runs is unknown: {} cannot be read",
                        table::visible(key)
                    ))
                    .hint(HINT));
                }
            }
        }
    }
    Ok(match found {
        Ok(found) => {
            let unread = found.unreadable.len();
            let reason = (unread > 0)
                .then(|| format!("{unread} Leases of API servers in etcd cannot be read"));
            let names = found.names().into_iter().map(str::to_owned).collect();
            let seen = (found.count() > 0 || unread == 0).then(|| found.count());
            (Known { seen, names, confirmed, reason, asked: None }, found)
        }
        Err(e) => {
            ctx.ui.note(&format!("how many API servers there are cannot be seen in etcd: {e}"));
            let (names, reason) = (Vec::new(), Some(e.to_string()));
            (Known { seen: None, names, confirmed, reason, asked: None }, Servers::default())
        }
    })
}

/// Why nothing is to be written, and what to do about it.
struct Obstacle {
    text: String,
    hint: &'static str,
}

const EACH: &str = "name each one's own address with --apiserver";

/// Asks the running API servers, where that is wanted, whether they have loaded the configuration.
/// Nothing is written unless all have.
pub fn loaded(
    ctx: &Ctx,
    args: &Args,
    configs: &ConfigSet,
    (mut known, found): (Known, Servers),
) -> Result<Known, Failure> {
    if !args.confirm_apiserver {
        return Ok(known);
    }
    let lease = |s: &Server| {
        let name = s.key.rsplit('/').next().unwrap_or_default();
        (name.to_owned(), s.name.clone())
    };
    let options = confirm::Options {
        servers: apiserver::clients(&args.apiserver)?,
        file: format!("sha256:{}", configs.current().sha256),
        leases: found.leases.iter().map(lease).collect(),
    };
    let outcome = confirm::run(&options, &mut Told::new(&ctx.ui))
        .map_err(|e| Failure::new("the API servers cannot be asked").because(&e))?;
    let mut obstacles = Vec::new();
    for answered in &outcome.answered {
        let name = table::visible(answered.name());
        match &answered.loaded {
            Loaded::This => {}
            Loaded::Other(hash) => obstacles.push(Obstacle {
                text: format!("the API server {name} has loaded another configuration: {hash}"),
                hint: "copy the file to it, and wait until it has loaded it or restart it",
            }),
            Loaded::Untold => obstacles.push(Obstacle {
                text: format!(
                    "the API server {name} ({}) does not say which configuration it has loaded; Kubernetes 1.34 and later do, where encryption is configured",
                    answered.metrics.version.as_deref().unwrap_or("of unknown version")
                ),
                hint: "compare the files of all of them with --confirm-config instead, and restart each",
            }),
        }
    }
    for (address, e) in &outcome.failed {
        let text = format!("{} was not asked: {}", table::visible(address), chain(e));
        let hint = "name addresses that answer with --apiserver, once for each";
        obstacles.push(Obstacle { text, hint });
    }
    for host in &outcome.silent {
        let text = format!(
            "the API server on {}, which etcd knows of, was not reached",
            table::visible(host)
        );
        obstacles.push(Obstacle { text, hint: EACH });
    }
    let less = known.seen.is_some_and(|seen| seen > outcome.answered.len());
    if obstacles.is_empty() && less {
        let seen = known.seen.unwrap_or_default();
        let text = format!(
            "{} of {seen} API servers that etcd knows of were reached",
            outcome.answered.len()
        );
        obstacles.push(Obstacle { text, hint: EACH });
    }
    known.confirmed = outcome.confirmed();
    known.asked = Some(outcome.answered.iter().map(Asked::from).collect());
    if let Some(Obstacle { text, hint }) = obstacles.first()
        && args.apply
    {
        return Err(Failure::new(text.clone()).hint(*hint));
    }
    for Obstacle { text, hint } in &obstacles {
        ctx.ui.warn(&format!("{text}: --apply would refuse; {hint}"));
    }
    Ok(known)
}

/// The one condition that cannot be checked from here, unless the configuration of every API
/// server was compared.
pub fn every_api_server(written_by: &BTreeMap<String, Written>, servers: &Known) -> Option<String> {
    let confirmed = servers.confirmed;
    if servers.asked.is_some() {
        return None;
    }
    if confirmed > 1 && servers.seen.is_none_or(|seen| seen <= confirmed) {
        return None;
    }
    let seen = match servers.seen {
        None | Some(0) => String::new(),
        Some(1) => format!("; etcd knows of 1 API server ({})", servers.names.join(", ")),
        Some(n) => format!(
            "; etcd knows of {n} API servers ({}), and the configuration of {} was given",
            servers.names.join(", "),
            if confirmed == 1 { "one".to_owned() } else { confirmed.to_string() }
        ),
    };
    Some(format!(
        "every API server must be able to read what {} writes before it is written: roll the \
         configuration out to all of them first (--confirm-config compares their files){seen}",
        super::writers(written_by)
    ))
}
