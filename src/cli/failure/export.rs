//! Why files cannot be written.

use super::Failure;
use crate::export::ExportError;

/// In words, with what to do.
pub fn export_failure(e: &ExportError) -> Failure {
    let failure = Failure::new(e.to_string());
    match e {
        ExportError::Exists(_) => {
            failure.hint("choose an empty directory, or replace files with --force")
        }
        ExportError::NotADirectory(_) => failure.hint("choose a directory that is none"),
        ExportError::Io { source, .. } => failure.because(source),
    }
}
