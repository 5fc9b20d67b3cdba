//! A migration's plan and outcome → table, JSON, HTML.

use std::io::{self, Write};

use serde::Serialize;

use super::scan::Group;
use super::table::Mark;
use super::{Format, page, table, wire};
use crate::envelope::StoredUnder;
use crate::jobs::confirm::{Answered, Loaded};
use crate::jobs::migrate as job;
use crate::jobs::migrate::servers::Known;
use crate::migrate::followed::{Ended, Followed};
use crate::migrate::plan::{Failed, Share};
use crate::scan::GroupKey;
use crate::transform::KeyUse;

/// What a running API server said.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// The address that led to it.
    pub address: String,
    /// Its machine, where etcd knows it.
    pub host: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// `this`, `other`, `unknown`; of who was to read a canary `reads`,
    /// `unreadable`, `absent`.
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
                Loaded::Reads => "reads",
                Loaded::Cannot(_) => "unreadable",
                Loaded::Absent => "absent",
                Loaded::Untold => "unknown",
            },
            sha256: loaded.map(|l| l.file.trim_start_matches("sha256:").to_owned()),
        }
    }
}

/// Everything that a run of `migrate` has to say.
pub struct Report<'a> {
    /// What was planned and done.
    pub outcome: &'a job::Outcome,
    /// The configuration.
    pub config: wire::Config,
    /// It was not only planned.
    pub applied: bool,
    /// What would have it written, as the user says it.
    pub apply: &'a str,
    /// Entries a second, at most.
    pub qps: Option<f64>,
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
    backup: Option<String>,
    estimated_seconds: Option<u64>,
    apiservers: Servers<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    storage_version_migrations: Vec<Migration<'a>>,
}

/// A migration of the cluster's own.
#[derive(Serialize)]
pub(super) struct Migration<'a> {
    resource: &'a str,
    name: &'a str,
    made_before: Option<&'a str>,
    state: &'static str,
    reason: Option<&'a str>,
}

impl<'a> From<&'a Followed> for Migration<'a> {
    fn from(f: &'a Followed) -> Self {
        let (state, reason) = match &f.ended {
            Ended::Succeeded => ("succeeded", None),
            Ended::Failed(why) => ("failed", Some(&**why)),
            Ended::Running => ("running", None),
        };
        let made_before = f.made_before.as_deref();
        Self { resource: &f.resource, name: &f.name, made_before, state, reason }
    }
}

impl Migration<'_> {
    /// A line of it.
    pub(super) fn line(&self) -> String {
        let name = table::visible(self.name);
        let before = self.made_before.map_or(String::new(), |time| {
            format!(", which was under way already, made at {}", table::visible(time))
        });
        format!("StorageVersionMigration {name} of {}{before}: {}", self.resource, self.state)
    }
}

#[derive(Serialize)]
struct Database {
    size: u64,
    in_use: u64,
    quota: Option<u64>,
    growth: u64,
}

impl From<job::Database> for Database {
    fn from(d: job::Database) -> Self {
        Self { size: d.size, in_use: d.in_use, quota: d.quota, growth: d.growth }
    }
}

#[derive(Serialize)]
struct Servers<'a> {
    seen: Option<usize>,
    names: &'a [String],
    confirmed: usize,
    reason: Option<&'a str>,
    asked: Option<Vec<Asked>>,
}

impl<'a> From<&'a Known> for Servers<'a> {
    fn from(known: &'a Known) -> Self {
        Self {
            seen: known.seen,
            names: &known.names,
            confirmed: known.confirmed,
            reason: known.reason.as_deref(),
            asked: known.asked.as_ref().map(|all| all.iter().map(Asked::from).collect()),
        }
    }
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
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
    resource: &'a str,
    reason: &'a str,
}

impl<'a> From<&'a Failed> for FailedEntry<'a> {
    fn from(f: &'a Failed) -> Self {
        let (key, key_b64) = wire::key_fields(&f.key);
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
        match format {
            Format::Json => wire::document(&self.document(), out),
            Format::Html => self.html(out),
            _ => self.table(color, out),
        }
    }

    fn document(&self) -> Document<'_> {
        let outcome = self.outcome;
        let done = &outcome.done;
        let row = |(key, share): (&GroupKey, &Share)| {
            let written = outcome.written_by.get(&key.resource);
            Row {
                group: Group::new(key, share.stored),
                to: written.map(|w| To::from(&w.by)),
                bytes_after: written.map(|w| share.bytes_after(w)),
            }
        };
        Document {
            schema: "atrest.migrate/v1",
            source: wire::Source::new(&outcome.info, &outcome.visit),
            config: &self.config,
            applied: self.applied,
            interrupted: outcome.interrupted,
            planned: outcome.planned,
            written: done.written,
            verified: done.verified,
            conflicts: done.conflicts,
            deleted: done.deleted,
            already_current: done.already,
            current_before: outcome.current,
            remaining: outcome.remaining,
            failed: done.failed.iter().map(FailedEntry::from).collect(),
            groups: outcome.groups.iter().map(row).collect(),
            database: outcome.database.map(Database::from),
            backup: self.backup(),
            estimated_seconds: self.seconds(),
            apiservers: self.servers.into(),
            storage_version_migrations: done.migrations.iter().map(Migration::from).collect(),
        }
    }

    fn backup(&self) -> Option<String> {
        self.outcome.backup.as_ref().map(|path| path.display().to_string())
    }

    fn seconds(&self) -> Option<u64> {
        wire::seconds(self.outcome.planned, self.qps)
    }

    fn rows(&self) -> impl Iterator<Item = (Vec<String>, table::Mark)> {
        self.outcome.groups.iter().map(|(key, share)| {
            let from = KeyUse {
                config: 0,
                provider: key.provider,
                version: key.version,
                key: key.key_name.as_deref().map(Into::into),
                kms_key_id: key.kms_key_id.as_deref().map(Into::into),
            };
            let written = self.outcome.written_by.get(&key.resource);
            let cells = vec![
                key.resource.clone(),
                stored_under(&from),
                written.map(|w| stored_under(&w.by)).unwrap_or_default(),
                table::count(share.stored.entries),
                table::bytes(share.stored.bytes),
                written.map(|w| table::bytes(share.bytes_after(w))).unwrap_or_default(),
            ];
            (cells, table::Mark::Warn)
        })
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        if !self.outcome.groups.is_empty() {
            let mut rows = table::Builder::new(color, &COLUMNS);
            self.rows().for_each(|(cells, mark)| rows.row(cells, mark));
            writeln!(out, "{rows}")?;
        }
        writeln!(out, "{}", self.sentence())?;
        for line in self.more() {
            writeln!(out, "{line}")?;
        }
        if self.applied {
            writeln!(out, "{} remaining", table::count(self.outcome.remaining))?;
        } else if self.outcome.planned > 0 {
            writeln!(out, "nothing was written; {} does it", self.apply)?;
        }
        Ok(())
    }

    /// The whole in a sentence.
    fn sentence(&self) -> String {
        let done = &self.outcome.done;
        let already = format!("{} current", table::count(self.outcome.current));
        if self.outcome.planned == 0 {
            format!("nothing to rewrite; {already}")
        } else if self.applied {
            format!(
                "{} of {} rewritten, {} verified; {already} before",
                table::count(done.written),
                table::entries(self.outcome.planned),
                table::count(done.verified)
            )
        } else {
            format!("{} to rewrite; {already} already", table::entries(self.outcome.planned))
        }
    }

    /// What else there is to say, a line each.
    fn more(&self) -> Vec<String> {
        let done = &self.outcome.done;
        let others = [
            (done.conflicts, "changed by others meanwhile and tried again"),
            (done.already, "made current by others meanwhile"),
            (done.deleted, "deleted by others meanwhile"),
        ];
        let others = others.into_iter().filter(|(n, _)| self.applied && *n > 0);
        let mut lines: Vec<_> =
            others.map(|(n, what)| format!("{} {what}", table::count(n))).collect();
        if !done.failed.is_empty() {
            lines.push(format!("{} failed", table::entries(done.failed.len() as u64)));
        }
        if let Some(d) = self.outcome.database.filter(|_| self.outcome.planned > 0) {
            let quota =
                d.quota.map_or("its quota is not told (etcd's default is 2 GiB)".to_owned(), |q| {
                    format!("its quota is {}", table::bytes(q))
                });
            let verb = if self.applied { "had" } else { "has" };
            lines.push(format!(
                "database {verb} {}, {} in use; rewriting needs about {} until compaction; {quota}",
                table::bytes(d.size),
                table::bytes(d.in_use),
                table::bytes(d.growth)
            ));
        }
        if let Some(seconds) = self.seconds().filter(|_| !self.applied) {
            lines.push(format!("at the given rate this takes about {seconds} s"));
        }
        if let Some(seen) = self.servers.seen.filter(|n| *n > 0) {
            let said = if self.servers.asked.is_some() {
                "said that they have loaded this configuration"
            } else {
                "had their configuration compared"
            };
            lines.push(format!(
                "etcd knows of {seen} API server{}; {} {said}",
                if seen == 1 { "" } else { "s" },
                self.servers.confirmed
            ));
        }
        lines.extend(done.migrations.iter().map(|m| Migration::from(m).line()));
        lines.extend(self.backup().map(|backup| format!("backup: {backup}")));
        lines
    }

    fn html(&self, out: &mut dyn Write) -> io::Result<()> {
        let outcome = self.outcome;
        let what = if self.applied { "Migration" } else { "Plan of a migration" };
        page::head(what, &outcome.info.location, out)?;
        for (mark, sentence) in self.verdict() {
            page::verdict_line(mark, &sentence, out)?;
        }
        let left = if self.applied { outcome.remaining } else { outcome.planned };
        let rewritten = if self.applied { outcome.planned.saturating_sub(left) } else { 0 };
        let shares = [
            (if self.applied { "remaining" } else { "to rewrite" }, left, Mark::Warn),
            ("rewritten", rewritten, Mark::Good),
            ("current before", outcome.current, Mark::Good),
        ];
        page::shares(&shares, out)?;
        page::facts(&page::read(&outcome.info, &outcome.visit, Some(&self.config)), out)?;
        page::damage(&outcome.visit.damage, out)?;
        if !outcome.done.failed.is_empty() {
            let rows = outcome.done.failed.iter().map(|f| {
                let key = String::from_utf8_lossy(&f.key).into_owned();
                (vec![key, f.resource.clone(), f.reason.clone()], Mark::Bad)
            });
            page::table("Failed", &["ETCD KEY", "RESOURCE", "REASON"], rows, out)?;
        }
        if !outcome.groups.is_empty() {
            page::table("What is rewritten", &COLUMNS, self.rows(), out)?;
        }
        page::foot(out)
    }

    fn verdict(&self) -> Vec<(Mark, String)> {
        let outcome = self.outcome;
        let mut out: Vec<_> = page::incomplete(&outcome.visit.damage).into_iter().collect();
        if outcome.interrupted {
            out.push((Mark::Bad, "Interrupted before its end.".to_owned()));
        }
        let left = if self.applied { outcome.remaining } else { outcome.planned };
        let mark = match (left, outcome.done.failed.is_empty()) {
            (_, false) => Mark::Bad,
            (0, true) if outcome.current + outcome.planned > 0 => Mark::Good,
            _ => Mark::Warn,
        };
        out.push((mark, self.sentence()));
        if self.applied {
            out.push((mark, format!("{} remaining", table::count(outcome.remaining))));
        }
        out.extend(self.more().into_iter().map(|line| (Mark::Plain, line)));
        out
    }
}

const COLUMNS: [&str; 6] = ["RESOURCE", "FROM", "TO", ">ENTRIES", ">BYTES", ">AFTER"];

/// Provider, version, key and KMS key ID in one cell.
fn stored_under(used: &KeyUse) -> String {
    StoredUnder {
        provider: used.provider,
        version: used.version,
        key: used.key.as_deref(),
        kms_key_id: used.kms_key_id.as_deref(),
    }
    .to_string()
}
