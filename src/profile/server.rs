//! The storage flags of a kube-apiserver.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::mounts::{Mounts, items, text};
use crate::resource::joined;
use crate::yaml_tree::{self, Node, Value};

/// Where an API server keeps its objects, as its flags say it. Paths are the container's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// `--etcd-servers`.
    pub etcd_servers: Vec<String>,
    /// `--etcd-servers-overrides`: resources that lie elsewhere.
    pub etcd_servers_overrides: Vec<String>,
    /// `--etcd-cafile`.
    pub etcd_cafile: Option<PathBuf>,
    /// `--etcd-certfile`.
    pub etcd_certfile: Option<PathBuf>,
    /// `--etcd-keyfile`.
    pub etcd_keyfile: Option<PathBuf>,
    /// `--etcd-prefix`.
    pub etcd_prefix: Option<String>,
    /// `--encryption-provider-config`.
    pub encryption_provider_config: Option<PathBuf>,
}

/// Why a text does not say where an API server keeps its objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is no YAML or JSON. The message quotes nothing of it.
    #[error("line {line}: {message}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// It is something else.
    #[error("it is no {0}")]
    Kind(&'static str),
    /// None of the pod's containers runs kube-apiserver.
    #[error("none of its containers runs kube-apiserver")]
    NoApiServer,
    /// kube-apiserver does not start without.
    #[error("--etcd-servers is not set")]
    NoServers,
}

/// What k3s' and RKE2's own configuration says of the datastore
/// (docs.k3s.io "Configuration File": the keys are those of the command line).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rancher {
    /// `data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `datastore-endpoint`. Not for printing: it may hold a password.
    pub endpoint: Option<String>,
    /// `datastore-cafile`.
    pub cafile: Option<PathBuf>,
    /// `datastore-certfile`.
    pub certfile: Option<PathBuf>,
    /// `datastore-keyfile`.
    pub keyfile: Option<PathBuf>,
}

/// Reads the manifest of a static pod: the flags of its kube-apiserver, and what that sees of the
/// host.
///
/// # Errors
/// When it is no pod with a kube-apiserver. [`ManifestError::NoServers`] is left to
/// [`ApiServer::complete`].
pub fn pod(manifest: &str) -> Result<(ApiServer, Mounts), ManifestError> {
    let documents = parse(manifest)?;
    let pod = documents
        .iter()
        .find(|d| text(d, "kind") == Some("Pod"))
        .and_then(|d| d.get("spec"))
        .ok_or(ManifestError::Kind("pod"))?;
    let containers = items(pod, "containers");
    let container = containers
        .iter()
        .find(|c| text(c, "name") == Some("kube-apiserver"))
        .or_else(|| containers.iter().find(|c| runs_api_server(&words(c))))
        .ok_or(ManifestError::NoApiServer)?;
    Ok((ApiServer::from_words(&words(container)), Mounts::new(pod, container)))
}

/// Reads `OpenShift`'s `KubeAPIServerConfig`, which carries flags as lists
/// (openshift/api `kubecontrolplane/v1/types.go`: `apiServerArguments`).
///
/// # Errors
/// When it is something else.
pub fn openshift_config(config: &str) -> Result<ApiServer, ManifestError> {
    let documents = parse(config)?;
    let arguments = documents
        .first()
        .filter(|d| text(d, "kind") == Some("KubeAPIServerConfig"))
        .and_then(|d| d.get("apiServerArguments"))
        .ok_or(ManifestError::Kind("KubeAPIServerConfig with apiServerArguments"))?;
    let mut server = ApiServer::default();
    if let Value::Map(fields) = &arguments.value {
        for field in fields {
            for value in field.node.items().iter().filter_map(Node::text) {
                server.set(&field.name, value);
            }
        }
    }
    Ok(server)
}

/// Reads k3s' or RKE2's `config.yaml`.
///
/// # Errors
/// When it is no YAML.
pub fn rancher_config(config: &str) -> Result<Rancher, ManifestError> {
    let documents = parse(config)?;
    let Some(document) = documents.first() else { return Ok(Rancher::default()) };
    let path = |name| text(document, name).map(PathBuf::from);
    Ok(Rancher {
        data_dir: path("data-dir"),
        endpoint: text(document, "datastore-endpoint").map(str::to_owned),
        cafile: path("datastore-cafile"),
        certfile: path("datastore-certfile"),
        keyfile: path("datastore-keyfile"),
    })
}

impl ApiServer {
    /// This, if it names a server.
    ///
    /// # Errors
    /// [`ManifestError::NoServers`].
    pub fn complete(self) -> Result<Self, ManifestError> {
        if self.etcd_servers.is_empty() { Err(ManifestError::NoServers) } else { Ok(self) }
    }

    fn from_words(words: &[String]) -> Self {
        let mut server = Self::default();
        let mut words = words.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--") else { continue };
            if let Some((name, value)) = flag.split_once('=') {
                server.set(name, value);
            } else if let Some(value) = words.next_if(|next| !next.starts_with("--")) {
                server.set(flag, value);
            }
        }
        server
    }

    /// Applies one flag. As pflag has it, lists grow with every use and the last of anything else
    /// counts; as Kubernetes has it, `_` is `-` (component-base `cli/flag/flags.go`).
    fn set(&mut self, name: &str, value: &str) {
        let list = |list: &mut Vec<String>| {
            list.extend(
                value.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned),
            );
        };
        let path = || (!value.is_empty()).then(|| PathBuf::from(value));
        match name.replace('_', "-").as_str() {
            "etcd-servers" => list(&mut self.etcd_servers),
            "etcd-servers-overrides" => list(&mut self.etcd_servers_overrides),
            "etcd-cafile" => self.etcd_cafile = path(),
            "etcd-certfile" => self.etcd_certfile = path(),
            "etcd-keyfile" => self.etcd_keyfile = path(),
            "etcd-prefix" => self.etcd_prefix = Some(joined(value)),
            "encryption-provider-config" | "experimental-encryption-provider-config" => {
                self.encryption_provider_config = path();
            }
            _ => {}
        }
    }
}

/// `command` and `args` with the container's own variables filled in. A line for a shell is taken
/// apart at white space.
fn words(container: &Node) -> Vec<String> {
    let variables: BTreeMap<&str, &str> = items(container, "env")
        .iter()
        .filter_map(|v| Some((text(v, "name")?, text(v, "value")?)))
        .collect();
    let all = items(container, "command").iter().chain(items(container, "args"));
    let mut words = Vec::new();
    for word in all.filter_map(Node::text) {
        let mut word = word.to_owned();
        for (name, value) in &variables {
            word = word.replace(&format!("$({name})"), value);
        }
        if word.trim().contains(char::is_whitespace) && !word.starts_with("--") {
            words.extend(word.split_whitespace().map(str::to_owned));
        } else {
            words.push(word);
        }
    }
    words
}

fn runs_api_server(words: &[String]) -> bool {
    let program =
        |w: &&String| Path::new(w.as_str()).file_name().is_some_and(|n| n == "kube-apiserver");
    words.iter().take_while(|w| !w.starts_with("--")).any(|w| program(&w))
}

fn parse(content: &str) -> Result<Vec<Node>, ManifestError> {
    yaml_tree::parse(content).map_err(|e| ManifestError::Syntax {
        line: e.at.map_or(1, |at| at.line),
        message: e.message,
    })
}
