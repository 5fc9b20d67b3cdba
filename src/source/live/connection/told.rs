//! What the members have told about their cluster.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::source::Untrue;

/// What has been told so far.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Inner>);

#[derive(Debug, Default)]
pub(super) struct Inner {
    /// Cluster ids by endpoint.
    pub clusters: BTreeMap<usize, u64>,
    /// The newest revision of the store.
    pub newest: i64,
    /// Two clusters: nothing that is said belongs together.
    pub divided: Option<(usize, Untrue)>,
    /// Endpoints that are being asked for their cluster, and until when that is waited for.
    pub asking: Option<(JoinSet<()>, Instant)>,
}

impl Told {
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
