//! What etcd shows of a rotation: what is stored under which key, and whether anything still needs
//! the one that goes.

use std::ops::ControlFlow;

use super::{Chain, Key};
use crate::envelope::Provider;
use crate::jobs::retire;
use crate::resource::{Scope, Selection, Selector};
use crate::scan::{ByPrefix, ByReading, Judge as _, Judged, Status};
use crate::source::{Source, SourceError, SourceKind, Visit};
use crate::transform::Transformers;

/// Entries that could not be read are named up to this many.
const NAMED: usize = 20;

/// How everything that the configuration serves is stored, by prefixes.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// The revision, and what could not be read.
    pub visit: Visit,
    /// Under the key that comes.
    pub new: u64,
    /// Under the key that goes.
    pub old: u64,
    /// Otherwise: another key, or unencrypted.
    pub other: u64,
    /// Not as the promoted configuration would write it: to be rewritten.
    pub stale: u64,
    /// Under a key that the configuration has not.
    pub unreadable: u64,
    /// Nobody can say whether it is to be rewritten.
    pub unknown: u64,
    /// The newest revision that was written under another key than the one that comes.
    pub written_otherwise: i64,
}

impl Stored {
    /// Everything is as the promoted configuration writes it, and everything was seen.
    #[must_use]
    pub fn is_migrated(&self) -> bool {
        self.stale + self.unreadable + self.unknown == 0 && self.visit.damage.is_empty()
    }

    /// How many entries there are.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.new + self.old + self.other
    }
}

/// Whether the key may go: everything decrypted without it.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Entries that were decrypted.
    pub read: u64,
    /// Entries that were not, or not as they should be.
    pub failed: u64,
    /// The first of them, each with the reason.
    pub named: Vec<(Vec<u8>, String)>,
    /// What is stored under the key, below the prefix, by resource.
    pub under_old: Vec<(String, u64)>,
    /// Superseded revisions under the key; none where the source does not tell.
    pub history: Option<u64>,
    /// The revision, and what could not be read.
    pub visit: Visit,
}

impl Verified {
    /// Nothing needs the key.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.failed == 0 && self.under_old.is_empty() && self.visit.damage.is_empty()
    }
}

/// What the promoted configuration serves, in every namespace.
fn served(scope: &Scope, chain: &Chain) -> Selection {
    let mut resources: Vec<Selector> = Vec::new();
    for group in chain.promoted.config.group_resources() {
        let selector = group.selector();
        if !resources.contains(&selector) {
            resources.push(selector);
        }
    }
    Selection { scope: scope.clone(), resources, namespaces: Vec::new() }
}

fn is(judged: &Judged<'_>, key: &Key) -> bool {
    judged.provider == key.provider
        && (key.provider == Provider::Identity || judged.key_name.as_deref() == key.name.as_deref())
}

/// Counts what is stored under which key. `transformers` are those of the promoted configuration.
///
/// # Errors
/// When the source cannot be read.
pub fn stored(
    source: &mut dyn Source,
    scope: &Scope,
    chain: &Chain,
    transformers: &Transformers,
) -> Result<Stored, SourceError> {
    let selection = served(scope, chain);
    let judge = ByPrefix(transformers);
    let mut stored = Stored::default();
    let visit = source.visit(&selection.query(None, false), &mut |entry| {
        let Some(location) = selection.locate(entry.key).filter(|l| !l.internal) else {
            return ControlFlow::Continue(());
        };
        let judged = judge.judge(&location.resource, entry);
        match () {
            () if is(&judged, &chain.new) => stored.new += 1,
            () if is(&judged, &chain.old) => stored.old += 1,
            () => stored.other += 1,
        }
        match judged.status {
            Some(Status::Current) => {}
            Some(Status::Stale) => stored.stale += 1,
            Some(Status::Unreadable) => stored.unreadable += 1,
            Some(Status::Unknown) | None => stored.unknown += 1,
        }
        if !is(&judged, &chain.new) {
            stored.written_otherwise = stored.written_otherwise.max(entry.mod_revision);
        }
        ControlFlow::Continue(())
    })?;
    stored.visit = visit;
    Ok(stored)
}

/// Decrypts everything that the configuration serves without the key that goes, and looks for what
/// is stored under it anywhere below the prefix. `transformers` are those of the retired
/// configuration.
///
/// # Errors
/// When the source cannot be read.
pub fn verify(
    source: &mut dyn Source,
    scope: &Scope,
    chain: &Chain,
    transformers: &Transformers,
) -> Result<Verified, SourceError> {
    let selection = served(scope, chain);
    let judge = ByReading::new(transformers);
    let mut verified = Verified::default();
    let mut visit = source.visit(&selection.query(None, false), &mut |entry| {
        let Some(location) = selection.locate(entry.key).filter(|l| !l.internal) else {
            return ControlFlow::Continue(());
        };
        let judged = judge.judge(&location.resource, entry);
        if judged.status == Some(Status::Current) {
            verified.read += 1;
            return ControlFlow::Continue(());
        }
        verified.failed += 1;
        if verified.named.len() < NAMED {
            let why = judged.why().unwrap_or("it is not current".into()).into_owned();
            verified.named.push((entry.key.to_vec(), why));
        }
        ControlFlow::Continue(())
    })?;
    let (old, rotated) = (&chain.promoted.config, &chain.retired);
    let options = retire::Options { scope: scope.clone(), old, rotated };
    let under = retire::run(source, &options)?;
    verified.under_old = under.entries.into_iter().collect();
    for damage in under.visit.damage {
        if !visit.damage.contains(&damage) {
            visit.damage.push(damage);
        }
    }
    let live: u64 = verified.under_old.iter().map(|(_, n)| n).sum();
    verified.history = match retire::revisions_under(source, &options) {
        Ok(held) => Some(held.saturating_sub(live)),
        // Who may not read all keys is not told the past.
        Err(_) if source.info().kind == SourceKind::Etcd => None,
        Err(e) => return Err(e),
    };
    verified.visit = visit;
    Ok(verified)
}
