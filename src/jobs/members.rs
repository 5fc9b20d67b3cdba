//! The members of a live cluster, each reached by itself.

use std::collections::BTreeMap;
use std::io::{Seek as _, SeekFrom};
use std::path::Path;

use crate::source::live::{Live, LiveOptions};
use crate::source::snapshot::{Snapshot, SnapshotOptions};
use crate::source::{EtcdError, SourceError};

/// A member, and where it answers.
#[derive(Clone, Debug)]
pub(in crate::jobs) struct Listed {
    pub id: u64,
    /// Its name, or its number in hexadecimal digits until it was started.
    pub name: String,
    /// The one of the given endpoints that leads to it, else the first that it advertises.
    pub endpoint: String,
    /// It does not vote.
    pub learner: bool,
}

/// Asks `any` member for all of them, and finds out which endpoint leads to which.
///
/// # Errors
/// When the list cannot be had.
pub(in crate::jobs) fn list(
    connection: &LiveOptions,
    any: &Live,
) -> Result<Vec<Listed>, SourceError> {
    let listed = any.members()?;
    let mut given: BTreeMap<u64, String> = BTreeMap::new();
    for endpoint in &connection.endpoints {
        if let Ok(status) = connect(connection, endpoint).and_then(|l| l.status()) {
            given.entry(status.id).or_insert_with(|| endpoint.clone());
        }
    }
    let reached = listed.into_iter().map(|listed| {
        let advertised = || listed.client_urls.first().cloned().unwrap_or_default();
        Listed {
            id: listed.id,
            endpoint: given.remove(&listed.id).unwrap_or_else(advertised),
            name: if listed.name.is_empty() { format!("{:x}", listed.id) } else { listed.name },
            learner: listed.learner,
        }
    });
    Ok(reached.collect())
}

/// Connects to one member and no other.
///
/// # Errors
/// When it cannot be reached.
pub(in crate::jobs) fn connect(options: &LiveOptions, endpoint: &str) -> Result<Live, SourceError> {
    let endpoints = vec![endpoint.to_owned()];
    Live::connect(&LiveOptions { endpoints, ..options.clone() })
}

/// Takes a snapshot, into a file without a name that is gone when nobody reads it any more.
///
/// # Errors
/// When the member does not send all of it, or there is no room for it.
pub(in crate::jobs) fn snapshot(live: &Live, name: &Path) -> Result<Snapshot, SourceError> {
    let mut file = tempfile::tempfile().map_err(EtcdError::BackupUnwritable)?;
    live.backup(&mut file)?;
    file.seek(SeekFrom::Start(0)).map_err(EtcdError::BackupUnwritable)?;
    Snapshot::of_file(name, file, &SnapshotOptions::default())
}
