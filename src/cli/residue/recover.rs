//! `--recover`: what was found, as files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::chain::chain;
use crate::cli::failure::{Failure, export_failure};
use crate::cli::inside::NO_KEYS;
use crate::entry::EntryRef;
use crate::envelope::Envelope;
use crate::export::{Tree, clean, top};
use crate::forensics::residue::{Bytes, Finding};
use crate::report::table;
use crate::resource::Scope;
use crate::scan::Causes;
use crate::storage;
use crate::transform::Transformers;

/// Writes findings below a directory: `GROUP/RESOURCE/NAMESPACE/NAME_rREVISION.yaml`, and what
/// is no whole object as it lies, in `.partial` files.
pub struct Recovery {
    tree: Tree,
    scope: Scope,
    clean: bool,
    /// Contents that were written, with their revisions, by key: copies are written once.
    seen: HashMap<Option<Vec<u8>>, Seen>,
    /// Encrypted values that are live, by digest: nothing of them is lost.
    live: HashSet<[u8; 32]>,
    encrypted: Encrypted,
    /// Whole objects.
    pub objects: u64,
    /// Parts, and what cannot be decoded.
    pub parts: u64,
    failure: Option<Failure>,
}

/// Contents of one key.
#[derive(Default)]
struct Seen {
    contents: HashSet<[u8; 32]>,
    revisions: HashSet<i64>,
}

/// What became of encrypted values.
#[derive(Default)]
struct Encrypted {
    transformers: Option<Transformers>,
    /// Decrypted, by what read them and where they lie.
    decrypted: BTreeMap<(String, &'static str), u64>,
    /// Those that no key reads.
    unread: Causes,
    /// Those of which parts are gone, which nothing can decrypt.
    broken: u64,
}

impl Encrypted {
    /// The plaintext of a finding, if it can be had.
    fn decrypt(&mut self, finding: &Finding, value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let key = finding.key.as_deref().unwrap_or_default();
        if finding.partial {
            self.broken += 1;
            return None;
        }
        let Some(transformers) = &self.transformers else {
            self.unread.add(key, NO_KEYS);
            return None;
        };
        match transformers.for_resource(&finding.resource).read(key, value) {
            Ok(opened) => {
                let by = (opened.used.to_string(), finding.place.as_str());
                *self.decrypted.entry(by).or_default() += 1;
                Some(Zeroizing::new(opened.plaintext.expose().to_vec()))
            }
            Err(e) => {
                self.unread.add(key, &chain(&e));
                None
            }
        }
    }
}

fn digest(key: &[u8], value: &[u8]) -> [u8; 32] {
    let mut sha = Sha256::new();
    sha.update((key.len() as u64).to_be_bytes());
    sha.update(key);
    sha.update(value);
    sha.finalize().into()
}

impl Recovery {
    /// Opens or makes the directory.
    pub fn new(dir: &Path, force: bool, clean: bool, scope: Scope) -> Result<Self, Failure> {
        let tree = Tree::open(dir, force).map_err(|e| export_failure(&e))?;
        Ok(Self {
            tree,
            scope,
            clean,
            seen: HashMap::new(),
            live: HashSet::new(),
            encrypted: Encrypted::default(),
            objects: 0,
            parts: 0,
            failure: None,
        })
    }

    /// Decrypts what is encrypted.
    pub fn decrypting(mut self, transformers: Option<Transformers>) -> Self {
        self.encrypted.transformers = transformers;
        self
    }

    /// An entry that is live.
    pub fn lives(&mut self, entry: EntryRef<'_>) {
        if !Envelope::of(entry.stored()).is_plaintext() {
            self.live.insert(digest(entry.key, entry.stored()));
        }
    }

    /// What could not be decrypted, by cause.
    pub fn unread(&self) -> &Causes {
        &self.encrypted.unread
    }

    /// Whether keys were given.
    pub fn has_keys(&self) -> bool {
        self.encrypted.transformers.is_some()
    }

    /// What was decrypted, and with what, in words.
    pub fn attribution(&self) -> Vec<String> {
        let one = |((by, place), n): (&(String, &'static str), &u64)| {
            let records = table::counted(*n, "encrypted record", "encrypted records");
            format!("{records} from {place} decrypted with {by}")
        };
        let mut lines: Vec<_> = self.encrypted.decrypted.iter().map(one).collect();
        let broken = self.encrypted.broken;
        if broken > 0 {
            let records = table::counted(broken, "encrypted record is", "encrypted records are");
            lines.push(format!("{records} overwritten in part, which no key can decrypt"));
        }
        lines
    }

    /// What must be known about the directory.
    pub fn remarks(&self) -> Vec<String> {
        self.tree.remarks()
    }

    /// Writes one finding. After a failure, nothing more.
    pub fn take(&mut self, finding: &Finding, bytes: Bytes<'_>) {
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
            let Some(plain) = self.encrypted.decrypt(finding, &value) else { return };
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

    /// How it ended.
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.tree.sync().map_err(|e| export_failure(&e))?;
        self.failure.take().map_or(Ok(()), Err)
    }

    /// What was written, in words.
    pub fn summary(&self, dir: &Path) -> String {
        let mut text = table::counted(self.objects, "object", "different objects or revisions");
        if self.parts > 0 {
            text.push_str(" and ");
            text.push_str(&table::counted(self.parts, "part of one", "parts"));
        }
        format!("{text} written to {}", dir.display())
    }

    /// `again`: another content of this key and revision was written before.
    fn write(
        &mut self,
        finding: &Finding,
        value: &[u8],
        copy: usize,
        again: bool,
    ) -> Result<(), Failure> {
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
            self.objects += 1;
            self.tree.write(&directories, &name, ".yaml", text.as_bytes())
        } else {
            self.parts += 1;
            let copy = format!("_c{copy}");
            let name = if name.ends_with(&copy) { name } else { name + &copy };
            self.tree.write(&directories, &name, ".partial", value)
        };
        path.map(|_| ()).map_err(|e| export_failure(&e))
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
        let mut recovery = Recovery::new(dir.path(), false, false, scope).unwrap();
        let finding = |partial| Finding {
            place: Place::LeftoverFile,
            location: "page 3 offset 20".to_owned(),
            key: Some(b"/registry/secrets/a/b".to_vec()),
            resource: "secrets".to_owned(),
            revision: Some(7),
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
        recovery.finish().unwrap();
        assert_eq!((recovery.objects, recovery.parts), (2, 1));
        let files = std::fs::read_dir(dir.path().join("core/secrets/a")).unwrap();
        let mut names: Vec<_> = files.map(|f| f.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["b_r7.yaml", "b_r7_c2.yaml", "b_r7_c3.partial"]);
    }
}
