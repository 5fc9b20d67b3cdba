//! Which entries are wanted.

use clap::Args;

use super::{Group, Shared};

/// Where the API server keeps its objects.
#[derive(Clone, Debug, Args)]
pub struct Prefix {
    /// The API server's `--etcd-prefix`, in any of its spellings [default: /registry/]
    #[arg(long, value_name = "PREFIX", help_heading = "Selection")]
    prefix: Option<String>,

    /// What an etcd proxy puts before every key of the API server (`etcd grpc-proxy start
    /// --namespace`), where the etcd or its snapshot is read without the proxy
    #[arg(long, value_name = "BYTES", help_heading = "Selection")]
    proxy_namespace: Option<String>,
}

impl Group for Prefix {
    fn put(&self, shared: &mut Shared) {
        shared.prefix.clone_from(&self.prefix);
        shared.proxy_namespace.clone_from(&self.proxy_namespace);
    }
}

/// Resources.
#[derive(Clone, Debug, Args)]
pub struct Resources {
    /// Resource, such as `secrets`, `deployments.apps`, `*.example.com` (repeatable)
    #[arg(
        long,
        value_name = "RES",
        value_delimiter = ',',
        help_heading = "Selection",
        conflicts_with = "all_resources"
    )]
    resource: Vec<String>,

    /// Every resource
    #[arg(long, help_heading = "Selection")]
    all_resources: bool,
}

impl Group for Resources {
    fn put(&self, shared: &mut Shared) {
        shared.resource.clone_from(&self.resource);
        shared.all_resources = self.all_resources;
    }
}

/// Namespaces.
#[derive(Clone, Debug, Args)]
pub struct Namespaces {
    /// Only this namespace (repeatable)
    #[arg(
        short,
        long,
        value_name = "NAMESPACE",
        value_delimiter = ',',
        help_heading = "Selection"
    )]
    namespace: Vec<String>,
}

impl Group for Namespaces {
    fn put(&self, shared: &mut Shared) {
        shared.namespace.clone_from(&self.namespace);
    }
}

/// Whether nothing is an answer.
#[derive(Clone, Debug, Args)]
pub struct AllowEmpty {
    /// What is asked for may be missing; otherwise that is an error (exit 1)
    #[arg(long, help_heading = "Selection")]
    allow_empty: bool,
}

impl Group for AllowEmpty {
    fn put(&self, shared: &mut Shared) {
        shared.allow_empty = self.allow_empty;
    }
}

/// Which state is read.
#[derive(Clone, Debug, Args)]
pub struct Revision {
    /// Read as of this etcd revision
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..), help_heading = "Selection")]
    revision: Option<i64>,
}

impl Group for Revision {
    fn put(&self, shared: &mut Shared) {
        shared.revision = self.revision;
    }
}

/// Whether what lies outside the key space is read.
#[derive(Clone, Debug, Args)]
pub struct Lost {
    /// Also read what was compacted away and still lies in the file: in free pages, beside what
    /// is in pages in use, in the write-ahead log, in kine's old values
    #[arg(long, help_heading = "Selection")]
    lost: bool,
}

impl Group for Lost {
    fn put(&self, shared: &mut Shared) {
        shared.takes_lost = true;
        shared.lost = self.lost;
    }
}

/// Entries by resource and namespace below the prefix.
#[derive(Clone, Debug, Args)]
pub struct Selection {
    #[command(flatten)]
    prefix: Prefix,

    #[command(flatten)]
    resources: Resources,

    #[command(flatten)]
    namespaces: Namespaces,
}

impl Group for Selection {
    fn put(&self, shared: &mut Shared) {
        for group in [&self.prefix as &dyn Group, &self.resources, &self.namespaces] {
            group.put(shared);
        }
    }
}
