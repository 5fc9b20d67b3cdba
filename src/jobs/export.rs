//! Objects → manifests, in a directory tree or one after the other.

use std::io::{self, Write};
use std::ops::ControlFlow;

use serde_json::Value;
use zeroize::Zeroizing;

use super::Observer;
use crate::entry::EntryRef;
use crate::export::{ExportError, Tree, clean, top};
use crate::objects::{Hollow, Objects, Shown, fields};
use crate::resource::{Location, Selection, Selector};
use crate::scan::Causes;
use crate::scan::place::Misplaced;
use crate::source::{Query, Source, SourceError, Visit};
use crate::storage;

/// What to export.
pub struct Options<'o> {
    /// Which objects.
    pub selection: &'o Selection,
    /// As of this revision; `None` is the newest.
    pub revision: Option<i64>,
    /// How manifests are written.
    pub form: Form,
    /// They lose what a server fills in.
    pub clean: bool,
    /// Objects that are not what their keys say are written under those keys.
    pub include_misplaced: bool,
}

/// How a manifest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Documents of YAML.
    Yaml,
    /// Objects of JSON; one after the other, as the items of a list.
    Json,
}

/// Where manifests go.
pub enum Destination<'o> {
    /// Each to a file of its own.
    Tree(Tree),
    /// One after the other.
    Stream(&'o mut dyn Write),
}

/// What was exported.
#[derive(Default)]
pub struct Outcome {
    /// What the source said.
    pub visit: Visit,
    /// Objects that were written.
    pub written: u64,
    /// Entries that were not, for `causes`.
    pub failed: u64,
    /// Written, but with fields missing that this version does not know.
    pub incomplete: u64,
    /// Misplaced, and so not written.
    pub left_out: u64,
    /// Why some could not be written.
    pub causes: Causes,
    /// Misplaced objects by their keys, the first few.
    pub misplaced: Vec<(Vec<u8>, Box<Misplaced>)>,
}

impl Outcome {
    /// Whether everything that was asked for was written as it is.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.left_out == 0
            && self.failed == 0
            && self.incomplete == 0
            && self.visit.damage.is_empty()
    }
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file.
    #[error(transparent)]
    Write(#[from] ExportError),
    /// The stream.
    #[error("cannot write the manifests")]
    Stream(#[from] io::Error),
}

/// How many misplaced objects are remembered.
const NAMED: usize = 20;

/// What other objects need to exist first.
const FIRST: [&str; 2] = ["namespaces", "customresourcedefinitions.apiextensions.k8s.io"];

/// Writes objects, namespaces and definitions first, so that the result can be applied in order.
///
/// # Errors
/// See [`Error`].
pub fn run(
    source: &mut dyn Source,
    objects: &Objects,
    options: &Options<'_>,
    target: Destination<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let selection = options.selection;
    for remark in target.tree().iter().flat_map(|tree| tree.remarks()) {
        observer.warning(&remark);
    }
    let mut writer = Writer { options, objects, target, outcome: Outcome::default() };
    let mut query = selection.query(options.revision, true);
    observer.begin("entries", &mut || source.estimate(&query));
    let first = only(selection, &FIRST);
    let mut passes = Vec::new();
    if !first.resources.is_empty() {
        passes.push((&first, true));
    }
    passes.push((selection, false));
    for (pass, is_first) in passes {
        let ranges = Query { ranges: pass.query(None, true).ranges, ..query.clone() };
        let wanted = |location: &Location<'_>| {
            !location.internal
                && pass.resources.iter().any(|s| s.matches(&location.resource))
                && FIRST.contains(&location.resource.as_ref()) == is_first
        };
        let visit = writer.visit(source, &ranges, &wanted, observer)?;
        // Both passes see one state.
        query.revision = Some(visit.revision);
        writer.outcome.visit = visit;
    }
    observer.end();
    let mut outcome = writer.finish()?;
    let mut misplaced: Vec<_> = outcome.misplaced.iter_mut().map(|(_, m)| &mut **m).collect();
    // That nobody can look makes the objects no less misplaced.
    let _ = objects.look(source, outcome.visit.revision, &selection.scope, &mut misplaced);
    Ok(outcome)
}

/// The selection narrowed to some resources.
fn only(selection: &Selection, resources: &[&str]) -> Selection {
    let narrowed = resources
        .iter()
        .filter(|r| selection.resources.iter().any(|s| s.matches(r)))
        .map(|r| Selector::Exact((*r).to_owned()))
        .collect();
    Selection { resources: narrowed, ..selection.clone() }
}

impl Destination<'_> {
    fn tree(&self) -> Option<&Tree> {
        match self {
            Self::Tree(tree) => Some(tree),
            Self::Stream(_) => None,
        }
    }
}

struct Writer<'o, 't> {
    options: &'o Options<'o>,
    objects: &'o Objects,
    target: Destination<'t>,
    outcome: Outcome,
}

impl Writer<'_, '_> {
    fn visit(
        &mut self,
        source: &mut dyn Source,
        query: &Query,
        wanted: &dyn Fn(&Location<'_>) -> bool,
        observer: &mut dyn Observer,
    ) -> Result<Visit, Error> {
        let mut failed = None;
        let visit = source.visit(query, &mut |entry| {
            let location = self.options.selection.locate(entry.key);
            let Some(location) = location.filter(|l| wanted(l)) else {
                return ControlFlow::Continue(());
            };
            observer.advance(1);
            match self.one(entry, &location, observer) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(visit), Err)
    }

    fn one(
        &mut self,
        entry: EntryRef<'_>,
        location: &Location<'_>,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        let mut shown = match self.objects.read(entry, location) {
            Ok(shown) => shown,
            Err(not) => {
                self.outcome.failed += 1;
                self.outcome.causes.add(entry.key, &not.words());
                return Ok(());
            }
        };
        if let Some(found) = shown.judged.misplaced.take() {
            if self.outcome.misplaced.len() < NAMED {
                self.outcome.misplaced.push((entry.key.to_vec(), found));
            }
            if !self.options.include_misplaced {
                self.outcome.left_out += 1;
                return Ok(());
            }
        }
        if let Some(hollow) = shown.hollow.take() {
            self.outcome.failed += 1;
            return self.raw(&hollow, location, entry.key);
        }
        let Shown { unknown, json, .. } = &mut shown;
        if !unknown.is_empty() {
            self.outcome.incomplete += 1;
            let key = String::from_utf8_lossy(entry.key);
            observer.warning(&format!("{key}: these are missing: {}", fields(unknown)));
        }
        if self.options.clean {
            clean(json);
        }
        self.object(json, location, entry.key)
    }

    /// The bytes of an object that cannot be written as a manifest, beside the reason: not lost,
    /// and no manifest that would make an empty object. There is no place for them in a stream.
    fn raw(&mut self, hollow: &Hollow, location: &Location<'_>, key: &[u8]) -> Result<(), Error> {
        let Destination::Tree(tree) = &self.target else {
            self.outcome.causes.add(key, &hollow.reason);
            return Ok(());
        };
        let directories = directories(location, key);
        let (_, name) = location.exactly(key);
        let reason = format!(
            "{}.\nThe stored bytes, decrypted, are in the file beside this one.\n",
            hollow.reason
        );
        for (extension, content) in
            [(".protobuf", hollow.bytes.expose()), (".protobuf.txt", reason.as_bytes())]
        {
            tree.write(&directories, name, extension, content)?;
        }
        let reason = format!("{}; its bytes are in a .protobuf file", hollow.reason);
        self.outcome.causes.add(key, &reason);
        Ok(())
    }

    fn object(&mut self, json: &Value, location: &Location<'_>, key: &[u8]) -> Result<(), Error> {
        let text = Zeroizing::new(match self.options.form {
            Form::Json => format!("{json:#}\n"),
            Form::Yaml => storage::yaml::to_string(json),
        });
        let first = self.outcome.written == 0;
        match (&mut self.target, self.options.form) {
            (Destination::Tree(tree), form) => {
                // By the key's own bytes: as text, names that are none would be alike.
                let (_, name) = location.exactly(key);
                let extension = if form == Form::Json { ".json" } else { ".yaml" };
                tree.write(&directories(location, key), name, extension, text.as_bytes())?;
            }
            (Destination::Stream(out), Form::Json) => {
                let lead = if first { LIST_HEAD } else { "," };
                let indented = Zeroizing::new(text.trim_end().replace('\n', "\n    "));
                write!(out, "{lead}\n    {}", indented.as_str())?;
            }
            (Destination::Stream(out), Form::Yaml) => {
                let lead = if first { "" } else { "---\n" };
                write!(out, "{lead}{}", text.as_str())?;
            }
        }
        self.outcome.written += 1;
        Ok(())
    }

    fn finish(self) -> Result<Outcome, Error> {
        match self.target {
            Destination::Tree(tree) => tree.sync()?,
            Destination::Stream(out) => {
                if self.options.form == Form::Json {
                    let tail = if self.outcome.written == 0 { EMPTY_LIST } else { LIST_TAIL };
                    write!(out, "{tail}")?;
                }
                out.flush()?;
            }
        }
        Ok(self.outcome)
    }
}

/// Where an object's file lies below the tree.
fn directories<'a>(location: &'a Location<'_>, key: &'a [u8]) -> Vec<&'a [u8]> {
    let (group, resource) = top(&location.resource);
    let mut directories = vec![group.as_bytes(), resource.as_bytes()];
    directories.extend(location.exactly(key).0);
    directories
}

// The list is written as it is read; its frame is that of a list in serde_json's order.
const LIST_HEAD: &str = "{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"List\",\n  \"items\": [";
const LIST_TAIL: &str = "\n  ]\n}\n";
const EMPTY_LIST: &str =
    "{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"List\",\n  \"items\": []\n}\n";
