//! The model: what a valid `EncryptionConfiguration` says, and which providers serve a resource.

use std::time::Duration;

use super::endpoint::Endpoint;
use crate::envelope::{self, Version};
use crate::resource::{Selector, group_of};
use crate::secret::KeyMaterial;

/// A valid configuration. No `Debug`: it holds keys.
#[derive(Clone)]
pub struct EncryptionConfig {
    /// Written as `kind: EncryptionConfig` of `apiVersion: v1`, the form of Kubernetes 1.7–1.12.
    pub legacy_kind: bool,
    /// `resources[]`, in file order.
    pub entries: Vec<ResourceConfiguration>,
}

/// One element of `resources[]` (apiserver `pkg/apis/apiserver/v1/types_encryption.go`).
#[derive(Clone)]
pub struct ResourceConfiguration {
    /// `resources[].resources[]`, as written.
    pub resources: Vec<String>,
    /// `resources[].providers[]`.
    pub providers: Vec<ProviderConfiguration>,
}

/// One element of `resources[].providers[]` (the same file).
#[derive(Clone)]
pub enum ProviderConfiguration {
    /// AES-CBC with PKCS#7 padding; keys of 16, 24 or 32 bytes.
    AesCbc(Vec<Key>),
    /// AES-GCM; keys of 16, 24 or 32 bytes.
    AesGcm(Vec<Key>),
    /// `XSalsa20`-`Poly1305`; keys of 32 bytes.
    Secretbox(Vec<Key>),
    /// Not encrypted.
    Identity,
    /// A KMS plugin.
    Kms(Kms),
}

/// A static key.
#[derive(Clone)]
pub struct Key {
    /// Its name; may hold `:` and anything else.
    pub name: String,
    /// Its bytes, of a length that the provider takes.
    pub secret: KeyMaterial,
}

/// A KMS plugin's settings, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kms {
    /// `v1` or `v2` of the plugin interface.
    pub api_version: Version,
    /// The provider's name, part of the stored prefix.
    pub name: String,
    /// Where the plugin listens.
    pub endpoint: Endpoint,
    /// How many decrypted data keys are cached; negative is no cache. v1 only (0 for v2).
    pub cachesize: i32,
    /// Deadline of one call.
    pub timeout: Duration,
}

impl ProviderConfiguration {
    /// Which provider this is.
    #[must_use]
    pub fn provider(&self) -> envelope::Provider {
        match self {
            Self::AesCbc(_) => envelope::Provider::AesCbc,
            Self::AesGcm(_) => envelope::Provider::AesGcm,
            Self::Secretbox(_) => envelope::Provider::Secretbox,
            Self::Identity => envelope::Provider::Identity,
            Self::Kms(_) => envelope::Provider::Kms,
        }
    }

    /// Version of the format it writes; none for identity.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Identity => None,
            Self::Kms(kms) => Some(kms.api_version),
            _ => Some(Version::V1),
        }
    }

    /// Static keys in order; the first one writes. Empty for identity and KMS.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        match self {
            Self::AesCbc(keys) | Self::AesGcm(keys) | Self::Secretbox(keys) => keys,
            Self::Identity | Self::Kms(_) => &[],
        }
    }

    pub(super) fn keys_mut(&mut self) -> Option<&mut Vec<Key>> {
        match self {
            Self::AesCbc(keys) | Self::AesGcm(keys) | Self::Secretbox(keys) => Some(keys),
            Self::Identity | Self::Kms(_) => None,
        }
    }

    /// Whether both mean the same; keys are compared in constant time.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let keys = |a: &[Key], b: &[Key]| {
            a.len() == b.len()
                && a.iter().zip(b).all(|(x, y)| x.name == y.name && x.secret.same(&y.secret))
        };
        match (self, other) {
            (Self::AesCbc(a), Self::AesCbc(b))
            | (Self::AesGcm(a), Self::AesGcm(b))
            | (Self::Secretbox(a), Self::Secretbox(b)) => keys(a, b),
            (Self::Identity, Self::Identity) => true,
            (Self::Kms(a), Self::Kms(b)) => a == b,
            _ => false,
        }
    }

    /// Names as they stand in stored prefixes: of the static keys, or of the KMS provider.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let kms = match self {
            Self::Kms(kms) => Some(kms.name.as_str()),
            _ => None,
        };
        self.keys().iter().map(|k| k.name.as_str()).chain(kms)
    }
}

/// Group and resource of an entry of `resources[].resources[]`, split at the first dot
/// (apimachinery `pkg/runtime/schema/group_version.go`: `ParseGroupResource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupResource<'a> {
    /// Group; empty for the core group, `*` only in `*.*`.
    pub group: &'a str,
    /// Resource, or `*`.
    pub resource: &'a str,
}

impl<'a> GroupResource<'a> {
    /// Splits `resource` or `resource.group`.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        Self { group, resource }
    }

    /// `*.*`
    pub const ANY: GroupResource<'static> = GroupResource { group: "*", resource: "*" };

    /// The wildcard of a group.
    #[must_use]
    pub fn any_in(group: &'a str) -> Self {
        Self { group, resource: "*" }
    }

    /// As a selection of keys. Unlike on the command line nothing is completed: `deployments`
    /// in a configuration is a resource of the core group, which does not exist.
    #[must_use]
    pub fn selector(&self) -> Selector {
        match (self.resource, self.group) {
            ("*", "*") => Selector::All,
            ("*", group) => Selector::Group(group.to_owned()),
            (resource, "") => Selector::Exact(resource.to_owned()),
            (resource, group) => Selector::Exact(format!("{resource}.{group}")),
        }
    }
}

impl std::fmt::Display for GroupResource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.resource, self.group) {
            (resource, "") if resource != "*" => f.write_str(resource),
            (resource, group) => write!(f, "{resource}.{group}"),
        }
    }
}

/// Which providers serve a resource.
#[derive(Clone)]
pub struct Serving<'c> {
    /// What matched: the resource itself, `*.group` or `*.*`. `None` when nothing does: the API
    /// server then stores the resource unencrypted and refuses encrypted values ("implied
    /// identity").
    pub rule: Option<GroupResource<'c>>,
    /// The concatenated provider list; the first one writes. Empty for the implied identity.
    pub providers: Vec<Served<'c>>,
}

/// One provider of a resource and the element it came from.
#[derive(Clone, Copy)]
pub struct Served<'c> {
    /// Index into `resources[]`.
    pub entry: usize,
    /// Index into that entry's `providers[]`.
    pub element: usize,
    /// The provider.
    pub provider: &'c ProviderConfiguration,
}

impl Served<'_> {
    /// The field path of the element, as the API server names it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("resources[{}].providers[{}]", self.entry, self.element)
    }
}

impl Serving<'_> {
    /// No entry matches: unencrypted, and encrypted values are refused.
    #[must_use]
    pub fn is_implied_identity(&self) -> bool {
        self.rule.is_none()
    }

    /// Whether values stored unencrypted can be read.
    #[must_use]
    pub fn reads_plaintext(&self) -> bool {
        self.is_implied_identity()
            || self.providers.iter().any(|s| matches!(s.provider, ProviderConfiguration::Identity))
    }

    /// Whether what is written from now on is unencrypted.
    #[must_use]
    pub fn writes_plaintext(&self) -> bool {
        self.providers.first().is_none_or(|s| matches!(s.provider, ProviderConfiguration::Identity))
    }
}

impl EncryptionConfig {
    /// The providers that serve a group-qualified resource (`secrets`, `deployments.apps`):
    /// those of its own entries in file order, else of `*.group`, else of `*.*`
    /// (apiserver `pkg/server/options/encryptionconfig/config.go`:
    /// `transformerFromOverrides`).
    #[must_use]
    pub fn serving(&self, resource: &str) -> Serving<'_> {
        let group = group_of(resource);
        let own = GroupResource::parse(resource);
        for wanted in [own, GroupResource::any_in(group), GroupResource::ANY] {
            let mut rule = None;
            let mut providers = Vec::new();
            for (entry, e) in self.entries.iter().enumerate() {
                let hits = e.resources.iter().map(|r| GroupResource::parse(r));
                for hit in hits.filter(|gr| *gr == wanted) {
                    rule = Some(hit);
                    let served = |(element, provider)| Served { entry, element, provider };
                    providers.extend(e.providers.iter().enumerate().map(served));
                }
            }
            if rule.is_some() {
                return Serving { rule, providers };
            }
        }
        Serving { rule: None, providers: Vec::new() }
    }

    /// Whether both say the same, in the same order; keys are compared in constant time.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        let all = |a: &[ProviderConfiguration], b: &[ProviderConfiguration]| {
            a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.same(y))
        };
        self.legacy_kind == other.legacy_kind
            && self.entries.len() == other.entries.len()
            && self
                .entries
                .iter()
                .zip(&other.entries)
                .all(|(a, b)| a.resources == b.resources && all(&a.providers, &b.providers))
    }

    /// Every configured resource or wildcard, once, in file order.
    #[must_use]
    pub fn group_resources(&self) -> Vec<GroupResource<'_>> {
        let mut all: Vec<GroupResource<'_>> = Vec::new();
        for text in self.entries.iter().flat_map(|e| &e.resources) {
            let gr = GroupResource::parse(text);
            if !all.contains(&gr) {
                all.push(gr);
            }
        }
        all
    }

    /// Every provider with the element it came from, in file order.
    pub fn providers(&self) -> impl Iterator<Item = Served<'_>> {
        self.entries.iter().enumerate().flat_map(|(entry, e)| {
            let served = move |(element, provider)| Served { entry, element, provider };
            e.providers.iter().enumerate().map(served)
        })
    }
}
