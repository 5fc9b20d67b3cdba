//! Reads a kubeconfig: where an API server is and who asks (kubernetes/client-go
//! `tools/clientcmd/api/v1/types.go`).

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

/// How to reach an API server, all files read.
#[derive(Clone)]
pub struct Access {
    /// `https://host:port/path`, without a `/` at the end.
    pub server: String,
    /// PEM bundle that the server is verified against; the system's if none.
    pub ca: Option<Vec<u8>>,
    /// The name that the server's certificate must have, where it is not the host.
    pub server_name: Option<String>,
    /// Any certificate will do.
    pub insecure: bool,
    /// PEM client certificate and key.
    pub client: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    /// Bearer token.
    pub token: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Access({})", self.server)
    }
}

/// Why a kubeconfig does not say how to reach an API server. Quotes nothing that may be secret.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// A file that it names, or itself.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// It is something else.
    #[error("{}: no kubeconfig: {what}", path.display())]
    Malformed {
        /// The kubeconfig.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Something that it names is not in it.
    #[error("{}: there is no {what} `{name}`", path.display())]
    Missing {
        /// The kubeconfig.
        path: PathBuf,
        /// `context`, `cluster`, `user`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// No context is chosen.
    #[error("{}: it has no current-context, and none was named", .0.display())]
    NoContext(PathBuf),
    /// The user's credentials come from a program.
    #[error("{}: the user's credentials come from a program ({what}), which is not run", path.display())]
    Program {
        /// The kubeconfig.
        path: PathBuf,
        /// `exec` or `auth-provider`.
        what: &'static str,
    },
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "current-context")]
    current_context: Option<String>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    #[serde(default, deserialize_with = "hidden")]
    client_key_data: Option<Zeroizing<String>>,
    #[serde(default, deserialize_with = "hidden")]
    token: Option<Zeroizing<String>>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
}

fn hidden<'de, D: serde::Deserializer<'de>>(
    text: D,
) -> Result<Option<Zeroizing<String>>, D::Error> {
    Option::<String>::deserialize(text).map(|text| text.map(Zeroizing::new))
}

/// Reads the file at `path`; `context` is the one to use, else its own choice. Paths in it are
/// relative to it.
///
/// # Errors
/// See [`KubeconfigError`].
pub fn read(path: &Path, context: Option<&str>) -> Result<Access, KubeconfigError> {
    let text = Zeroizing::new(file(path)?);
    let malformed =
        |what: &str| KubeconfigError::Malformed { path: path.to_owned(), what: what.to_owned() };
    let text = std::str::from_utf8(&text).map_err(|_| malformed("not UTF-8"))?;
    // The parser's own message may quote the file.
    let config: File =
        serde_saphyr::from_str(text).map_err(|_| malformed("not the YAML of one"))?;
    let missing = |what, name: &str| KubeconfigError::Missing {
        path: path.to_owned(),
        what,
        name: name.to_owned(),
    };
    let name = context.or(config.current_context.as_deref()).filter(|n| !n.is_empty());
    let name = name.ok_or_else(|| KubeconfigError::NoContext(path.to_owned()))?;
    let context = config.contexts.iter().find(|c| c.name == name);
    let context = &context.ok_or_else(|| missing("context", name))?.context;
    let cluster = config.clusters.iter().find(|c| c.name == context.cluster);
    let cluster = &cluster.ok_or_else(|| missing("cluster", &context.cluster))?.cluster;
    let none = User::default();
    let user = match config.users.iter().find(|u| u.name == context.user) {
        Some(named) => &named.user,
        None if context.user.is_empty() => &none,
        None => return Err(missing("user", &context.user)),
    };
    let base = path.parent().unwrap_or(Path::new("."));
    let data = |data: Option<&str>, file_: Option<&PathBuf>, what: &str| match (data, file_) {
        (Some(text), _) if !text.is_empty() => {
            let joined: String = text.split_whitespace().collect();
            let bytes = STANDARD.decode(joined);
            bytes.map(Some).map_err(|_| malformed(&format!("{what} is not base64")))
        }
        (_, Some(name)) => file(&base.join(name)).map(Some),
        _ => Ok(None),
    };
    let cert = data(
        user.client_certificate_data.as_deref(),
        user.client_certificate.as_ref(),
        "client-certificate-data",
    )?;
    let key = data(
        user.client_key_data.as_ref().map(|t| t.as_str()),
        user.client_key.as_ref(),
        "client-key-data",
    )?
    .map(Zeroizing::new);
    let client = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(malformed("a client certificate without its key, or the other way round")),
    };
    // As client-go: the file wins.
    let token = match (&user.token_file, &user.token) {
        (Some(name), _) => Some(token(&base.join(name))?),
        (None, Some(text)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    };
    if client.is_none() && token.is_none() {
        let program = |what| KubeconfigError::Program { path: path.to_owned(), what };
        if user.exec.is_some() {
            return Err(program("exec"));
        }
        if user.auth_provider.is_some() {
            return Err(program("auth-provider"));
        }
    }
    Ok(Access {
        server: cluster.server.trim_end_matches('/').to_owned(),
        ca: data(
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_ref(),
            "certificate-authority-data",
        )?,
        server_name: cluster.tls_server_name.clone().filter(|n| !n.is_empty()),
        insecure: cluster.insecure_skip_tls_verify,
        client,
        token,
    })
}

/// A token from its file, as pods have them.
///
/// # Errors
/// When it cannot be read.
pub fn token(path: &Path) -> Result<Zeroizing<String>, KubeconfigError> {
    let bytes = Zeroizing::new(file(path)?);
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).trim().to_owned()))
}

fn file(path: &Path) -> Result<Vec<u8>, KubeconfigError> {
    std::fs::read(path)
        .map_err(|cause| KubeconfigError::Unreadable { path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    const TEXT: &str = "\
apiVersion: v1
kind: Config
current-context: admin@a
preferences: {}
contexts:
- {name: admin@a, context: {cluster: a, user: admin, namespace: x}}
- {name: pod@b, context: {cluster: b, user: pod}}
- {name: cloud, context: {cluster: b, user: cloud}}
- {name: lost, context: {cluster: nowhere}}
clusters:
- name: a
  cluster: {server: 'https://10.0.0.1:6443/', certificate-authority-data: 'Q0E='}
- name: b
  cluster: {server: 'https://b:6443', certificate-authority: ca.pem, tls-server-name: kubernetes}
users:
- name: admin
  user: {client-certificate-data: Q0VSVA==, client-key-data: S0VZ}
- name: pod
  user: {tokenFile: token, token: other}
- name: cloud
  user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: cloud, args: [token]}}
";

    #[test]
    fn a_context_names_a_cluster_and_a_user() {
        let (dir, path) = written(TEXT);
        std::fs::write(dir.path().join("ca.pem"), "PEM").unwrap();
        std::fs::write(dir.path().join("token"), "secret\n").unwrap();
        let admin = read(&path, None).unwrap();
        assert_eq!(admin.server, "https://10.0.0.1:6443");
        assert_eq!(admin.ca.as_deref(), Some(&b"CA"[..]));
        let (cert, key) = admin.client.as_ref().unwrap();
        assert_eq!((cert.as_slice(), key.as_slice()), (&b"CERT"[..], &b"KEY"[..]));
        assert!(!format!("{admin:?}").contains("KEY"));
        let pod = read(&path, Some("pod@b")).unwrap();
        assert_eq!((pod.token.unwrap().as_str(), pod.ca.as_deref()), ("secret", Some(&b"PEM"[..])));
        assert_eq!(pod.server_name.as_deref(), Some("kubernetes"));
        let error = |context| read(&path, Some(context)).unwrap_err().to_string();
        assert!(error("cloud").contains("exec"));
        assert!(error("lost").contains("no cluster `nowhere`"));
        assert!(error("none").contains("no context `none`"));
    }

    #[test]
    fn errors_quote_nothing() {
        let (_dir, path) = written("users: [hunter2");
        let error = read(&path, None).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        let (_dir, path) = written(&TEXT.replace("S0VZ", "'not base64 hunter2!'"));
        let error = read(&path, None).unwrap_err().to_string();
        assert!(error.contains("client-key-data") && !error.contains("hunter2"), "{error}");
    }
}
