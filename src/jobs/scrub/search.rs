//! A fresh snapshot of a member, searched for plaintext.

use std::path::Path;

use crate::bolt::Db;
use crate::forensics::Targets;
use crate::forensics::residue::{self, Place, Totals};
use crate::jobs::members;
use crate::source::SourceError;
use crate::source::live::Live;

/// Findings that are listed one by one.
const LISTED: usize = 1000;

/// A place with plaintext, without any of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What kind of place.
    pub place: Place,
    /// Where exactly.
    pub location: String,
    /// The etcd key; none where it was overwritten.
    pub key: Option<Vec<u8>>,
    /// The resource.
    pub resource: String,
    /// Bytes of the value.
    pub size: u64,
}

/// What a member's database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// When, RFC 3339.
    pub at: String,
    /// The revision.
    pub revision: i64,
    /// Bytes of the snapshot.
    pub size: u64,
    /// Live entries that are stored unencrypted.
    pub live: u64,
    /// Places outside the live state.
    pub totals: Totals,
    /// The first of them.
    pub listed: Vec<Listed>,
    /// What could not be read.
    pub damage: Vec<String>,
}

impl Found {
    /// Nothing yet, in so many bytes, from now on.
    pub(super) fn new(size: u64) -> Self {
        let at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        Self { at, size, ..Self::default() }
    }

    /// Counts and lists it; what is encrypted is no residue.
    pub(super) fn add(&mut self, finding: residue::Finding) {
        if finding.encrypted {
            return;
        }
        self.totals.add(finding.place);
        if self.listed.len() < LISTED {
            self.listed.push(Listed {
                place: finding.place,
                location: finding.location,
                key: finding.key,
                resource: finding.resource,
                size: finding.size,
            });
        }
    }

    /// Nothing was found, and everything was read.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.totals.sum() == 0 && self.damage.is_empty()
    }

    /// Superseded revisions with plaintext.
    #[must_use]
    pub fn superseded(&self) -> u64 {
        self.totals.get(Place::SupersededRevision)
    }
}

/// Takes a snapshot, into a file without a name that is gone when this returns, and searches it.
pub(super) fn search(live: &Live, targets: &Targets) -> Result<Found, SourceError> {
    let mut snapshot = members::snapshot(live, Path::new("a member's snapshot"))?;
    let bytes = snapshot.bytes().clone();
    let mut found = Found::new(bytes.len() as u64);
    let db = match Db::open(&bytes) {
        Ok(db) => db,
        Err(e) => {
            found.damage.push(e.to_string());
            return Ok(found);
        }
    };
    let mut sink = |finding: residue::Finding, _: residue::Bytes<'_>| found.add(finding);
    let behind = |part| bytes.forget(part);
    let searched = residue::examine(&db, targets, &|_| None, &behind, &mut sink);
    found.revision = searched.revision;
    found.live = searched.head.sum();
    let damage = searched.damage.into_iter();
    found.damage.extend(damage.map(|d| format!("page {}: {}", d.page, d.what)));
    snapshot.verify()?;
    Ok(found)
}
