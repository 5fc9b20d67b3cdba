//! Judges relative to a configuration: from the prefix alone, or by decrypting.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::place::misplaced;
use super::{Judge, Judged, Prefixes, Reads, Status};
use crate::entry::EntryRef;
use crate::envelope::Provider;
use crate::resource::Location;
use crate::storage;
use crate::transform::{KeyUse, Transformers, Verdict};

/// Statuses from the prefix alone.
pub struct ByPrefix<'t>(pub &'t Transformers);

impl Judge for ByPrefix<'_> {
    fn judge<'a>(&self, resource: &str, entry: EntryRef<'a>) -> Judged<'a> {
        judged(&self.0.for_resource(resource).classify(entry.stored()), entry.stored())
    }
}

/// Statuses from decrypting every value; remembers which key read how many.
pub struct ByReading<'t> {
    transformers: &'t Transformers,
    reads: Mutex<BTreeMap<String, Reads>>,
}

impl<'t> ByReading<'t> {
    /// Decrypts with `transformers`.
    #[must_use]
    pub fn new(transformers: &'t Transformers) -> Self {
        Self { transformers, reads: Mutex::default() }
    }
}

impl ByReading<'_> {
    fn read<'a>(
        &self,
        resource: &str,
        entry: EntryRef<'a>,
        location: Option<&Location<'_>>,
    ) -> Judged<'a> {
        let value = entry.stored();
        let transformers = self.transformers.for_resource(resource);
        let mut judged = judged(&transformers.classify(value), value);
        match transformers.read(entry, value) {
            Ok(opened) => {
                judged.status = Some(opened.status());
                match storage::type_meta(opened.plaintext.expose()) {
                    Err(no_object) => {
                        judged.status = Some(Status::Unreadable);
                        judged.reason = Some(Cow::Owned(no_object.after(&how(&opened.used))));
                        return judged;
                    }
                    Ok(object) => {
                        let found = location.and_then(|l| misplaced(l, entry.key, &object));
                        judged.misplaced = found.map(Box::new);
                    }
                }
                judged.reason = opened.reason.map(Cow::Owned);
                let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
                let mut used = opened.used;
                used.kms_key_id = None;
                let name = format!("{:4} {used}", used.config);
                reads.entry(name).or_insert(Reads { used, entries: 0 }).entries += 1;
            }
            Err(e) => {
                judged.status = Some(Status::Unreadable);
                judged.reason = Some(Cow::Owned(e.to_string()));
            }
        }
        judged
    }
}

impl Judge for ByReading<'_> {
    fn judge<'a>(&self, resource: &str, entry: EntryRef<'a>) -> Judged<'a> {
        self.read(resource, entry, None)
    }

    fn judge_at<'a>(&self, location: &Location<'_>, entry: EntryRef<'a>) -> Judged<'a> {
        self.read(&location.resource, entry, Some(location))
    }

    fn reads(&self) -> Vec<Reads> {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = reads.values().cloned().collect();
        all.sort_by_key(|r| r.used.config);
        all
    }
}

/// What judges with what is at hand: by the prefix, where there is a configuration by its keys,
/// too, and by decrypting where `read` says so.
#[must_use]
pub fn judge_with<'t>(transformers: Option<&'t Transformers>, read: bool) -> Box<dyn Judge + 't> {
    match transformers {
        None => Box::new(Prefixes),
        Some(transformers) if read => Box::new(ByReading::new(transformers)),
        Some(transformers) => Box::new(ByPrefix(transformers)),
    }
}

/// How a value was read, for a sentence.
#[must_use]
pub fn how(used: &KeyUse) -> String {
    match used.provider {
        Provider::Identity => "stored unencrypted".to_owned(),
        _ => format!("decrypted with {used}"),
    }
}

/// A verdict, copied out of the transformers it borrows its names from.
fn judged<'a>(verdict: &Verdict<'_>, value: &'a [u8]) -> Judged<'a> {
    let known = verdict.key_name.as_deref();
    let mut judged = Judged::by_prefix(value, known);
    judged.status = Some(verdict.status);
    judged.reason = verdict.reason.as_ref().map(|r| Cow::Owned(r.clone().into_owned()));
    judged
}
