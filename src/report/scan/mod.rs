//! What `scan` prints.

mod html;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use crate::config::ConfigSet;
use crate::envelope::{Provider, Version};
use crate::jobs::scan::Also;
use crate::report::table::{self, Builder, Mark};
use crate::report::text::cell;
use crate::report::{Format, wire};
use crate::scan::{Counts, Finding, GroupKey, Reads, Status, Tally};
use crate::source::{SourceInfo, Visit};
use crate::visible::label;

/// A finished scan.
pub struct Report<'a> {
    /// Where the entries came from.
    pub source: &'a SourceInfo,
    /// What the source said about the visit.
    pub visit: &'a Visit,
    /// The configuration that statuses are relative to.
    pub config: Option<wire::Config>,
    /// Which file's which key read how many entries, where several were given.
    pub reads: Vec<KeyReads>,
    /// Counts.
    pub counts: &'a Counts,
    /// Other sources that were read in the same scan.
    pub also: &'a [Also],
    /// Entries of resources that are kept in one of these, and lie in the first source.
    pub left_behind: &'a BTreeMap<String, u64>,
    /// What was looked for, in words.
    pub looked_for: String,
    /// Whether every entry was decrypted, and not judged by its prefix alone.
    pub verified: bool,
    /// Entries, where a list was asked for.
    pub entries: Option<&'a [Finding]>,
    /// Seconds since the epoch.
    pub timestamp: u64,
}

/// How many entries one key of one file read.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct KeyReads {
    /// The configuration file.
    pub config: String,
    /// Provider.
    pub provider: String,
    /// Key or plugin name.
    pub key: Option<String>,
    /// Entries it read.
    pub entries: u64,
}

impl KeyReads {
    /// Names the files that the keys are of.
    #[must_use]
    pub fn of(reads: &[Reads], configs: &ConfigSet) -> Vec<Self> {
        let location = |i: usize| configs.files().get(i).map(|file| file.location.clone());
        let named = |r: &Reads| Self {
            config: location(r.used.config).unwrap_or_default(),
            provider: r.used.provider.to_string(),
            key: r.used.key.as_ref().map(ToString::to_string),
            entries: r.entries,
        };
        reads.iter().map(named).collect()
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    source: wire::Source,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also: Vec<AlsoRead<'a>>,
    config: Option<wire::Config>,
    totals: Totals,
    groups: Vec<Group>,
    never_encrypted: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    left_behind: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reads: Vec<KeyReads>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<wire::Damage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Entries<'a>>,
}

/// Another source of the same scan.
#[derive(Serialize)]
struct AlsoRead<'a> {
    #[serde(flatten)]
    source: wire::Source,
    resources: &'a [String],
}

impl<'a> From<&'a Also> for AlsoRead<'a> {
    fn from(also: &'a Also) -> Self {
        let visit = Visit { revision: also.revision, ..Visit::default() };
        Self { source: wire::Source::new(&also.info, &visit), resources: &also.resources }
    }
}

/// Made into what is written one by one: there may be hundreds of thousands.
struct Entries<'a>(&'a [Finding]);

impl Serialize for Entries<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(wire::Entry::from))
    }
}

/// The same on one line, while `--watch` runs.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    document: Document<'a>,
    remaining: u64,
    /// Of these, entries that were not asked for.
    #[serde(skip_serializing_if = "none")]
    remaining_elsewhere: u64,
    time: &'a str,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde wants it so
fn none(n: &u64) -> bool {
    *n == 0
}

/// Where some resources were read, in words.
fn also_read(also: &Also) -> String {
    format!(
        "{} from {} {} at revision {}",
        also.resources.join(", "),
        also.info.kind.as_str(),
        table::visible(&also.info.location),
        also.revision
    )
}

#[derive(Serialize)]
struct Totals {
    entries: u64,
    plaintext: u64,
    encrypted: u64,
    current: Option<u64>,
    stale: Option<u64>,
    unreadable: Option<u64>,
    unknown: Option<u64>,
    misplaced: Option<u64>,
}

/// One row of counts, as `scan` and `migrate` print it.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    resource: String,
    provider: &'static str,
    version: Option<&'static str>,
    key: Option<String>,
    kms_key_id: Option<String>,
    status: Option<&'static str>,
    entries: u64,
    bytes: u64,
}

impl Group {
    /// From a group and its counts.
    #[must_use]
    pub fn new(key: &GroupKey, tally: Tally) -> Self {
        Self {
            resource: key.resource.clone(),
            provider: key.provider.as_str(),
            version: key.version.map(Version::as_str),
            key: key.key_name.clone(),
            kms_key_id: key.kms_key_id.clone(),
            status: key.status.map(Status::as_str),
            entries: tally.entries,
            bytes: tally.bytes,
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
            Format::Jsonl => {
                wire::lines(self.entries.unwrap_or_default().iter().map(wire::Entry::from), out)
            }
            Format::Csv => self.csv(out),
            Format::Prometheus => self.prometheus(out),
            Format::Html => html::write(self, out),
            _ => self.table(color, out),
        }
    }

    /// Writes the report as one line of JSON, with what is left to rewrite and the time.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write_line(
        &self,
        time: &str,
        (remaining, remaining_elsewhere): (u64, u64),
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let line = Line { document: self.document(), remaining, remaining_elsewhere, time };
        serde_json::to_writer(&mut *out, &line)?;
        writeln!(out)
    }

    fn document(&self) -> Document<'_> {
        let totals = self.counts.totals();
        let known = |n: u64| self.config.as_ref().map(|_| n);
        Document {
            schema: "atrest.scan/v1",
            source: wire::Source::new(self.source, self.visit),
            also: self.also.iter().map(Into::into).collect(),
            config: self.config.clone(),
            totals: Totals {
                entries: totals.entries,
                plaintext: totals.plaintext,
                encrypted: totals.encrypted,
                current: known(totals.current),
                stale: known(totals.stale),
                unreadable: known(totals.unreadable),
                unknown: known(totals.unknown),
                misplaced: self.verified.then_some(totals.misplaced),
            },
            groups: self.counts.groups().into_iter().map(|(k, t)| Group::new(k, t)).collect(),
            never_encrypted: self.counts.internal,
            left_behind: self.left_behind,
            reads: self.reads.clone(),
            damage: self.visit.damage.iter().map(Into::into).collect(),
            entries: self.entries.map(Entries),
        }
    }

    fn csv(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        if let Some(entries) = self.entries {
            csv.write_record(wire::COLUMNS)?;
            for finding in entries {
                csv.write_record(wire::row(finding).iter().map(|c| c.as_bytes()))?;
            }
        } else {
            let groups = self.counts.groups();
            csv.write_record([
                "resource",
                "provider",
                "version",
                "key",
                "kms_key_id",
                "status",
                "entries",
                "bytes",
            ])?;
            for (key, tally) in &groups {
                csv.write_record([
                    &*cell(&key.resource),
                    key.provider.as_str(),
                    key.version.map_or("", Version::as_str),
                    &cell(key.key_name.as_deref().unwrap_or_default()),
                    &cell(key.kms_key_id.as_deref().unwrap_or_default()),
                    key.status.map_or("", Status::as_str),
                    &tally.entries.to_string(),
                    &tally.bytes.to_string(),
                ])?;
            }
        }
        csv.flush()
    }

    fn prometheus(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "# HELP atrest_entries Entries in etcd by how they are stored.")?;
        writeln!(out, "# TYPE atrest_entries gauge")?;
        let mut lines: Vec<(String, u64)> = Vec::new();
        for (key, tally) in self.counts.groups() {
            let labels = format!(
                "resource=\"{}\",provider=\"{}\",version=\"{}\",key=\"{}\",status=\"{}\"",
                label(&key.resource),
                key.provider,
                key.version.map_or("", Version::as_str),
                label(key.key_name.as_deref().unwrap_or_default()),
                key.status.map_or("", Status::as_str),
            );
            // KMS key IDs are no label, so that a rotation does not start new series.
            match lines.last_mut() {
                Some((last, n)) if *last == labels => *n += tally.entries,
                _ => match lines.iter_mut().find(|(l, _)| *l == labels) {
                    Some((_, n)) => *n += tally.entries,
                    None => lines.push((labels, tally.entries)),
                },
            }
        }
        for (labels, n) in lines {
            writeln!(out, "atrest_entries{{{labels}}} {n}")?;
        }
        for (name, help, value) in [
            (
                "atrest_entries_plaintext",
                "Entries stored unencrypted.",
                self.counts.totals().plaintext.to_string(),
            ),
            (
                "atrest_scan_revision",
                "etcd revision that was scanned.",
                self.visit.revision.to_string(),
            ),
            (
                "atrest_scan_timestamp_seconds",
                "When the scan ended, seconds since the epoch.",
                self.timestamp.to_string(),
            ),
        ] {
            // An archive of objects has no revision.
            if name != "atrest_scan_revision" || !self.source.kind.is_archive() {
                writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}")?;
            }
        }
        if self.verified {
            let (name, value) = ("atrest_entries_misplaced", self.counts.misplaced);
            let help = "Entries that hold another object than their key says.";
            writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}")?;
        }
        Ok(())
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let with_status = self.config.is_some();
        let groups = self.counts.groups();
        table::heading(self.source, self.visit, self.config.as_ref(), out)?;
        for also in self.also {
            writeln!(out, "{}", also_read(also))?;
        }
        writeln!(out)?;
        if let Some(entries) = self.entries {
            let rows = || entries.iter().map(|f| entry_row(f, with_status));
            table::long(color, &entry_columns(with_status), rows, out)?;
            if !entries.is_empty() {
                writeln!(out)?;
            }
        }
        if !groups.is_empty() {
            writeln!(out, "{}", group_table(&groups, with_status, color))?;
        }
        let several = self.config.as_ref().is_some_and(|c| !c.also.is_empty());
        for read in self.reads.iter().filter(|_| several) {
            writeln!(
                out,
                "read by {} {} of {}: {}",
                read.provider,
                table::visible(read.key.as_deref().unwrap_or("-")),
                table::visible(&read.config),
                table::entries(read.entries)
            )?;
        }
        writeln!(out, "{}", sum(&self.counts.totals(), with_status))?;
        if self.counts.internal > 0 {
            writeln!(
                out,
                "besides {} that the API server never encrypts (leases of API servers, allocation ranges, bookkeeping)",
                table::entries(self.counts.internal)
            )?;
        }
        Ok(())
    }
}

/// The totals in a line.
pub(super) fn sum(totals: &crate::scan::Totals, with_status: bool) -> String {
    let count = table::count;
    let mut parts = vec![format!(
        "{}: {} plaintext, {} encrypted",
        table::entries(totals.entries),
        count(totals.plaintext),
        count(totals.encrypted)
    )];
    parts.extend(with_status.then(|| statuses(totals)));
    if totals.misplaced > 0 {
        parts.push(format!("{} misplaced", count(totals.misplaced)));
    }
    parts.join("; ")
}

/// The totals by status.
#[must_use]
pub fn statuses(totals: &crate::scan::Totals) -> String {
    let count = table::count;
    let mut text = format!(
        "{} current, {} stale, {} unreadable",
        count(totals.current),
        count(totals.stale),
        count(totals.unreadable)
    );
    if totals.unknown > 0 {
        text.push_str(", ");
        text.push_str(&count(totals.unknown));
        text.push_str(" unknown");
    }
    text
}

fn dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}

fn mark(provider: Provider, status: Option<Status>) -> Mark {
    match (status, provider) {
        (Some(Status::Unreadable), _) | (None, Provider::Unknown) => Mark::Bad,
        (Some(Status::Stale | Status::Unknown), _) | (None, Provider::Identity) => Mark::Warn,
        (Some(Status::Current), Provider::Identity) | (None, _) => Mark::Plain,
        (Some(Status::Current), _) => Mark::Good,
    }
}

/// Groups as rows of text; columns whose name begins with `>` hold numbers.
pub(super) struct GroupRows {
    with_id: bool,
    with_status: bool,
}

impl GroupRows {
    pub(super) fn new(groups: &[(&GroupKey, Tally)], with_status: bool) -> Self {
        Self { with_id: groups.iter().any(|(k, _)| k.kms_key_id.is_some()), with_status }
    }

    pub(super) fn columns(&self) -> Vec<&'static str> {
        let mut columns = vec!["RESOURCE", "PROVIDER", "VERSION", "KEY"];
        columns.extend(self.with_id.then_some("KMS KEY ID"));
        columns.extend(self.with_status.then_some("STATUS"));
        columns.extend([">ENTRIES", ">SIZE"]);
        columns
    }

    pub(super) fn row(&self, k: &GroupKey, tally: Tally) -> (Vec<String>, Mark) {
        let mut row = vec![
            k.resource.clone(),
            k.provider.to_string(),
            dash(k.version.map(Version::as_str)),
            dash(k.key_name.as_deref()),
        ];
        row.extend(self.with_id.then(|| dash(k.kms_key_id.as_deref())));
        row.extend(self.with_status.then(|| dash(k.status.map(Status::as_str))));
        row.extend([table::count(tally.entries), table::bytes(tally.bytes)]);
        (row, mark(k.provider, k.status))
    }
}

/// Columns of [`entry_row`].
pub(super) fn entry_columns(with_status: bool) -> Vec<&'static str> {
    let mut columns = vec!["ETCD KEY", "PROVIDER", "VERSION", "KEY"];
    columns.extend(with_status.then_some("STATUS"));
    columns.extend([">REVISION", ">SIZE"]);
    columns.extend(with_status.then_some("REASON"));
    columns
}

pub(super) fn entry_row(f: &Finding, with_status: bool) -> (Vec<String>, Mark) {
    let j = &f.judged;
    let mut row = vec![
        String::from_utf8_lossy(&f.key).into_owned(),
        j.provider.to_string(),
        dash(j.version.map(Version::as_str)),
        dash(j.key_name.as_deref()),
    ];
    row.extend(with_status.then(|| dash(j.status.map(Status::as_str))));
    row.extend([f.mod_revision.to_string(), table::bytes(f.size)]);
    row.extend(with_status.then(|| j.why().unwrap_or_default().into_owned()));
    (row, entry_mark(f))
}

fn entry_mark(f: &Finding) -> Mark {
    let j = &f.judged;
    if j.misplaced.is_some() { Mark::Bad } else { mark(j.provider, j.status) }
}

fn group_table(groups: &[(&GroupKey, Tally)], with_status: bool, color: bool) -> Builder {
    let rows = GroupRows::new(groups, with_status);
    let mut t = Builder::new(color, &rows.columns());
    for (key, tally) in groups {
        let (row, mark) = rows.row(key, *tally);
        t.row(row, mark);
    }
    t
}
