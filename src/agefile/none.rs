//! As with the feature `age`, of which there is none: nothing is opened.

use std::io::Read;

use super::Sealed;

/// There are none.
pub enum Identities {}

impl Identities {
    pub(super) fn open<'r>(
        _: Option<&Self>,
        _: bool,
        _: impl Read + 'r,
    ) -> Result<Box<dyn Read + 'r>, Sealed> {
        Err(Sealed::Locked)
    }
}
