//! Who names which Secret: pods and what makes pods, service accounts, ingresses, volumes, and the
//! custom resources of well-known projects.

use serde_json::Value;

use super::{Name, name_of, place};

/// One object that names a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// `env`, `volume`, `image-pull`, `tls`, `service-account`, `reference`.
    pub how: &'static str,
    /// `Pod ns/name`.
    pub by: String,
}

/// The Secrets that an object names.
pub(super) fn of(resource: &str, object: &Value) -> Vec<(Name, Use)> {
    let name = name_of(object);
    let by = place(object, &name);
    let mut found = Vec::new();
    let mut add = |namespace: &str, secret: &Value, how: &'static str| {
        if let Some(secret) = secret.as_str().filter(|s| !s.is_empty()) {
            let used = ((namespace.to_owned(), secret.to_owned()), Use { how, by: by.clone() });
            if !found.contains(&used) {
                found.push(used);
            }
        }
    };
    let namespace = name.0.as_str();
    if let Some(spec) = pod_spec(resource, object) {
        pod(spec, &mut |secret, how| add(namespace, secret, how));
    }
    let spec = &object["spec"];
    match resource {
        "serviceaccounts" => {
            for item in items(&object["secrets"]) {
                add(namespace, &item["name"], "service-account");
            }
            for item in items(&object["imagePullSecrets"]) {
                add(namespace, &item["name"], "image-pull");
            }
        }
        "ingresses.networking.k8s.io" | "ingresses.extensions" => {
            for item in items(&spec["tls"]) {
                add(namespace, &item["secretName"], "tls");
            }
        }
        "persistentvolumes" => {
            for (_, source) in spec.as_object().into_iter().flatten() {
                for (field, reference) in source.as_object().into_iter().flatten() {
                    if field.ends_with("SecretRef") || field == "secretRef" {
                        let at = reference["namespace"].as_str().unwrap_or_default();
                        add(at, &reference["name"], "volume");
                    }
                }
            }
        }
        "gateways.gateway.networking.k8s.io" => {
            for listener in items(&spec["listeners"]) {
                for reference in items(&listener["tls"]["certificateRefs"]) {
                    let at = reference["namespace"].as_str().unwrap_or(namespace);
                    add(at, &reference["name"], "tls");
                }
            }
        }
        "certificates.cert-manager.io" => add(namespace, &spec["secretName"], "reference"),
        "issuers.cert-manager.io" | "secretstores.external-secrets.io" => {
            for secret in references(spec) {
                add(namespace, secret, "reference");
            }
        }
        "externalsecrets.external-secrets.io" => {
            let target = &spec["target"]["name"];
            add(
                namespace,
                if target.is_string() { target } else { &object["metadata"]["name"] },
                "reference",
            );
        }
        "sealedsecrets.bitnami.com" => add(namespace, &object["metadata"]["name"], "reference"),
        _ => {}
    }
    found
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Every `…SecretRef: {name}` below a value.
fn references(value: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    match value {
        Value::Object(map) => {
            for (field, inner) in map {
                if field.to_lowercase().ends_with("secretref") && inner["name"].is_string() {
                    found.push(&inner["name"]);
                }
                found.extend(references(inner));
            }
        }
        Value::Array(list) => found.extend(list.iter().flat_map(references)),
        _ => {}
    }
    found
}

/// The pod that a workload makes.
pub(super) fn pod_spec<'o>(resource: &str, object: &'o Value) -> Option<&'o Value> {
    let spec = match resource {
        "pods" => &object["spec"],
        "deployments.apps"
        | "replicasets.apps"
        | "statefulsets.apps"
        | "daemonsets.apps"
        | "jobs.batch"
        | "replicationcontrollers" => &object["spec"]["template"]["spec"],
        "podtemplates" => &object["template"]["spec"],
        "cronjobs.batch" => &object["spec"]["jobTemplate"]["spec"]["template"]["spec"],
        _ => return None,
    };
    spec.is_object().then_some(spec)
}

/// Containers of every sort.
pub(super) fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(move |field| items(&spec[field]))
}

fn pod(spec: &Value, add: &mut dyn FnMut(&Value, &'static str)) {
    for volume in items(&spec["volumes"]) {
        add(&volume["secret"]["secretName"], "volume");
        for source in items(&volume["projected"]["sources"]) {
            add(&source["secret"]["name"], "volume");
        }
        for (_, kind) in volume.as_object().into_iter().flatten() {
            for field in ["secretRef", "nodePublishSecretRef"] {
                add(&kind[field]["name"], "volume");
            }
        }
        add(&volume["azureFile"]["secretName"], "volume");
    }
    for container in containers(spec) {
        for variable in items(&container["env"]) {
            add(&variable["valueFrom"]["secretKeyRef"]["name"], "env");
        }
        for source in items(&container["envFrom"]) {
            add(&source["secretRef"]["name"], "env");
        }
    }
    for item in items(&spec["imagePullSecrets"]) {
        add(&item["name"], "image-pull");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_name_one() {
        let spec = json!({
            "volumes": [
                {"name": "a", "secret": {"secretName": "s1"}},
                {"name": "b", "projected": {"sources": [{"secret": {"name": "s2"}}]}},
                {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s3"}}},
                {"name": "d", "configMap": {"name": "not-a-secret"}}],
            "initContainers": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s4", "key": "k"}}}]}],
            "containers": [{"envFrom": [{"secretRef": {"name": "s5"}}, {"configMapRef": {"name": "no"}}]},
                           {"envFrom": [{"secretRef": {"name": "s5"}}]}],
            "imagePullSecrets": [{"name": "s6"}]});
        let found = |resource: &str, object: Value| -> Vec<(String, &str)> {
            of(resource, &object).into_iter().map(|((_, name), used)| (name, used.how)).collect()
        };
        let expected = [
            ("s1", "volume"),
            ("s2", "volume"),
            ("s3", "volume"),
            ("s4", "env"),
            ("s5", "env"),
            ("s6", "image-pull"),
        ]
        .map(|(n, h)| (n.to_owned(), h));
        let metadata = json!({"name": "p", "namespace": "n"});
        assert_eq!(
            found("pods", json!({"kind": "Pod", "metadata": metadata, "spec": spec})),
            expected
        );
        let cron = json!({"metadata": metadata, "spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}});
        assert_eq!(found("cronjobs.batch", cron), expected);
        let ingress = json!({"metadata": metadata, "spec": {"tls": [{"secretName": "t"}]}});
        assert_eq!(found("ingresses.networking.k8s.io", ingress), [("t".to_owned(), "tls")]);
        assert_eq!(found("configmaps", json!({"metadata": metadata})), []);
    }
}
