//! Entries that nobody can read: which they are, why, how sure that is, and who may have the API
//! server delete them; and deleting them in etcd, where a person says so.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`plan`] | finds them |
//! | [`apply`] | saves them and deletes them, each only if it has not changed |

#[cfg(feature = "live")]
pub mod apply;
pub mod plan;
