//! Sealed Secrets: which sealing key opens what (bitnami-labs/sealed-secrets `pkg/crypto/crypto.go`,
//! `pkg/apis/sealedsecrets/v1alpha1`).
//!
//! A sealed value is the length of an RSA ciphertext in two bytes, that ciphertext (OAEP with
//! SHA-256, the scope as its label), and the value under the key in it. Opening the RSA part is
//! proof enough; the value itself is not decrypted.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rayon::prelude::*;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::{Oaep, PrivateKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::Name;

/// How old the newest key may become before the controller makes another, seconds.
const RENEWAL: i64 = 30 * 86_400;
const KEY_LABEL: &str = "sealedsecrets.bitnami.com/sealed-secrets-key";

/// A sealing key.
pub struct Key {
    /// The Secret that holds it.
    pub name: Name,
    /// When it was made, RFC 3339.
    pub created: String,
    /// New values are sealed with one of these.
    pub active: bool,
    private: Option<PrivateKey>,
    /// What it opens.
    pub opens: BTreeSet<Name>,
}

/// How widely a `SealedSecret` may be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Strict,
    Namespace,
    Cluster,
}

/// A `SealedSecret`: the RSA parts of its values.
struct Item {
    scope: Scope,
    parts: Vec<Vec<u8>>,
}

/// Keys, and what they seal.
#[derive(Default)]
pub struct Sealed {
    /// By age, the oldest first, once [`Sealed::open`] has been called.
    pub keys: Vec<Key>,
    items: BTreeMap<Name, Item>,
    /// What no key opens.
    pub unsealable: BTreeSet<Name>,
}

impl Sealed {
    /// Learns from a Secret, if it is a sealing key.
    pub(super) fn key(&mut self, name: &Name, secret: &Value) {
        let Some(state) = secret["metadata"]["labels"][KEY_LABEL].as_str() else { return };
        let pem = secret["data"]["tls.key"].as_str().and_then(|t| STANDARD.decode(t).ok());
        let private = pem.map(Zeroizing::new).and_then(|pem| private_key(&pem));
        self.keys.push(Key {
            name: name.clone(),
            created: secret["metadata"]["creationTimestamp"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            active: state == "active",
            private,
            opens: BTreeSet::new(),
        });
    }

    /// Learns from a `SealedSecret`.
    pub(super) fn see(&mut self, name: &Name, object: &Value) {
        let marked = |scope: &str| {
            let annotation = format!("sealedsecrets.bitnami.com/{scope}");
            [&object["metadata"], &object["spec"]["template"]["metadata"]]
                .iter()
                .any(|m| m["annotations"][&annotation] == "true")
        };
        let scope = if marked("cluster-wide") {
            Scope::Cluster
        } else if marked("namespace-wide") {
            Scope::Namespace
        } else {
            Scope::Strict
        };
        let values = object["spec"]["encryptedData"].as_object().into_iter().flatten();
        let parts = values.map(|(_, value)| rsa_part(value.as_str().unwrap_or_default())).collect();
        self.items.insert(name.clone(), Item { scope, parts });
    }

    /// Whether there is anything of Sealed Secrets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.items.is_empty()
    }

    /// Tries the keys.
    pub fn open(&mut self) {
        self.keys.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        let keys = &self.keys;
        let tried: Vec<(&Name, BTreeSet<usize>, bool)> = self
            .items
            .par_iter()
            .map(|(name, item)| {
                let label = match item.scope {
                    Scope::Strict => format!("{}/{}", name.0, name.1),
                    Scope::Namespace => name.0.clone(),
                    Scope::Cluster => String::new(),
                };
                let mut used = BTreeSet::new();
                let mut whole = true;
                for part in &item.parts {
                    // Values of one object are mostly sealed with one key: the last one tried.
                    let order = used.iter().copied().chain((0..keys.len()).rev());
                    let found = order.into_iter().find(|i| opens(&keys[*i], part, &label));
                    match found {
                        Some(key) => drop(used.insert(key)),
                        None => whole = false,
                    }
                }
                (name, used, whole)
            })
            .collect();
        let mut opened: Vec<BTreeSet<Name>> = vec![BTreeSet::new(); keys.len()];
        let mut unsealable = BTreeSet::new();
        for (name, used, whole) in tried {
            for key in used {
                opened[key].insert(name.clone());
            }
            if !whole {
                unsealable.insert(name.clone());
            }
        }
        for (key, opens) in self.keys.iter_mut().zip(opened) {
            key.opens = opens;
        }
        self.unsealable = unsealable;
    }

    /// What is wrong: id, place, words.
    pub(super) fn findings(&self, now: Timestamp) -> Vec<(&'static str, String, String)> {
        let mut found = Vec::new();
        let newest = self
            .keys
            .iter()
            .filter(|k| k.active)
            .filter_map(|k| Some((k.created.parse::<Timestamp>().ok()?, k)));
        if let Some((made, key)) = newest.max_by_key(|(made, _)| *made)
            && now.as_second() - made.as_second() > RENEWAL
        {
            let place = format!("Secret {}/{}", key.name.0, key.name.1);
            found.push((
                "sealing-key-old",
                place,
                format!("the newest active sealing key is of {}", key.created),
            ));
        }
        for (name, item) in &self.items {
            let place = || format!("SealedSecret {}/{}", name.0, name.1);
            let wide = match item.scope {
                Scope::Strict => None,
                Scope::Namespace => Some("namespace-wide: it can be renamed"),
                Scope::Cluster => Some("cluster-wide: it can be renamed and moved"),
            };
            if let Some(what) = wide {
                found.push(("sealed-scope-wide", place(), what.to_owned()));
            }
            if self.unsealable.contains(name) {
                let what = "none of the stored sealing keys opens all of its values";
                found.push(("unsealable", place(), what.to_owned()));
            }
        }
        found
    }
}

fn private_key(pem: &[u8]) -> Option<PrivateKey> {
    match PrivateKeyDer::from_pem_slice(pem).ok()? {
        PrivateKeyDer::Pkcs1(der) => PrivateKey::from_pkcs1_der(der.secret_pkcs1_der()).ok(),
        PrivateKeyDer::Pkcs8(der) => PrivateKey::from_pkcs8_der(der.secret_pkcs8_der()).ok(),
        _ => None,
    }
}

/// The RSA ciphertext of a sealed value; empty for what is none, which nothing opens.
fn rsa_part(value: &str) -> Vec<u8> {
    let bytes = STANDARD.decode(value).unwrap_or_default();
    let part = bytes.split_at_checked(2).and_then(|(len, rest)| {
        let len = usize::from(u16::from_be_bytes([len[0], len[1]]));
        rest.get(..len)
    });
    part.unwrap_or_default().to_vec()
}

fn opens(key: &Key, part: &[u8], label: &str) -> bool {
    let Some(private) = &key.private else { return false };
    let padding = Oaep::<Sha256>::new_with_label(label.as_bytes().to_vec());
    private.decrypt(padding, part).map(Zeroizing::new).is_ok()
}
