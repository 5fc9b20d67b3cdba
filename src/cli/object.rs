//! Stored bytes → object, for the commands that show objects.

use serde_json::Value;

use super::Ctx;
use super::failure::Failure;
use super::open;
use crate::config::ConfigSet;
use crate::entry::EntryRef;
use crate::resource::Location;
use crate::scan::{ByPrefix, Judge as _, Judged, Prefixes, Status};
use crate::secret::Plaintext;
use crate::storage;
use crate::transform::Transformers;

/// An entry, decrypted and decoded.
pub struct Shown {
    /// The object as kubectl prints it.
    pub json: Value,
    /// How it was stored.
    pub judged: Judged<'static>,
    /// Fields that this version does not know, by path; their content is not shown.
    pub unknown: Vec<String>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        storage::wipe(&mut self.json);
    }
}

/// Why an entry cannot be shown.
pub struct NotShown {
    /// How it is stored.
    pub judged: Judged<'static>,
    /// In words, without stored bytes.
    pub reason: String,
}

/// Decrypts and decodes entries.
pub struct Reader {
    /// Keep `metadata.managedFields`, which kubectl hides unless asked.
    managed_fields: bool,
    transformers: Option<Transformers>,
    configs: Option<ConfigSet>,
}

impl Reader {
    /// With the configurations that the options name.
    pub fn new(ctx: &Ctx, managed_fields: bool) -> Result<Self, Failure> {
        let configs = open::configs(ctx)?;
        let transformers = configs.as_ref().map(open::transformers).transpose()?;
        Ok(Self { managed_fields, transformers, configs })
    }

    /// The resources that the configurations name.
    pub fn resources(&self) -> Option<Vec<crate::resource::Selector>> {
        self.configs.as_ref().map(ConfigSet::resources)
    }

    /// How an entry is stored, by its prefix.
    pub fn judge(&self, resource: &str, key: &[u8], value: &[u8]) -> Judged<'static> {
        match &self.transformers {
            Some(t) => ByPrefix(t).judge(resource, key, value).into_owned(),
            None => Prefixes.judge(resource, key, value).into_owned(),
        }
    }

    /// Decrypts and decodes one entry.
    pub fn read(&self, entry: EntryRef<'_>, location: &Location<'_>) -> Result<Shown, NotShown> {
        let (plain, judged) = self.decrypt(entry, location)?;
        match storage::decode(plain.expose()) {
            Ok(mut object) => {
                if entry.mod_revision > 0 {
                    object.set_resource_version(entry.mod_revision);
                }
                if !self.managed_fields {
                    object.hide_managed_fields();
                }
                let unknown = object.unknown.iter().map(ToString::to_string).collect();
                Ok(Shown { json: object.json, judged, unknown })
            }
            Err(e) => Err(NotShown { judged, reason: super::failure::chain(&e) }),
        }
    }

    /// Decrypts one entry.
    pub fn decrypt(
        &self,
        entry: EntryRef<'_>,
        location: &Location<'_>,
    ) -> Result<(Plaintext, Judged<'static>), NotShown> {
        let value = entry.stored();
        // A value from stdin may come without its key, or with one that is not etcd's (rancher-backup
        // authenticates `namespace#name`). Its resource is then unknown: nobody can say what the
        // API server would do, but whatever key opens it may be used.
        let placeless = location.resource.is_empty();
        let mut judged = if placeless {
            Prefixes.judge(&location.resource, entry.key, value).into_owned()
        } else {
            self.judge(&location.resource, entry.key, value)
        };
        let envelope = crate::envelope::Envelope::of(value);
        // Plaintext needs no configuration: what identity would refuse is still readable bytes.
        if envelope.is_plaintext() {
            return Ok((Plaintext::new(value.to_vec()), judged));
        }
        let Some(transformers) = &self.transformers else {
            let reason = "encrypted, and no --encryption-config was given".to_owned();
            return Err(NotShown { judged, reason });
        };
        if placeless {
            return match transformers.for_any_resource().read(entry.key, value) {
                Ok(opened) => {
                    judged.key_name = opened.used.key.map(|name| name.to_string().into());
                    Ok((opened.plaintext, judged))
                }
                Err(e) => Err(NotShown { judged, reason: super::failure::chain(&e) }),
            };
        }
        match transformers.for_resource(&location.resource).read(entry.key, value) {
            Ok(opened) => {
                judged.status = Some(if opened.stale { Status::Stale } else { Status::Current });
                judged.reason = opened.reason.map(Into::into);
                Ok((opened.plaintext, judged))
            }
            Err(e) => {
                judged.status = Some(Status::Unreadable);
                Err(NotShown { judged, reason: super::failure::chain(&e) })
            }
        }
    }
}

/// How an entry is stored, for people: `secretbox v1 key secret-key-1, stale (…)`.
pub fn stored_as(judged: &Judged<'_>) -> String {
    use std::fmt::Write as _;
    if judged.provider == crate::envelope::Provider::Identity && judged.status.is_none() {
        return "stored unencrypted".to_owned();
    }
    let mut text = match judged.provider {
        crate::envelope::Provider::Identity => "stored unencrypted".to_owned(),
        provider => format!("encrypted by {provider}"),
    };
    // Writing to a String cannot fail.
    if let Some(version) = judged.version {
        let _ = write!(text, " {}", version.as_str());
    }
    if let Some(name) = &judged.key_name {
        let _ = write!(text, " key {}", crate::report::table::visible(name));
    }
    if let Some(id) = &judged.kms_key_id {
        let _ = write!(text, " (key ID {})", crate::report::table::visible(id));
    }
    if let Some(status) = judged.status {
        let _ = write!(text, ", {}", status.as_str());
    }
    text
}
