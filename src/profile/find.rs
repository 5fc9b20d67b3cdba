//! Where each distribution keeps things, and what counts where its places differ: what runs, then
//! what it would be started with, then its defaults.

use std::path::{Path, PathBuf};

use super::flags::{self, Flags};
use super::found::{Datastore, Found, Setting, Sourced};
use super::host::{Host, ProfileError};
use super::mounts::{Mounts, items, text};
use super::places::{
    Distribution, K0S, KOPS_MANIFEST, KUBEADM_MANIFEST, LOCAL_ETCD, MICROK8S, MICROSHIFT,
    OPENSHIFT_CONFIG, OPENSHIFT_MANIFEST, TALOS_SECRETS,
};
use super::process::running;
use super::rancher::{K3S, Kind, RKE2, Settings};
use super::server::{self, ApiServer, ManifestError, parse};
use super::shell;
use super::unit::Unit;
use crate::source::data_dir;
use crate::source::datastore::Url;

/// The flags of the storage, which a running API server and its manifest are compared by.
const COMPARED: [&str; 7] = [
    "etcd-servers",
    "etcd-servers-overrides",
    "etcd-cafile",
    "etcd-certfile",
    "etcd-keyfile",
    "etcd-prefix",
    "encryption-provider-config",
];
/// The settings of k3s that name the datastore's CA, client certificate and key.
const TLS_FILES: [&str; 3] = ["datastore-cafile", "datastore-certfile", "datastore-keyfile"];
const API_SERVER: &str = "kube-apiserver";

/// Finds what a distribution's files and processes say. `manifest` stands for the API server's
/// own; what runs on this machine is then no matter.
///
/// # Errors
/// When a file is missing, cannot be read or does not say what is needed.
pub fn find(
    host: &Host,
    distribution: Distribution,
    manifest: Option<&Path>,
) -> Result<Found, ProfileError> {
    match distribution {
        Distribution::Kubeadm => host.pod(&[KUBEADM_MANIFEST], manifest),
        Distribution::Kops => host.pod(&[KOPS_MANIFEST, KUBEADM_MANIFEST], manifest),
        Distribution::K3s => host.rancher(&K3S),
        Distribution::Rke2 => host.rancher(&RKE2),
        Distribution::Openshift => host.openshift(),
        Distribution::Microshift => host.microshift(),
        Distribution::K0s => host.k0s(),
        Distribution::Microk8s => host.microk8s(),
        Distribution::Rke1 => host.rke1(),
        Distribution::Talos => host.talos(),
    }
}

/// The distributions of which something is there.
#[must_use]
pub fn present(host: &Host) -> Vec<Distribution> {
    let has = |d: &Distribution| d.marks().iter().any(|m| host.at(m).exists());
    Distribution::ALL.into_iter().filter(has).collect()
}

/// Flags in force and where they stand.
struct Told {
    flags: Flags,
    from: String,
    warnings: Vec<String>,
}

impl Host {
    /// The flags of the running API server, if there is one; else those of `file`, which has
    /// `whole` command lines or only what differs from a default.
    fn in_force(&self, file: Option<(Flags, String)>, whole: bool) -> Option<Told> {
        let process = running(&self.at("/proc"), API_SERVER).into_iter().find_map(|p| {
            let flags = p.flags(API_SERVER);
            (!flags.is_empty()).then_some((flags, p.pid))
        });
        let Some((flags, pid)) = process else {
            return file.map(|(flags, from)| Told { flags, from, warnings: Vec::new() });
        };
        let differs = |name: &&&str| {
            file.as_ref().is_some_and(|(f, _)| {
                (whole || !f.all(name).is_empty()) && f.all(name) != flags.all(name)
            })
        };
        let warnings = COMPARED
            .iter()
            .filter(differs)
            .map(|name| {
                let file = file.as_ref().map_or("the file", |(_, from)| from);
                let value = flags.last(name).unwrap_or("not set");
                format!(
                    "--{name}: the running {API_SERVER} (process {pid}) has it at {value}, {file} says otherwise; what runs counts"
                )
            })
            .collect();
        Some(Told { flags, from: format!("process {pid}"), warnings })
    }

    fn malformed(path: &Path, given: bool) -> impl Fn(ManifestError) -> ProfileError {
        move |error| ProfileError::Malformed { path: path.to_owned(), error, given }
    }

    fn pod(&self, places: &[&str], manifest: Option<&Path>) -> Result<Found, ProfileError> {
        let given = manifest.is_some();
        let mut places = places.iter().map(|p| self.at(p));
        let first = places.next().unwrap_or_default();
        let path = match manifest {
            Some(path) => path.to_owned(),
            None if first.exists() => first,
            None => places.find(|p| p.exists()).unwrap_or(first),
        };
        let content = self.read(&path, Some(Setting::Manifest))?;
        let malformed = Self::malformed(&path, given);
        let (flags, mounts) = server::pod(&content).map_err(&malformed)?;
        let file = (flags, path.display().to_string());
        let told = if given {
            Told { flags: file.0, from: file.1, warnings: Vec::new() }
        } else {
            let Some(told) = self.in_force(Some(file), true) else {
                return Err(malformed(ManifestError::NoApiServer));
            };
            told
        };
        self.server(told, &mounts, malformed)
    }

    /// What an API server's flags say.
    fn server(
        &self,
        told: Told,
        mounts: &Mounts,
        malformed: impl Fn(ManifestError) -> ProfileError,
    ) -> Result<Found, ProfileError> {
        let server = ApiServer::of(&told.flags);
        if self.source && server.etcd_servers.is_empty() {
            // It does not start without, but not every job needs a source.
            return Err(malformed(ManifestError::NoServers));
        }
        let from = |flag: &str| format!("{} (--{flag})", told.from);
        let host = |path: Option<PathBuf>, flag: &str, setting: Setting| {
            let Some(path) = path else { return Ok(None) };
            match mounts.host(&path) {
                Ok(host) => Ok(Some(Sourced::new(self.at(host), from(flag)))),
                Err(_) if self.named.contains(&setting) => Ok(None),
                Err(volume) => {
                    Err(ProfileError::Volume { volume: volume.to_owned(), path, setting })
                }
            }
        };
        Ok(Found {
            source: (!server.etcd_servers.is_empty()).then(|| {
                Sourced::new(Datastore::Endpoints(server.etcd_servers), from("etcd-servers"))
            }),
            cacert: host(server.etcd_cafile, "etcd-cafile", Setting::CaCert)?,
            cert: host(server.etcd_certfile, "etcd-certfile", Setting::Cert)?,
            key: host(server.etcd_keyfile, "etcd-keyfile", Setting::Key)?,
            prefix: server.etcd_prefix.map(|p| Sourced::new(p, from("etcd-prefix"))),
            config: host(
                server.encryption_provider_config,
                "encryption-provider-config",
                Setting::Config,
            )?,
            overrides: server
                .etcd_servers_overrides
                .into_iter()
                .map(|o| Sourced::new(o, from("etcd-servers-overrides")))
                .collect(),
            warnings: told.warnings,
        })
    }

    /// k3s and RKE2 share their layout (k3s-io/k3s `pkg/daemons/control/deps/deps.go`).
    fn rancher(&self, kind: &Kind) -> Result<Found, ProfileError> {
        let settings = Settings::read(self, kind)?;
        let data = settings.get("data-dir").map(|s| self.at(s.value));
        let data = data.unwrap_or_else(|| self.at(format!("/var/lib/rancher/{}", kind.name)));
        let server = data.join("server");
        let mut found = Found { warnings: settings.warnings.clone(), ..Found::default() };
        // RKE2's API server is a pod; k3s' is a part of k3s, with these flags.
        let manifest = data.join("agent/pod-manifests/kube-apiserver.yaml");
        if let Some(content) = self.read_if_there(&manifest)? {
            let malformed = Self::malformed(&manifest, false);
            let (flags, mounts) = server::pod(&content).map_err(&malformed)?;
            let told = self.in_force(Some((flags, manifest.display().to_string())), true);
            if let Some(told) = told {
                let any = Host { source: false, ..self.clone() };
                let pod = any.server(told, &mounts, malformed)?;
                found.warnings.extend(pod.warnings.clone());
                found = Found { source: None, warnings: found.warnings, ..pod };
            }
        }
        let (flags, from) = settings.arguments("kube-apiserver-arg");
        let arguments = ApiServer::of(&flags);
        if let Some(prefix) = arguments.etcd_prefix {
            found.prefix = Some(Sourced::new(prefix, &*from));
        }
        let encryption = server.join("cred/encryption-config.json");
        if let Some(path) = arguments.encryption_provider_config {
            found.config = Some(Sourced::new(self.at(path), &*from));
        } else if found.config.is_none() && self.exists(&encryption)? {
            let why = settings.get("secrets-encryption");
            let why = why.map_or_else(|| "it is there".to_owned(), |s| s.from);
            found.config = Some(Sourced::new(encryption, why));
        }
        found
            .overrides
            .extend(arguments.etcd_servers_overrides.into_iter().map(|o| Sourced::new(o, &*from)));
        match settings.get("datastore-endpoint") {
            Some(endpoint) => self.datastore(&endpoint, &settings, &server, &mut found)?,
            None => self.embedded(&server, &mut found)?,
        }
        Ok(found)
    }

    /// `datastore-endpoint` (k3s-io/kine `pkg/endpoint/endpoint.go`: `ParseStorageEndpoint`; what
    /// has no scheme is kine's own `SQLite`).
    fn datastore(
        &self,
        endpoint: &Sourced<String>,
        settings: &Settings,
        server: &Path,
        found: &mut Found,
    ) -> Result<(), ProfileError> {
        let text = endpoint.value.as_str();
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let from = endpoint.from.clone();
        let file = |name: &str| {
            settings.get(name).map(|s| {
                // k3s works in its server directory (`setupDataDirAndChdir`).
                let path = Path::new(&s.value);
                let path = if path.is_absolute() { self.at(path) } else { server.join(path) };
                Sourced::new(path, s.from)
            })
        };
        let place = match (scheme, Url::of(text)) {
            ("http" | "https", _) => {
                [found.cacert, found.cert, found.key] = TLS_FILES.map(file);
                Datastore::Endpoints(text.split(',').map(|e| e.trim().to_owned()).collect())
            }
            ("postgres" | "postgresql" | "mysql" | "nats", Some(url)) => {
                [found.cacert, found.cert, found.key] = TLS_FILES.map(file);
                Datastore::Server(url)
            }
            ("", _) => Datastore::Kine(server.join("db/state.db")),
            ("sqlite", _) => {
                let path = rest.strip_prefix("file:").unwrap_or(rest);
                let path = path.split_once('?').map_or(path, |(path, _)| path);
                let path = Path::new(if path.is_empty() { "./db/state.db" } else { path });
                let path = path.strip_prefix("./").unwrap_or(path);
                let absolute = path.is_absolute();
                Datastore::Kine(if absolute { self.at(path) } else { server.join(path) })
            }
            _ if !self.source => return Ok(()),
            // The rest of it may hold a password.
            _ => {
                return Err(ProfileError::External(format!(
                    "{} keeps its objects in an external database ({scheme}, by {from}), which this profile does not read",
                    self.profile
                )));
            }
        };
        found.source = Some(Sourced::new(place, from));
        Ok(())
    }

    /// The embedded etcd or `SQLite` below `server`.
    fn embedded(&self, server: &Path, found: &mut Found) -> Result<(), ProfileError> {
        const WHY: &str = "the distribution's own place";
        let tls = server.join("tls/etcd");
        let etcd = server.join("db/etcd");
        let sqlite = server.join("db/state.db");
        let has_etcd = self.exists(&etcd.join("member/snap/db"))?;
        if !self.source || has_etcd {
            // Wanted with explicit endpoints, too, if they are there.
            let ca = tls.join("server-ca.crt");
            if has_etcd || self.exists(&ca)? {
                found.cacert = Some(Sourced::new(ca, WHY));
                found.cert = Some(Sourced::new(tls.join("client.crt"), WHY));
                found.key = Some(Sourced::new(tls.join("client.key"), WHY));
            }
        }
        if !self.source {
            return Ok(());
        }
        if has_etcd {
            found.source = Some(self.running_or_not(&etcd)?);
        } else if self.exists(&sqlite)? {
            found.source = Some(Sourced::new(Datastore::Kine(sqlite), WHY));
        } else {
            return Err(ProfileError::NoDatastore(format!(
                "{} has no datastore in {}: neither db/state.db nor db/etcd",
                self.profile,
                server.display()
            )));
        }
        Ok(())
    }

    /// An etcd that runs is asked; the files of one that does not are read.
    fn running_or_not(&self, dir: &Path) -> Result<Sourced<Datastore>, ProfileError> {
        let running =
            data_dir::in_use(dir).map_err(|e| self.cannot(dir, e, Some(Setting::DataDir)))?;
        Ok(if running {
            let from = format!("an etcd runs in {}", dir.display());
            Sourced::new(Datastore::Endpoints(vec![LOCAL_ETCD.to_owned()]), from)
        } else {
            Sourced::new(Datastore::DataDir(dir.to_owned()), "no etcd runs there")
        })
    }

    /// An etcd's own directory, where nothing else says where the objects are.
    fn own_etcd(&self, dirs: &[PathBuf], found: &mut Found) -> Result<(), ProfileError> {
        if !self.source || found.source.is_some() {
            return Ok(());
        }
        for dir in dirs {
            if self.exists(&dir.join("member/snap/db"))? {
                found.source = Some(self.running_or_not(dir)?);
                return Ok(());
            }
        }
        let looked: Vec<_> = dirs.iter().map(|d| d.display().to_string()).collect();
        Err(ProfileError::NoDatastore(format!("there is no etcd in {}", looked.join(" or "))))
    }

    /// Certificates and configuration of well-known places, as far as they are there.
    fn defaults(
        &self,
        found: &mut Found,
        ca: &Path,
        cert: &Path,
        key: &Path,
        configs: &[PathBuf],
    ) -> Result<(), ProfileError> {
        const WHY: &str = "the distribution's own place";
        if found.cert.is_none() && self.exists(cert)? {
            found.cacert = Some(Sourced::new(ca.to_owned(), WHY));
            found.cert = Some(Sourced::new(cert.to_owned(), WHY));
            found.key = Some(Sourced::new(key.to_owned(), WHY));
        }
        for config in configs {
            if found.config.is_none() && self.exists(config)? {
                found.config = Some(Sourced::new(config.clone(), WHY));
            }
        }
        Ok(())
    }

    /// What the running API server says, whose paths are the host's; nothing where none runs.
    fn process_or(
        &self,
        file: Option<(Flags, String)>,
        whole: bool,
    ) -> Result<Found, ProfileError> {
        let Some(told) = self.in_force(file, whole) else { return Ok(Found::default()) };
        let any = Self { source: false, ..self.clone() };
        any.server(told, &Mounts::default(), Self::malformed(Path::new("/proc"), false))
    }

    fn openshift(&self) -> Result<Found, ProfileError> {
        let manifest = self.at(OPENSHIFT_MANIFEST);
        let content = self.read(&manifest, None)?;
        let (_, mounts) = server::pod(&content).map_err(Self::malformed(&manifest, false))?;
        // The revision's own directory, not that of the certificates shared by all.
        let revision = mounts.find(|dir| {
            dir.file_name().is_some_and(|n| n.to_string_lossy().starts_with("kube-apiserver-pod-"))
        });
        let revision = revision.ok_or_else(|| {
            ProfileError::NoDatastore(format!(
                "{} names no directory kube-apiserver-pod-<revision>",
                manifest.display()
            ))
        })?;
        let config = self.at(revision).join(OPENSHIFT_CONFIG);
        let malformed = Self::malformed(&config, false);
        let flags = server::openshift_config(&self.read(&config, None)?).map_err(&malformed)?;
        // The process is given this file, and no flags of its own.
        let told = Told { flags, from: config.display().to_string(), warnings: Vec::new() };
        self.server(told, &mounts, malformed)
    }

    /// openshift/microshift `pkg/util/cryptomaterial/certpaths.go`, `pkg/controllers/etcd.go`.
    fn microshift(&self) -> Result<Found, ProfileError> {
        let base = self.at(MICROSHIFT);
        let mut found = Found::default();
        let own = "MicroShift's default".to_owned();
        found.prefix = Some(Sourced::new("/kubernetes.io/".to_owned(), own));
        let signer = base.join("certs/etcd-signer");
        let client = signer.join("apiserver-etcd-client");
        let (cert, key) = (client.join("client.crt"), client.join("client.key"));
        if self.exists(&signer)? {
            const WHY: &str = "the distribution's own place";
            found.cacert = Some(Sourced::new(signer.join("ca.crt"), WHY));
            found.cert = Some(Sourced::new(cert, WHY));
            found.key = Some(Sourced::new(key, WHY));
        }
        self.own_etcd(&[base.join("etcd")], &mut found)?;
        Ok(found)
    }

    /// k0sproject/k0s `pkg/constant/constant_posix.go`, `pkg/apis/k0s/v1beta1/storage.go`.
    fn k0s(&self) -> Result<Found, ProfileError> {
        let unit = Unit::read(self, "k0scontroller.service")?;
        let options = Flags::of(&unit.command);
        let data = self.at(options.last("data-dir").unwrap_or(K0S));
        let own = self.at(options.last("config").unwrap_or("/etc/k0s/k0s.yaml"));
        let mut file = Flags::default();
        let mut kine = None;
        if let Some(content) = self.read_if_there(&own)? {
            let documents = parse(&content).map_err(Self::malformed(&own, false))?;
            let spec = documents.first().and_then(|d| d.get("spec"));
            let storage = spec.and_then(|s| s.get("storage"));
            let extra = spec.and_then(|s| s.get("api")).and_then(|a| a.get("extraArgs"));
            if let Some(crate::yaml_tree::Value::Map(fields)) = extra.map(|e| &e.value) {
                for field in fields {
                    if let Some(value) = field.node.text() {
                        file.push(&field.name, value);
                    }
                }
            }
            let external =
                storage.and_then(|s| s.get("etcd")).and_then(|e| e.get("externalCluster"));
            if let Some(external) = external {
                for endpoint in items(external, "endpoints") {
                    file.push("etcd-servers", endpoint.text().unwrap_or_default());
                }
                for (field, flag) in [
                    ("caFile", "etcd-cafile"),
                    ("clientCertFile", "etcd-certfile"),
                    ("clientKeyFile", "etcd-keyfile"),
                    ("etcdPrefix", "etcd-prefix"),
                ] {
                    if let Some(value) = text(external, field) {
                        file.push(flag, value);
                    }
                }
            }
            if storage.and_then(|s| text(s, "type")) == Some("kine") {
                let dsn = storage.and_then(|s| s.get("kine")).and_then(|k| text(k, "dataSource"));
                kine = Some(dsn.unwrap_or_default().to_owned());
            }
        }
        let from = own.display().to_string();
        let mut found = self.process_or(Some((file, from.clone())), false)?;
        if let Some(dsn) = kine {
            found.source = None;
            let dsn = Sourced::new(if dsn.is_empty() { "sqlite://".to_owned() } else { dsn }, from);
            self.datastore(&dsn, &Settings::default(), &data, &mut found)?;
        }
        let pki = data.join("pki");
        let client = pki.join("apiserver-etcd-client");
        let (cert, key) = (client.with_extension("crt"), client.with_extension("key"));
        let source = found.source.as_ref().map(|s| &s.value);
        if !matches!(source, Some(Datastore::Kine(_) | Datastore::Server(_))) {
            self.defaults(&mut found, &pki.join("etcd/ca.crt"), &cert, &key, &[])?;
        }
        if found.source.is_none() && self.exists(&data.join("db/state.db"))? {
            let sqlite = Datastore::Kine(data.join("db/state.db"));
            if !self.exists(&data.join("etcd/member/snap/db"))? {
                found.source = Some(Sourced::new(sqlite, "the distribution's own place"));
            }
        }
        self.own_etcd(&[data.join("etcd")], &mut found)?;
        Ok(found)
    }

    /// The arguments that `MicroK8s` keeps in files, one a line.
    fn microk8s(&self) -> Result<Found, ProfileError> {
        let base = self.at(MICROK8S);
        let path = base.join("args/kube-apiserver");
        let content = self.read(&path, None)?;
        let known = |name: &str| match name {
            "SNAP_DATA" => Some(MICROK8S.to_owned()),
            "SNAP" => Some("/snap/microk8s/current".to_owned()),
            "SNAP_COMMON" => Some("/var/snap/microk8s/common".to_owned()),
            _ => None,
        };
        let words: Vec<_> = shell::commands(&content, &known, &[]).into_iter().flatten().collect();
        let flags = Flags::of(&words);
        let found = self.process_or(Some((flags, path.display().to_string())), true)?;
        let dqlite = match found.source.as_ref().map(|s| &s.value) {
            Some(Datastore::Endpoints(all)) => all.iter().any(|e| e.contains("kine.sock")),
            _ => true,
        };
        if dqlite && self.source {
            return Err(ProfileError::External(format!(
                "MicroK8s keeps its objects in dqlite (below {}), which this profile does not read",
                base.join("var/kubernetes/backend").display()
            )));
        }
        Ok(found)
    }

    /// RKE's containers, by what runs, else by what Docker would start, else by their places
    /// (rancher/rke `cluster/plan.go`).
    fn rke1(&self) -> Result<Found, ProfileError> {
        let docker = self.docker_arguments()?;
        let mut found = self.process_or(docker, true)?;
        let ssl = self.at("/etc/kubernetes/ssl");
        let configs = [ssl.join("encryption.yaml")];
        let (cert, key) = (ssl.join("kube-node.pem"), ssl.join("kube-node-key.pem"));
        self.defaults(&mut found, &ssl.join("kube-ca.pem"), &cert, &key, &configs)?;
        let dirs = [self.at("/var/lib/etcd"), self.at("/opt/rke/var/lib/etcd")];
        self.own_etcd(&dirs, &mut found)?;
        Ok(found)
    }

    /// What Docker starts the API server with (moby `container/container.go`: `config.v2.json`).
    fn docker_arguments(&self) -> Result<Option<(Flags, String)>, ProfileError> {
        let base = self.at("/var/lib/docker/containers");
        let Ok(entries) = std::fs::read_dir(&base) else { return Ok(None) };
        for entry in entries.flatten() {
            let path = entry.path().join("config.v2.json");
            let Some(content) = self.read_if_there(&path)? else { continue };
            let Ok(json) = serde_json::from_str::<serde_json::Value>(&content) else { continue };
            let words: Vec<String> = json["Args"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|w| w.as_str().map(str::to_owned))
                .collect();
            if let Some(after) = flags::after(&words, API_SERVER) {
                return Ok(Some((Flags::of(after), path.display().to_string())));
            }
        }
        Ok(None)
    }

    /// Talos renders everything into memory; a disk has the machine configuration and etcd's data.
    fn talos(&self) -> Result<Found, ProfileError> {
        let mut found = self.process_or(None, false)?;
        // Inside the pod these paths are others.
        (found.cacert, found.cert, found.key, found.config) = (None, None, None, None);
        let secrets = self.at(TALOS_SECRETS).join("kubernetes/kube-apiserver");
        let configs = [
            secrets.join("encryptionconfig.yaml"),
            self.at("/system/state/config.yaml"),
            self.at("/config.yaml"),
        ];
        let client = secrets.join("etcd-client");
        let (cert, key) = (client.with_extension("crt"), client.with_extension("key"));
        let ca = secrets.join("etcd-client-ca.crt");
        self.defaults(&mut found, &ca, &cert, &key, &configs)?;
        // The data partition by itself is what /var is.
        let dirs = [self.at("/var/lib/etcd"), self.at("/lib/etcd")];
        self.own_etcd(&dirs, &mut found)?;
        Ok(found)
    }
}
