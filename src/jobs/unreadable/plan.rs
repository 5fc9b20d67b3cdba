//! Which entries nobody can read.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::entry::EntryRef;
use crate::envelope::{Provider, Version};
use crate::jobs::Observer;
use crate::posture::deleters::Deleters;
use crate::resource::{NamedKey, Scope, Selection, Selector, Sought, merge_ranges};
use crate::scan::Causes;
use crate::source::{Query, Source, SourceError, SourceInfo, Visit};
use crate::storage;
use crate::transform::{Attempt, AttemptError, CipherError, ReadError, Transformers};

/// What the API server asks of who deletes what it cannot read, in the body of a DELETE
/// (kubernetes/apimachinery `pkg/apis/meta/v1/types.go`: `DeleteOptions`).
pub const BODY: &str = r#"{"kind":"DeleteOptions","apiVersion":"v1","ignoreStoreReadErrorWithClusterBreakingPotential":true}"#;

/// What to look at.
pub struct Options<'a> {
    /// Where the API server keeps its objects.
    pub scope: &'a Scope,
    /// What is looked at.
    pub selection: &'a Selection,
    /// What of it must be there.
    pub sought: Sought,
    /// Entries that are looked at besides; where there are any, no other is listed.
    pub keys: &'a [NamedKey],
    /// With what values are read.
    pub transformers: &'a Transformers,
}

/// Why a value is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It is so damaged that no key opens it.
    Damaged,
    /// A key of its name does not open it, and opens others: it is damaged, or was written under
    /// another key of that name.
    WrongKey,
    /// A key of its name does not open it, nor any other value: the key may be the wrong one.
    Unproven,
    /// Nothing that was given has its provider or key: somebody else may.
    NoKey,
    /// The KMS refuses its data key, now.
    Refused,
}

impl Why {
    /// The word in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::WrongKey => "wrong-key",
            Self::Unproven => "unproven-key",
            Self::NoKey => "no-key",
            Self::Refused => "kms-refuses",
        }
    }

    /// Whether nothing that the user may have forgotten would read it.
    #[must_use]
    pub fn is_certain(self) -> bool {
        matches!(self, Self::Damaged | Self::WrongKey)
    }
}

/// An entry that is not read.
#[derive(Clone, Debug)]
pub struct Unread {
    /// Its etcd key.
    pub key: Vec<u8>,
    /// Group-qualified.
    pub resource: String,
    /// The namespace of the object.
    pub namespace: Option<String>,
    /// The name of the object.
    pub name: String,
    /// The revision at which this was seen.
    pub mod_revision: i64,
    /// Bytes of its value.
    pub size: u64,
    /// What kind of trouble it is.
    pub why: Why,
    /// In words.
    pub reason: String,
    /// Where the API server serves it; `VERSION` stands for what nobody here knows.
    pub path: String,
    /// Subjects that may have the API server delete it.
    pub who: Vec<String>,
}

/// What was found.
#[derive(Debug)]
pub struct Outcome {
    /// What was read.
    pub source: SourceInfo,
    /// What the source said.
    pub visit: Visit,
    /// Entries that were looked at.
    pub entries: u64,
    /// In key order.
    pub unread: Vec<Unread>,
    /// Entries of which nobody knows, because a KMS did not answer.
    pub unknown: Causes,
    /// Entries that a secret under another name reads.
    pub other_name: Causes,
    /// Named entries that are there and are read.
    pub readable: Vec<String>,
    /// Named entries that are not there.
    pub missing: Vec<String>,
    /// What was seen of what was asked for.
    pub sought: Sought,
    /// Why it is not known, or not wholly, who may have them deleted.
    pub rights: Option<String>,
}

type KeyName = (Provider, Option<Version>, Arc<str>);

/// An entry that failed, before it is known which keys are right.
struct Failed {
    unread: Unread,
    tried: Vec<KeyName>,
}

struct Finder<'a> {
    options: &'a Options<'a>,
    /// Every spelling of the named keys.
    named: HashSet<&'a [u8]>,
    entries: u64,
    /// Keys that read something.
    proven: HashSet<KeyName>,
    /// Versions that objects of a resource are stored in.
    versions: BTreeMap<String, String>,
    failed: Vec<Failed>,
    unknown: Causes,
    other_name: Causes,
    seen: HashSet<Vec<u8>>,
    readable: Vec<String>,
    sought: Sought,
}

/// Finds them.
///
/// # Errors
/// When the source cannot be read.
pub fn run(
    source: &mut dyn Source,
    options: &Options<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, SourceError> {
    let named = options.keys.iter().flat_map(NamedKey::singles);
    let ranges = options.selection.ranges().into_iter().chain(named).collect();
    let query = Query { ranges: merge_ranges(ranges), revision: None, ordered: true };
    let mut finder = Finder {
        options,
        named: options.keys.iter().flat_map(|n| &n.keys).map(Vec::as_slice).collect(),
        entries: 0,
        proven: HashSet::new(),
        versions: BTreeMap::new(),
        failed: Vec::new(),
        unknown: Causes::default(),
        other_name: Causes::default(),
        seen: HashSet::new(),
        readable: Vec::new(),
        sought: options.sought.clone(),
    };
    observer.begin("entries", &mut || source.estimate(&query));
    let visit = source.visit(&query, &mut |entry| {
        observer.advance(1);
        finder.take(entry);
        ControlFlow::Continue(())
    });
    observer.end();
    let visit = visit?;
    let (deleters, rights) = match rights(source, options, visit.revision) {
        Ok((deleters, 0)) => (deleters, None),
        Ok((deleters, n)) => (deleters, Some(format!("{n} roles and bindings cannot be read"))),
        Err(e) => (Deleters::default(), Some(e.to_string())),
    };
    let missing = finder.missing();
    let Finder { entries, proven, versions, failed, unknown, other_name, readable, sought, .. } =
        finder;
    let judge = |Failed { mut unread, tried }: Failed| {
        if unread.why == Why::WrongKey && !tried.iter().all(|key| proven.contains(key)) {
            unread.why = Why::Unproven;
        }
        unread.path = path(&unread, versions.get(&unread.resource));
        let who = deleters.of(&unread.resource, unread.namespace.as_deref(), &unread.name);
        unread.who = who.into_iter().map(str::to_owned).collect();
        unread
    };
    let unread = failed.into_iter().map(judge).collect();
    let source = source.info();
    Ok(Outcome {
        source,
        visit,
        entries,
        unread,
        unknown,
        other_name,
        readable,
        missing,
        sought,
        rights,
    })
}

impl Finder<'_> {
    /// Named keys of which no spelling is there.
    fn missing(&self) -> Vec<String> {
        let there = |named: &&NamedKey| !named.keys.iter().any(|key| self.seen.contains(key));
        self.options.keys.iter().filter(there).map(|named| named.text.clone()).collect()
    }

    fn take(&mut self, entry: EntryRef<'_>) {
        let named = self.named.contains(entry.key);
        if !named && self.options.selection.locate(entry.key).is_none() {
            return;
        }
        let location = self.options.scope.locate_named(entry.key);
        if location.internal {
            return;
        }
        self.entries += 1;
        self.sought.saw(&location);
        let listed = named || self.options.keys.is_empty();
        if named {
            self.seen.insert(entry.key.to_vec());
        }
        let transformers = self.options.transformers.for_resource(&location.resource);
        let error = match transformers.read(entry.key, entry.stored()) {
            Ok(opened) => {
                if let Some(key) = opened.used.key {
                    self.proven.insert((opened.used.provider, opened.used.version, key));
                }
                if let Ok(object) = storage::type_meta(opened.plaintext.expose()) {
                    let version = object.api_version.rsplit('/').next().unwrap_or_default();
                    self.versions
                        .entry(location.resource.to_string())
                        .or_insert_with(|| version.to_owned());
                }
                if named {
                    self.readable.push(String::from_utf8_lossy(entry.key).into_owned());
                }
                return;
            }
            Err(error) => error,
        };
        if !listed {
            return;
        }
        let reason = error.to_string();
        let why = match &error {
            ReadError::KmsUnreachable(_) => return self.unknown.add(entry.key, &reason),
            ReadError::OtherName { .. } => return self.other_name.add(entry.key, &reason),
            ReadError::NoProvider(_) => Why::NoKey,
            ReadError::Malformed(_) => Why::Damaged,
            ReadError::Failed(attempts) => of_attempts(attempts),
        };
        let attempts = error.attempts().iter();
        let tried = attempts.filter_map(|a| Some((a.provider, a.version, a.key.clone()?)));
        self.failed.push(Failed {
            tried: tried.collect(),
            unread: Unread {
                key: entry.key.to_vec(),
                resource: location.resource.to_string(),
                namespace: location.namespace.as_ref().map(ToString::to_string),
                name: location.name.to_string(),
                mod_revision: entry.mod_revision,
                size: entry.stored().len() as u64,
                why,
                reason,
                path: String::new(),
                who: Vec::new(),
            },
        });
    }
}

/// The worst that could be remedied.
fn of_attempts(attempts: &[Attempt]) -> Why {
    let of = |attempt: &Attempt| match &attempt.error {
        AttemptError::NoSuchKey(_) | AttemptError::Cipher(CipherError::KeyLength(_)) => Why::NoKey,
        AttemptError::Kms(_) => Why::Refused,
        AttemptError::Cipher(_) => Why::WrongKey,
    };
    attempts.iter().map(of).max().unwrap_or(Why::NoKey)
}

/// Roles and bindings, and how many of them cannot be read.
fn rights(
    source: &mut dyn Source,
    options: &Options<'_>,
    revision: i64,
) -> Result<(Deleters, u64), SourceError> {
    let resources = ["roles", "clusterroles", "rolebindings", "clusterrolebindings"]
        .map(|name| Selector::Exact(format!("{name}.rbac.authorization.k8s.io")));
    let ranges = options.scope.ranges(&resources);
    let query = Query { ranges, revision: Some(revision), ordered: false };
    let (mut deleters, mut unread) = (Deleters::default(), 0);
    source.visit(&query, &mut |entry| {
        let location = options.scope.locate(entry.key);
        let transformers = options.transformers.for_resource(&location.resource);
        let opened = transformers.read(entry.key, entry.stored()).ok();
        match opened.and_then(|opened| storage::decode(opened.plaintext.expose()).ok()) {
            Some(object) => deleters.see(&location.resource, &object.json),
            None => unread += 1,
        }
        ControlFlow::Continue(())
    })?;
    Ok((deleters, unread))
}

/// Where the API server serves an object.
fn path(unread: &Unread, version: Option<&String>) -> String {
    let (plural, group) = unread.resource.split_once('.').unwrap_or((&unread.resource, ""));
    let version = match (group, version) {
        ("", _) => "v1",
        (_, Some(version)) => version,
        (_, None) => "VERSION",
    };
    let base = match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    match &unread.namespace {
        Some(namespace) => format!("{base}/namespaces/{namespace}/{plural}/{}", unread.name),
        None => format!("{base}/{plural}/{}", unread.name),
    }
}
