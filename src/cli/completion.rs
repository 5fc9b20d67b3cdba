//! `atrest completion`, and what its scripts ask the program: the shell's words in, what could
//! stand there out. Resources, namespaces and objects are those of the source that the words name.

use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;

use clap::{Command, FromArgMatches as _};
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};

use super::args::{self, Given, Shared};
use super::failure::{Exit, Failure};
use super::{Cli, Ctx, open, profile, ui};
use crate::jobs::holdings::Holdings;
use crate::resource::NamedKey;
use crate::source::{Query, Source};

/// With this variable the scripts say that they ask.
const ASKING: &str = "ATREST_COMPLETE";
/// Bytes of a file that is read while somebody waits for a key press.
const LARGEST: u64 = 512 << 20;
/// Names that are offered at most.
const MOST: usize = 1000;

/// Options of `completion`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell to write a completion script for
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    let name = args.shell.to_string();
    let shells = Shells::builtins();
    let completer = shells
        .completer(&name)
        .ok_or_else(|| Failure::usage(format!("no script is known for {name}")))?;
    completer
        .write_registration(ASKING, "atrest", "atrest", "atrest", &mut script)
        .map_err(|e| Failure::new("the script cannot be written").because(&e))?;
    ui::print(|out| std::io::Write::write_all(out, &script))?;
    Ok(Exit::Ok)
}

/// If a script asks, answers and ends the program.
pub fn answer() {
    if std::env::var_os(ASKING).is_none() {
        return;
    }
    // What goes wrong is nothing to a line that somebody is still writing.
    if let Ok(nowhere) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stderr(nowhere);
    }
    CompleteEnv::with_factory(|| asking(super::command())).var(ASKING).complete();
}

/// The program with what knows the candidates of its values.
fn asking(command: Command) -> Command {
    let command = command.mut_args(|arg| match arg.get_id().as_str() {
        "resource" => arg.add(ArgValueCompleter::new(|current: &OsStr| {
            beginning(current, holdings().map(|h| h.resources))
        })),
        "namespace" => arg.add(ArgValueCompleter::new(|current: &OsStr| {
            beginning(current, holdings().map(|h| h.namespaces))
        })),
        "keys" => arg.add(ArgValueCompleter::new(objects)),
        _ => arg,
    });
    command.mut_subcommands(asking)
}

fn beginning(
    current: &OsStr,
    all: Option<impl IntoIterator<Item = String>>,
) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let all = all.into_iter().flatten().filter(|name| name.starts_with(&*current));
    // A name with control characters is nothing to put into somebody's line.
    let all = all.filter(|name| !name.contains(char::is_control));
    all.take(MOST).map(CompletionCandidate::new).collect()
}

/// What the words so far say, as far as they can be understood.
fn context() -> Option<Ctx> {
    let words: Vec<OsString> =
        std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    // The last word is the one that is being written.
    let words = words.split_last().map(|(_, before)| before.to_vec())?;
    let command = super::command().ignore_errors(true);
    let mut built = command.clone();
    built.build();
    let arranged = args::arrange(&built, words);
    let matches = command.try_get_matches_from(arranged.words).ok()?;
    let cli = Cli::from_arg_matches(&matches).ok()?;
    let global = cli.command.shared();
    // Nobody is asked for a password, and nothing is fetched from afar.
    let afar = global.snapshot.as_ref().is_some_and(|path| path.to_string_lossy().contains("://"));
    let file = global.snapshot.as_ref().or(global.kine.as_ref().and_then(|k| match k {
        args::Kine::File(path) => Some(path),
        args::Kine::Url(_) => None,
    }));
    let large = file.is_some_and(|f| std::fs::metadata(f).is_ok_and(|m| m.len() > LARGEST));
    if !global.takes_source || global.user.is_some() || afar || large {
        return None;
    }
    let mut matches = &matches;
    while let Some((_, inner)) = matches.subcommand() {
        matches = inner;
    }
    let mut ctx = Ctx::new(Shared { quiet: true, ..global }, Given::new(matches));
    profile::apply(&mut ctx).ok()?;
    Some(ctx)
}

fn source() -> Option<(Ctx, Box<dyn Source>)> {
    let ctx = context()?;
    let source = open::source(&ctx).ok()?;
    Some((ctx, source))
}

fn holdings() -> Option<Holdings> {
    let (ctx, mut source) = source()?;
    Holdings::of(source.as_mut(), &open::scope(&ctx), None).ok()
}

/// KEYs by their parts: a resource, then what lies below.
fn objects(current: &OsStr) -> Vec<CompletionCandidate> {
    let text = current.to_string_lossy();
    let Some((resource, rest)) = text.split_once('/').filter(|_| !text.starts_with('/')) else {
        let resources = holdings().map(|h| h.resources);
        return beginning(current, resources.map(|all| all.into_iter().map(|name| name + "/")));
    };
    let Some((ctx, mut source)) = source() else { return Vec::new() };
    let scope = open::scope(&ctx);
    let below = match rest.rsplit_once('/') {
        Some((namespace, _)) => format!("{resource}/{namespace}/"),
        None => format!("{resource}/"),
    };
    let Ok(named) = NamedKey::parse(&below, &scope, &[]) else { return Vec::new() };
    let mut found = std::collections::BTreeSet::new();
    let query = Query { ranges: named.prefixes(), revision: None, ordered: false };
    let read = source.visit(&query, &mut |entry| {
        let location = scope.locate(entry.key);
        let whole = match location.namespace.as_deref() {
            Some(namespace) if below.matches('/').count() == 1 => format!("{below}{namespace}/"),
            _ => format!("{below}{}", location.name),
        };
        found.insert(whole);
        if found.len() < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    beginning(current, read.is_ok().then_some(found))
}
