//! Programs that unwrap data keys in a plugin's place: the wrapped key on their stdin, the key on
//! their stdout, everything else in their environment.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::cache::{DataKey, DataKeys};
use super::process::{self, Failed};
use super::{KmsError, WrappedKey};
use crate::config::Kms;
use crate::secret::KeyMaterial;

/// Runs of one program at a time. Whoever it asks will not take more kindly.
const CONCURRENT: usize = 8;
/// Runs in a row that came to nothing, whatever the key, after which it is left alone.
const MAX_SILENT: u32 = 3;
/// For how long.
const LEFT_ALONE: Duration = Duration::from_secs(30);
/// Lengths of AES keys and seeds in bytes.
const KEY_LENGTHS: [usize; 3] = [16, 24, 32];

/// A command of the shell that stands in for the plugin of one provider.
///
/// It gets the wrapped key on stdin and writes the key's bytes, and nothing else, to stdout. Its
/// environment is this program's, with `ATREST_KMS_PROVIDER`, `ATREST_KMS_VERSION` (`v1` or `v2`),
/// `ATREST_KMS_KEY_ID` (v2) and `ATREST_KMS_ANNOTATIONS`, a JSON object of base64 values. It is
/// run once for each data key.
pub struct Program {
    provider: String,
    command: String,
    timeout: Option<Duration>,
    keys: DataKeys,
    gate: Gate,
    silence: Mutex<Silence>,
}

/// Runs in a row that came to nothing.
#[derive(Default)]
struct Silence {
    runs: u32,
    left_alone: Option<(KmsError, Instant)>,
}

/// Lets a few through at a time.
#[derive(Default)]
struct Gate {
    inside: Mutex<usize>,
    left: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    fn pass<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut inside = lock(&self.inside);
        while *inside >= CONCURRENT {
            inside = self.left.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        *inside += 1;
        drop(inside);
        let done = work();
        *lock(&self.inside) -= 1;
        self.left.notify_one();
        done
    }
}

impl Program {
    /// `command` is the shell's to understand. Without a `timeout` of its own, the one of the
    /// provider's configuration counts.
    #[must_use]
    pub fn new(provider: &str, command: &str, timeout: Option<Duration>) -> Self {
        Self {
            provider: provider.to_owned(),
            command: command.to_owned(),
            timeout,
            keys: DataKeys::default(),
            gate: Gate::default(),
            silence: Mutex::default(),
        }
    }

    /// The provider whose keys it unwraps.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    pub(super) fn unwrap_v1(&self, plugin: &Kms, wrapped: &[u8]) -> Result<KeyMaterial, KmsError> {
        self.keys.get(DataKey::v1(wrapped), || self.ask(plugin, wrapped, None, "{}"))
    }

    pub(super) fn unwrap_v2(
        &self,
        plugin: &Kms,
        wrapped: WrappedKey<'_>,
    ) -> Result<KeyMaterial, KmsError> {
        self.keys.get(DataKey::v2(wrapped), || {
            let annotations: BTreeMap<&str, String> =
                wrapped.annotations.iter().map(|(n, v)| (*n, STANDARD.encode(v))).collect();
            let annotations = serde_json::json!(annotations).to_string();
            self.ask(plugin, wrapped.source, Some(wrapped.key_id), &annotations)
        })
    }

    /// Runs it, unless it came to nothing too often.
    fn ask(
        &self,
        plugin: &Kms,
        wrapped: &[u8],
        key_id: Option<&str>,
        annotations: &str,
    ) -> Result<KeyMaterial, KmsError> {
        if let Some((error, until)) = &lock(&self.silence).left_alone
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        let variables = [
            ("ATREST_KMS_PROVIDER", Some(self.provider.as_str())),
            ("ATREST_KMS_VERSION", Some(plugin.api_version.as_str())),
            ("ATREST_KMS_KEY_ID", key_id),
            ("ATREST_KMS_ANNOTATIONS", Some(annotations)),
        ];
        let timeout = self.timeout.unwrap_or(plugin.timeout);
        let answer = self
            .gate
            .pass(|| process::run(&self.command, &variables, wrapped.to_vec(), timeout))
            .and_then(|key| match why_no_key(&key) {
                None => Ok(KeyMaterial::new(key.to_vec())),
                Some(cause) => Err(Failed { silent: false, cause }),
            })
            .map_err(|Failed { silent, cause }| {
                let provider = self.provider.clone();
                KmsError::Program { provider, silent, cause }
            });
        let mut silence = lock(&self.silence);
        match &answer {
            Err(error) if error.is_unreachable() => {
                silence.runs += 1;
                if silence.runs >= MAX_SILENT {
                    silence.left_alone = Some((error.clone(), Instant::now() + LEFT_ALONE));
                }
            }
            _ => *silence = Silence::default(),
        }
        answer
    }
}

/// Says of an answer that it is plainly no key: what commands write by default.
fn why_no_key(answer: &[u8]) -> Option<String> {
    let len = answer.len();
    if len == 0 {
        return Some("answered with nothing".to_owned());
    }
    let decoded = STANDARD.decode(answer.trim_ascii()).map(zeroize::Zeroizing::new);
    if decoded.is_ok_and(|key| KEY_LENGTHS.contains(&key.len())) {
        return Some("answered with the key in base64, where its bytes are wanted".to_owned());
    }
    (answer.last() == Some(&b'\n') && KEY_LENGTHS.contains(&(len - 1))).then(|| {
        format!("answered with {len} bytes, the last of them a line feed, where the key's alone are wanted")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_told_from_keys() {
        let key = [0x80; 32];
        for len in KEY_LENGTHS {
            assert_eq!(why_no_key(&key[..len]), None);
            let text = STANDARD.encode(&key[..len]);
            for text in [format!("{text}\n"), text] {
                assert!(why_no_key(text.as_bytes()).unwrap().contains("in base64"), "{text}");
            }
            let line = [&key[..len], b"\n"].concat();
            assert!(why_no_key(&line).unwrap().contains("line feed"), "{len}");
        }
        assert!(why_no_key(b"").unwrap().contains("nothing"));
        // Longer seeds may come.
        assert_eq!(why_no_key(&[0x80; 64]), None);
    }
}
