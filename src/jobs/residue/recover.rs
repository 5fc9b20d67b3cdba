//! What was found, as files.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Recover, Recovered};
use crate::chain::chain;
use crate::envelope::Envelope;
use crate::export::{ExportError, Tree, clean, top};
use crate::forensics::residue::{Bytes, Finding};
use crate::resource::Scope;
use crate::storage;
use crate::transform::Transformers;

/// Of a value, with its key.
pub(in crate::jobs) type Digest = [u8; 32];

/// Writes findings below a directory: `GROUP/RESOURCE/NAMESPACE/NAME_rREVISION.yaml`, and what
/// is no whole object as it lies, in `.partial` files.
pub(super) struct Recovery {
    tree: Tree,
    scope: Scope,
    clean: bool,
    keys: Result<Transformers, &'static str>,
    /// Contents that were written, with their revisions, by key: copies are written once.
    seen: HashMap<Option<Vec<u8>>, Seen>,
    /// Values that are live: nothing of them is lost.
    live: HashSet<Digest>,
    written: Recovered,
    failure: Option<ExportError>,
}

/// Contents of one key.
#[derive(Default)]
struct Seen {
    contents: HashSet<Digest>,
    revisions: HashSet<i64>,
}

pub(in crate::jobs) fn digest(key: &[u8], value: &[u8]) -> Digest {
    let mut sha = Sha256::new();
    sha.update((key.len() as u64).to_be_bytes());
    sha.update(key);
    sha.update(value);
    sha.finalize().into()
}

impl Recovery {
    /// Opens or makes the directory.
    pub(super) fn new(how: Recover<'_>, scope: Scope) -> Result<Self, ExportError> {
        Ok(Self {
            tree: Tree::open(how.dir, how.force)?,
            scope,
            clean: how.clean,
            keys: how.keys,
            seen: HashMap::new(),
            live: HashSet::new(),
            written: Recovered::default(),
            failure: None,
        })
    }

    /// An entry that is live.
    pub(super) fn live(&mut self, key: &[u8], value: &[u8]) {
        if !Envelope::of(value).is_plaintext() {
            self.live.insert(digest(key, value));
        }
    }

    /// Entries that are live.
    #[cfg(feature = "kine")]
    pub(super) fn are_live(&mut self, digests: impl Iterator<Item = Digest>) {
        self.live.extend(digests);
    }

    /// What must be known about the directory.
    pub(super) fn remarks(&self) -> Vec<String> {
        self.tree.remarks()
    }

    /// Writes one finding. After a failure, nothing more.
    pub(super) fn take(&mut self, finding: &Finding, bytes: Bytes<'_>) {
        if self.failure.is_some() {
            return;
        }
        let value = bytes.value();
        let digest = digest(finding.key.as_deref().unwrap_or_default(), &value);
        if finding.encrypted && self.live.contains(&digest) {
            return;
        }
        let known = self.seen.entry(finding.key.clone()).or_default();
        if !known.contents.insert(digest) {
            return;
        }
        let value = if finding.encrypted {
            let Some(plain) = decrypted(&self.keys, finding, &value, &mut self.written) else {
                return;
            };
            plain
        } else {
            value
        };
        // A cluster that was restored from a backup gives revisions out again.
        let again = finding.revision.is_some_and(|r| !known.revisions.insert(r));
        let copy = known.contents.len();
        if let Err(failure) = self.write(finding, &value, copy, again) {
            self.failure = Some(failure);
        }
    }

    /// What was written, all of it on the disk.
    pub(super) fn finish(self) -> Result<Recovered, ExportError> {
        self.tree.sync()?;
        self.failure.map_or(Ok(self.written), Err)
    }

    /// `again`: another content of this key and revision was written before.
    fn write(
        &mut self,
        finding: &Finding,
        value: &[u8],
        copy: usize,
        again: bool,
    ) -> Result<(), ExportError> {
        let location = finding.key.as_deref().map(|key| self.scope.locate(key));
        let (group, resource) = top(&finding.resource);
        let mut directories = vec![group, resource];
        directories.extend(location.as_ref().and_then(|l| l.namespace.as_deref()));
        // Names of objects have no underscore, so the suffix cannot be taken for a part of one.
        let name = match (&location, finding.revision) {
            (Some(l), Some(revision)) if again => format!("{}_r{revision}_c{copy}", l.name),
            (Some(l), Some(revision)) => format!("{}_r{revision}", l.name),
            (Some(l), None) => format!("{}_c{copy}", l.name),
            (None, _) => finding.location.replace(' ', "-"),
        };
        let decoded = if finding.partial { None } else { storage::decode(value).ok() };
        let path = if let Some(mut object) = decoded {
            object.hide_managed_fields();
            if self.clean {
                clean(&mut object.json);
            }
            let text = Zeroizing::new(storage::yaml::to_string(&object.json));
            storage::wipe(&mut object.json);
            self.written.objects += 1;
            self.tree.write(&directories, &name, ".yaml", text.as_bytes())
        } else {
            self.written.parts += 1;
            let copy = format!("_c{copy}");
            let name = if name.ends_with(&copy) { name } else { name + &copy };
            self.tree.write(&directories, &name, ".partial", value)
        };
        path.map(|_| ())
    }
}

/// The plaintext of an encrypted record, if it can be had.
fn decrypted(
    keys: &Result<Transformers, &'static str>,
    finding: &Finding,
    value: &[u8],
    written: &mut Recovered,
) -> Option<Zeroizing<Vec<u8>>> {
    let key = finding.key.as_deref().unwrap_or_default();
    if finding.partial {
        written.broken += 1;
        return None;
    }
    let keys = match keys {
        Ok(keys) => keys,
        Err(why) => {
            written.unread.add(key, why);
            return None;
        }
    };
    match keys.for_resource(&finding.resource).read(key, value) {
        Ok(opened) => {
            let by = (opened.used.to_string(), finding.place.as_str());
            *written.decrypted.entry(by).or_default() += 1;
            Some(Zeroizing::new(opened.plaintext.expose().to_vec()))
        }
        Err(e) => {
            written.unread.add(key, &chain(&e));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forensics::residue::Place;

    #[test]
    fn unlike_contents_of_one_revision_are_both_written() {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope::new("/registry/");
        let how = Recover { dir: dir.path(), force: false, clean: false, keys: Err("none") };
        let mut recovery = Recovery::new(how, scope).unwrap();
        let finding = |partial| Finding {
            place: Place::LeftoverFile,
            location: "page 3 offset 20".to_owned(),
            key: Some(b"/registry/secrets/a/b".to_vec()),
            resource: "secrets".to_owned(),
            revision: Some(7),
            written: None,
            deletion: false,
            size: 0,
            partial,
            encrypted: false,
        };
        let mut take = |text: &str, partial| {
            let value = format!(r#"{{"apiVersion":"v1","kind":"Widget","x":"{text}"}}"#);
            let whole = 0..value.len();
            let bytes = Bytes::new(value.as_bytes(), 0, std::slice::from_ref(&whole));
            recovery.take(&finding(partial), bytes);
        };
        for (text, partial) in [("1", false), ("2", false), ("1", false), ("3", true)] {
            take(text, partial);
        }
        let written = recovery.finish().unwrap();
        assert_eq!((written.objects, written.parts), (2, 1));
        let files = std::fs::read_dir(dir.path().join("core/secrets/a")).unwrap();
        let mut names: Vec<_> = files.map(|f| f.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["b_r7.yaml", "b_r7_c2.yaml", "b_r7_c3.partial"]);
    }
}
