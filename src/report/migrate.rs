//! A migration's plan and outcome → table, JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine as _;
use serde::Serialize;

use super::scan::Group;
use super::{Format, table, wire};
use crate::jobs::confirm::{Answered, Loaded};
use crate::migrate::apply::Outcome;
use crate::migrate::plan::{Failed, Share, Written};
use crate::scan::GroupKey;
use crate::source::{SourceInfo, Visit};
use crate::transform::KeyUse;

/// What is known about the database. Bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Database {
    /// Size of its file.
    pub size: u64,
    /// The part in use.
    pub in_use: u64,
    /// What it may grow to, where the member or the user says so.
    pub quota: Option<u64>,
    /// What the new revisions need, before compaction takes the old ones away.
    pub growth: u64,
}

/// What is known of the API servers on this etcd.
#[derive(Clone, Debug, Serialize)]
pub struct Known {
    /// How many etcd knows of; none if that cannot be read.
    pub seen: Option<usize>,
    /// Their machines or addresses.
    pub names: Vec<String>,
    /// For how many a configuration was given, all of them the same.
    pub confirmed: usize,
    /// Why the number is not known, or may be too small.
    pub reason: Option<String>,
    /// What the servers themselves said, where they were asked; `confirmed` counts those then.
    pub asked: Option<Vec<Asked>>,
}

/// What a running API server said.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// The address that led to it.
    pub address: String,
    /// Its machine, where etcd knows it.
    pub host: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// `this`, `other`, `unknown`.
    pub loaded: &'static str,
    /// SHA-256 of the configuration that it has loaded.
    pub sha256: Option<String>,
}

impl From<&Answered> for Asked {
    fn from(answered: &Answered) -> Self {
        let loaded = answered.metrics.loaded.first();
        Self {
            address: answered.address.clone(),
            host: answered.host.clone(),
            version: answered.metrics.version.clone(),
            loaded: match answered.loaded {
                Loaded::This => "this",
                Loaded::Other(_) => "other",
                Loaded::Untold => "unknown",
            },
            sha256: loaded.map(|l| l.file.trim_start_matches("sha256:").to_owned()),
        }
    }
}

/// Everything that a run of `migrate` has to say.
pub struct Report<'a> {
    /// The etcd.
    pub source: &'a SourceInfo,
    /// The scan that the plan comes from.
    pub visit: &'a Visit,
    /// The configuration.
    pub config: wire::Config,
    /// It was not only planned.
    pub applied: bool,
    /// What would have it written, as the user says it.
    pub apply: &'a str,
    /// It was stopped by a signal.
    pub interrupted: bool,
    /// Entries to rewrite, by how they were stored.
    pub groups: &'a BTreeMap<GroupKey, Share>,
    /// How each resource is written.
    pub written_by: &'a BTreeMap<String, Written>,
    /// Entries of the plan.
    pub planned: u64,
    /// Entries that were current before.
    pub current: u64,
    /// What was done.
    pub outcome: &'a Outcome,
    /// Entries that are not current now, those that cannot be read included.
    pub remaining: u64,
    /// The database before.
    pub database: Option<Database>,
    /// Where the backup is.
    pub backup: Option<String>,
    /// How long it takes at the given rate, seconds.
    pub seconds: Option<u64>,
    /// API servers.
    pub servers: &'a Known,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    source: wire::Source,
    config: &'a wire::Config,
    applied: bool,
    interrupted: bool,
    planned: u64,
    written: u64,
    verified: u64,
    conflicts: u64,
    deleted: u64,
    already_current: u64,
    current_before: u64,
    remaining: u64,
    failed: Vec<FailedEntry<'a>>,
    groups: Vec<Row>,
    database: Option<Database>,
    backup: Option<&'a str>,
    estimated_seconds: Option<u64>,
    apiservers: &'a Known,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    group: Group,
    to: Option<To>,
    bytes_after: Option<u64>,
}

#[derive(Serialize)]
struct To {
    provider: &'static str,
    version: Option<&'static str>,
    key: Option<String>,
    kms_key_id: Option<String>,
}

#[derive(Serialize)]
struct FailedEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
    resource: &'a str,
    reason: &'a str,
}

impl<'a> From<&'a Failed> for FailedEntry<'a> {
    fn from(f: &'a Failed) -> Self {
        let key = std::str::from_utf8(&f.key).ok();
        let encode = || base64::engine::general_purpose::STANDARD.encode(&f.key);
        let key_b64 = key.is_none().then(encode);
        Self { key, key_b64, resource: &f.resource, reason: &f.reason }
    }
}

impl From<&KeyUse> for To {
    fn from(used: &KeyUse) -> Self {
        Self {
            provider: used.provider.as_str(),
            version: used.version.map(crate::envelope::Version::as_str),
            key: used.key.as_deref().map(str::to_owned),
            kms_key_id: used.kms_key_id.as_deref().map(str::to_owned),
        }
    }
}

impl Report<'_> {
    /// Writes the report.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        if format == Format::Json {
            serde_json::to_writer_pretty(&mut *out, &self.document())?;
            return writeln!(out);
        }
        self.table(color, out)
    }

    fn document(&self) -> Document<'_> {
        let row = |(key, share): (&GroupKey, &Share)| {
            let written = self.written_by.get(&key.resource);
            Row {
                group: Group::new(key, share.stored),
                to: written.map(|w| To::from(&w.by)),
                bytes_after: written.map(|w| share.bytes_after(w)),
            }
        };
        Document {
            schema: "atrest.migrate/v1",
            source: wire::Source::new(self.source, self.visit),
            config: &self.config,
            applied: self.applied,
            interrupted: self.interrupted,
            planned: self.planned,
            written: self.outcome.written,
            verified: self.outcome.verified,
            conflicts: self.outcome.conflicts,
            deleted: self.outcome.deleted,
            already_current: self.outcome.already,
            current_before: self.current,
            remaining: self.remaining,
            failed: self.outcome.failed.iter().map(FailedEntry::from).collect(),
            groups: self.groups.iter().map(row).collect(),
            database: self.database,
            backup: self.backup.as_deref(),
            estimated_seconds: self.seconds,
            apiservers: self.servers,
        }
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        if !self.groups.is_empty() {
            let heads = ["RESOURCE", "FROM", "TO", ">ENTRIES", ">BYTES", ">AFTER"];
            let mut rows = table::Builder::new(color, &heads);
            for (key, share) in self.groups {
                let from = KeyUse {
                    config: 0,
                    provider: key.provider,
                    version: key.version,
                    key: key.key_name.as_deref().map(Into::into),
                    kms_key_id: key.kms_key_id.as_deref().map(Into::into),
                };
                let written = self.written_by.get(&key.resource);
                rows.row(
                    vec![
                        key.resource.clone(),
                        named(&from),
                        written.map(|w| named(&w.by)).unwrap_or_default(),
                        table::count(share.stored.entries),
                        table::bytes(share.stored.bytes),
                        written.map(|w| table::bytes(share.bytes_after(w))).unwrap_or_default(),
                    ],
                    table::Mark::Warn,
                );
            }
            writeln!(out, "{rows}")?;
        }
        let o = self.outcome;
        let already = format!("{} current", table::count(self.current));
        if self.planned == 0 {
            writeln!(out, "nothing to rewrite; {already}")?;
        } else if self.applied {
            writeln!(
                out,
                "{} of {} rewritten, {} verified; {already} before",
                table::count(o.written),
                table::entries(self.planned),
                table::count(o.verified)
            )?;
            let others = [
                (o.conflicts, "changed by others meanwhile and tried again"),
                (o.already, "made current by others meanwhile"),
                (o.deleted, "deleted by others meanwhile"),
            ];
            for (n, what) in others.into_iter().filter(|(n, _)| *n > 0) {
                writeln!(out, "{} {what}", table::count(n))?;
            }
        } else {
            writeln!(out, "{} to rewrite; {already} already", table::entries(self.planned))?;
        }
        if !o.failed.is_empty() {
            writeln!(out, "{} failed", table::entries(o.failed.len() as u64))?;
        }
        if let Some(d) = self.database.filter(|_| self.planned > 0) {
            let quota =
                d.quota.map_or("its quota is not told (etcd's default is 2 GiB)".to_owned(), |q| {
                    format!("its quota is {}", table::bytes(q))
                });
            let verb = if self.applied { "had" } else { "has" };
            writeln!(
                out,
                "database {verb} {}, {} in use; rewriting needs about {} until compaction; {quota}",
                table::bytes(d.size),
                table::bytes(d.in_use),
                table::bytes(d.growth)
            )?;
        }
        if let Some(seconds) = self.seconds.filter(|_| !self.applied) {
            writeln!(out, "at the given rate this takes about {seconds} s")?;
        }
        if let Some(seen) = self.servers.seen.filter(|n| *n > 0) {
            let said = if self.servers.asked.is_some() {
                "said that they have loaded this configuration"
            } else {
                "had their configuration compared"
            };
            writeln!(
                out,
                "etcd knows of {seen} API server{}; {} {said}",
                if seen == 1 { "" } else { "s" },
                self.servers.confirmed
            )?;
        }
        if let Some(backup) = &self.backup {
            writeln!(out, "backup: {backup}")?;
        }
        if self.applied {
            writeln!(out, "{} remaining", table::count(self.remaining))?;
        } else if self.planned > 0 {
            writeln!(out, "nothing was written; {} does it", self.apply)?;
        }
        Ok(())
    }
}

/// Provider, version, key and KMS key ID in one cell.
fn named(used: &KeyUse) -> String {
    let mut text = used.provider.to_string();
    for part in [used.version.map(crate::envelope::Version::as_str), used.key.as_deref()]
        .into_iter()
        .flatten()
    {
        text.push(' ');
        text.push_str(part);
    }
    if let Some(id) = &used.kms_key_id {
        text.push_str(" (");
        text.push_str(id);
        text.push(')');
    }
    text
}
