//! `atrest diff`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::args::{self, Given, Shared};
use super::failure::{Exit, Failure};
use super::observer::Told;
use super::{Ctx, datastore, ending, open, ui};
use crate::jobs::diff::{self as job, Form, Side};
use crate::report;
use crate::resource::Selector;
use crate::restore::{Minor, Options as Rules};
use crate::scan::Causes;

/// Options of `diff`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The first source: snapshot:FILE, data-dir:DIR, kine:FILE, kine:URL or etcd:, each with an
    /// optional @REVISION
    #[arg(value_name = "A")]
    a: SourceWord,

    /// The second source
    #[arg(value_name = "B")]
    b: SourceWord,

    /// Compare what `export --clean` writes: without what the server fills in
    #[arg(long, conflicts_with = "restored")]
    clean: bool,

    /// Compare what a restore brings: what `export --restore` writes
    #[arg(long)]
    restored: bool,

    /// Read snapshots although their SHA-256 does not match or is missing
    #[arg(long)]
    skip_hash_check: bool,

    #[command(flatten)]
    source: args::Etcd,

    #[command(flatten)]
    selection: args::Selection,

    #[command(flatten)]
    reading: args::Decrypting,

    #[command(flatten)]
    format: args::TableOrJson,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        let groups: [&dyn args::Group; 4] =
            [&self.source, &self.selection, &self.reading, &self.output];
        let reads_several = [self.a.kind, self.b.kind].iter().any(|k| *k != Kind::Etcd);
        Shared { reads_several, ..Shared::of(&groups) }
    }
}

impl Args {
    /// Whether one of the sources is of this kind.
    fn has(&self, kind: Kind) -> bool {
        [self.a.kind, self.b.kind].contains(&kind)
    }
}

/// A source as one word.
#[derive(Clone, PartialEq, Eq)]
struct SourceWord {
    kind: Kind,
    /// Path, or endpoints of an etcd: empty for those of the options; or an address, which may
    /// hold a password.
    at: String,
    revision: Option<i64>,
}

impl std::fmt::Debug for SourceWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceWord").field("kind", &self.kind).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Snapshot,
    DataDir,
    Kine,
    Etcd,
}

impl FromStr for SourceWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kinds = [
            ("snapshot:", Kind::Snapshot),
            ("data-dir:", Kind::DataDir),
            ("kine:", Kind::Kine),
            ("etcd:", Kind::Etcd),
        ];
        let found = kinds.iter().find_map(|(word, kind)| Some((*kind, text.strip_prefix(word)?)));
        let Some((kind, rest)) = found else {
            return Err("write snapshot:FILE, data-dir:DIR, kine:FILE or etcd:".to_owned());
        };
        let (at, revision) = match rest.rsplit_once('@') {
            // A file may well be called so.
            Some((at, number)) if !(kind != Kind::Etcd && Path::new(rest).exists()) => {
                match number.parse::<i64>() {
                    Ok(revision) if revision > 0 => (at, Some(revision)),
                    _ if number.bytes().all(|b| b.is_ascii_digit() || b == b'-') => {
                        return Err(format!("`{number}` is no revision"));
                    }
                    _ => (rest, None),
                }
            }
            _ => (rest, None),
        };
        if at.is_empty() && kind != Kind::Etcd {
            return Err("the path is missing".to_owned());
        }
        Ok(Self { kind, at: at.to_owned(), revision })
    }
}

impl SourceWord {
    /// The options that name this source.
    fn context(&self, ctx: &Ctx, args: &Args) -> Ctx {
        let mut global = ctx.global.clone();
        let path = || Some(PathBuf::from(&self.at));
        // A profile may have named a file; here the source stands in the argument.
        (global.snapshot, global.data_dir, global.kine) = (None, None, None);
        match self.kind {
            Kind::Snapshot => {
                global.snapshot = path();
                global.skip_hash_check = args.skip_hash_check;
            }
            Kind::DataDir => global.data_dir = path(),
            Kind::Kine => global.kine = Some(args::Kine::from(OsString::from(&self.at))),
            Kind::Etcd if !self.at.is_empty() => {
                global.endpoints = self.at.split(',').map(str::to_owned).collect();
            }
            Kind::Etcd => {}
        }
        global.revision = self.revision;
        let mut ctx = Ctx {
            global,
            given: ctx.given.clone(),
            ui: ctx.ui.clone(),
            escrow: ctx.escrow.clone(),
            unlock: ctx.unlock.clone(),
            kms: Arc::clone(&ctx.kms),
            remote: ctx.remote.clone(),
        };
        if datastore::url(&ctx).is_some() {
            if args.has(Kind::Etcd) {
                // The options say how to connect to that.
                ctx.given = Given::default();
            }
            datastore::forget_variables(&mut ctx);
        }
        ctx
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let (a, b) = (args.a.context(ctx, args), args.b.context(ctx, args));
    if args.skip_hash_check && [args.a.kind, args.b.kind].iter().all(|k| *k != Kind::Snapshot) {
        return Err(Failure::usage("--skip-hash-check goes with snapshot: only"));
    }
    let etcd = args.has(Kind::Etcd);
    let served = [&a, &b].into_iter().any(|side| datastore::url(side).is_some());
    let connecting = ctx.given.connection().or(ctx.given.has("endpoints").then_some("endpoints"));
    if served && !etcd && !ctx.given.has("endpoints") {
        datastore::check(ctx)?;
    } else if let Some(name) = connecting.filter(|_| !etcd) {
        return Err(Failure::usage(format!(
            "--{name} says how to connect to an etcd, but files are compared"
        )));
    }
    let reader = super::inside::objects(&a)?;
    // A part alone would prove nothing of the rest.
    let selection = open::selection(ctx, Some(vec![Selector::All]))?;
    let looked_for = selection.words();
    let rules = Rules { target: Minor::NEWEST, keep_owners: false, keep_ips: false };
    let form = match (args.clean, args.restored) {
        (true, _) => Form::Clean,
        (_, true) => Form::Restored(rules),
        _ => Form::Stored,
    };
    let side = |of: Ctx| {
        let revision = of.global.revision;
        Side { open: Box::new(move || open::source(&of)), revision }
    };
    let outcome = job::run::<Failure>(
        side(a),
        side(b),
        &job::Options { selection, form, reader: &reader },
        &mut Told::new(&ctx.ui),
    )?;
    super::escrow::is_needed(ctx)?;
    let visits = outcome.sides.iter().map(|(_, visit)| visit);
    ending::end(ctx, visits, || report(ctx, args, &outcome, &looked_for))
}

fn report(
    ctx: &Ctx,
    args: &Args,
    outcome: &job::Outcome,
    looked_for: &str,
) -> Result<Exit, Failure> {
    if outcome.objects() == 0 && outcome.is_whole() {
        return Err(Failure::new(format!("nothing to compare: neither source has {looked_for}"))
            .hint("atrest scan --all-resources tells what a source holds"));
    }
    ui::print(|out| report::diff::write(outcome, args.format.write_out, ctx.ui.color, out))?;
    let mut causes = Causes::default();
    outcome.unknown.iter().for_each(|(key, why)| causes.add(key, why));
    for line in causes.lines("cannot compare") {
        ctx.ui.warn(&line);
    }
    Ok(if outcome.differs() {
        Exit::Different
    } else if outcome.is_whole() {
        Exit::Ok
    } else {
        Exit::Partial
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_one_word() {
        let place = |kind, at: &str, revision| Ok(SourceWord { kind, at: at.to_owned(), revision });
        for (text, expected) in [
            ("snapshot:a.db", place(Kind::Snapshot, "a.db", None)),
            ("snapshot:a.db@17", place(Kind::Snapshot, "a.db", Some(17))),
            ("data-dir:/a@b/c", place(Kind::DataDir, "/a@b/c", None)),
            ("kine:state.db@2", place(Kind::Kine, "state.db", Some(2))),
            ("etcd:", place(Kind::Etcd, "", None)),
            ("etcd:@9", place(Kind::Etcd, "", Some(9))),
            (
                "etcd:https://a:1,https://b:1@9",
                place(Kind::Etcd, "https://a:1,https://b:1", Some(9)),
            ),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in ["a.db", "", "snapshot:", "snapshot:@3", "etcd:@0", "etcd:@-1", "snapshot:a@"] {
            assert!(text.parse::<SourceWord>().is_err(), "{text}");
        }
    }
}
