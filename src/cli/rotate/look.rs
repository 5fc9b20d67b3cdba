//! Looks at everything that says how far a rotation is. What cannot be looked at becomes a reason
//! why something is not known, not an error.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Args, Files};
use crate::cli::failure::Failure;
use crate::cli::observer::Told;
use crate::cli::{Ctx, apiserver, configuration, migrate, open};
use crate::config::{self, ConfigSet};
use crate::envelope::Provider;
use crate::jobs::migrate::canary;
use crate::jobs::rotation::{self, ApiServers, Key, Looked, Role};
use crate::jobs::{backups, confirm};
use crate::migrate::servers::{self, Servers};
use crate::report::rotate::Backups;
use crate::report::table;
use crate::resource::{Selection, Selector};
use crate::source::live::Live;
use crate::transform::Transformers;

/// Looks at etcd and at the API servers.
///
/// # Errors
/// When the API servers are to be asked and nobody says how.
pub fn all(ctx: &Ctx, args: &Args, files: &Files) -> Result<Looked, Failure> {
    let mut looked = Looked::default();
    let promoted = transformers(ctx, files, Role::Promoted)?;
    let mut live = open::live(ctx).map_err(|f| words(&f));
    if let Err(why) = &live {
        ctx.ui.warn(&format!("etcd was not looked at: {why}"));
    }
    looked.servers = servers(ctx, args, live.as_mut().map_err(|e| e.clone()), &promoted)?;
    if files.state.as_ref().is_none_or(|s| s.file(Role::Promoted).is_none()) {
        return Ok(looked);
    }
    let scope = open::scope(ctx);
    let live = match &mut live {
        Ok(live) => live,
        Err(why) => {
            looked.stored = Some(Err(why.clone()));
            return Ok(looked);
        }
    };
    let stored = rotation::stored(live, &scope, &files.chain, &promoted);
    let migrated = stored.as_ref().is_ok_and(rotation::Stored::is_migrated);
    looked.stored = Some(stored.map_err(|e| words(&e.into())));
    if migrated {
        let retired = transformers(ctx, files, Role::Retired)?;
        let verified = rotation::verify(live, &scope, &files.chain, &retired);
        looked.verified = Some(verified.map_err(|e| words(&e.into())));
    }
    Ok(looked)
}

/// Looks at the API servers once more.
///
/// # Errors
/// As [`all`].
pub fn servers_again(ctx: &Ctx, args: &Args, files: &Files) -> Result<ApiServers, Failure> {
    let promoted = transformers(ctx, files, Role::Promoted)?;
    let mut live = open::live(ctx).map_err(|f| words(&f));
    servers(ctx, args, live.as_mut().map_err(|e| e.clone()), &promoted)
}

/// Has those that do not say what they have loaded read a canary under the new key, where that is
/// all that is not known. Once in a run: while it is there, who cannot read it cannot list either.
///
/// # Errors
/// When it cannot be written or removed, or the servers not be asked.
pub fn show(
    ctx: &Ctx,
    args: &Args,
    files: &Files,
    seen: &mut ApiServers,
    stop: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let wanted = files.state.as_ref().is_some_and(|state| seen.wants_canary(state));
    if !args.canary || !wanted {
        return Ok(());
    }
    let scope = open::scope(ctx);
    let mut live = open::live(ctx)?;
    migrate::servers::tell_left(ctx, &canary::leftovers(&mut live, scope.bases())?);
    let resources = match canary::resources(&files.chain.promoted.config) {
        Ok(resources) if args.apply => resources,
        Ok(_) => {
            ctx.ui.note("--apply finds out by a canary what API servers can read");
            return Ok(());
        }
        Err(unshown) => {
            ctx.ui.warn(&format!(
                "a canary is a Secret or a config map, and shows no key that {} is written with",
                table::visible(&unshown.join(", "))
            ));
            return Ok(());
        }
    };
    let promoted = transformers(ctx, files, Role::Promoted)?;
    let base = scope.bases().first().map(String::as_str).unwrap_or_default();
    let leases = seen.marks.iter().flatten().flat_map(Servers::identities).collect();
    let servers = apiserver::clients(&args.apiserver)?;
    let asked = confirm::Options { servers, file: String::new(), leases, shown: None };
    let by = (base, &*promoted);
    let said = canary::ask(&live, by, &resources, (asked, stop), &mut Told::new(&ctx.ui));
    seen.asked = Some(said.map_err(|e| migrate::servers::unread(&e))?);
    Ok(())
}

fn transformers(ctx: &Ctx, files: &Files, role: Role) -> Result<Arc<Transformers>, Failure> {
    let text = files.chain.text(role).unwrap_or_default();
    let loaded = config::load(text.as_bytes(), &files.shown(role).0)
        .map_err(|e| configuration::failure(&e))?;
    let set = ConfigSet::new(loaded)
        .ok_or_else(|| Failure::new("the configuration of the next step is empty"))?;
    Ok(Arc::new(open::transformers(ctx, &set)?))
}

fn servers(
    ctx: &Ctx,
    args: &Args,
    live: Result<&mut Live, String>,
    transformers: &Transformers,
) -> Result<ApiServers, Failure> {
    let now = jiff::Timestamp::now();
    let scope = open::scope(ctx);
    let marks = live.and_then(|live| {
        let found = servers::find(live, scope.bases(), transformers, now);
        found.map_err(|e| words(&e.into()))
    });
    let mut seen = ApiServers { asked: None, marks: None };
    if args.confirm_apiserver {
        let leases = marks.as_ref().map(Servers::identities).unwrap_or_default();
        let clients = apiserver::clients(&args.apiserver)?;
        let options =
            confirm::Options { servers: clients, file: String::new(), leases, shown: None };
        let outcome = confirm::run(&options, &mut Told::new(&ctx.ui))
            .map_err(|e| Failure::new("the API servers cannot be asked").because(&e))?;
        seen.asked = Some(outcome);
    }
    seen.marks = Some(marks);
    Ok(seen)
}

/// What a failure says, in one line.
fn words(failure: &Failure) -> String {
    let mut all = vec![failure.message.clone()];
    all.extend(failure.causes.iter().cloned());
    all.join(": ")
}

/// Which backups need the old key.
///
/// # Errors
/// When a location cannot be listed.
pub fn backups(ctx: &Ctx, locations: &[PathBuf], old: &Key) -> Result<Option<Backups>, Failure> {
    if locations.is_empty() {
        return Ok(None);
    }
    let everything = Selection {
        scope: open::scope(ctx),
        resources: vec![Selector::All],
        namespaces: Vec::new(),
    };
    let told = &mut Told::new(&ctx.ui);
    let outcome = crate::cli::backups::judged(ctx, locations, everything, told)?;
    let needs = |b: &&backups::Backup| match old.provider {
        Provider::Identity => b.totals.is_some_and(|t| t.plaintext > 0),
        provider => b.keys.keys().any(|k| k.provider == provider && k.name == old.name),
    };
    let unread = outcome.backups.iter().filter(|b| b.error.is_some()).count();
    let need: Vec<_> = outcome.backups.iter().filter(needs).collect();
    Ok(Some(Backups {
        looked_at: outcome.backups.len(),
        unread,
        need: need.iter().map(|b| b.location.display().to_string()).collect(),
        newest: need.iter().filter_map(|b| b.taken).max().map(|t| t.to_string()),
    }))
}

/// Where the API servers are, for commands.
#[must_use]
pub fn hosts(looked: &Looked) -> Vec<String> {
    let marks = looked.servers.marks.iter().flatten();
    let mut hosts: Vec<String> = marks.flat_map(|m| m.names()).map(str::to_owned).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}
