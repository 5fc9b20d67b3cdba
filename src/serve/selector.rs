//! Label and field selectors (apimachinery `pkg/labels`, `pkg/fields`).

use serde_json::Value;

/// One condition on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    In(Vec<String>),
    /// True without the label, too.
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

/// Conditions on labels, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<(String, Condition)>);

impl Labels {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    ///
    /// # Errors
    /// When it is none, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut conditions = Vec::new();
        for part in split(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            conditions.push(requirement(part).ok_or_else(|| {
                format!("unable to parse requirement: found `{part}` in the label selector")
            })?);
        }
        Ok(Self(conditions))
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object is selected.
    #[must_use]
    pub fn match_object(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.0.iter().all(|(key, condition)| {
            let value = labels.get(key).and_then(Value::as_str);
            let number = || value.and_then(|v| v.parse::<i64>().ok());
            match condition {
                Condition::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
                Condition::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
                Condition::Exists => value.is_some(),
                Condition::Absent => value.is_none(),
                Condition::Greater(limit) => number().is_some_and(|n| n > *limit),
                Condition::Less(limit) => number().is_some_and(|n| n < *limit),
            }
        })
    }
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn requirement(part: &str) -> Option<(String, Condition)> {
    let is_key = |key: &str| !key.is_empty() && !key.contains([' ', '(', ')', '=', '!', '<', '>']);
    let named =
        |key: &str, condition| is_key(key.trim()).then(|| (key.trim().to_owned(), condition));
    if let Some(key) = part.strip_prefix('!') {
        return named(key, Condition::Absent);
    }
    if let Some((key, value)) = part.split_once("!=") {
        return named(key, Condition::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return named(key, Condition::In(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once('>') {
        return named(key, Condition::Greater(value.trim().parse().ok()?));
    }
    if let Some((key, value)) = part.split_once('<') {
        return named(key, Condition::Less(value.trim().parse().ok()?));
    }
    if let Some(list) = part.strip_suffix(')') {
        let (head, values) = list.split_once('(')?;
        let mut words = head.split_whitespace();
        let (key, operator) = (words.next()?, words.next()?);
        let values = values.split(',').map(|v| v.trim().to_owned()).collect();
        return match operator {
            "in" => named(key, Condition::In(values)),
            "notin" => named(key, Condition::NotIn(values)),
            _ => None,
        };
    }
    named(part, Condition::Exists)
}

/// Conditions on fields: path, value, and whether they must be equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String, bool)>);

impl Fields {
    /// Reads `metadata.name=a,status.phase!=Running`; `supported` are the paths that the resource
    /// has besides the name, and the namespace of a namespaced one.
    ///
    /// # Errors
    /// When it is none, or names another path, in words.
    pub fn parse(text: &str, namespaced: bool, supported: &[&str]) -> Result<Self, String> {
        let mut conditions = Vec::new();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) =
                part.split_once("==").or_else(|| part.split_once('='))
            {
                (path, value, true)
            } else {
                return Err(format!("invalid selector: `{text}`; can't understand `{part}`"));
            };
            let known = path == "metadata.name"
                || (namespaced && path == "metadata.namespace")
                || supported.contains(&path);
            if !known {
                return Err(format!("field label not supported: {path}"));
            }
            conditions.push((path.to_owned(), value.to_owned(), equal));
        }
        Ok(Self(conditions))
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one name that can be selected, if there is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let equal = self.0.iter().find(|(path, _, equal)| path == "metadata.name" && *equal);
        equal.map(|(_, value, _)| value.as_str())
    }

    /// The one namespace that can be selected, if there is one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        let equal = self.0.iter().find(|(path, _, equal)| path == "metadata.namespace" && *equal);
        equal.map(|(_, value, _)| value.as_str())
    }

    /// Whether an object is selected.
    #[must_use]
    pub fn match_object(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, value, equal)| (field(object, path) == *value) == *equal)
    }
}

/// A field as the API server compares it: what is absent is the type's zero.
fn field(object: &Value, path: &str) -> String {
    let steps = |path: &str| path.split('.').fold(object, |value, step| &value[step]);
    let value = match path {
        // Names that differ from the field's place (kubernetes `pkg/registry/core/event/strategy.go`,
        // `pkg/apis/core/v1/conversion.go`).
        "source" => {
            let component = &object["source"]["component"];
            if component.is_string() { component } else { &object["reportingComponent"] }
        }
        "status.successful" => &object["status"]["succeeded"],
        _ => steps(path),
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => match path {
            "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
            "status.replicas" | "status.successful" => "0".to_owned(),
            _ => String::new(),
        },
    }
}

/// The fields that can be selected by, beyond name and namespace (kubernetes
/// `pkg/apis/*/v1/conversion.go`).
#[must_use]
pub fn fields_of(group: &str, resource: &str) -> &'static [&'static str] {
    match (group, resource) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("" | "events.k8s.io", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("", "secrets") => &["type"],
        ("", "namespaces") => &["status.phase"],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "replicationcontrollers") | ("apps", "replicasets") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["spec.signerName"],
        ("resource.k8s.io", "resourceslices") => &["spec.nodeName", "spec.driver"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels() {
        let object = json!({"metadata": {"labels": {"a": "b", "n": "5", "x/y": ""}}});
        for (selector, selected) in [
            ("", true),
            ("a=b", true),
            ("a==b,n=5", true),
            ("a=c", false),
            ("a!=c,z!=c", true),
            ("a in (c, b)", true),
            ("a notin (b),n", false),
            ("z notin (b)", true),
            ("a", true),
            ("!a", false),
            ("!z,x/y", true),
            ("x/y=", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("a>1", false),
        ] {
            let labels = Labels::parse(selector).unwrap();
            assert_eq!(labels.match_object(&object), selected, "{selector}");
        }
        for wrong in ["a in b", "a maybe (b)", "=b", "a b", "n>x"] {
            assert!(Labels::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fields() {
        let pod =
            json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"phase": "Running"}});
        let known = fields_of("", "pods");
        for (selector, selected) in [
            ("status.phase=Running", true),
            ("status.phase!=Running", false),
            ("metadata.name=p,metadata.namespace==n", true),
            ("spec.nodeName=", true),
            ("spec.hostNetwork=false", true),
        ] {
            let fields = Fields::parse(selector, true, known).unwrap();
            assert_eq!(fields.match_object(&pod), selected, "{selector}");
        }
        assert!(Fields::parse("spec.image=a", true, known).is_err());
        assert!(Fields::parse("metadata.namespace=a", false, &[]).is_err());
        assert_eq!(Fields::parse("metadata.name=p", true, &[]).unwrap().name(), Some("p"));
    }
}
