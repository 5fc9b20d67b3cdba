//! From objects as one cluster stores them to what an empty one accepts: versions that it serves,
//! nothing that it makes by itself or that would be refused or do harm, in an order in which
//! nothing comes before what it needs.
//!
//! The room is pure: it is shown objects and says what becomes of each. `jobs::restore` reads and
//! writes. `docs/restore.md` is its field guide.

pub mod convert;
mod edit;
mod facts;
mod leave;
mod order;
mod reason;
mod rewrite;
mod script;
mod served;

pub use facts::{Facts, wanted};
pub use order::Step;
pub use reason::{REASONS, Reason};
pub use rewrite::OWNERS_ANNOTATION;
pub use script::apply_script;
pub use served::{Minor, is_built_in};

use serde_json::Value;

use crate::resource::{Location, group_of};
use convert::CannotConvert;

/// What the user decides.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The release that the new cluster runs.
    pub target: Minor,
    /// Keep what `ownerReferences` said in an annotation.
    pub keep_owners: bool,
    /// Keep the cluster IPs and node ports of Services.
    pub keep_ips: bool,
}

const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// What becomes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is written as it now is.
    Write(Written),
    /// It is not.
    LeaveOut(Reason),
    /// It should be, but the target serves it at no version that it can be converted to.
    Cannot(String),
}

/// How an object is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// In which step.
    pub step: Step,
    /// `apiVersion` as stored, where another one is written.
    pub converted_from: Option<String>,
    /// Parts that have no place at the new version; normally none.
    pub lost: Vec<String>,
    /// What was changed beyond that.
    pub changes: Vec<Reason>,
    /// The target serves this version only where its operator turned it on.
    pub needs_enabling: bool,
}

/// Whether nothing of a resource is written, so that its objects need not be read.
#[must_use]
pub fn leaves_out_resource(resource: &str) -> Option<Reason> {
    leave::whole_resource(resource)
}

/// Decides about one object and changes it into what is written. It is given as stored, with
/// `metadata.managedFields`.
pub fn judge(
    object: &mut Value,
    location: &Location<'_>,
    facts: &Facts,
    options: Options,
) -> Verdict {
    let resource = location.resource.as_ref();
    if let Some(reason) =
        leave::whole_resource(resource).or_else(|| leave::object(object, location, facts))
    {
        return Verdict::LeaveOut(reason);
    }
    let stored = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    let at = if is_built_in(resource) {
        built_in(object, resource, options.target)
    } else {
        custom(object, resource, facts)
    };
    let At { lost, needs_enabling, keep_status } = match at {
        Ok(at) => at,
        Err(CannotConvert(why)) => return Verdict::Cannot(why),
    };
    let status = object.as_object_mut().filter(|_| keep_status).and_then(|o| o.remove("status"));
    let changes = rewrite::object(object, location, facts, options);
    crate::export::clean(object);
    // In a schema, and in fields that only a definition knows, null may mean something.
    if is_built_in(resource) && resource != DEFINITIONS {
        edit::drop_nulls(object);
    }
    if let (Some(status), Some(object)) = (status, object.as_object_mut()) {
        object.insert("status".into(), status);
    }
    let converted = object["apiVersion"] != stored.as_str();
    Verdict::Write(Written {
        step: Step::of(resource, !is_built_in(resource)),
        converted_from: converted.then_some(stored),
        lost,
        changes,
        needs_enabling,
    })
}

/// What finding the version of an object brought.
struct At {
    lost: Vec<String>,
    needs_enabling: bool,
    /// Its `status` is a field like any other.
    keep_status: bool,
}

fn built_in(object: &mut Value, resource: &str, target: Minor) -> Result<At, CannotConvert> {
    let stored = object["apiVersion"].as_str().unwrap_or_default();
    let group = group_of(resource);
    let (stored_group, version) = stored.split_once('/').unwrap_or(("", stored));
    let same_group = if stored_group == group { version.to_owned() } else { String::new() };
    let Some((chosen, on)) = served::choose(resource, &same_group, target) else {
        return Err(CannotConvert(format!("Kubernetes {target} serves {resource} at no version")));
    };
    let chosen = if group.is_empty() { chosen.to_owned() } else { format!("{group}/{chosen}") };
    let mut lost = convert::convert(resource, object, &chosen)?;
    match resource {
        DEFINITIONS if same_group == "v1" => {
            lost = convert::normalize_definition(object);
        }
        "mutatingwebhookconfigurations.admissionregistration.k8s.io"
        | "validatingwebhookconfigurations.admissionregistration.k8s.io" => {
            side_effects(object)?;
        }
        _ => {}
    }
    Ok(At { lost, needs_enabling: !on, keep_status: false })
}

/// `v1` refuses to create webhooks with side effects that they do not promise to leave out in a
/// dry run, though it serves old ones (kubernetes/kubernetes
/// `pkg/apis/admissionregistration/validation/validation.go`). What a webhook does is its owner's
/// to say.
fn side_effects(object: &mut Value) -> Result<(), CannotConvert> {
    if object["apiVersion"] != "admissionregistration.k8s.io/v1" {
        return Ok(());
    }
    for webhook in edit::each(object, &["webhooks"]) {
        let effects = edit::text(webhook, &["sideEffects"]);
        if !matches!(effects, "None" | "NoneOnDryRun") {
            return Err(CannotConvert(format!(
                "its webhook {} has sideEffects {effects:?}, and admissionregistration.k8s.io/v1 \
                 accepts only None and NoneOnDryRun; whoever runs it must say which",
                edit::text(webhook, &["name"])
            )));
        }
    }
    Ok(())
}

/// A custom resource: at a version that its definition serves. Definitions that no webhook
/// converts have the same fields at every version.
fn custom(object: &mut Value, resource: &str, facts: &Facts) -> Result<At, CannotConvert> {
    let none = At { lost: Vec::new(), needs_enabling: false, keep_status: false };
    // Of an API server of its own, or defined elsewhere: nothing is known of its versions.
    let Some(definition) = facts.definitions.get(resource) else { return Ok(none) };
    let stored = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = stored.rsplit_once('/').unwrap_or(("", stored));
    let served = |v: &&facts::ServedVersion| v.served;
    let at = match definition.versions.iter().filter(served).find(|v| v.name == version) {
        Some(at) => at,
        None if definition.webhook => {
            return Err(CannotConvert(format!(
                "its definition no longer serves {version}, and only its webhook can convert it"
            )));
        }
        None => {
            let storage = definition.versions.iter().filter(served).find(|v| v.storage);
            let Some(at) = storage.or_else(|| definition.versions.iter().find(served)) else {
                return Err(CannotConvert("its definition serves no version".to_owned()));
            };
            object["apiVersion"] = format!("{group}/{}", at.name).into();
            at
        }
    };
    Ok(At { keep_status: !at.status, ..none })
}
