//! Entry → object: decrypting and decoding in one step, for those who show objects.

use serde_json::Value;

use crate::config::ConfigSet;
use crate::entry::EntryRef;
use crate::envelope::{Envelope, Provider};
use crate::resource::{Location, Scope, Selector};
use crate::scan::place::{Misplaced, look, misplaced};
use crate::scan::{ByPrefix, Judge as _, Judged, Prefixes, Status};
use crate::secret::Plaintext;
use crate::source::{Source, SourceError};
use crate::storage::{self, Object};
use crate::transform::Transformers;
use crate::visible::visible;

/// An entry, decrypted and decoded.
pub struct Shown {
    /// The object as kubectl prints it. Wiped when it goes.
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

/// Fields that a sentence names.
const NAMED: usize = 10;

/// Fields in a sentence: the first, and how many more there are.
#[must_use]
pub fn fields(unknown: &[String]) -> String {
    let named: Vec<_> = unknown.iter().take(NAMED).map(|f| visible(f)).collect();
    match unknown.len() - named.len() {
        0 => named.join(", "),
        more => format!("{}, and {more} more", named.join(", ")),
    }
}

/// Why an entry cannot be shown.
#[derive(Debug)]
pub struct NotShown {
    /// How it is stored.
    pub judged: Judged<'static>,
    /// In words, without stored bytes.
    pub reason: String,
    /// It was read, and is no object.
    pub no_object: bool,
}

impl NotShown {
    fn new(judged: Judged<'static>, reason: &impl ToString) -> Self {
        Self { judged, reason: reason.to_string(), no_object: false }
    }

    /// The reason, and how it is stored.
    #[must_use]
    pub fn words(&self) -> String {
        format!("{} ({})", self.reason, self.judged.stored_as())
    }
}

/// Reads entries with the keys of a configuration, if there is one.
pub struct Objects {
    keys: Result<Transformers, &'static str>,
    managed_fields: bool,
}

impl Objects {
    /// With these keys, or a word on why there are none: only what is stored unencrypted can then
    /// be read, and that is what is said of all else.
    #[must_use]
    pub fn new(keys: Result<Transformers, &'static str>) -> Self {
        Self { keys, managed_fields: true }
    }

    /// Whether to keep `metadata.managedFields`, which kubectl hides unless asked.
    #[must_use]
    pub fn managed_fields(self, keep: bool) -> Self {
        Self { managed_fields: keep, ..self }
    }

    /// Whether a secret under another name reads, too: see [`Transformers::try_keys`].
    #[must_use]
    pub fn try_keys(self, yes: bool) -> Self {
        Self { keys: self.keys.map(|keys| keys.try_keys(yes)), ..self }
    }

    /// The configurations that the keys are of.
    #[must_use]
    pub fn configs(&self) -> Option<&ConfigSet> {
        self.keys.as_ref().ok().map(Transformers::configs)
    }

    /// The resources that the configurations name.
    #[must_use]
    pub fn resources(&self) -> Option<Vec<Selector>> {
        self.configs().map(ConfigSet::resources)
    }

    /// How an entry of `resource` is stored, by its prefix.
    #[must_use]
    pub fn judge(&self, resource: &str, entry: EntryRef<'_>) -> Judged<'static> {
        match &self.keys {
            Ok(keys) => ByPrefix(keys).judge(resource, entry).into_owned(),
            Err(_) => Prefixes.judge(resource, entry).into_owned(),
        }
    }

    /// One entry of `resource` as an object, with its resource version, whatever key it has.
    ///
    /// # Errors
    /// In words, without stored bytes.
    pub fn object(&self, resource: &str, entry: EntryRef<'_>) -> Result<Object, String> {
        let (plain, _) = self.decrypt(resource, entry).map_err(|not| not.reason)?;
        self.decode(&plain, entry).map_err(|e| e.to_string())
    }

    /// Decrypts and decodes one entry.
    ///
    /// # Errors
    /// Why it cannot be shown.
    pub fn read(&self, entry: EntryRef<'_>, location: &Location<'_>) -> Result<Shown, NotShown> {
        let (plain, judged) = self.open(entry, location)?;
        match self.decode(&plain, entry) {
            Ok(object) => {
                let unknown = object.unknown.iter().map(ToString::to_string).collect();
                let hollow = object.is_hollow().then(|| Hollow {
                    reason: format!(
                        "the kind {} of {} is stored as protobuf, whose fields this program does not know: only its metadata can be shown",
                        visible(&object.kind),
                        visible(&object.api_version)
                    ),
                    bytes: plain,
                });
                Ok(Shown { json: object.json, judged, unknown, hollow })
            }
            Err(e) => Err(NotShown::new(judged, &e)),
        }
    }

    /// Decrypts one entry and sees which object it is, if it is one.
    ///
    /// # Errors
    /// Why it cannot be shown.
    pub fn open(
        &self,
        entry: EntryRef<'_>,
        location: &Location<'_>,
    ) -> Result<(Plaintext, Judged<'static>), NotShown> {
        let (plain, mut judged) = self.decrypt(&location.resource, entry)?;
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
    ///
    /// # Errors
    /// When the source cannot be read again.
    pub fn look(
        &self,
        source: &mut dyn Source,
        revision: i64,
        scope: &Scope,
        found: &mut [&mut Misplaced],
    ) -> Result<(), SourceError> {
        let read = |entry: EntryRef<'_>| {
            let (plain, _) = self.decrypt(&scope.locate(entry.key).resource, entry).ok()?;
            Some(storage::type_meta(plain.expose()).ok()?.into_owned())
        };
        look(source, revision, found, &read)
    }

    fn decode(
        &self,
        plain: &Plaintext,
        entry: EntryRef<'_>,
    ) -> Result<Object, storage::DecodeError> {
        let mut object = storage::decode(plain.expose())?;
        if entry.mod_revision > 0 {
            object.set_resource_version(entry.mod_revision);
        }
        if !self.managed_fields {
            object.hide_managed_fields();
        }
        Ok(object)
    }

    fn decrypt(
        &self,
        resource: &str,
        entry: EntryRef<'_>,
    ) -> Result<(Plaintext, Judged<'static>), NotShown> {
        let value = entry.stored();
        // A value from stdin may come without its key, or with one that is not etcd's (rancher-backup
        // authenticates `namespace#name`). Its resource is then unknown: nobody can say what the
        // API server would do, but whatever key opens it may be used.
        let placeless = resource.is_empty();
        let mut judged = if placeless {
            Prefixes.judge(resource, entry).into_owned()
        } else {
            self.judge(resource, entry)
        };
        // Plaintext needs no configuration: what identity would refuse is still readable bytes.
        if Envelope::of(value).is_plaintext() {
            return Ok((Plaintext::new(value.to_vec()), judged));
        }
        let keys = match &self.keys {
            Ok(keys) => keys,
            Err(why) => return Err(NotShown::new(judged, why)),
        };
        if placeless {
            return match keys.for_any_resource().read(entry, value) {
                Ok(opened) => {
                    judged.key_name = opened.used.key.map(|name| name.to_string().into());
                    Ok((opened.plaintext, judged))
                }
                Err(e) => Err(NotShown::new(judged, &e)),
            };
        }
        match keys.for_resource(resource).read(entry, value) {
            Ok(opened) => {
                judged.status = Some(opened.status());
                judged.reason = opened.reason.map(Into::into);
                Ok((opened.plaintext, judged))
            }
            Err(e) => {
                judged.status = Some(Status::Unreadable);
                Err(NotShown::new(judged, &e))
            }
        }
    }
}
