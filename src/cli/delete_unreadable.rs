//! `atrest delete-unreadable`.

use std::path::PathBuf;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::{Ctx, ending, nothing, open, ui};
use crate::config::ConfigSet;
use crate::jobs::unreadable::apply::{self, Done};
use crate::jobs::unreadable::plan::{self as job, Options, Outcome, Unread};
use crate::report::table;
use crate::report::unreadable::Report;
use crate::source::Source;
use crate::source::live::Kv;

/// Options of `delete-unreadable`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --apply nothing is changed: it lists what cannot be read and why, who may have the API
server delete it, and the request for each. With --apply entries are deleted in etcd, behind the API
server's back: finalizers, owners and webhooks are not asked. Each goes in a transaction that
compares its revision, after all of them were saved with --backup. Nothing that can be read is ever
deleted.")]
pub struct Args {
    /// List and delete only these: etcd keys, or RESOURCE/NAMESPACE/NAME
    #[arg(value_name = "KEY")]
    keys: Vec<String>,

    /// Delete in etcd: the KEYs, or what --all-listed counts
    #[arg(long, requires = "backup")]
    apply: bool,

    /// Delete every entry of which it is certain that no key reads it, if there are so many
    #[arg(long, value_name = "COUNT", requires = "apply", conflicts_with = "keys")]
    all_listed: Option<u64>,

    /// Save the entries in this new file first, as they are stored (mode 0600)
    #[arg(long, value_name = "FILE", requires = "apply")]
    backup: Option<PathBuf>,

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    selection: args::Selection,

    #[command(flatten)]
    allow_empty: args::AllowEmpty,

    #[command(flatten)]
    reading: args::ReadingInside,

    #[command(flatten)]
    format: args::TableOrJson,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[&self.source, &self.selection, &self.allow_empty, &self.reading, &self.output])
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    says_what(ctx, args)?;
    let configs = super::inside::configs(ctx)?.ok_or_else(|| {
        Failure::usage("without a configuration every encrypted entry is unreadable")
            .hint("give the API server's file with --encryption-config")
    })?;
    let keys = open::keys(ctx, &args.keys)?;
    let selection = open::selection(ctx, Some(ConfigSet::resources(&configs)))?;
    let transformers = open::transformers(ctx, &configs)?;
    let options = Options {
        scope: &selection.scope,
        selection: &selection,
        sought: nothing::sought(ctx, &selection),
        keys: &keys,
        transformers: &transformers,
    };
    let mut told = Told::new(&ctx.ui);
    let (mut source, kv) = opened(ctx, args)?;
    let mut outcome = job::run(source.as_mut(), &options, &mut told)?;
    outcome.visit.damage.extend(open::unexamined(ctx, &selection));
    ending::end(ctx, [&outcome.visit], || {
        if keys.is_empty() {
            nothing::check(ctx, source.as_mut(), &selection, &outcome.sought)?;
        }
        tell(ctx, &outcome);
        let chosen = if args.apply { chosen(args, &outcome)? } else { Vec::new() };
        let done = delete(ctx, args, kv.as_ref(), &outcome, &chosen)?;
        let report = Report {
            outcome: &outcome,
            config: open::config_wire(&configs),
            done: args.apply.then_some(&done),
            backup: args.backup.as_deref(),
        };
        ui::print(|out| report.write(args.format.write_out, ctx.ui.color, out))?;
        Ok(exit(args, &outcome, &done))
    })
}

/// What is read and, where something is to be deleted, the way to do it.
fn opened(ctx: &Ctx, args: &Args) -> Result<(Box<dyn Source>, Option<Kv>), Failure> {
    if !args.apply {
        return Ok((open::source(ctx)?, None));
    }
    let live = open::live(ctx)?;
    let kv = live.kv()?;
    Ok((Box::new(live), Some(kv)))
}

/// Deleting takes a live etcd and a choice.
fn says_what(ctx: &Ctx, args: &Args) -> Result<(), Failure> {
    if args.apply && ctx.global.is_file() {
        return Err(Failure::usage("--apply deletes in a live etcd, and a file is read"));
    }
    if args.apply && args.keys.is_empty() && args.all_listed.is_none() {
        return Err(Failure::usage("--apply deletes what is named, and nothing is")
            .hint("name KEYs, or give --all-listed COUNT with the number that the plan shows"));
    }
    Ok(())
}

/// What must be known beside the list.
fn tell(ctx: &Ctx, outcome: &Outcome) {
    for line in outcome.unknown.lines("readable or not, unknown:") {
        ctx.ui.warn(&line);
    }
    for line in outcome.other_name.lines("not deleted:") {
        ctx.ui.warn(&line);
    }
    open::advise(ctx, |is| {
        outcome.other_name.any(is) || outcome.unread.iter().any(|u| is(&u.reason))
    });
    if let Some(why) = &outcome.rights {
        ctx.ui.warn(&format!("who may have entries deleted is not wholly known: {why}"));
    }
}

/// What is to be deleted, if all of it may be.
fn chosen<'o>(args: &Args, outcome: &'o Outcome) -> Result<Vec<&'o Unread>, Failure> {
    let refused = |text: String| Err(Failure::new(format!("{text}; nothing was deleted")));
    if !outcome.unknown.is_empty() {
        return refused("a KMS did not answer, and what is unknown is not unreadable".to_owned());
    }
    let all: Vec<&Unread> = outcome.unread.iter().collect();
    if let Some(count) = args.all_listed {
        let certain: Vec<_> = all.into_iter().filter(|u| u.why.is_certain()).collect();
        let there = certain.len() as u64;
        if there != count {
            let entries = table::entries(there);
            return refused(format!(
                "of {entries} it is certain that no key reads them, not of {count}"
            ));
        }
        return Ok(certain);
    }
    let named =
        |keys: &[String]| keys.iter().map(|k| table::visible(k)).collect::<Vec<_>>().join(", ");
    if !outcome.readable.is_empty() {
        return refused(format!("{} can be read", named(&outcome.readable)));
    }
    if !outcome.missing.is_empty() {
        return refused(format!("{} is not there", named(&outcome.missing)));
    }
    if !outcome.other_name.is_empty() {
        return refused("a secret under another name reads what was named".to_owned());
    }
    Ok(all)
}

fn delete(
    ctx: &Ctx,
    args: &Args,
    kv: Option<&Kv>,
    outcome: &Outcome,
    chosen: &[&Unread],
) -> Result<Vec<(Vec<u8>, Done)>, Failure> {
    let (Some(kv), Some(backup), false) = (kv, &args.backup, chosen.is_empty()) else {
        return Ok(Vec::new());
    };
    let shown = backup.display();
    let done = apply::run(kv, &outcome.source, chosen, backup).map_err(|e| match &e {
        apply::Error::Backup(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            Failure::new(format!("{shown} exists already; nothing was deleted"))
                .hint("choose another name; nothing is overwritten")
        }
        _ => Failure::new("nothing was deleted").because(&e),
    })?;
    for (unread, done) in chosen.iter().zip(&done) {
        let key = table::visible(&String::from_utf8_lossy(&unread.key));
        match done {
            Done::Deleted(_) => {}
            Done::Gone => ctx.ui.warn(&format!("{key} was no longer there")),
            Done::Changed(now) => ctx.ui.warn(&format!(
                "{key} was written at revision {now}, after it was looked at: it was left alone"
            )),
            Done::Failed(why) => ctx.ui.warn(&format!("{key} was not deleted: {why}")),
        }
    }
    Ok(chosen.iter().map(|u| u.key.clone()).zip(done).collect())
}

/// Whatever is left that cannot be read, or was not deleted as asked, makes it partial.
fn exit(args: &Args, outcome: &Outcome, done: &[(Vec<u8>, Done)]) -> Exit {
    let gone = |d: &Done| matches!(d, Done::Deleted(_));
    let whole = if args.apply {
        done.iter().all(|(_, d)| gone(d))
    } else {
        outcome.unread.is_empty() && outcome.unknown.is_empty() && outcome.other_name.is_empty()
    };
    if whole { Exit::Ok } else { Exit::Partial }
}
