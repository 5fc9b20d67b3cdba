//! Where the entries come from.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Connection, Group, Shared};
use crate::source::datastore::Url;

/// Any source.
#[derive(Clone, Debug, Args)]
pub struct Source {
    #[command(flatten)]
    endpoints: Endpoints,

    /// Read a snapshot file (`etcdctl snapshot save`), a copy of `member/snap/db`, or an archive of
    /// objects by Velero or rancher-backup
    #[arg(long, value_name = "FILE", help_heading = "Source", conflicts_with_all = ["data_dir", "kine"])]
    snapshot: Option<PathBuf>,

    /// Read the data directory of a stopped etcd member, write-ahead log included; also one that is
    /// packed in an archive (tar, zip)
    #[arg(long, value_name = "DIR", help_heading = "Source", conflicts_with = "kine")]
    data_dir: Option<PathBuf>,

    /// Read a k3s/kine database: an SQLite file, or a server's address
    ///
    /// Addresses are written as in k3s's datastore-endpoint:
    /// postgres://USER@HOST:PORT/DATABASE?sslmode=…, mysql://USER@tcp(HOST:PORT)/DATABASE?tls=…, nats://HOST:PORT?bucket=….
    #[arg(long, value_name = "FILE|URL", help_heading = "Source")]
    kine: Option<Kine>,

    /// Read a snapshot although its SHA-256 does not match or is missing
    #[arg(long, help_heading = "Source")]
    skip_hash_check: bool,

    /// Read what is left of a damaged file by sweeping all its pages
    #[arg(long, help_heading = "Source")]
    salvage: bool,

    #[command(flatten)]
    distribution: Distribution,

    #[command(flatten)]
    connection: Connection,
}

impl Group for Source {
    fn put(&self, shared: &mut Shared) {
        shared.takes_source = true;
        shared.snapshot.clone_from(&self.snapshot);
        shared.data_dir.clone_from(&self.data_dir);
        shared.kine.clone_from(&self.kine);
        shared.skip_hash_check = self.skip_hash_check;
        shared.salvage = self.salvage;
        for group in [&self.endpoints as &dyn Group, &self.distribution, &self.connection] {
            group.put(shared);
        }
    }
}

/// `--kine`: a file, or the address of a server, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kine {
    /// An `SQLite` database.
    File(PathBuf),
    /// A server.
    Url(Url),
}

impl Kine {
    /// The file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Url(_) => None,
        }
    }

    /// The server's address, if it is one.
    pub fn url(&self) -> Option<&Url> {
        match self {
            Self::File(_) => None,
            Self::Url(url) => Some(url),
        }
    }
}

impl From<OsString> for Kine {
    fn from(text: OsString) -> Self {
        match text.to_str().and_then(Url::of) {
            Some(url) => match url.file() {
                Some(path) => Self::File(path),
                None => Self::Url(url),
            },
            None => Self::File(text.into()),
        }
    }
}

/// A live etcd and nothing else.
#[derive(Clone, Debug, Args)]
pub struct Etcd {
    #[command(flatten)]
    endpoints: Endpoints,

    #[command(flatten)]
    distribution: Distribution,

    #[command(flatten)]
    connection: Connection,
}

impl Group for Etcd {
    fn put(&self, shared: &mut Shared) {
        shared.takes_source = true;
        for group in [&self.endpoints as &dyn Group, &self.distribution, &self.connection] {
            group.put(shared);
        }
    }
}

/// A live etcd, or kine's database.
#[derive(Clone, Debug, Args)]
pub struct EtcdOrKine {
    #[command(flatten)]
    etcd: Etcd,

    /// A k3s/kine database: an SQLite file that no server has open
    #[arg(long, value_name = "FILE", help_heading = "Source")]
    kine: Option<Kine>,
}

impl Group for EtcdOrKine {
    fn put(&self, shared: &mut Shared) {
        shared.kine.clone_from(&self.kine);
        self.etcd.put(shared);
    }
}

#[derive(Clone, Debug, Args)]
struct Endpoints {
    /// etcd endpoints, comma-separated [default: 127.0.0.1:2379]
    #[arg(
        long,
        value_name = "URL[,URL…]",
        env = "ETCDCTL_ENDPOINTS",
        value_delimiter = ',',
        hide_env_values = true,
        help_heading = "Source"
    )]
    endpoints: Vec<String>,
}

impl Group for Endpoints {
    fn put(&self, shared: &mut Shared) {
        shared.endpoints.clone_from(&self.endpoints);
    }
}

/// A snapshot file and nothing else.
#[derive(Clone, Debug, Args)]
pub struct SnapshotFile {
    /// The snapshot file to read (`etcdctl snapshot save`), or a copy of `member/snap/db`
    #[arg(long, value_name = "FILE", help_heading = "Source", required = true)]
    snapshot: Option<PathBuf>,

    /// Read a snapshot although its SHA-256 does not match or is missing
    #[arg(long, help_heading = "Source")]
    skip_hash_check: bool,

    #[command(flatten)]
    distribution: Distribution,
}

impl Group for SnapshotFile {
    fn put(&self, shared: &mut Shared) {
        shared.snapshot.clone_from(&self.snapshot);
        shared.skip_hash_check = self.skip_hash_check;
        self.distribution.put(shared);
    }
}

/// Whose files say where things are.
#[derive(Clone, Debug, Args)]
pub struct Distribution {
    /// Fill in source, certificates, prefix and configuration from a distribution's places
    #[arg(long, help_heading = "Source")]
    profile: Option<Profile>,

    /// The kube-apiserver manifest to read, a static pod's or a Deployment's (kubeadm, kind,
    /// minikube, kops)
    #[arg(long, value_name = "FILE", help_heading = "Source")]
    manifest: Option<PathBuf>,

    /// Look for the profile's files below this directory, such as a mounted disk
    #[arg(long, value_name = "DIR", help_heading = "Source")]
    root: Option<PathBuf>,
}

impl Group for Distribution {
    fn put(&self, shared: &mut Shared) {
        shared.profile = self.profile;
        shared.manifest.clone_from(&self.manifest);
        shared.root.clone_from(&self.root);
    }
}

/// Distributions whose places are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// The flags of the kube-apiserver static pod
    Kubeadm,
    /// Inside a node of kind: as kubeadm
    Kind,
    /// Inside a node of minikube: as kubeadm
    Minikube,
    /// k3s
    K3s,
    /// RKE2
    Rke2,
    /// RKE, the first
    Rke1,
    /// k0s
    K0s,
    /// MicroK8s
    Microk8s,
    /// kops
    Kops,
    /// Talos
    Talos,
    /// OpenShift: the static pod of the running revision
    Openshift,
    /// MicroShift: its data directory
    Microshift,
}
