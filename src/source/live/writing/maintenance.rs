//! Upkeep of a member: forgetting the past, and a file without what was forgotten.

use bytes::Bytes;
use prost::Message as _;

use super::super::Live;
use super::super::connection;
use super::super::wire::said::Said;
use super::super::wire::status::{COMPACT, Compaction, DEFRAGMENT};
use crate::source::SourceError;

/// Room for an answer, bytes.
const LIMIT: usize = 1 << 20;

impl Live {
    /// Has the cluster forget revisions that were superseded at `revision` or before, and waits
    /// until the member that is asked has removed them. That they are forgotten already is no
    /// error.
    ///
    /// # Errors
    /// When it is refused, or nobody answers.
    pub fn compact(&self, revision: i64) -> Result<(), SourceError> {
        let body = Compaction { revision, physical: true }.encode_to_vec();
        match self.runtime()?.block_on(self.session.call(COMPACT, body.into(), LIMIT)) {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.said() == Some(Said::Compacted) => Ok(()),
            Err(refusal) => Err(connection::refusal(&self.session, &refusal).into()),
        }
    }

    /// Has the current member write its database file anew, without free pages. It answers
    /// nothing else meanwhile.
    ///
    /// # Errors
    /// When it is refused, or the member does not answer: it may do it all the same.
    pub fn defragment(&self) -> Result<(), SourceError> {
        let answer = self.session.call(DEFRAGMENT, Bytes::new(), LIMIT);
        let answer = self.runtime()?.block_on(answer);
        let answer = answer.map_err(|refusal| connection::refusal(&self.session, &refusal))?;
        drop(answer);
        Ok(())
    }
}
