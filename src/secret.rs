//! Key material and decrypted bytes: wiped on drop, no `Debug`, read only through an explicit
//! call.

use std::marker::PhantomData;

use subtle::ConstantTimeEq;
use zeroize::Zeroize as _;

use crate::random::{self, NoRandom};

/// Bytes that are wiped on drop. `Of` keeps keys and decrypted values apart.
///
/// `Debug` is absent on purpose, so that no struct that holds one can derive it by accident.
pub struct Wiped<Of>(Vec<u8>, PhantomData<Of>);

/// Marks [`KeyMaterial`].
pub enum Key {}

/// Marks [`Plaintext`].
pub enum Decrypted {}

/// Key material: a static key, a data key, a seed. Exposed to a cipher and nothing else.
pub type KeyMaterial = Wiped<Key>;

/// Decrypted (or never encrypted) storage bytes of one object.
pub type Plaintext = Wiped<Decrypted>;

impl<Of> Clone for Wiped<Of> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<Of> Wiped<Of> {
    /// Takes ownership of the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes, PhantomData)
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Constant-time equality (the length is not secret).
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl KeyMaterial {
    /// A new key of 32 bytes, which every static provider takes, and KMS as data key or seed.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn random() -> Result<Self, NoRandom> {
        let bytes = zeroize::Zeroizing::new(random::bytes::<32>()?);
        Ok(Self::new(bytes.to_vec()))
    }
}

impl<Of> Drop for Wiped<Of> {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

/// What `Vec::zeroize` does, with the same volatile writes, but sixteen bytes at a time: one at a
/// time they are a third of the time that decrypting a small value takes.
fn wipe(bytes: &mut Vec<u8>) {
    bytes.spare_capacity_mut().zeroize();
    let (head, middle, tail) = bytemuck::pod_align_to_mut::<u8, u128>(bytes);
    head.zeroize();
    middle.zeroize();
    tail.zeroize();
}

/// Keeps keys and plaintext out of core dumps and other processes' reach: no core file is
/// written, and on Linux the process can neither be dumped by a handler nor traced by processes
/// of the same user.
///
/// # Errors
/// When the system refuses. The work can go on all the same.
pub fn harden() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // A handler that core files are piped to ignores the limit, but not this.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn wiping_leaves_nothing_wherever_the_bytes_lie() {
        for len in 0..100 {
            let mut bytes = vec![7; len];
            bytes.truncate(len * 3 / 4);
            super::wipe(&mut bytes);
            assert!(bytes.iter().all(|b| *b == 0), "{len}");
            assert_eq!(bytes.len(), len * 3 / 4);
        }
    }

    #[test]
    fn hardened_processes_leave_no_core() {
        use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};
        super::harden().unwrap();
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        assert!(matches!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable));
    }
}
