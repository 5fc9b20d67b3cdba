//! The next file of a key rotation: add a key last, promote it to first, retire the old one.
//!
//! Each step is safe by itself: after `add` every API server can read the new key although none
//! writes with it; after `promote` all write with it and still read the old one; `retire` comes
//! when nothing is stored under the old one.
//!
//! The step is applied twice, to the model and to the user's text, and the text is only handed
//! out if it parses to that model: comments, order and formatting stay as they were, and a layout
//! that cannot be edited safely is refused instead of being rewritten.

mod edit;

use zeroize::Zeroizing;

use self::edit::{Edit, edit};
use super::finding::{ConfigErrors, shown};
use super::model::{EncryptionConfig, GroupResource, Key, ProviderConfiguration};
use crate::envelope;
use crate::secret::KeyMaterial;

/// A step of the rotation.
pub enum Step {
    /// A new key becomes the last one of the write provider, or of `provider`.
    Add {
        /// Another provider than the one that writes now.
        provider: Option<envelope::Provider>,
        /// The key's name.
        name: String,
        /// Its bytes.
        secret: KeyMaterial,
    },
    /// A key becomes the first one of the first provider.
    Promote(Which),
    /// A key goes.
    Retire(Which),
}

/// Which key is meant; what is not given is found out where that is unambiguous.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// Its provider.
    pub provider: Option<envelope::Provider>,
    /// The name of the key or of the KMS provider.
    pub name: Option<String>,
}

/// The next file.
#[derive(Clone)]
pub struct Rotated {
    /// Its text; holds keys.
    pub text: Zeroizing<String>,
    /// What it says.
    pub config: EncryptionConfig,
    /// The provider of the key that was added, promoted or retired.
    pub provider: envelope::Provider,
    /// The name of that key or KMS provider; none for identity.
    pub name: Option<String>,
    /// The provider and key that wrote before, where a key was promoted.
    pub previous: Option<(envelope::Provider, Option<String>)>,
    /// Indices of the entries of `resources[]` that changed.
    pub entries: Vec<usize>,
}

/// Why there is no next file.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RotateError {
    /// The file is wrong already.
    #[error("the configuration is not valid")]
    Invalid(#[from] ConfigErrors),
    /// No entry is concerned.
    #[error("{0}")]
    Nothing(String),
    /// A choice has to be made by the user.
    #[error(transparent)]
    Ambiguous(Unclear),
    /// The name is in use.
    #[error("there is a key {0} already")]
    Taken(String),
    /// It writes.
    #[error("{0} is what the API server writes with: promote its successor first")]
    Writes(String),
    /// It is where it should be.
    #[error("{0} is first already")]
    AlreadyFirst(String),
    /// The text cannot be edited.
    #[error("{0}")]
    Layout(String),
}

/// Why there is more than one next file, or none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unclear {
    /// What is not clear.
    pub why: String,
    /// What is to be chosen.
    pub missing: Choice,
}

impl Unclear {
    fn error(why: impl Into<String>, missing: Choice) -> RotateError {
        RotateError::Ambiguous(Self { why: why.into(), missing })
    }
}

/// What only the user can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The provider.
    Provider,
    /// The key, by its name.
    Key,
}

/// Where something stands in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Locus {
    entry: usize,
    element: usize,
    /// None for identity and KMS.
    key: Option<usize>,
}

/// Makes the next file. `resources` restricts the step to the entries that list them; empty is
/// every entry that is concerned.
///
/// # Errors
/// See [`RotateError`].
pub fn rotate(text: &str, step: &Step, resources: &[String]) -> Result<Rotated, RotateError> {
    let config = super::parse(text.as_bytes())?.config;
    let scope = scope(&config, resources)?;
    let plan = match step {
        Step::Add { provider, name, secret } => {
            add(&config, scope.as_deref(), *provider, name, secret)?
        }
        Step::Promote(which) => promote(&config, scope.as_deref(), which)?,
        Step::Retire(which) => retire(&config, scope.as_deref(), which)?,
    };
    let text = edit(text, &plan.edits).map_err(RotateError::Layout)?;
    let unsafe_layout = || {
        RotateError::Layout(
            "this file's layout cannot be edited safely (anchors, aliases or an unusual style): write the lists in block style".to_owned(),
        )
    };
    let parsed = super::parse(text.as_bytes()).map_err(|_| unsafe_layout())?.config;
    if !parsed.same(&plan.expected) {
        return Err(unsafe_layout());
    }
    let mut entries: Vec<usize> = plan.edits.iter().map(Edit::entry).collect();
    entries.dedup();
    Ok(Rotated {
        text,
        config: parsed,
        provider: plan.provider,
        name: plan.name,
        previous: plan.previous,
        entries,
    })
}

struct Plan {
    edits: Vec<Edit>,
    expected: EncryptionConfig,
    provider: envelope::Provider,
    name: Option<String>,
    previous: Option<(envelope::Provider, Option<String>)>,
}

/// The entries that `resources` names; `None` is all.
fn scope(
    config: &EncryptionConfig,
    resources: &[String],
) -> Result<Option<Vec<usize>>, RotateError> {
    if resources.is_empty() {
        return Ok(None);
    }
    let mut entries = Vec::new();
    for resource in resources {
        let wanted = GroupResource::parse(resource);
        let before = entries.len();
        for (i, entry) in config.entries.iter().enumerate() {
            if entry.resources.iter().any(|r| GroupResource::parse(r) == wanted) {
                entries.push(i);
            }
        }
        if entries.len() == before {
            return Err(RotateError::Nothing(format!("{} is in no entry", shown(resource))));
        }
    }
    entries.sort_unstable();
    entries.dedup();
    Ok(Some(entries))
}

/// Whether the entry's first provider writes at least one resource, which is not so when all its
/// resources are in earlier entries, too.
fn writes(config: &EncryptionConfig, entry: usize) -> bool {
    config.entries[entry].resources.iter().any(|r| {
        let gr = GroupResource::parse(r).to_string();
        config.serving(&gr).providers.first().is_some_and(|s| s.entry == entry)
    })
}

fn is_static(provider: &ProviderConfiguration) -> bool {
    !provider.keys().is_empty()
}

fn words(provider: envelope::Provider, name: Option<&str>) -> String {
    provider.with_shown_key(name.map(shown)).to_string()
}

fn add(
    config: &EncryptionConfig,
    scope: Option<&[usize]>,
    provider: Option<envelope::Provider>,
    name: &str,
    secret: &KeyMaterial,
) -> Result<Plan, RotateError> {
    let all: Vec<usize> = match scope {
        Some(entries) => entries.to_vec(),
        None => (0..config.entries.len()).filter(|e| writes(config, *e)).collect(),
    };
    let fixed: Vec<usize> =
        all.iter().copied().filter(|e| is_static(&config.entries[*e].providers[0])).collect();
    // Without `--resource`, entries that deliberately write otherwise are left alone.
    let entries = if scope.is_none() && !fixed.is_empty() { fixed } else { all };
    let mut plan = Plan {
        edits: Vec::new(),
        expected: config.clone(),
        provider: envelope::Provider::Identity,
        name: Some(name.to_owned()),
        previous: None,
    };
    for entry in entries {
        let first = &config.entries[entry].providers[0];
        let kind = match provider {
            Some(kind) => kind,
            None if is_static(first) => first.provider(),
            None => {
                let why = match first {
                    ProviderConfiguration::Kms(_) => "a KMS plugin rotates its keys itself",
                    _ => "identity comes first, which has no keys",
                };
                return Err(Unclear::error(why, Choice::Provider));
            }
        };
        let taken = config
            .providers()
            .any(|s| s.provider.provider() == kind && s.provider.names().any(|n| n == name));
        if taken {
            return Err(RotateError::Taken(shown(name)));
        }
        plan.provider = kind;
        let key = Key { name: name.to_owned(), secret: secret.clone() };
        let target = &mut plan.expected.entries[entry].providers;
        let element = target.iter().position(|p| p.provider() == kind);
        if let Some(element) = element {
            if let Some(keys) = target[element].keys_mut() {
                keys.push(key.clone());
            }
            plan.edits.push(Edit::AddKey { entry, element, key });
        } else {
            // Before a closing identity, where people expect it; it reads nothing encrypted, so
            // the order makes no difference.
            let last = target.len() - 1;
            let before = (last > 0 && matches!(target[last], ProviderConfiguration::Identity))
                .then_some(last);
            let new = match kind {
                envelope::Provider::AesCbc => ProviderConfiguration::AesCbc(vec![key.clone()]),
                envelope::Provider::AesGcm => ProviderConfiguration::AesGcm(vec![key.clone()]),
                envelope::Provider::Secretbox => {
                    ProviderConfiguration::Secretbox(vec![key.clone()])
                }
                _ => {
                    let why = format!(
                        "a key can be added to secretbox, aescbc and aesgcm, not to {kind}"
                    );
                    return Err(Unclear::error(why, Choice::Provider));
                }
            };
            target.insert(before.unwrap_or(target.len()), new);
            plan.edits.push(Edit::AddProvider { entry, before, provider: kind, key });
        }
    }
    if plan.edits.is_empty() {
        return Err(RotateError::Nothing("no entry writes with a static key".to_owned()));
    }
    Ok(plan)
}

/// Every place of the key in the scope.
fn find(
    config: &EncryptionConfig,
    scope: Option<&[usize]>,
    provider: envelope::Provider,
    name: Option<&str>,
) -> Vec<Locus> {
    let mut found = Vec::new();
    for served in config.providers() {
        let (entry, element) = (served.entry, served.element);
        let outside = scope.is_some_and(|s| !s.contains(&entry));
        if outside || served.provider.provider() != provider {
            continue;
        }
        match served.provider {
            ProviderConfiguration::Identity => found.push(Locus { entry, element, key: None }),
            ProviderConfiguration::Kms(kms) if Some(kms.name.as_str()) == name => {
                found.push(Locus { entry, element, key: None });
            }
            other => {
                let hits =
                    other.keys().iter().enumerate().filter(|(_, k)| Some(k.name.as_str()) == name);
                found.extend(hits.map(|(k, _)| Locus { entry, element, key: Some(k) }));
            }
        }
    }
    found
}

/// Resolves what the user said to one provider and name.
fn resolve(
    config: &EncryptionConfig,
    scope: Option<&[usize]>,
    which: &Which,
    guess: fn(&EncryptionConfig, usize) -> Option<(envelope::Provider, String)>,
) -> Result<(envelope::Provider, Option<String>), RotateError> {
    if which.provider == Some(envelope::Provider::Identity) {
        return Ok((envelope::Provider::Identity, None));
    }
    let Some(name) = &which.name else {
        let entries: Vec<usize> = match scope {
            Some(entries) => entries.to_vec(),
            None => (0..config.entries.len()).filter(|e| writes(config, *e)).collect(),
        };
        let mut guesses: Vec<_> = entries.iter().filter_map(|e| guess(config, *e)).collect();
        guesses.retain(|(p, _)| which.provider.is_none_or(|wanted| wanted == *p));
        guesses.sort();
        guesses.dedup();
        return match guesses.pop() {
            Some((provider, name)) if guesses.is_empty() => Ok((provider, Some(name))),
            _ => Err(Unclear::error("it is not clear which key is meant", Choice::Key)),
        };
    };
    let mut providers: Vec<_> = config
        .providers()
        .filter(|s| scope.is_none_or(|entries| entries.contains(&s.entry)))
        .filter(|s| which.provider.is_none_or(|wanted| wanted == s.provider.provider()))
        .filter(|s| s.provider.names().any(|n| n == name))
        .map(|s| s.provider.provider())
        .collect();
    providers.sort();
    providers.dedup();
    match providers.as_slice() {
        [one] => Ok((*one, Some(name.clone()))),
        [] => Err(RotateError::Nothing(format!("there is no key {}", shown(name)))),
        _ => {
            let why = format!("several providers have a key {}", shown(name));
            Err(Unclear::error(why, Choice::Provider))
        }
    }
}

/// The key that `add` put last.
fn newest(config: &EncryptionConfig, entry: usize) -> Option<(envelope::Provider, String)> {
    let providers = &config.entries[entry].providers;
    let first = &providers[0];
    if let [_, .., last] = first.keys() {
        return Some((first.provider(), last.name.clone()));
    }
    // `add --provider` made an element of its own: the only other key, if so.
    let mut others =
        providers[1..].iter().flat_map(|p| p.keys().iter().map(|k| (p.provider(), k.name.clone())));
    others.next().filter(|_| others.next().is_none())
}

/// The only key of the write provider that does not write.
fn oldest(config: &EncryptionConfig, entry: usize) -> Option<(envelope::Provider, String)> {
    let first = &config.entries[entry].providers[0];
    match first.keys() {
        [_, old] => Some((first.provider(), old.name.clone())),
        _ => None,
    }
}

fn writer(config: &EncryptionConfig, entry: usize) -> (envelope::Provider, Option<String>) {
    let first = &config.entries[entry].providers[0];
    let name = first.names().next().map(str::to_owned);
    (first.provider(), name)
}

fn promote(
    config: &EncryptionConfig,
    scope: Option<&[usize]>,
    which: &Which,
) -> Result<Plan, RotateError> {
    let (provider, name) = resolve(config, scope, which, newest)?;
    let mut places = find(config, scope, provider, name.as_deref());
    // The first place in each entry counts.
    places.dedup_by_key(|l| l.entry);
    // Without `--resource`, entries that deliberately write unencrypted are left alone.
    let encrypting = |l: &Locus| {
        !matches!(config.entries[l.entry].providers[0], ProviderConfiguration::Identity)
    };
    if scope.is_none() && provider != envelope::Provider::Identity && places.iter().any(encrypting)
    {
        places.retain(encrypting);
    }
    if places.is_empty() {
        let what = words(provider, name.as_deref());
        return Err(RotateError::Nothing(format!("{what} is in no entry")));
    }
    places.retain(|l| l.element != 0 || l.key.unwrap_or(0) != 0);
    let Some(first) = places.first() else {
        return Err(RotateError::AlreadyFirst(words(provider, name.as_deref())));
    };
    let mut plan = Plan {
        edits: Vec::new(),
        expected: config.clone(),
        previous: Some(writer(config, first.entry)),
        provider,
        name,
    };
    for Locus { entry, element, key } in places {
        let providers = &mut plan.expected.entries[entry].providers;
        if let Some(key) = key.filter(|k| *k > 0) {
            if let Some(keys) = providers[element].keys_mut() {
                let promoted = keys.remove(key);
                keys.insert(0, promoted);
            }
            plan.edits.push(Edit::FirstKey { entry, element, key });
        }
        if element > 0 {
            let promoted = providers.remove(element);
            providers.insert(0, promoted);
            plan.edits.push(Edit::FirstProvider { entry, element });
        }
    }
    Ok(plan)
}

fn retire(
    config: &EncryptionConfig,
    scope: Option<&[usize]>,
    which: &Which,
) -> Result<Plan, RotateError> {
    let (provider, name) = resolve(config, scope, which, oldest)?;
    let mut places = find(config, scope, provider, name.as_deref());
    let what = words(provider, name.as_deref());
    if places.is_empty() {
        return Err(RotateError::Nothing(format!("{what} is in no entry")));
    }
    let writes_with = |l: &Locus| l.element == 0 && l.key.unwrap_or(0) == 0;
    if places.iter().any(writes_with) {
        return Err(RotateError::Writes(what));
    }
    // From the back, so that earlier indices stay true.
    places.reverse();
    let mut plan =
        Plan { edits: Vec::new(), expected: config.clone(), provider, name, previous: None };
    for Locus { entry, element, key } in places {
        let providers = &mut plan.expected.entries[entry].providers;
        match (key, providers[element].keys_mut()) {
            (Some(key), Some(keys)) if keys.len() > 1 => {
                keys.remove(key);
                plan.edits.push(Edit::RemoveKey { entry, element, key });
            }
            _ => {
                providers.remove(element);
                plan.edits.push(Edit::RemoveProvider { entry, element });
            }
        }
    }
    Ok(plan)
}

#[cfg(test)]
mod tests;
