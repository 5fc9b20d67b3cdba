//! What the API server accepts and a person should know.

use std::collections::HashMap;

use super::endpoint::Socket;
use super::finding::{Finding, shown};
use super::model::{EncryptionConfig, GroupResource, Key, ProviderConfiguration, Served};
use super::places::Places;
use crate::envelope::Version;
use crate::resource::Selector;

/// Most remarks about one configuration: each is looked for among the others.
const MOST: usize = 200;
/// Most keys that are compared with one another.
const COMPARED: usize = 1000;

/// Remarks about a valid configuration, in file order of what they are about.
pub(super) fn advise(config: &EncryptionConfig, places: &Places) -> Vec<Finding> {
    let mut a = Advisor { config, places, findings: Vec::new() };
    if config.legacy_kind {
        a.say("kind", "is the legacy form of Kubernetes 1.7 to 1.12: current releases still read it, but write `kind: EncryptionConfiguration` with `apiVersion: apiserver.config.k8s.io/v1`");
    }
    if config.serving("secrets").is_implied_identity() {
        a.say("resources", "secrets are in no entry: they are stored unencrypted");
    }
    a.resources();
    a.servings();
    a.kms();
    a.key_names();
    a.key_material();
    a.findings.sort_by_key(|f| f.at.map_or((0, 0), |at| (at.line, at.column)));
    a.findings
}

struct Advisor<'c> {
    config: &'c EncryptionConfig,
    places: &'c Places,
    findings: Vec<Finding>,
}

impl<'c> Advisor<'c> {
    fn say(&mut self, path: &str, message: impl Into<String>) {
        let message = message.into();
        if self.findings.len() >= MOST {
            return;
        }
        if !self.findings.iter().any(|f| f.path == path && f.message == message) {
            self.findings.push(Finding {
                path: path.to_owned(),
                message,
                at: self.places.of_path(path),
            });
        }
    }

    fn resources(&mut self) {
        let mut seen: HashMap<GroupResource<'_>, usize> = HashMap::new();
        for (i, entry) in self.config.entries.iter().enumerate() {
            for (j, text) in entry.resources.iter().enumerate() {
                let path = format!("resources[{i}].resources[{j}]");
                let gr = GroupResource::parse(text);
                if let Some(earlier) = seen.get(&gr) {
                    let message = format!(
                        "{} is also in resources[{earlier}]: the API server joins their providers, in this order",
                        shown(text)
                    );
                    self.say(&path, message);
                }
                seen.entry(gr).or_insert(i);
                if text.is_empty() {
                    self.say(&path, "an empty name matches no resource");
                } else if let Ok(Selector::Exact(full)) = Selector::parse(&gr.to_string())
                    && full != gr.to_string()
                {
                    let message = format!(
                        "{} is no resource of the core group: did you mean `{full}`?",
                        shown(text)
                    );
                    self.say(&path, message);
                }
            }
        }
    }

    /// What each configured resource is written with and whether its plaintext is readable.
    fn servings(&mut self) {
        let config = self.config;
        for gr in config.group_resources() {
            let providers = config.serving(&gr.to_string()).providers;
            let Some(first) = providers.first() else { continue };
            let at = first.path();
            match first.provider {
                ProviderConfiguration::Identity => {
                    self.say(&at, format!("identity comes first: `{gr}` is written unencrypted"));
                }
                ProviderConfiguration::AesCbc(_) => self.say(
                    &format!("{at}.aescbc"),
                    "writes with aescbc, which does not notice changed ciphertext: secretbox, aesgcm or kms do",
                ),
                ProviderConfiguration::AesGcm(_) => self.say(
                    &format!("{at}.aesgcm"),
                    "writes with aesgcm, whose nonces are random: rotate the key before 200,000 writes",
                ),
                _ => {}
            }
            if !providers.iter().any(|s| matches!(s.provider, ProviderConfiguration::Identity)) {
                self.say(
                    &format!("resources[{}].providers", first.entry),
                    format!("no identity provider: `{gr}` that is still stored unencrypted cannot be read"),
                );
            }
        }
    }

    fn kms(&mut self) {
        let mut names: Vec<&str> = Vec::new();
        for served in self.config.providers() {
            let ProviderConfiguration::Kms(kms) = served.provider else { continue };
            let path = format!("{}.kms", served.path());
            if kms.api_version == Version::V1 {
                self.say(&path, "KMS v1 is deprecated: since Kubernetes 1.29 the API server refuses this file unless the feature gate KMSv1 is on");
                if names.contains(&kms.name.as_str()) {
                    self.say(&format!("{path}.name"), format!("{} is used twice: refused with --encryption-provider-config-automatic-reload", shown(&kms.name)));
                }
            }
            names.push(&kms.name);
            if kms.endpoint.socket == Socket::Nowhere {
                self.say(
                    &format!("{path}.endpoint"),
                    format!(
                        "{} names no socket and never connects: write `unix:///path`",
                        shown(&kms.endpoint.url)
                    ),
                );
            }
        }
    }

    /// Static keys with their paths, as many as are compared.
    fn keys(&self) -> Vec<(String, Served<'c>, &'c Key)> {
        let mut all = Vec::new();
        for served in self.config.providers() {
            let name = served.provider.provider();
            for (k, key) in served.provider.keys().iter().enumerate() {
                all.push((format!("{}.{name}.keys[{k}]", served.path()), served, key));
            }
        }
        all.truncate(COMPARED);
        all
    }

    /// Names are matched as prefixes of stored values, so names can be in each other's way.
    fn key_names(&mut self) {
        let keys = self.keys();
        for (i, (path, served, key)) in keys.iter().enumerate() {
            let path = format!("{path}.name");
            if key.name.contains(':') {
                self.say(&path, format!("{} has a colon: without this configuration nobody can tell where the name ends in a stored value", shown(&key.name)));
            }
            if key.name.trim() != key.name {
                self.say(&path, format!("{} begins or ends with a space", shown(&key.name)));
            }
            for (_, other, earlier) in &keys[..i] {
                let same_list = other.provider.provider() == served.provider.provider()
                    && self.share_a_resource(other.entry, served.entry);
                if !same_list {
                    continue;
                }
                if earlier.name == key.name {
                    let message = if earlier.secret.same(&key.secret) {
                        format!("{} is listed twice with the same secret", shown(&key.name))
                    } else {
                        format!(
                            "{} is the name of an earlier key with another secret: both are tried, and nobody can tell from a stored value which one wrote it",
                            shown(&key.name)
                        )
                    };
                    self.say(&path, message);
                }
                let (short, long) = if earlier.name.len() < key.name.len() {
                    (&earlier.name, &key.name)
                } else {
                    (&key.name, &earlier.name)
                };
                if long.strip_prefix(short.as_str()).is_some_and(|rest| rest.starts_with(':')) {
                    self.say(&path, format!("{} begins with the key name {} and a colon: values of the former are tried with the latter, too", shown(long), shown(short)));
                }
            }
        }
    }

    fn share_a_resource(&self, a: usize, b: usize) -> bool {
        let of =
            |e: usize| self.config.entries[e].resources.iter().map(|r| GroupResource::parse(r));
        a == b || of(a).any(|x| of(b).any(|y| x == y))
    }

    fn key_material(&mut self) {
        let keys = self.keys();
        for (i, (path, served, key)) in keys.iter().enumerate() {
            let at = format!("{path}.secret");
            let bytes = key.secret.expose();
            if bytes.iter().all(|b| *b == bytes[0]) {
                // openshift/library-go encodes "identity" as an aesgcm key of 16 zero bytes.
                let marker = matches!(served.provider, ProviderConfiguration::AesGcm(_))
                    && bytes.len() == 16
                    && bytes[0] == 0;
                self.say(&at, if marker {
                    "is the all-zero key with which OpenShift marks unencrypted storage: it must never write"
                } else {
                    "is one byte repeated: anybody can guess it"
                });
            } else if bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
                self.say(&at, "is readable text, so it did not come from a random generator: make a key with `atrest config new`");
            }
            // The same key in the same provider of another entry is how one key serves several
            // resources; another name or another provider is what surprises.
            for (_, other, earlier) in &keys[..i] {
                let same_name = earlier.name == key.name
                    && other.provider.provider() == served.provider.provider();
                if !same_name && earlier.secret.same(&key.secret) {
                    self.say(&at, format!(
                        "is the secret of {} key {}, too: rotating from one to the other changes nothing",
                        other.provider.provider(),
                        shown(&earlier.name)
                    ));
                }
            }
        }
    }
}
