//! The configuration files of a rotation. From the one in which the new key was added, the others
//! follow: nothing about them has to be remembered.

use zeroize::Zeroizing;

use super::{Key, Role};
use crate::apiserver::hash;
use crate::config::{self, EncryptionConfig, RotateError, Rotated, Step, Which};
use crate::envelope::Provider;
use crate::secret::KeyMaterial;

/// What is to become the key that writes.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Its provider; none is the one that writes now.
    pub provider: Option<Provider>,
    /// Its name. One that is in the configuration already is only promoted.
    pub name: Option<String>,
    /// The entries of the configuration that list these resources; empty is every one that is
    /// concerned.
    pub resources: Vec<String>,
}

/// Why there are no files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A step cannot be taken.
    #[error("{}: {error}", step(*.role))]
    Step {
        /// The file that cannot be made.
        role: Role,
        /// Why not.
        error: RotateError,
    },
    /// Entries that write with different keys.
    #[error("the entries of the configuration write with different keys: {0}")]
    Several(String),
    /// A file that is there already, and is not what it should be.
    #[error("{0} exists, and is not the file that this rotation would make")]
    Foreign(String),
}

fn step(role: Role) -> &'static str {
    match role {
        Role::Start | Role::Added => "the new key cannot be added",
        Role::Promoted => "the new key cannot be promoted",
        Role::Retired => "the old key cannot be retired",
    }
}

/// All files of a rotation. They hold keys.
#[derive(Clone)]
pub struct Chain {
    /// The key that comes.
    pub new: Key,
    /// The key that goes.
    pub old: Key,
    /// The file with the new key for reading.
    pub added: Zeroizing<String>,
    /// The file with the new key for writing.
    pub promoted: Rotated,
    /// The file without the old one.
    pub retired: Rotated,
}

impl Chain {
    /// The text of a file; none of the first.
    #[must_use]
    pub fn text(&self, role: Role) -> Option<&str> {
        match role {
            Role::Start => None,
            Role::Added => Some(&self.added),
            Role::Promoted => Some(&self.promoted.text),
            Role::Retired => Some(&self.retired.text),
        }
    }

    /// Its hash, as API servers tell it.
    #[must_use]
    pub fn hash(&self, role: Role) -> Option<String> {
        self.text(role).map(|text| hash(text.as_bytes()))
    }
}

fn failed(role: Role) -> impl FnOnce(RotateError) -> FilesError {
    move |error| FilesError::Step { role, error }
}

/// Adds the key that is wanted to `text`, unless it is there, and makes the files after that: what
/// cannot be done is said before anything was. `secret` is the key, if one is needed.
///
/// # Errors
/// See [`FilesError`].
pub fn begin(
    text: &str,
    wanted: &Wanted,
    fresh: &str,
    secret: impl FnOnce() -> KeyMaterial,
) -> Result<Chain, FilesError> {
    let config = config::parse(text.as_bytes())
        .map_err(|e| FilesError::Step { role: Role::Added, error: e.into() })?
        .config;
    let there = wanted.name.as_deref().and_then(|name| present(&config, wanted, name));
    if let Some(new) = there {
        return chain(text, &new, &wanted.resources);
    }
    let name = wanted.name.clone().unwrap_or_else(|| fresh.to_owned());
    add(text, wanted, name, secret())
}

/// The provider of a key of that name, where the configuration has one.
fn present(config: &EncryptionConfig, wanted: &Wanted, name: &str) -> Option<Key> {
    let fits = |p: Provider| wanted.provider.is_none_or(|w| w == p);
    let mut found = config
        .providers()
        .filter(|s| fits(s.provider.provider()) && s.provider.names().any(|n| n == name));
    found.next().map(|s| Key::new(s.provider.provider(), Some(name)))
}

fn add(
    text: &str,
    wanted: &Wanted,
    name: String,
    secret: KeyMaterial,
) -> Result<Chain, FilesError> {
    let step = Step::Add { provider: wanted.provider, name, secret };
    let added = config::rotate(text, &step, &wanted.resources).map_err(failed(Role::Added))?;
    let new = Key::new(added.provider, added.name.as_deref());
    chain(&added.text, &new, &wanted.resources)
}

/// The files that follow from the one in which the new key can be read.
///
/// # Errors
/// See [`FilesError`].
pub fn chain(added: &str, new: &Key, resources: &[String]) -> Result<Chain, FilesError> {
    let before = config::parse(added.as_bytes())
        .map_err(|e| FilesError::Step { role: Role::Added, error: e.into() })?
        .config;
    let which = |key: &Key| Which { provider: Some(key.provider), name: key.name.clone() };
    let promoted = config::rotate(added, &Step::Promote(which(new)), resources)
        .map_err(failed(Role::Promoted))?;
    let mut writers: Vec<Key> = promoted
        .entries
        .iter()
        .filter_map(|e| before.entries.get(*e)?.providers.first())
        .map(|p| Key::new(p.provider(), p.names().next()))
        .collect();
    writers.sort();
    writers.dedup();
    let [old] = writers.as_slice() else {
        let names: Vec<_> = writers.iter().map(ToString::to_string).collect();
        return Err(FilesError::Several(names.join(", ")));
    };
    let retired = config::rotate(&promoted.text, &Step::Retire(which(old)), resources)
        .map_err(failed(Role::Retired))?;
    Ok(Chain {
        new: new.clone(),
        old: old.clone(),
        added: Zeroizing::new(added.to_owned()),
        promoted,
        retired,
    })
}

/// What was made of a file that lies where that of the first step belongs, although nothing is
/// remembered of it: a run was ended between writing the one and the other.
pub enum Adopted {
    /// It is the first step of this rotation.
    Ours(Box<Chain>),
    /// It is something else.
    Foreign,
}

/// Looks whether `added` is what adding the wanted key to `text` makes, and with which key.
#[must_use]
pub fn adopt(text: &str, added: &str, wanted: &Wanted) -> Adopted {
    let parse = |text: &str| config::parse(text.as_bytes()).map(|p| p.config);
    let (Ok(before), Ok(after)) = (parse(text), parse(added)) else { return Adopted::Foreign };
    let there = |p: Provider, name: &str| {
        before
            .providers()
            .any(|s| s.provider.provider() == p && s.provider.names().any(|n| n == name))
    };
    for served in after.providers() {
        let kind = served.provider.provider();
        for key in served.provider.keys().iter().filter(|k| !there(kind, &k.name)) {
            let fits = wanted.name.as_ref().is_none_or(|name| *name == key.name)
                && wanted.provider.is_none_or(|p| p == kind);
            if !fits {
                continue;
            }
            let made = add(text, wanted, key.name.clone(), key.secret.clone());
            if let Ok(chain) = made
                && *chain.added == added
            {
                return Adopted::Ours(Box::new(chain));
            }
        }
    }
    Adopted::Foreign
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Throwaway keys.
    const ONE: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
        resources:\n- resources: [secrets]\n  providers:\n  - aescbc:\n      keys:\n      \
        - {name: old, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}\n  - identity: {}\n";

    fn secret() -> KeyMaterial {
        KeyMaterial::new(vec![7; 32])
    }

    fn key(provider: Provider, name: &str) -> Key {
        Key::new(provider, Some(name))
    }

    #[test]
    fn the_files_follow_from_the_first() {
        let wanted = Wanted { provider: Some(Provider::Secretbox), ..Wanted::default() };
        let made = begin(ONE, &wanted, "key-1", secret).unwrap();
        assert_eq!(made.new, key(Provider::Secretbox, "key-1"));
        assert_eq!(made.old, key(Provider::AesCbc, "old"));
        let again = chain(&made.added, &made.new, &[]).unwrap();
        for role in Role::ALL {
            assert_eq!(made.hash(role), again.hash(role));
        }
        let of = |text: &str| config::parse(text.as_bytes()).unwrap().config;
        let has = |text: &str, name: &str| {
            of(text).providers().any(|s| s.provider.names().any(|n| n == name))
        };
        assert!(has(&made.added, "old") && has(&made.added, "key-1"));
        assert!(has(&made.promoted.text, "old") && has(&made.promoted.text, "key-1"));
        assert!(!has(&made.retired.text, "old") && has(&made.retired.text, "key-1"));
    }

    #[test]
    fn a_key_that_is_there_is_only_promoted() {
        let text = ONE.replace(
            "  - identity",
            "      - {name: new, secret: ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=}\n  - identity",
        );
        let wanted = Wanted { name: Some("new".to_owned()), ..Wanted::default() };
        let made = begin(&text, &wanted, "unused", || panic!("no key is needed")).unwrap();
        assert!(*made.added == text && made.old == key(Provider::AesCbc, "old"));
    }

    #[test]
    fn what_cannot_be_finished_is_not_begun() {
        let two = ONE.replace(
            "resources:\n- res",
            "resources:\n- resources: [configmaps]\n  providers:\n  - aescbc:\n      keys:\n      \
             - {name: other, secret: ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=}\n- res",
        );
        let error = begin(&two, &Wanted::default(), "key-1", secret).err().unwrap();
        assert!(error.to_string().contains("different keys: aescbc key `old`"), "{error}");
        let one = Wanted { resources: vec!["secrets".to_owned()], ..Wanted::default() };
        assert!(begin(&two, &one, "key-1", secret).is_ok());
        let identity = ONE.split("  - aescbc").next().unwrap().to_owned() + "  - identity: {}\n";
        let error = begin(&identity, &Wanted::default(), "key-1", secret).err().unwrap();
        assert!(error.to_string().starts_with("the new key cannot be added: identity"), "{error}");
    }

    #[test]
    fn a_file_without_a_memory_of_it_is_known_again() {
        let wanted = Wanted::default();
        let made = begin(ONE, &wanted, "key-1", secret).unwrap();
        let ours = |text: &str, added: &str, wanted: &Wanted| matches!(adopt(text, added, wanted), Adopted::Ours(c) if *c.added == added);
        assert!(ours(ONE, &made.added, &wanted));
        assert!(!ours(ONE, ONE, &wanted));
        assert!(!ours(ONE, &format!("{}# changed\n", *made.added), &wanted));
        let named = Wanted { name: Some("key-2".to_owned()), ..Wanted::default() };
        assert!(!ours(ONE, &made.added, &named));
    }
}
