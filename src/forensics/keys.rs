//! Which keys are in use, which are configured, and which may leave the configuration.

use std::collections::BTreeMap;

use crate::config::{ConfigSet, EncryptionConfig};
use crate::envelope::{Provider, Version};
use crate::scan::Judged;

/// What tells keys apart. Secrets do not: a stored value names its key, it does not identify it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName {
    /// Provider.
    pub provider: Provider,
    /// Format version; none for identity and unknown prefixes.
    pub version: Option<Version>,
    /// Key or plugin name; none for identity.
    pub key: Option<String>,
    /// KMS v2: the plugin's own key, stored in clear.
    pub kms_key_id: Option<String>,
}

impl KeyName {
    /// The key that a value names.
    #[must_use]
    pub fn of(judged: &Judged<'_>) -> Self {
        Self {
            provider: judged.provider,
            version: judged.version,
            key: judged.key_name.as_deref().map(str::to_owned),
            kms_key_id: judged.kms_key_id.as_deref().map(str::to_owned),
        }
    }

    /// As a configuration knows it: without the plugin's own key.
    fn configured(&self) -> Self {
        Self { kms_key_id: None, ..self.clone() }
    }
}

/// How much a key is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    /// Live entries of the selected resources.
    entries: u64,
    /// Live encrypted entries of other resources.
    elsewhere: u64,
    /// Revisions that are held, the live ones included.
    held: u64,
}

/// One key and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The key.
    pub name: KeyName,
    /// In one of the configurations; `None` without any.
    pub configured: Option<bool>,
    /// Resources, as configured, that the API server writes with it.
    pub write_key_for: Vec<String>,
    /// Live entries.
    pub entries: u64,
    /// Superseded revisions; `None` where the source does not tell.
    pub history_entries: Option<u64>,
    /// It may leave the configuration.
    pub safe_to_remove: bool,
    /// Why, or why not.
    pub reason: String,
}

/// Counts uses of keys.
#[derive(Debug, Default)]
pub struct Census {
    uses: BTreeMap<KeyName, Use>,
}

impl Census {
    /// Counts a live entry; `selected` says whether its resource was asked for. Plaintext of
    /// other resources is not counted: no key reads it.
    pub fn live(&mut self, name: KeyName, selected: bool) {
        if selected {
            self.uses.entry(name).or_default().entries += 1;
        } else if name.provider != Provider::Identity {
            self.uses.entry(name).or_default().elsewhere += 1;
        }
    }

    /// Counts a revision that is held, live or not.
    pub fn held(&mut self, name: KeyName, selected: bool) {
        if selected || name.provider != Provider::Identity {
            self.uses.entry(name).or_default().held += 1;
        }
    }

    /// Every key found or configured, by provider, version, name and KMS key ID.
    ///
    /// `history` says whether [`Census::held`] was told of all revisions, `complete` whether
    /// everything could be read: else nothing is safe.
    #[must_use]
    pub fn rows(&self, configs: Option<&ConfigSet>, history: bool, complete: bool) -> Vec<KeyRow> {
        let mut known: BTreeMap<KeyName, Vec<String>> = BTreeMap::new();
        let mut twice: Vec<KeyName> = Vec::new();
        if let Some(set) = configs {
            for file in set.files() {
                for name in names(&file.config) {
                    known.entry(name).or_default();
                }
            }
            let current = &set.current().config;
            for resource in current.group_resources() {
                let serving = current.serving(&resource.to_string());
                if let Some(first) = serving.providers.first()
                    && let Some(writers) = provider_names(first.provider).next()
                {
                    known.entry(writers).or_default().push(resource.to_string());
                }
            }
            twice = ambiguous(current);
        }
        let mut uses = self.uses.clone();
        for name in known.keys() {
            // A plugin whose own keys were seen has rows already.
            if !uses.keys().any(|n| n.configured() == *name) {
                uses.insert(name.clone(), Use::default());
            }
        }
        // What is configured is a plugin, not its key: it is needed while any of them is.
        let mut of_provider: BTreeMap<KeyName, Use> = BTreeMap::new();
        for (name, one) in &uses {
            let sum = of_provider.entry(name.configured()).or_default();
            sum.entries += one.entries;
            sum.elsewhere += one.elsewhere;
        }
        let judge = |(name, used): (KeyName, Use)| {
            let plain = name.configured();
            let live = used.entries + used.elsewhere;
            let case = Case {
                used,
                superseded: history.then(|| used.held.saturating_sub(live)),
                configured: configs.map(|_| known.contains_key(&plain)),
                writes: known.get(&plain).cloned().unwrap_or_default(),
                provider: of_provider.get(&plain).copied().unwrap_or_default(),
                complete,
                twice: twice.contains(&plain),
                identity: plain.provider == Provider::Identity,
            };
            let (safe_to_remove, reason) = case.verdict();
            KeyRow {
                name,
                configured: case.configured,
                write_key_for: case.writes,
                entries: used.entries,
                history_entries: case.superseded,
                safe_to_remove,
                reason,
            }
        };
        uses.into_iter().map(judge).collect()
    }
}

struct Case {
    used: Use,
    superseded: Option<u64>,
    configured: Option<bool>,
    writes: Vec<String>,
    /// All keys of the same plugin together.
    provider: Use,
    complete: bool,
    /// Several configured keys bear the name.
    twice: bool,
    identity: bool,
}

impl Case {
    fn verdict(&self) -> (bool, String) {
        let mut reasons = Vec::new();
        if !self.writes.is_empty() {
            reasons.push(format!("it writes {}", self.writes.join(", ")));
        }
        let entries = |n: u64| if n == 1 { "1 entry".to_owned() } else { format!("{n} entries") };
        let needed = if self.configured == Some(false) && !self.identity {
            "not configured, but needed by"
        } else {
            "still needed by"
        };
        if self.used.entries > 0 {
            reasons.push(format!("{needed} {} at head", entries(self.used.entries)));
        }
        if self.used.elsewhere > 0 {
            reasons.push(format!(
                "{needed} {} at head of resources that were not asked for",
                entries(self.used.elsewhere)
            ));
        }
        let others = self.provider.entries + self.provider.elsewhere
            - self.used.entries
            - self.used.elsewhere;
        if others > 0 {
            reasons.push(format!(
                "its provider is {needed} {} at head with another key ID",
                entries(others)
            ));
        }
        if !reasons.is_empty() {
            if self.twice {
                reasons.push("several configured keys bear this name".to_owned());
            }
            return (false, reasons.join("; "));
        }
        if !self.complete {
            return (
                false,
                "no entry that could be read needs it, but parts of the source could not be read"
                    .to_owned(),
            );
        }
        let reason = match self.superseded {
            Some(0) => "needed by no entry".to_owned(),
            Some(n) => format!(
                "needed by {n} superseded revision{} only, which matters for restoring to an old revision",
                if n == 1 { "" } else { "s" }
            ),
            None => "needed by no entry at head; superseded revisions were not read".to_owned(),
        };
        (true, reason)
    }
}

fn names(config: &EncryptionConfig) -> impl Iterator<Item = KeyName> {
    config.providers().flat_map(|served| provider_names(served.provider))
}

fn provider_names(provider: &crate::config::Provider) -> impl Iterator<Item = KeyName> {
    let make = |key: Option<&str>| KeyName {
        provider: provider.provider(),
        version: provider.version(),
        key: key.map(str::to_owned),
        kms_key_id: None,
    };
    let mut names: Vec<_> = provider.names().map(|n| make(Some(n))).collect();
    if names.is_empty() {
        names.push(make(None));
    }
    names.into_iter()
}

/// Names that stand for several different static keys, so that a prefix does not tell which.
fn ambiguous(config: &EncryptionConfig) -> Vec<KeyName> {
    let mut found = Vec::new();
    let all: Vec<_> = config
        .providers()
        .flat_map(|s| s.provider.keys().iter().map(move |k| (s.provider.provider(), k)))
        .collect();
    for (i, (provider, key)) in all.iter().enumerate() {
        let other = |(p, k): &(Provider, &crate::config::Key)| {
            p == provider && k.name == key.name && !k.secret.same(&key.secret)
        };
        if all[i + 1..].iter().any(other) {
            found.push(KeyName {
                provider: *provider,
                version: Some(Version::V1),
                key: Some(key.name.clone()),
                kms_key_id: None,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    const CONFIG: &str = "\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox: {keys: [{name: new, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}
  - secretbox: {keys: [{name: old, secret: AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]}
  - kms: {apiVersion: v2, name: plugin, endpoint: 'unix:///p.sock'}
  - identity: {}
- resources: ['*.apps']
  providers:
  - identity: {}
";

    fn name(provider: Provider, key: Option<&str>, id: Option<&str>) -> KeyName {
        let version = match provider {
            Provider::Identity | Provider::Unknown => None,
            Provider::Kms => Some(Version::V2),
            _ => Some(Version::V1),
        };
        KeyName {
            provider,
            version,
            key: key.map(str::to_owned),
            kms_key_id: id.map(str::to_owned),
        }
    }

    fn rows(census: &Census) -> Vec<KeyRow> {
        let set = ConfigSet::new(load(CONFIG.as_bytes(), "c.yaml").unwrap()).unwrap();
        census.rows(Some(&set), true, true)
    }

    fn row(rows: &[KeyRow], key: Option<&str>) -> KeyRow {
        rows.iter().find(|r| r.name.key.as_deref() == key).unwrap().clone()
    }

    #[test]
    fn a_key_may_go_when_nothing_live_needs_it() {
        let mut census = Census::default();
        let old = || name(Provider::Secretbox, Some("old"), None);
        census.held(old(), true);
        let all = rows(&census);
        assert_eq!(all.len(), 4, "unused ones are listed: {all:?}");
        let row_of = row(&all, Some("old"));
        assert!(row_of.safe_to_remove && row_of.reason.contains("1 superseded revision only"));
        assert_eq!((row_of.entries, row_of.history_entries), (0, Some(1)));
        let write = row(&all, Some("new"));
        assert!(!write.safe_to_remove, "the write key");
        assert_eq!(write.write_key_for, ["secrets"]);
        let identity = row(&all, None);
        assert_eq!(
            (identity.write_key_for.as_slice(), identity.safe_to_remove),
            (&["*.apps".to_owned()][..], false)
        );
        assert!(row(&all, Some("plugin")).safe_to_remove);
        census.live(old(), true);
        assert!(!row(&rows(&census), Some("old")).safe_to_remove);
    }

    #[test]
    fn entries_that_were_not_asked_for_count_too() {
        let mut census = Census::default();
        census.live(name(Provider::Secretbox, Some("old"), None), false);
        census.live(name(Provider::Identity, None, None), false);
        let all = rows(&census);
        let old = row(&all, Some("old"));
        assert_eq!((old.entries, old.safe_to_remove), (0, false));
        assert_eq!(row(&all, None).entries, 0);
    }

    #[test]
    fn a_plugin_stays_while_one_of_its_keys_is_needed() {
        let mut census = Census::default();
        census.live(name(Provider::Kms, Some("plugin"), Some("2")), true);
        census.held(name(Provider::Kms, Some("plugin"), Some("1")), true);
        let all = rows(&census);
        let ids: Vec<_> = all
            .iter()
            .filter(|r| r.name.provider == Provider::Kms)
            .map(|r| (r.name.kms_key_id.as_deref().unwrap(), r.safe_to_remove))
            .collect();
        assert_eq!(ids, [("1", false), ("2", false)]);
    }

    #[test]
    fn nothing_is_safe_when_parts_could_not_be_read() {
        let set = ConfigSet::new(load(CONFIG.as_bytes(), "c.yaml").unwrap()).unwrap();
        let all = Census::default().rows(Some(&set), true, false);
        assert!(all.iter().all(|r| !r.safe_to_remove));
    }

    #[test]
    fn unconfigured_keys_are_listed() {
        let mut census = Census::default();
        census.live(name(Provider::AesCbc, Some("gone"), None), true);
        let gone = row(&rows(&census), Some("gone"));
        assert_eq!((gone.configured, gone.safe_to_remove), (Some(false), false));
        assert_eq!(gone.reason, "not configured, but needed by 1 entry at head");
        assert_eq!(census.rows(None, false, true)[0].configured, None);
        assert_eq!(census.rows(None, false, true)[0].history_entries, None);
    }
}
