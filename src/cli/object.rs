//! Stored bytes → object, for the commands that show objects.

use serde_json::Value;

use super::Ctx;
use super::failure::Failure;
use super::open;
use crate::config::ConfigSet;
use crate::entry::EntryRef;
use crate::envelope::Provider;
use crate::report::table;
use crate::resource::{Location, Scope};
use crate::scan::place::{Misplaced, look, misplaced};
use crate::scan::{ByPrefix, Judge as _, Judged, Prefixes, Status};
use crate::secret::Plaintext;
use crate::source::Source;
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
    /// The decrypted bytes of a kind that is not known: its JSON form holds the metadata alone.
    pub hollow: Option<Hollow>,
}

/// An object of which only the metadata can be shown.
pub struct Hollow {
    /// What is stored.
    pub bytes: Plaintext,
    /// Why it is not shown as a whole.
    pub reason: String,
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
    /// It was read, and is no object.
    pub no_object: bool,
}

impl NotShown {
    fn new(judged: Judged<'static>, reason: String) -> Self {
        Self { judged, reason, no_object: false }
    }
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
        let configs = crate::cli::inside::configs(ctx)?;
        let transformers = configs.as_ref().map(|set| open::transformers(ctx, set)).transpose()?;
        Ok(Self { managed_fields, transformers, configs })
    }

    /// With `--try-keys`: a secret under another name reads, too.
    pub fn try_keys(mut self, yes: bool) -> Self {
        self.transformers = self.transformers.map(|t| t.try_keys(yes));
        self
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
        let (plain, judged) = self.open(entry, location)?;
        match storage::decode(plain.expose()) {
            Ok(mut object) => {
                if entry.mod_revision > 0 {
                    object.set_resource_version(entry.mod_revision);
                }
                if !self.managed_fields {
                    object.hide_managed_fields();
                }
                let unknown = object.unknown.iter().map(ToString::to_string).collect();
                let hollow = object.is_hollow().then(|| Hollow {
                    reason: format!(
                        "the kind {} of {} is stored as protobuf, whose fields this program does not know: only its metadata can be shown",
                        table::visible(&object.kind),
                        table::visible(&object.api_version)
                    ),
                    bytes: plain,
                });
                Ok(Shown { json: object.json, judged, unknown, hollow })
            }
            Err(e) => Err(NotShown::new(judged, super::failure::chain(&e))),
        }
    }

    /// Decrypts one entry and sees which object it is, if it is one.
    pub fn open(
        &self,
        entry: EntryRef<'_>,
        location: &Location<'_>,
    ) -> Result<(Plaintext, Judged<'static>), NotShown> {
        let (plain, mut judged) = self.decrypt(entry, location)?;
        // Without a key, what it is may be anything; decoding says why it is not.
        if entry.key.is_empty() {
            return Ok((plain, judged));
        }
        match storage::type_meta(plain.expose()) {
            Ok(object) => {
                judged.misplaced = misplaced(location, entry.key, &object).map(Box::new);
            }
            Err(no_object) => {
                judged.status = judged.status.map(|_| Status::Unreadable);
                let how = match (judged.provider, &judged.key_name) {
                    (Provider::Identity, _) => "stored unencrypted".to_owned(),
                    (by, name) => format!("decrypted with {}", by.with_key(name.as_deref())),
                };
                let reason = no_object.after(&how);
                return Err(NotShown { judged, reason, no_object: true });
            }
        }
        Ok((plain, judged))
    }

    /// What is where misplaced objects belong, at the revision at which they were found.
    pub fn look(
        &self,
        source: &mut dyn Source,
        revision: i64,
        scope: &Scope,
        found: &mut [&mut Misplaced],
    ) -> Result<(), Failure> {
        let read = |entry: EntryRef<'_>| {
            let (plain, _) = self.decrypt(entry, &scope.locate(entry.key)).ok()?;
            Some(storage::type_meta(plain.expose()).ok()?.into_owned())
        };
        Ok(look(source, revision, found, &read)?)
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
            return Err(NotShown::new(judged, reason));
        };
        if placeless {
            return match transformers.for_any_resource().read(entry.key, value) {
                Ok(opened) => {
                    judged.key_name = opened.used.key.map(|name| name.to_string().into());
                    Ok((opened.plaintext, judged))
                }
                Err(e) => Err(NotShown::new(judged, super::failure::chain(&e))),
            };
        }
        match transformers.for_resource(&location.resource).read(entry.key, value) {
            Ok(opened) => {
                judged.status = Some(opened.status());
                judged.reason = opened.reason.map(Into::into);
                Ok((opened.plaintext, judged))
            }
            Err(e) => {
                judged.status = Some(Status::Unreadable);
                Err(NotShown::new(judged, super::failure::chain(&e)))
            }
        }
    }
}

/// How an entry is stored, for people: `secretbox v1 key secret-key-1, stale (…)`.
pub fn stored_as(judged: &Judged<'_>) -> String {
    use std::fmt::Write as _;
    if judged.provider == Provider::Identity && judged.status.is_none() {
        return "stored unencrypted".to_owned();
    }
    let mut text = match judged.provider {
        Provider::Identity => "stored unencrypted".to_owned(),
        provider => format!("encrypted by {provider}"),
    };
    // Writing to a String cannot fail.
    if let Some(version) = judged.version {
        let _ = write!(text, " {}", version.as_str());
    }
    if let Some(name) = &judged.key_name {
        let _ = write!(text, " key {}", table::visible(name));
    }
    if let Some(id) = &judged.kms_key_id {
        let _ = write!(text, " (key ID {})", table::visible(id));
    }
    if let Some(status) = judged.status {
        let _ = write!(text, ", {}", status.as_str());
    }
    text
}

/// A list as kubectl prints it.
#[allow(clippy::needless_pass_by_value)] // It becomes a part of the result.
pub fn list(items: Vec<Value>) -> Value {
    serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// Fields in a sentence: the first, and how many more there are.
pub fn fields(unknown: &[String]) -> String {
    const NAMED: usize = 10;
    let named: Vec<_> = unknown.iter().take(NAMED).map(|f| table::visible(f)).collect();
    match unknown.len() - named.len() {
        0 => named.join(", "),
        more => format!("{}, and {} more", named.join(", "), table::count(more as u64)),
    }
}
