//! Arguments → clients of API servers.

use std::path::{Path, PathBuf};

use super::args::ApiServer;
use super::failure::Failure;
use crate::apiserver::{Access, ApiError, Client, KubeconfigError, kubeconfig};

/// Where a pod finds its service account (kubernetes/client-go `rest/config.go`).
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A client for each API server that is named; the kubeconfig's alone if none is.
///
/// # Errors
/// When there is no kubeconfig, or it cannot be used.
pub fn clients(args: &ApiServer) -> Result<Vec<Client>, Failure> {
    let access = access(args)?;
    let client = |server: Option<&String>| {
        let mut access = access.clone();
        if let Some(server) = server {
            access.server.clone_from(server);
        }
        Client::new(access, args.request_timeout).map_err(Failure::from)
    };
    if args.apiserver.is_empty() {
        return Ok(vec![client(None)?]);
    }
    args.apiserver.iter().map(|server| client(Some(server))).collect()
}

/// A client for the first of them.
///
/// # Errors
/// As [`clients`].
pub fn client(args: &ApiServer) -> Result<Client, Failure> {
    let first = clients(args)?.into_iter().next();
    first.ok_or_else(|| Failure::usage("no API server is named"))
}

fn access(args: &ApiServer) -> Result<Access, Failure> {
    let set = |path: &&PathBuf| !path.as_os_str().is_empty();
    if let Some(path) = args.kubeconfig.as_ref().filter(set) {
        if path.to_string_lossy().contains(':') && !path.exists() {
            return Err(Failure::usage("several kubeconfigs are not merged").hint(
                "kubectl config view --flatten --raw writes one; name it with --kubeconfig",
            ));
        }
        return Ok(kubeconfig::read(path, args.context.as_deref())?);
    }
    if let Some(access) = in_cluster()? {
        return Ok(access);
    }
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
    match home.filter(|path| path.exists()) {
        Some(path) => Ok(kubeconfig::read(&path, args.context.as_deref())?),
        None => Err(Failure::usage("how to reach an API server is not said")
            .hint("name a kubeconfig: --kubeconfig /etc/kubernetes/admin.conf")),
    }
}

/// Of a pod.
fn in_cluster() -> Result<Option<Access>, Failure> {
    let variable = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
    let (Some(host), Some(port)) =
        (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT"))
    else {
        return Ok(None);
    };
    let token = Path::new(ACCOUNT).join("token");
    if !token.exists() {
        return Ok(None);
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Ok(Some(Access {
        server: format!("https://{host}:{port}"),
        ca: std::fs::read(Path::new(ACCOUNT).join("ca.crt")).ok(),
        server_name: None,
        insecure: false,
        client: None,
        token: Some(kubeconfig::token(&token)?),
    }))
}

impl From<KubeconfigError> for Failure {
    fn from(e: KubeconfigError) -> Self {
        let failure = Self::new("the kubeconfig cannot be used").because(&e);
        match e {
            KubeconfigError::Program { .. } => {
                failure.hint("a user with a client certificate or a token is needed")
            }
            KubeconfigError::NoContext(_) | KubeconfigError::Missing { what: "context", .. } => {
                failure
                    .hint("--context chooses one of those that `kubectl config get-contexts` lists")
            }
            _ => failure,
        }
    }
}

impl From<ApiError> for Failure {
    fn from(e: ApiError) -> Self {
        let hint = match &e {
            ApiError::Status { status: 401 | 403, .. } => Some(
                "/metrics is for users in the group system:masters, or with the ClusterRole system:monitoring",
            ),
            ApiError::Address(_) => Some("an address is https://HOST:PORT"),
            _ => None,
        };
        let failure = Self::new("the API server cannot be asked").because(&e);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
