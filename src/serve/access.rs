//! `kubectl auth`: who is asking, and what they may do here: read.

use serde_json::{Value, json};

use crate::proto::Fields;
use crate::storage::PROTOBUF_MAGIC;

/// The name that every client has.
const USER: &str = "atrest";
/// What may be done.
const READS: [&str; 3] = ["get", "list", "watch"];

/// Answers a review that was posted; `None` when there is none of that name.
#[must_use]
pub fn review(group: &str, resource: &str, body: &[u8]) -> Option<Value> {
    let asked = serde_json::from_slice(body).ok();
    let spec = match asked.as_ref().and_then(|a: &Value| a.get("spec")) {
        Some(spec) => spec.clone(),
        None => from_protobuf(body).unwrap_or_else(|| json!({})),
    };
    let answer = |kind: &str, spec: Value, status: Value| {
        let mut answer = json!({"kind": kind, "apiVersion": format!("{group}/v1"),
                                "metadata": {"creationTimestamp": null}, "status": status});
        if !spec.is_null() {
            answer["spec"] = spec;
        }
        answer
    };
    match (group, resource) {
        ("authentication.k8s.io", "selfsubjectreviews") => {
            let user = json!({"username": USER, "groups": ["system:authenticated"]});
            Some(answer("SelfSubjectReview", Value::Null, json!({"userInfo": user})))
        }
        ("authorization.k8s.io", "selfsubjectaccessreviews") => {
            let verb = ["resourceAttributes", "nonResourceAttributes"]
                .iter()
                .find_map(|part| spec[*part]["verb"].as_str())
                .unwrap_or_default();
            // What a container prints or runs is in no backup.
            let runs = matches!(
                spec["resourceAttributes"]["subresource"].as_str(),
                Some("log" | "exec" | "attach" | "portforward" | "proxy")
            );
            let allowed = READS.contains(&verb) && !runs;
            let reason = if allowed {
                "everything that is stored may be read here"
            } else {
                "this server shows what etcd or a backup holds, and is read-only"
            };
            let mut status = json!({"allowed": allowed, "reason": reason});
            if !allowed {
                status["denied"] = true.into();
            }
            Some(answer("SelfSubjectAccessReview", spec, status))
        }
        ("authorization.k8s.io", "selfsubjectrulesreviews") => {
            let status = json!({
                "resourceRules": [{"verbs": READS, "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["*"]}],
                "incomplete": false,
            });
            Some(answer("SelfSubjectRulesReview", spec, status))
        }
        _ => None,
    }
}

/// The spec of a review that came as protobuf, which clients prefer for built-in kinds
/// (`k8s.io/api/authorization/v1/generated.proto`).
fn from_protobuf(body: &[u8]) -> Option<Value> {
    let envelope = body.strip_prefix(PROTOBUF_MAGIC)?;
    let spec = bytes(bytes(envelope, 2)?, 2)?;
    let text = |message, number| {
        bytes(message, number).map(String::from_utf8_lossy).unwrap_or_default().into_owned()
    };
    if let Some(a) = bytes(spec, 1) {
        return Some(json!({"resourceAttributes": {
            "namespace": text(a, 1), "verb": text(a, 2), "group": text(a, 3), "version": text(a, 4),
            "resource": text(a, 5), "subresource": text(a, 6), "name": text(a, 7)}}));
    }
    let a = bytes(spec, 2)?;
    Some(json!({"nonResourceAttributes": {"path": text(a, 1), "verb": text(a, 2)}}))
}

/// A field of a message.
fn bytes(message: &[u8], number: u32) -> Option<&[u8]> {
    Fields::new(message).map_while(Result::ok).find(|f| f.number == number)?.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_allowed_and_nothing_else() {
        let ask = |attributes: Value| {
            let body = json!({"spec": {"resourceAttributes": attributes}}).to_string();
            let answer =
                review("authorization.k8s.io", "selfsubjectaccessreviews", body.as_bytes())
                    .unwrap();
            answer["status"]["allowed"].as_bool().unwrap()
        };
        assert!(ask(json!({"verb": "list", "resource": "secrets"})));
        assert!(!ask(json!({"verb": "delete", "resource": "secrets"})));
        assert!(!ask(json!({"verb": "get", "resource": "pods", "subresource": "log"})));
        assert!(!ask(json!({"verb": "*", "resource": "*"})));
        assert_eq!(review("authorization.k8s.io", "tokenreviews", b""), None);
    }
}
