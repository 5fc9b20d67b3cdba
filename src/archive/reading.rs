//! Reading chosen objects of an archive.

use std::borrow::Cow;
use std::io::Read;
use std::ops::ControlFlow;

use base64::Engine as _;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Member;
use crate::source::Input;
use crate::source::objects::{Objects, object_path};
use crate::source::walk::{Failed, Visitor, walk};

/// More than any object: etcd stops at 1.5 MiB by default, and JSON of it is not ten times that.
pub(super) const LARGEST_OBJECT: u64 = 64 << 20;

/// An object as it is stored.
pub(super) struct Object {
    /// What an API server would call the stored value.
    pub value: Zeroizing<Vec<u8>>,
    /// etcd's revision of the write that made it, 0 where it does not say.
    pub revision: i64,
}

impl Object {
    fn of(what: Objects, content: Zeroizing<Vec<u8>>) -> Self {
        match what {
            Objects::Velero => Self { revision: revision(&content), value: content },
            // Which is taken out before it is saved.
            Objects::Rancher => Self { value: unquoted(&content).unwrap_or(content), revision: 0 },
        }
    }
}

/// An encrypted value is a JSON string of its base64 (`json.Marshal` of bytes).
fn unquoted(content: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if content.trim_ascii_start().first() != Some(&b'"') {
        return None;
    }
    let text: Cow<'_, str> = serde_json::from_slice(content).ok()?;
    base64::engine::general_purpose::STANDARD.decode(&*text).ok().map(Zeroizing::new)
}

/// The revision that the object was read at (kubernetes/apiserver `pkg/storage/api_object_versioner.go`).
fn revision(content: &[u8]) -> i64 {
    #[derive(Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        metadata: Metadata<'a>,
    }
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow, rename = "resourceVersion")]
        resource_version: Cow<'a, str>,
    }
    let whole = serde_json::from_slice::<Whole<'_>>(content).ok();
    whole.and_then(|o| o.metadata.resource_version.parse().ok()).filter(|r| *r > 0).unwrap_or(0)
}

/// Gives out those members of an archive that are wanted.
pub(super) struct Reading<'a> {
    what: Objects,
    /// By their ordinals.
    wanted: std::slice::Iter<'a, &'a Member>,
    ordinal: u32,
    current: Option<&'a Member>,
    each: &'a mut dyn FnMut(&Member, Object) -> ControlFlow<()>,
}

impl<'a> Reading<'a> {
    /// Reads an archive until all that is wanted, by its ordinals, was given out.
    ///
    /// # Errors
    /// When it cannot be read any more as it could.
    pub(super) fn run(
        input: &Input,
        what: Objects,
        wanted: &'a [&'a Member],
        each: &'a mut dyn FnMut(&Member, Object) -> ControlFlow<()>,
    ) -> Result<(), Failed> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut reading = Self { what, wanted: wanted.iter(), ordinal: 0, current: None, each };
        match walk(input, &mut reading) {
            Err(Failed::Enough) => Ok(()),
            // What is wrong behind the last of them was told when it was opened.
            _ if reading.wanted.len() == 0 => Ok(()),
            Ok(()) => Err(Failed::Unpack(std::io::Error::other("it changed while it was read"))),
            Err(failed) => Err(failed),
        }
    }
}

impl Visitor for Reading<'_> {
    fn member(&mut self, name: &[u8]) -> Result<bool, Failed> {
        self.ordinal = self.ordinal.saturating_add(1);
        let Some(next) = self.wanted.as_slice().first() else { return Err(Failed::Enough) };
        self.current = (next.ordinal == self.ordinal).then_some(*next);
        // The same members are looked into as when they were counted.
        Ok(self.current.is_some() || object_path(name).is_none())
    }

    fn takes(&self, _head: &[u8]) -> bool {
        self.current.is_some()
    }

    fn take(&mut self, _name: &[u8], reader: &mut dyn Read) -> Result<(), Failed> {
        let Some(member) = self.current.take() else { return Ok(()) };
        self.wanted.next();
        // Room for all of it at once, so that no part is left behind in memory.
        let mut content = Zeroizing::new(Vec::with_capacity(member.len as usize + 1));
        reader.take(u64::from(member.len)).read_to_end(&mut content)?;
        match (self.each)(member, Object::of(self.what, content)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Failed::Enough),
        }
    }
}
