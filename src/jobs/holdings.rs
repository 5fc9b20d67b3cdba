//! What a source holds: prefixes, resources and namespaces, for somebody who asked for others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use crate::range::KeyRange;
use crate::resource::{Location, Scope, base_of, locate};
use crate::source::{Query, Source, SourceError, SourceKind};

/// Steps through the keys of a live etcd: each asks for the first key behind a namespace of a
/// resource.
const STEPS: usize = 2000;

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// What the keys of API servers begin with, each ending in `/`.
    pub bases: BTreeSet<String>,
    /// Qualified names of resources below the prefix that was asked for.
    pub resources: BTreeSet<String>,
    /// Namespaces below it, and those of which there are objects.
    pub namespaces: BTreeSet<String>,
}

impl Holdings {
    /// Looks through the keys of a source. A large live etcd is not looked through to the end.
    ///
    /// # Errors
    /// When it cannot be read, such as by a user who may read one range only.
    pub fn of(
        source: &mut dyn Source,
        scope: &Scope,
        revision: Option<i64>,
    ) -> Result<Self, SourceError> {
        let mut seen = Seen { scope, holdings: Self::default(), bases: BTreeMap::new() };
        let live = source.info().kind == SourceKind::Etcd;
        let behind =
            |start| Query { ranges: vec![KeyRange { start, end: None }], revision, ordered: live };
        if live {
            let mut start = Some(Vec::new());
            for _ in 0..STEPS {
                let Some(from) = start.take() else { break };
                source.visit(&behind(from), &mut |entry| {
                    start = seen.learn(entry.key).end;
                    ControlFlow::Break(())
                })?;
            }
        } else {
            source.visit(&behind(Vec::new()), &mut |entry| {
                seen.learn(entry.key);
                ControlFlow::Continue(())
            })?;
        }
        Ok(seen.finish())
    }
}

struct Seen<'a> {
    scope: &'a Scope,
    holdings: Holdings,
    /// Beginnings of keys, and of which resources.
    bases: BTreeMap<String, BTreeSet<String>>,
}

impl Seen<'_> {
    /// Takes a key into account; returns the keys that tell no more than it does.
    fn learn(&mut self, key: &[u8]) -> KeyRange {
        let own = self.scope.locate(key);
        if !own.internal {
            self.holdings.resources.insert(own.resource.to_string());
            self.holdings.namespaces.extend(own.namespace.as_deref().map(str::to_owned));
            if own.resource == "namespaces" {
                self.holdings.namespaces.insert(own.name.to_string());
            }
        }
        let Some(base) = base_of(key) else { return alike(key, &own) };
        let location = locate(key, &key[..base]);
        if location.internal {
            return alike(key, &own);
        }
        let resources = self.bases.entry(String::from_utf8_lossy(&key[..base]).into_owned());
        resources.or_default().insert(location.resource.to_string());
        let namespace = location.exactly(key).0.map_or(0, |namespace| namespace.len() + 1);
        KeyRange::prefix(&key[..location.object_at + namespace])
    }

    fn finish(mut self) -> Holdings {
        let all: Vec<&String> = self.bases.keys().collect();
        let stands = |base: &str, resources: &BTreeSet<String>| {
            let below = all.iter().any(|b| b.len() < base.len() && base.starts_with(b.as_str()));
            // One resource below another prefix is more likely an unknown resource with a
            // namespace of such a name.
            !below || resources.len() > 1 || resources.contains("namespaces")
        };
        let bases = self.bases.iter().filter(|(base, resources)| stands(base, resources));
        self.holdings.bases = bases.map(|(base, _)| base.clone()).collect();
        self.holdings
    }
}

/// The keys that share the first two segments of one that belongs to no resource.
fn alike(key: &[u8], location: &Location<'_>) -> KeyRange {
    let mut slashes = memchr::memchr_iter(b'/', key).skip(2);
    match slashes.next() {
        Some(end) if location.internal => KeyRange::prefix(&key[..=end]),
        _ => KeyRange::single(key),
    }
}
