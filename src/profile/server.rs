//! The storage flags of a kube-apiserver.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::flags::{self, Flags};
use super::mounts::{Mounts, items, text};
use super::shell;
use crate::resource::joined;
use crate::yaml_tree::{self, Node, Value};

/// Where an API server keeps its objects, as its flags say it. Paths are the container's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// `--etcd-servers`.
    pub etcd_servers: Vec<String>,
    /// `--etcd-servers-overrides`: resources that lie elsewhere.
    pub etcd_servers_overrides: Vec<Override>,
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

/// A resource that is kept in an etcd of its own (kubernetes/apiserver
/// `pkg/server/options/etcd.go`: `group/resource#servers`, the servers with `;` between them).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Group-qualified: `events`, `leases.coordination.k8s.io`.
    pub resource: String,
    /// The servers.
    pub servers: Vec<String>,
}

impl Override {
    fn parse(text: &str) -> Option<Self> {
        let (path, servers) = text.split_once('#')?;
        let (group, resource) = path.split_once('/')?;
        let resource = match group {
            "" => resource.to_owned(),
            group => format!("{resource}.{group}"),
        };
        let servers = servers.split(';').map(str::trim).filter(|s| !s.is_empty());
        Some(Self { resource, servers: servers.map(str::to_owned).collect() })
    }
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

/// Reads the manifest of a static pod, or of what makes such pods: the flags of its
/// kube-apiserver, and what that sees of the host.
///
/// # Errors
/// When it has no pod with a kube-apiserver. [`ManifestError::NoServers`] is left to
/// [`ApiServer::complete`].
pub fn pod(manifest: &str) -> Result<(Flags, Mounts), ManifestError> {
    program(manifest, "kube-apiserver")?.ok_or(ManifestError::NoApiServer)
}

/// As [`pod`], of another program of the control plane; `None` where no container runs it.
///
/// # Errors
/// When it has no pod.
pub fn program(manifest: &str, name: &str) -> Result<Option<(Flags, Mounts)>, ManifestError> {
    let documents = parse(manifest)?;
    let pod = documents.iter().find_map(pod_spec).ok_or(ManifestError::Kind("pod"))?;
    let containers = items(pod, "containers");
    // By what it runs: names are free, and a helper may have flags of the same names. A
    // container of the program's name without a command runs what its image says.
    let running = containers.iter().find_map(|c| Some((c, arguments(c, name)?)));
    let named = || {
        let container = containers.iter().find(|c| text(c, "name") == Some(name))?;
        let flags = Flags::of(&words(container));
        (items(container, "command").is_empty() || !flags.is_empty()).then_some((container, flags))
    };
    Ok(running.or_else(named).map(|(container, flags)| (flags, Mounts::new(pod, container))))
}

/// A pod's own `spec`, or that of a template.
fn pod_spec(document: &Node) -> Option<&Node> {
    let spec = document.get("spec")?;
    match text(document, "kind")? {
        "Pod" => Some(spec),
        "Deployment" | "StatefulSet" | "DaemonSet" => spec.get("template")?.get("spec"),
        _ => None,
    }
}

/// Reads `OpenShift`'s `KubeAPIServerConfig`, which carries flags as lists
/// (openshift/api `kubecontrolplane/v1/types.go`: `apiServerArguments`).
///
/// # Errors
/// When it is something else.
pub fn openshift_config(config: &str) -> Result<Flags, ManifestError> {
    let documents = parse(config)?;
    let arguments = documents
        .first()
        .filter(|d| text(d, "kind") == Some("KubeAPIServerConfig"))
        .and_then(|d| d.get("apiServerArguments"))
        .ok_or(ManifestError::Kind("KubeAPIServerConfig with apiServerArguments"))?;
    let mut flags = Flags::default();
    if let Value::Map(fields) = &arguments.value {
        for field in fields {
            for value in field.node.items().iter().filter_map(Node::text) {
                flags.push(&field.name, value);
            }
        }
    }
    Ok(flags)
}

impl ApiServer {
    /// What these flags say. As pflag has it, lists grow with every use and the last of anything
    /// else counts.
    #[must_use]
    pub fn of(flags: &Flags) -> Self {
        let path = |name| flags.last(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let owned = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect();
        Self {
            etcd_servers: owned(flags.list("etcd-servers")),
            etcd_servers_overrides: flags
                .list("etcd-servers-overrides")
                .into_iter()
                .filter_map(Override::parse)
                .collect(),
            etcd_cafile: path("etcd-cafile"),
            etcd_certfile: path("etcd-certfile"),
            etcd_keyfile: path("etcd-keyfile"),
            etcd_prefix: flags.last("etcd-prefix").map(joined),
            encryption_provider_config: path("encryption-provider-config")
                .or_else(|| path("experimental-encryption-provider-config")),
        }
    }
}

/// The container's own variables.
fn variables(container: &Node) -> BTreeMap<&str, &str> {
    items(container, "env")
        .iter()
        .filter_map(|v| Some((text(v, "name")?, text(v, "value")?)))
        .collect()
}

/// `command` and `args` with the container's own variables filled in.
fn words(container: &Node) -> Vec<String> {
    let variables = variables(container);
    let all = items(container, "command").iter().chain(items(container, "args"));
    let fill = |word: &str| {
        let with = |word: String, (name, value): (&&str, &&str)| {
            word.replace(&format!("$({name})"), value)
        };
        variables.iter().fold(word.to_owned(), with)
    };
    all.filter_map(Node::text).map(fill).collect()
}

/// The flags of a program that the container runs, by itself or through a shell.
fn arguments(container: &Node, program: &str) -> Option<Flags> {
    let words = words(container);
    let shell = words.iter().position(|w| {
        let name = w.rsplit('/').next().unwrap_or_default();
        matches!(name, "sh" | "bash" | "dash" | "ash" | "ksh" | "zsh")
    });
    // `-c`, `-ec`, `-xc`.
    let script = shell.and_then(|shell| {
        let flag = words[shell..]
            .iter()
            .position(|w| w.starts_with('-') && !w.starts_with("--") && w.ends_with('c'))?;
        Some(shell + flag + 1)
    });
    let Some(script) = script.filter(|at| *at < words.len()) else {
        return flags::after(&words, program).map(Flags::of);
    };
    let variables = variables(container);
    let known = |name: &str| variables.get(name).map(|v| (*v).to_owned());
    // The first word after the script is the name that it goes by.
    let rest = words.get(script + 2..).unwrap_or_default();
    shell::commands(&words[script], &known, rest)
        .iter()
        .find_map(|command| flags::after(command, program).map(Flags::of))
}

pub(super) fn parse(content: &str) -> Result<Vec<Node>, ManifestError> {
    yaml_tree::parse(content).map_err(|e| ManifestError::Syntax {
        line: e.at.map_or(1, |at| at.line),
        message: e.message,
    })
}
