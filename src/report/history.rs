//! What `history` prints.

use std::io::{self, Write};

use base64::Engine as _;
use serde::Serialize;
use zeroize::Zeroizing;

use super::table::{self, Mark};
use super::text::cell;
use super::{Format, wire};
use crate::envelope::{Provider, Version};
use crate::forensics::changes::Change;
use crate::jobs::history::Revision;
use crate::scan::Status;
use crate::source::{Holder, SourceInfo, Visit};

/// A finished history.
pub struct Report<'a> {
    /// Where was read.
    pub source: &'a SourceInfo,
    /// Its revision, compaction and damage.
    pub visit: &'a Visit,
    /// Every revision held, ascending.
    pub revisions: &'a [Revision],
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    source: wire::Source,
    compacted: Option<i64>,
    revisions: Vec<Row>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<wire::Damage>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    entry: wire::Entry,
    revision: i64,
    deleted: bool,
    held_in: &'static str,
    /// `null` where the revision before or this one cannot be read.
    changes: Option<Vec<ChangeRow>>,
}

#[derive(Serialize)]
struct ChangeRow {
    name: String,
    change: &'static str,
    old_size: Option<u64>,
    size: Option<u64>,
    /// Base64, with `--reveal` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new: Option<String>,
}

impl From<&Change> for ChangeRow {
    fn from(c: &Change) -> Self {
        let base64 =
            |v: &Zeroizing<Vec<u8>>| base64::engine::general_purpose::STANDARD.encode(v.as_slice());
        Self {
            name: c.name.clone(),
            change: c.word(),
            old_size: c.old_size,
            size: c.size,
            old: c.old.as_ref().map(base64),
            new: c.new.as_ref().map(base64),
        }
    }
}

impl From<&Revision> for Row {
    fn from(r: &Revision) -> Self {
        let revision = r.number();
        let held_in = r.holder().as_str();
        match r {
            Revision::Put { finding, changes, .. } => Self {
                entry: wire::Entry::from(&**finding),
                revision,
                deleted: false,
                held_in,
                changes: changes.as_ref().map(|c| c.iter().map(ChangeRow::from).collect()),
            },
            Revision::Delete { key, location, .. } => Self {
                entry: wire::Entry::deleted(key, location, revision),
                revision,
                deleted: true,
                held_in,
                changes: None,
            },
        }
    }
}

/// `+token (12 B) ~password (8 B → 12 B) -old (4 B)`.
fn in_words(changes: Option<&[Change]>) -> String {
    let Some(changes) = changes else { return "-".to_owned() };
    if changes.is_empty() {
        return "same data".to_owned();
    }
    let value = |v: Option<&Zeroizing<Vec<u8>>>, size: Option<u64>| match (v, size) {
        (Some(v), _) => match std::str::from_utf8(v) {
            Ok(text) => format!("{text:?}"),
            Err(_) => {
                format!("base64 {}", base64::engine::general_purpose::STANDARD.encode(v.as_slice()))
            }
        },
        (None, size) => table::bytes(size.unwrap_or_default()),
    };
    let one = |c: &Change| {
        let (old, new) = (value(c.old.as_ref(), c.old_size), value(c.new.as_ref(), c.size));
        match c.word() {
            "added" => format!("+{} ({new})", c.name),
            "removed" => format!("-{} ({old})", c.name),
            _ => format!("~{} ({old} → {new})", c.name),
        }
    };
    changes.iter().map(one).collect::<Vec<_>>().join(" ")
}

impl Report<'_> {
    /// Writes the report.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Json => {
                let document = Document {
                    schema: "atrest.history/v1",
                    source: wire::Source::new(self.source, self.visit),
                    compacted: (self.visit.compacted > 0).then_some(self.visit.compacted),
                    revisions: self.revisions.iter().map(Row::from).collect(),
                    damage: self.visit.damage.iter().map(Into::into).collect(),
                };
                wire::document(&document, out)
            }
            Format::Jsonl => wire::lines(self.revisions.iter().map(Row::from), out),
            Format::Csv => self.csv(out),
            _ => self.table(color, out),
        }
    }

    fn csv(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        let mut header = vec!["revision", "deleted"];
        header.extend(wire::COLUMNS);
        header.extend(["changes", "held_in"]);
        csv.write_record(header)?;
        for r in self.revisions {
            let number = r.number().to_string();
            let held = r.holder().as_str();
            match r {
                Revision::Put { finding, changes, .. } => {
                    let changes =
                        changes.as_ref().map(|c| in_words(Some(c.as_slice()))).unwrap_or_default();
                    let entry = wire::row(finding);
                    let mut row = vec![&*number, "false"];
                    row.extend(entry.iter().map(|c| &**c));
                    let changes = cell(&changes);
                    row.extend([&*changes, held]);
                    csv.write_record(row)?;
                }
                Revision::Delete { key, location, .. } => {
                    let key = String::from_utf8_lossy(key);
                    let namespace = location.namespace.as_deref().unwrap_or_default();
                    let cells = [&*key, &*location.resource, namespace, &*location.name].map(cell);
                    let mut row = vec![&*number, "true"];
                    row.extend(cells.iter().map(|c| &**c));
                    row.resize(2 + wire::COLUMNS.len() + 1, "");
                    row.push(held);
                    csv.write_record(row)?;
                }
            }
        }
        csv.flush()
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        table::source(self.source, self.visit, out)?;
        if self.visit.compacted > 0 {
            write!(out, "; superseded revisions up to {} are compacted", self.visit.compacted)?;
        }
        writeln!(out, "\n")?;
        let puts = || {
            self.revisions.iter().filter_map(|r| match r {
                Revision::Put { finding, .. } => Some(finding),
                Revision::Delete { .. } => None,
            })
        };
        let buried = self.revisions.iter().filter(|r| r.holder() != Holder::KeySpace).count();
        let columns = Columns {
            id: puts().any(|f| f.judged.kms_key_id.is_some()),
            status: puts().any(|f| f.judged.status.is_some()),
            changes: self
                .revisions
                .iter()
                .any(|r| matches!(r, Revision::Put { changes: Some(_), .. })),
            holder: buried > 0,
        };
        let rows = || self.revisions.iter().map(|r| columns.row(r));
        table::long(color, &columns.names(), rows, out)?;
        writeln!(out)?;
        let deletions = self.revisions.len() - puts().count();
        let all = table::counted(self.revisions.len() as u64, "revision", "revisions");
        write!(out, "{all}")?;
        if deletions > 0 {
            write!(out, ", {} of them deletions", table::count(deletions as u64))?;
        }
        let plain = puts().filter(|f| f.judged.provider == Provider::Identity).count();
        if buried > 0 {
            write!(out, ", {} of them compacted and not yet gone", table::count(buried as u64))?;
        }
        writeln!(out, "; {} stored unencrypted", table::count(plain as u64))
    }
}

/// Which columns a table has, besides those that every one has.
#[allow(clippy::struct_excessive_bools)] // they are no states: any of them may be there
#[derive(Clone, Copy)]
struct Columns {
    id: bool,
    status: bool,
    changes: bool,
    holder: bool,
}

impl Columns {
    fn names(self) -> Vec<&'static str> {
        let mut names = vec![">REVISION", "ETCD KEY", "PROVIDER", "VERSION", "KEY"];
        names.extend(self.id.then_some("KMS KEY ID"));
        names.extend(self.status.then_some("STATUS"));
        names.extend([">SIZE", ">WRITE"]);
        names.extend(self.changes.then_some("DATA"));
        names.extend(self.holder.then_some("HELD IN"));
        names
    }

    fn row(self, revision: &Revision) -> (Vec<String>, Mark) {
        let dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let key = |key| String::from_utf8_lossy(key).into_owned();
        let mut row = vec![revision.number().to_string()];
        let mark = match revision {
            Revision::Put { finding: f, changes, .. } => {
                let j = &f.judged;
                row.extend([
                    key(&f.key),
                    j.provider.to_string(),
                    dash(j.version.map(Version::as_str)),
                    dash(j.key_name.as_deref()),
                ]);
                row.extend(self.id.then(|| dash(j.kms_key_id.as_deref())));
                row.extend(self.status.then(|| dash(j.status.map(Status::as_str))));
                row.extend([table::bytes(f.size), f.version_count.to_string()]);
                row.extend(self.changes.then(|| in_words(changes.as_deref())));
                match (j.status, j.provider) {
                    (Some(Status::Unreadable), _) => Mark::Bad,
                    (Some(Status::Stale | Status::Unknown), _) | (None, Provider::Identity) => {
                        Mark::Warn
                    }
                    _ => Mark::Plain,
                }
            }
            Revision::Delete { key: deleted, .. } => {
                row.extend([key(deleted), "deleted".to_owned()]);
                row.resize(self.names().len() - usize::from(self.holder), "-".to_owned());
                Mark::Plain
            }
        };
        row.extend(self.holder.then(|| revision.holder().as_str().to_owned()));
        (row, mark)
    }
}
