//! What `history` prints.

use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine as _;
use serde::Serialize;
use zeroize::Zeroizing;

use super::table::{self, Mark};
use super::text::cell;
use super::{Format, wire};
use crate::envelope::{Provider, Version};
use crate::forensics::changes::Change;
use crate::jobs::history::{Held, Revision};
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
    /// `null` where a record that was lost does not say it.
    revision: Option<i64>,
    deleted: bool,
    held_in: &'static str,
    /// Where in a file a record lies that the source does not read by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    /// `null` where the revision before or this one cannot be read.
    changes: Option<Vec<ChangeRow>>,
    /// Base64, with `--reveal` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<BTreeMap<String, String>>,
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

fn base64(value: &Zeroizing<Vec<u8>>) -> String {
    base64::engine::general_purpose::STANDARD.encode(value.as_slice())
}

impl From<&Change> for ChangeRow {
    fn from(c: &Change) -> Self {
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
        let held_in = r.held().as_str();
        let location = r.held().location().map(str::to_owned);
        match r {
            Revision::Put { finding, changes, data, .. } => Self {
                entry: wire::Entry::from(&**finding),
                revision,
                deleted: false,
                held_in,
                location,
                changes: changes.as_ref().map(|c| c.iter().map(ChangeRow::from).collect()),
                data: (!data.is_empty())
                    .then(|| data.iter().map(|(name, v)| (name.clone(), base64(v))).collect()),
            },
            Revision::Delete { key, location, .. } => Self {
                entry: wire::Entry::deleted(key, location, revision.unwrap_or_default()),
                revision,
                deleted: true,
                held_in,
                location: r.held().location().map(str::to_owned),
                changes: None,
                data: None,
            },
        }
    }
}

/// As text where it is text.
fn value_in_words(value: &Zeroizing<Vec<u8>>) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("base64 {}", base64(value)),
    }
}

/// What a revision changed; where nothing is known to compare it with, the data that are shown:
/// `=token ("…")`.
fn data_in_words(changes: Option<&[Change]>, data: &[(String, Zeroizing<Vec<u8>>)]) -> String {
    if changes.is_some() || data.is_empty() {
        return in_words(changes);
    }
    let one = |(name, value): &(String, _)| format!("={name} ({})", value_in_words(value));
    data.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// `+token (12 B) ~password (8 B → 12 B) -old (4 B)`.
fn in_words(changes: Option<&[Change]>) -> String {
    let Some(changes) = changes else { return "-".to_owned() };
    if changes.is_empty() {
        return "same data".to_owned();
    }
    let value = |v: Option<&Zeroizing<Vec<u8>>>, size: Option<u64>| match (v, size) {
        (Some(v), _) => value_in_words(v),
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
            let number = r.number().map(|n| n.to_string()).unwrap_or_default();
            let held = r.held().as_str();
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
        let in_key_space = Held::By(Holder::KeySpace);
        let lost = self.revisions.iter().filter(|r| r.held().location().is_some()).count();
        let buried = self.revisions.iter().filter(|r| *r.held() != in_key_space).count();
        let columns = Columns {
            id: puts().any(|f| f.judged.kms_key_id.is_some()),
            status: puts().any(|f| f.judged.status.is_some()),
            changes: self
                .revisions
                .iter()
                .any(|r| matches!(r, Revision::Put { changes, data, .. } if changes.is_some() || !data.is_empty())),
            holder: buried > 0,
            location: lost > 0,
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
            let words =
                if lost > 0 { "outside the key space" } else { "compacted and not yet gone" };
            write!(out, ", {} of them {words}", table::count(buried as u64))?;
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
    location: bool,
}

impl Columns {
    fn names(self) -> Vec<&'static str> {
        let mut names = vec![">REVISION", "ETCD KEY", "PROVIDER", "VERSION", "KEY"];
        names.extend(self.id.then_some("KMS KEY ID"));
        names.extend(self.status.then_some("STATUS"));
        names.extend([">SIZE", ">WRITE"]);
        names.extend(self.changes.then_some("DATA"));
        names.extend(self.holder.then_some("HELD IN"));
        names.extend(self.location.then_some("WHERE"));
        names
    }

    fn row(self, revision: &Revision) -> (Vec<String>, Mark) {
        let dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let key = |key| String::from_utf8_lossy(key).into_owned();
        let mut row = vec![revision.number().map_or("-".to_owned(), |n| n.to_string())];
        let mark = match revision {
            Revision::Put { finding: f, changes, data, .. } => {
                let j = &f.judged;
                row.extend([
                    key(&f.key),
                    j.provider.to_string(),
                    dash(j.version.map(Version::as_str)),
                    dash(j.key_name.as_deref()),
                ]);
                row.extend(self.id.then(|| dash(j.kms_key_id.as_deref())));
                row.extend(self.status.then(|| dash(j.status.map(Status::as_str))));
                let count = Some(f.version_count).filter(|n| *n > 0).map(|n| n.to_string());
                row.extend([table::bytes(f.size), dash(count.as_deref())]);
                row.extend(self.changes.then(|| data_in_words(changes.as_deref(), data)));
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
                let tail = usize::from(self.holder) + usize::from(self.location);
                row.resize(self.names().len() - tail, "-".to_owned());
                Mark::Plain
            }
        };
        let held = revision.held();
        row.extend(self.holder.then(|| held.as_str().to_owned()));
        row.extend(self.location.then(|| dash(held.location())));
        (row, mark)
    }
}
