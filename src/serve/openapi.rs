//! `OpenAPI` documents: what `kubectl explain` reads, and the validation before an apply.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::catalogue::{Catalogue, Resource};
use crate::storage::shape::{self, Schemas};

/// `/openapi/v3`: where the document of each group version is.
#[must_use]
pub fn index(catalogue: &Catalogue) -> Value {
    let mut paths = Map::new();
    for (group, versions) in &catalogue.groups {
        for version in versions {
            let path = match group.as_str() {
                "" => format!("api/{version}"),
                group => format!("apis/{group}/{version}"),
            };
            let body = document(catalogue, group, version).unwrap_or_default().to_string();
            let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, body.as_bytes()));
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// `/openapi/v3/apis/GROUP/VERSION`.
#[must_use]
pub fn document(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    let known = catalogue.groups.iter().find(|(n, _)| n == group)?;
    known.1.iter().find(|v| *v == version)?;
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    let of_version = |r: &&std::sync::Arc<Resource>| r.group == group && r.version == version;
    for resource in catalogue.resources.iter().filter(of_version) {
        let name = schema(&mut schemas, resource);
        operations(&mut paths, resource, &name);
    }
    Some(json!({"openapi": "3.0.0", "info": info(), "paths": paths,
                "components": {"schemas": schemas}}))
}

/// `/openapi/v2`, which clients of today ask for only when there is no v3.
#[must_use]
pub fn swagger(catalogue: &Catalogue) -> Value {
    let mut schemas = Schemas::new();
    for resource in &catalogue.resources {
        schema(&mut schemas, resource);
    }
    let text = json!(schemas).to_string().replace("#/components/schemas/", "#/definitions/");
    // What was written a moment ago can be read.
    let definitions: Value = serde_json::from_str(&text).unwrap_or_default();
    json!({"swagger": "2.0", "info": info(), "paths": {}, "definitions": definitions})
}

fn info() -> Value {
    json!({"title": "Kubernetes, as etcd or a backup holds it", "version": env!("CARGO_PKG_VERSION")})
}

/// Adds the schema of a resource's objects; returns its name.
fn schema(schemas: &mut Schemas, resource: &Resource) -> String {
    let api_version = resource.api_version();
    if !resource.custom
        && let Some(name) = shape::add(schemas, &api_version, &resource.kind)
    {
        return name;
    }
    // `example.com`, `v1`, `Widget` → `com.example.v1.Widget`.
    let mut parts: Vec<&str> = resource.group.split('.').rev().collect();
    parts.extend([resource.version.as_str(), resource.kind.as_str()]);
    let name = parts.join(".");
    // Its metadata are described where a built-in kind's are.
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let _ = shape::add(schemas, "v1", "Namespace");
    let mut own =
        resource.schema.clone().filter(Value::is_object).unwrap_or_else(
            || json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        );
    if !own["properties"].is_object() {
        own["properties"] = json!({});
    }
    let properties = &mut own["properties"];
    for field in ["apiVersion", "kind"] {
        if properties[field].is_null() {
            properties[field] = json!({"type": "string"});
        }
    }
    properties["metadata"] = json!({"allOf": [{"$ref": format!("#/components/schemas/{meta}")}]});
    own["x-kubernetes-group-version-kind"] =
        json!([{"group": resource.group, "version": resource.version, "kind": resource.kind}]);
    schemas.insert(name.clone(), own);
    name
}

/// Adds the paths of a resource. Clients look up a kind by them.
fn operations(paths: &mut Map<String, Value>, resource: &Resource, schema: &str) {
    let base = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    let all = format!("{base}/{}", resource.plural);
    let list = if resource.namespaced {
        format!("{base}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        all.clone()
    };
    let operation = |action: &str| {
        let content = json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
        json!({
            "responses": {"200": {"description": "OK", "content": content}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {
                "group": resource.group, "version": resource.version, "kind": resource.kind},
        })
    };
    paths.insert(all, json!({"get": operation("list")}));
    // A client that may validate by the server's word sends its write, and gets the refusal.
    let refused = |action: &str| {
        let mut refused = operation(action);
        refused["parameters"] = json!([
            {"name": "dryRun", "in": "query", "schema": {"type": "string"}},
            {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]);
        refused["responses"] = json!({"405": {"description": "this server is read-only"}});
        refused
    };
    paths.insert(list.clone(), json!({"get": operation("list"), "post": refused("post")}));
    paths.insert(
        format!("{list}/{{name}}"),
        json!({"get": operation("get"), "patch": refused("patch"), "put": refused("put")}),
    );
}
