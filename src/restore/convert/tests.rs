// Objects are written where they are handed over.
#![allow(clippy::needless_pass_by_value)]

use serde_json::{Value, json};

use super::convert;

/// Converts `rest` of kind `kind` from one version to another.
fn at(resource: &str, from: &str, to: &str, kind: &str, rest: Value) -> Value {
    let mut object = rest;
    object["apiVersion"] = from.into();
    object["kind"] = kind.into();
    let lost = convert(resource, &mut object, to).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(lost, Vec::<String>::new());
    assert_eq!(object["apiVersion"], to);
    object
}

fn refused(resource: &str, from: &str, to: &str, rest: Value) -> String {
    let mut object = rest;
    object["apiVersion"] = from.into();
    convert(resource, &mut object, to).unwrap_err().to_string()
}

const CRD: &str = "customresourcedefinitions.apiextensions.k8s.io";

fn crd(spec: Value) -> Value {
    let (from, to) = ("apiextensions.k8s.io/v1beta1", "apiextensions.k8s.io/v1");
    at(CRD, from, to, "CustomResourceDefinition", json!({ "spec": spec }))["spec"].clone()
}

#[test]
fn a_definition_says_for_each_version_what_it_said_for_all() {
    let schema =
        json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}});
    let spec = crd(json!({
        "group": "example.com", "version": "v1", "names": {"plural": "ws", "kind": "W"}, "scope": "Namespaced",
        "preserveUnknownFields": false,
        "validation": schema,
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n"}},
        "additionalPrinterColumns": [{"name": "N", "type": "integer", "JSONPath": ".spec.n"}],
        "versions": [{"name": "v1", "served": true, "storage": true}, {"name": "v2", "served": true, "storage": false}],
        "conversion": {"strategy": "Webhook", "conversionReviewVersions": ["v1"],
            "webhookClientConfig": {"url": "https://a", "caBundle": "eA=="}}
    }));
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage, "schema": schema,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n"}},
            "additionalPrinterColumns": [{"name": "N", "type": "integer", "jsonPath": ".spec.n"}],
        })
    };
    assert_eq!(
        spec,
        json!({
            "group": "example.com", "names": {"plural": "ws", "kind": "W"}, "scope": "Namespaced",
            "versions": [version("v1", true), version("v2", false)],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://a", "caBundle": "eA=="}}}
        })
    );
}

#[test]
fn a_definition_without_versions_or_schema_keeps_accepting_everything() {
    let spec =
        crd(json!({"group": "example.com", "version": "v1", "names": {}, "scope": "Cluster"}));
    assert_eq!(
        spec,
        json!({
            "group": "example.com", "names": {}, "scope": "Cluster", "conversion": {"strategy": "None"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]
        })
    );
}

#[test]
fn versions_that_say_it_themselves_keep_their_own() {
    let own = |path: &str| {
        json!({"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object"}},
        "additionalPrinterColumns": [{"name": "A", "type": "string", path: ".a"}]})
    };
    let spec = crd(
        json!({"group": "example.com", "versions": [own("JSONPath")], "preserveUnknownFields": false}),
    );
    assert_eq!(spec["versions"], json!([own("jsonPath")]));
}

/// Unknown fields were kept down to the last object; the keyword that says so ends where fields
/// are listed again.
#[test]
fn unknown_fields_are_kept_at_every_object() {
    let keep = "x-kubernetes-preserve-unknown-fields";
    let spec = crd(
        json!({"group": "example.com", "versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
        "properties": {
            "metadata": {"type": "object", "description": "x"},
            "spec": {"properties": {
                "list": {"items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object"}},
                "any": {}
            }}
        }}}}]}),
    );
    assert_eq!(
        spec["versions"][0]["schema"]["openAPIV3Schema"],
        json!({
            "type": "object", keep: true,
            "properties": {
                "metadata": {"type": "object"},
                "spec": {"type": "object", keep: true, "properties": {
                    "list": {"type": "array", "items": {"type": "object", keep: true, "properties": {"a": {"type": "string"}}}},
                    "map": {"type": "object", "additionalProperties": {"type": "object", keep: true}},
                    "any": {keep: true}
                }}
            }
        })
    );
}

#[test]
fn what_no_structural_schema_can_say_is_named() {
    let mut object = json!({"apiVersion": "apiextensions.k8s.io/v1beta1", "spec": {"group": "a.b", "versions": [{"name": "v1",
    "schema": {"openAPIV3Schema": {"properties": {
        "a": {"type": "string", "anyOf": [{"type": "string"}]},
        "b": {"type": "object", "additionalProperties": false},
        "c": {"oneOf": [{"required": ["x"]}], "properties": {"x": {"type": "string"}}},
        "d": {"$ref": "#/definitions/x"}
    }}}}]}});
    let mut lost = convert(CRD, &mut object, "apiextensions.k8s.io/v1").unwrap();
    lost.sort();
    assert_eq!(
        lost,
        ["version v1: .a.anyOf", "version v1: .b.additionalProperties", "version v1: .d.$ref"]
    );
    let properties = &object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    assert!(properties["c"]["oneOf"].is_array() && properties["a"].get("anyOf").is_none());
}

#[test]
fn groups_of_kubernetes_need_an_approval() {
    for (group, needed) in
        [("a.k8s.io", true), ("a.kubernetes.io", true), ("k8s.io.example.com", false)]
    {
        let mut object = json!({"metadata": {}, "spec": {"group": group, "versions": []}});
        super::normalize_definition(&mut object);
        let approval = object.pointer("/metadata/annotations/api-approved.kubernetes.io");
        assert_eq!(
            approval.is_some_and(|a| a.as_str().unwrap().starts_with("unapproved")),
            needed,
            "{group}"
        );
    }
}

#[test]
fn an_autoscaler_of_v1_says_in_fields_what_it_said_in_annotations() {
    let hpa = |annotations: Value, spec: Value| {
        at(
            "horizontalpodautoscalers.autoscaling",
            "autoscaling/v1",
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"metadata": {"name": "a", "annotations": annotations}, "spec": spec, "status": {"currentReplicas": 1}}),
        )
    };
    let metrics = r#"[{"type":"Resource","resource":{"name":"memory","targetAverageValue":"1Gi"}},
        {"type":"Pods","pods":{"metricName":"p","selector":{"matchLabels":{"a":"b"}},"targetAverageValue":"10"}},
        {"type":"Object","object":{"target":{"kind":"Service","name":"s"},"metricName":"o","targetValue":"5"}},
        {"type":"Object","object":{"target":{"kind":"Service","name":"s"},"metricName":"o","targetValue":"0","averageValue":"2"}},
        {"type":"External","external":{"metricName":"e","metricSelector":{"matchLabels":{"q":"x"}},"targetValue":"7"}},
        {"type":"ContainerResource","containerResource":{"name":"cpu","container":"c","targetAverageUtilization":60}}]"#;
    let object = hpa(
        json!({"autoscaling.alpha.kubernetes.io/metrics": metrics, "autoscaling.alpha.kubernetes.io/conditions": "[]",
               "autoscaling.alpha.kubernetes.io/current-metrics": "[]", "autoscaling.alpha.kubernetes.io/behavior":
               r#"{"ScaleUp":null,"scaleDown":{"stabilizationWindowSeconds":60}}"#}),
        json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}),
    );
    assert_eq!(object["metadata"], json!({"name": "a"}));
    assert!(object.get("status").is_none());
    assert_eq!(object["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 60);
    let described = json!({"kind": "Service", "name": "s"});
    assert_eq!(
        object["spec"]["metrics"],
        json!([
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
            {"type": "Pods", "pods": {"metric": {"name": "p", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "10"}}},
            {"type": "Object", "object": {"describedObject": described, "metric": {"name": "o"}, "target": {"type": "Value", "value": "5"}}},
            {"type": "Object", "object": {"describedObject": described, "metric": {"name": "o"}, "target": {"type": "AverageValue", "averageValue": "2"}}},
            {"type": "External", "external": {"metric": {"name": "e", "selector": {"matchLabels": {"q": "x"}}}, "target": {"type": "Value", "value": "7"}}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 60}}}
        ])
    );
    let defaulted = hpa(json!({}), json!({"maxReplicas": 3}));
    assert_eq!(defaulted["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    let broken = json!({"metadata": {"annotations": {"autoscaling.alpha.kubernetes.io/metrics": "{"}}, "spec": {}});
    let said =
        refused("horizontalpodautoscalers.autoscaling", "autoscaling/v1", "autoscaling/v2", broken);
    assert!(said.contains("is no JSON"), "{said}");
}

#[test]
fn the_backend_of_an_ingress_is_a_service() {
    for from in ["extensions/v1beta1", "networking.k8s.io/v1beta1"] {
        let object = at(
            "ingresses.networking.k8s.io",
            from,
            "networking.k8s.io/v1",
            "Ingress",
            json!({"spec": {
            "ingressClassName": "nginx", "backend": {"serviceName": "d", "servicePort": 80},
            "rules": [{"host": "a", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"serviceName": "s", "servicePort": "http"}},
                {"backend": {"resource": {"kind": "Bucket", "name": "b"}}}]}}, {"host": "b"}]}}),
        );
        assert_eq!(
            object["spec"],
            json!({
            "ingressClassName": "nginx", "defaultBackend": {"service": {"name": "d", "port": {"number": 80}}},
            "rules": [{"host": "a", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"name": "http"}}}},
                {"pathType": "ImplementationSpecific", "backend": {"resource": {"kind": "Bucket", "name": "b"}}}]}}, {"host": "b"}]})
        );
    }
}

#[test]
fn what_webhooks_take_for_granted_is_written_out() {
    let object = at(
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "admissionregistration.k8s.io/v1beta1",
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        json!({"webhooks": [{"name": "a.b.c", "sideEffects": "None", "clientConfig": {}}]}),
    );
    assert_eq!(
        object["webhooks"][0],
        json!({"name": "a.b.c", "sideEffects": "None", "clientConfig": {}, "failurePolicy": "Ignore",
        "matchPolicy": "Exact", "timeoutSeconds": 30, "admissionReviewVersions": ["v1beta1"], "reinvocationPolicy": "Never"})
    );
}

#[test]
fn an_empty_selector_of_a_budget_stays_what_it_means() {
    let budget = |from: &str, to: &str, selector: Value| {
        at(
            "poddisruptionbudgets.policy",
            from,
            to,
            "PodDisruptionBudget",
            json!({"spec": {"selector": selector}}),
        )["spec"]["selector"]
            .clone()
    };
    let (old, new) = ("policy/v1beta1", "policy/v1");
    let label = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";
    let says = |operator: &str| json!({"matchExpressions": [{"key": label, "operator": operator}]});
    assert_eq!(budget(old, new, json!({})), says("Exists"), "no pod");
    assert_eq!(budget(old, new, says("DoesNotExist")), json!({}), "every pod");
    assert_eq!(budget(new, old, json!({})), says("DoesNotExist"));
    assert_eq!(budget(new, old, says("Exists")), json!({}));
    let labels = json!({"matchLabels": {"a": "b"}});
    assert_eq!(budget(old, new, labels.clone()), labels);
}

#[test]
fn shares_of_concurrency_keep_their_number() {
    let level = |from: &str, to: &str, object: Value| {
        let group = |v: &str| format!("flowcontrol.apiserver.k8s.io/{v}");
        at(
            "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
            &group(from),
            &group(to),
            "PriorityLevelConfiguration",
            object,
        )
    };
    let limited = |object: &Value| object["spec"]["limited"].clone();
    let assured = json!({"spec": {"limited": {"assuredConcurrencyShares": 7}}});
    assert_eq!(
        limited(&level("v1beta2", "v1", assured.clone())),
        json!({"nominalConcurrencyShares": 7})
    );
    assert_eq!(
        limited(&level("v1beta1", "v1beta2", assured)),
        json!({"assuredConcurrencyShares": 7})
    );
    let none = json!({"spec": {"limited": {"nominalConcurrencyShares": 0}}});
    assert_eq!(
        limited(&level("v1beta3", "v1", none.clone())),
        json!({"nominalConcurrencyShares": 30}),
        "zero was unset"
    );
    let back = level("v1", "v1beta3", json!({"metadata": {}, "spec": none["spec"]}));
    assert_eq!(limited(&level("v1beta3", "v1", back)), json!({"nominalConcurrencyShares": 0}));
}

#[test]
fn small_ones() {
    let runtime = at(
        "runtimeclasses.node.k8s.io",
        "node.k8s.io/v1alpha1",
        "node.k8s.io/v1",
        "RuntimeClass",
        json!({"spec": {"runtimeHandler": "runsc", "overhead": {"podFixed": {"cpu": "1"}}}}),
    );
    assert_eq!(
        (
            runtime["handler"].clone(),
            runtime["overhead"]["podFixed"]["cpu"].clone(),
            runtime.get("spec")
        ),
        ("runsc".into(), "1".into(), None)
    );
    let binding = at(
        "clusterrolebindings.rbac.authorization.k8s.io",
        "rbac.authorization.k8s.io/v1alpha1",
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        json!({"subjects": [{"kind": "User", "apiVersion": "rbac.authorization.k8s.io/v1alpha1", "name": "*"},
        {"kind": "ServiceAccount", "apiVersion": "v1", "name": "s", "namespace": "n"}]}),
    );
    assert_eq!(
        binding["subjects"],
        json!([{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:authenticated"},
        {"kind": "ServiceAccount", "name": "s", "namespace": "n"}])
    );
    let topology =
        json!({"topology.kubernetes.io/zone": "z", "kubernetes.io/hostname": "n1", "rack": "7"});
    let (old, new) = ("discovery.k8s.io/v1beta1", "discovery.k8s.io/v1");
    let slice = at(
        "endpointslices.discovery.k8s.io",
        old,
        new,
        "EndpointSlice",
        json!({"endpoints": [{"nodeName": "n1", "topology": topology}]}),
    );
    assert_eq!(
        slice["endpoints"],
        json!([{"nodeName": "n1", "zone": "z", "deprecatedTopology": {"rack": "7"}}])
    );
    let back = at("endpointslices.discovery.k8s.io", new, old, "EndpointSlice", slice);
    assert_eq!(back["endpoints"][0]["topology"], topology);
    let cron = at(
        "cronjobs.batch",
        "batch/v1beta1",
        "batch/v1",
        "CronJob",
        json!({"spec": {"schedule": "* * * * *"}}),
    );
    assert_eq!(cron["spec"]["schedule"], "* * * * *");
    let claim = at(
        "resourceclaims.resource.k8s.io",
        "resource.k8s.io/v1beta1",
        "resource.k8s.io/v1",
        "ResourceClaim",
        json!({"spec": {"devices": {"requests": [{"name": "a", "deviceClassName": "gpu", "count": 2}, {"name": "b", "deviceClassName": "", "firstAvailable": [{"name": "c"}]}]}}}),
    );
    assert_eq!(
        claim["spec"]["devices"]["requests"],
        json!([{"name": "a", "exactly": {"deviceClassName": "gpu", "count": 2}}, {"name": "b", "firstAvailable": [{"name": "c"}]}])
    );
}

#[test]
fn workloads_of_old_groups_keep_what_they_took_for_granted() {
    let labels = json!({"a": "b"});
    let spec = json!({"template": {"metadata": {"labels": labels}}, "rollbackTo": {"revision": 1}});
    let deployment = at(
        "deployments.apps",
        "extensions/v1beta1",
        "apps/v1",
        "Deployment",
        json!({"metadata": {}, "spec": spec}),
    );
    assert_eq!(deployment["spec"]["selector"], json!({ "matchLabels": labels }));
    assert_eq!(
        deployment["spec"]["strategy"]["rollingUpdate"],
        json!({"maxUnavailable": 1, "maxSurge": 1})
    );
    assert!(deployment["spec"].get("rollbackTo").is_none());
    let daemon = at(
        "daemonsets.apps",
        "extensions/v1beta1",
        "apps/v1",
        "DaemonSet",
        json!({"metadata": {}, "spec": {"templateGeneration": 4}}),
    );
    assert_eq!(daemon["spec"]["updateStrategy"]["type"], "OnDelete");
    assert_eq!(daemon["metadata"]["annotations"]["deprecated.daemonset.template.generation"], "4");
}

#[test]
fn what_has_no_equal_is_refused() {
    let csr = "certificatesigningrequests.certificates.k8s.io";
    let (from, to) = ("certificates.k8s.io/v1beta1", "certificates.k8s.io/v1");
    for spec in [json!({}), json!({"signerName": "kubernetes.io/legacy-unknown"})] {
        assert!(refused(csr, from, to, json!({ "spec": spec })).contains("signer"));
    }
    let object = at(
        csr,
        from,
        to,
        "CertificateSigningRequest",
        json!({"spec": {"signerName": "example.com/s"}}),
    );
    assert_eq!(object["spec"]["usages"], json!(["digital signature", "key encipherment"]));
    let said = refused(
        "leasecandidates.coordination.k8s.io",
        "coordination.k8s.io/v1alpha1",
        "coordination.k8s.io/v1beta1",
        json!({}),
    );
    assert!(said.starts_with("no conversion of "), "{said}");
}
