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
    #[must_use]
    pub fn configured(&self) -> Self {
        Self { kms_key_id: None, ..self.clone() }
    }
}

/// How much a key is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    /// Live entries that were asked for.
    entries: u64,
    /// Live entries that were not, and need the key all the same.
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
    /// It may leave the configuration. Of a plugin's key ID: its provider may.
    pub safe_to_remove: bool,
    /// Whether a live entry or a coming write needs the plugin's own key; `None` where the row is
    /// about no key ID, or where that is not known.
    pub key_id_needed: Option<bool>,
    /// Why, or why not.
    pub reason: String,
}

/// What the plugins that write say of the key they write with, by the provider's name: its key
/// ID, or why that is not known. KMS v2 only.
pub type PluginKeys = BTreeMap<String, Result<String, String>>;

/// Counts uses of keys.
#[derive(Debug, Default)]
pub struct KeyUses {
    uses: BTreeMap<KeyName, Use>,
}

impl KeyUses {
    /// Counts a live entry; `selected` says whether it was asked for, which changes where it is
    /// shown, not what it means for its key.
    pub fn live(&mut self, name: KeyName, selected: bool) {
        let used = self.uses.entry(name).or_default();
        if selected {
            used.entries += 1;
        } else {
            used.elsewhere += 1;
        }
    }

    /// Counts a revision that is held, live or not.
    pub fn stored(&mut self, name: KeyName) {
        self.uses.entry(name).or_default().held += 1;
    }

    /// Every key found or configured, by provider, version, name and KMS key ID.
    ///
    /// `plugins` says what the plugins that write write with, `history` whether [`KeyUses::stored`]
    /// was told of all revisions, `complete` whether everything could be read: else nothing is
    /// safe.
    #[must_use]
    pub fn rows(
        &self,
        configs: Option<&ConfigSet>,
        plugins: &PluginKeys,
        history: bool,
        complete: bool,
    ) -> Vec<KeyRow> {
        let known = configs.map(known).unwrap_or_default();
        let twice = configs.map(|set| ambiguous(&set.current().config)).unwrap_or_default();
        let mut uses = self.uses.clone();
        for (name, writes) in &known {
            let key_id = plugin_key(name, writes, plugins).and_then(Result::ok);
            // A plugin whose own keys were seen has rows already; the key that it writes with
            // and one that it does not tell have rows in any case.
            let untold = key_id.is_none() && plugin_key(name, writes, plugins).is_some();
            if key_id.is_some() || untold || !uses.keys().any(|n| n.configured() == *name) {
                let named = KeyName { kms_key_id: key_id.map(str::to_owned), ..name.clone() };
                uses.entry(named).or_default();
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
            let of_plugin = known.get(&plain).cloned().unwrap_or_default();
            let current = plugin_key(&plain, &of_plugin, plugins);
            let writes = match (current, name.kms_key_id.as_deref()) {
                (Some(Ok(now)), id) if id != Some(now) => Vec::new(),
                (Some(Err(_)), Some(_)) => Vec::new(),
                _ => of_plugin.clone(),
            };
            let case = Case {
                used,
                superseded: history.then(|| used.held.saturating_sub(live)),
                configured: configs.map(|_| known.contains_key(&plain)),
                plugin_writes: writes.is_empty() && !of_plugin.is_empty(),
                writes,
                current,
                key_id: name.kms_key_id.as_deref(),
                provider: of_provider.get(&plain).copied().unwrap_or_default(),
                complete,
                twice: twice.contains(&plain),
                identity: plain.provider == Provider::Identity,
            };
            let (safe_to_remove, reason) = case.verdict();
            KeyRow {
                configured: case.configured,
                entries: used.entries,
                history_entries: case.superseded,
                key_id_needed: case.key_id_needed(),
                write_key_for: case.writes,
                safe_to_remove,
                reason,
                name,
            }
        };
        uses.into_iter().map(judge).collect()
    }
}

/// Every configured key, and the resources that it writes by the current configuration.
fn known(set: &ConfigSet) -> BTreeMap<KeyName, Vec<String>> {
    let mut known: BTreeMap<KeyName, Vec<String>> = BTreeMap::new();
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
    known
}

/// The key ID that a KMS v2 provider writes with, or why it is not known; `None` for one that
/// writes nothing and for everything else.
fn plugin_key<'p>(
    name: &KeyName,
    writes: &[String],
    plugins: &'p PluginKeys,
) -> Option<Result<&'p str, &'p str>> {
    let v2 = (name.provider, name.version) == (Provider::Kms, Some(Version::V2));
    let said = plugins.get(name.key.as_deref()?).filter(|_| v2 && !writes.is_empty())?;
    Some(said.as_deref().map_err(String::as_str))
}

#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
struct Case<'a> {
    used: Use,
    superseded: Option<u64>,
    configured: Option<bool>,
    writes: Vec<String>,
    /// Its plugin writes, but not with this key ID, as far as is known.
    plugin_writes: bool,
    current: Option<Result<&'a str, &'a str>>,
    key_id: Option<&'a str>,
    /// All keys of the same plugin together.
    provider: Use,
    complete: bool,
    /// Several configured keys bear the name.
    twice: bool,
    identity: bool,
}

impl Case<'_> {
    /// Live entries that need it.
    fn live(&self) -> u64 {
        self.used.entries + self.used.elsewhere
    }

    fn key_id_needed(&self) -> Option<bool> {
        self.key_id?;
        if self.live() > 0 || !self.writes.is_empty() {
            return Some(true);
        }
        // What the plugin does not say, or nobody could read, may need it.
        let known = self.complete && !matches!(self.current, Some(Err(_)));
        known.then_some(false)
    }

    fn verdict(&self) -> (bool, String) {
        let mut reasons = Vec::new();
        if !self.writes.is_empty() {
            let mut text = format!("it writes {}", self.writes.join(", "));
            if let (None, Some(Err(why))) = (self.key_id, self.current) {
                text.push_str(" under a key ID that is not known: ");
                text.push_str(why);
            }
            reasons.push(text);
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
                "{needed} {} at head that {} not asked for",
                entries(self.used.elsewhere),
                if self.used.elsewhere == 1 { "was" } else { "were" }
            ));
        }
        let others = self.provider.entries + self.provider.elsewhere - self.live();
        if self.key_id.is_some() && self.live() == 0 && (others > 0 || self.plugin_writes) {
            reasons.push(self.of_key_id());
        }
        if self.plugin_writes {
            reasons.push(match self.current {
                Some(Err(why)) => {
                    format!("its provider writes under a key ID that is not known: {why}")
                }
                _ => "its provider writes with another key ID".to_owned(),
            });
        }
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
        if self.identity && self.configured.is_none() {
            return (
                false,
                "no entry that was looked at needs it, but without a configuration it is not known which resources do"
                    .to_owned(),
            );
        }
        let reason = match self.superseded {
            Some(0) => "needed by no entry".to_owned(),
            Some(n) => format!("{}, which matters for restoring to an old revision", superseded(n)),
            None => "needed by no entry at head; superseded revisions were not read".to_owned(),
        };
        (true, reason)
    }

    /// Of a key ID that no live entry needs while its provider is needed.
    fn of_key_id(&self) -> String {
        match (self.key_id_needed(), self.superseded) {
            (Some(false), Some(0)) => "nothing needs this key ID any more".to_owned(),
            (Some(false), Some(n)) => format!("this key ID is {}", superseded(n)),
            (Some(false), None) => {
                "no entry at head needs this key ID; superseded revisions were not read".to_owned()
            }
            _ => "no entry that could be read needs this key ID".to_owned(),
        }
    }
}

fn superseded(n: u64) -> String {
    format!("needed by {n} superseded revision{} only", if n == 1 { "" } else { "s" })
}

fn names(config: &EncryptionConfig) -> impl Iterator<Item = KeyName> {
    config.providers().flat_map(|served| provider_names(served.provider))
}

fn provider_names(
    provider: &crate::config::ProviderConfiguration,
) -> impl Iterator<Item = KeyName> {
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

    fn rows(uses: &KeyUses) -> Vec<KeyRow> {
        let set = ConfigSet::new(load(CONFIG.as_bytes(), "c.yaml").unwrap()).unwrap();
        uses.rows(Some(&set), &PluginKeys::new(), true, true)
    }

    fn row(rows: &[KeyRow], key: Option<&str>) -> KeyRow {
        rows.iter().find(|r| r.name.key.as_deref() == key).unwrap().clone()
    }

    #[test]
    fn a_key_may_go_when_nothing_live_needs_it() {
        let mut uses = KeyUses::default();
        let old = || name(Provider::Secretbox, Some("old"), None);
        uses.stored(old());
        let all = rows(&uses);
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
        uses.live(old(), true);
        assert!(!row(&rows(&uses), Some("old")).safe_to_remove);
    }

    #[test]
    fn entries_that_were_not_asked_for_count_too() {
        let mut uses = KeyUses::default();
        uses.live(name(Provider::Secretbox, Some("old"), None), false);
        uses.live(name(Provider::Identity, None, None), false);
        let all = rows(&uses);
        let old = row(&all, Some("old"));
        assert_eq!((old.entries, old.safe_to_remove), (0, false));
        let identity = row(&all, None);
        assert_eq!((identity.entries, identity.safe_to_remove), (0, false));
        assert!(identity.reason.contains("1 entry at head that was not asked for"));
    }

    #[test]
    fn without_a_configuration_nobody_knows_what_needs_identity() {
        let mut uses = KeyUses::default();
        uses.stored(name(Provider::Identity, None, None));
        let all = uses.rows(None, &PluginKeys::new(), true, true);
        assert!(!row(&all, None).safe_to_remove);
    }

    /// The plugin writes with the key that it names, and with no other.
    #[test]
    fn only_the_key_id_that_the_plugin_names_writes() {
        const WRITING: &str = "\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - kms: {apiVersion: v2, name: plugin, endpoint: 'unix:///p.sock'}
";
        let set = ConfigSet::new(load(WRITING.as_bytes(), "c.yaml").unwrap()).unwrap();
        let id = |id: &str| name(Provider::Kms, Some("plugin"), Some(id));
        let mut uses = KeyUses::default();
        uses.live(id("2"), true);
        uses.stored(id("2"));
        uses.stored(id("1"));
        uses.stored(id("0"));
        let rows = |says: Result<String, String>| {
            uses.rows(Some(&set), &[("plugin".to_owned(), says)].into(), true, true)
                .into_iter()
                .map(|r| {
                    assert!(!r.safe_to_remove, "{r:?}");
                    let writes = !r.write_key_for.is_empty();
                    (r.name.kms_key_id, writes, r.key_id_needed, r.reason)
                })
                .collect::<Vec<_>>()
        };
        let shape = |rows: &[(Option<String>, bool, Option<bool>, String)]| {
            rows.iter().map(|r| (r.0.clone(), r.1, r.2)).collect::<Vec<_>>()
        };
        let is = |id: &str, writes, needed| (Some(id.to_owned()), writes, needed);
        let told = rows(Ok("3".to_owned()));
        assert_eq!(
            shape(&told),
            [
                is("0", false, Some(false)),
                is("1", false, Some(false)),
                is("2", false, Some(true)),
                is("3", true, Some(true)),
            ]
        );
        assert!(told[0].3.starts_with("this key ID is needed by 1 superseded revision only"));
        let untold = rows(Err("it is away".to_owned()));
        assert_eq!(
            shape(&untold),
            [
                (None, true, None),
                is("0", false, None),
                is("1", false, None),
                is("2", false, Some(true)),
            ]
        );
        assert!(untold[0].3.contains("not known: it is away"), "{}", untold[0].3);
    }

    #[test]
    fn a_plugin_stays_while_one_of_its_keys_is_needed() {
        let mut uses = KeyUses::default();
        uses.live(name(Provider::Kms, Some("plugin"), Some("2")), true);
        uses.stored(name(Provider::Kms, Some("plugin"), Some("1")));
        let all = rows(&uses);
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
        let all = KeyUses::default().rows(Some(&set), &PluginKeys::new(), true, false);
        assert!(all.iter().all(|r| !r.safe_to_remove));
    }

    #[test]
    fn unconfigured_keys_are_listed() {
        let mut uses = KeyUses::default();
        uses.live(name(Provider::AesCbc, Some("gone"), None), true);
        let gone = row(&rows(&uses), Some("gone"));
        assert_eq!((gone.configured, gone.safe_to_remove), (Some(false), false));
        assert_eq!(gone.reason, "not configured, but needed by 1 entry at head");
        assert_eq!(uses.rows(None, &PluginKeys::new(), false, true)[0].configured, None);
        assert_eq!(uses.rows(None, &PluginKeys::new(), false, true)[0].history_entries, None);
    }
}
