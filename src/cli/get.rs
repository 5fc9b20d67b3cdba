//! `atrest get`.

use std::ops::ControlFlow;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::{Ctx, ending, lost, nothing, open, ui};
use crate::jobs::get::{self as job, Object, Options, Outcome};
use crate::objects::{NotShown, fields};
use crate::report::{Format, objects, table};
use crate::resource::key::is_in;
use crate::resource::{Location, NamedKey, merge_ranges};
use crate::source::{KeyRange, Query, Source};

/// Options of `get`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Full etcd keys, or `RESOURCE/NAMESPACE/NAME` below the prefix
    #[arg(required = true, value_name = "KEY")]
    pub keys: Vec<String>,

    /// Show secret data instead of their lengths
    #[arg(long)]
    pub reveal: bool,

    /// Read what no provider reads with whichever configured secret fits, whatever its name
    #[arg(long)]
    pub try_keys: bool,

    /// Keep metadata.managedFields, which kubectl hides as well
    #[arg(long)]
    pub show_managed_fields: bool,

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    namespaces: args::Namespaces,

    #[command(flatten)]
    revision: args::Revision,

    #[command(flatten)]
    lost: args::Lost,

    #[command(flatten)]
    reading: args::ReadingInside,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Yaml, Format::Json, Format::Fields]), default_value = "yaml", help_heading = "Output")]
    pub write_out: Format,

    #[command(flatten)]
    output: args::Output,
}

impl Args {
    /// The options that are not this command's own.
    pub fn shared(&self) -> Shared {
        Shared::of(&[
            &self.source,
            &self.prefix,
            &self.namespaces,
            &self.revision,
            &self.lost,
            &self.reading,
            &self.output,
        ])
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let keys = open::keys(ctx, &args.keys)?;
    let objects = super::inside::objects(ctx)?
        .managed_fields(args.show_managed_fields)
        .try_keys(args.try_keys);
    let ranges = || keys.iter().flat_map(NamedKey::singles).collect();
    let mut source = lost::source(ctx, ranges, true)?;
    let options = Options {
        keys: &keys,
        scope: &open::scope(ctx),
        namespaces: &ctx.global.namespace,
        revision: ctx.global.revision,
        reveal: args.reveal,
    };
    let Outcome { visit, shown, missing } =
        job::run(source.as_mut(), &objects, &options).map_err(|e| lost::advised(ctx, e))?;
    ending::end(ctx, [&visit], || {
        let whole = report(ctx, args.write_out, shown)?;
        if missing.is_empty() {
            return Ok(if whole { Exit::Ok } else { Exit::Partial });
        }
        if let Some(failure) = level(ctx, source.as_mut(), &missing)? {
            return Err(failure);
        }
        let archive = source.info().kind.is_archive();
        let failure = not_there(ctx, &missing, (!archive).then_some(visit.revision));
        let near = |failure, key: &NamedKey| nothing::near(ctx, source.as_mut(), key, failure);
        Err(missing.into_iter().fold(failure, near))
    })
}

/// Prints what can be shown; returns whether that is all.
fn report(
    ctx: &Ctx,
    format: Format,
    shown: Vec<Result<Object, (Vec<u8>, NotShown)>>,
) -> Result<bool, Failure> {
    let mut whole = true;
    let mut objects = Vec::new();
    for one in shown {
        match one {
            Ok(object) => {
                tell(ctx, &object);
                whole &= object.unknown.is_empty();
                objects.push(object);
            }
            Err((key, not)) => {
                let key = table::visible(&String::from_utf8_lossy(&key));
                ctx.ui.warn(&format!("cannot show {key}: {}", not.words()));
                open::advise(ctx, |is| is(&not.reason));
                whole = false;
            }
        }
    }
    ui::print(|out| objects::write(format, objects, out))?;
    Ok(whole)
}

/// What must be known of an object beside what is shown of it.
pub fn tell(ctx: &Ctx, object: &Object) {
    let name = objects::name(object);
    if let Some(found) = &object.misplaced {
        ctx.ui.warn(&format!("misplaced: {name}: {found}"));
    }
    if let Some(reason) = &object.hollow {
        ctx.ui.warn(&format!("{name}: {reason}"));
    } else if !object.unknown.is_empty() {
        ctx.ui.warn(&format!("{name}: not shown: {}", fields(&object.unknown)));
    }
}

/// The first of the KEYs below which entries lie: it names a resource or a namespace.
fn level(
    ctx: &Ctx,
    source: &mut dyn Source,
    missing: &[&NamedKey],
) -> Result<Option<Failure>, Failure> {
    let scope = open::scope(ctx);
    for key in missing {
        let levels = key.keys.iter().map(|k| [k.strip_suffix(b"/").unwrap_or(k), b"/"].concat());
        let query = Query {
            ranges: merge_ranges(levels.map(|level| KeyRange::prefix(&level)).collect()),
            revision: ctx.global.revision,
            ordered: true,
        };
        let mut first = None;
        let looked = source.visit(&query, &mut |entry| {
            let location = scope.locate_named(entry.key);
            if location.internal || !is_in(&location, &ctx.global.namespace) {
                return ControlFlow::Continue(());
            }
            first = Some((String::from_utf8_lossy(entry.key).into_owned(), owned(&location)));
            ControlFlow::Break(())
        });
        match looked {
            Err(e) if e.is_unreadable_to_user() => continue,
            looked => looked?,
        };
        if let Some((below, (resource, namespace))) = first {
            let text = table::visible(&key.text);
            let narrow = match namespace {
                Some(namespace) if text.contains(&format!("/{namespace}")) => {
                    format!("--resource {resource} -n {namespace}")
                }
                _ => format!("--resource {resource}"),
            };
            return Ok(Some(
                Failure::new(format!("{text} is no entry, but a level with entries below it"))
                    .hint(format!(
                        "name one of them, such as {}; `atrest scan --list {}` lists them, `atrest export` with the same options writes them",
                        table::visible(&below),
                        table::visible(&narrow)
                    )),
            ));
        }
    }
    Ok(None)
}

fn owned(location: &Location<'_>) -> (String, Option<String>) {
    (location.resource.to_string(), location.namespace.as_deref().map(str::to_owned))
}

fn not_there(ctx: &Ctx, missing: &[&NamedKey], revision: Option<i64>) -> Failure {
    let name = |key: &NamedKey| {
        let keys = key.keys.iter().map(|k| table::visible(&String::from_utf8_lossy(k)));
        keys.collect::<Vec<_>>().join(" or ")
    };
    let names: Vec<_> = missing.iter().map(|key| name(key)).collect();
    let namespaces = match &ctx.global.namespace[..] {
        [] => String::new(),
        names => format!(" in namespace {}", names.join(", ")),
    };
    let at = revision.map_or_else(String::new, |revision| format!(" at revision {revision}"));
    let failure = Failure::new(format!("no entry {}{namespaces}{at}", names.join(", ")));
    let scope = open::scope(ctx);
    let short = |key: &&NamedKey| {
        let location = scope.locate_named(&key.keys[0]);
        key.is_prefix || !location.internal && location.namespace.is_none()
    };
    if missing.iter().any(short) {
        failure.hint(
            "a KEY is /registry/secrets/NAMESPACE/NAME, secrets/NAMESPACE/NAME, or secrets/NAME with -n NAMESPACE; `atrest scan --list` shows them all",
        )
    } else if revision.is_none() {
        failure.hint("`atrest scan --list --all-resources` shows all that the archive has")
    } else if ctx.global.revision.is_none() {
        failure
            .hint("`atrest history KEY` shows whether it existed; --revision reads an older state")
    } else {
        failure
    }
}
