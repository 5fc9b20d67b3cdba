//! `Ingress` and `EndpointSlice`.

use serde_json::{Map, Value, json};

use crate::restore::edit::{self, Object};

const ZONE: &str = "topology.kubernetes.io/zone";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// `extensions/v1beta1` and `networking.k8s.io/v1beta1` → `networking.k8s.io/v1`
/// (kubernetes/kubernetes `pkg/apis/networking/v1beta1/conversion.go`).
pub(super) fn ingress_to_v1(object: &mut Value) {
    if let Some(spec) = edit::object(object, &["spec"]) {
        edit::rename(spec, "backend", "defaultBackend");
        if let Some(backend) = spec.get_mut("defaultBackend").and_then(Value::as_object_mut) {
            service_backend(backend);
        }
    }
    for rule in edit::each(object, &["spec", "rules"]) {
        for path in edit::each(rule, &["http", "paths"]) {
            if let Some(path) = path.as_object_mut() {
                // Required in v1; what v1beta1 takes for granted.
                edit::default(path, "pathType", "ImplementationSpecific");
                if let Some(backend) = path.get_mut("backend").and_then(Value::as_object_mut) {
                    service_backend(backend);
                }
            }
        }
    }
}

/// `serviceName` and `servicePort`, which is a number or a name, → `service`.
fn service_backend(backend: &mut Object) {
    let name = backend.remove("serviceName").filter(|n| n != "");
    let port = backend.remove("servicePort").filter(|p| !p.is_null() && *p != 0 && *p != "");
    if name.is_none() && port.is_none() {
        return;
    }
    let mut service = Map::new();
    service.insert("name".into(), name.unwrap_or_else(|| "".into()));
    if let Some(port) = port {
        let kind = if port.is_number() { "number" } else { "name" };
        service.insert("port".into(), json!({ kind: port }));
    }
    backend.insert("service".into(), service.into());
}

/// `topology` → zone and what is left of it
/// (kubernetes/kubernetes `pkg/apis/discovery/v1beta1/conversion.go`).
pub(super) fn slice_to_v1(object: &mut Value) {
    for endpoint in edit::each(object, &["endpoints"]).filter_map(Value::as_object_mut) {
        let Some(Value::Object(mut topology)) = endpoint.remove("topology") else { continue };
        if let Some(zone) = topology.remove(ZONE) {
            endpoint.entry("zone").or_insert(zone);
        }
        if endpoint.get("nodeName").is_some_and(|node| topology.get(HOSTNAME) == Some(node)) {
            topology.remove(HOSTNAME);
        }
        if !topology.is_empty() {
            endpoint.insert("deprecatedTopology".into(), topology.into());
        }
    }
}

/// The other way.
pub(super) fn slice_to_beta(object: &mut Value) {
    for endpoint in edit::each(object, &["endpoints"]).filter_map(Value::as_object_mut) {
        let mut topology = match endpoint.remove("deprecatedTopology") {
            Some(Value::Object(topology)) => topology,
            _ => Map::new(),
        };
        if let Some(zone) = endpoint.remove("zone").filter(|z| !z.is_null()) {
            topology.insert(ZONE.into(), zone);
        }
        if let Some(node) = endpoint.get("nodeName").filter(|n| !n.is_null()) {
            topology.entry(HOSTNAME).or_insert_with(|| node.clone());
        }
        if !topology.is_empty() {
            endpoint.insert("topology".into(), topology.into());
        }
    }
}
