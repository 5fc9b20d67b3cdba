//! What the data say about the secrets of a cluster: where each came from, who uses it, who may
//! read it, how workloads get theirs, and what is wrong with that.
//!
//! Pure: it is shown one object after another and keeps names, never values; the one exception
//! are the private keys of Sealed Secrets, which are wiped.

pub mod deleters;
mod delivery;
mod origin;
mod patterns;
pub mod rbac;
pub mod sealed;
mod uses;

pub use crate::certificate::Certificate;
pub use delivery::Delivery;
pub use origin::origin;
pub use rbac::Access;
pub use uses::Use;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use zeroize::Zeroizing;

/// Namespace and name.
pub type Name = (String, String);

/// Something that deserves a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A word for programs, which `--fail-on` takes.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Which object.
    pub place: String,
    /// In a sentence, without values.
    pub what: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Low,
    /// To be mended.
    Medium,
    /// Somebody can read what they should not, or soon nobody can.
    High,
}

impl Severity {
    /// The word in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// Every finding that there can be: its word, how bad it is, and what it means.
pub const FINDINGS: [(&str, Severity, &str); 17] = [
    ("stored-plaintext", Severity::High, "a Secret is stored unencrypted"),
    (
        "last-applied-copy",
        Severity::Medium,
        "kubectl left a copy of a Secret's data in its annotation",
    ),
    (
        "legacy-service-account-token",
        Severity::Medium,
        "a service account token that never expires",
    ),
    ("unused", Severity::Low, "nothing that is stored names the Secret"),
    ("certificate-expired", Severity::Medium, "a certificate in a Secret has ended"),
    ("certificate-expiring", Severity::Low, "a certificate in a Secret ends within 30 days"),
    ("credential-in-config-map", Severity::High, "a ConfigMap holds what looks like a credential"),
    (
        "credential-in-env",
        Severity::High,
        "a container's environment holds what looks like a credential",
    ),
    (
        "pods-reach-secrets",
        Severity::Low,
        "whoever creates workloads in a namespace can mount its Secrets",
    ),
    ("escalation", Severity::High, "a subject can give itself the right to read Secrets"),
    (
        "wildcard-reader",
        Severity::Medium,
        "a subject that is no default reads all Secrets of the cluster",
    ),
    ("vault-plain-http", Severity::High, "Vault is asked without TLS"),
    ("vault-skip-tls", Severity::High, "Vault's certificate is not verified"),
    (
        "injector-fail-open",
        Severity::Medium,
        "pods start without their secrets when the injector is away",
    ),
    (
        "sealing-key-old",
        Severity::Low,
        "the newest sealing key is older than its renewal of 30 days",
    ),
    ("sealed-scope-wide", Severity::Low, "a SealedSecret can be renamed or moved"),
    ("unsealable", Severity::High, "no sealing key that is stored opens a SealedSecret"),
];

/// How bad a finding is, by its word.
fn severity(id: &str) -> Severity {
    FINDINGS.iter().find(|(i, ..)| *i == id).map_or(Severity::Low, |(_, s, _)| *s)
}

/// One Secret, without its values.
#[derive(Clone, Debug, Default)]
pub struct Secret {
    /// `type`.
    pub kind: String,
    /// Where it came from.
    pub origin: &'static str,
    /// How it is stored.
    pub provider: String,
    /// With which key.
    pub key: Option<String>,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Stored bytes.
    pub size: u64,
    /// Words of findings.
    pub findings: BTreeSet<&'static str>,
    /// Certificates in it.
    pub certificates: Vec<Certificate>,
}

/// How an entry is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The provider's word.
    pub provider: String,
    /// The key's name.
    pub key: Option<String>,
    /// Stored bytes.
    pub size: u64,
}

/// Everything that was learnt.
pub struct Posture {
    now: Timestamp,
    /// Every Secret.
    pub secrets: BTreeMap<Name, Secret>,
    /// Who names which Secret, and how.
    pub uses: HashMap<Name, Vec<Use>>,
    /// Who may do what.
    pub access: Access,
    /// How workloads get their secrets.
    pub delivery: Delivery,
    /// Sealing keys and what they open.
    pub sealed: sealed::Sealed,
    /// What deserves a look.
    pub findings: Vec<Finding>,
}

impl Posture {
    /// Nothing is known yet; `now` decides what has ended.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            now,
            secrets: BTreeMap::new(),
            uses: HashMap::new(),
            access: Access::default(),
            delivery: Delivery::default(),
            sealed: sealed::Sealed::default(),
            findings: Vec::new(),
        }
    }

    /// Learns from one object of `resource`.
    pub fn see(&mut self, resource: &str, object: &Value, stored: &Stored) {
        let name = name_of(object);
        match resource {
            "secrets" => self.secret(name.clone(), object, stored),
            "configmaps" => self.config_map(&name, object),
            "roles.rbac.authorization.k8s.io"
            | "clusterroles.rbac.authorization.k8s.io"
            | "rolebindings.rbac.authorization.k8s.io"
            | "clusterrolebindings.rbac.authorization.k8s.io" => self.access.see(resource, object),
            "sealedsecrets.bitnami.com" => self.sealed.see(&name, object),
            _ => {}
        }
        for (secret, used) in uses::of(resource, object) {
            self.uses.entry(secret).or_default().push(used);
        }
        let place = place(object, &name);
        let mut found = Vec::new();
        self.delivery.see(resource, object, &mut |id, what| found.push((id, what)));
        for (container, variable, why) in patterns::environment(resource, object) {
            found.push((
                "credential-in-env",
                format!("container {container} has {why} in the variable {variable}"),
            ));
        }
        for (id, what) in found {
            self.found(id, place.clone(), what);
        }
    }

    fn found(&mut self, id: &'static str, place: String, what: String) {
        self.findings.push(Finding { id, severity: severity(id), place, what });
    }

    fn secret(&mut self, name: Name, object: &Value, stored: &Stored) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut secret = Secret {
            kind: text(&object["type"]),
            origin: origin(object),
            provider: stored.provider.clone(),
            key: stored.key.clone(),
            created: text(&object["metadata"]["creationTimestamp"]),
            size: stored.size,
            ..Secret::default()
        };
        let place = format!("Secret {}/{}", name.0, name.1);
        let mut found = Vec::new();
        if stored.provider == "identity" {
            found.push(("stored-plaintext", "stored unencrypted".to_owned()));
        }
        let annotations = &object["metadata"]["annotations"];
        let copy = annotations["kubectl.kubernetes.io/last-applied-configuration"].as_str();
        if copy.is_some_and(|c| c.contains("\"data\":{\"") || c.contains("\"stringData\":{\"")) {
            found.push((
                "last-applied-copy",
                "an annotation holds a copy of the data as they were applied".to_owned(),
            ));
        }
        if secret.kind == "kubernetes.io/service-account-token" {
            let account = text(&annotations["kubernetes.io/service-account.name"]);
            found.push((
                "legacy-service-account-token",
                format!("a token of service account {account} that never expires"),
            ));
        }
        self.sealed.key(&name, object);
        for (_, value) in object["data"].as_object().into_iter().flatten() {
            let Some(Ok(bytes)) = value.as_str().map(|v| STANDARD.decode(v).map(Zeroizing::new))
            else {
                continue;
            };
            secret.certificates.extend(crate::certificate::in_pem(&bytes));
        }
        for certificate in &secret.certificates {
            let left = certificate.ends.as_second() - self.now.as_second();
            let ends = certificate.ends.to_string();
            let subject = &certificate.subject;
            if left < 0 {
                found.push((
                    "certificate-expired",
                    format!("the certificate of {subject} ended {ends}"),
                ));
            } else if left < crate::certificate::SOON {
                found.push((
                    "certificate-expiring",
                    format!("the certificate of {subject} ends {ends}"),
                ));
            }
        }
        for (id, what) in found {
            secret.findings.insert(id);
            self.found(id, place.clone(), what);
        }
        self.secrets.insert(name, secret);
    }

    fn config_map(&mut self, name: &Name, object: &Value) {
        for (key, why) in patterns::config_map(object) {
            let place = format!("ConfigMap {}/{}", name.0, name.1);
            self.found("credential-in-config-map", place, format!("the key {key} holds {why}"));
        }
    }

    /// Draws the conclusions that need everything to have been seen.
    pub fn conclude(&mut self) {
        let unused: Vec<Name> = self
            .secrets
            .iter()
            .filter(|(name, secret)| is_for_others(secret) && !self.uses.contains_key(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in unused {
            if let Some(secret) = self.secrets.get_mut(&name) {
                secret.findings.insert("unused");
            }
            let place = format!("Secret {}/{}", name.0, name.1);
            self.found("unused", place, "nothing that is stored names it".to_owned());
        }
        for grant in self.access.grants() {
            if grant.is_default {
                continue;
            }
            let place = format!("{} {}", grant.binding_kind, grant.binding);
            let whole = grant.namespace.is_none();
            match grant.by {
                rbac::By::Read if whole && grant.names.is_empty() => self.found(
                    "wildcard-reader",
                    place,
                    format!("{} reads every Secret of the cluster ({})", grant.subject, grant.role),
                ),
                rbac::By::Read => {}
                rbac::By::Workload => self.found(
                    "pods-reach-secrets",
                    place,
                    format!("{} can create workloads in {}", grant.subject, grant.reach()),
                ),
                rbac::By::Escalate | rbac::By::Bind | rbac::By::Impersonate => self.found(
                    "escalation",
                    place,
                    format!(
                        "{} has the verb {} ({})",
                        grant.subject,
                        grant.by.as_str(),
                        grant.role
                    ),
                ),
            }
        }
        let found = self.sealed.findings(self.now);
        for (id, place, what) in found {
            self.found(id, place, what);
        }
        self.findings.sort_by(|a, b| {
            b.severity.cmp(&a.severity).then_with(|| (a.id, &a.place).cmp(&(b.id, &b.place)))
        });
    }

    /// Who uses a Secret.
    #[must_use]
    pub fn used(&self, name: &Name) -> &[Use] {
        self.uses.get(name).map_or(&[], Vec::as_slice)
    }
}

/// Whether a Secret is there to be named by something else.
fn is_for_others(secret: &Secret) -> bool {
    !matches!(
        secret.kind.as_str(),
        "helm.sh/release.v1"
            | "kubernetes.io/service-account-token"
            | "bootstrap.kubernetes.io/token"
    ) && secret.origin != "sealing-key"
}

/// Namespace and name of an object.
fn name_of(object: &Value) -> Name {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// An object for people: `Pod ns/name`, `ClusterRole name`.
fn place(object: &Value, name: &Name) -> String {
    let kind = object["kind"].as_str().unwrap_or("object");
    match name.0.as_str() {
        "" => format!("{kind} {}", name.1),
        namespace => format!("{kind} {namespace}/{}", name.1),
    }
}
