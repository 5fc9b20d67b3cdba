//! Objects against the `OpenAPI` definitions of a real API server.

use serde_json::Value;

use super::corpus;

/// The definitions of a server.
pub struct OpenApi(Value);

/// Those of Kubernetes 1.36.
pub fn v1_36() -> OpenApi {
    let packed = std::fs::read(corpus::fixtures("openapi/kubernetes-1.36.json.zst")).unwrap();
    OpenApi(serde_json::from_slice(&zstd::decode_all(&packed[..]).unwrap()).unwrap())
}

impl OpenApi {
    fn of(&self, object: &Value) -> Option<&Value> {
        let api_version = object["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.0.as_object().unwrap().values().find(|definition| {
            definition["x-kubernetes-group-version-kind"].as_array().is_some_and(|kinds| {
                kinds.iter().any(|k| {
                    k["group"] == group && k["version"] == version && k["kind"] == object["kind"]
                })
            })
        })
    }

    /// Whether the server knows the object's kind at its version.
    pub fn knows(&self, object: &Value) -> bool {
        self.of(object).is_some()
    }

    /// What is wrong with an object, by path, without its values.
    pub fn faults(&self, object: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        match self.of(object) {
            None => {
                faults.push(format!("{} {} is not served", object["apiVersion"], object["kind"]));
            }
            Some(definition) => self.check(object, definition, "", &mut faults),
        }
        faults
    }

    fn check(&self, value: &Value, schema: &Value, path: &str, faults: &mut Vec<String>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap();
            return self.check(value, &self.0[name], path, faults);
        }
        if value.is_null() && !schema["type"].is_null() {
            faults.push(format!("{path}: is null"));
            return;
        }
        let format = schema["format"].as_str().unwrap_or_default();
        let fits = match (schema["type"].as_str(), value) {
            (Some("object"), Value::Object(map)) => {
                self.check_object(map, schema, path, faults);
                true
            }
            (Some("array"), Value::Array(items)) => {
                for (i, item) in items.iter().enumerate() {
                    self.check(item, &schema["items"], &format!("{path}[{i}]"), faults);
                }
                true
            }
            (Some("string"), Value::String(text)) => match format {
                "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
                "byte" => {
                    use base64::Engine as _;
                    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
                }
                _ => true,
            },
            (Some("string"), Value::Number(n)) => format == "int-or-string" && n.is_i64(),
            (Some("integer"), Value::Number(n)) => n.is_i64(),
            (Some("number"), Value::Number(_)) | (Some("boolean"), Value::Bool(_)) | (None, _) => {
                true
            }
            _ => false,
        };
        if !fits {
            faults.push(format!("{path}: no {} {format}", schema["type"]));
        }
    }

    fn check_object(
        &self,
        map: &serde_json::Map<String, Value>,
        schema: &Value,
        path: &str,
        faults: &mut Vec<String>,
    ) {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(name) {
                faults.push(format!("{path}: {name} is missing"));
            }
        }
        let properties = schema["properties"].as_object();
        for (name, value) in map {
            let path = format!("{path}.{name}");
            if let Some(schema) = properties.and_then(|p| p.get(name)) {
                self.check(value, schema, &path, faults);
            } else if schema["additionalProperties"].is_object() {
                self.check(value, &schema["additionalProperties"], &path, faults);
            } else if properties.is_some() {
                faults.push(format!("{path}: unknown"));
            }
        }
    }
}

#[test]
fn faults_are_found() {
    let api = v1_36();
    let of = |object: Value| api.faults(&object).join("; ");
    let secret = serde_json::json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "a"}, "data": {"a": "eA=="}});
    assert_eq!(of(secret.clone()), "");
    let with = |pointer: &str, value: Value| {
        let mut object = secret.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[name] = value;
        of(object)
    };
    assert_eq!(with("/apiVersion", "v2".into()), "\"v2\" \"Secret\" is not served");
    assert_eq!(with("/data/a", "x".into()), ".data.a: no \"string\" byte");
    assert_eq!(with("/metadata/nmae", "x".into()), ".metadata.nmae: unknown");
    assert_eq!(with("/immutable", "x".into()), ".immutable: no \"boolean\" ");
    assert_eq!(
        with("/metadata/creationTimestamp", "x".into()),
        ".metadata.creationTimestamp: no \"string\" date-time"
    );
    assert_eq!(
        with(
            "/metadata/ownerReferences",
            serde_json::json!([{"kind": "x", "name": "x", "uid": "x"}])
        ),
        ".metadata.ownerReferences[0]: apiVersion is missing"
    );
}
