//! A made-up object, in etcd for a moment under the new key: an API server that can read it has
//! loaded that key. It is for servers that do not say what they have loaded.
//!
//! One that cannot read it cannot list the resource either while it is there, so it is written
//! only where somebody asked for it and everything else is known, and under a lease: whatever
//! becomes of this program, etcd removes it.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::chain::chain;
use crate::config::{EncryptionConfig, ProviderConfiguration};
use crate::hex::hex;
use crate::jobs::Observer;
use crate::jobs::confirm::{self, Canary, Loaded, Shown};
use crate::range::merge_ranges;
use crate::secret::Plaintext;
use crate::source::live::{Commit, Live};
use crate::source::{KeyRange, Query, Source as _, SourceError};
use crate::storage;
use crate::transform::Transformers;

/// How long etcd keeps it if nobody removes it.
pub const SECONDS: i64 = 60;
/// Where it is: in a namespace that every cluster has.
const NAMESPACE: &str = "kube-system";
/// What its name begins with.
const NAME: &str = "atrest-canary-";
/// What it can be.
const KINDS: [(&str, &str); 2] = [("secrets", "Secret"), ("configmaps", "ConfigMap")];

/// Why nobody knows who reads it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be written, and why.
    #[error("the canary cannot be written: {0}")]
    Unwritten(String),
    /// This machine lacks something that asking needs.
    #[error("the API servers cannot be asked")]
    Ask(#[source] io::Error),
    /// It was gone before all had looked for it.
    #[error("the canary was gone before every API server had looked for it")]
    Late,
    /// Its keys, and why it is still there.
    #[error("the canary {0} could not be removed; etcd does it within {SECONDS} s")]
    Left(String, #[source] SourceError),
    /// Somebody wanted it to end.
    #[error("interrupted before anything was migrated")]
    Interrupted,
}

/// Who wants it.
pub struct Wanted<'o> {
    /// What it is written by.
    pub config: &'o EncryptionConfig,
    /// It is to be written; otherwise only whether it could be is looked at.
    pub apply: bool,
    /// Somebody wants it to end.
    pub stop: Arc<AtomicBool>,
}

/// One that an earlier run could not remove, or that of a run elsewhere.
pub struct Leftover {
    /// Its etcd key.
    pub key: Vec<u8>,
    /// It goes by itself.
    pub leased: bool,
}

/// Those that are in etcd already.
///
/// # Errors
/// When etcd does not say.
pub fn leftovers(live: &mut Live, bases: &[String]) -> Result<Vec<Leftover>, SourceError> {
    let range = |base: &String, resource: &str| {
        KeyRange::prefix(format!("{base}{resource}/{NAMESPACE}/{NAME}").as_bytes())
    };
    let ranges = bases.iter().flat_map(|b| KINDS.map(|(resource, _)| range(b, resource)));
    let ranges = merge_ranges(ranges.collect());
    let query = Query { ranges, revision: None, ordered: true };
    let mut found = Vec::new();
    live.visit(&query, &mut |entry| {
        found.push(Leftover { key: entry.key.to_vec(), leased: entry.lease != 0 });
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// What is to be written so that every key that the configuration writes with is shown; else the
/// resources of which neither a Secret nor a config map shows it.
///
/// # Errors
/// Those resources.
pub fn resources(config: &EncryptionConfig) -> Result<Vec<&'static str>, Vec<String>> {
    let first = |resource: &str| config.serving(resource).providers.first().map(|s| s.provider);
    let mut shown: Vec<(&str, &ProviderConfiguration)> = Vec::new();
    let covers = |shown: &[(&str, &ProviderConfiguration)], provider: &ProviderConfiguration| {
        shown.iter().any(|(_, other)| other.same(provider))
    };
    for (resource, _) in KINDS {
        if let Some(provider) = first(resource).filter(|p| !covers(&shown, p)) {
            shown.push((resource, provider));
        }
    }
    let all = config.group_resources().into_iter().map(|r| r.to_string());
    let unshown: Vec<String> =
        all.filter(|r| first(r).is_some_and(|p| !covers(&shown, p))).collect();
    if !unshown.is_empty() {
        return Err(unshown);
    }
    Ok(shown.into_iter().map(|(resource, _)| resource).collect())
}

/// Asks the servers once more, with the objects in etcd meanwhile.
///
/// # Errors
/// See [`Error`].
pub fn ask(
    live: &Live,
    (base, transformers): (&str, &Transformers),
    resources: &[&str],
    (mut asked, stop): (confirm::Options, &Arc<AtomicBool>),
    observer: &mut dyn Observer,
) -> Result<confirm::Outcome, Error> {
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    let lease = live.grant(SECONDS).map_err(|e| Error::Unwritten(chain(&e)))?;
    let mut keys = Vec::new();
    let said = put(live, (base, transformers), resources, lease, &mut keys).and_then(|canaries| {
        observer.note(&format!("a canary is in etcd for a moment: {}", keys.join(", ")));
        asked.shown = Some(Shown { canaries, stop: Arc::clone(stop) });
        confirm::run(&asked, observer).map_err(Error::Ask)
    });
    let removed = remove(live, lease, &keys);
    let said = said?;
    let lasted = removed?;
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    // Who came too late found nothing, wherever it looked.
    if !lasted && said.answered.iter().any(|a| a.loaded == Loaded::Absent) {
        return Err(Error::Late);
    }
    Ok(said)
}

/// Writes them. `keys` are those that may have been written, whatever comes of it.
fn put(
    live: &Live,
    (base, transformers): (&str, &Transformers),
    resources: &[&str],
    lease: i64,
    keys: &mut Vec<String>,
) -> Result<Vec<Canary>, Error> {
    fn cannot(e: &dyn std::error::Error) -> Error {
        Error::Unwritten(chain(e))
    }
    let kv = live.kv().map_err(|e| cannot(&e))?;
    let mut canaries = Vec::new();
    for (resource, kind) in KINDS.iter().filter(|(resource, _)| resources.contains(resource)) {
        let random = crate::random::bytes::<32>().map_err(|e| cannot(&e))?;
        let (name, object) = object(kind, &hex(&random));
        let plain = storage::encode(&object).map_err(|e| cannot(&e))?;
        let key = format!("{base}{resource}/{NAMESPACE}/{name}");
        let by = transformers.for_resource(resource);
        let value =
            by.write(key.as_bytes(), &Plaintext::new(plain.to_vec())).map_err(|e| cannot(&e))?;
        keys.push(key);
        let key = keys.last().map(String::as_bytes).unwrap_or_default();
        match kv.create(key, &value, lease) {
            Ok(Commit::Done(_)) => {}
            Ok(Commit::Conflict(_)) => {
                return Err(Error::Unwritten("its name is taken".to_owned()));
            }
            Err(e) => return Err(cannot(&e)),
        }
        let path = format!("/api/v1/namespaces/{NAMESPACE}/{resource}/{name}");
        canaries.push(Canary { path, data: object["data"]["canary"].clone() });
    }
    Ok(canaries)
}

/// Its name, and itself, of 64 random digits. Controllers that keep objects by their UIDs need one.
fn object(kind: &str, random: &str) -> (String, serde_json::Value) {
    use base64::Engine as _;
    let part = |from: usize, to: usize| random.get(from..to).unwrap_or_default();
    let (token, name) = (part(32, 64), format!("{NAME}{}", part(0, 12)));
    let parts = [part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32)];
    let uid = format!("{}-{}-4{}-8{}-{}", parts[0], parts[1], parts[2], parts[3], parts[4]);
    let encoded = base64::engine::general_purpose::STANDARD.encode(token);
    let value = if kind == "Secret" { encoded } else { token.to_owned() };
    let made = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let about = "made up by atrest, and removed by it or by its lease";
    let mut object = json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": uid, "creationTimestamp": made,
            "annotations": {"atrest/about": about},
        },
        "data": {"canary": value},
    });
    if kind == "Secret" {
        object["type"] = "Opaque".into();
    }
    (name, object)
}

/// Ends the lease, and the objects with it. Returns whether they were there until now.
fn remove(live: &Live, lease: i64, keys: &[String]) -> Result<bool, Error> {
    let Err(e) = live.revoke(lease) else { return Ok(true) };
    // It may have run out by itself.
    let gone = |key: &String| {
        let read = live.kv().ok().and_then(|kv| kv.read(&[&[key.as_bytes()]], None).ok());
        read.is_some_and(|found| found.iter().all(Option::is_none))
    };
    if keys.iter().all(gone) { Ok(false) } else { Err(Error::Left(keys.join(", "), e)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<&'static str>, Vec<String>> {
        let head =
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";
        let files = crate::config::load(format!("{head}{text}").as_bytes(), "test").unwrap();
        resources(&files[0].config)
    }

    /// As many objects as there are keys to be shown.
    #[test]
    fn every_key_that_is_written_with_is_shown() {
        let key = |name: &str, secret: char| {
            let secret = secret.to_string().repeat(4).repeat(11)[..43].to_owned() + "=";
            format!(
                "  providers: [{{secretbox: {{keys: [{{name: {name}, secret: {secret}}}]}}}}]\n"
            )
        };
        let one = key("k", 'A');
        let all = format!("- resources: ['*.*']\n{one}");
        assert_eq!(shown(&all).unwrap(), ["secrets"]);
        let both =
            format!("- resources: [secrets]\n{one}- resources: [configmaps]\n{}", key("k", 'Q'));
        assert_eq!(shown(&both).unwrap(), ["secrets", "configmaps"]);
        let alone = format!("- resources: [configmaps]\n{one}");
        assert_eq!(shown(&alone).unwrap(), ["configmaps"]);
        let other = format!("{both}- resources: [widgets.example.com]\n{}", key("other", 'A'));
        assert_eq!(shown(&other).unwrap_err(), ["widgets.example.com"]);
    }
}
