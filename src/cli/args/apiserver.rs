//! How to reach API servers, with kubectl's names.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::duration;

/// How to reach API servers.
#[derive(Clone, Debug, Args)]
pub struct ApiServer {
    /// How to reach the API server [default: `~/.kube/config`, or the pod's service account]
    #[arg(
        long,
        value_name = "FILE",
        env = "KUBECONFIG",
        hide_env_values = true,
        help_heading = "API server"
    )]
    pub kubeconfig: Option<PathBuf>,

    /// The kubeconfig's context to use
    #[arg(long, value_name = "NAME", help_heading = "API server")]
    pub context: Option<String>,

    /// Address of an API server in place of the kubeconfig's (repeatable, for each of several)
    #[arg(long, value_name = "URL", help_heading = "API server")]
    pub apiserver: Vec<String>,

    /// How long an API server may take for one answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse, help_heading = "API server")]
    pub request_timeout: Duration,
}
