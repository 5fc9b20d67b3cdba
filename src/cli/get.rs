//! `atrest get`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::ControlFlow;

use serde_json::Value;
use zeroize::Zeroizing;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::{Ctx, ending, nothing, open, ui};
use crate::entry::Entry;
use crate::objects::Objects;
use crate::report::objects::{fields, list};
use crate::report::{Format, table};
use crate::resource::key::is_in;
use crate::resource::{NamedKey, merge_ranges};
use crate::scan::place::Misplaced;
use crate::source::Query;
use crate::storage;

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
            &self.reading,
            &self.output,
        ])
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let format = args.write_out;
    let keys = open::keys(ctx, &args.keys)?;
    let reader = super::inside::objects(ctx)?
        .managed_fields(args.show_managed_fields)
        .try_keys(args.try_keys);
    let mut source = open::source(ctx)?;
    let query = Query {
        ranges: merge_ranges(keys.iter().flat_map(NamedKey::singles).collect()),
        revision: ctx.global.revision,
        ordered: true,
    };
    let mut found: Vec<Entry> = Vec::new();
    let visit = source.visit(&query, &mut |entry| {
        found.push(entry.to_entry());
        ControlFlow::Continue(())
    })?;
    ending::notes(ctx, &visit);
    ending::damage(ctx, &visit.damage);

    let mut exit = if visit.damage.is_empty() { Exit::Ok } else { Exit::Partial };
    let mut items = Vec::new();
    let mut missing = Vec::new();
    let scope = open::scope(ctx);
    let wanted = |e: &&Entry| is_in(&scope.locate_named(&e.key), &ctx.global.namespace);
    for key in &keys {
        let means = |e: &&Entry| key.keys.contains(&e.key);
        let Some(entry) = found.iter().filter(wanted).find(means) else {
            missing.push(key);
            continue;
        };
        let key = String::from_utf8_lossy(&entry.key);
        let revision = visit.revision;
        let mut look = |found: &mut Misplaced| {
            // That nobody can look makes the object no less misplaced.
            let _ = reader.look(source.as_mut(), revision, &open::scope(ctx), &mut [found]);
        };
        match show(ctx, &reader, entry, args.reveal, &mut look) {
            Ok((json, header, whole)) => {
                if !whole {
                    exit = Exit::Partial;
                }
                items.push((json, header));
            }
            Err(reason) => {
                ctx.ui.warn(&format!("cannot show {}: {reason}", table::visible(&key)));
                if reason.contains(" reads it (") {
                    ctx.ui.note(open::TRY_KEYS);
                }
                exit = Exit::Partial;
            }
        }
    }
    print(format, items)?;
    if missing.is_empty() {
        return Ok(exit);
    }
    let failure = not_there(ctx, &missing, visit.revision);
    let near = |failure, key: &NamedKey| nothing::near(ctx, source.as_mut(), key, failure);
    Err(missing.into_iter().fold(failure, near))
}

fn not_there(ctx: &Ctx, missing: &[&NamedKey], revision: i64) -> Failure {
    let name = |key: &NamedKey| {
        let keys = key.keys.iter().map(|k| table::visible(&String::from_utf8_lossy(k)));
        keys.collect::<Vec<_>>().join(" or ")
    };
    let names: Vec<_> = missing.iter().map(|key| name(key)).collect();
    let namespaces = match &ctx.global.namespace[..] {
        [] => String::new(),
        names => format!(" in namespace {}", names.join(", ")),
    };
    let failure =
        Failure::new(format!("no entry {}{namespaces} at revision {revision}", names.join(", ")));
    let scope = open::scope(ctx);
    let short = |key: &&NamedKey| {
        let location = scope.locate_named(&key.keys[0]);
        key.is_prefix || !location.internal && location.namespace.is_none()
    };
    if missing.iter().any(short) {
        failure.hint(
            "a KEY is /registry/secrets/NAMESPACE/NAME, secrets/NAMESPACE/NAME, or secrets/NAME with -n NAMESPACE; `atrest scan --list` shows them all",
        )
    } else if ctx.global.revision.is_none() {
        failure
            .hint("`atrest history KEY` shows whether it existed; --revision reads an older state")
    } else {
        failure
    }
}

/// The object, a line on how it is stored, and whether all of it is shown. `look` finds out what
/// is where a misplaced object belongs.
pub fn show(
    ctx: &Ctx,
    reader: &Objects,
    entry: &Entry,
    reveal: bool,
    look: &mut dyn FnMut(&mut Misplaced),
) -> Result<(Value, String, bool), String> {
    let scope = open::scope(ctx);
    let location = scope.locate_named(&entry.key);
    let mut shown = reader.read(entry.as_ref(), &location).map_err(|not| not.words())?;
    // A value from stdin may come without its key and revision.
    let name = match entry.key.as_slice() {
        [] => "value".to_owned(),
        key => table::visible(&String::from_utf8_lossy(key)),
    };
    if let Some(found) = shown.judged.misplaced.as_deref_mut() {
        look(found);
        ctx.ui.warn(&format!("misplaced: {name}: {found}"));
    }
    if let Some(hollow) = &shown.hollow {
        ctx.ui.warn(&format!("{name}: {}", hollow.reason));
    } else if !shown.unknown.is_empty() {
        ctx.ui.warn(&format!("{name}: not shown: {}", fields(&shown.unknown)));
    }
    if !reveal {
        storage::redact(&mut shown.json, location.resource == "secrets");
    }
    let mut header = format!("{name}: {}, {} bytes", shown.judged.stored_as(), entry.value.len());
    if entry.mod_revision > 0 {
        let _ = write!(header, ", revision {}", entry.mod_revision);
    }
    Ok((std::mem::take(&mut shown.json), header, shown.unknown.is_empty()))
}

/// Writes objects to stdout, and wipes them: one as itself, several as a list (JSON) or documents
/// (YAML).
pub fn print(format: Format, items: Vec<(Value, String)>) -> Result<(), Failure> {
    let (mut objects, headers): (Vec<Value>, Vec<String>) = items.into_iter().unzip();
    if objects.is_empty() {
        return Ok(());
    }
    if format == Format::Json && objects.len() > 1 {
        objects = vec![list(objects)];
    }
    let printed = ui::print(|out| {
        for (i, (json, header)) in objects.iter().zip(&headers).enumerate() {
            if format == Format::Json {
                serde_json::to_writer_pretty(&mut *out, json)?;
                writeln!(out)?;
                continue;
            }
            if i > 0 {
                writeln!(out, "---")?;
            }
            writeln!(out, "# {header}")?;
            let text = Zeroizing::new(if format == Format::Yaml {
                storage::yaml::to_string(json)
            } else {
                storage::fields::to_string(json)
            });
            out.write_all(text.as_bytes())?;
        }
        Ok(())
    });
    objects.iter_mut().for_each(storage::wipe);
    printed
}
