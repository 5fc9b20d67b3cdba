//! `--lost`: what lies in a file outside the key space.

use std::ops::ControlFlow;

use super::failure::Failure;
use super::{Ctx, open};
use crate::jobs::lost::{Asked, Found, Lost, search, state};
use crate::report::table;
use crate::resource::NamedKey;
use crate::source::{Damage, KeyRange, Query, RevisionError, Source, SourceError};

/// Whether the source keeps files of its own.
///
/// # Errors
/// When `--lost` is given and it does not.
pub fn check(ctx: &Ctx) -> Result<(), Failure> {
    if !ctx.global.lost || ctx.global.is_file() {
        return Ok(());
    }
    Err(Failure::usage("--lost goes with --snapshot, --data-dir or --kine only").hint(
        "a live etcd serves its key space alone; `etcdctl snapshot save` copies its free pages as well",
    ))
}

/// Why a source cannot be read, and that `--lost` may help with it.
#[must_use]
pub fn advised(ctx: &Ctx, e: SourceError) -> Failure {
    let compacted = matches!(&e, SourceError::Revision(RevisionError::Compacted { .. }));
    let failure = Failure::from(e);
    if !compacted || !ctx.global.takes_lost || ctx.global.lost {
        return failure;
    }
    failure.hint("--lost reads what is left of that state in the file; without --revision, the newest state is read")
}

/// A source, and what `--lost` finds beside its key space of all that begins as the KEYs do.
///
/// # Errors
/// When it cannot be opened or searched.
pub fn beside(ctx: &Ctx, keys: &[NamedKey]) -> Result<Beside, Failure> {
    if !ctx.global.lost {
        return Ok(Beside { source: open::source(ctx)?, records: None, damage: Vec::new() });
    }
    let ranges = crate::resource::merge_ranges(keys.iter().flat_map(NamedKey::prefixes).collect());
    let mut opened = open::files(ctx)?;
    if let Some(revision) = ctx.global.revision {
        is_compacted(opened.source(), &ranges, revision)?;
    }
    let found = search(opened, ctx.global.salvage, &open::scope(ctx), ranges)?;
    let (found, source) = tell(ctx, found)?;
    Ok(Beside { source, records: Some(found.records), damage: found.damage })
}

/// See [`beside`].
pub struct Beside {
    /// What holds the key space.
    pub source: Box<dyn Source>,
    /// What lies outside it, if it was searched.
    pub records: Option<Vec<Lost>>,
    /// What could not be searched.
    pub damage: Vec<Damage>,
}

/// A source whose state at `--revision` is read although it was compacted away, if `--lost` is
/// given. `named` says that the ranges are single keys.
///
/// # Errors
/// When it cannot be opened or searched, or holds no such revision by any means.
pub fn source(
    ctx: &Ctx,
    ranges: impl FnOnce() -> Vec<KeyRange>,
    named: bool,
) -> Result<Box<dyn Source>, Failure> {
    if !ctx.global.lost {
        return open::source(ctx);
    }
    let Some(revision) = ctx.global.revision else {
        return Err(Failure::usage(
            "--lost takes a state that was compacted away: give --revision N",
        )
        .hint("`atrest history KEY --lost` shows at which revisions it was written"));
    };
    let asked = Asked { ranges: crate::resource::merge_ranges(ranges()), revision, named };
    let mut opened = open::files(ctx)?;
    if !is_compacted(opened.source(), &asked.ranges, revision)? {
        ctx.ui.note(&format!("revision {revision} is not compacted: nothing of it is lost"));
        return Ok(opened.into_source());
    }
    let found = search(opened, ctx.global.salvage, &open::scope(ctx), asked.ranges.clone())?;
    let (found, source) = tell(ctx, found)?;
    Ok(state(found, source, asked)?)
}

/// Whether a state was compacted away.
///
/// # Errors
/// When the source cannot be read, or was never at the revision.
fn is_compacted(
    source: &mut dyn Source,
    ranges: &[KeyRange],
    revision: i64,
) -> Result<bool, Failure> {
    let query = Query { ranges: ranges.to_vec(), revision: Some(revision), ordered: false };
    match source.visit(&query, &mut |_| ControlFlow::Break(())) {
        Ok(_) => Ok(false),
        Err(SourceError::Revision(RevisionError::Compacted { .. })) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// Says what is left out, and opens again what cannot be read on.
fn tell(ctx: &Ctx, mut found: Found) -> Result<(Found, Box<dyn Source>), Failure> {
    if found.broken > 0 {
        let records = table::counted(found.broken, "record is", "records are");
        ctx.ui.note(&format!(
            "{records} overwritten in part, and left out; `atrest residue --recover DIR` writes what is left of plaintext"
        ));
    }
    let source = match found.opened.take() {
        Some(opened) => opened.into_source(),
        None => open::source(ctx)?,
    };
    Ok((found, source))
}
