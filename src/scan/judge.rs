//! What a stored value is, and what it is relative to a configuration.

use std::borrow::Cow;

use super::place::Misplaced;
use crate::entry::EntryRef;
use crate::envelope::{Envelope, Provider, StoredUnder, Version};
use crate::resource::Location;
use crate::transform::KeyUse;
pub use crate::transform::Status;
use crate::visible::visible;

/// How one entry is stored and what that means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged<'a> {
    /// Provider by the value's prefix.
    pub provider: Provider,
    /// Format version by the value's prefix.
    pub version: Option<Version>,
    /// Key or KMS plugin name.
    pub key_name: Option<Cow<'a, str>>,
    /// KMS v2 key ID, stored in clear.
    pub kms_key_id: Option<Cow<'a, str>>,
    /// `None` without a configuration.
    pub status: Option<Status>,
    /// Why it is stale, unreadable or unknown.
    pub reason: Option<Cow<'a, str>>,
    /// The object inside, where it is another one than the key says. Only reading can tell.
    pub misplaced: Option<Box<Misplaced>>,
}

impl<'a> Judged<'a> {
    /// What the prefix alone says; `known` are configured key names for this provider.
    #[must_use]
    pub fn by_prefix<'n>(value: &'a [u8], known: impl IntoIterator<Item = &'n str>) -> Self {
        let envelope = Envelope::of(value);
        let split = envelope.split(known);
        Self {
            provider: envelope.provider,
            version: envelope.version,
            key_name: split.map(|(name, _)| String::from_utf8_lossy(name)),
            kms_key_id: split.and_then(|(_, payload)| envelope.kms_key_id(payload)),
            status: None,
            reason: None,
            misplaced: None,
        }
    }

    /// Copies borrowed parts.
    #[must_use]
    pub fn into_owned(self) -> Judged<'static> {
        let own = |c: Cow<'a, str>| Cow::Owned(c.into_owned());
        Judged {
            provider: self.provider,
            version: self.version,
            key_name: self.key_name.map(own),
            kms_key_id: self.kms_key_id.map(own),
            status: self.status,
            reason: self.reason.map(own),
            misplaced: self.misplaced,
        }
    }

    /// How it is stored, for people: `secretbox v1 key secret-key-1, stale`.
    #[must_use]
    pub fn stored_as(&self) -> String {
        let status = self.status.map_or_else(String::new, |s| format!(", {}", s.as_str()));
        if self.provider == Provider::Identity {
            return format!("stored unencrypted{status}");
        }
        let (key, id) =
            (self.key_name.as_deref().map(visible), self.kms_key_id.as_deref().map(visible));
        let under = StoredUnder {
            provider: self.provider,
            version: self.version,
            key: key.as_deref(),
            kms_key_id: id.as_deref(),
        };
        format!("encrypted by {under}{status}")
    }

    /// Why it is not simply current: where it belongs if it is misplaced, then what its status
    /// comes from.
    #[must_use]
    pub fn why(&self) -> Option<Cow<'_, str>> {
        match (&self.misplaced, &self.reason) {
            (None, reason) => reason.as_deref().map(Cow::Borrowed),
            (Some(misplaced), None) => Some(Cow::Owned(misplaced.to_string())),
            (Some(misplaced), Some(reason)) => Some(Cow::Owned(format!("{misplaced}; {reason}"))),
        }
    }
}

/// How many entries a key read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reads {
    /// The key.
    pub used: KeyUse,
    /// Entries.
    pub entries: u64,
}

/// Decides what a stored value is.
pub trait Judge: Sync {
    /// Judges one entry of `resource` (group-qualified).
    fn judge<'a>(&self, resource: &str, entry: EntryRef<'a>) -> Judged<'a>;

    /// As [`Judge::judge`], of an entry whose place is known: who reads values also sees whether
    /// they belong there.
    fn judge_at<'a>(&self, location: &Location<'_>, entry: EntryRef<'a>) -> Judged<'a> {
        self.judge(&location.resource, entry)
    }

    /// Which key read how many entries so far, by configuration, provider and key; of who reads
    /// none, nothing.
    fn reads(&self) -> Vec<Reads> {
        Vec::new()
    }
}

/// Judges by the prefix alone, without a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Prefixes;

impl Judge for Prefixes {
    fn judge<'a>(&self, _resource: &str, entry: EntryRef<'a>) -> Judged<'a> {
        Judged::by_prefix(entry.stored(), [])
    }
}
