//! kine's table, as a bucket had it when a read began.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::format::{self, Unread};
use super::reader::{Item, Wanted, Within};
use crate::entry::Value;
use crate::source::kine::held::AT_ONCE;
use crate::source::kine::server::Raw;
use crate::source::kine::table::{Folded, Table, created_at};
use crate::source::kine::{KineRow, RowSink};
use crate::source::{Damage, DatastoreError, EntrySink, Query, SourceError};
use crate::visible::visible;

/// Values that are asked for one by one rather than by reading the whole bucket.
const FEW: usize = 512;

/// The row that a message is.
fn row(raw: &Raw) -> Option<KineRow<'_>> {
    let (id, created) = (raw.id?, raw.created != 0);
    Some(KineRow {
        name: raw.name.as_deref()?,
        id,
        created,
        deleted: raw.deleted != 0,
        create_revision: created_at(id, created, raw.create_revision),
        prev_revision: raw.prev_revision,
        lease: raw.lease,
        value: Value(&raw.value),
        old_value: Value(&raw.old_value),
    })
}

/// What was said of keys before.
#[derive(Default)]
struct Known {
    hasher: RandomState,
    /// Keys that a message up to the revision was seen of, as digests.
    seen: HashSet<u64>,
    /// Keys whose deletion the bucket has yet to mark as its own.
    marked_next: HashSet<Vec<u8>>,
}

impl Known {
    /// Whether the message says nothing that the one before it did not.
    fn is_known(&mut self, raw: &Raw, mark: bool) -> bool {
        let Some(name) = &raw.name else { return false };
        if mark {
            return self.marked_next.remove(name);
        }
        if raw.deleted != 0 {
            self.marked_next.insert(name.clone());
        } else {
            self.marked_next.remove(name);
        }
        false
    }

    fn saw(&mut self, name: &[u8]) -> bool {
        !self.seen.insert(self.hasher.hash_one(name))
    }

    /// What to tell of a key whose first message that is left was written after `revision`: what it
    /// was then cannot be known, unless this message says that it was not there.
    fn lost(&mut self, raw: &Raw, revision: i64) -> Option<Damage> {
        let name = raw.name.as_deref()?;
        if self.saw(name) || (raw.created != 0 && raw.prev_revision <= revision) {
            return None;
        }
        Some(Damage {
            location: visible(&String::from_utf8_lossy(name)),
            what: format!(
                "how it was stored at revision {revision} is no longer in the bucket, which keeps few revisions of a key"
            ),
        })
    }
}

fn unread(id: i64, why: &str) -> Damage {
    Damage { location: format!("revision {id}"), what: why.to_owned() }
}

/// The bucket dropped it after it was noted.
fn gone(id: i64) -> Damage {
    unread(id, "the bucket dropped it meanwhile, for newer revisions of its key")
}

impl Table for Within<'_> {
    fn newest(&mut self) -> Result<i64, SourceError> {
        Ok(self.state.last)
    }

    fn compacted(&mut self) -> Result<i64, SourceError> {
        let found = self.runtime.block_on(self.link.compacted(self.target))?;
        let revision = found.and_then(|row| format::compacted(&row.value)).unwrap_or_default();
        Ok(revision.min(self.state.last))
    }

    fn walk(
        &mut self,
        values: bool,
        query: &Query,
        damage: &mut Vec<Damage>,
        sink: &mut RowSink<'_>,
    ) -> Result<(), SourceError> {
        let last = self.state.last;
        let limit = query.revision.filter(|r| *r > 0).map_or(last, |r| r.min(last));
        let wanted = Wanted {
            query: query.clone(),
            to: if values { limit } else { last },
            values,
            only: None,
            messages: (!values).then_some(self.state.messages),
        };
        let mut known = Known::default();
        Ok(self.read(wanted, &mut |item| {
            let (raw, mark) = match item {
                Item::Row(raw, mark) => (raw, mark),
                Item::Unread(id, why) => {
                    if id <= limit {
                        damage.push(unread(id, why));
                    }
                    return ControlFlow::Continue(());
                }
            };
            let Some(row) = row(&raw) else { return ControlFlow::Continue(()) };
            if row.id > limit {
                damage.extend(known.lost(&raw, limit));
                return ControlFlow::Continue(());
            }
            if !values {
                known.saw(row.name);
            }
            if known.is_known(&raw, mark) { ControlFlow::Continue(()) } else { sink(row) }
        })?)
    }

    fn lookup(
        &mut self,
        ids: &[i64],
        query: &Query,
        damage: &mut Vec<Damage>,
        sink: &mut RowSink<'_>,
    ) -> Result<(), SourceError> {
        for part in ids.chunks(AT_ONCE) {
            let rows = self.kept(part)?;
            for id in part {
                let raw = match rows.get(id) {
                    Some(Ok(raw)) => raw,
                    Some(Err(why)) => {
                        damage.push(unread(*id, why));
                        continue;
                    }
                    None => continue,
                };
                let row = row(raw).filter(|row| query.wants(row.name));
                if row.is_some_and(|row| sink(row).is_break()) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn give(
        &mut self,
        live: &[(Box<[u8]>, Folded)],
        ordered: bool,
        damage: &mut Vec<Damage>,
        sink: &mut EntrySink<'_>,
    ) -> Result<(), SourceError> {
        if ordered || live.len() <= FEW {
            for part in live.chunks(AT_ONCE) {
                let ids: Vec<_> = part.iter().map(|(_, folded)| folded.id).collect();
                let rows = self.kept(&ids)?;
                for (name, folded) in part {
                    let raw = match rows.get(&folded.id) {
                        Some(Ok(raw)) => raw,
                        Some(Err(why)) => {
                            damage.push(unread(folded.id, why));
                            continue;
                        }
                        None => {
                            damage.push(gone(folded.id));
                            continue;
                        }
                    };
                    if sink(folded.entry(name, Value(&raw.value))).is_break() {
                        return Ok(());
                    }
                }
            }
            return Ok(());
        }
        self.give_all(live, damage, sink)
    }
}

impl Within<'_> {
    /// Rows by their numbers.
    fn kept(&self, ids: &[i64]) -> Result<HashMap<i64, Result<Raw, Unread>>, DatastoreError> {
        let asked = self.runtime.block_on(async {
            let mut asking = JoinSet::new();
            for &id in ids {
                let (target, link) = (Arc::clone(self.target), Arc::clone(self.link));
                asking.spawn(async move {
                    let row = link.message(&target, id, |message| {
                        message.key().and_then(|name| message.row(name, true))
                    });
                    Ok::<_, DatastoreError>((id, row.await?))
                });
            }
            asking.join_all().await
        });
        let mut rows = HashMap::new();
        for found in asked {
            if let (id, Some(row)) = found? {
                rows.insert(id, row);
            }
        }
        Ok(rows)
    }

    /// Values in the order of the stream.
    fn give_all(
        &self,
        live: &[(Box<[u8]>, Folded)],
        damage: &mut Vec<Damage>,
        sink: &mut EntrySink<'_>,
    ) -> Result<(), SourceError> {
        let mut left: HashMap<i64, _> = live.iter().map(|one| (one.1.id, one)).collect();
        let wanted = Wanted {
            query: Query {
                ranges: vec![crate::range::KeyRange::prefix(b"")],
                revision: None,
                ordered: false,
            },
            to: live.iter().map(|(_, folded)| folded.id).max().unwrap_or_default(),
            values: true,
            only: Some(Arc::new(left.keys().copied().collect())),
            messages: None,
        };
        let mut flow = ControlFlow::Continue(());
        self.read(wanted, &mut |item| {
            match item {
                Item::Row(raw, _) => {
                    if let Some((name, folded)) = raw.id.and_then(|id| left.remove(&id)) {
                        flow = sink(folded.entry(name, Value(&raw.value)));
                    }
                }
                Item::Unread(id, why) => {
                    left.remove(&id);
                    damage.push(unread(id, why));
                }
            }
            flow
        })?;
        if flow.is_continue() {
            let mut missing: Vec<_> = left.into_keys().collect();
            missing.sort_unstable();
            damage.extend(missing.into_iter().map(gone));
        }
        Ok(())
    }
}
