//! Standard input, which can be read once.

use std::io::StdinLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::failure::Failure;

/// Takes standard input.
///
/// # Errors
/// When something has taken it before: a second `-` is wrong usage.
pub fn claim() -> Result<StdinLock<'static>, Failure> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(Failure::usage("stdin can be read once only: give `-` once")
            .hint("put one of the inputs into a file"));
    }
    Ok(std::io::stdin().lock())
}
