//! What the data say about the secrets of a cluster. One pass over everything that is stored.

use std::ops::ControlFlow;

use jiff::Timestamp;

use super::Observer;
use crate::objects::Objects;
use crate::posture::{Posture, Stored};
use crate::resource::Scope;
use crate::scan::Causes;
use crate::source::{KeyRange, Query, Source, SourceError, Visit};
use crate::storage;

/// What to look at.
pub struct Options {
    /// Where keys begin.
    pub scope: Scope,
    /// Key ranges below it.
    pub ranges: Vec<KeyRange>,
    /// As of this revision; `None` is the newest.
    pub revision: Option<i64>,
    /// What is called ended.
    pub now: Timestamp,
}

/// What was found.
pub struct Outcome {
    /// Everything learnt.
    pub posture: Posture,
    /// What the source said.
    pub visit: Visit,
    /// Entries that were looked at.
    pub entries: u64,
    /// Entries that could not be read: key and reason. What they would have said is unknown.
    pub unread: Vec<(String, String)>,
    /// All of them by what is wrong with them.
    pub causes: Causes,
}

/// Entries that cannot be read and are named one by one.
const NAMED: usize = 1000;

/// Resources that say something; others are passed over without being decrypted.
fn matters(resource: &str) -> bool {
    const NAMES: [&str; 32] = [
        "secrets",
        "configmaps",
        "pods",
        "podtemplates",
        "serviceaccounts",
        "persistentvolumes",
        "replicationcontrollers",
        "deployments.apps",
        "replicasets.apps",
        "statefulsets.apps",
        "daemonsets.apps",
        "jobs.batch",
        "cronjobs.batch",
        "ingresses.networking.k8s.io",
        "ingresses.extensions",
        "roles.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "sealedsecrets.bitnami.com",
        "externalsecrets.external-secrets.io",
        "secretstores.external-secrets.io",
        "clustersecretstores.external-secrets.io",
        "secretproviderclasses.secrets-store.csi.x-k8s.io",
        "certificates.cert-manager.io",
        "issuers.cert-manager.io",
        "gateways.gateway.networking.k8s.io",
        "secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io",
        "vaultauths.secrets.hashicorp.com",
        "vaultstaticsecrets.secrets.hashicorp.com",
        "vaultdynamicsecrets.secrets.hashicorp.com",
    ];
    NAMES.contains(&resource)
}

/// Reads everything once.
///
/// # Errors
/// When the source cannot be read.
pub fn run(
    source: &mut dyn Source,
    objects: &Objects,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Outcome, SourceError> {
    let query =
        Query { ranges: options.ranges.clone(), revision: options.revision, ordered: false };
    let mut posture = Posture::new(options.now);
    let (mut entries, mut unread) = (0u64, Vec::new());
    let mut causes = Causes::default();
    observer.begin("entries", &mut || source.estimate(&query));
    let visit = source.visit(&query, &mut |entry| {
        observer.advance(1);
        let location = options.scope.locate(entry.key);
        if location.internal || !matters(&location.resource) {
            return ControlFlow::Continue(());
        }
        entries += 1;
        let judged = objects.judge(&location.resource, entry);
        let stored = Stored {
            provider: judged.provider.as_str().to_owned(),
            key: judged.key_name.map(std::borrow::Cow::into_owned),
            size: entry.stored().len() as u64,
        };
        match objects.object(&location.resource, entry) {
            Ok(mut object) => {
                posture.see(&location.resource, &object.json, &stored);
                storage::wipe(&mut object.json);
            }
            Err(why) if unread.len() < NAMED => {
                causes.add(entry.key, &why);
                unread.push((String::from_utf8_lossy(entry.key).into_owned(), why));
            }
            Err(why) => {
                causes.add(entry.key, &why);
                unread.push((String::new(), String::new()));
            }
        }
        ControlFlow::Continue(())
    })?;
    observer.end();
    // With keys that cannot be read, nobody can say that none opens a value.
    if unread.is_empty() {
        posture.sealed.open();
    } else if !posture.sealed.is_empty() {
        posture.sealed.open();
        posture.sealed.unsealable.clear();
        observer
            .note("some entries cannot be read, so it is unknown which SealedSecrets no key opens");
    }
    posture.conclude();
    Ok(Outcome { posture, visit, entries, unread, causes })
}
