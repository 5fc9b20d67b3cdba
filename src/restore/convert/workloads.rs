//! `Deployment`, `DaemonSet`, `StatefulSet` and `ReplicaSet` of the versions before `apps/v1`, which
//! a cluster that is old enough may still hold: nobody rewrites what nobody writes.

use serde_json::{Value, json};

use crate::restore::edit;

/// Go's largest `int32`: for `extensions/v1beta1`, "no limit".
const NO_LIMIT: i64 = i32::MAX as i64;

/// What the old version takes for granted is written out
/// (kubernetes/kubernetes `pkg/apis/{apps,extensions}/v1beta1/defaults.go`).
pub(super) fn to_v1(resource: &str, object: &mut Value, stored: &str, from: &str) {
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    let extensions = stored == "extensions/v1beta1";
    let mut generation = None;
    if let Some(spec) = edit::object(object, &["spec"]) {
        spec.remove("rollbackTo");
        generation = spec.remove("templateGeneration");
        if from == "v1beta1"
            && let Some(labels) = labels
        {
            edit::default(spec, "selector", json!({ "matchLabels": labels }));
        }
        match (resource, extensions) {
            ("daemonsets.apps", true) => edit::default(spec, "updateStrategy", on_delete()),
            ("statefulsets.apps", false) if from == "v1beta1" => {
                edit::default(spec, "updateStrategy", on_delete());
            }
            ("deployments.apps", true) => {
                edit::default(spec, "revisionHistoryLimit", NO_LIMIT);
                edit::default(spec, "progressDeadlineSeconds", NO_LIMIT);
                edit::default(
                    spec,
                    "strategy",
                    json!({"type": "RollingUpdate",
                           "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}),
                );
            }
            ("deployments.apps", false) if from == "v1beta1" => {
                edit::default(spec, "revisionHistoryLimit", 2);
            }
            _ => {}
        }
    }
    if let Some(generation) = generation.filter(|g| !g.is_null()) {
        edit::annotate(object, "deprecated.daemonset.template.generation", generation.to_string());
    }
}

fn on_delete() -> Value {
    json!({"type": "OnDelete"})
}
