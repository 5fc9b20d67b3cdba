//! A snapshot of a live member.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::source::live::Live;
use crate::source::live::connection::{self, CallError, Refusal};
use crate::source::live::wire::status::blob;
use crate::source::{EtcdError, SourceError, Wish};

/// How long a part of a backup may take: the member reads it from its disk.
const PART: Duration = Duration::from_mins(1);

impl Live {
    /// Writes a snapshot of the current member, as `etcdctl snapshot save` does, and returns its
    /// size in bytes.
    ///
    /// # Errors
    /// When the member does not send it all, its digest does not fit, or `out` cannot be written.
    pub fn backup(&self, out: &mut dyn Write) -> Result<u64, SourceError> {
        let failed =
            |refusal: Refusal| connection::refusal_to(&self.session, &refusal, Wish::Snapshot);
        let patience = self.session.command_timeout.max(PART);
        self.runtime()?.block_on(async {
            let mut stream = self.session.snapshot().await.map_err(failed)?;
            let index = self.session.current.load(Ordering::Relaxed);
            // The stream ends with the SHA-256 of everything before it
            // (etcd `server/etcdserver/api/v3rpc/maintenance.go`).
            let mut tail: Vec<u8> = Vec::new();
            let mut digest = Sha256::new();
            let mut total = 0u64;
            loop {
                let part = match tokio::time::timeout(patience, stream.message()).await {
                    Ok(Ok(part)) => part,
                    Ok(Err(e)) => {
                        let failures = vec![(index, CallError::from_status(e))];
                        return Err(failed(Refusal { failures }).into());
                    }
                    Err(_) => {
                        let failures = vec![(index, CallError::Timeout(patience))];
                        return Err(failed(Refusal { failures }).into());
                    }
                };
                let Some(part) = part else { break };
                let blob = blob(&part).map_err(EtcdError::Malformed)?;
                out.write_all(blob).map_err(EtcdError::BackupUnwritable)?;
                total += blob.len() as u64;
                tail.extend_from_slice(blob);
                let fixed = tail.len().saturating_sub(32);
                digest.update(&tail[..fixed]);
                tail.drain(..fixed);
            }
            self.session.settle().await.map_err(failed)?;
            if tail.len() < 32 || digest.finalize().as_slice() != tail {
                return Err(EtcdError::BackupIncomplete.into());
            }
            Ok(total)
        })
    }
}
