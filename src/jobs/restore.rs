//! What a new cluster is given of the objects of another one: read, judged, handed on.
//!
//! Two passes at one revision: the first over what others depend on, the second over everything,
//! so that memory grows with what is left out or changed, not with what is read.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde_json::Value;

use super::Observer;
use crate::entry::EntryRef;
use crate::export::ExportError;
use crate::objects::{Objects, Shown};
use crate::resource::{Location, Selection, Selector};
use crate::restore::{self, Facts, Reason, Step, Verdict, Written};
use crate::source::{Query, Source, SourceError, Visit};

/// What to restore.
pub struct Options<'o> {
    /// Which objects.
    pub selection: Selection,
    /// As of this revision; `None` is the newest.
    pub revision: Option<i64>,
    /// For what, and how.
    pub rules: restore::Options,
    /// Reads the objects.
    pub reader: &'o Objects,
    /// Objects that are not what their key says are taken for what they are.
    pub include_misplaced: bool,
}

/// Takes an object that is to be written: its step, where it belongs, its etcd key.
pub type Write<'w> = dyn FnMut(Step, &Location<'_>, &[u8], &Value) -> Result<(), ExportError> + 'w;

/// Which object a line of the outcome is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `secrets`, `deployments.apps`.
    pub resource: String,
    /// `None` for cluster-scoped objects.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
}

impl From<&Location<'_>> for Name {
    fn from(location: &Location<'_>) -> Self {
        Self {
            resource: location.resource.clone().into_owned(),
            namespace: location.namespace.clone().map(std::borrow::Cow::into_owned),
            name: location.name.clone().into_owned(),
        }
    }
}

/// A conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The object.
    pub name: Name,
    /// Its `apiVersion` in the source.
    pub from: String,
    /// Its `apiVersion` as written.
    pub to: String,
}

/// What became of the objects.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The revision, and what could not be read.
    pub visit: Visit,
    /// Objects written, by step and resource.
    pub written: BTreeMap<(Step, String), u64>,
    /// Not written, and why.
    pub left_out: Vec<(Name, Reason)>,
    /// Changed beyond what `export --clean` strips.
    pub changed: Vec<(Name, Vec<Reason>)>,
    /// Written at another version.
    pub converted: Vec<Converted>,
    /// Written, but parts have no place at the new version.
    pub lost: Vec<(Name, Vec<String>)>,
    /// Of no use to the target at any version that they can be converted to.
    pub impossible: Vec<(Name, String)>,
    /// Not read, so not written.
    pub unreadable: Vec<(Name, String)>,
    /// Written, but with fields missing that this program does not know.
    pub incomplete: Vec<(Name, Vec<String>)>,
    /// Resources that the target serves only where its operator turned them on: `apiVersion`s.
    pub needs_enabling: BTreeMap<String, u64>,
    /// Custom resources of which the source has no definition, and their number.
    pub undefined: BTreeMap<String, u64>,
}

impl Outcome {
    /// How many objects are written.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.written.values().sum()
    }

    /// The steps that have objects, in their order.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<_> = self.written.keys().map(|(step, _)| *step).collect();
        steps.dedup();
        steps
    }

    /// Whether everything was read, and what should be written could be, with all of its parts.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.impossible.is_empty()
            && self.lost.is_empty()
            && self.unreadable.is_empty()
            && self.incomplete.is_empty()
            && self.visit.damage.is_empty()
    }
}

/// Why the job ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Writing.
    #[error(transparent)]
    Export(#[from] ExportError),
}

impl Options<'_> {
    fn query(&self, selectors: &[Selector], revision: Option<i64>) -> Query {
        Query { ranges: self.selection.scope.ranges(selectors), revision, ordered: true }
    }

    /// Decrypts and decodes an entry; an error says in words why it cannot, without stored bytes.
    fn read(&self, entry: EntryRef<'_>, location: &Location<'_>) -> Result<Shown, String> {
        let shown = self.reader.read(entry, location).map_err(|not| not.words())?;
        if let Some(found) = shown.judged.misplaced.as_ref().filter(|_| !self.include_misplaced) {
            return Err(format!("misplaced: {found}"));
        }
        match &shown.hollow {
            Some(hollow) => Err(hollow.reason.clone()),
            None => Ok(shown),
        }
    }
}

/// Reads all that is selected, and gives `write` what a new cluster accepts.
///
/// # Errors
/// When the source cannot be read at one revision, or `write` fails.
pub fn run(
    source: &mut dyn Source,
    options: &Options<'_>,
    write: &mut Write<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let (facts, revision) = facts(source, options)?;
    let query = options.query(&options.selection.resources, revision);
    observer.begin("entries", &mut || source.estimate(&query));
    let mut outcome = Outcome::default();
    let mut failed = None;
    let visit = source.visit(&query, &mut |entry| {
        let Some(location) = options.selection.locate_object(entry.key) else {
            return ControlFlow::Continue(());
        };
        observer.advance(1);
        if let Err(e) = outcome.one(entry, &location, &facts, options, write) {
            failed = Some(e);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    observer.end();
    if let Some(e) = failed {
        return Err(e.into());
    }
    outcome.visit = visit?;
    Ok(outcome)
}

/// The first pass, and the revision that it fixes.
fn facts(
    source: &mut dyn Source,
    options: &Options<'_>,
) -> Result<(Facts, Option<i64>), SourceError> {
    let mut facts = Facts::new(&options.selection.resources);
    let wanted = restore::wanted(&options.selection.resources);
    if wanted.is_empty() {
        return Ok((facts, options.revision));
    }
    let query = options.query(&wanted, options.revision);
    let visit = source.visit(&query, &mut |entry| {
        let location = options.selection.scope.locate(entry.key);
        if location.internal || !wanted.iter().any(|w| w.matches(&location.resource)) {
            return ControlFlow::Continue(());
        }
        if Facts::reads(&location.resource) {
            // What cannot be read is reported when its turn comes.
            if let Ok(decoded) = options.read(entry, &location) {
                facts.learn(&location, &decoded.json);
            }
        } else if options.selection.locate_object(entry.key).is_some() {
            facts.note(&location);
        }
        ControlFlow::Continue(())
    })?;
    Ok((facts, Some(visit.revision)))
}

impl Outcome {
    fn one(
        &mut self,
        entry: EntryRef<'_>,
        location: &Location<'_>,
        facts: &Facts,
        options: &Options<'_>,
        write: &mut Write<'_>,
    ) -> Result<(), ExportError> {
        if let Some(reason) = restore::leaves_out_resource(&location.resource) {
            self.left_out.push((location.into(), reason));
            return Ok(());
        }
        let mut decoded = match options.read(entry, location) {
            Ok(decoded) => decoded,
            Err(why) => {
                self.unreadable.push((location.into(), why));
                return Ok(());
            }
        };
        match restore::judge(&mut decoded.json, location, facts, options.rules) {
            Verdict::LeaveOut(reason) => self.left_out.push((location.into(), reason)),
            Verdict::Cannot(why) => self.impossible.push((location.into(), why)),
            Verdict::Write(written) => {
                let unknown = std::mem::take(&mut decoded.unknown);
                write(written.step, location, entry.key, &decoded.json)?;
                self.take(location, &decoded.json, written, unknown, facts);
            }
        }
        Ok(())
    }

    /// Notes what was written.
    fn take(
        &mut self,
        location: &Location<'_>,
        json: &Value,
        written: Written,
        unknown: Vec<String>,
        facts: &Facts,
    ) {
        let Written { step, converted_from, lost, changes, needs_enabling } = written;
        // Almost always there: a lookup by borrowed parts is not worth a type of its own.
        *self.written.entry((step, location.resource.clone().into_owned())).or_default() += 1;
        let to = || json["apiVersion"].as_str().unwrap_or_default().to_owned();
        if let Some(from) = converted_from {
            self.converted.push(Converted { name: location.into(), from, to: to() });
        }
        if !lost.is_empty() {
            self.lost.push((location.into(), lost));
        }
        if !changes.is_empty() {
            self.changed.push((location.into(), changes));
        }
        if !unknown.is_empty() {
            self.incomplete.push((location.into(), unknown));
        }
        if needs_enabling {
            *self.needs_enabling.entry(to()).or_default() += 1;
        }
        if step == Step::CustomResources && !facts.defines(&location.resource) {
            *self.undefined.entry(location.resource.clone().into_owned()).or_default() += 1;
        }
    }
}
