//! What `history` prints.

use std::io::{self, Write};

use serde::Serialize;

use super::table::{self, Builder, Mark};
use super::{Format, wire};
use crate::envelope::{Provider, Version};
use crate::resource::Location;
use crate::scan::{Finding, Status};
use crate::source::{SourceInfo, Visit};

/// A finished history.
pub struct Report<'a> {
    /// Where was read.
    pub source: &'a SourceInfo,
    /// Its revision, compaction and damage.
    pub visit: &'a Visit,
    /// Every revision held, ascending.
    pub revisions: &'a [Revision],
}

/// One revision of one key.
#[derive(Clone, Debug)]
pub enum Revision {
    /// A write.
    Put(Box<Finding>),
    /// A deletion.
    Delete {
        /// The full etcd key.
        key: Vec<u8>,
        /// Group-qualified resource, namespace and name.
        location: Location<'static>,
        /// When.
        revision: i64,
    },
}

impl Revision {
    fn number(&self) -> i64 {
        match self {
            Self::Put(f) => f.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }
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
}

impl From<&Revision> for Row {
    fn from(r: &Revision) -> Self {
        let (entry, deleted) = match r {
            Revision::Put(f) => (wire::Entry::from(&**f), false),
            Revision::Delete { key, location, revision } => {
                (wire::Entry::deleted(key, location, *revision), true)
            }
        };
        Self { entry, revision: r.number(), deleted }
    }
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
                serde_json::to_writer_pretty(&mut *out, &document)?;
                writeln!(out)
            }
            Format::Jsonl => {
                for revision in self.revisions {
                    serde_json::to_writer(&mut *out, &Row::from(revision))?;
                    writeln!(out)?;
                }
                Ok(())
            }
            Format::Csv => self.csv(out),
            _ => self.table(color, out),
        }
    }

    fn csv(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record([
            "revision",
            "deleted",
            "key",
            "resource",
            "namespace",
            "name",
            "provider",
            "version",
            "key_name",
            "kms_key_id",
            "status",
            "reason",
            "size",
            "create_revision",
            "mod_revision",
            "version_count",
        ])?;
        for r in self.revisions {
            let number = r.number().to_string();
            match r {
                Revision::Put(f) => {
                    let j = &f.judged;
                    csv.write_record([
                        number.as_str(),
                        "false",
                        &String::from_utf8_lossy(&f.key),
                        &f.resource,
                        f.namespace.as_deref().unwrap_or_default(),
                        &f.name,
                        j.provider.as_str(),
                        j.version.map_or("", Version::as_str),
                        j.key_name.as_deref().unwrap_or_default(),
                        j.kms_key_id.as_deref().unwrap_or_default(),
                        j.status.map_or("", Status::as_str),
                        j.reason.as_deref().unwrap_or_default(),
                        &f.size.to_string(),
                        &f.create_revision.to_string(),
                        &f.mod_revision.to_string(),
                        &f.version_count.to_string(),
                    ])?;
                }
                Revision::Delete { key, location, .. } => {
                    let key = String::from_utf8_lossy(key);
                    let namespace = location.namespace.as_deref().unwrap_or_default();
                    let mut row = vec![&*number, "true", &key, &location.resource];
                    row.extend([namespace, &location.name]);
                    row.resize(16, "");
                    csv.write_record(row)?;
                }
            }
        }
        csv.flush()
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        write!(
            out,
            "{} {} at revision {}",
            self.source.kind.as_str(),
            table::visible(&self.source.location),
            self.visit.revision
        )?;
        if self.visit.compacted > 0 {
            write!(out, "; superseded revisions up to {} are compacted", self.visit.compacted)?;
        }
        writeln!(out, "\n")?;
        let puts = || {
            self.revisions.iter().filter_map(|r| match r {
                Revision::Put(f) => Some(f),
                Revision::Delete { .. } => None,
            })
        };
        let with_id = puts().any(|f| f.judged.kms_key_id.is_some());
        let with_status = puts().any(|f| f.judged.status.is_some());
        let mut columns = vec![">REVISION", "ETCD KEY", "PROVIDER", "VERSION", "KEY"];
        columns.extend(with_id.then_some("KMS KEY ID"));
        columns.extend(with_status.then_some("STATUS"));
        columns.extend([">SIZE", ">WRITE"]);
        let mut rows = Builder::new(color, &columns);
        let dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
        for r in self.revisions {
            let number = r.number().to_string();
            match r {
                Revision::Put(f) => {
                    let j = &f.judged;
                    let mut row = vec![
                        number,
                        String::from_utf8_lossy(&f.key).into_owned(),
                        j.provider.to_string(),
                        dash(j.version.map(Version::as_str)),
                        dash(j.key_name.as_deref()),
                    ];
                    row.extend(with_id.then(|| dash(j.kms_key_id.as_deref())));
                    row.extend(with_status.then(|| dash(j.status.map(Status::as_str))));
                    row.extend([table::bytes(f.size), f.version_count.to_string()]);
                    let mark = match (j.status, j.provider) {
                        (Some(Status::Unreadable), _) => Mark::Bad,
                        (Some(Status::Stale), _) | (None, Provider::Identity) => Mark::Warn,
                        _ => Mark::Plain,
                    };
                    rows.row(row, mark);
                }
                Revision::Delete { key, .. } => {
                    let key = String::from_utf8_lossy(key).into_owned();
                    let mut row = vec![number, key, "deleted".to_owned()];
                    row.resize(columns.len(), "-".to_owned());
                    rows.row(row, Mark::Plain);
                }
            }
        }
        writeln!(out, "{rows}")?;
        let deletions = self.revisions.len() - puts().count();
        write!(out, "{} revisions", table::count(self.revisions.len() as u64))?;
        if deletions > 0 {
            write!(out, ", {} of them deletions", table::count(deletions as u64))?;
        }
        let plain = puts().filter(|f| f.judged.provider == Provider::Identity).count();
        writeln!(out, "; {} stored unencrypted", table::count(plain as u64))
    }
}
