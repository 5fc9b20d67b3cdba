//! `--profile`: what a distribution's own files say stands in for options that were not given.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::Ctx;
use super::args::Profile;
use super::failure::Failure;
use crate::profile::{self, ApiServer, ManifestError, Mounts, Rancher};
use crate::source::data_dir;

/// kubeadm's manifest (kubernetes/kubernetes `cmd/kubeadm/app/constants/constants.go`).
const KUBEADM_MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
/// `OpenShift`'s manifest (openshift/cluster-kube-apiserver-operator
/// `bindata/assets/kube-apiserver/pod.yaml`), which names the revision in force.
const OPENSHIFT_MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver-pod.yaml";
/// In the directory of an `OpenShift` revision.
const OPENSHIFT_CONFIG: &str = "configmaps/config/config.yaml";
/// `MicroShift`'s data directory.
const MICROSHIFT: &str = "/var/lib/microshift";
/// Where an etcd beside its API server listens.
const LOCAL_ETCD: &str = "https://127.0.0.1:2379";

/// What a profile says. What it does not know is left to the other options.
#[derive(Debug, Default)]
struct Found {
    source: Option<Place>,
    cacert: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    prefix: Option<String>,
    config: Option<PathBuf>,
    notes: Vec<String>,
}

/// Where the entries lie.
#[derive(Debug)]
enum Place {
    Endpoints(Vec<String>),
    DataDir(PathBuf),
    Kine(PathBuf),
}

/// The host's files, or those of a mounted disk.
struct Host {
    root: Option<PathBuf>,
    profile: &'static str,
    /// The source is to be found, too.
    source: bool,
}

/// Fills in what `--profile` says and no option on the command line does. Variables of the
/// environment are no request: the profile counts more.
///
/// # Errors
/// When a file of the distribution is missing, cannot be read or does not say what is needed.
pub fn apply(ctx: &mut Ctx) -> Result<(), Failure> {
    let g = &ctx.global;
    let Some(profile) = g.profile else {
        return match (&g.manifest, &g.root) {
            (Some(_), _) => {
                Err(Failure::usage("--manifest says nothing without --profile kubeadm"))
            }
            (None, Some(_)) => Err(Failure::usage("--root says nothing without --profile")),
            (None, None) => Ok(()),
        };
    };
    if g.manifest.is_some() && profile != Profile::Kubeadm {
        return Err(Failure::usage("--manifest goes with --profile kubeadm only"));
    }
    let file = g.is_file();
    let host = Host {
        root: g.root.clone(),
        profile: profile.word(),
        source: g.takes_source && !file && !ctx.given.has("endpoints"),
    };
    let found = match profile {
        Profile::Kubeadm => host.kubeadm(g.manifest.as_deref())?,
        Profile::K3s => host.rancher("k3s")?,
        Profile::Rke2 => host.rancher("rke2")?,
        Profile::Openshift => host.openshift()?,
        Profile::Microshift => host.microshift()?,
    };
    for note in &found.notes {
        ctx.ui.note(note);
    }
    fill(ctx, &host, found, file)
}

fn fill(ctx: &mut Ctx, host: &Host, found: Found, file: bool) -> Result<(), Failure> {
    let given = ctx.given.clone();
    let g = &mut ctx.global;
    let mut live = g.takes_source && !file;
    if host.source {
        match found.source {
            Some(Place::Endpoints(endpoints)) => g.endpoints = endpoints,
            Some(Place::DataDir(dir)) => {
                g.data_dir = Some(dir);
                live = false;
            }
            Some(Place::Kine(path)) => {
                g.kine = Some(path);
                live = false;
            }
            None => {}
        }
    }
    if live {
        if let (Some(path), false) = (found.cacert, given.has("cacert")) {
            host.readable(&path, "--cacert")?;
            g.cacert = Some(path);
        }
        // A certificate and its key go together.
        let own = given.has("cert") || given.has("key");
        if let (Some(cert), Some(key), false) = (found.cert, found.key, own) {
            host.readable(&cert, "--cert")?;
            host.readable(&key, "--key")?;
            (g.cert, g.key) = (Some(cert), Some(key));
        }
    }
    if let (Some(path), true) = (found.config, g.encryption_config.is_empty()) {
        host.readable(&path, "--encryption-config")?;
        g.encryption_config.push(path);
    }
    if g.prefix.is_none() {
        g.prefix = found.prefix;
    }
    Ok(())
}

impl Profile {
    fn word(self) -> &'static str {
        match self {
            Self::Kubeadm => "kubeadm",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
            Self::Openshift => "openshift",
            Self::Microshift => "microshift",
        }
    }
}

impl Host {
    /// An absolute path of the machine that the profile is about.
    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match &self.root {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    fn cannot(&self, path: &Path, e: &io::Error, option: Option<&str>) -> Failure {
        let failure = Failure::new(format!(
            "cannot read {}, which --profile {} needs",
            path.display(),
            self.profile
        ))
        .because(e);
        match (e.kind(), option) {
            (io::ErrorKind::PermissionDenied, _) => {
                failure.hint("the files of the control plane belong to root: try sudo")
            }
            (_, Some(option)) => failure
                .hint(format!("run on a control-plane node, or name another file with {option}")),
            (_, None) => failure.hint(
                "run on a control-plane node, or name the source and its certificates by options",
            ),
        }
    }

    fn read(&self, path: &Path, option: Option<&str>) -> Result<String, Failure> {
        std::fs::read_to_string(path).map_err(|e| self.cannot(path, &e, option))
    }

    fn readable(&self, path: &Path, option: &str) -> Result<(), Failure> {
        let opened = File::open(path).and_then(|f| f.metadata());
        match opened {
            Ok(meta) if meta.is_file() => Ok(()),
            Ok(_) => Err(self.cannot(path, &io::Error::other("not a regular file"), Some(option))),
            Err(e) => Err(self.cannot(path, &e, Some(option))),
        }
    }

    /// Whether there is such a file. One that may not be looked at is no "no".
    fn exists(&self, path: &Path) -> Result<bool, Failure> {
        path.try_exists().map_err(|e| self.cannot(path, &e, None))
    }

    fn kubeadm(&self, manifest: Option<&Path>) -> Result<Found, Failure> {
        let path = manifest.map_or_else(|| self.at(KUBEADM_MANIFEST), Path::to_owned);
        let content = self.read(&path, Some("--manifest"))?;
        let (server, mounts) = profile::pod(&content)
            .and_then(|(server, mounts)| Ok((self.complete(server)?, mounts)))
            .map_err(|e| malformed(&path, &e, "--manifest"))?;
        self.server(server, &mounts)
    }

    /// An API server without `--etcd-servers` does not start, but not every job needs a source.
    fn complete(&self, server: ApiServer) -> Result<ApiServer, ManifestError> {
        if self.source { server.complete() } else { Ok(server) }
    }

    fn server(&self, server: ApiServer, mounts: &Mounts) -> Result<Found, Failure> {
        let host = |path: Option<PathBuf>, option| {
            path.map(|path| match mounts.host(&path) {
                Ok(host) => Ok(self.at(host)),
                Err(volume) => Err(Failure::new(format!(
                    "{} lies in the volume `{volume}` of the API server, not on its host",
                    path.display()
                ))
                .hint(format!("copy it out and name it with {option}"))),
            })
            .transpose()
        };
        let mut notes = Vec::new();
        if !server.etcd_servers_overrides.is_empty() {
            notes.push(
                "the API server keeps some resources in another etcd (--etcd-servers-overrides), which is not read"
                    .to_owned(),
            );
        }
        Ok(Found {
            source: Some(Place::Endpoints(server.etcd_servers)),
            cacert: host(server.etcd_cafile, "--cacert")?,
            cert: host(server.etcd_certfile, "--cert")?,
            key: host(server.etcd_keyfile, "--key")?,
            prefix: server.etcd_prefix,
            config: host(server.encryption_provider_config, "--encryption-config")?,
            notes,
        })
    }

    /// k3s and RKE2 share their layout (k3s-io/k3s `pkg/daemons/control/deps/deps.go`).
    fn rancher(&self, name: &str) -> Result<Found, Failure> {
        let config = self.at(format!("/etc/rancher/{name}/config.yaml"));
        let own = if self.exists(&config)? {
            profile::rancher_config(&self.read(&config, None)?)
                .map_err(|e| malformed(&config, &e, "--kine or --data-dir"))?
        } else {
            Rancher::default()
        };
        let default = PathBuf::from(format!("/var/lib/rancher/{name}"));
        let server = self.at(own.data_dir.as_deref().unwrap_or(&default)).join("server");
        let encryption = server.join("cred/encryption-config.json");
        let mut found =
            Found { config: self.exists(&encryption)?.then_some(encryption), ..Found::default() };
        match own.endpoint.as_deref().filter(|e| !e.is_empty()) {
            Some(endpoint) => self.datastore(endpoint, &own, &mut found)?,
            None => self.embedded(&server, &mut found)?,
        }
        Ok(found)
    }

    /// `datastore-endpoint` (k3s-io/kine `pkg/endpoint/endpoint.go`: the scheme says which).
    fn datastore(&self, endpoint: &str, own: &Rancher, found: &mut Found) -> Result<(), Failure> {
        let scheme = endpoint.split_once("://").map_or("", |(scheme, _)| scheme);
        found.source = Some(match scheme {
            "http" | "https" => {
                found.cacert = own.cafile.as_deref().map(|p| self.at(p));
                found.cert = own.certfile.as_deref().map(|p| self.at(p));
                found.key = own.keyfile.as_deref().map(|p| self.at(p));
                Place::Endpoints(endpoint.split(',').map(|e| e.trim().to_owned()).collect())
            }
            "sqlite" => {
                let path = endpoint.trim_start_matches("sqlite://");
                let path = path.split_once('?').map_or(path, |(path, _)| path);
                Place::Kine(self.at(path))
            }
            _ if !self.source => return Ok(()),
            // The rest of it may hold a password.
            _ => {
                return Err(Failure::new(format!(
                    "{} keeps its objects in an external database ({}), which atrest does not read",
                    self.profile,
                    if scheme.is_empty() { "MySQL or another" } else { scheme }
                ))
                .hint("kine serves it as an etcd: start one beside it and give its --endpoints"));
            }
        });
        Ok(())
    }

    /// The embedded etcd or `SQLite` below `server`.
    fn embedded(&self, server: &Path, found: &mut Found) -> Result<(), Failure> {
        let tls = server.join("tls/etcd");
        let etcd = server.join("db/etcd");
        let sqlite = server.join("db/state.db");
        let has_etcd = self.exists(&etcd.join("member/snap/db"))?;
        if !self.source || has_etcd {
            // Wanted with explicit endpoints, too, if they are there.
            let ca = tls.join("server-ca.crt");
            if has_etcd || self.exists(&ca)? {
                found.cacert = Some(ca);
                found.cert = Some(tls.join("client.crt"));
                found.key = Some(tls.join("client.key"));
            }
        }
        if !self.source {
            return Ok(());
        }
        if has_etcd {
            found.source = Some(self.running_or_not(&etcd)?);
        } else if self.exists(&sqlite)? {
            found.source = Some(Place::Kine(sqlite));
        } else {
            return Err(Failure::new(format!(
                "{} has no datastore in {}: neither db/state.db nor db/etcd",
                self.profile,
                server.display()
            ))
            .hint(
                "run on a server node, or name the source with --kine, --data-dir or --endpoints",
            ));
        }
        Ok(())
    }

    /// An etcd that runs is asked; the files of one that does not are read.
    fn running_or_not(&self, dir: &Path) -> Result<Place, Failure> {
        let running =
            data_dir::in_use(dir).map_err(|e| self.cannot(dir, &e, Some("--data-dir")))?;
        Ok(if running {
            Place::Endpoints(vec![LOCAL_ETCD.to_owned()])
        } else {
            Place::DataDir(dir.to_owned())
        })
    }

    fn openshift(&self) -> Result<Found, Failure> {
        let manifest = self.at(OPENSHIFT_MANIFEST);
        let content = self.read(&manifest, None)?;
        let (_, mounts) = profile::pod(&content)
            .map_err(|e| malformed(&manifest, &e, "--endpoints and the certificates"))?;
        // The revision's own directory, not that of the certificates shared by all.
        let revision = mounts
            .find(|dir| {
                dir.file_name()
                    .is_some_and(|n| n.to_string_lossy().starts_with("kube-apiserver-pod-"))
            })
            .ok_or_else(|| {
                Failure::new(format!(
                    "{} names no directory kube-apiserver-pod-<revision>",
                    manifest.display()
                ))
                .hint("name the source with --endpoints, --cacert, --cert and --key")
            })?;
        let config = self.at(revision).join(OPENSHIFT_CONFIG);
        let server = profile::openshift_config(&self.read(&config, None)?)
            .and_then(|server| self.complete(server))
            .map_err(|e| malformed(&config, &e, "--endpoints and the certificates"))?;
        self.server(server, &mounts)
    }

    /// openshift/microshift `pkg/util/cryptomaterial/certpaths.go`, `pkg/controllers/etcd.go`.
    fn microshift(&self) -> Result<Found, Failure> {
        let base = self.at(MICROSHIFT);
        let etcd = base.join("etcd");
        let mut found = Found { prefix: Some("/kubernetes.io/".to_owned()), ..Found::default() };
        let signer = base.join("certs/etcd-signer");
        if self.exists(&signer)? {
            found.cacert = Some(signer.join("ca.crt"));
            found.cert = Some(signer.join("apiserver-etcd-client/client.crt"));
            found.key = Some(signer.join("apiserver-etcd-client/client.key"));
        }
        if !self.source {
            return Ok(found);
        }
        if !self.exists(&etcd.join("member/snap/db"))? {
            return Err(Failure::new(format!("there is no etcd in {}", etcd.display())).hint(
                "run on the node that MicroShift runs on, or name the source with --data-dir or --endpoints",
            ));
        }
        found.source = Some(self.running_or_not(&etcd)?);
        Ok(found)
    }
}

fn malformed(path: &Path, e: &ManifestError, instead: &str) -> Failure {
    Failure::new(format!("{} does not say where the objects are", path.display()))
        .because(e)
        .hint(format!("check the file, or use {instead}"))
}

#[cfg(test)]
mod tests;
