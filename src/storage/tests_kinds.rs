//! The table against two sources that are independent of it: the protobuf definitions (as prost
//! types, crate k8s-pb) for field numbers and wire types, and the `OpenAPI` document (as serde types,
//! crate k8s-openapi) for JSON names.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schema::{Kind, Message, Schema, Shape};
use super::{decode, encode};

/// An object with every field of its kind set, those aside that the newest release lacks.
fn full(api_version: &str, kind: &str) -> Value {
    let message = Schema::get().kind(api_version, kind).unwrap();
    let mut object = full_message(message, &mut Vec::new());
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        // Never stored.
        metadata.remove("resourceVersion");
        metadata.remove("selfLink");
    }
    // The API server fills these in; they have no place in protobuf.
    if let Some(Value::Array(claims)) =
        object.get_mut("spec").and_then(|s| s.get_mut("volumeClaimTemplates"))
    {
        for claim in claims {
            claim["apiVersion"] = "v1".into();
            claim["kind"] = "PersistentVolumeClaim".into();
        }
    }
    if kind == "Secret" {
        object.remove("stringData");
    }
    object.into()
}

fn full_message(message: &'static Message, within: &mut Vec<&'static str>) -> Map<String, Value> {
    let mut map = Map::new();
    within.push(message.name);
    for field in message.fields.iter().filter(|f| !f.removed) {
        // Some kinds contain themselves: once is enough.
        if let Kind::Message(index) = field.kind {
            let inner = Schema::get().message(index).name;
            if within.iter().filter(|name| **name == inner).count() > 1 {
                continue;
            }
        }
        let one = match field.kind {
            Kind::String => json!("text"),
            Kind::Int => json!(7),
            Kind::Bool => json!(true),
            Kind::Bytes => json!("/wA="),
            Kind::Message(index) => Value::from(full_message(Schema::get().message(index), within)),
            Kind::Time => json!("2026-01-02T03:04:05Z"),
            Kind::MicroTime => json!("2026-01-02T03:04:05.123456Z"),
            Kind::Quantity => json!("100m"),
            Kind::IntOrString => json!("25%"),
            Kind::RawExtension | Kind::FieldsV1 => json!({"f:a": {"x": [1, "y"]}}),
            Kind::Strings => json!(["one", "two"]),
        };
        if field.name.is_empty() {
            let Value::Object(inner) = one else { unreachable!() };
            map.extend(inner);
            continue;
        }
        let value = match field.shape {
            Shape::Plain | Shape::Pointer => one,
            Shape::List => json!([one.clone(), one]),
            Shape::Map => json!({"a": one.clone(), "b": one}),
        };
        map.insert(field.name.to_owned(), value);
    }
    within.pop();
    map
}

/// JSON paths, without list indices, that only one of two objects has or that differ.
fn differences(ours: &Value, theirs: &Value, path: &str, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                let path = format!("{path}.{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => differences(a, b, &path, out),
                    // Left out by hand where a kind contains itself.
                    (None, Some(Value::Null)) => {}
                    _ => out.push(path),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).take(1).for_each(|(a, b)| differences(a, b, path, out));
        }
        (a, b) if a == b => {}
        _ => out.push(path.to_owned()),
    }
}

#[test]
fn every_kind_with_every_field_survives_encoding_and_decoding() {
    let mut count = 0;
    for (group, version, kind, _) in Schema::get().kinds() {
        let api_version =
            if group.is_empty() { version.into() } else { format!("{group}/{version}") };
        let object = full(&api_version, kind);
        let bytes = encode(&object).unwrap_or_else(|e| panic!("{api_version} {kind}: {e}"));
        let back = decode(&bytes).unwrap_or_else(|e| panic!("{api_version} {kind}: {e}"));
        assert_eq!(back.unknown, [], "{api_version} {kind}");
        let mut different = Vec::new();
        differences(&object, &back.json, "", &mut different);
        assert!(different.is_empty(), "{api_version} {kind}: {different:?}");
        count += 1;
    }
    assert!(count > 150, "{count}");
}

/// The body of a stored object: what stands behind the magic and the type's name.
fn body(stored: &[u8]) -> Vec<u8> {
    let fields = crate::proto::Fields::new(&stored[4..]).map(Result::unwrap);
    fields.filter(|f| f.number == 2).map(|f| f.bytes().unwrap().to_vec()).next().unwrap()
}

fn stored(api_version: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    use super::tests::field;
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &meta), field(2, body)].concat()
}

type Recode = fn(&[u8]) -> Vec<u8>;

macro_rules! prost_kinds {
    ($($api:literal $group:ident::$version:ident: $($kind:ident)+;)+) => {
        const PROST: &[(&str, &str, Recode)] = &[$($((
            $api,
            stringify!($kind),
            |bytes| {
                use prost::Message as _;
                k8s_pb::api::$group::$version::$kind::decode(bytes).unwrap().encode_to_vec()
            },
        ),)+)+];
    };
}

type Reserve = fn(Value) -> Result<Value, serde_json::Error>;

macro_rules! openapi_kinds {
    ($($api:literal $group:ident::$version:ident: $($kind:ident)+;)+) => {
        const OPENAPI: &[(&str, &str, Reserve)] = &[$($((
            $api,
            stringify!($kind),
            |json| {
                serde_json::to_value(serde_json::from_value::<
                    k8s_openapi::api::$group::$version::$kind,
                >(json)?)
            },
        ),)+)+];
    };
}

#[test]
fn prost_reads_and_writes_the_same_fields() {
    let mut all = BTreeMap::new();
    for (api_version, kind, recode) in PROST {
        let object = full(api_version, kind);
        let bytes = stored(api_version, kind, &recode(&body(&encode(&object).unwrap())));
        let back = decode(&bytes).unwrap();
        let mut different = Vec::new();
        differences(&object, &back.json, "", &mut different);
        for path in different {
            all.entry(path).or_insert_with(Vec::new).push(format!("{api_version} {kind}"));
        }
    }
    // What the crate's older release does not have yet.
    all.retain(|path, _| {
        let at = path.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
        !NEWER_THAN_PROST.contains(&&path[at..])
    });
    assert!(all.is_empty(), "{all:#?}");
}

#[test]
fn openapi_has_the_same_names() {
    let mut all = BTreeMap::new();
    for (api_version, kind, reserve) in OPENAPI {
        let object = full(api_version, kind);
        let back = reserve(object.clone()).unwrap_or_else(|e| panic!("{api_version} {kind}: {e}"));
        let mut different = Vec::new();
        differences(&object, &back, "", &mut different);
        for path in different {
            all.entry(path).or_insert_with(Vec::new).push(format!("{api_version} {kind}"));
        }
    }
    assert!(all.is_empty(), "{all:#?}");
}

const NEWER_THAN_PROST: &[&str] = &[
    "a.bools",
    "a.ints",
    "a.strings",
    "a.versions",
    "b.bools",
    "b.ints",
    "b.strings",
    "b.versions",
    "basic.nodeAllocatableResources",
    "clusterTrustBundle.user",
    "conditions.observedGeneration",
    "configMap.defaultUser",
    "consumesCounters.compatibilityGroups",
    "devices.nodeAllocatableResources",
    "downwardAPI.defaultUser",
    "emptyDir.mode",
    "exactly.derivedAttributes",
    "firstAvailable.derivedAttributes",
    "grpc.mode",
    "httpGet.protocol",
    "items.user",
    "nodeInfo.runningInUserNamespace",
    "podCertificate.user",
    "projected.defaultUser",
    "requests.derivedAttributes",
    "resources.message",
    "results.skipNodeOperations",
    "secret.defaultUser",
    "serviceAccountToken.user",
    "spec.evictionResponders",
    "spec.partitionTypeAttribute",
    "spec.podPreemptionPolicy",
    "spec.preventPodSchedulingIfMissing",
    "spec.scheduling",
    "spec.schedulingGroup",
    "spec.skipNodeOperations",
    "spec.stubPKCS10Request",
    "status.healthStatus",
    "status.nodeAllocatableResourceClaimStatuses",
    "status.storageHealth",
    "status.volumeHealth",
    "volumeMounts.bindMountOptions",
    "volumeMounts.volumeStatus",
];

prost_kinds! {
    "v1" core::v1: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod PodStatusResult PodTemplate RangeAllocation ReplicationController ResourceQuota Secret Service ServiceAccount;
    "admissionregistration.k8s.io/v1" admissionregistration::v1: MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration;
    "admissionregistration.k8s.io/v1alpha1" admissionregistration::v1alpha1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding;
    "admissionregistration.k8s.io/v1beta1" admissionregistration::v1beta1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration;
    "apps/v1" apps::v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
    "apps/v1beta1" apps::v1beta1: ControllerRevision Deployment Scale StatefulSet;
    "apps/v1beta2" apps::v1beta2: ControllerRevision DaemonSet Deployment ReplicaSet Scale StatefulSet;
    "autoscaling/v1" autoscaling::v1: HorizontalPodAutoscaler Scale;
    "autoscaling/v2" autoscaling::v2: HorizontalPodAutoscaler;
    "autoscaling/v2beta1" autoscaling::v2beta1: HorizontalPodAutoscaler;
    "autoscaling/v2beta2" autoscaling::v2beta2: HorizontalPodAutoscaler;
    "batch/v1" batch::v1: CronJob Job;
    "batch/v1beta1" batch::v1beta1: CronJob;
    "certificates.k8s.io/v1" certificates::v1: CertificateSigningRequest;
    "certificates.k8s.io/v1alpha1" certificates::v1alpha1: ClusterTrustBundle;
    "certificates.k8s.io/v1beta1" certificates::v1beta1: CertificateSigningRequest ClusterTrustBundle PodCertificateRequest;
    "coordination.k8s.io/v1" coordination::v1: Lease;
    "coordination.k8s.io/v1alpha2" coordination::v1alpha2: LeaseCandidate;
    "coordination.k8s.io/v1beta1" coordination::v1beta1: Lease LeaseCandidate;
    "discovery.k8s.io/v1" discovery::v1: EndpointSlice;
    "discovery.k8s.io/v1beta1" discovery::v1beta1: EndpointSlice;
    "events.k8s.io/v1" events::v1: Event;
    "events.k8s.io/v1beta1" events::v1beta1: Event;
    "extensions/v1beta1" extensions::v1beta1: DaemonSet Deployment Ingress NetworkPolicy ReplicaSet Scale;
    "flowcontrol.apiserver.k8s.io/v1" flowcontrol::v1: FlowSchema PriorityLevelConfiguration;
    "flowcontrol.apiserver.k8s.io/v1beta1" flowcontrol::v1beta1: FlowSchema PriorityLevelConfiguration;
    "flowcontrol.apiserver.k8s.io/v1beta2" flowcontrol::v1beta2: FlowSchema PriorityLevelConfiguration;
    "flowcontrol.apiserver.k8s.io/v1beta3" flowcontrol::v1beta3: FlowSchema PriorityLevelConfiguration;
    "internal.apiserver.k8s.io/v1alpha1" apiserverinternal::v1alpha1: StorageVersion;
    "networking.k8s.io/v1" networking::v1: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
    "networking.k8s.io/v1beta1" networking::v1beta1: IPAddress Ingress IngressClass ServiceCIDR;
    "node.k8s.io/v1" node::v1: RuntimeClass;
    "node.k8s.io/v1alpha1" node::v1alpha1: RuntimeClass;
    "node.k8s.io/v1beta1" node::v1beta1: RuntimeClass;
    "policy/v1" policy::v1: Eviction PodDisruptionBudget;
    "policy/v1beta1" policy::v1beta1: Eviction PodDisruptionBudget;
    "rbac.authorization.k8s.io/v1" rbac::v1: ClusterRole ClusterRoleBinding Role RoleBinding;
    "rbac.authorization.k8s.io/v1alpha1" rbac::v1alpha1: ClusterRole ClusterRoleBinding Role RoleBinding;
    "rbac.authorization.k8s.io/v1beta1" rbac::v1beta1: ClusterRole ClusterRoleBinding Role RoleBinding;
    "resource.k8s.io/v1" resource::v1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
    "resource.k8s.io/v1alpha3" resource::v1alpha3: DeviceTaintRule;
    "resource.k8s.io/v1beta1" resource::v1beta1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
    "resource.k8s.io/v1beta2" resource::v1beta2: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
    "scheduling.k8s.io/v1" scheduling::v1: PriorityClass;
    "scheduling.k8s.io/v1alpha1" scheduling::v1alpha1: PriorityClass Workload;
    "scheduling.k8s.io/v1beta1" scheduling::v1beta1: PriorityClass;
    "storage.k8s.io/v1" storage::v1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass;
    "storage.k8s.io/v1alpha1" storage::v1alpha1: CSIStorageCapacity VolumeAttachment VolumeAttributesClass;
    "storage.k8s.io/v1beta1" storage::v1beta1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass;
    "storagemigration.k8s.io/v1beta1" storagemigration::v1beta1: StorageVersionMigration;
}

openapi_kinds! {
    "v1" core::v1: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
    "admissionregistration.k8s.io/v1" admissionregistration::v1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration;
    "admissionregistration.k8s.io/v1alpha1" admissionregistration::v1alpha1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding;
    "admissionregistration.k8s.io/v1beta1" admissionregistration::v1beta1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding;
    "apps/v1" apps::v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
    "autoscaling/v1" autoscaling::v1: HorizontalPodAutoscaler Scale;
    "autoscaling/v2" autoscaling::v2: HorizontalPodAutoscaler;
    "batch/v1" batch::v1: CronJob Job;
    "certificates.k8s.io/v1" certificates::v1: CertificateSigningRequest ClusterTrustBundle PodCertificateRequest;
    "certificates.k8s.io/v1beta1" certificates::v1beta1: ClusterTrustBundle PodCertificateRequest;
    "coordination.k8s.io/v1" coordination::v1: Lease;
    "coordination.k8s.io/v1alpha2" coordination::v1alpha2: LeaseCandidate;
    "coordination.k8s.io/v1beta1" coordination::v1beta1: LeaseCandidate;
    "discovery.k8s.io/v1" discovery::v1: EndpointSlice;
    "events.k8s.io/v1" events::v1: Event;
    "flowcontrol.apiserver.k8s.io/v1" flowcontrol::v1: FlowSchema PriorityLevelConfiguration;
    "internal.apiserver.k8s.io/v1alpha1" apiserverinternal::v1alpha1: StorageVersion;
    "lifecycle.k8s.io/v1alpha1" lifecycle::v1alpha1: Eviction EvictionRequest;
    "networking.k8s.io/v1" networking::v1: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
    "node.k8s.io/v1" node::v1: RuntimeClass;
    "policy/v1" policy::v1: Eviction PodDisruptionBudget;
    "rbac.authorization.k8s.io/v1" rbac::v1: ClusterRole ClusterRoleBinding Role RoleBinding;
    "resource.k8s.io/v1" resource::v1: DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice;
    "resource.k8s.io/v1alpha3" resource::v1alpha3: DeviceTaintRule ResourcePoolStatusRequest;
    "resource.k8s.io/v1beta1" resource::v1beta1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
    "resource.k8s.io/v1beta2" resource::v1beta2: DeviceClass DeviceTaintRule ResourceClaim ResourceClaimTemplate ResourceSlice;
    "scheduling.k8s.io/v1" scheduling::v1: PriorityClass;
    "scheduling.k8s.io/v1alpha3" scheduling::v1alpha3: CompositePodGroup PodGroup Workload;
    "scheduling.k8s.io/v1beta1" scheduling::v1beta1: PodGroup Workload;
    "storage.k8s.io/v1" storage::v1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass;
    "storagemigration.k8s.io/v1" storagemigration::v1: StorageVersionMigration;
    "storagemigration.k8s.io/v1beta1" storagemigration::v1beta1: StorageVersionMigration;
}
