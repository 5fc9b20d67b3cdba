//! Keys that etcd itself removes after a time.

use bytes::Bytes;
use prost::Message as _;

use super::super::Live;
use super::super::connection;
use super::super::wire::lease::{GRANT, Grant, Granted, REVOKE, Revoke};
use super::super::wire::txn::{Put, TxnRequest};
use super::{Commit, Kv, KvError};
use crate::source::SourceError;

/// Room for an answer, bytes.
const LIMIT: usize = 1 << 20;

impl Live {
    /// A lease of so many seconds. What is put under it goes with it.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub fn grant(&self, seconds: i64) -> Result<i64, SourceError> {
        let body = Grant { ttl: seconds, id: 0 }.encode_to_vec();
        let answer = self.runtime()?.block_on(self.session.call(GRANT, body.into(), LIMIT));
        let answer = answer.map_err(|refusal| connection::refusal(&self.session, &refusal))?;
        Ok(Granted::id(&answer).map_err(crate::source::EtcdError::from)?)
    }

    /// Ends a lease, and what was put under it goes.
    ///
    /// # Errors
    /// When nobody answers. That it has ended already is an error, too.
    pub fn revoke(&self, lease: i64) -> Result<(), SourceError> {
        let body = Revoke { id: lease }.encode_to_vec();
        let answer = self.runtime()?.block_on(self.session.call(REVOKE, body.into(), LIMIT));
        answer.map_err(|refusal| connection::refusal(&self.session, &refusal))?;
        Ok(())
    }
}

impl Kv {
    /// Writes a new key under a lease; a conflict where there is one of that name.
    ///
    /// # Errors
    /// See [`KvError`]. After [`KvError::Lost`] the outcome is unknown.
    pub fn create(&self, key: &[u8], value: &[u8], lease: i64) -> Result<Commit, KvError> {
        let put = Put { key, mod_revision: 0, value };
        let body = Bytes::from(TxnRequest::create(&put, lease).encode_to_vec());
        let bytes = self.handle.block_on(self.call(body))?;
        self.outcome(&bytes, &[put])
    }
}
