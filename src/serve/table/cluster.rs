//! Networking, storage, access and the other groups.

use serde_json::Value;

use super::age::human;
use super::{Shown, scalar, selector, some};

pub(super) fn cells(kind: &str, o: &Shown<'_>) -> Option<Vec<Value>> {
    network(kind, o)
        .or_else(|| storage(kind, o))
        .or_else(|| access(kind, o))
        .or_else(|| other(kind, o))
}

fn network(kind: &str, o: &Shown<'_>) -> Option<Vec<Value>> {
    Some(match kind {
        "Ingress" => {
            let host = |rule: &Value| rule["host"].as_str().unwrap_or_default().to_owned();
            let hosts: Vec<String> =
                o.items("/spec/rules").iter().map(host).filter(|h| !h.is_empty()).collect();
            let hosts = if hosts.is_empty() { "*".to_owned() } else { some(&hosts, 3, ",") };
            let given = o.items("/status/loadBalancer/ingress").iter().filter_map(|i| {
                i["ip"].as_str().filter(|ip| !ip.is_empty()).or(i["hostname"].as_str())
            });
            let address = given.collect::<Vec<_>>().join(",");
            let ports = if o.items("/spec/tls").is_empty() { "80" } else { "80, 443" };
            let class = o.or("/spec/ingressClassName", "<none>");
            vec![o.name(), class, hosts.into(), address.into(), ports.into(), o.age()]
        }
        "IngressClass" => {
            let parameters = match o.at("/spec/parameters") {
                Value::Null => "<none>".to_owned(),
                p => {
                    let part = |field: &str| p[field].as_str().unwrap_or_default();
                    let dot = if part("apiGroup").is_empty() { "" } else { "." };
                    format!("{}{dot}{}/{}", part("kind"), part("apiGroup"), part("name"))
                }
            };
            vec![o.name(), o.text("/spec/controller").into(), parameters.into(), o.age()]
        }
        "NetworkPolicy" => vec![o.name(), selector(o.at("/spec/podSelector")), o.age()],
        "IPAddress" => {
            let part = |field: &str| o.text(&format!("/spec/parentRef/{field}"));
            let mut text = part("resource").to_owned();
            if !part("group").is_empty() {
                text = format!("{text}.{}", part("group"));
            }
            for piece in [part("namespace"), part("name")] {
                if !piece.is_empty() {
                    text = format!("{text}/{piece}");
                }
            }
            vec![o.name(), text.into()]
        }
        "ServiceCIDR" => {
            let cidrs: Vec<&str> =
                o.items("/spec/cidrs").iter().filter_map(Value::as_str).collect();
            vec![o.name(), cidrs.join(",").into(), o.age()]
        }
        "EndpointSlice" => {
            let port = |p: &Value| match &p["port"] {
                Value::Null => "*".to_owned(),
                number => scalar(number),
            };
            let ports: Vec<String> = o.items("/ports").iter().map(port).collect();
            let addresses: Vec<String> = o
                .items("/endpoints")
                .iter()
                .flat_map(|e| e["addresses"].as_array().into_iter().flatten())
                .map(scalar)
                .collect();
            let or_unset = |list: Vec<String>| {
                if list.is_empty() { "<unset>".to_owned() } else { some(&list, 3, ",") }
            };
            vec![
                o.name(),
                o.text("/addressType").into(),
                or_unset(ports).into(),
                or_unset(addresses).into(),
                o.age(),
            ]
        }
        _ => return None,
    })
}

fn storage(kind: &str, o: &Shown<'_>) -> Option<Vec<Value>> {
    Some(match kind {
        "StorageClass" => {
            let is_default = ["", "beta."].iter().any(|beta| {
                let annotation = format!("storageclass.{beta}kubernetes.io~1is-default-class");
                o.text(&format!("/metadata/annotations/{annotation}")) == "true"
            });
            let name = o.text("/metadata/name");
            let name = if is_default { format!("{name} (default)") } else { name.to_owned() };
            vec![
                name.into(),
                o.text("/provisioner").into(),
                o.or("/reclaimPolicy", "Delete"),
                o.or("/volumeBindingMode", "Immediate"),
                o.is("/allowVolumeExpansion").into(),
                o.age(),
            ]
        }
        "CSIDriver" => {
            let audiences: Vec<&str> = o
                .items("/spec/tokenRequests")
                .iter()
                .map(|t| t["audience"].as_str().unwrap_or_default())
                .collect();
            let audiences =
                if audiences.is_empty() { "<unset>".to_owned() } else { audiences.join(",") };
            let modes: Vec<&str> =
                o.items("/spec/volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
            let modes = if modes.is_empty() { "<none>".to_owned() } else { modes.join(",") };
            vec![
                o.name(),
                o.at("/spec/attachRequired").as_bool().unwrap_or(true).into(),
                o.is("/spec/podInfoOnMount").into(),
                o.is("/spec/storageCapacity").into(),
                audiences.into(),
                o.is("/spec/requiresRepublish").into(),
                modes.into(),
                o.age(),
            ]
        }
        "CSINode" => vec![o.name(), o.items("/spec/drivers").len().into(), o.age()],
        "VolumeAttachment" => vec![
            o.name(),
            o.text("/spec/attacher").into(),
            o.text("/spec/source/persistentVolumeName").into(),
            o.text("/spec/nodeName").into(),
            o.is("/status/attached").into(),
            o.age(),
        ],
        "VolumeAttributesClass" => vec![o.name(), o.text("/driverName").into(), o.age()],
        _ => return None,
    })
}

fn access(kind: &str, o: &Shown<'_>) -> Option<Vec<Value>> {
    Some(match kind {
        "RoleBinding" | "ClusterRoleBinding" => {
            let subjects = |kind: &str| -> Value {
                let text = |s: &Value| match s["namespace"].as_str() {
                    Some(namespace) if kind == "ServiceAccount" => {
                        format!("{namespace}/{}", scalar(&s["name"]))
                    }
                    _ => scalar(&s["name"]),
                };
                let of_kind = o.items("/subjects").iter().filter(|s| s["kind"] == kind);
                of_kind.map(text).collect::<Vec<_>>().join(", ").into()
            };
            let role = format!("{}/{}", o.text("/roleRef/kind"), o.text("/roleRef/name"));
            vec![
                o.name(),
                role.into(),
                o.age(),
                subjects("User"),
                subjects("Group"),
                subjects("ServiceAccount"),
            ]
        }
        "CertificateSigningRequest" => {
            let has = |kind: &str| o.items("/status/conditions").iter().any(|c| c["type"] == kind);
            let mut condition = match () {
                () if has("Denied") => "Denied",
                () if has("Approved") => "Approved",
                () => "Pending",
            }
            .to_owned();
            if has("Failed") {
                condition += ",Failed";
            }
            if !o.text("/status/certificate").is_empty() {
                condition += ",Issued";
            }
            let duration = match o.at("/spec/expirationSeconds").as_i64() {
                Some(seconds) => human(seconds),
                None => "<none>".to_owned(),
            };
            vec![
                o.name(),
                o.age(),
                o.or("/spec/signerName", "<none>"),
                o.text("/spec/username").into(),
                duration.into(),
                condition.into(),
            ]
        }
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            vec![o.name(), o.items("/webhooks").len().into(), o.age()]
        }
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => {
            let list = if kind.starts_with('V') { "/spec/validations" } else { "/spec/mutations" };
            let parameters = match o.at("/spec/paramKind") {
                Value::Null => "<unset>".to_owned(),
                p => format!("{}/{}", scalar(&p["apiVersion"]), scalar(&p["kind"])),
            };
            vec![o.name(), o.items(list).len().into(), parameters.into(), o.age()]
        }
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
            let parameters = match o.at("/spec/paramRef") {
                Value::Null => "<unset>".to_owned(),
                p => match p["namespace"].as_str().filter(|n| !n.is_empty()) {
                    Some(namespace) => format!("{namespace}/{}", scalar(&p["name"])),
                    None => format!("*/{}", scalar(&p["name"])),
                },
            };
            vec![o.name(), o.text("/spec/policyName").into(), parameters.into(), o.age()]
        }
        _ => return None,
    })
}

fn other(kind: &str, o: &Shown<'_>) -> Option<Vec<Value>> {
    Some(match kind {
        "APIService" => {
            let service = match o.at("/spec/service") {
                Value::Null => "Local".to_owned(),
                s => format!("{}/{}", scalar(&s["namespace"]), scalar(&s["name"])),
            };
            let available = o.items("/status/conditions").iter().find(|c| c["type"] == "Available");
            let available = match available {
                Some(c) if c["status"] == "True" => "True".to_owned(),
                Some(c) => format!("{} ({})", scalar(&c["status"]), scalar(&c["reason"])),
                None => "Unknown".to_owned(),
            };
            vec![o.name(), service.into(), available.into(), o.age()]
        }
        "Lease" => vec![o.name(), o.text("/spec/holderIdentity").into(), o.age()],
        "RuntimeClass" => vec![o.name(), o.text("/handler").into(), o.age()],
        "PriorityClass" => vec![
            o.name(),
            o.number("/value").into(),
            o.is("/globalDefault").into(),
            o.age(),
            o.or("/preemptionPolicy", "PreemptLowerPriority"),
        ],
        "FlowSchema" => {
            let conditions = o.items("/status/conditions").iter();
            let dangling = conditions.clone().find(|c| c["type"] == "Dangling");
            vec![
                o.name(),
                o.text("/spec/priorityLevelConfiguration/name").into(),
                o.number("/spec/matchingPrecedence").into(),
                o.or("/spec/distinguisherMethod/type", "<none>"),
                o.age(),
                dangling.map_or_else(|| "?".into(), |c| c["status"].clone()),
            ]
        }
        "PriorityLevelConfiguration" => {
            let or_none = |pointer: &str| match o.at(pointer) {
                Value::Null => "<none>".into(),
                number => number.clone(),
            };
            let queuing =
                |field: &str| or_none(&format!("/spec/limited/limitResponse/queuing/{field}"));
            vec![
                o.name(),
                o.text("/spec/type").into(),
                or_none("/spec/limited/nominalConcurrencyShares"),
                queuing("queues"),
                queuing("handSize"),
                queuing("queueLengthLimit"),
                o.age(),
            ]
        }
        "DeviceClass" | "ResourceClaimTemplate" => vec![o.name(), o.age()],
        "ResourceClaim" => {
            let mut state = Vec::new();
            if o.is_deleted() {
                state.push("deleted");
            }
            if o.at("/status/allocation").is_null() {
                if !o.is_deleted() {
                    state.push("pending");
                }
            } else {
                state.push("allocated");
                if !o.items("/status/reservedFor").is_empty() {
                    state.push("reserved");
                }
            }
            vec![o.name(), state.join(",").into(), o.age()]
        }
        "ResourceSlice" => vec![
            o.name(),
            o.or("/spec/nodeName", "<none>"),
            o.text("/spec/driver").into(),
            o.text("/spec/pool/name").into(),
            o.age(),
        ],
        _ => return None,
    })
}
