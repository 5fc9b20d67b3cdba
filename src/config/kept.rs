//! Files of a cluster's own tools that hold its configuration, or only the keys from which the
//! tool writes one:
//!
//! | file | where in it | source |
//! | --- | --- | --- |
//! | RKE `cluster.rkestate`, and the `full-cluster-state` that RKE keeps in the cluster | `currentState.encryptionConfig`, YAML as text | rancher/rke `cluster/state.go` |
//! | RKE `cluster.yml` | `services.kube-api.secrets_encryption_config.custom_config` | rancher/rke `types/rke_types.go` |
//! | Talos machine configuration | `cluster.secretboxEncryptionSecret`, `cluster.aescbcEncryptionSecret` | siderolabs/talos `internal/app/machined/pkg/controllers/k8s/templates/kube-system-encryption-config-template.yaml` |
//! | Talos machine configuration since 1.14 | a document of kind `KubeEtcdEncryptionConfig` | siderolabs/talos `pkg/machinery/config/types/k8s` |
//! | Talos `secrets.yaml` | `secrets.secretboxencryptionsecret`, `…aescbc…` | siderolabs/talos `pkg/machinery/config/generate/secrets/bundle.go` |
//! | OpenShift `encryption-key-*` Secrets | one key each, the newest last | openshift/library-go `pkg/operator/encryption/secrets/secrets.go` |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::loaded::{self, LoadError, Loaded};
use crate::yaml_tree::{Node, Value};

type Found = Result<Vec<Loaded>, LoadError>;

/// Deepest nesting of one file's text in another's.
const MAX_INSIDE: usize = 3;

/// The configurations in documents of one of these kinds; `None` if they are none of them.
pub(super) fn find(documents: &[Node], origin: &str, inside: usize) -> Option<Found> {
    let first = documents.first()?;
    if first.get("desiredState").or_else(|| first.get("currentState")).is_some() {
        return Some(rke_state(first, origin));
    }
    if let Some(settings) = rke_settings(first) {
        return Some(rke_custom(settings, origin));
    }
    if let Some(found) = talos(documents, origin) {
        return Some(found);
    }
    // `talosctl get machineconfig -o yaml` has the whole file as the text of `spec`.
    let spec = first.get("spec").and_then(Node::text)?;
    if inside >= MAX_INSIDE || first.get("metadata").is_none() {
        return None;
    }
    let spec = Zeroizing::new(spec.as_bytes().to_vec());
    find(&loaded::documents(&spec), &format!("{origin}: spec"), inside + 1)
}

fn at<'n>(node: &'n Node, path: &[&[&str]]) -> Option<&'n Node> {
    path.iter().try_fold(node, |node, names| names.iter().find_map(|name| node.get(name)))
}

/// What the API server runs with first; what the next `rke up` would write as well.
fn rke_state(root: &Node, origin: &str) -> Found {
    let mut found: Vec<Loaded> = Vec::new();
    let mut wrong = None;
    for state in ["currentState", "desiredState"] {
        let Some(node) = root.get(state) else { continue };
        let loaded = if let Some(text) =
            node.get("encryptionConfig").and_then(Node::text).filter(|t| !t.is_empty())
        {
            loaded::plain(text.as_bytes(), &format!("{origin}: {state}.encryptionConfig"))
                .map(|one| vec![one])
        } else if let Some(settings) = node.get("rkeConfig").and_then(rke_settings) {
            rke_custom(settings, &format!("{origin}: {state}.rkeConfig"))
        } else {
            continue;
        };
        match loaded {
            Ok(all) => push_new(&mut found, all),
            Err(e) => {
                wrong.get_or_insert(e);
            }
        }
    }
    some(found, wrong, origin, "an RKE state file")
}

fn rke_settings(root: &Node) -> Option<&Node> {
    at(
        root,
        &[
            &["services"],
            &["kube-api", "kubeApi"],
            &["secrets_encryption_config", "secretsEncryptionConfig"],
        ],
    )
}

fn rke_custom(settings: &Node, origin: &str) -> Found {
    let custom = at(settings, &[&["custom_config", "customConfig"]]);
    let Some(custom @ Node { value: Value::Map(_), .. }) = custom else {
        return Err(LoadError::Elsewhere { origin: origin.to_owned() });
    };
    let location = format!("{origin}: services.kube-api.secrets_encryption_config.custom_config");
    Ok(vec![loaded::plain(&text_of(custom), &location)?])
}

fn talos(documents: &[Node], origin: &str) -> Option<Found> {
    let mut found = Vec::new();
    let mut any = false;
    for document in documents {
        if document.get("kind").and_then(Node::text) == Some("KubeEtcdEncryptionConfig") {
            any = true;
            let Some(config) = document.get("config") else { continue };
            let location = format!("{origin}: KubeEtcdEncryptionConfig");
            let text = config.text().map(|t| Zeroizing::new(t.as_bytes().to_vec()));
            match loaded::plain(&text.unwrap_or_else(|| text_of(config)), &location) {
                Ok(one) => found.push(one),
                Err(e) => return Some(Err(e)),
            }
        }
    }
    for document in documents {
        let is_machine = document.get("machine").is_some() && document.get("version").is_some();
        let holder = match (document.get("cluster"), document.get("secrets")) {
            (cluster, None) if is_machine => cluster,
            (Some(_), Some(secrets)) => Some(secrets),
            _ => continue,
        };
        any = true;
        let Some(text) = holder.and_then(talos_keys) else { continue };
        let location = format!("{origin}: the keys of a Talos cluster");
        match loaded::plain(&text, &location) {
            Ok(one) => found.push(one),
            Err(e) => return Some(Err(e)),
        }
    }
    any.then(|| some(found, None, origin, "a Talos configuration"))
}

/// The file that Talos writes from its keys, with the names that it gives them.
fn talos_keys(holder: &Node) -> Option<Zeroizing<Vec<u8>>> {
    let secret = |name: &str| match &holder.value {
        Value::Map(fields) => fields
            .iter()
            .find(|f| f.name.eq_ignore_ascii_case(name))
            .and_then(|f| f.node.text())
            .filter(|text| !text.is_empty()),
        _ => None,
    };
    let keys = [
        ("secretbox", "key2", secret("secretboxEncryptionSecret")),
        ("aescbc", "key1", secret("aescbcEncryptionSecret")),
    ];
    if keys.iter().all(|(_, _, secret)| secret.is_none()) {
        return None;
    }
    let mut text = header(&["secrets"]);
    for (provider, name, secret) in keys {
        if let Some(secret) = secret {
            push_key(&mut text, provider, name, secret);
        }
    }
    text.extend_from_slice(b"      - identity: {}\n");
    Some(text)
}

/// A configuration's text up to its providers.
fn header(resources: &[&str]) -> Zeroizing<Vec<u8>> {
    // Large enough that growing leaves no copies of keys behind.
    let mut text = Zeroizing::new(Vec::with_capacity(1 << 16));
    let head = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n  - resources: [{}]\n    providers:\n",
        resources.join(", ")
    );
    text.extend_from_slice(head.as_bytes());
    text
}

fn push_key(text: &mut Vec<u8>, provider: &str, name: &str, secret: &str) {
    let quoted = |value: &str| Zeroizing::new(serde_json::Value::from(value).to_string());
    for part in [
        "      - ",
        provider,
        ":\n          keys:\n            - name: ",
        &quoted(name),
        "\n              secret: ",
        &quoted(secret),
        "\n",
    ] {
        text.extend_from_slice(part.as_bytes());
    }
}

/// What the names of `OpenShift`'s key Secrets begin with, and the data that is the key.
const OPENSHIFT_KEY: &str = "encryption-key-";
const OPENSHIFT_DATA: &str = "encryption.apiserver.operator.openshift.io-key";
const OPENSHIFT_MODE: &str = "encryption.apiserver.operator.openshift.io/mode";

/// One configuration for each API server whose key Secrets these are; `None` without any.
pub(super) fn openshift(secrets: &[Node], origin: &str) -> Option<Found> {
    let mut keys: Vec<(&str, u64, &str, Zeroizing<String>)> = Vec::new();
    for secret in secrets {
        let metadata = secret.get("metadata");
        let name = metadata.and_then(|m| m.get("name")).and_then(Node::text).unwrap_or_default();
        let Some((component, number)) =
            name.strip_prefix(OPENSHIFT_KEY).and_then(|rest| rest.rsplit_once('-'))
        else {
            continue;
        };
        let mode = metadata
            .and_then(|m| m.get("annotations"))
            .and_then(|a| a.get(OPENSHIFT_MODE))
            .and_then(Node::text);
        let data = loaded::data(secret).into_iter().find(|(name, _)| name == OPENSHIFT_DATA);
        let (Ok(number), Some(mode), Some((_, key))) = (number.parse(), mode, data) else {
            continue;
        };
        keys.push((component, number, mode, Zeroizing::new(STANDARD.encode(&*key))));
    }
    // Names count up; the newest key comes first, as in the file that the operator writes once
    // the key is the write key.
    keys.sort_by_key(|(component, number, ..)| (*component, std::cmp::Reverse(*number)));
    if keys.is_empty() {
        return None;
    }
    let mut found = Vec::new();
    for of_one in keys.chunk_by(|a, b| a.0 == b.0) {
        let component = of_one[0].0;
        let resources: &[&str] = match component {
            "openshift-apiserver" => &["routes.route.openshift.io"],
            "openshift-oauth-apiserver" => {
                &["oauthaccesstokens.oauth.openshift.io", "oauthauthorizetokens.oauth.openshift.io"]
            }
            _ => &["secrets", "configmaps"],
        };
        let mut text = header(resources);
        let mut any = false;
        for (_, number, mode, key) in of_one {
            if matches!(*mode, "aescbc" | "aesgcm" | "secretbox") {
                push_key(&mut text, mode, &number.to_string(), key);
                any = true;
            }
        }
        if any {
            text.extend_from_slice(b"      - identity: {}\n");
            let location = format!("{origin}: Secrets {OPENSHIFT_KEY}{component}-*");
            match loaded::plain(&text, &location) {
                Ok(one) => found.push(one),
                Err(e) => return Some(Err(e)),
            }
        }
    }
    Some(some(found, None, origin, "OpenShift's key Secrets"))
}

fn push_new(found: &mut Vec<Loaded>, more: Vec<Loaded>) {
    for one in more {
        if !found.iter().any(|f| f.sha256 == one.sha256) {
            found.push(one);
        }
    }
}

fn some(found: Vec<Loaded>, wrong: Option<LoadError>, origin: &str, form: &'static str) -> Found {
    if found.is_empty() {
        return Err(wrong.unwrap_or(LoadError::Missing { origin: origin.to_owned(), form }));
    }
    Ok(found)
}

/// A part of a file as a text of its own: JSON, with the two fields that a configuration has and
/// a part of another file may leave out.
fn text_of(node: &Node) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(1 << 16));
    out.push(b'{');
    for (name, value) in
        [("apiVersion", "apiserver.config.k8s.io/v1"), ("kind", "EncryptionConfiguration")]
    {
        if node.get(name).is_none() {
            out.extend_from_slice(format!("\"{name}\":\"{value}\",").as_bytes());
        }
    }
    if let Value::Map(fields) = &node.value {
        write_fields(fields, &mut out);
    }
    out.push(b'}');
    out
}

fn write_fields(fields: &[crate::yaml_tree::Field], out: &mut Vec<u8>) {
    for (i, field) in fields.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_text(&field.name, out);
        out.push(b':');
        write(&field.node, out);
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    let quoted = Zeroizing::new(serde_json::Value::from(text).to_string());
    out.extend_from_slice(quoted.as_bytes());
}

fn write(node: &Node, out: &mut Vec<u8>) {
    match &node.value {
        // No field of a configuration is a float: as null it is refused by name.
        Value::Null | Value::Float => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(n) => out.extend_from_slice(n.to_string().as_bytes()),
        Value::Text(text) => write_text(text, out),
        Value::List(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Map(fields) => {
            out.push(b'{');
            write_fields(fields, out);
            out.push(b'}');
        }
    }
}
