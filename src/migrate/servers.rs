//! Which API servers there are, as far as etcd knows.
//!
//! Each API server keeps two marks in etcd: a Lease object `kube-system/apiserver-…` since 1.26,
//! renewed every 10 seconds and good for an hour (kubernetes `pkg/controlplane/apiserver/
//! server.go`: `IdentityLeaseDurationSeconds`), and an `Endpoints` object `masterleases/ADDRESS`
//! that etcd itself removes 15 seconds after the last renewal (kubernetes
//! `pkg/controlplane/reconcilers/lease.go`).

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::entry::Entry;
use crate::source::{KeyRange, Query, Source, SourceError};
use crate::storage;
use crate::transform::Transformers;

/// Where the Lease objects of API servers are, below an API server's prefix.
const LEASES: &str = "leases/kube-system/apiserver-";
/// Where their addresses are.
const MASTER_LEASES: &str = "masterleases/";
/// How long a Lease counts that says nothing about it: what API servers write.
const USUAL: SignedDuration = SignedDuration::from_hours(1);
/// How far the clocks of two machines may be apart.
const SKEW: SignedDuration = SignedDuration::from_mins(1);

/// An API server that has a mark in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The key of the mark.
    pub key: String,
    /// The machine's name or the server's address.
    pub name: String,
    /// Until when the mark says that the server runs; none where etcd itself removes it in time.
    pub until: Option<Timestamp>,
}

/// What etcd knows of API servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    /// Those whose Lease has not run out.
    pub leases: Vec<Server>,
    /// Those whose address etcd keeps.
    pub addresses: Vec<Server>,
    /// Leases that cannot be read: nobody knows whether their servers run.
    pub unreadable: Vec<String>,
}

impl Servers {
    /// How many there are: those without a Lease are older, those without an address were started
    /// without the reconciler of addresses, or have just been stopped.
    #[must_use]
    pub fn count(&self) -> usize {
        self.leases.len().max(self.addresses.len())
    }

    /// What they are called, for sentences and reports.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let longer =
            if self.addresses.len() > self.leases.len() { &self.addresses } else { &self.leases };
        longer.iter().map(|s| &*s.name).collect()
    }

    /// The names of the Leases, each with that of the machine.
    #[must_use]
    pub fn identities(&self) -> Vec<(String, String)> {
        let lease = |s: &Server| {
            let name = s.key.rsplit('/').next().unwrap_or_default();
            (name.to_owned(), s.name.clone())
        };
        self.leases.iter().map(lease).collect()
    }

    /// A mark that says that an API server may be running.
    #[must_use]
    pub fn running(&self) -> Option<&Server> {
        self.addresses.first().or(self.leases.first())
    }
}

/// Looks for the marks of API servers whose keys begin with one of `bases`, at `now`. Leases may
/// be encrypted too: `transformers` read them.
///
/// # Errors
/// When the keys cannot be read.
pub fn find(
    source: &mut dyn Source,
    bases: &[String],
    transformers: &Transformers,
    now: Timestamp,
) -> Result<Servers, SourceError> {
    let range = |base: &String, below: &str| KeyRange::prefix(format!("{base}{below}").as_bytes());
    let ranges = bases.iter().flat_map(|b| [range(b, LEASES), range(b, MASTER_LEASES)]).collect();
    let mut entries: Vec<Entry> = Vec::new();
    source.visit(&Query { ranges, revision: None, ordered: true }, &mut |entry| {
        entries.push(entry.to_entry());
        ControlFlow::Continue(())
    })?;
    let mut servers = Servers::default();
    let mut seen = BTreeSet::new();
    for entry in &entries {
        let key = String::from_utf8_lossy(&entry.key).into_owned();
        if !seen.insert(key.clone()) {
            continue;
        }
        if let Some((_, address)) = key.split_once(MASTER_LEASES) {
            // Without a lease nobody would remove it: it was put there by something else.
            if entry.lease != 0 {
                let name = address.to_owned();
                servers.addresses.push(Server { key, name, until: None });
            }
            continue;
        }
        match lease(transformers, entry) {
            Some((name, until)) if until + SKEW >= now => {
                servers.leases.push(Server { key, name, until: Some(until) });
            }
            Some(_) => {}
            None => servers.unreadable.push(key),
        }
    }
    Ok(servers)
}

/// Whose a Lease is, and until when it is good.
fn lease(transformers: &Transformers, entry: &Entry) -> Option<(String, Timestamp)> {
    let transformers = transformers.for_resource("leases.coordination.k8s.io");
    let opened = transformers.read(&entry.key, &entry.value).ok()?;
    let object = storage::decode(opened.plaintext.expose()).ok()?.json;
    let spec = object.get("spec")?;
    let renewed: Timestamp = spec.get("renewTime")?.as_str()?.parse().ok()?;
    let seconds = spec.get("leaseDurationSeconds").and_then(Value::as_i64);
    let good = seconds.map_or(USUAL, SignedDuration::from_secs);
    let metadata = object.get("metadata")?;
    let label = metadata.get("labels").and_then(|l| l.get("kubernetes.io/hostname"));
    let name = label.or_else(|| metadata.get("name"))?.as_str()?.to_owned();
    Some((name, renewed.checked_add(good).ok()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{ConfigSet, load};
    use crate::kms::NoPlugins;
    use crate::source::{EntrySink, RecordSink, SourceInfo, SourceKind, Visit};

    struct Held(Vec<Entry>);

    impl Source for Held {
        fn info(&self) -> SourceInfo {
            SourceInfo { kind: SourceKind::Etcd, location: String::new() }
        }

        fn visit(&mut self, query: &Query, sink: &mut EntrySink<'_>) -> Result<Visit, SourceError> {
            for entry in self.0.iter().filter(|e| query.wants(&e.key)) {
                assert!(sink(entry.as_ref()).is_continue());
            }
            Ok(Visit::default())
        }

        fn history(&mut self, _: &Query, _: &mut RecordSink<'_>) -> Result<Visit, SourceError> {
            Ok(Visit::default())
        }
    }

    fn entry(key: &str, value: &str, lease: i64) -> Entry {
        Entry {
            key: key.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
            create_revision: 1,
            mod_revision: 1,
            version: 1,
            lease,
            bound_to: crate::entry::BoundTo::Key,
        }
    }

    fn identity(name: &str, renewed: &str) -> Entry {
        let value = format!(
            r#"{{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{{"name":"apiserver-{name}","labels":{{"kubernetes.io/hostname":"{name}"}}}},"spec":{{"leaseDurationSeconds":3600,"renewTime":"{renewed}"}}}}"#
        );
        entry(&format!("/registry/leases/kube-system/apiserver-{name}"), &value, 0)
    }

    #[test]
    fn what_has_run_out_is_no_server() {
        let config = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
                      resources:\n- resources: [secrets]\n  providers:\n  - identity: {}\n";
        let set = ConfigSet::new(load(config.as_bytes(), "t").unwrap()).unwrap();
        let transformers = Transformers::new(&set, Arc::new(NoPlugins)).unwrap();
        let mut held = Held(vec![
            identity("cp-1", "2026-01-02T03:04:05.678901Z"),
            identity("cp-2", "2026-01-02T02:00:00.000000Z"),
            identity("cp-3", "2026-01-02T03:00:00.000000Z"),
            entry("/registry/leases/kube-system/apiserver-x", "garbage", 0),
            entry("/registry/leases/kube-system/kube-scheduler", "garbage", 0),
            entry("/registry/masterleases/10.0.0.1", "k8s", 7),
            entry("/registry/masterleases/10.0.0.2", "k8s", 0),
            entry("/other/masterleases/10.0.0.3", "k8s", 7),
        ]);
        let now = "2026-01-02T03:05:00Z".parse().unwrap();
        let bases = ["/registry/".to_owned()];
        let found = find(&mut held, &bases, &transformers, now).unwrap();
        assert_eq!(found.names(), ["cp-1", "cp-3"]);
        assert_eq!(found.addresses.len(), 1);
        assert_eq!(found.unreadable, ["/registry/leases/kube-system/apiserver-x"]);
        assert_eq!(found.running().unwrap().name, "10.0.0.1");
    }
}
