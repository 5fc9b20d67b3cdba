//! What an API server answers when it does not do what was asked (apimachinery
//! `pkg/apis/meta/v1` `Status`, `pkg/api/errors`).

use serde_json::{Value, json};

/// A refusal or a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The HTTP status.
    pub code: u16,
    /// A word for programs: `NotFound`, `Forbidden`, …
    pub reason: &'static str,
    /// For people; never stored bytes.
    pub message: String,
    /// Group, resource (or kind) and name that it is about.
    pub about: Option<(String, String, String)>,
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), about: None }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: no token, or another one.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: something that would need to write or to run.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    /// 404 for a path that nothing is at.
    pub fn no_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 404 for an object.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let qualified =
            if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        Self {
            about: Some((group.to_owned(), resource.to_owned(), name.to_owned())),
            ..Self::new(404, "NotFound", format!("{qualified} \"{name}\" not found"))
        }
    }

    /// 405: every write.
    pub fn read_only(method: &str) -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            format!(
                "{method} is not allowed: this server shows what etcd or a backup holds, and is read-only"
            ),
        )
    }

    /// 406: a form that is not served.
    pub fn not_acceptable() -> Self {
        Self::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json",
        )
    }

    /// 410: a list that was begun at a revision that is gone.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {}", message.into()))
    }

    /// The object that is sent.
    pub fn json(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some((group, kind, name)) = &self.about {
            let mut details = json!({"name": name, "kind": kind});
            if !group.is_empty() {
                details["group"] = group.as_str().into();
            }
            status["details"] = details;
        }
        status
    }
}
