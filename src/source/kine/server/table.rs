//! The table, as one transaction of a server sees it.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::connection::Connection;
use super::sql::{self, Values};
use super::{AHEAD, Raw, Target};
use crate::entry::Value;
use crate::source::kine::held::AT_ONCE;
use crate::source::kine::table::{Folded, Table, created_at, is_own, nameless};
use crate::source::kine::{KineRow, RowSink};
use crate::source::{Damage, DatastoreError, EntrySink, Query, SourceError};

/// Values that are asked for at once where any order will do: each is looked at as it comes.
const UNORDERED: usize = 1000;

/// A transaction.
pub(super) struct Within<'s> {
    pub runtime: &'s Runtime,
    pub target: &'s Arc<Target>,
    /// `None` once somebody had enough before the end of an answer.
    pub connection: Option<Connection>,
}

impl Within<'_> {
    /// Calls `each` for the rows of a query, until it breaks.
    pub fn run(
        &mut self,
        sql: String,
        each: &mut dyn FnMut(&Raw) -> ControlFlow<()>,
    ) -> Result<(), DatastoreError> {
        let Some(mut connection) = self.connection.take() else { return Err(self.target.lost()) };
        let (send, mut receive) = mpsc::channel(AHEAD);
        let target = Arc::clone(self.target);
        let task = self.runtime.spawn(async move {
            let done = connection.stream(&target, &sql, &send).await;
            (connection, done)
        });
        let silence = self.target.silence;
        loop {
            let part = self
                .runtime
                .block_on(async { tokio::time::timeout(silence, receive.recv()).await });
            match part {
                Ok(Some(rows)) => {
                    if rows.iter().any(|row| each(row).is_break()) {
                        task.abort();
                        return Ok(());
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    task.abort();
                    let at = self.target.at.clone();
                    return Err(DatastoreError::Silent { at, within: silence });
                }
            }
        }
        let (connection, done) = self.runtime.block_on(task).map_err(|_| self.target.lost())?;
        done?;
        self.connection = Some(connection);
        Ok(())
    }

    /// A query with at most one row.
    fn one<T>(&mut self, sql: String, of: impl Fn(&Raw) -> T) -> Result<Option<T>, DatastoreError> {
        let mut found = None;
        self.run(sql, &mut |row| {
            found = Some(of(row));
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    fn kind(&self) -> sql::Dialect {
        self.target.dialect()
    }
}

/// The row, if it is data that `query` wants.
fn wanted<'r>(raw: &'r Raw, query: &Query, damage: &mut Vec<Damage>) -> Option<KineRow<'r>> {
    let id = raw.id.unwrap_or_default();
    let Some(name) = raw.name.as_deref() else {
        damage.push(nameless(id));
        return None;
    };
    let (created, deleted) = (raw.created != 0, raw.deleted != 0);
    if !query.wants(name) || is_own(name, id, deleted) {
        return None;
    }
    Some(KineRow {
        name,
        id,
        created,
        deleted,
        create_revision: created_at(id, created, raw.create_revision),
        prev_revision: raw.prev_revision,
        lease: raw.lease,
        value: Value(&raw.value),
        old_value: Value(&raw.old_value),
    })
}

impl Table for Within<'_> {
    fn newest(&mut self) -> Result<i64, SourceError> {
        let last = self.one(sql::newest(self.kind()).to_owned(), |row| row.id)?.flatten();
        Ok(last.unwrap_or_default().max(self.compacted()?))
    }

    fn compacted(&mut self) -> Result<i64, SourceError> {
        let found = self.one(sql::compacted(self.kind()), |row| row.prev_revision)?;
        Ok(found.unwrap_or_default())
    }

    fn walk(
        &mut self,
        values: bool,
        query: &Query,
        damage: &mut Vec<Damage>,
        sink: &mut RowSink<'_>,
    ) -> Result<(), SourceError> {
        let values = if values { Values::Both } else { Values::None };
        let sql = sql::walk(self.kind(), values, query);
        Ok(self.run(sql, &mut |raw| match wanted(raw, query, damage) {
            Some(row) => sink(row),
            None => ControlFlow::Continue(()),
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
            let rows = self.kept(part, Values::Both)?;
            for raw in part.iter().filter_map(|id| rows.get(id)) {
                if wanted(raw, query, damage).is_some_and(|row| sink(row).is_break()) {
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
        if ordered {
            for part in live.chunks(AT_ONCE) {
                let ids: Vec<_> = part.iter().map(|(_, folded)| folded.id).collect();
                let rows = self.kept(&ids, Values::Value)?;
                for (name, folded) in part {
                    let Some(raw) = rows.get(&folded.id) else {
                        damage.push(gone(folded.id));
                        continue;
                    };
                    if sink(folded.entry(name, Value(&raw.value))).is_break() {
                        return Ok(());
                    }
                }
            }
            return Ok(());
        }
        for part in live.chunks(UNORDERED) {
            let mut left: HashMap<i64, _> = part.iter().map(|one| (one.1.id, one)).collect();
            let ids: Vec<_> = part.iter().map(|(_, folded)| folded.id).collect();
            let mut flow = ControlFlow::Continue(());
            self.run(sql::lookup(self.kind(), Values::Value, &ids), &mut |raw| {
                if let Some((name, folded)) = raw.id.and_then(|id| left.remove(&id)) {
                    flow = sink(folded.entry(name, Value(&raw.value)));
                }
                flow
            })?;
            if flow.is_break() {
                return Ok(());
            }
            let mut missing: Vec<_> = left.into_keys().collect();
            missing.sort_unstable();
            damage.extend(missing.into_iter().map(gone));
        }
        Ok(())
    }
}

impl Within<'_> {
    /// Rows by their numbers.
    fn kept(&mut self, ids: &[i64], values: Values) -> Result<HashMap<i64, Raw>, DatastoreError> {
        let mut rows = HashMap::new();
        self.run(sql::lookup(self.kind(), values, ids), &mut |raw| {
            if let Some(id) = raw.id {
                rows.insert(id, raw.clone());
            }
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }
}

/// Only what was noted in an earlier transaction can be gone.
fn gone(id: i64) -> Damage {
    Damage { location: format!("row {id}"), what: "it was compacted away meanwhile".into() }
}
