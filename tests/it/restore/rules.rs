//! What is left out and what is changed, object by object.

use serde_json::{Value, json};

use super::{cluster, restore, written};
use crate::support::bin;

fn object(api_version: &str, kind: &str, namespace: &str, name: &str, rest: Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": "old"}});
    merge(&mut object, rest);
    object
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// The reason for which an object of `objects` is left out, by resource and name.
fn reasons(objects: &[(&str, Value)]) -> Vec<(String, String)> {
    let snapshot = cluster(objects);
    let done =
        bin().arg("--snapshot").arg(snapshot.path()).words("restore plan -w json").run().ok();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let document = done.json();
    let rows = document["left_out"].as_array().unwrap().clone();
    rows.iter().map(|r| (text(&r["name"]), text(&r["reason"]))).collect()
}

fn owned_by(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"metadata": {"ownerReferences": [{"apiVersion": api_version, "kind": kind, "name": name,
        "uid": "u", "controller": true}]}})
}

#[test]
fn what_a_controller_makes_again_is_left_out_only_if_it_does() {
    let deployment = ("deployments/a/web", object("apps/v1", "Deployment", "a", "web", json!({})));
    let set = (
        "replicasets/a/web-1",
        object("apps/v1", "ReplicaSet", "a", "web-1", owned_by("apps/v1", "Deployment", "web")),
    );
    let pod = (
        "pods/a/web-1-x",
        object("v1", "Pod", "a", "web-1-x", owned_by("apps/v1", "ReplicaSet", "web-1")),
    );
    let all = [deployment.clone(), set.clone(), pod.clone()];
    let made = "controller-made".to_owned();
    assert_eq!(reasons(&all), [("web-1-x".into(), made.clone()), ("web-1".into(), made.clone())]);
    // Nobody would make it again: its owner is not there.
    let alone = written(&[set.clone(), pod.clone()], "");
    let kept: Vec<_> = alone.keys().collect();
    assert_eq!(kept, ["75-workloads/replicasets.apps/a/web-1.yaml"]);
    assert!(alone.values().all(|o| o["metadata"].get("ownerReferences").is_none()));
    // Nor where the owner is not exported.
    let pods = written(&all, "--resource pods");
    assert_eq!(pods.keys().collect::<Vec<_>>(), ["75-workloads/pods/a/web-1-x.yaml"]);
}

#[test]
fn an_operators_pods_are_its_to_make() {
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "rollouts.example.io"},
        "spec": {"group": "example.io", "names": {"plural": "rollouts", "kind": "Rollout"}, "scope": "Namespaced",
                 "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let objects = [
        ("apiextensions.k8s.io/customresourcedefinitions/rollouts.example.io", definition),
        (
            "example.io/rollouts/a/r",
            object("example.io/v1", "Rollout", "a", "r", json!({"status": {"phase": "Done"}})),
        ),
        (
            "replicasets/a/r-1",
            object("apps/v1", "ReplicaSet", "a", "r-1", owned_by("example.io/v1", "Rollout", "r")),
        ),
        (
            "secrets/a/s",
            object("v1", "Secret", "a", "s", owned_by("example.io/v1", "Rollout", "r")),
        ),
    ];
    assert_eq!(reasons(&objects), [("r-1".into(), "controller-made".into())]);
    let found = written(&objects, "");
    assert_eq!(
        found["65-custom-resources/rollouts.example.io/a/r.yaml"]["status"]["phase"], "Done",
        "its status is a field like others"
    );
    assert!(found.contains_key("50-secrets-and-configmaps/secrets/a/s.yaml"));
}

#[test]
fn what_every_cluster_has_is_left_out_until_somebody_changed_it() {
    let bootstrap = |extra: Value| {
        let mut role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "view", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
            "managedFields": [{"manager": "kube-apiserver"}]}});
        merge(&mut role, extra);
        role
    };
    let edited = json!({"metadata": {"managedFields": [{"manager": "kube-apiserver"}, {"manager": "kubectl-edit"}]}});
    let kept_as_is = json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}});
    let account = |extra: Value| object("v1", "ServiceAccount", "a", "default", extra);
    let namespace = |labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "labels": labels}, "spec": {"finalizers": ["kubernetes"]}});
    for (key, plain, changed) in [
        ("clusterroles/view", bootstrap(json!({})), bootstrap(edited)),
        ("clusterroles/view", bootstrap(json!({})), bootstrap(kept_as_is)),
        (
            "serviceaccounts/a/default",
            account(json!({})),
            account(json!({"imagePullSecrets": [{"name": "x"}]})),
        ),
        (
            "namespaces/default",
            namespace(json!({"kubernetes.io/metadata.name": "default"})),
            namespace(json!({"team": "x"})),
        ),
    ] {
        assert_eq!(reasons(&[(key, plain)])[0].1, "server-made", "{key}");
        assert_eq!(written(&[(key, changed)], "").len(), 1, "{key}");
    }
}

#[test]
fn what_belongs_to_the_old_cluster_stays_there() {
    let token = |name: &str| {
        object(
            "v1",
            "Secret",
            "a",
            name,
            json!({"type": "kubernetes.io/service-account-token",
        "metadata": {"annotations": {"kubernetes.io/service-account.name": "robot", "kubernetes.io/service-account.uid": "old"}},
        "data": {"token": "eA==", "ca.crt": "eA==", "namespace": "YQ==", "extra": "eQ=="}}),
        )
    };
    let objects = [
        (
            "configmaps/a/kube-root-ca.crt",
            object("v1", "ConfigMap", "a", "kube-root-ca.crt", json!({})),
        ),
        (
            "configmaps/kube-public/cluster-info",
            object("v1", "ConfigMap", "kube-public", "cluster-info", json!({})),
        ),
        (
            "controllerrevisions/a/x",
            object("apps/v1", "ControllerRevision", "a", "x", json!({"revision": 1})),
        ),
        (
            "csinodes/n",
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "n"}, "spec": {"drivers": []}}),
        ),
        ("events/a/e", object("v1", "Event", "a", "e", json!({}))),
        (
            "jobs/a/done",
            object(
                "batch/v1",
                "Job",
                "a",
                "done",
                json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}}),
            ),
        ),
        ("leases/a/l", object("coordination.k8s.io/v1", "Lease", "a", "l", json!({}))),
        ("minions/n", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})),
        (
            "pods/a/failed",
            object("v1", "Pod", "a", "failed", json!({"status": {"phase": "Failed"}})),
        ),
        (
            "pods/a/mirror",
            object(
                "v1",
                "Pod",
                "a",
                "mirror",
                json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}),
            ),
        ),
        ("secrets/a/robot-token-x7k2p", token("robot-token-x7k2p")),
    ];
    let names: Vec<_> = reasons(&objects).into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(
        names,
        [
            "server-made",
            "installer-made",
            "controller-made",
            "node",
            "event",
            "finished",
            "lease",
            "node",
            "finished",
            "mirror-pod",
            "service-account-token"
        ]
    );
    // A token that somebody asked for is filled in anew.
    let asked = written(&[("secrets/a/robot", token("robot"))], "");
    let secret = &asked["50-secrets-and-configmaps/secrets/a/robot.yaml"];
    assert_eq!(secret["data"], json!({"extra": "eQ=="}));
    assert_eq!(
        secret["metadata"]["annotations"],
        json!({"kubernetes.io/service-account.name": "robot"})
    );
}

#[test]
fn endpoints_are_left_out_where_a_controller_fills_them_in() {
    let service =
        |name: &str, spec: Value| object("v1", "Service", "a", name, json!({"spec": spec}));
    let slice = |name: &str, service: &str| {
        object(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "a",
            name,
            json!({"metadata": {"labels": {"kubernetes.io/service-name": service}}, "addressType": "IPv4", "endpoints": []}),
        )
    };
    let objects = [
        ("services/specs/a/made", service("made", json!({"selector": {"a": "b"}}))),
        ("services/endpoints/a/made", object("v1", "Endpoints", "a", "made", json!({}))),
        ("endpointslices/a/made-x", slice("made-x", "made")),
        ("services/specs/a/own", service("own", json!({}))),
        ("services/endpoints/a/own", object("v1", "Endpoints", "a", "own", json!({}))),
        ("endpointslices/a/own-x", slice("own-x", "own")),
    ];
    let made = |name: &str| (name.to_owned(), "made-from-service".to_owned());
    assert_eq!(reasons(&objects), [made("made-x"), made("made")]);
}

#[test]
fn owners_are_kept_where_nothing_acts_on_them() {
    let secret = [(
        "secrets/a/s",
        object("v1", "Secret", "a", "s", owned_by("apps/v1", "Deployment", "gone")),
    )];
    let path = "50-secrets-and-configmaps/secrets/a/s.yaml";
    assert_eq!(written(&secret, "")[path]["metadata"], json!({"name": "s", "namespace": "a"}));
    let kept = written(&secret, "--keep-owners");
    let metadata = &kept[path]["metadata"];
    assert!(metadata.get("ownerReferences").is_none());
    let owners = metadata["annotations"]["atrest/owner-references"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(owners).unwrap()[0]["name"], "gone");
}

#[test]
fn addresses_go_unless_they_are_kept() {
    let spec = json!({"type": "NodePort", "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"],
        "healthCheckNodePort": 31000, "ports": [{"port": 80, "nodePort": 30080}]});
    let objects = [
        ("services/specs/a/s", object("v1", "Service", "a", "s", json!({ "spec": spec.clone() }))),
        (
            "services/specs/a/h",
            object(
                "v1",
                "Service",
                "a",
                "h",
                json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
            ),
        ),
    ];
    let found = written(&objects, "");
    assert_eq!(
        found["60-network/services/a/s.yaml"]["spec"],
        json!({"type": "NodePort", "ports": [{"port": 80}]})
    );
    assert_eq!(found["60-network/services/a/h.yaml"]["spec"]["clusterIP"], "None");
    assert_eq!(written(&objects, "--keep-ips")["60-network/services/a/s.yaml"]["spec"], spec);
}

#[test]
fn a_claim_and_its_volume_find_each_other_again() {
    let bound = json!({"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes",
        "volume.kubernetes.io/storage-provisioner": "csi", "mine": "x"});
    let claim = |name: &str, volume: &str| {
        object(
            "v1",
            "PersistentVolumeClaim",
            "a",
            name,
            json!({"metadata": {"annotations": bound.clone()}, "spec": {"volumeName": volume}, "status": {"phase": "Bound"}}),
        )
    };
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v", "annotations":
        {"pv.kubernetes.io/bound-by-controller": "yes", "pv.kubernetes.io/provisioned-by": "csi"}},
        "spec": {"claimRef": {"namespace": "a", "name": "c", "uid": "old", "resourceVersion": "5"}}});
    let found = written(
        &[
            ("persistentvolumeclaims/a/c", claim("c", "v")),
            ("persistentvolumeclaims/a/lost", claim("lost", "gone")),
            ("persistentvolumes/v", volume),
        ],
        "",
    );
    let c = &found["57-claims/persistentvolumeclaims/a/c.yaml"];
    assert_eq!(c["spec"]["volumeName"], "v");
    assert_eq!(c["metadata"]["annotations"], json!({"mine": "x"}));
    assert!(
        found["57-claims/persistentvolumeclaims/a/lost.yaml"]["spec"].get("volumeName").is_none()
    );
    let v = &found["55-volumes/persistentvolumes/v.yaml"];
    assert_eq!(v["spec"]["claimRef"], json!({"namespace": "a", "name": "c"}));
    assert_eq!(v["metadata"]["annotations"], json!({"pv.kubernetes.io/provisioned-by": "csi"}));
}

#[test]
fn what_was_being_deleted_is_whole_again() {
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30, "finalizers": ["x/y"]}});
    let kept = json!({"metadata": {"finalizers": ["x/y"]}});
    let found = written(
        &[
            ("secrets/a/d", object("v1", "Secret", "a", "d", deleted)),
            ("secrets/a/k", object("v1", "Secret", "a", "k", kept)),
        ],
        "",
    );
    let at = |n: &str| {
        found[&format!("50-secrets-and-configmaps/secrets/a/{n}.yaml")]["metadata"].clone()
    };
    assert_eq!(at("d"), json!({"name": "d", "namespace": "a"}));
    assert_eq!(at("k")["finalizers"], json!(["x/y"]));
}

#[test]
fn a_pod_of_nobody_is_placed_anew() {
    let pod = json!({"spec": {"nodeName": "n1", "priority": 5, "serviceAccountName": "robot",
        "ephemeralContainers": [{"name": "debug"}],
        "volumes": [{"name": "robot-token-x7k2p", "secret": {"secretName": "robot-token-x7k2p"}}, {"name": "data"}],
        "containers": [{"name": "c", "volumeMounts": [{"name": "robot-token-x7k2p", "mountPath": "/t"}, {"name": "data", "mountPath": "/d"}]}]}});
    let found = written(&[("pods/a/p", object("v1", "Pod", "a", "p", pod))], "");
    assert_eq!(
        found["75-workloads/pods/a/p.yaml"]["spec"],
        json!({"serviceAccountName": "robot",
        "volumes": [{"name": "data"}],
        "containers": [{"name": "c", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]})
    );
}

#[test]
fn custom_resources_are_written_at_a_version_that_is_served() {
    let definition = |strategy: &str| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ws.example.io"},
        "spec": {"group": "example.io", "names": {"plural": "ws", "kind": "W"}, "scope": "Namespaced", "conversion": {"strategy": strategy},
                 "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}, "subresources": {"status": {}}},
                              {"name": "v1alpha1", "served": false, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
    };
    let old = (
        "example.io/ws/a/w",
        object("example.io/v1alpha1", "W", "a", "w", json!({"spec": {"x": 1}, "status": {"y": 1}})),
    );
    let key = "apiextensions.k8s.io/customresourcedefinitions/ws.example.io";
    let found = written(&[(key, definition("None")), old.clone()], "");
    let w = &found["65-custom-resources/ws.example.io/a/w.yaml"];
    assert_eq!((&w["apiVersion"], w.get("status")), (&json!("example.io/v1"), None));
    let (_dir, done) = restore(cluster(&[(key, definition("Webhook")), old.clone()]).path(), "");
    done.code(4).says("ws.example.io a/w cannot be converted").says("webhook");
    let (_dir, done) = restore(cluster(&[old]).path(), "");
    done.ok().says("the source does not define them");
}
