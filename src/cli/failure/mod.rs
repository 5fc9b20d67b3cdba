//! The one place where errors become words, hints and exit codes; a file for each family of
//! errors.

mod datastore;
mod encode;
mod etcd;
mod export;
mod file;
pub mod profile;
#[cfg(feature = "remote")]
mod remote;

pub use etcd::grant_to_write;

use std::error::Error;
use std::process::ExitCode;

use crate::chain;
use crate::source::SourceError;

/// Exit codes are documented interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: all well.
    Ok,
    /// 1: the job could not be done, or `kms check` found a plugin that cannot be used.
    Failed,
    /// 1: `diff` found a difference.
    Different,
    /// 2: wrong usage.
    Usage,
    /// 3: `--fail-on` matched, or `config check` found an error.
    Found,
    /// 4: done, but some entries could not be read or decoded.
    Partial,
    /// 130: interrupted.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed | Self::Different => 1,
            Self::Usage => 2,
            Self::Found => 3,
            Self::Partial => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why the job could not be done, in words for a person.
#[derive(Debug)]
pub struct Failure {
    /// One line.
    pub message: String,
    /// What led to it, outermost first, one line each.
    pub causes: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The exit code.
    pub exit: Exit,
}

impl Failure {
    /// The job could not be done (exit 1).
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), hint: None, exit: Exit::Failed }
    }

    /// Wrong usage (exit 2).
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message) }
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds an error and its whole source chain as causes, but for what the message or an earlier
    /// cause says already.
    #[must_use]
    pub fn because(mut self, error: &dyn Error) -> Self {
        self.causes.insert(0, self.message.clone());
        chain::add(&mut self.causes, error);
        self.causes.remove(0);
        self
    }
}

/// What to do about a source that cannot be read.
#[must_use]
pub fn hint(e: &SourceError) -> Option<String> {
    match e {
        SourceError::File(e) => file::file(e),
        SourceError::DataDir(e) => Some(file::data_dir(e)),
        SourceError::Kine(e) => file::kine(e).map(str::to_owned),
        SourceError::Datastore(e) => datastore::datastore(e),
        SourceError::Revision(e) => Some(file::revision(e)),
        SourceError::NoHistory(_) => Some(file::NO_HISTORY.to_owned()),
        SourceError::Etcd(e) => etcd::etcd(e),
    }
}

impl From<SourceError> for Failure {
    fn from(e: SourceError) -> Self {
        let words = match &e {
            SourceError::Etcd(e) => etcd::words(e).map(str::to_owned),
            _ => None,
        };
        let mut failure = Self::new(words.unwrap_or_else(|| e.to_string()));
        if let Some(cause) = e.source() {
            failure = failure.because(cause);
        }
        failure.hint = hint(&e);
        failure
    }
}
