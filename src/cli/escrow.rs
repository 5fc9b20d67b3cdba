//! `--identity FILE`: what opens files that age encrypted. `--kms-escrow FILE`: data keys that no KMS
//! is asked for.

use std::path::Path;
use std::sync::Arc;

use super::failure::Failure;
use super::{Ctx, configuration, datastore};
use crate::agefile::{Identities, IdentityError, Unlock};
use crate::kms::escrow::{self, Document, Escrow, EscrowError};
use crate::report::table;

/// Reads the identities, and opens the escrows that the options name, if any.
///
/// # Errors
/// When one cannot be read, with a hint; when nothing is read that an identity could open.
pub fn apply(ctx: &mut Ctx) -> Result<(), Failure> {
    if let Some(identities) = identities(ctx)? {
        ctx.unlock = Unlock::with(identities);
    }
    let g = &ctx.global;
    if g.kms_escrow.is_empty() {
        let file = g.is_file() && datastore::url(ctx).is_none();
        if is_for_backups(ctx) && !file && !g.reads_several {
            return Err(Failure::usage(
                "--identity opens a backup or an escrow that age encrypted, and none is given",
            )
            .hint("give a backup with --snapshot, or what `atrest kms escrow` wrote with --kms-escrow FILE"));
        }
        return Ok(());
    }
    let mut escrow = Escrow::default();
    for path in &g.kms_escrow {
        let content = configuration::read(path)?;
        let document = escrow::open(&content.bytes, &ctx.unlock).map_err(|e| cannot(path, &e))?;
        tell(ctx, path, &document);
        escrow.add(document);
    }
    ctx.escrow = Some(Arc::new(escrow));
    Ok(())
}

/// Whether identities are given that nothing but a backup can need.
fn is_for_backups(ctx: &Ctx) -> bool {
    let g = &ctx.global;
    ctx.unlock.is_given() && g.kms_escrow.is_empty() && !g.makes_escrow
}

fn is_unused(ctx: &Ctx) -> bool {
    is_for_backups(ctx) && !ctx.unlock.was_used()
}

/// Whether what was read needed the identities, if it is all that they can be for.
///
/// # Errors
/// When it did not.
pub fn is_used(ctx: &Ctx) -> Result<(), Failure> {
    if ctx.global.reads_several { Ok(()) } else { is_needed(ctx) }
}

/// As [`is_used`], when everything was opened.
///
/// # Errors
/// As there.
pub fn is_needed(ctx: &Ctx) -> Result<(), Failure> {
    if !is_unused(ctx) {
        return Ok(());
    }
    Err(Failure::usage("--identity opens what age encrypted, and what is read is not encrypted")
        .hint("leave it out, or name the escrow that it opens with --kms-escrow FILE"))
}

/// Says that no identity was needed, where only reading everything could tell.
pub fn tell_unused(ctx: &Ctx) {
    if ctx.global.reads_several && is_unused(ctx) {
        ctx.ui.warn("no --identity was needed: nothing that was read is encrypted by age to it");
    }
}

/// The identities that the options name, if any.
///
/// # Errors
/// When a file has none, or something else.
fn identities(ctx: &Ctx) -> Result<Option<Identities>, Failure> {
    let mut all: Option<Identities> = None;
    for path in &ctx.global.identity {
        let content = configuration::read(path)?;
        let own = Identities::parse(&content.bytes).map_err(|e| unusable(path, &e))?;
        if let Some(warning) = &content.exposed {
            ctx.ui.warn(warning);
        }
        match &mut all {
            Some(all) => all.join(own),
            None => all = Some(own),
        }
    }
    Ok(all)
}

fn unusable(path: &Path, error: &IdentityError) -> Failure {
    let failure = Failure::new(format!("cannot use the identities in {}", path.display()));
    let failure = failure.because(error);
    match error {
        IdentityError::Encrypted => {
            failure.hint("decrypt it with `age -d` first; a shell's <(age -d FILE) leaves no copy")
        }
        _ => failure,
    }
}

/// Why an escrow is not opened.
pub fn cannot(path: &Path, error: &EscrowError) -> Failure {
    let failure = Failure::new(format!("cannot open the escrow {}", path.display()));
    let failure = failure.because(error);
    match error {
        EscrowError::NotForThese => {
            failure.hint("give the secret half of one of its recipients with --identity FILE")
        }
        EscrowError::NotAge => {
            failure.hint("give what `atrest kms escrow` wrote with --kms-escrow FILE")
        }
        _ => failure,
    }
}

/// Whoever reads with an escrow must know it, and what it lacks.
fn tell(ctx: &Ctx, path: &Path, document: &Document) {
    let mut names: Vec<_> = document.keys.iter().map(|k| &*k.name.provider).collect();
    names.sort_unstable();
    names.dedup();
    let names: Vec<_> = names.into_iter().map(table::visible).collect();
    let keys = table::counted(document.keys.len() as u64, "data key", "data keys");
    let lacks = match document.missing.len() as u64 {
        0 => String::new(),
        n => format!("; {} could not be kept", table::counted(n, "data key", "data keys")),
    };
    ctx.ui.note(&format!(
        "{keys} of {} from {}, written {}, in place of the KMS{lacks}",
        names.join(", "),
        path.display(),
        document.created
    ));
}
