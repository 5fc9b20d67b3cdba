//! What `backups` prints.

use std::io::{self, Write};

use serde::Serialize;

use super::table::{self, Builder, Mark};
use super::{Format, wire};
use crate::jobs::backups::{Backup, Kind, Outcome};

/// What was found, and how to read it.
pub struct Report<'a> {
    /// The outcome.
    pub outcome: &'a Outcome,
    /// Values were decrypted.
    pub verified: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    backups: Vec<Row<'a>>,
    keys: Vec<Needed<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    location: String,
    kind: &'static str,
    taken: Option<String>,
    revision: Option<i64>,
    totals: Option<Totals>,
    keys: Vec<Under<'a>>,
    residue: Option<u64>,
    error: Option<&'a str>,
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

#[derive(Serialize)]
struct Under<'a> {
    provider: &'static str,
    key: Option<&'a str>,
    entries: u64,
}

#[derive(Serialize)]
struct Needed<'a> {
    provider: &'static str,
    key: Option<&'a str>,
    backups: u64,
    oldest: Option<String>,
    newest: Option<String>,
}

impl Report<'_> {
    /// Writes the report.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let rows = self.outcome.backups.iter().map(|b| self.row(b));
        match format {
            Format::Json => {
                let document = Document {
                    schema: "atrest.backups/v1",
                    backups: rows.collect(),
                    keys: self.needed(),
                };
                wire::document(&document, out)
            }
            Format::Jsonl => wire::lines(rows, out),
            _ => self.table(color, out),
        }
    }

    fn row<'a>(&self, b: &'a Backup) -> Row<'a> {
        let known = |n: u64| self.verified.then_some(n);
        Row {
            location: b.location.display().to_string(),
            kind: b.kind.as_str(),
            taken: b.taken.map(|t| t.to_string()),
            revision: b.revision,
            totals: b.totals.map(|t| Totals {
                entries: t.entries,
                plaintext: t.plaintext,
                encrypted: t.encrypted,
                current: known(t.current),
                stale: known(t.stale),
                unreadable: known(t.unreadable),
                unknown: known(t.unknown),
                misplaced: known(t.misplaced),
            }),
            keys: b
                .keys
                .iter()
                .map(|(key, entries)| Under {
                    provider: key.provider.as_str(),
                    key: key.name.as_deref(),
                    entries: *entries,
                })
                .collect(),
            residue: b.residue,
            error: b.error.as_deref(),
        }
    }

    fn needed(&self) -> Vec<Needed<'_>> {
        self.outcome
            .keys
            .iter()
            .map(|n| Needed {
                provider: n.key.provider.as_str(),
                key: n.key.name.as_deref(),
                backups: n.backups,
                oldest: n.oldest.map(|t| t.to_string()),
                newest: n.newest.map(|t| t.to_string()),
            })
            .collect()
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let dash = || "-".to_owned();
        let number = |n: Option<u64>| n.map_or_else(dash, table::count);
        let columns = [
            "LOCATION",
            "KIND",
            "TAKEN",
            ">REVISION",
            ">ENTRIES",
            ">PLAINTEXT",
            ">UNREADABLE",
            ">RESIDUE",
            "ERROR",
        ];
        let mut builder = Builder::new(color, &columns);
        for b in &self.outcome.backups {
            let plaintext = b.totals.map(|t| t.plaintext);
            let unreadable = b.totals.filter(|_| self.verified).map(|t| t.unreadable);
            let mark = if b.error.is_some() || unreadable.is_some_and(|n| n > 0) {
                Mark::Bad
            } else if plaintext.is_some_and(|n| n > 0) || b.residue.is_some_and(|n| n > 0) {
                Mark::Warn
            } else if b.kind == Kind::NotABackup {
                Mark::Plain
            } else {
                Mark::Good
            };
            let cells = vec![
                b.location.display().to_string(),
                b.kind.as_str().to_owned(),
                b.taken.map_or_else(dash, |t| t.to_string()),
                b.revision.map_or_else(dash, |r| r.to_string()),
                number(b.totals.map(|t| t.entries)),
                number(plaintext),
                number(unreadable),
                number(b.residue),
                b.error.clone().unwrap_or_else(dash),
            ];
            builder.row(cells, mark);
        }
        write!(out, "{builder}")?;
        if self.outcome.keys.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        let columns = ["PROVIDER", "KEY", ">BACKUPS", "OLDEST", "NEWEST"];
        let mut builder = Builder::new(color, &columns);
        for n in self.needed() {
            let cells = vec![
                n.provider.to_owned(),
                n.key.map_or_else(dash, str::to_owned),
                table::count(n.backups),
                n.oldest.unwrap_or_else(dash),
                n.newest.unwrap_or_else(dash),
            ];
            builder.row(cells, Mark::Plain);
        }
        write!(out, "{builder}")
    }
}
