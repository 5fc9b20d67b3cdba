//! A rotation of an encryption key, followed to its end: which of its steps are done, by what is
//! really there, and which is next.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `files` | the configuration files of the steps, made from the first |
//! | `state` | what a rotation remembers: names and hashes, no secret |
//! | `look` | what etcd and the API servers show |
//! | `steps` | what that means for each step; pure |

mod files;
mod look;
mod state;
mod steps;

pub use files::{Adopted, Chain, FilesError, Wanted, adopt, begin, chain};
pub use look::{Stored, Verified, stored, verify};
pub use state::{File, Key, Said, State, StateError};
pub use steps::{ApiServers, Looked, Seen, Status, Step, StepSeen, steps};

/// The files of a rotation, in the order in which API servers get them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// What was there before.
    Start,
    /// The new key can be read.
    Added,
    /// The new key writes, the old one can be read.
    Promoted,
    /// The old key is gone.
    Retired,
}

impl Role {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Start, Self::Added, Self::Promoted, Self::Retired];

    /// The word in reports, and in the files' names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Added => "added",
            Self::Promoted => "promoted",
            Self::Retired => "retired",
        }
    }
}

#[cfg(test)]
mod tests;
