//! Configurations → files. Key material leaves the process here and nowhere else, into a file
//! that only its owner can read.

use std::io;
use std::path::Path;

use crate::cli::failure::Failure;
use crate::secret::KeyMaterial;
use crate::temporary;

/// A key from the system's random generator.
///
/// # Errors
/// When the system has no randomness to give.
pub fn fresh_key() -> Result<KeyMaterial, Failure> {
    // A precaution: where the system refuses it, the job still goes on.
    let _ = crate::secret::harden();
    KeyMaterial::random().map_err(|e| Failure::new(e.to_string()))
}

/// `key-20260131`, and `key-20260131-2` where that is taken: sortable, and without a colon.
#[must_use]
pub fn fresh_name(taken: impl Fn(&str) -> bool) -> String {
    let day = jiff::Timestamp::now().strftime("%Y%m%d").to_string();
    let first = format!("key-{day}");
    let more = (2u32..).map(|n| format!("{first}-{n}"));
    std::iter::once(first.clone()).chain(more).find(|name| !taken(name)).unwrap_or_default()
}

/// Refuses stdout, where key material would end up in scroll-back and logs.
///
/// # Errors
/// Wrong usage, saying what to do.
pub fn check_target(out: Option<&Path>) -> Result<&Path, Failure> {
    match out {
        Some(path) if path != Path::new("-") => Ok(path),
        _ => Err(Failure::usage("key material is written to files only")
            .hint("give --out FILE; it is made with mode 0600")),
    }
}

/// Writes a new file with mode 0600, whole or not at all. A symlink at its place is replaced,
/// never followed.
///
/// # Errors
/// When it exists and `force` is not given, or cannot be written.
pub fn write(path: &Path, content: impl AsRef<[u8]>, force: bool) -> Result<(), Failure> {
    let shown = path.display();
    temporary::write(path, content.as_ref(), force).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(format!("{shown} exists already"))
            .hint("give another --out, or --force to replace it"),
        _ => Failure::new(format!("cannot write {shown}")).because(&e),
    })
}
