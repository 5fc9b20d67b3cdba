//! `atrest history`.

use std::borrow::Cow;
use std::ops::ControlFlow;

use super::failure::{Exit, Failure};
use super::target::Target;
use super::{Ctx, open, ui};
use crate::report::Format;
use crate::report::history::{Report, Revision};
use crate::resource::{Location, Scope};
use crate::scan::{ByPrefix, Finding, Judge, Prefixes};
use crate::source::{KeyRange, Query, Record, Source, Visit};

/// Options of `history`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An etcd key, an object as RESOURCE/NAMESPACE/NAME, or the beginning of either
    #[arg(value_name = "KEY|PREFIX", required = true)]
    pub keys: Vec<String>,
}

/// Runs the command.
pub fn run(ctx: &Ctx, args: &Args) -> Result<Exit, Failure> {
    let format = Format::choose(
        ctx.global.write_out.as_deref(),
        &[Format::Table, Format::Json, Format::Jsonl, Format::Csv],
    )
    .map_err(Failure::usage)?;
    let scope = open::scope(ctx);
    let targets: Vec<_> =
        args.keys.iter().map(|k| Target::parse(k, &scope)).collect::<Result<_, _>>()?;
    let configs = open::configs(ctx)?;
    let transformers = configs.as_ref().map(open::transformers).transpose()?;
    let judge: Box<dyn Judge + '_> = match &transformers {
        None => Box::new(Prefixes),
        Some(t) => Box::new(ByPrefix(t)),
    };
    let mut source = open::source(ctx)?;
    let info = source.info();
    let mut reader = Reader {
        source: source.as_mut(),
        scope: &scope,
        judge: judge.as_ref(),
        revision: ctx.global.revision,
        revisions: Vec::new(),
    };
    let mut ranges = Vec::new();
    let mut missing = None;
    for target in &targets {
        // A key that is there is not also the beginning of others.
        let exact = !target.is_prefix && reader.has(&target.singles())?;
        if exact {
            ranges.extend(target.singles());
        } else {
            ranges.extend(target.prefixes());
            missing = missing.or((!target.is_prefix).then_some(target));
        }
    }
    let visit = reader.read(crate::resource::merge_ranges(ranges))?;
    let revisions = reader.revisions;
    for note in &visit.notes {
        ctx.ui.note(note);
    }
    if let (true, Some(target), true) = (revisions.is_empty(), missing, visit.damage.is_empty()) {
        return Err(Failure::new(format!("no revision of {} is held", target.text)).hint(
            "compaction forgets keys that were deleted; `atrest residue` looks for what is left in files",
        ));
    }
    let report = Report { source: &info, visit: &visit, revisions: &revisions };
    let mut out = ui::stdout();
    report
        .write(format, ctx.ui.color, &mut out)
        .and_then(|()| std::io::Write::flush(&mut out))
        .map_err(|e| ui::write_failure(&e))?;
    super::report_damage(ctx, &visit.damage);
    Ok(if visit.damage.is_empty() { Exit::Ok } else { Exit::Partial })
}

struct Reader<'a> {
    source: &'a mut dyn Source,
    scope: &'a Scope,
    judge: &'a dyn Judge,
    revision: Option<i64>,
    revisions: Vec<Revision>,
}

impl Reader<'_> {
    fn query(&self, ranges: Vec<KeyRange>) -> Query {
        Query { ranges, revision: self.revision, ordered: true }
    }

    /// Whether any revision is held.
    fn has(&mut self, ranges: &[KeyRange]) -> Result<bool, Failure> {
        let mut any = false;
        self.source.history(&self.query(ranges.to_vec()), &mut |_| {
            any = true;
            ControlFlow::Break(())
        })?;
        Ok(any)
    }

    fn read(&mut self, ranges: Vec<KeyRange>) -> Result<Visit, Failure> {
        let (scope, judge, revisions) = (self.scope, self.judge, &mut self.revisions);
        let query = Query { ranges, revision: self.revision, ordered: true };
        Ok(self.source.history(&query, &mut |record| {
            revisions.push(match record {
                Record::Put(entry) => {
                    let location = scope.locate(entry.key);
                    let judged = judge.judge(&location.resource, entry.key, entry.stored());
                    Revision::Put(Box::new(Finding::new(entry, &location, judged)))
                }
                Record::Delete { key, revision } => Revision::Delete {
                    key: key.to_vec(),
                    location: owned(scope.locate(key)),
                    revision,
                },
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
