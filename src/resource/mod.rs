//! etcd key → resource, namespace and name; and back from a resource to the key ranges that
//! hold it.
//!
//! | file | what it knows |
//! | --- | --- |
//! | [`catalogue`] | which resources there are, and where they lie |
//! | [`scope`] | which of an etcd's keys are the API server's |
//! | [`location`] | key → resource, namespace, name |
//! | [`selector`], [`selection`] | which resources and namespaces are wanted |
//! | [`sought`] | whether what was asked for by name is there |
//! | [`key`] | a KEY as somebody writes it → the keys that it can mean |
//! | [`kind`] | which kinds a resource has |
//!
//! Source of the layout: kubernetes/apiserver `pkg/storage/etcd3/store.go`,
//! `pkg/server/storage/storage_factory.go`; kubernetes/kubernetes
//! `pkg/kubeapiserver/default_storage_factory_builder.go`, `test/integration/etcd/data.go`;
//! openshift/openshift-apiserver `pkg/cmd/openshift-apiserver/openshiftapiserver/etcd.go`.

mod catalogue;
pub mod key;
pub mod kind;
mod location;
mod scope;
mod selection;
mod selector;
mod sought;

pub use crate::range::merge_ranges;

pub use catalogue::is_namespaced;
pub use key::NamedKey;
pub use location::{Location, base_of, locate};
pub use scope::{DEFAULT_PREFIX, Scope, joined};
pub use selection::Selection;
pub use selector::{Selector, beginning, group_of};
pub use sought::Sought;

#[cfg(test)]
mod tests;
