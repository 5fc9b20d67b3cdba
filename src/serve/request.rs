//! What a client asks for: method, path, parameters and the form of the answer.

/// The form in which a client wants objects (apimachinery `pkg/apis/meta/v1`: `Table`,
/// `PartialObjectMetadata`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The objects themselves.
    Object,
    /// Rows for people.
    Table,
    /// Metadata alone.
    Metadata,
}

/// One request, as far as answers depend on it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path segments, percent-decoded, empty ones left out.
    pub path: Vec<String>,
    /// Parameters in order, decoded.
    pub query: Vec<(String, String)>,
    /// The media types of `Accept`, in order.
    pub accept: Vec<String>,
    /// What was sent along.
    pub body: Vec<u8>,
}

impl Request {
    /// Reads a request line and its `Accept` header.
    #[must_use]
    pub fn new(method: &str, path: &str, query: &str, accept: &str) -> Self {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decoded(name, true), decoded(value, true))
        };
        Self {
            method: method.to_owned(),
            path: path.split('/').filter(|s| !s.is_empty()).map(|s| decoded(s, false)).collect(),
            query: query.split('&').filter(|p| !p.is_empty()).map(pair).collect(),
            accept: accept.split(',').map(|t| t.trim().to_owned()).collect(),
            body: Vec::new(),
        }
    }

    /// A parameter; one that is empty is not there.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(n, _)| n == name)?;
        (!found.1.is_empty()).then_some(found.1.as_str())
    }

    /// A parameter that says yes.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.parameter(name).is_some_and(|v| matches!(v, "true" | "1" | "t" | "T" | "True"))
    }

    /// Whether a media type of `Accept` names all of `words` among its parameters.
    #[must_use]
    pub fn accepts(&self, words: &[&str]) -> bool {
        self.accept.iter().any(|media| {
            let parts: Vec<&str> = media.split(';').map(str::trim).collect();
            words.iter().all(|word| parts.contains(word))
        })
    }

    /// The form that is preferred: the first of `Accept` that is known.
    #[must_use]
    pub fn form(&self) -> Form {
        for media in &self.accept {
            let mut parts = media.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            if !matches!(kind, "application/json" | "*/*" | "application/*") {
                continue;
            }
            let (mut form, mut supported) = (Form::Object, true);
            for part in parts {
                match part {
                    "as=Table" => form = Form::Table,
                    "as=PartialObjectMetadata" | "as=PartialObjectMetadataList" => {
                        form = Form::Metadata;
                    }
                    // Discovery is answered elsewhere; v1beta1 of the tables differs in nothing.
                    "v=v1" | "v=v1beta1" | "g=meta.k8s.io" => {}
                    other if other.starts_with("as=") || other.starts_with("g=") => {
                        supported = false;
                    }
                    _ => {}
                }
            }
            if supported {
                return form;
            }
        }
        Form::Object
    }

    /// Whether JSON is an answer that the client can read.
    #[must_use]
    pub fn takes_json(&self) -> bool {
        self.accept.iter().any(|media| {
            let kind = media.split(';').next().unwrap_or_default().trim();
            matches!(kind, "" | "*/*" | "application/*" | "application/json")
        })
    }
}

/// Percent-decoding; `plus` is a space in parameters.
fn decoded(text: &str, plus: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = || {
            let digits = std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?;
            u8::from_str_radix(digits, 16).ok()
        };
        match (byte, hex()) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 3;
                continue;
            }
            (b'+', _) if plus => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send() {
        let request = Request::new(
            "GET",
            "/api/v1/namespaces/a%2Fb/secrets",
            "labelSelector=a%3Db%2Cc+in+%28d%29&limit=500&watch=true&continue=",
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        );
        assert_eq!(request.path, ["api", "v1", "namespaces", "a/b", "secrets"]);
        assert_eq!(request.parameter("labelSelector"), Some("a=b,c in (d)"));
        assert_eq!(request.parameter("continue"), None);
        assert!(request.is_set("watch") && !request.is_set("limit"));
        assert_eq!(request.form(), Form::Table);
        assert!(request.accepts(&["as=Table", "v=v1"]));
    }

    #[test]
    fn the_first_known_form_is_preferred() {
        let form = |accept: &str| Request::new("GET", "/", "", accept).form();
        assert_eq!(
            form("application/vnd.kubernetes.protobuf;as=Table,application/json"),
            Form::Object
        );
        assert_eq!(
            form(
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
            ),
            Form::Object
        );
        assert_eq!(
            form("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Form::Metadata
        );
        assert_eq!(form("*/*"), Form::Object);
        let protobuf = Request::new("GET", "/", "", "application/vnd.kubernetes.protobuf");
        assert!(!protobuf.takes_json());
    }
}
