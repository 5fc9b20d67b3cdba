//! Raw configuration → model, with every rule of the API server.
//!
//! Source: kubernetes/apiserver `pkg/apis/apiserver/validation/validation_encryption.go`,
//! `pkg/apis/apiserver/v1/defaults.go`, `pkg/server/options/encryptionconfig/config.go`.

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::decode::{Given, Raw, RawEntry, RawKey, RawKeys, RawKms, RawProvider};
use super::endpoint::Endpoint;
use super::finding::{Finding, shown};
use super::model::{
    EncryptionConfig, GroupResource, Key, Kms, ProviderConfiguration, ResourceConfiguration,
};
use crate::envelope::Version;
use crate::secret::KeyMaterial;
use crate::yaml_tree::Position;

const AES_KEYS: &[usize] = &[16, 24, 32];
const SECRETBOX_KEYS: &[usize] = &[32];
/// apiserver `pkg/apis/apiserver/v1/defaults.go`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
/// Likewise; v1 only.
const DEFAULT_CACHESIZE: i32 = 1000;

/// Go's `base64.StdEncoding`: padding is needed, trailing bits are not looked at.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Checks everything; the model is there exactly when nothing was reported.
pub(super) fn validate(raw: Raw, findings: &mut Vec<Finding>) -> Option<EncryptionConfig> {
    let mut v = Validator { findings, kms_names: Vec::new() };
    let legacy_kind = v.header(&raw);
    if raw.entries.is_empty() && !raw.entries_wrong {
        v.report("resources", "at least one entry is required", raw.entries_at);
    }
    v.masked(&raw.entries);
    let entries: Vec<Option<ResourceConfiguration>> = raw
        .entries
        .into_iter()
        .enumerate()
        .map(|(i, entry)| v.entry(entry, &format!("resources[{i}]")))
        .collect();
    if !v.findings.is_empty() {
        return None;
    }
    Some(EncryptionConfig { legacy_kind, entries: entries.into_iter().collect::<Option<_>>()? })
}

struct Validator<'f> {
    findings: &'f mut Vec<Finding>,
    /// Names of the KMS providers so far, anywhere in the file.
    kms_names: Vec<String>,
}

impl Validator<'_> {
    fn report(&mut self, path: &str, message: impl Into<String>, at: Position) {
        self.findings.push(Finding::new(path, message, at));
    }

    /// Returns whether it is the legacy kind.
    fn header(&mut self, raw: &Raw) -> bool {
        match (raw.api_version.as_str(), raw.kind.as_str()) {
            ("apiserver.config.k8s.io/v1", "EncryptionConfiguration") => return false,
            ("v1", "EncryptionConfig") => return true,
            _ => {}
        }
        // A wrong type was reported when it was decoded.
        let reported = |name: &str, f: &[Finding]| f.iter().any(|f| f.path == name);
        if raw.kind.is_empty() {
            if !reported("kind", self.findings) {
                self.report("kind", "is required: EncryptionConfiguration", raw.header_at);
            }
        } else if raw.api_version.is_empty() {
            if !reported("apiVersion", self.findings) {
                self.report("apiVersion", "is required: apiserver.config.k8s.io/v1", raw.header_at);
            }
        } else {
            let message = format!(
                "kind {} of apiVersion {} is not an EncryptionConfiguration of apiserver.config.k8s.io/v1",
                shown(&raw.kind),
                shown(&raw.api_version)
            );
            self.report("kind", message, raw.header_at);
        }
        false
    }

    /// A resource whose wildcard an earlier entry configured would never be reached.
    fn masked(&mut self, entries: &[RawEntry]) {
        let mut wildcards: Vec<GroupResource<'_>> = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            let Given::Is(resources, _) = &entry.resources else { continue };
            for (j, (text, at)) in resources.iter().enumerate() {
                let gr = GroupResource::parse(text);
                let masks = [GroupResource::any_in(gr.group), GroupResource::ANY];
                if let Some(mask) = masks.iter().find(|m| wildcards.contains(m)) {
                    self.findings.push(Finding::new(
                        &format!("resources[{i}].resources[{j}]"),
                        format!("{} is masked by the earlier `{mask}`", shown(text)),
                        *at,
                    ));
                }
            }
            wildcards.extend(
                resources
                    .iter()
                    .map(|(text, _)| GroupResource::parse(text))
                    .filter(|gr| gr.resource == "*"),
            );
        }
    }

    fn entry(&mut self, entry: RawEntry, path: &str) -> Option<ResourceConfiguration> {
        let resources = self.resources(entry.resources, &format!("{path}.resources"));
        let path = format!("{path}.providers");
        let providers = match entry.providers {
            Given::Wrong => None,
            Given::Is(items, _) if !items.is_empty() => {
                let each = |(j, p)| self.provider(p, &format!("{path}[{j}]"));
                let all: Vec<_> = items.into_iter().enumerate().map(each).collect();
                all.into_iter().collect::<Option<Vec<_>>>()
            }
            Given::Absent(at) | Given::Is(_, at) => {
                self.report(&path, "at least one provider is required", at);
                None
            }
        };
        Some(ResourceConfiguration { resources: resources?, providers: providers? })
    }

    fn resources(
        &mut self,
        given: Given<Vec<(String, Position)>>,
        path: &str,
    ) -> Option<Vec<String>> {
        let resources = match given {
            Given::Wrong => return None,
            Given::Is(items, at) if !items.is_empty() => (items, at),
            Given::Absent(at) | Given::Is(_, at) => {
                self.report(path, "at least one resource is required", at);
                return None;
            }
        };
        let (resources, _) = resources;
        self.overlap(&resources, path);
        for (j, (text, at)) in resources.iter().enumerate() {
            if let Some(message) = resource_error(text) {
                self.report(&format!("{path}[{j}]"), message, *at);
            }
        }
        Some(resources.into_iter().map(|(text, _)| text).collect())
    }

    /// One message for repeated resources and one for overlapping ones, as the API server has
    /// it, at the place of the first offender.
    fn overlap(&mut self, resources: &[(String, Position)], path: &str) {
        let parsed: Vec<_> =
            resources.iter().map(|(t, at)| (GroupResource::parse(t), *at)).collect();
        let (mut duplicate, mut overlap) = (None, None);
        for (j, (b, at)) in parsed.iter().enumerate() {
            for (a, _) in &parsed[..j] {
                if a == b {
                    duplicate.get_or_insert((*at, *b));
                } else if *a == GroupResource::ANY
                    || *b == GroupResource::ANY
                    || (a.group == b.group && (a.resource == "*" || b.resource == "*"))
                {
                    overlap.get_or_insert((*at, *a, *b));
                }
            }
        }
        if let Some((at, gr)) = duplicate {
            self.report(path, format!("{} is listed twice", shown(&gr.to_string())), at);
        }
        if let Some((at, a, b)) = overlap {
            let message = format!(
                "{} and {} overlap: one of them would never be reached",
                shown(&a.to_string()),
                shown(&b.to_string())
            );
            self.report(path, message, at);
        }
    }

    fn provider(&mut self, raw: RawProvider, path: &str) -> Option<ProviderConfiguration> {
        let set = [
            raw.kms.is_some(),
            raw.aesgcm.is_some(),
            raw.aescbc.is_some(),
            raw.secretbox.is_some(),
            raw.identity,
        ];
        match set.iter().filter(|s| **s).count() {
            1 => {}
            0 => {
                if !raw.wrong {
                    let message = "holds no provider: needs one of aescbc, aesgcm, identity, kms, secretbox (`identity: {}`, not `identity:`)";
                    self.report(path, message, raw.at);
                }
                return None;
            }
            _ => {
                let message = "holds more than one provider: give each its own list element";
                self.report(path, message, raw.at);
            }
        }
        // The order in which the API server looks when several are set.
        if let Some(kms) = raw.kms {
            self.kms(kms, &format!("{path}.kms")).map(ProviderConfiguration::Kms)
        } else if let Some(keys) = raw.aesgcm {
            self.keys(keys, &format!("{path}.aesgcm.keys"), AES_KEYS)
                .map(ProviderConfiguration::AesGcm)
        } else if let Some(keys) = raw.aescbc {
            self.keys(keys, &format!("{path}.aescbc.keys"), AES_KEYS)
                .map(ProviderConfiguration::AesCbc)
        } else if let Some(keys) = raw.secretbox {
            self.keys(keys, &format!("{path}.secretbox.keys"), SECRETBOX_KEYS)
                .map(ProviderConfiguration::Secretbox)
        } else {
            Some(ProviderConfiguration::Identity)
        }
    }

    fn keys(&mut self, raw: RawKeys, path: &str, lengths: &[usize]) -> Option<Vec<Key>> {
        match raw.keys {
            Given::Wrong => None,
            Given::Is(keys, _) if !keys.is_empty() => {
                let each = |(i, k)| self.key(k, &format!("{path}[{i}]"), lengths);
                let all: Vec<_> = keys.into_iter().enumerate().map(each).collect();
                all.into_iter().collect()
            }
            Given::Absent(_) => {
                self.report(path, "at least one key is required", raw.at);
                None
            }
            Given::Is(_, at) => {
                self.report(path, "at least one key is required", at);
                None
            }
        }
    }

    fn key(&mut self, raw: RawKey, path: &str, lengths: &[usize]) -> Option<Key> {
        let name = self.required(raw.name, &format!("{path}.name"), "a key needs a name");
        let path = format!("{path}.secret");
        let secret = match raw.secret {
            Given::Wrong => None,
            Given::Is(text, at) if !text.is_empty() => match decode_secret(&text) {
                None => {
                    let message = "is not base64 (the standard alphabet, with padding)";
                    self.report(&path, message, at);
                    None
                }
                Some(key) if lengths.contains(&key.len()) => Some(key),
                Some(key) => {
                    let expected: Vec<_> = lengths.iter().map(usize::to_string).collect();
                    let message = format!(
                        "the key has {} bytes, but must have {}",
                        key.len(),
                        expected.join(", ")
                    );
                    self.report(&path, message, at);
                    None
                }
            },
            Given::Absent(at) | Given::Is(_, at) => {
                self.report(&path, "a key needs a secret", at);
                None
            }
        };
        Some(Key { name: name?, secret: secret? })
    }

    fn required(&mut self, given: Given<String>, path: &str, message: &str) -> Option<String> {
        match given {
            Given::Wrong => None,
            Given::Is(text, _) if !text.is_empty() => Some(text),
            Given::Absent(at) | Given::Is(_, at) => {
                self.report(path, message, at);
                None
            }
        }
    }

    fn kms(&mut self, raw: RawKms, path: &str) -> Option<Kms> {
        // Defaults come before validation; the empty string counts as not given.
        let api_version = match &raw.api_version {
            Given::Wrong => None,
            Given::Absent(_) => Some(Some(Version::V1)),
            Given::Is(text, at) => match text.as_str() {
                "" | "v1" => Some(Some(Version::V1)),
                "v2" => Some(Some(Version::V2)),
                other => {
                    let message = format!("{} is not supported: v1 or v2", shown(other));
                    self.report(&format!("{path}.apiVersion"), message, *at);
                    Some(None)
                }
            },
        };
        let is_v1 = api_version.is_none_or(|v| v == Some(Version::V1));
        let name = self.kms_name(raw.name, &format!("{path}.name"), is_v1);
        let timeout = match raw.timeout {
            Given::Wrong => None,
            Given::Absent(_) => Some(DEFAULT_TIMEOUT),
            Given::Is(Some(timeout), _) => Some(timeout),
            Given::Is(None, at) => {
                self.report(&format!("{path}.timeout"), "must be more than zero", at);
                None
            }
        };
        let endpoint = match raw.endpoint {
            Given::Wrong => None,
            Given::Absent(at) => {
                self.report(&format!("{path}.endpoint"), "is required", at);
                None
            }
            Given::Is(url, at) => match Endpoint::parse(&url) {
                Ok(endpoint) => Some(endpoint),
                Err(e) => {
                    self.report(&format!("{path}.endpoint"), e.to_string(), at);
                    None
                }
            },
        };
        let cachesize = match raw.cachesize {
            Given::Wrong => None,
            Given::Absent(_) => Some(if is_v1 { DEFAULT_CACHESIZE } else { 0 }),
            Given::Is(_, at) if !is_v1 => {
                self.report(&format!("{path}.cachesize"), "belongs to KMS v1 only", at);
                None
            }
            Given::Is(0, at) => {
                let message = "must be more than zero, or negative for no cache";
                self.report(&format!("{path}.cachesize"), message, at);
                None
            }
            Given::Is(size, _) => Some(size),
        };
        Some(Kms {
            api_version: api_version??,
            name: name?,
            endpoint: endpoint?,
            cachesize: cachesize?,
            timeout: timeout?,
        })
    }

    fn kms_name(&mut self, given: Given<String>, path: &str, is_v1: bool) -> Option<String> {
        let at = match &given {
            Given::Is(_, at) | Given::Absent(at) => *at,
            Given::Wrong => return None,
        };
        let name = self.required(given, path, "a KMS provider needs a name")?;
        if !is_v1 && name.contains(':') {
            let message = format!("{} must not contain a colon", shown(&name));
            self.report(path, message, at);
        }
        if !is_v1 && self.kms_names.contains(&name) {
            let message = format!("{} is the name of an earlier KMS provider", shown(&name));
            self.report(path, message, at);
        }
        self.kms_names.push(name.clone());
        Some(name)
    }
}

/// Why a resource string is refused by itself.
fn resource_error(raw: &str) -> Option<String> {
    let text = shown(raw);
    if raw.to_lowercase() != raw {
        return Some(format!("{text} has capital letters: resources are written in lower case"));
    }
    if raw == "*" {
        return Some("use `*.` for the core group, or `*.*` for everything".to_owned());
    }
    if matches!(raw, "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations") {
        return Some(format!("{text} has no REST API and cannot be encrypted"));
    }
    match GroupResource::parse(raw) {
        GroupResource { group: "events.k8s.io", .. } => {
            Some(format!("{text}: events are stored in the core group: use `events`"))
        }
        GroupResource { group: "extensions", .. } => {
            Some(format!("{text}: the group `extensions` no longer exists"))
        }
        GroupResource { group: "*", resource } if resource != "*" => {
            Some(format!("{text}: one resource across all groups is not supported"))
        }
        _ => None,
    }
}

/// Base64 as the API server reads it; line breaks inside are skipped.
pub(super) fn decode_secret(text: &str) -> Option<KeyMaterial> {
    let packed: Zeroizing<Vec<u8>> =
        Zeroizing::new(text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect());
    BASE64.decode(&*packed).ok().map(KeyMaterial::new)
}
