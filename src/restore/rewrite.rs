//! What is changed in an object that a new cluster is given.

use serde_json::Value;

use super::{Facts, Options, Reason, edit};
use crate::resource::Location;

/// Where `--keep-owners` keeps what `ownerReferences` said.
pub const OWNERS_ANNOTATION: &str = "atrest/owner-references";

/// Changes an object in place; why, for each change that is not one of `export --clean`.
pub(super) fn object(
    object: &mut Value,
    location: &Location<'_>,
    facts: &Facts,
    options: Options,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut note = |changed: bool, reason: Reason| {
        if changed {
            reasons.push(reason);
        }
    };
    note(owners(object, options.keep_owners), Reason::Owner);
    note(deletion(object), Reason::Deletion);
    match location.resource.as_ref() {
        // Filled in for every namespace.
        "namespaces" => {
            edit::remove(object, &[], &["spec"]);
        }
        "jobs.batch" => note(job(object), Reason::JobSelector),
        "services" if !options.keep_ips => {
            note(address(object), Reason::ServiceAddress);
            note(node_ports(object), Reason::NodePort);
        }
        "persistentvolumeclaims" => note(claim(object, facts), Reason::VolumeBinding),
        "persistentvolumes" => note(volume(object), Reason::ClaimUid),
        "secrets" => note(token(object), Reason::TokenContent),
        "serviceaccounts" => note(account(object, &location.name), Reason::TokenReference),
        "pods" => {
            note(pod(object), Reason::PodPlacement);
            note(token_volumes(object), Reason::TokenReference);
        }
        "certificatesigningrequests.certificates.k8s.io" => {
            let fields = ["username", "uid", "groups", "extra"];
            note(edit::remove(object, &["spec"], &fields), Reason::Requester);
        }
        "statefulsets.apps" => claim_templates(object),
        _ => {}
    }
    reasons
}

fn owners(object: &mut Value, keep: bool) -> bool {
    let Some(metadata) = edit::object(object, &["metadata"]) else { return false };
    let Some(owners) = metadata.remove("ownerReferences") else { return false };
    if keep {
        edit::annotate(object, OWNERS_ANNOTATION, owners.to_string());
    }
    true
}

fn deletion(object: &mut Value) -> bool {
    let deleted =
        edit::remove(object, &["metadata"], &["deletionTimestamp", "deletionGracePeriodSeconds"]);
    if deleted {
        edit::remove(object, &["metadata"], &["finalizers"]);
    }
    deleted
}

/// Labels that the API server gives the pods of a Job (kubernetes/kubernetes
/// `pkg/registry/batch/job/strategy.go`).
const JOB_LABELS: [&str; 4] = [
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
];

fn job(object: &mut Value) -> bool {
    if object.pointer("/spec/manualSelector").is_some_and(|m| *m == true) {
        return false;
    }
    edit::remove(object, &["spec"], &["manualSelector"]);
    let selector = edit::remove(object, &["spec"], &["selector"]);
    let own = edit::remove_from_map(object, &["metadata", "labels"], &JOB_LABELS);
    let path = ["spec", "template", "metadata", "labels"];
    let template = edit::remove_from_map(object, &path, &JOB_LABELS);
    selector || own || template
}

fn address(object: &mut Value) -> bool {
    // "None" is not an address but what makes a Service headless.
    edit::text(object, &["spec", "clusterIP"]) != "None"
        && edit::remove(object, &["spec"], &["clusterIP", "clusterIPs"])
}

fn node_ports(object: &mut Value) -> bool {
    let mut any = edit::remove(object, &["spec"], &["healthCheckNodePort"]);
    for port in edit::each(object, &["spec", "ports"]) {
        any |= edit::remove(port, &[], &["nodePort"]);
    }
    any
}

/// What the volume controller writes while it binds (kubernetes/component-helpers
/// `storage/volume/pv_helpers.go`).
const BINDING: [&str; 5] = [
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-provisioner",
];

fn claim(object: &mut Value, facts: &Facts) -> bool {
    let annotations = edit::remove_annotations(object, &BINDING);
    let volume = edit::text(object, &["spec", "volumeName"]);
    // A volume that does not come along will not be there to bind to.
    let gone = !volume.is_empty() && !facts.has("persistentvolumes", "", volume);
    if gone {
        edit::remove(object, &["spec"], &["volumeName"]);
    }
    annotations || gone
}

fn volume(object: &mut Value) -> bool {
    let annotation = edit::remove_annotations(object, &["pv.kubernetes.io/bound-by-controller"]);
    let claim = edit::remove(object, &["spec", "claimRef"], &["uid", "resourceVersion"]);
    annotation || claim
}

const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";

fn token(object: &mut Value) -> bool {
    if object["type"] != TOKEN_TYPE {
        return false;
    }
    edit::remove_from_map(object, &["data"], &["token", "ca.crt", "namespace", "service-ca.crt"]);
    edit::remove_annotations(object, &["kubernetes.io/service-account.uid"]);
    edit::remove_from_map(
        object,
        &["metadata", "labels"],
        &["kubernetes.io/legacy-token-last-used", "kubernetes.io/legacy-token-invalid-since"],
    );
    true
}

/// Names of token Secrets that a controller made for the account.
fn account(object: &mut Value, name: &str) -> bool {
    let Some(secrets) = object.get_mut("secrets").and_then(Value::as_array_mut) else {
        return false;
    };
    let before = secrets.len();
    secrets.retain(|secret| {
        let secret = edit::text(secret, &["name"]).strip_prefix(name);
        // `-dockercfg-` Secrets are OpenShift's, made from the tokens.
        !secret.is_some_and(|rest| rest.starts_with("-token-") || rest.starts_with("-dockercfg-"))
    });
    let removed = secrets.len() < before;
    if secrets.is_empty() {
        edit::remove(object, &[], &["secrets"]);
    }
    removed
}

fn pod(object: &mut Value) -> bool {
    edit::remove(object, &["spec"], &["nodeName", "priority", "ephemeralContainers"])
}

/// Volumes of token Secrets that are left out; the new cluster adds its own.
fn token_volumes(object: &mut Value) -> bool {
    let prefix = match edit::text(object, &["spec", "serviceAccountName"]) {
        "" => "default-token-".to_owned(),
        account => format!("{account}-token-"),
    };
    let of_token = |volume: &Value| {
        edit::text(volume, &["name"]).starts_with(&prefix)
            && edit::text(volume, &["secret", "secretName"]).starts_with(&prefix)
    };
    let Some(volumes) = object.pointer_mut("/spec/volumes").and_then(Value::as_array_mut) else {
        return false;
    };
    let names: Vec<String> = volumes
        .iter()
        .filter(|v| of_token(v))
        .map(|v| edit::text(v, &["name"]).to_owned())
        .collect();
    if names.is_empty() {
        return false;
    }
    volumes.retain(|v| !of_token(v));
    for containers in ["containers", "initContainers"] {
        for container in edit::each(object, &["spec", containers]) {
            let mounts = container.get_mut("volumeMounts").and_then(Value::as_array_mut);
            if let Some(mounts) = mounts {
                mounts.retain(|m| !names.iter().any(|n| *n == edit::text(m, &["name"])));
            }
        }
    }
    true
}

/// A claim template has a status like a claim, which nothing ever fills in.
fn claim_templates(object: &mut Value) {
    for claim in edit::each(object, &["spec", "volumeClaimTemplates"]) {
        edit::remove(claim, &[], &["status"]);
    }
}
