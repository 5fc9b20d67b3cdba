//! Entry → object: decrypting and decoding in one step, for those who show objects.

use crate::config::ConfigSet;
use crate::entry::EntryRef;
use crate::envelope::Envelope;
use crate::scan::{ByPrefix, Judge as _, Judged, Prefixes};
use crate::secret::Plaintext;
use crate::storage::{self, Object};
use crate::transform::Transformers;

/// Reads entries with the keys of a configuration, if there is one.
pub struct Objects {
    transformers: Option<Transformers>,
}

impl Objects {
    /// With these keys. Without any, only what is stored unencrypted can be read.
    #[must_use]
    pub fn new(transformers: Option<Transformers>) -> Self {
        Self { transformers }
    }

    /// The configurations that the keys are of.
    #[must_use]
    pub fn configs(&self) -> Option<&ConfigSet> {
        self.transformers.as_ref().map(Transformers::configs)
    }

    /// How an entry of `resource` is stored, by its prefix.
    #[must_use]
    pub fn judge(&self, resource: &str, entry: EntryRef<'_>) -> Judged<'static> {
        let value = entry.stored();
        match &self.transformers {
            Some(t) => ByPrefix(t).judge(resource, entry.key, value).into_owned(),
            None => Prefixes.judge(resource, entry.key, value).into_owned(),
        }
    }

    /// The bytes of one entry of `resource`, decrypted where they are encrypted. What is stored
    /// unencrypted is readable whatever a configuration says of it.
    ///
    /// # Errors
    /// In words, without stored bytes.
    pub fn plaintext(&self, resource: &str, entry: EntryRef<'_>) -> Result<Plaintext, String> {
        let value = entry.stored();
        if Envelope::of(value).is_plaintext() {
            return Ok(Plaintext::new(value.to_vec()));
        }
        let Some(transformers) = &self.transformers else {
            return Err("it is encrypted, and no --encryption-config was given".to_owned());
        };
        let read = transformers.for_resource(resource).read(entry.key, value);
        read.map(|opened| opened.plaintext).map_err(|e| e.to_string())
    }

    /// One entry of `resource` as an object, with its resource version.
    ///
    /// # Errors
    /// In words, without stored bytes.
    pub fn object(&self, resource: &str, entry: EntryRef<'_>) -> Result<Object, String> {
        let plaintext = self.plaintext(resource, entry)?;
        let mut object = storage::decode(plaintext.expose()).map_err(|e| e.to_string())?;
        if entry.mod_revision > 0 {
            object.set_resource_version(entry.mod_revision);
        }
        Ok(object)
    }
}
