//! `atrest history`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;

use super::args::{self, Shared};
use super::failure::{Exit, Failure};
use super::{Ctx, ending, nothing, open, ui};
use crate::forensics::changes::Contents;
use crate::objects::{NotShown, Objects};
use crate::report::history::{Report, Revision};
use crate::report::{Format, table};
use crate::resource::key::is_in;
use crate::resource::{Location, NamedKey, Scope};
use crate::scan::{Causes, Finding, Status};
use crate::source::{KeyRange, Query, Record, Source, Visit};

/// Options of `history`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An etcd key, an object as RESOURCE/NAMESPACE/NAME, or the beginning of either
    #[arg(value_name = "KEY|PREFIX", required = true)]
    pub keys: Vec<String>,

    /// Show the values of data keys that changed, not only their names and lengths
    #[arg(long)]
    pub reveal: bool,

    #[command(flatten)]
    source: args::Source,

    #[command(flatten)]
    prefix: args::Prefix,

    #[command(flatten)]
    namespaces: args::Namespaces,

    #[command(flatten)]
    allow_empty: args::AllowEmpty,

    #[command(flatten)]
    revision: args::Revision,

    #[command(flatten)]
    reading: args::ReadingInside,

    /// Output format
    #[arg(short = 'w', long, value_name = "FORMAT", value_parser = args::formats(&[Format::Table, Format::Json, Format::Jsonl, Format::Csv]), default_value = "table", help_heading = "Output")]
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
            &self.allow_empty,
            &self.revision,
            &self.reading,
            &self.output,
        ])
    }
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let format = args.write_out;
    let scope = open::scope(ctx);
    let targets = open::keys(ctx, &args.keys)?;
    let decoder = super::inside::objects(ctx)?.managed_fields(false);
    let mut source = open::source(ctx)?;
    let info = source.info();
    let mut reader = Reader {
        source: source.as_mut(),
        scope: &scope,
        namespaces: &ctx.global.namespace,
        decoder: &decoder,
        reveal: args.reveal,
        revision: ctx.global.revision,
        revisions: Vec::new(),
        before: HashMap::new(),
        unread: 0,
        no_objects: Causes::default(),
    };
    let mut ranges = Vec::new();
    for target in &targets {
        // A key that is there is not also the beginning of others.
        let exact = !target.is_prefix && reader.has(&target.singles())?;
        if exact {
            ranges.extend(target.singles());
        } else {
            ranges.extend(target.prefixes());
        }
    }
    let visit = reader.read(crate::resource::merge_ranges(ranges))?;
    let Reader { revisions, unread, no_objects, .. } = reader;
    ending::notes(ctx, &visit);
    let with_keys = !ctx.global.encryption_config.is_empty();
    if unread > 0 {
        let what = format!(
            "the data of {} could not be read, and so not be compared",
            table::counted(unread, "revision", "revisions")
        );
        if with_keys {
            ctx.ui.warn(&what);
        } else {
            ctx.ui.note(&format!("{what}; --encryption-config decrypts"));
        }
    }
    if let Some(failure) = not_there(ctx, source.as_mut(), &targets, &revisions) {
        ending::damage(ctx, &visit.damage);
        return Err(failure);
    }
    let report = Report { source: &info, visit: &visit, revisions: &revisions };
    ui::print(|out| report.write(format, ctx.ui.color, out))?;
    ending::damage(ctx, &visit.damage);
    for line in no_objects.lines("unreadable:") {
        ctx.ui.warn(&line);
    }
    let unreadable = !no_objects.is_empty() || revisions.iter().any(|r| {
        matches!(r, Revision::Put { finding, .. } if finding.judged.status == Some(Status::Unreadable))
    });
    let partial = unreadable || (with_keys && unread > 0) || !visit.damage.is_empty();
    Ok(if partial { Exit::Partial } else { Exit::Ok })
}

/// The KEYs of which nothing is held.
fn not_there(
    ctx: &Ctx,
    source: &mut dyn Source,
    targets: &[NamedKey],
    revisions: &[Revision],
) -> Option<Failure> {
    let held = |target: &NamedKey| {
        revisions.iter().any(|revision| {
            let key = match revision {
                Revision::Put { finding, .. } => &finding.key,
                Revision::Delete { key, .. } => key,
            };
            target.keys.iter().any(|k| key.starts_with(k))
        })
    };
    let missing: Vec<&NamedKey> = targets.iter().filter(|target| !held(target)).collect();
    if missing.is_empty() || ctx.global.allow_empty {
        return None;
    }
    let names: Vec<_> = missing.iter().map(|t| table::visible(&t.text)).collect();
    let failure = Failure::new(format!("no revision of {} is held", names.join(", "))).hint(
        "compaction forgets keys that were deleted; `atrest residue --recover DIR` reads what is left of them in files, decrypted with --encryption-config",
    );
    Some(missing.into_iter().fold(failure, |failure, key| nothing::near(ctx, source, key, failure)))
}

struct Reader<'a> {
    source: &'a mut dyn Source,
    scope: &'a Scope,
    namespaces: &'a [String],
    decoder: &'a Objects,
    reveal: bool,
    revision: Option<i64>,
    revisions: Vec<Revision>,
    /// The data of the newest revision of each key so far.
    before: HashMap<Vec<u8>, Contents>,
    /// Revisions whose data could not be read.
    unread: u64,
    /// Revisions that could be read, and are no objects.
    no_objects: Causes,
}

impl Reader<'_> {
    fn query(&self, ranges: Vec<KeyRange>) -> Query {
        Query { ranges, revision: self.revision, ordered: true }
    }

    /// Whether any revision is held.
    fn has(&mut self, ranges: &[KeyRange]) -> Result<bool, Failure> {
        let mut any = false;
        // A server looks that up at once. Why it cannot, the history says, too.
        let head = self.source.visit(&self.query(ranges.to_vec()), &mut |_| {
            any = true;
            ControlFlow::Break(())
        });
        if head.is_ok() && any {
            return Ok(true);
        }
        self.source.held(&self.query(ranges.to_vec()), &mut |_, _| {
            any = true;
            ControlFlow::Break(())
        })?;
        Ok(any)
    }

    fn read(&mut self, ranges: Vec<KeyRange>) -> Result<Visit, Failure> {
        let query = self.query(ranges);
        let (scope, decoder, reveal) = (self.scope, self.decoder, self.reveal);
        let namespaces = self.namespaces;
        let Self { source, revisions, before, unread, no_objects, .. } = self;
        Ok(source.held(&query, &mut |record, held| {
            let key = match &record {
                Record::Put(entry) => entry.key,
                Record::Delete { key, .. } => key,
            };
            let location = scope.locate_named(key);
            if !is_in(&location, namespaces) {
                return ControlFlow::Continue(());
            }
            revisions.push(match record {
                Record::Put(entry) => {
                    let judged = decoder.judge(&location.resource, entry);
                    let mut finding = Box::new(Finding::new(entry, &location, judged));
                    let mut note = |not: &NotShown| {
                        if not.judged.status == Some(Status::Unreadable) {
                            finding.judged.status = not.judged.status;
                        }
                        if finding.judged.status == Some(Status::Unreadable) || not.no_object {
                            finding.judged.reason = Some(not.reason.clone().into());
                        }
                        if not.no_object {
                            no_objects.add(entry.key, &not.reason);
                        }
                    };
                    let mut changes = None;
                    if location.internal {
                        // Never an object of the API.
                    } else if !matches!(&*location.resource, "secrets" | "configmaps") {
                        decoder.open(entry, &location).map_or_else(|not| note(&not), |_| ());
                    } else {
                        let now = decoder.read(entry, &location).inspect_err(|not| note(not));
                        *unread += u64::from(now.is_err());
                        let now = now.ok().and_then(|s| Contents::of(&s.json, reveal));
                        let old = before.remove(entry.key);
                        changes = now.as_ref().zip(old).map(|(now, old)| now.since(&old));
                        before.extend(now.map(|now| (entry.key.to_vec(), now)));
                    }
                    Revision::Put { finding, changes, held }
                }
                Record::Delete { key, revision } => {
                    before.remove(key);
                    let location = owned(location);
                    Revision::Delete { key: key.to_vec(), location, revision, held }
                }
            });
            ControlFlow::Continue(())
        })?)
    }
}

fn owned(location: Location<'_>) -> Location<'static> {
    Location {
        resource: Cow::Owned(location.resource.into_owned()),
        namespace: location.namespace.map(|n| Cow::Owned(n.into_owned())),
        name: Cow::Owned(location.name.into_owned()),
        internal: location.internal,
        object_at: location.object_at,
    }
}
