//! Who may have the API server delete what it cannot read: the verbs `delete` and
//! `unsafe-delete-ignore-read-errors` on the resource (kubernetes/enhancements KEP-3926).

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::rbac::{Binding, RoleId, role_id};

/// What the API server asks its authorizer for, beside `delete`.
pub const VERB: &str = "unsafe-delete-ignore-read-errors";

#[derive(Clone, Debug)]
struct Rule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
}

/// Roles and bindings, as far as they allow one of the verbs.
#[derive(Clone, Debug, Default)]
pub struct Deleters {
    roles: HashMap<RoleId, Vec<Rule>>,
    bindings: Vec<Binding>,
}

fn words(rule: &Value, field: &str) -> Vec<String> {
    let all = rule[field].as_array().into_iter().flatten();
    all.filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

fn has(words: &[String], wanted: &str) -> bool {
    words.iter().any(|word| word == "*" || word == wanted)
}

impl Deleters {
    /// Learns from a role or a binding.
    pub fn see(&mut self, resource: &str, object: &Value) {
        if !resource.starts_with("roles") && !resource.starts_with("clusterroles") {
            self.bindings.push(Binding::of(resource, object));
            return;
        }
        let rules = object["rules"].as_array().map_or(&[][..], Vec::as_slice);
        let rule = |rule: &Value| Rule {
            verbs: words(rule, "verbs"),
            groups: words(rule, "apiGroups"),
            resources: words(rule, "resources"),
            names: words(rule, "resourceNames"),
        };
        let matter = |rule: &Rule| has(&rule.verbs, VERB) || has(&rule.verbs, "delete");
        let rules: Vec<Rule> = rules.iter().map(rule).filter(matter).collect();
        if !rules.is_empty() {
            self.roles.insert(role_id(resource, object), rules);
        }
    }

    /// The subjects that have both verbs on an object of a group-qualified resource, sorted.
    /// Members of `system:masters` need no rule.
    #[must_use]
    pub fn of(&self, resource: &str, namespace: Option<&str>, name: &str) -> Vec<&str> {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        let with = |verb: &str| -> BTreeSet<&str> {
            let allows = |rule: &Rule| {
                has(&rule.verbs, verb)
                    && has(&rule.groups, group)
                    && has(&rule.resources, plural)
                    && (rule.names.is_empty() || rule.names.iter().any(|n| n == name))
            };
            let binds = |binding: &&Binding| {
                (binding.namespace.is_none() || binding.namespace.as_deref() == namespace)
                    && self.roles.get(&binding.role).is_some_and(|rules| rules.iter().any(allows))
            };
            let subjects = self.bindings.iter().filter(binds).flat_map(|b| &b.subjects);
            subjects.map(String::as_str).collect()
        };
        with(VERB).intersection(&with("delete")).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_verbs_are_needed() {
        let mut all = Deleters::default();
        let allowing = |verbs: &[&str], resources: &[&str], names: &[&str]| json!({"verbs": verbs, "apiGroups": [""], "resources": resources, "resourceNames": names});
        let role =
            |name: &str, rules: Vec<Value>| json!({"metadata": {"name": name}, "rules": rules});
        let to = |role: &str, subject: &str| json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": [{"kind": "User", "name": subject}]});
        let (roles, bindings) = (
            "clusterroles.rbac.authorization.k8s.io",
            "clusterrolebindings.rbac.authorization.k8s.io",
        );
        all.see(roles, &json!({"metadata": {"name": "admin"}, "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]}));
        all.see(roles, &role("half", vec![allowing(&["delete"], &["secrets"], &[])]));
        all.see(roles, &role("rest", vec![allowing(&[VERB], &["secrets"], &["one"])]));
        all.see(roles, &role("reader", vec![allowing(&["get"], &["*"], &[])]));
        for (role, subject) in [
            ("admin", "root"),
            ("half", "ann"),
            ("rest", "ann"),
            ("half", "bob"),
            ("reader", "eve"),
        ] {
            all.see(bindings, &to(role, subject));
        }
        assert_eq!(all.of("secrets", Some("n"), "one"), ["User ann", "User root"]);
        assert_eq!(all.of("secrets", Some("n"), "two"), ["User root"]);
        assert_eq!(all.of("deployments.apps", Some("n"), "one"), ["User root"]);
        // In one namespace.
        let mut in_one = to("admin", "carl");
        in_one["metadata"]["namespace"] = "n".into();
        all.see("rolebindings.rbac.authorization.k8s.io", &in_one);
        assert_eq!(all.of("secrets", Some("n"), "two"), ["User carl", "User root"]);
        assert_eq!(all.of("secrets", Some("m"), "two"), ["User root"]);
        assert_eq!(all.of("nodes", None, "two"), ["User root"]);
    }
}
