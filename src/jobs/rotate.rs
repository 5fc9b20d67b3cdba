//! What is stored under a key that is to leave the configuration.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use crate::config::{EncryptionConfig, Rotated};
use crate::envelope::{Envelope, Provider};
use crate::resource::{Scope, Selection, Selector};
use crate::source::{Source, SourceError, Visit};

/// Which key goes.
pub struct Options<'o> {
    /// Where the API server keeps its objects. Every key there is looked at, whatever resources
    /// the step is restricted to: one that left the configuration may still be stored under it.
    pub scope: Scope,
    /// The configuration that has it.
    pub old: &'o EncryptionConfig,
    /// The step that takes it away.
    pub rotated: &'o Rotated,
}

/// What needs it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Entries by resource.
    pub entries: BTreeMap<String, u64>,
    /// The revision, and what could not be read.
    pub visit: Visit,
}

/// Looks at every entry.
///
/// # Errors
/// When the source cannot be read.
pub fn run(source: &mut dyn Source, options: &Options<'_>) -> Result<Outcome, SourceError> {
    let Options { scope, old, rotated } = options;
    let selection =
        Selection { scope: scope.clone(), resources: vec![Selector::All], namespaces: Vec::new() };
    let mut entries: BTreeMap<String, u64> = BTreeMap::new();
    let mut concerned: HashMap<String, bool> = HashMap::new();
    let visit = source.visit(&selection.query(None, false), &mut |entry| {
        let Some(location) = selection.locate(entry.key) else { return ControlFlow::Continue(()) };
        let resource = location.resource.as_ref();
        if location.internal || !is_under(entry.stored(), old, rotated) {
            return ControlFlow::Continue(());
        }
        // The same name elsewhere in the file may be another key.
        let concerns = *concerned.entry(resource.to_owned()).or_insert_with(|| {
            let serving = old.serving(resource);
            let changed = serving.providers.iter().any(|s| rotated.entries.contains(&s.entry));
            // What no entry serves any more cannot be read without the key either. Plaintext can.
            changed || (serving.is_implied_identity() && rotated.provider != Provider::Identity)
        });
        if concerns {
            *entries.entry(resource.to_owned()).or_default() += 1;
        }
        ControlFlow::Continue(())
    })?;
    Ok(Outcome { entries, visit })
}

/// Whether a stored value was written by the provider and key that goes.
fn is_under(value: &[u8], old: &EncryptionConfig, rotated: &Rotated) -> bool {
    let envelope = Envelope::of(value);
    if envelope.provider != rotated.provider {
        return false;
    }
    let Some(name) = &rotated.name else { return true };
    let of_this = old.providers().filter(|s| s.provider.provider() == envelope.provider);
    let known: Vec<&str> = of_this.flat_map(|s| s.provider.names()).collect();
    envelope.split(known).is_some_and(|(n, _)| n == name.as_bytes())
}
