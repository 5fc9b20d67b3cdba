//! Archives of objects, as Velero and rancher-backup make them, as a source.
//!
//! An archive is read from its beginning each time, one object in memory: nothing is unpacked to
//! disk. Opening it notes which objects there are; their keys are those that an API server with
//! the default prefix would store them at. Entries in the order of keys take as many turns as
//! their bytes fill a window.

mod index;
mod reading;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::entry::{BoundTo, EntryRef, Value};
use crate::source::objects::Objects;
use crate::source::{
    Damage, EntrySink, FileError, Input, NoHistory, Query, RecordSink, Source, SourceError,
    SourceInfo, SourceKind, Visit, open_file,
};
use index::Index;
use reading::{Object, Reading};

/// Bytes of objects that are in memory at once where they are wanted in the order of their keys.
const WINDOW: u64 = 48 << 20;

/// An open archive.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    input: Input,
    what: Objects,
    /// By key.
    members: Vec<Member>,
    damage: Vec<Damage>,
}

/// Where an object lies.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    /// The etcd key that the API server would use.
    key: Box<[u8]>,
    /// Where namespace and name begin in it.
    object_at: u32,
    /// The how manieth member of the archive it is.
    ordinal: u32,
    /// Its bytes.
    len: u32,
    /// See [`crate::source::objects::ObjectPath::rank`].
    rank: u8,
}

impl Archive {
    /// Opens a file.
    ///
    /// # Errors
    /// When it is no such archive, or cannot be read at all.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let cannot = |cause| FileError::Unreadable { path: path.to_owned(), cause };
        Self::of_file(path, open_file(path).map_err(cannot)?)
    }

    /// As [`Archive::open`], of a file that is open already; `name` stands for its path.
    ///
    /// # Errors
    /// As there.
    pub fn of_file(name: &Path, file: impl Into<Input>) -> Result<Self, SourceError> {
        let input = file.into();
        let Index { what, members, damage } = Index::of(&input, name)?;
        Ok(Self { path: name.to_owned(), input, what, members, damage })
    }

    /// Who made it.
    #[must_use]
    pub fn what(&self) -> Objects {
        self.what
    }

    fn no_history(&self) -> SourceError {
        NoHistory { path: self.path.clone(), what: self.what }.into()
    }

    fn chosen<'a>(&'a self, query: &'a Query) -> impl Iterator<Item = &'a Member> {
        self.members.iter().filter(|m| query.wants(&m.key))
    }

    /// Reads members in the order that they have in the archive.
    fn read(
        &self,
        mut wanted: Vec<&Member>,
        each: &mut dyn FnMut(&Member, Object) -> ControlFlow<()>,
    ) -> Result<(), SourceError> {
        wanted.sort_unstable_by_key(|m| m.ordinal);
        Reading::run(&self.input, self.what, &wanted, each)
            .map_err(|failed| failed.of(&self.path))?;
        Ok(())
    }

    /// Reads members in the order of their keys, so many at once as fit in a window.
    fn read_ordered(&self, query: &Query, sink: &mut EntrySink<'_>) -> Result<(), SourceError> {
        let mut chosen = self.chosen(query).peekable();
        while chosen.peek().is_some() {
            let (mut window, mut bytes) = (Vec::new(), 0);
            while let Some(next) =
                chosen.next_if(|m| bytes == 0 || bytes + u64::from(m.len) <= WINDOW)
            {
                bytes += u64::from(next.len).max(1);
                window.push(next);
            }
            let mut read = Vec::with_capacity(window.len());
            self.read(window, &mut |member, object| {
                read.push((member.clone(), object));
                ControlFlow::Continue(())
            })?;
            read.sort_unstable_by(|a, b| a.0.key.cmp(&b.0.key));
            for (member, object) in &read {
                if sink(entry(self.what, member, object)).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// An object as an entry.
fn entry<'a>(what: Objects, member: &'a Member, object: &'a Object) -> EntryRef<'a> {
    let value: &Zeroizing<Vec<u8>> = &object.value;
    EntryRef {
        mod_revision: object.revision,
        value: Value(value),
        bound_to: match what {
            Objects::Velero => BoundTo::Key,
            Objects::Rancher => BoundTo::Name { at: member.object_at },
        },
        ..EntryRef::new(&member.key, b"")
    }
}

impl Source for Archive {
    fn info(&self) -> SourceInfo {
        let kind = match self.what {
            Objects::Velero => SourceKind::Velero,
            Objects::Rancher => SourceKind::Rancher,
        };
        SourceInfo { kind, location: self.path.to_string_lossy().into_owned() }
    }

    fn estimate(&mut self, query: &Query) -> Option<u64> {
        Some(self.chosen(query).count() as u64)
    }

    fn visit(&mut self, query: &Query, sink: &mut EntrySink<'_>) -> Result<Visit, SourceError> {
        if query.revision.is_some_and(|revision| revision > 0) {
            return Err(self.no_history());
        }
        if query.ordered {
            self.read_ordered(query, sink)?;
        } else {
            let what = self.what;
            self.read(self.chosen(query).collect(), &mut |member, object| {
                sink(entry(what, member, &object))
            })?;
        }
        Ok(Visit { damage: self.damage.clone(), ..Visit::default() })
    }

    fn history(&mut self, _: &Query, _: &mut RecordSink<'_>) -> Result<Visit, SourceError> {
        Err(self.no_history())
    }
}

#[cfg(test)]
mod tests;
