//! What the program can do, one file a job: `Options` → `run(…, &Options, &mut dyn Observer)` →
//! `Outcome`.
//!
//! A job knows nothing of flags, terminals or hints: it is handed what is open, tells an
//! [`Observer`] what happens meanwhile, and returns what it found. `report` writes an outcome
//! down; `cli` alone turns arguments into options and errors into words.

#[cfg(feature = "cli")]
pub mod backups;
#[cfg(feature = "live")]
pub mod confirm;
pub mod diff;
pub mod doctor;
pub mod encode;
pub mod export;
#[cfg(feature = "cli")]
pub mod exporter;
#[cfg(feature = "live")]
mod follow;
pub mod get;
#[cfg(feature = "cli")]
pub mod here;
pub mod history;
pub mod holdings;
pub mod keys;
pub mod kms;
pub mod lost;
#[cfg(feature = "live")]
mod members;
#[cfg(feature = "live")]
pub mod migrate;
#[cfg(feature = "cli")]
pub mod posture;
pub mod residue;
pub mod restore;
pub mod retire;
pub mod rewrite;
#[cfg(feature = "live")]
pub mod rotation;
pub mod scan;
#[cfg(feature = "live")]
pub mod scrub;
mod select;
#[cfg(feature = "cli")]
pub mod unreadable;
#[cfg(feature = "live")]
pub mod watch;

/// Is told what a job meets while it runs.
pub trait Observer {
    /// A remark: the result is whole without it.
    fn note(&mut self, text: &str);

    /// Something that must be known although the job goes on.
    fn warning(&mut self, text: &str);

    /// A part of the job begins: it counts `unit` (a plural: `entries`, `revisions`). `total` says
    /// how many of them, if that can be known: it may cost a request, and is asked only where
    /// somebody sees it.
    fn begin(&mut self, unit: &str, total: &mut dyn FnMut() -> Option<u64>) {
        let _ = (unit, total);
    }

    /// So many more of what [`Observer::begin`] named are done.
    fn advance(&mut self, n: u64) {
        let _ = n;
    }

    /// The part that was begun is over.
    fn end(&mut self) {}
}

/// Hears nothing: for callers that only want the outcome.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn note(&mut self, _text: &str) {}
    fn warning(&mut self, _text: &str) {}
}
