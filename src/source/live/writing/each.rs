//! Many transactions of one write each at once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use tokio::task::JoinSet;

use super::{Commit, Kv, KvError, Put, TxnRequest};

/// Whether one more request may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Now.
    Go,
    /// Not before this time has passed, or an answer has come.
    Wait(Duration),
    /// No more.
    Stop,
}

/// Decides when requests begin, and hears how they went: each that was let in is answered, busy
/// or failed once.
pub trait Gate: Sync {
    /// Asks for one more request.
    fn admit(&self) -> Admission;
    /// One was answered.
    fn answered(&self, latency: Duration);
    /// The server had too much to do.
    fn busy(&self);
    /// One came to nothing.
    fn failed(&self);
}

/// What was answered to one write.
type Answer = (usize, Instant, Result<Bytes, KvError>);

impl Kv {
    /// Writes each of `puts` in a transaction of its own, as many at once as `gate` lets in, and
    /// tells `done` what became of each, in the order of the answers. `done` ends it by saying
    /// false; what is under way then is waited for and told too. What was never sent is not told.
    /// A server that is busy is asked again.
    pub fn commit_each(
        &self,
        puts: &[Put<'_>],
        gate: &dyn Gate,
        done: &mut dyn FnMut(usize, Result<Commit, KvError>) -> bool,
    ) {
        let mut waiting: VecDeque<usize> = (0..puts.len()).collect();
        let mut running: JoinSet<Answer> = JoinSet::new();
        self.handle().block_on(async {
            loop {
                let mut pause = None;
                while let Some(index) = waiting.front().copied() {
                    match gate.admit() {
                        Admission::Go => {}
                        Admission::Wait(time) => {
                            pause = Some(time);
                            break;
                        }
                        Admission::Stop => {
                            waiting.clear();
                            break;
                        }
                    }
                    waiting.pop_front();
                    let Some(put) = puts.get(index) else { continue };
                    let body = TxnRequest::write(std::slice::from_ref(put)).encode_to_vec();
                    running.spawn(self.clone().answer(index, body.into()));
                }
                let mut next = match pause {
                    None if running.is_empty() => return,
                    Some(time) if running.is_empty() => {
                        tokio::time::sleep(time).await;
                        continue;
                    }
                    None => running.join_next().await,
                    Some(time) => tokio::select! {
                        next = running.join_next() => next,
                        () = tokio::time::sleep(time) => continue,
                    },
                };
                // Answers come in bundles: all that are there are dealt with before more is sent.
                while let Some(joined) = next.take() {
                    let Ok((index, begun, result)) = joined else {
                        // Nobody knows what became of it; the caller sees that nothing was told.
                        gate.failed();
                        waiting.clear();
                        next = running.try_join_next();
                        continue;
                    };
                    let result = match (result, puts.get(index)) {
                        (Ok(bytes), Some(put)) => self.outcome(&bytes, std::slice::from_ref(put)),
                        (Ok(_), None) => continue,
                        (Err(e), _) => Err(e),
                    };
                    match &result {
                        Ok(_) => gate.answered(begun.elapsed()),
                        Err(KvError::Busy) => gate.busy(),
                        Err(_) => gate.failed(),
                    }
                    if matches!(result, Err(KvError::Busy)) {
                        waiting.push_back(index);
                    } else if !done(index, result) {
                        waiting.clear();
                    }
                    next = running.try_join_next();
                }
            }
        });
    }

    async fn answer(self, index: usize, body: Bytes) -> Answer {
        let begun = Instant::now();
        let answer = self.call(body).await;
        (index, begun, answer)
    }
}
