//! kine's bucket in NATS `JetStream` (k3s-io/kine `pkg/drivers/nats/`).
//!
//! There are no transactions: the last sequence when a read begins is the revision that is read,
//! and later messages do not count. A bucket keeps the last few messages of each key, so what a
//! revision held may be gone when it is asked for, or go while it is read; that is told.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `format`, `s2` | what a message says |
//! | `context` | files of the `nats` program |
//! | `reach` | connections, who connects, what an error says |
//! | `reader` | messages in the order of the stream, and by their sequences |
//! | `table` | kine's table, made of them |

mod context;
mod format;
mod reach;
mod reader;
mod s2;
mod table;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Runtime;

use self::reach::Link;
use self::reader::Within;
use super::{GOODBYE, ServerOptions, Target};
use crate::source::kine::database::{Body, Database};
use crate::source::{DatastoreError, SourceError, Visit};

/// A bucket of a server.
pub(super) struct Bucket {
    /// `None` only while dropping.
    runtime: Option<Runtime>,
    options: ServerOptions,
    target: Arc<Target>,
    link: Option<Arc<Link>>,
}

impl Bucket {
    /// Connects, and looks whether the bucket is there.
    pub fn connect(options: &ServerOptions) -> Result<Self, SourceError> {
        let mut options = options.clone();
        options.address = context::followed(&options.address)?;
        let target = Arc::new(Target::new(&options)?);
        let runtime = super::runtime()?;
        let link = runtime.block_on(Link::open(&target))?;
        Ok(Self { runtime: Some(runtime), options, target, link: Some(Arc::new(link)) })
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Inside another runtime nobody can wait.
            let outside = tokio::runtime::Handle::try_current().is_err();
            if let Some(link) = self.link.take().filter(|_| outside) {
                let goodbye = async { tokio::time::timeout(GOODBYE, link.close()).await };
                let _ = runtime.block_on(goodbye);
            }
            runtime.shutdown_background();
        }
    }
}

impl Database for Bucket {
    fn name(&self) -> PathBuf {
        PathBuf::from(&self.target.at)
    }

    fn transaction(&mut self, body: &mut Body<'_>) -> Result<Visit, SourceError> {
        let runtime = self.runtime.as_ref().ok_or_else(|| self.target.lost())?;
        let open = self.link.take().filter(|link| link.is_open());
        let begun: Result<_, DatastoreError> = runtime.block_on(async {
            let link = match open {
                Some(link) => link,
                None => Arc::new(Link::open(&self.target).await?),
            };
            let state = link.state(&self.target).await?;
            Ok((link, state))
        });
        let (link, state) = begun?;
        let mut visit = Visit::default();
        let mut table = Within { runtime, target: &self.target, link: &link, state };
        body(&mut table, &mut visit)?;
        self.link = Some(link);
        Ok(visit)
    }

    fn again(&self) -> Result<Box<dyn Database>, SourceError> {
        Ok(Box::new(Self::connect(&self.options)?))
    }
}

/// What a stream was when a read began.
#[derive(Clone, Copy, Debug)]
struct State {
    /// The newest revision.
    last: i64,
    /// How many messages there were.
    messages: u64,
}
