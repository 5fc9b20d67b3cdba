//! Values under KMS that a source no longer serves and that still lie in its files: compacted away,
//! and not overwritten.

use std::collections::HashSet;

use super::uses::{Extent, Uses};
use crate::envelope::{Envelope, Provider};
use crate::forensics::Targets;
use crate::forensics::residue::{Bytes, Finding, Sink};
use crate::jobs::residue::recover::{Digest, digest};
use crate::jobs::residue::search::{self, Hunt, SERVED};
use crate::jobs::residue::{Error, Opened, Unexamined};
use crate::resource::Selector;
use crate::source::Damage;

/// What a search for them says beside its counts.
#[derive(Default)]
pub struct Left {
    /// Whether there was one: not where a source has no files, nor as of a revision, of which a
    /// file says nothing.
    pub searched: bool,
    /// Records of which parts were overwritten: whose they are cannot be told.
    pub broken: u64,
    /// What was not searched, as it is not in the source.
    pub not_examined: &'static [Unexamined],
    /// What could not be searched.
    pub damage: Vec<Damage>,
}

/// Counts those that are not among the `served`; with `salvage`, in what is left of a damaged file.
///
/// # Errors
/// When the source cannot be searched.
pub(super) fn read(
    opened: Opened,
    (place, salvage): (Extent<'_>, bool),
    served: &HashSet<Digest>,
    uses: &mut Uses,
) -> Result<(Left, Option<Opened>), Error> {
    if place.revision.is_some() {
        return Ok((Left::default(), Some(opened)));
    }
    if matches!(opened, Opened::Served(_)) {
        return Ok((Left { not_examined: SERVED, ..Left::default() }, Some(opened)));
    }
    let scope = place.scope.clone();
    let targets = Targets::new(scope, vec![Selector::All], vec![]).with_encrypted();
    let mut found = Found { uses, served, seen: HashSet::new(), broken: HashSet::new() };
    let searched = search::search(opened, salvage, &targets, &mut found)?;
    let left = Left {
        searched: true,
        broken: found.broken.len() as u64,
        not_examined: searched.not_examined,
        damage: searched.visit.damage,
    };
    Ok((left, searched.opened))
}

/// Counts what a search brings.
struct Found<'a> {
    uses: &'a mut Uses,
    served: &'a HashSet<Digest>,
    /// Copies count once.
    seen: HashSet<Digest>,
    /// By key and place.
    broken: HashSet<(Vec<u8>, String)>,
}

impl Sink for Found<'_> {
    fn found(&mut self, finding: Finding, bytes: Bytes<'_>) {
        // What has lost its key, no key-encryption key brings back: it is authenticated.
        let Finding { key: Some(key), encrypted: true, location, resource, partial, .. } = finding
        else {
            return;
        };
        let value = bytes.value();
        if partial {
            // Whether its key ID is whole is not known.
            if Envelope::of(&value).provider == Provider::Kms {
                self.broken.insert((key, location));
            }
            return;
        }
        self.uses.add_left(&resource, &value, &mut |payload| {
            let digest = digest(&key, payload);
            !self.served.contains(&digest) && self.seen.insert(digest)
        });
    }
}

impl Hunt for Found<'_> {}
