//! The newest writes of each resource: under the key that a configuration writes with, and
//! otherwise. Where nobody asks the API servers, this shows with what they write.

use std::collections::BTreeMap;

use crate::envelope::StoredUnder;

/// The newest writes, by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastWrites(BTreeMap<String, Last>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Last {
    /// Revision; 0 for none.
    current: i64,
    /// Revision, and what it is stored under.
    otherwise: Option<(i64, String)>,
}

/// A resource whose newest entry is stored otherwise, although an older one is current: something
/// wrote it that does not write with this configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Later {
    /// Group-qualified resource.
    pub resource: String,
    /// Revision of that newest entry.
    pub revision: i64,
    /// What it is stored under: provider, version and key.
    pub under: String,
    /// The newest revision that is stored as the configuration writes it.
    pub current: i64,
}

impl LastWrites {
    /// Takes an entry into account that is stored as the configuration writes it.
    pub fn current(&mut self, resource: &str, revision: i64) {
        let last = self.of(resource);
        last.current = last.current.max(revision);
    }

    /// Takes one into account that is not.
    pub fn otherwise(&mut self, resource: &str, revision: i64, under: StoredUnder<'_>) {
        let last = self.of(resource);
        if last.otherwise.as_ref().is_none_or(|(newest, _)| *newest < revision) {
            last.otherwise = Some((revision, under.to_string()));
        }
    }

    fn of(&mut self, resource: &str) -> &mut Last {
        self.0.entry(resource.to_owned()).or_default()
    }

    /// What was written otherwise after something was written with the configuration.
    #[must_use]
    pub fn later(&self) -> Vec<Later> {
        let later = |(resource, last): (&String, &Last)| {
            let (revision, under) = last.otherwise.clone()?;
            (last.current > 0 && revision > last.current).then(|| Later {
                resource: resource.clone(),
                revision,
                under,
                current: last.current,
            })
        };
        self.0.iter().filter_map(later).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Provider;

    fn under(provider: Provider) -> StoredUnder<'static> {
        StoredUnder { provider, version: None, key: None, kms_key_id: None }
    }

    #[test]
    fn only_what_was_written_later_counts() {
        let mut last = LastWrites::default();
        // Nothing is current yet: what was there before says nothing.
        last.otherwise("secrets", 900, under(Provider::Identity));
        assert_eq!(last.later(), []);
        // A migration is under way.
        last.current("secrets", 1000);
        last.current("secrets", 950);
        assert_eq!(last.later(), []);
        // Somebody else writes meanwhile.
        last.otherwise("secrets", 1001, under(Provider::Identity));
        last.otherwise("secrets", 800, under(Provider::AesCbc));
        last.otherwise("configmaps", 2000, under(Provider::Identity));
        let [later] = &last.later()[..] else { panic!("one resource") };
        assert_eq!((later.revision, later.current), (1001, 1000));
        assert_eq!((&*later.resource, &*later.under), ("secrets", "identity"));
    }
}
