//! `atrest keys`.

use std::ops::ControlFlow;

use super::failure::{Exit, Failure};
use super::open::Selection;
use super::{Ctx, open, ui};
use crate::config::ConfigSet;
use crate::entry::EntryRef;
use crate::forensics::keys::{Census, KeyName};
use crate::report::Format;
use crate::report::keys::Report;
use crate::scan::{ByPrefix, Judge, Prefixes};
use crate::source::{KeyRange, Query, Record, SourceKind};

/// Options of `keys`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(ctx: &Ctx, _args: &Args) -> Result<Exit, Failure> {
    let format = Format::choose(
        ctx.global.write_out.as_deref(),
        &[Format::Table, Format::Json, Format::Jsonl, Format::Csv],
    )
    .map_err(Failure::usage)?;
    let configs = open::configs(ctx)?;
    let selection = Selection::new(ctx, configs.as_ref().map(ConfigSet::resources))?;
    let transformers = configs.as_ref().map(open::transformers).transpose()?;
    let judge: Box<dyn Judge + '_> = match &transformers {
        None => Box::new(Prefixes),
        Some(t) => Box::new(ByPrefix(t)),
    };
    let mut source = open::source(ctx)?;
    let info = source.info();
    // A key that only other resources need is needed all the same, so all are read.
    let mut query = Query {
        ranges: selection.scope.bases.iter().map(|b| KeyRange::prefix(b.as_bytes())).collect(),
        revision: ctx.global.revision,
        ordered: false,
    };
    query.ranges = crate::resource::merge_ranges(query.ranges);
    let mut census = Census::default();
    let count = |entry: EntryRef<'_>, add: &mut dyn FnMut(KeyName, bool)| {
        let location = selection.scope.locate(entry.key);
        if !location.internal {
            let judged = judge.judge(&location.resource, entry.key, entry.stored());
            add(KeyName::of(&judged), selection.locate(entry.key).is_some());
        }
    };
    let mut visit = source.visit(&query, &mut |entry| {
        count(entry, &mut |name, selected| census.live(name, selected));
        ControlFlow::Continue(())
    })?;
    query.revision = Some(visit.revision);
    let history = source.history(&query, &mut |record| {
        if let Record::Put(entry) = record {
            count(entry, &mut |name, selected| census.held(name, selected));
        }
        ControlFlow::Continue(())
    });
    let with_history = match history {
        Ok(held) => {
            for damage in held.damage {
                if !visit.damage.contains(&damage) {
                    visit.damage.push(damage);
                }
            }
            true
        }
        Err(e) if info.kind == SourceKind::Etcd => {
            ctx.ui.note(&format!("superseded revisions were not counted: {e}"));
            false
        }
        Err(e) => return Err(e.into()),
    };
    for note in &visit.notes {
        ctx.ui.note(note);
    }
    let keys = census.rows(configs.as_ref(), with_history, visit.damage.is_empty());
    let report = Report {
        source: &info,
        visit: &visit,
        config: configs.as_ref().map(open::config_wire),
        keys: &keys,
    };
    ui::print(|out| report.write(format, ctx.ui.color, out))?;
    super::report_damage(ctx, &visit.damage);
    if keys.iter().any(|k| k.safe_to_remove && k.configured == Some(true)) {
        ctx.ui.note(
            "safe means for this etcd as it is: backups taken earlier may still need the key",
        );
    }
    Ok(if visit.damage.is_empty() { Exit::Ok } else { Exit::Partial })
}
