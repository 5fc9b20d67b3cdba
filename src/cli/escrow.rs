//! `--kms-escrow FILE --identity FILE`: data keys that no KMS is asked for.

use std::path::Path;
use std::sync::Arc;

use super::failure::Failure;
use super::{Ctx, configuration};
use crate::kms::escrow::{self, Document, Escrow, EscrowError, Identities};
use crate::report::table;

/// Opens the escrows that the options name, if any.
///
/// # Errors
/// When one cannot be read, with a hint.
pub fn apply(ctx: &mut Ctx) -> Result<(), Failure> {
    let g = &ctx.global;
    if g.kms_escrow.is_empty() {
        if !g.identity.is_empty() && !g.makes_escrow {
            return Err(Failure::usage("--identity opens an escrow, and none is given")
                .hint("give what `atrest kms escrow` wrote with --kms-escrow FILE"));
        }
        return Ok(());
    }
    let Some(identities) = identities(ctx)? else { return Ok(()) };
    let mut escrow = Escrow::default();
    for path in &g.kms_escrow {
        let content = configuration::read(path)?;
        let document = escrow::open(&content.bytes, &identities).map_err(|e| cannot(path, &e))?;
        tell(ctx, path, &document);
        escrow.add(document);
    }
    ctx.escrow = Some(Arc::new(escrow));
    Ok(())
}

/// The identities that the options name, if any.
///
/// # Errors
/// When a file has none, or something else.
pub fn identities(ctx: &Ctx) -> Result<Option<Identities>, Failure> {
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

fn unusable(path: &Path, error: &EscrowError) -> Failure {
    let failure = Failure::new(format!("cannot use the identities in {}", path.display()));
    let failure = failure.because(error);
    match error {
        EscrowError::EncryptedIdentity => {
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
