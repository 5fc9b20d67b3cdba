//! Which objects an archive has.

use std::cmp::Reverse;
use std::io::{self, Read};
use std::path::Path;

use super::Member;
use super::reading::LARGEST_OBJECT;
use crate::resource::{DEFAULT_PREFIX, beginning, locate};
use crate::source::objects::{ObjectPath, Objects, archive_of, is_about, object_path};
use crate::source::walk::{Failed, MOST_MEMBERS, Visitor, walk};
use crate::source::{Damage, FileError, Input};
use crate::visible::shortened;

/// Damaged members that are named; there may be as many as there are members.
const NAMED: usize = 1000;
/// Characters of a member's name that are shown.
const SHOWN: usize = 300;

/// What one reading of an archive shows.
pub(super) struct Index {
    pub what: Objects,
    /// By key, each once.
    pub members: Vec<Member>,
    pub damage: Vec<Damage>,
}

impl Index {
    /// Reads an archive once.
    ///
    /// # Errors
    /// When it has no objects at all, or cannot be read.
    pub(super) fn of(input: &Input, path: &Path) -> Result<Self, FileError> {
        let mut seen = Seen::default();
        let walked = walk(input, &mut seen);
        let Seen { what, mut members, mut damage, ordinal, unnamed, .. } = seen;
        let Some(what) = what else {
            walked.map_err(|failed| failed.of(path))?;
            return Err(FileError::NoDatabase { path: path.to_owned(), members: ordinal as usize });
        };
        if unnamed > 0 {
            damage.push(Damage {
                location: "other members".to_owned(),
                what: format!("{unnamed} more are no objects, or cannot be read"),
            });
        }
        let location = || format!("behind member {ordinal}");
        match walked {
            Ok(()) => {}
            Err(Failed::Unpack(cause)) => damage.push(Damage {
                location: location(),
                what: format!("the archive is cut or damaged, and nothing more was read: {cause}"),
            }),
            Err(failed) => return Err(failed.of(path)),
        }
        if ordinal as usize >= MOST_MEMBERS {
            let what = "there are more members than are looked at".to_owned();
            damage.push(Damage { location: location(), what });
        }
        // Of several members for one object, an unpacker leaves the last.
        members.sort_unstable_by(|a, b| {
            (&a.key, a.rank, Reverse(a.ordinal)).cmp(&(&b.key, b.rank, Reverse(b.ordinal)))
        });
        members.dedup_by(|later, first| later.key == first.key);
        Ok(Self { what, members, damage })
    }
}

#[derive(Default)]
struct Seen {
    what: Option<Objects>,
    members: Vec<Member>,
    damage: Vec<Damage>,
    /// Of the last member.
    ordinal: u32,
    /// The object that the member is.
    current: Option<Member>,
    /// Damage beyond what is named.
    unnamed: u64,
}

impl Seen {
    fn damaged(&mut self, name: &[u8], what: &str) {
        if self.damage.len() < NAMED {
            let name = shortened(&String::from_utf8_lossy(name), SHOWN);
            let location = format!("member {name}");
            self.damage.push(Damage { location, what: what.to_owned() });
        } else {
            self.unnamed += 1;
        }
    }

    /// The member as an object, unless it is none.
    fn object(&mut self, name: &[u8], path: &ObjectPath<'_>) -> Option<Member> {
        let what = *self.what.get_or_insert(path.archive);
        if what != path.archive {
            self.damaged(name, &format!("it is none of {what}: not examined"));
            return None;
        }
        let mut key = beginning(path.resource, DEFAULT_PREFIX);
        let object_at = key.len();
        if let Some(namespace) = path.namespace {
            key.extend_from_slice(namespace.as_bytes());
            key.push(b'/');
        }
        key.extend_from_slice(path.name.as_bytes());
        let location = locate(&key, DEFAULT_PREFIX.as_bytes());
        if location.internal || location.object_at != object_at {
            self.damaged(name, "no API server stores such a resource: not examined");
            return None;
        }
        Some(Member {
            key: key.into(),
            object_at: u32::try_from(object_at).unwrap_or_default(),
            ordinal: self.ordinal,
            len: 0,
            rank: path.rank,
        })
    }
}

impl Visitor for Seen {
    fn member(&mut self, name: &[u8]) -> Result<bool, Failed> {
        self.ordinal = self.ordinal.saturating_add(1);
        self.current = None;
        let Some(path) = object_path(name) else {
            self.what = self.what.or_else(|| archive_of(name));
            // A file that should be an object, and would be missed.
            if name.ends_with(b".json") && !is_about(name) {
                self.damaged(name, "its name is no object's: not examined");
            }
            return Ok(true);
        };
        self.current = self.object(name, &path);
        Ok(self.current.is_some())
    }

    fn takes(&self, _head: &[u8]) -> bool {
        self.current.is_some()
    }

    fn take(&mut self, name: &[u8], reader: &mut dyn Read) -> Result<(), Failed> {
        let Some(mut member) = self.current.take() else { return Ok(()) };
        let len = io::copy(&mut reader.take(LARGEST_OBJECT + 1), &mut io::sink())?;
        if len > LARGEST_OBJECT {
            self.damaged(name, &format!("it has more than {LARGEST_OBJECT} bytes: not examined"));
            return Ok(());
        }
        member.len = u32::try_from(len).unwrap_or(u32::MAX);
        self.members.push(member);
        Ok(())
    }

    fn ended(&mut self, whole: bool) {
        if !whole {
            let location = format!("behind member {}", self.ordinal);
            let what = "the archive has no end: it was cut, and may have had more".to_owned();
            self.damage.push(Damage { location, what });
        }
    }
}
