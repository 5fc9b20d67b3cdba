//! Unwrapped data keys, remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::{KmsError, WrappedKey};
use crate::secret::KeyMaterial;

/// Data keys kept by one unwrapper. Every v1 value has its own.
const MAX_DATA_KEYS: usize = 16 * 1024;

/// What tells data keys apart: everything that is handed over to have one unwrapped.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct DataKey {
    key_id: String,
    source: Vec<u8>,
    annotations: Vec<(String, Vec<u8>)>,
}

impl DataKey {
    /// Of a v1 value.
    pub(super) fn v1(wrapped: &[u8]) -> Self {
        Self { key_id: String::new(), source: wrapped.to_vec(), annotations: Vec::new() }
    }

    /// Of v2 values.
    pub(super) fn v2(wrapped: WrappedKey<'_>) -> Self {
        let annotations = wrapped.annotations.iter().map(|(n, v)| ((*n).to_owned(), v.to_vec()));
        Self {
            key_id: wrapped.key_id.to_owned(),
            source: wrapped.source.to_vec(),
            annotations: annotations.collect(),
        }
    }
}

/// A data key, or why there is none; set once, however many threads ask at once.
type Answer = OnceLock<Result<KeyMaterial, KmsError>>;

/// Answers by data key.
#[derive(Default)]
pub(super) struct DataKeys(Mutex<HashMap<Arc<DataKey>, Arc<Answer>>>);

impl DataKeys {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<DataKey>, Arc<Answer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data key of `id`: remembered, or from one call that all who ask at once wait for.
    pub(super) fn get(
        &self,
        id: DataKey,
        call: impl FnOnce() -> Result<KeyMaterial, KmsError>,
    ) -> Result<KeyMaterial, KmsError> {
        let id = Arc::new(id);
        let answer = {
            let mut held = self.lock();
            if held.len() >= MAX_DATA_KEYS && !held.contains_key(&id) {
                held.clear();
            }
            Arc::clone(held.entry(Arc::clone(&id)).or_default())
        };
        let result = answer.get_or_init(call);
        if result.as_ref().is_err_and(KmsError::is_unreachable) {
            // Not the data key's fault: ask again when whoever unwraps it is back.
            let mut held = self.lock();
            if held.get(&id).is_some_and(|h| Arc::ptr_eq(h, &answer)) {
                held.remove(&id);
            }
        }
        result.clone()
    }
}
