//! How a command ends that has read a source.

use super::Ctx;
use super::failure::{Exit, Failure};
use crate::source::{Damage, Visit};

/// Tells what the sources remarked, has the result shown, and then tells which parts could not be
/// read, whether there was a result or not: what it says is of the rest alone. It is then
/// partial, unless there is more to say of it than that.
///
/// # Errors
/// Those of `result`.
pub fn end<'v>(
    ctx: &Ctx,
    visits: impl IntoIterator<Item = &'v Visit> + Clone,
    result: impl FnOnce() -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    for visit in visits.clone() {
        notes(ctx, visit);
    }
    let ended = result();
    let mut whole = true;
    for visit in visits {
        damage(ctx, &visit.damage);
        whole &= visit.damage.is_empty();
    }
    Ok(match ended? {
        Exit::Ok if !whole => Exit::Partial,
        exit => exit,
    })
}

/// What the source remarked, on stderr.
pub fn notes(ctx: &Ctx, visit: &Visit) {
    for note in &visit.notes {
        ctx.ui.note(note);
    }
}

/// Every part of a source that could not be read, on stderr.
pub fn damage(ctx: &Ctx, damage: &[Damage]) {
    for d in damage {
        ctx.ui.warn(&format!("cannot read {}: {}", d.location, d.what));
    }
}
