//! How workloads get their secrets: from Kubernetes, or from somewhere else on the way.

use std::collections::BTreeMap;

use serde_json::Value;

/// Workloads and stores by the way that secrets take.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// Way → objects that use it.
    pub ways: BTreeMap<&'static str, u64>,
    /// Paths that Vault's agent is asked for → objects.
    pub vault_paths: BTreeMap<String, u64>,
}

impl Delivery {
    fn count(&mut self, way: &'static str) {
        *self.ways.entry(way).or_default() += 1;
    }

    /// Learns from one object; `found` is told what is wrong with it.
    pub(super) fn see(
        &mut self,
        resource: &str,
        object: &Value,
        found: &mut dyn FnMut(&'static str, String),
    ) {
        let annotations = match resource {
            "pods" => &object["metadata"]["annotations"],
            "cronjobs.batch" => {
                &object["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["annotations"]
            }
            _ => &object["spec"]["template"]["metadata"]["annotations"],
        };
        if annotations["vault.hashicorp.com/agent-inject"] == "true" {
            let only = annotations["vault.hashicorp.com/agent-pre-populate-only"] == "true";
            self.count(if only { "vault-agent-init" } else { "vault-agent-sidecar" });
            for (name, path) in annotations.as_object().into_iter().flatten() {
                if name.starts_with("vault.hashicorp.com/agent-inject-secret-")
                    && let Some(path) = path.as_str()
                {
                    *self.vault_paths.entry(path.to_owned()).or_default() += 1;
                }
            }
            if annotations["vault.hashicorp.com/tls-skip-verify"] == "true" {
                found("vault-skip-tls", "the agent does not verify Vault's certificate".to_owned());
            }
        }
        let spec = &object["spec"];
        match resource {
            "secretproviderclasses.secrets-store.csi.x-k8s.io" => {
                self.count("csi");
                let parameters = &spec["parameters"];
                let text = |field: &str| parameters[field].as_str().unwrap_or_default();
                if text("vaultAddress").starts_with("http://") {
                    found("vault-plain-http", "vaultAddress is plain HTTP".to_owned());
                }
                if text("vaultSkipTLSVerify").eq_ignore_ascii_case("true") {
                    found("vault-skip-tls", "vaultSkipTLSVerify is true".to_owned());
                }
            }
            "externalsecrets.external-secrets.io" => self.count("external-secret"),
            "secretstores.external-secrets.io" | "clustersecretstores.external-secrets.io" => {
                self.count("secret-store");
                let server = spec["provider"]["vault"]["server"].as_str().unwrap_or_default();
                if server.starts_with("http://") {
                    found("vault-plain-http", "the store's Vault server is plain HTTP".to_owned());
                }
            }
            "sealedsecrets.bitnami.com" => self.count("sealed-secret"),
            "mutatingwebhookconfigurations.admissionregistration.k8s.io" => {
                for webhook in object["webhooks"].as_array().into_iter().flatten() {
                    let name = webhook["name"].as_str().unwrap_or_default();
                    let injects = ["vault", "agent-inject", "secrets-injector", "bank-vaults"]
                        .iter()
                        .any(|word| name.contains(word));
                    if injects && webhook["failurePolicy"] == "Ignore" {
                        found(
                            "injector-fail-open",
                            format!("the webhook {name} has failurePolicy Ignore"),
                        );
                    }
                }
            }
            _ => {}
        }
    }
}
