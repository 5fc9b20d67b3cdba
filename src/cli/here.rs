//! What this machine shows of its API server, in words.

use std::path::Path;

use super::{Ctx, datastore, open};
use crate::config::ConfigSet;
use crate::jobs::here::doubtful;

/// Warns of an API server on this machine that uses the etcd which is read, and was not started
/// with the configuration that decides what is current.
pub fn tell(ctx: &Ctx, configs: Option<&ConfigSet>) {
    let Some(configs) = configs else { return };
    if ctx.global.is_file() || datastore::url(ctx).is_some() {
        return;
    }
    let sha256 = &configs.current().sha256;
    for one in doubtful(Path::new("/proc"), &open::endpoints(ctx), sha256) {
        ctx.ui.warn(&format!("kube-apiserver (process {} of this machine) {}", one.pid, one.doubt));
    }
}
