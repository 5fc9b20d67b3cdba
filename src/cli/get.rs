//! `atrest get`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::ControlFlow;

use serde_json::Value;
use zeroize::Zeroizing;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::object::{self, Reader};
use super::{Ctx, open, ui};
use crate::entry::Entry;
use crate::report::{Format, table};
use crate::scan::place::Misplaced;
use crate::source::{KeyRange, Query};
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
    reading: args::Reading,

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

/// A key as the user wrote it → the etcd key.
pub fn full_key(ctx: &Ctx, key: &str) -> String {
    let scope = open::scope(ctx);
    if key.starts_with('/') || key.starts_with(scope.base()) {
        return key.to_owned();
    }
    let (resource, rest) = key.split_once('/').unwrap_or((key, ""));
    let below = crate::resource::Selector::parse(resource)
        .ok()
        .and_then(|s| s.ranges(scope.base()).into_iter().next())
        .and_then(|r| String::from_utf8(r.start).ok());
    match below {
        // As with kubectl, -n completes a name.
        Some(below) if !rest.is_empty() => match &ctx.global.namespace[..] {
            [namespace] if !rest.contains('/') => format!("{below}{namespace}/{rest}"),
            _ => format!("{below}{rest}"),
        },
        _ => format!("{}{key}", scope.base()),
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let format = args.write_out;
    let keys: Vec<String> = args.keys.iter().map(|k| full_key(ctx, k)).collect();
    let reader = Reader::new(ctx, args.show_managed_fields)?;
    let mut source = open::source(ctx)?;
    let ranges = keys.iter().map(|k| KeyRange::single(k.as_bytes())).collect();
    let query = Query {
        ranges: crate::resource::merge_ranges(ranges),
        revision: ctx.global.revision,
        ordered: true,
    };
    let mut found: Vec<Entry> = Vec::new();
    let visit = source.visit(&query, &mut |entry| {
        found.push(entry.to_entry());
        ControlFlow::Continue(())
    })?;
    for note in &visit.notes {
        ctx.ui.note(note);
    }
    super::report_damage(ctx, &visit.damage);

    let mut exit = if visit.damage.is_empty() { Exit::Ok } else { Exit::Partial };
    let mut items = Vec::new();
    let mut missing = Vec::new();
    for key in &keys {
        let Some(entry) = found.iter().find(|e| e.key == key.as_bytes()) else {
            missing.push(key.as_str());
            continue;
        };
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
                ctx.ui.warn(&format!("cannot show {}: {reason}", table::visible(key)));
                exit = Exit::Partial;
            }
        }
    }
    print(format, items)?;
    if missing.is_empty() {
        return Ok(exit);
    }
    let mut failure = Failure::new(format!(
        "no entry {} at revision {}",
        missing.iter().map(|k| table::visible(k)).collect::<Vec<_>>().join(", "),
        visit.revision
    ));
    if missing
        .iter()
        .any(|k| k.trim_start_matches(open::scope(ctx).base()).matches('/').count() < 2)
    {
        failure = failure.hint(
            "a KEY is /registry/secrets/NAMESPACE/NAME, secrets/NAMESPACE/NAME, or secrets/NAME with -n NAMESPACE; `atrest scan --list` shows them all",
        );
    } else if ctx.global.revision.is_none() {
        failure = failure
            .hint("`atrest history KEY` shows whether it existed; --revision reads an older state");
    }
    Err(failure)
}

/// The object, a line on how it is stored, and whether all of it is shown. `look` finds out what
/// is where a misplaced object belongs.
pub fn show(
    ctx: &Ctx,
    reader: &Reader,
    entry: &Entry,
    reveal: bool,
    look: &mut dyn FnMut(&mut Misplaced),
) -> Result<(Value, String, bool), String> {
    let scope = open::scope(ctx);
    let location = scope.locate(&entry.key);
    let mut shown = reader
        .read(entry.as_ref(), &location)
        .map_err(|n| format!("{} ({})", n.reason, super::object::stored_as(&n.judged)))?;
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
        ctx.ui.warn(&format!("{name}: not shown: {}", object::fields(&shown.unknown)));
    }
    if !reveal {
        storage::redact(&mut shown.json);
    }
    let mut header =
        format!("{name}: {}, {} bytes", super::object::stored_as(&shown.judged), entry.value.len());
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
        objects = vec![object::list(objects)];
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
