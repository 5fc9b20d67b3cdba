//! A migration of the cluster's own, and what became of it.

/// What became of a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All objects were dealt with.
    Succeeded,
    /// It says why not.
    Failed(String),
    /// It goes on without anybody who follows it.
    Running,
}

/// A migration that was followed.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Of which resource.
    pub resource: String,
    /// Its name.
    pub name: String,
    /// When it was made, where it was there before.
    pub made_before: Option<String>,
    /// What became of it.
    pub ended: Ended,
}
