//! The built-in kinds as `OpenAPI` schemas: names and types of their fields, as far as storage
//! knows them. It knows no descriptions.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::schema::{Kind, Message, Schema, Shape};

/// Schemas by their names, with everything that they refer to.
pub type Schemas = BTreeMap<String, Value>;

/// Adds the schema of a built-in kind and returns its name; `None` for one that is not known.
pub fn add(schemas: &mut Schemas, api_version: &str, kind: &str) -> Option<String> {
    let schema = Schema::get();
    let message = schema.kind(api_version, kind)?;
    let name = full_name(message.name);
    add_message(schemas, schema, message);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if let Some(Value::Object(object)) = schemas.get_mut(&name) {
        if let Some(Value::Object(properties)) = object.get_mut("properties") {
            for field in ["apiVersion", "kind"] {
                properties.insert(field.into(), json!({"type": "string"}));
            }
        }
        let kinds = json!([{"group": group, "version": version, "kind": kind}]);
        object.insert("x-kubernetes-group-version-kind".into(), kinds);
    }
    Some(name)
}

/// `core/v1.Pod` → `io.k8s.api.core.v1.Pod`, the name that API servers publish.
fn full_name(name: &str) -> String {
    let dotted = name.replace('/', ".");
    match name.split_once('/') {
        Some(("meta", _)) => format!("io.k8s.apimachinery.pkg.apis.{dotted}"),
        _ => format!("io.k8s.api.{dotted}"),
    }
}

fn add_message(schemas: &mut Schemas, schema: &Schema, message: &Message) {
    let name = full_name(message.name);
    if schemas.contains_key(&name) {
        return;
    }
    // Messages contain themselves: it is there before its fields are.
    schemas.insert(name.clone(), Value::Null);
    let mut properties = Map::new();
    fill(schemas, schema, message, &mut properties);
    schemas.insert(name, json!({"type": "object", "properties": properties}));
}

fn fill(
    schemas: &mut Schemas,
    schema: &Schema,
    message: &Message,
    properties: &mut Map<String, Value>,
) {
    for field in &message.fields {
        if let (true, Kind::Message(index)) = (field.name.is_empty(), field.kind) {
            // A struct whose fields stand among its parent's.
            fill(schemas, schema, schema.message(index), properties);
            continue;
        }
        let one = element(schemas, schema, field.kind);
        let value = match field.shape {
            Shape::Plain | Shape::Pointer => one,
            Shape::List => json!({"type": "array", "items": one}),
            Shape::Map => json!({"type": "object", "additionalProperties": one}),
        };
        properties.insert(field.name.into(), value);
    }
}

fn element(schemas: &mut Schemas, schema: &Schema, kind: Kind) -> Value {
    match kind {
        Kind::String | Kind::Quantity => json!({"type": "string"}),
        Kind::Int => json!({"type": "integer"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Bytes => json!({"type": "string", "format": "byte"}),
        Kind::Time | Kind::MicroTime => json!({"type": "string", "format": "date-time"}),
        Kind::IntOrString => json!({"type": "string", "format": "int-or-string"}),
        Kind::RawExtension | Kind::FieldsV1 => json!({"type": "object"}),
        Kind::Strings => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Message(index) => {
            let message = schema.message(index);
            add_message(schemas, schema, message);
            json!({"allOf": [{"$ref": format!("#/components/schemas/{}", full_name(message.name))}]})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_referred_to_is_there() {
        let mut schemas = Schemas::new();
        let pod = add(&mut schemas, "v1", "Pod").unwrap();
        assert_eq!(pod, "io.k8s.api.core.v1.Pod");
        assert_eq!(add(&mut schemas, "v1", "None"), None);
        let text = serde_json::to_string(&schemas).unwrap();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas[name].is_object(), "{name}");
        }
        let container = &schemas["io.k8s.api.core.v1.Container"]["properties"];
        assert_eq!(container["image"]["type"], "string");
        assert_eq!(container["ports"]["type"], "array");
        assert_eq!(schemas[&pod]["properties"]["kind"]["type"], "string");
    }
}
