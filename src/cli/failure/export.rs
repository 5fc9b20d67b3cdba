//! Why files cannot be written.

use super::Failure;
use crate::export::ExportError;
use crate::jobs::residue;

impl From<ExportError> for Failure {
    fn from(e: ExportError) -> Self {
        let failure = Self::new(e.to_string());
        match e {
            ExportError::Exists(_) => {
                failure.hint("choose an empty directory, or replace files with --force")
            }
            ExportError::NotADirectory(_) => failure.hint("choose a directory that is none"),
            ExportError::Io { source, .. } => failure.because(&source),
        }
    }
}

impl From<residue::Error> for Failure {
    fn from(e: residue::Error) -> Self {
        match e {
            residue::Error::Source(e) => e.into(),
            residue::Error::Write(e) => e.into(),
            residue::Error::Database(_) => Self::new(e.to_string()).because(&e),
        }
    }
}
