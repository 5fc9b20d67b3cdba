//! `--recover`: what was found, as files.

use std::collections::HashMap;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::cli::failure::Failure;
use crate::cli::failure::export_failure;
use crate::export::{Tree, clean, top};
use crate::forensics::residue::{Bytes, Finding};
use crate::report::table;
use crate::resource::Scope;
use crate::storage;

/// Writes findings below a directory: `GROUP/RESOURCE/NAMESPACE/NAME_rREVISION.yaml`, and what
/// is no whole object as it lies, in `.partial` files.
pub struct Recovery {
    tree: Tree,
    scope: Scope,
    clean: bool,
    /// Contents that were written, with their revisions, by key: copies are written once.
    seen: HashMap<Option<Vec<u8>>, Vec<([u8; 32], Option<i64>)>>,
    /// Whole objects.
    pub objects: u64,
    /// Parts, and what cannot be decoded.
    pub parts: u64,
    failure: Option<Failure>,
}

impl Recovery {
    /// Opens or makes the directory.
    pub fn new(dir: &Path, force: bool, clean: bool, scope: Scope) -> Result<Self, Failure> {
        let tree = Tree::open(dir, force).map_err(|e| export_failure(&e))?;
        Ok(Self { tree, scope, clean, seen: HashMap::new(), objects: 0, parts: 0, failure: None })
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
        let digest: [u8; 32] = Sha256::digest(&*value).into();
        let known = self.seen.entry(finding.key.clone()).or_default();
        if known.iter().any(|(d, _)| *d == digest) {
            return;
        }
        // A cluster that was restored from a backup gives revisions out again.
        let again = finding.revision.is_some() && known.iter().any(|(_, r)| *r == finding.revision);
        known.push((digest, finding.revision));
        let copy = known.len();
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
