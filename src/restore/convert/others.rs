//! Conversions of a few lines each.

use serde_json::{Map, Value, json};

use super::CannotConvert;
use crate::restore::edit;

/// In a selector of `policy/v1beta1`, `{}` is no pod; in `v1`, it is every pod. This label says the
/// other thing in either (kubernetes/kubernetes `pkg/apis/policy/helper.go`).
const EMPTY_SELECTOR: &str = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";

fn requirement(operator: &str) -> Value {
    json!({"matchExpressions": [{"key": EMPTY_SELECTOR, "operator": operator}]})
}

fn is_empty_selector(selector: &Value) -> bool {
    selector.as_object().is_some_and(|s| {
        s.values().all(|v| {
            v.is_null()
                || v.as_array().is_some_and(Vec::is_empty)
                || v.as_object().is_some_and(Map::is_empty)
        })
    })
}

fn selector(object: &mut Value, none: &Value, all: &Value) {
    let Some(selector) = object.pointer_mut("/spec/selector").filter(|s| !s.is_null()) else {
        return;
    };
    if is_empty_selector(selector) {
        *selector = none.clone();
    } else if selector == all {
        *selector = json!({});
    } else if let Some(expressions) =
        selector.get_mut("matchExpressions").and_then(Value::as_array_mut)
    {
        expressions.retain(|e| e["key"] != EMPTY_SELECTOR);
    }
}

/// `policy/v1beta1` → `v1`.
pub(super) fn budget_to_v1(object: &mut Value) {
    selector(object, &requirement("Exists"), &requirement("DoesNotExist"));
}

/// `policy/v1` → `v1beta1`.
pub(super) fn budget_to_beta(object: &mut Value) {
    selector(object, &requirement("DoesNotExist"), &requirement("Exists"));
}

/// Versions before `v1` cannot tell "no shares" from "not said" without this.
const ZERO_SHARES: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";

/// Shares of concurrency: `assuredConcurrencyShares` up to `v1beta2`, then
/// `nominalConcurrencyShares` (kubernetes/kubernetes `pkg/apis/flowcontrol/*/conversion.go`).
pub(super) fn priority_level(
    object: &mut Value,
    from: &str,
    to: &str,
) -> Result<(), CannotConvert> {
    let assured = |version: &str| matches!(version, "v1alpha1" | "v1beta1" | "v1beta2");
    let keeps_zero = edit::annotation(object, ZERO_SHARES).is_some();
    let Some(limited) = edit::object(object, &["spec", "limited"]) else { return Ok(()) };
    if assured(from) && !assured(to) {
        edit::rename(limited, "assuredConcurrencyShares", "nominalConcurrencyShares");
    } else if assured(to) && !assured(from) {
        edit::rename(limited, "nominalConcurrencyShares", "assuredConcurrencyShares");
    }
    let name = if assured(to) { "assuredConcurrencyShares" } else { "nominalConcurrencyShares" };
    let zero = limited.get(name).is_some_and(|n| *n == 0);
    if to == "v1" {
        if (zero && !keeps_zero) || !limited.contains_key(name) {
            limited.insert(name.into(), 30.into());
        }
        edit::remove_annotations(object, &[ZERO_SHARES]);
    } else if zero && from == "v1" {
        if to != "v1beta3" {
            return Err(CannotConvert::new(format!("{to} cannot say that there are no shares")));
        }
        edit::annotate(object, ZERO_SHARES, "");
    }
    Ok(())
}

/// Subjects of `rbac.authorization.k8s.io/v1alpha1` have a version instead of a group
/// (kubernetes/kubernetes `pkg/apis/rbac/v1alpha1/conversion.go`).
pub(super) fn binding_to_v1(object: &mut Value, from: &str) {
    if from != "v1alpha1" {
        return;
    }
    for subject in edit::each(object, &["subjects"]).filter_map(Value::as_object_mut) {
        subject.remove("apiVersion");
        if subject.get("kind").is_some_and(|k| k == "User")
            && subject.get("name").is_some_and(|n| n == "*")
        {
            subject.insert("kind".into(), "Group".into());
            subject.insert("name".into(), "system:authenticated".into());
        }
        if subject.get("kind").is_some_and(|k| k == "User" || k == "Group") {
            edit::default(subject, "apiGroup", "rbac.authorization.k8s.io");
        }
    }
}

/// `node.k8s.io/v1alpha1` has a spec around the fields.
pub(super) fn runtime_class(object: &mut Value, from: &str) -> Result<(), CannotConvert> {
    if from != "v1alpha1" {
        return Ok(());
    }
    let Some(object) = object.as_object_mut() else { return Ok(()) };
    let Some(Value::Object(mut spec)) = object.remove("spec") else {
        return Err(CannotConvert::new("a RuntimeClass without a spec"));
    };
    edit::rename(&mut spec, "runtimeHandler", "handler");
    object.extend(spec);
    Ok(())
}

/// `certificates.k8s.io/v1beta1` → `v1`, which requires what `v1beta1` filled in and refuses the
/// signer for requests that name none.
pub(super) fn signing_request_to_v1(object: &mut Value) -> Result<(), CannotConvert> {
    let signer = edit::text(object, &["spec", "signerName"]);
    if signer.is_empty() || signer == "kubernetes.io/legacy-unknown" {
        return Err(CannotConvert::new(
            "it names no signer, which certificates.k8s.io/v1 requires; whoever wants the \
             certificate must ask again",
        ));
    }
    if let Some(spec) = edit::object(object, &["spec"]) {
        edit::default(spec, "usages", json!(["digital signature", "key encipherment"]));
    }
    Ok(())
}

/// Fields that a request for devices has beside its name in `resource.k8s.io/v1beta1`, and below
/// `exactly` from `v1beta2` on.
const EXACTLY: [&str; 7] = [
    "adminAccess",
    "allocationMode",
    "capacity",
    "count",
    "deviceClassName",
    "selectors",
    "tolerations",
];

/// Claims, claim templates and classes of devices.
pub(super) fn device(object: &mut Value, from: &str, to: &str) -> Result<(), CannotConvert> {
    let new = |version: &str| matches!(version, "v1" | "v1beta2");
    let known = |version: &str| new(version) || version == "v1beta1";
    if !known(from) || !known(to) {
        return Err(CannotConvert::new(format!(
            "no conversion from resource.k8s.io/{from} to {to} is known"
        )));
    }
    if object["kind"] == "DeviceClass" || new(from) == new(to) {
        return Ok(());
    }
    for path in [&["spec", "devices", "requests"][..], &["spec", "spec", "devices", "requests"]] {
        for request in edit::each(object, path).filter_map(Value::as_object_mut) {
            if new(from) {
                if let Some(Value::Object(exactly)) = request.remove("exactly") {
                    request.extend(exactly);
                }
                continue;
            }
            let exactly: Map<_, _> =
                EXACTLY.iter().filter_map(|f| request.remove_entry(*f)).collect();
            // The same field of alternatives is empty text in v1beta1.
            if exactly.get("deviceClassName").is_some_and(|name| name != "") {
                request.insert("exactly".into(), exactly.into());
            }
        }
    }
    Ok(())
}
