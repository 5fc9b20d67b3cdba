//! Where the API server keeps its objects.

use super::catalogue::OPENSHIFT_PREFIX;
use super::location::{Location, base_of, locate};
use super::selector::Selector;
use crate::range::{KeyRange, merge_ranges};

/// The API server's default `--etcd-prefix`, with the slash it appends.
pub const DEFAULT_PREFIX: &str = "/registry/";

/// Prefix of `OpenShift`'s API server (openshift/cluster-kube-apiserver-operator
/// `bindata/assets/config/defaultconfig.yaml`: `etcd-prefix`).
const OPENSHIFT_KUBE: &str = "/kubernetes.io/";

/// Which of an etcd's keys are those of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The API server's prefix as it joins it: `/registry/`.
    prefix: String,
    /// What stands before every key of the API server: the namespace of an etcd proxy.
    namespace: String,
    /// What the API server's keys begin with in this etcd, each ending in `/`.
    bases: Vec<String>,
}

impl Scope {
    /// By the API server's `--etcd-prefix`.
    #[must_use]
    pub fn new(etcd_prefix: &str) -> Self {
        Self::behind("", etcd_prefix)
    }

    /// By the API server's `--etcd-prefix`, where a proxy puts `namespace` before each of its
    /// keys (etcd `etcd grpc-proxy start --namespace`; `client/v3/namespace`: byte for byte).
    #[must_use]
    pub fn behind(namespace: &str, etcd_prefix: &str) -> Self {
        let prefix = joined(etcd_prefix);
        let mut bases = vec![format!("{namespace}{prefix}")];
        if prefix == OPENSHIFT_KUBE {
            bases.push(format!("{namespace}{OPENSHIFT_PREFIX}"));
        }
        Self { prefix, namespace: namespace.to_owned(), bases }
    }

    /// What a proxy puts before each key of the API server.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What the API server's keys begin with in this etcd.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.bases[0]
    }

    /// That, and what the keys of other API servers that share its etcd begin with.
    #[must_use]
    pub fn bases(&self) -> &[String] {
        &self.bases
    }

    /// Key ranges that can hold the selected resources, ascending and disjoint. They may hold
    /// others too.
    #[must_use]
    pub fn ranges(&self, selectors: &[Selector]) -> Vec<KeyRange> {
        let mut ranges = Vec::new();
        for base in &self.bases {
            ranges.extend(selectors.iter().flat_map(|s| s.ranges(base)));
        }
        merge_ranges(ranges)
    }

    /// Where a key belongs.
    #[must_use]
    pub fn locate<'a>(&self, key: &'a [u8]) -> Location<'a> {
        let base = self.bases.iter().find(|base| key.starts_with(base.as_bytes()));
        locate(key, base.unwrap_or(&self.bases[0]).as_bytes())
    }

    /// Where a key belongs that somebody wrote in full: one of another prefix says itself where
    /// its API server's keys begin.
    #[must_use]
    pub fn locate_named<'a>(&self, key: &'a [u8]) -> Location<'a> {
        let location = self.locate(key);
        if !location.internal {
            return location;
        }
        let named = base_of(key).map(|base| locate(key, &key[..base]));
        named.filter(|named| !named.internal).unwrap_or(location)
    }
}

/// As the API server joins its prefix: `path.Join("/", prefix)`, and a slash at the end
/// (kubernetes/apiserver `pkg/storage/etcd3/store.go`).
#[must_use]
pub fn joined(etcd_prefix: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in etcd_prefix.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() { "/".to_owned() } else { format!("/{}/", parts.join("/")) }
}
