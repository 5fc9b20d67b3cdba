//! What keeps key material inside the process.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Forbids core dumps and reading this process's memory from others of the same user. Called
/// before the first key is read or made.
///
/// Both calls are precautions: where the system refuses them, the job still goes on.
pub fn protect_memory() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    // A limit of zero does not stop a core that is piped to a program (core(5)); this does.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
