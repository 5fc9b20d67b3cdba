//! The core group's kinds but pods, and events of both groups.

use serde_json::Value;

use super::workloads::replicas;
use super::{Shown, containers, labels, scalar, some};

pub(super) fn cells(kind: &str, o: &Shown<'_>) -> Option<Vec<Value>> {
    Some(match kind {
        "ConfigMap" => {
            let size = |pointer: &str| o.at(pointer).as_object().map_or(0, serde_json::Map::len);
            vec![o.name(), (size("/data") + size("/binaryData")).into(), o.age()]
        }
        "Secret" => {
            let size = o.at("/data").as_object().map_or(0, serde_json::Map::len);
            vec![o.name(), o.text("/type").into(), size.into(), o.age()]
        }
        "ServiceAccount" => vec![o.name(), o.age()],
        "Namespace" => vec![o.name(), o.text("/status/phase").into(), o.age()],
        "Endpoints" => vec![o.name(), endpoints(o).into(), o.age()],
        "Event" => event(o),
        "Node" => node(o),
        "PersistentVolume" => volume(o),
        "PersistentVolumeClaim" => claim(o),
        "PodTemplate" => {
            let [names, images] = containers(o.at("/template/spec/containers"));
            vec![o.name(), names, images, labels(o.at("/template/metadata/labels"))]
        }
        "ReplicationController" => replicas(o, labels(o.at("/spec/selector"))),
        "ResourceQuota" => quota(o),
        "Service" => service(o),
        _ => return None,
    })
}

fn endpoints(o: &Shown<'_>) -> String {
    let mut list = Vec::new();
    for subset in o.items("/subsets") {
        let addresses = subset["addresses"].as_array().into_iter().flatten();
        let ips = addresses.map(|a| a["ip"].as_str().unwrap_or_default());
        match subset["ports"].as_array() {
            Some(ports) if !ports.is_empty() => {
                let ips: Vec<&str> = ips.collect();
                for port in ports {
                    let port = scalar(&port["port"]);
                    list.extend(ips.iter().map(|ip| {
                        if ip.contains(':') {
                            format!("[{ip}]:{port}")
                        } else {
                            format!("{ip}:{port}")
                        }
                    }));
                }
            }
            _ => list.extend(ips.map(str::to_owned)),
        }
    }
    if list.is_empty() { "<none>".to_owned() } else { some(&list, 3, ",") }
}

fn event(o: &Shown<'_>) -> Vec<Value> {
    // `events.k8s.io` names the same fields otherwise.
    let new = o.at("/regarding").is_object();
    let (about, first, last, count, source, message) = if new {
        (
            "/regarding",
            "/deprecatedFirstTimestamp",
            "/deprecatedLastTimestamp",
            "/deprecatedCount",
            "/deprecatedSource",
            "/note",
        )
    } else {
        ("/involvedObject", "/firstTimestamp", "/lastTimestamp", "/count", "/source", "/message")
    };
    let first = if o.text(first).is_empty() { "/eventTime" } else { first };
    let (mut last_seen, mut times) = match o.text(last) {
        "" => (o.since(first), o.number(count)),
        _ => (o.since(last), o.number(count)),
    };
    if o.at("/series").is_object() {
        last_seen = o.since("/series/lastObservedTime");
        times = o.number("/series/count");
    } else if times == 0 {
        times = 1;
    }
    let kind = o.text(&format!("{about}/kind")).to_lowercase();
    let target = match o.text(&format!("{about}/name")) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let reporting = if new { "/reportingController" } else { "/reportingComponent" };
    let component = match o.text(&format!("{source}/component")) {
        "" => o.text(reporting),
        component => component,
    };
    let host = match o.text(&format!("{source}/host")) {
        "" if o.text(&format!("{source}/component")).is_empty() => o.text("/reportingInstance"),
        host => host,
    };
    let source =
        if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    vec![
        last_seen.into(),
        o.text("/type").into(),
        o.text("/reason").into(),
        target.into(),
        o.text(&format!("{about}/fieldPath")).into(),
        source.into(),
        o.text(message).trim().into(),
        o.since(first).into(),
        times.into(),
        o.name(),
    ]
}

fn node(o: &Shown<'_>) -> Vec<Value> {
    let ready = o.items("/status/conditions").iter().find(|c| c["type"] == "Ready");
    let mut status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if o.is("/spec/unschedulable") {
        status += ",SchedulingDisabled";
    }
    let mut roles: Vec<&str> = Vec::new();
    for (label, value) in o.at("/metadata/labels").as_object().into_iter().flatten() {
        if let Some(role) = label.strip_prefix("node-role.kubernetes.io/") {
            roles.push(role);
        } else if label == "kubernetes.io/role" {
            roles.extend(value.as_str());
        }
    }
    roles.retain(|role| !role.is_empty());
    roles.sort_unstable();
    roles.dedup();
    let roles = if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") };
    let address = |kind: &str| -> Value {
        let found = o.items("/status/addresses").iter().find(|a| a["type"] == kind);
        found.map_or_else(|| "<none>".into(), |a| a["address"].clone())
    };
    let info = |field: &str| o.or(&format!("/status/nodeInfo/{field}"), "<unknown>");
    vec![
        o.name(),
        status.into(),
        roles.into(),
        o.age(),
        o.text("/status/nodeInfo/kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

/// `RWO,ROX`, each once and in this order.
fn access_modes(list: &[Value]) -> String {
    const MODES: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| list.iter().any(|m| m == mode);
    let short: Vec<&str> =
        MODES.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect();
    short.join(",")
}

/// The class of a volume or claim: an old annotation comes before the field.
fn class(o: &Shown<'_>) -> Value {
    match o.text("/metadata/annotations/volume.beta.kubernetes.io~1storage-class") {
        "" => o.text("/spec/storageClassName").into(),
        class => class.into(),
    }
}

fn phase(o: &Shown<'_>) -> Value {
    if o.is_deleted() { "Terminating".into() } else { o.text("/status/phase").into() }
}

fn volume(o: &Shown<'_>) -> Vec<Value> {
    let claim = match o.at("/spec/claimRef") {
        Value::Null => String::new(),
        _ => format!("{}/{}", o.text("/spec/claimRef/namespace"), o.text("/spec/claimRef/name")),
    };
    vec![
        o.name(),
        o.or("/spec/capacity/storage", "0"),
        access_modes(o.items("/spec/accessModes")).into(),
        o.text("/spec/persistentVolumeReclaimPolicy").into(),
        phase(o),
        claim.into(),
        class(o),
        o.or("/spec/volumeAttributesClassName", "<unset>"),
        o.text("/status/reason").into(),
        o.age(),
        o.or("/spec/volumeMode", "<unset>"),
    ]
}

fn claim(o: &Shown<'_>) -> Vec<Value> {
    let bound = !o.text("/spec/volumeName").is_empty();
    let (capacity, modes) = if bound {
        (o.or("/status/capacity/storage", "0"), access_modes(o.items("/status/accessModes")))
    } else {
        ("".into(), String::new())
    };
    vec![
        o.name(),
        phase(o),
        o.text("/spec/volumeName").into(),
        capacity,
        modes.into(),
        class(o),
        o.or("/spec/volumeAttributesClassName", "<unset>"),
        o.age(),
        o.or("/spec/volumeMode", "<unset>"),
    ]
}

fn quota(o: &Shown<'_>) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let mut hard: Vec<_> = o.at("/status/hard").as_object().into_iter().flatten().collect();
    hard.sort_by_key(|(name, _)| *name);
    for (name, most) in hard {
        let used = match &o.at("/status/used")[name] {
            Value::Null => "0".to_owned(),
            used => scalar(used),
        };
        let text = format!("{name}: {used}/{}", scalar(most));
        if name.starts_with("limits") { limits.push(text) } else { requests.push(text) }
    }
    vec![o.name(), requests.join(", ").into(), limits.join(", ").into(), o.age()]
}

fn service(o: &Shown<'_>) -> Vec<Value> {
    let words = |pointer: &str, fields: &[&str]| -> Vec<String> {
        let text = |item: &Value| {
            let found = fields.iter().find_map(|f| item[*f].as_str().filter(|t| !t.is_empty()));
            found.or(item.as_str()).unwrap_or_default().to_owned()
        };
        o.items(pointer).iter().map(text).filter(|t| !t.is_empty()).collect()
    };
    let outside = words("/spec/externalIPs", &[]);
    let external = match o.text("/spec/type") {
        "LoadBalancer" => {
            let mut given = words("/status/loadBalancer/ingress", &["ip", "hostname"]);
            given.extend(outside);
            if given.is_empty() { "<pending>".to_owned() } else { given.join(",") }
        }
        "ExternalName" => o.text("/spec/externalName").to_owned(),
        _ if outside.is_empty() => "<none>".to_owned(),
        _ => outside.join(","),
    };
    let address = match o.text("/spec/clusterIPs/0") {
        "" => o.or("/spec/clusterIP", "<none>"),
        ip => ip.into(),
    };
    let port = |port: &Value| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        match port["nodePort"].as_i64() {
            Some(node) if node > 0 => format!("{}:{node}/{protocol}", scalar(&port["port"])),
            _ => format!("{}/{protocol}", scalar(&port["port"])),
        }
    };
    let ports: Vec<String> = o.items("/spec/ports").iter().map(port).collect();
    let ports = if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") };
    vec![
        o.name(),
        o.text("/spec/type").into(),
        address,
        external.into(),
        ports.into(),
        o.age(),
        labels(o.at("/spec/selector")),
    ]
}
