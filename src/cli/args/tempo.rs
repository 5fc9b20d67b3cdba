//! How much of etcd's time reading may take.

use clap::Args;

use super::{Group, Shared};
use crate::source::live::Manner;

/// How fast to read a live etcd.
#[derive(Clone, Debug, Args)]
pub struct Tempo {
    /// Spare etcd: one small page at a time, with pauses three times as long as its answers take
    #[arg(long, conflicts_with = "fast", help_heading = "Connection")]
    gentle: bool,

    /// Read as fast as etcd answers, whatever else it has to do
    #[arg(long, help_heading = "Connection")]
    fast: bool,

    /// Entries to read from etcd in a second, at most
    #[arg(long, value_name = "N", value_parser = super::rate, help_heading = "Connection")]
    qps: Option<f64>,
}

impl Group for Tempo {
    fn put(&self, shared: &mut Shared) {
        shared.tempo.manner = match (self.gentle, self.fast) {
            (true, _) => Manner::Gentle,
            (_, true) => Manner::Fast,
            _ => Manner::Usual,
        };
        shared.tempo.qps = self.qps;
    }
}
