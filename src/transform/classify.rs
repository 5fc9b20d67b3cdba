//! What a value's prefix says relative to the configurations, and the words for it.

use std::borrow::Cow;
use std::sync::Arc;

use super::engine::{Engine, STALE_NO_SEED};
use super::kms_v2::{Object, SourceType};
use super::list::{KeyPosition, List, ResourceTransformers, Status, Verdict};
use crate::envelope::{Envelope, Provider, Version};
use crate::kms::KmsError;
use crate::visible::shortened;

/// Characters of a stored name that a reason repeats. A damaged value may name anything.
const NAME_SHOWN: usize = 80;

pub(super) fn classify<'a>(all: &'a ResourceTransformers, value: &'a [u8]) -> Verdict<'a> {
    let envelope = Envelope::of(value);
    let mut verdict = Verdict {
        status: Status::Current,
        reason: None,
        provider: envelope.provider,
        version: envelope.version,
        key_name: None,
        kms_key_id: None,
    };
    let mut set = |status, reason| {
        verdict.status = status;
        verdict.reason = Some(reason);
    };
    if envelope.is_plaintext() {
        match find_plaintext(all) {
            Some(KeyPosition::WRITE) => {}
            Some(place) => set(Status::Stale, place_reason(all, place, &envelope)),
            None => set(Status::Unreadable, unreadable(all, &envelope)),
        }
        return verdict;
    }
    let Some((place, name_len)) = find(all, &envelope) else {
        set(Status::Unreadable, unreadable(all, &envelope));
        if let Some((name, payload)) = envelope.split([]) {
            verdict.key_name = Some(String::from_utf8_lossy(name));
            verdict.kms_key_id = envelope.kms_key_id(payload);
        }
        return verdict;
    };
    let (name, payload) = (&envelope.body[..name_len], &envelope.body[name_len + 1..]);
    verdict.key_name = Some(String::from_utf8_lossy(name));
    if (envelope.provider, envelope.version) == (Provider::Kms, Some(Version::V2)) {
        match Object::parse(payload) {
            Err(error) => {
                verdict.status = Status::Unreadable;
                verdict.reason = Some(Cow::Owned(error.to_string()));
                return verdict;
            }
            Ok(object) => {
                verdict.kms_key_id = Some(Cow::Borrowed(object.key_id));
                if place == KeyPosition::WRITE {
                    (verdict.status, verdict.reason) = if object.source_type == SourceType::HkdfSeed
                    {
                        key_id(object.key_id, all.current_key_id())
                    } else {
                        (Status::Stale, Some(Cow::Borrowed(STALE_NO_SEED)))
                    };
                    return verdict;
                }
            }
        }
    }
    if place != KeyPosition::WRITE {
        verdict.status = Status::Stale;
        verdict.reason = Some(place_reason(all, place, &envelope));
    }
    verdict
}

/// Where the first key stands that a prefix names, and the name's length. Of several names in
/// one configuration that fit (`a` and `a:b`), the longest.
fn find(all: &ResourceTransformers, envelope: &Envelope<'_>) -> Option<(KeyPosition, usize)> {
    for (index, list) in all.lists.iter().enumerate() {
        let mut best: Option<(KeyPosition, usize)> = None;
        for (position, prepared) in list.providers.iter().enumerate() {
            if prepared.provider != envelope.provider || prepared.version != envelope.version {
                continue;
            }
            for (i, key) in prepared.keys.iter().enumerate() {
                if key.strip(envelope.body).is_some()
                    && best.is_none_or(|(_, len)| key.name.len() > len)
                {
                    let place = KeyPosition { list: index, provider: position, key: i };
                    best = Some((place, key.name.len()));
                }
            }
        }
        if best.is_some() {
            return best;
        }
    }
    None
}

/// Where the first identity provider stands.
fn find_plaintext(all: &ResourceTransformers) -> Option<KeyPosition> {
    all.lists
        .iter()
        .enumerate()
        .find_map(|(list, l)| l.identity().map(|provider| KeyPosition { list, provider, key: 0 }))
}

/// What a KMS v2 value under the write provider is by its key ID, and why; `current` is what the
/// plugin says.
pub(super) fn key_id(
    key_id: &str,
    current: Option<Result<Arc<str>, KmsError>>,
) -> (Status, Option<Cow<'static, str>>) {
    let stored = shown(key_id.as_bytes());
    match current {
        Some(Ok(current)) if *current != *key_id => {
            let current = shown(current.as_bytes());
            let why =
                format!("KMS key ID `{stored}` is not the plugin's current one (`{current}`)");
            (Status::Stale, Some(Cow::Owned(why)))
        }
        Some(Err(error)) => {
            let why =
                format!("whether KMS key ID `{stored}` is the current one is not known: {error}");
            (Status::Unknown, Some(Cow::Owned(why)))
        }
        Some(Ok(_)) | None => (Status::Current, None),
    }
}

/// Why a value that is read from `place` is stale.
pub(super) fn place_reason<'a>(
    all: &'a ResourceTransformers,
    place: KeyPosition,
    envelope: &Envelope<'_>,
) -> Cow<'a, str> {
    let write = all.write_key();
    let Some(list) = all.lists.get(place.list) else {
        return Cow::Borrowed("not what the API server would write");
    };
    let key = list.providers.get(place.provider).and_then(|p| p.keys.get(place.key));
    let what = match key {
        None => "stored unencrypted".to_owned(),
        Some(key) if write.provider == Provider::Identity && place.list == 0 => {
            format!("encrypted with {}", envelope.provider.with_key(Some(&key.name)))
        }
        Some(key) if write.provider == envelope.provider => match envelope.provider {
            Provider::Kms => envelope.provider.with_key(Some(&key.name)).to_string(),
            _ => format!("key `{}`", key.name),
        },
        Some(key) => envelope.provider.with_key(Some(&key.name)).to_string(),
    };
    if place.list != 0 {
        return Cow::Owned(match key {
            None => format!("{what}, which only {} allows", list.location),
            Some(_) => format!("{what} is only in {}", list.location),
        });
    }
    let same_name = key.is_some_and(|k| {
        write.provider == envelope.provider && write.key.as_deref() == Some(&*k.name)
    });
    Cow::Owned(match (key, write.key.as_deref()) {
        (None, _) => format!("{what}, while {write} is what is written"),
        (Some(_), None) => format!("{what}, while the configuration writes unencrypted"),
        (Some(_), Some(_)) if same_name && envelope.version == write.version => {
            format!("{what} is not the write key, which has the same name")
        }
        (Some(_), Some(_)) if same_name => {
            format!("{what} is not the write key, which is of another version")
        }
        (Some(_), Some(name)) if write.provider == envelope.provider => {
            format!("{what} is not the write key (`{name}`)")
        }
        (Some(_), Some(_)) => format!("{what} is not the write key ({write})"),
    })
}

/// Why nothing configured matches a value.
pub(super) fn unreadable(all: &ResourceTransformers, envelope: &Envelope<'_>) -> Cow<'static, str> {
    let resource = all.resource();
    let provider = envelope.provider;
    match provider {
        Provider::Identity => {
            return Cow::Owned(format!(
                "stored unencrypted, and no identity provider is configured for {resource}"
            ));
        }
        Provider::Unknown => {
            return Cow::Borrowed("begins with `k8s:enc:` but names no known provider");
        }
        _ => {}
    }
    if all.lists.iter().all(|l| l.implied) {
        return Cow::Owned(format!("encrypted, and the configuration does not serve {resource}"));
    }
    let matches = |l: &List| {
        l.providers.iter().any(|p| {
            !matches!(p.engine, Engine::Identity)
                && p.provider == provider
                && p.version == envelope.version
        })
    };
    if !all.lists.iter().any(matches) {
        let version = envelope.version.map_or("", Version::as_str);
        return Cow::Owned(format!(
            "no {provider} {version} provider is configured for {resource}"
        ));
    }
    match envelope.split([]) {
        None => Cow::Borrowed("truncated: it names no key"),
        Some((name, _)) if provider == Provider::Kms => {
            Cow::Owned(format!("no configured KMS provider has the name `{}`", shown(name)))
        }
        Some((name, _)) => {
            Cow::Owned(format!("no configured {provider} provider has key `{}`", shown(name)))
        }
    }
}

/// A stored name, fit for a line of text.
pub(super) fn shown(name: &[u8]) -> String {
    shortened(&String::from_utf8_lossy(name), NAME_SHOWN)
}
