//! What `backups` prints.

use std::io::{self, Write};

use super::table::{self, Builder, Mark};
use super::text::cell;
use super::{Format, page, wire};
use crate::jobs::backups::saved::{Document, Row};
use crate::jobs::backups::{Backup, Kind, Outcome, Shard};

/// What was found, and how to read it.
pub struct Report<'a> {
    /// The outcome.
    pub outcome: &'a Outcome,
    /// The locations, in words.
    pub locations: &'a str,
    /// Parts of the listing that nobody judged.
    pub missing: &'a [Shard],
}

const COLUMNS: [&str; 9] = [
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
const KEY_COLUMNS: [&str; 5] = ["PROVIDER", "KEY", ">BACKUPS", "OLDEST", "NEWEST"];

impl Report<'_> {
    /// Writes the report.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Json => wire::document(&Document::from(self.outcome), out),
            Format::Jsonl => wire::lines(self.outcome.backups.iter().map(Row::from), out),
            Format::Csv => self.csv(out),
            Format::Html => self.html(out),
            _ => self.table(color, out),
        }
    }

    fn csv(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record([
            "location",
            "kind",
            "taken",
            "revision",
            "entries",
            "plaintext",
            "encrypted",
            "current",
            "stale",
            "unreadable",
            "unknown",
            "misplaced",
            "residue",
            "keys",
            "error",
        ])?;
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        for row in self.outcome.backups.iter().map(Row::from) {
            let totals = row.totals.as_ref();
            let under: Vec<_> = row.under().collect();
            csv.write_record([
                &*cell(&row.location),
                &row.kind,
                row.taken.as_deref().unwrap_or_default(),
                &row.revision.map(|r| r.to_string()).unwrap_or_default(),
                &number(totals.map(|t| t.entries)),
                &number(totals.map(|t| t.plaintext)),
                &number(totals.map(|t| t.encrypted)),
                &number(totals.and_then(|t| t.current)),
                &number(totals.and_then(|t| t.stale)),
                &number(totals.and_then(|t| t.unreadable)),
                &number(totals.and_then(|t| t.unknown)),
                &number(totals.and_then(|t| t.misplaced)),
                &number(row.residue),
                &cell(&under.join("; ")),
                &cell(row.error.as_deref().unwrap_or_default()),
            ])?;
        }
        csv.flush()
    }

    fn html(&self, out: &mut dyn Write) -> io::Result<()> {
        page::head("Backups", self.locations, out)?;
        let (mark, sentence) = self.verdict();
        page::verdict_line(mark, &sentence, out)?;
        let mut rows: Vec<_> = self.outcome.backups.iter().map(cells).collect();
        let of = |mark| rows.iter().filter(|(_, m)| *m == mark).count() as u64;
        let shares = [
            ("broken or without a key", of(Mark::Bad), Mark::Bad),
            ("with plaintext or residue", of(Mark::Warn), Mark::Warn),
            ("no plaintext found", of(Mark::Good), Mark::Good),
            ("no backup", of(Mark::Plain), Mark::Plain),
        ];
        page::shares(&shares, out)?;
        page::worst_first(&mut rows);
        page::table("Backups", &COLUMNS, rows.into_iter(), out)?;
        let keys = self.keys().into_iter().map(|cells| (cells, Mark::Plain));
        page::table("Keys that backups need", &KEY_COLUMNS, keys, out)?;
        page::foot(out)
    }

    /// The whole in a sentence.
    fn verdict(&self) -> (Mark, String) {
        let backups: Vec<_> =
            self.outcome.backups.iter().filter(|b| b.kind != Kind::NotABackup).collect();
        let count = |is: &dyn Fn(&Backup) -> bool| backups.iter().filter(|b| is(b)).count() as u64;
        let sealed = count(&|b| b.kind == Kind::Age);
        let unread = count(&|b| b.kind != Kind::Age && (b.error.is_some() || b.totals.is_none()));
        let plain = count(&|b| b.totals.is_some_and(|t| t.plaintext > 0));
        let residue = count(&|b| b.residue.is_some_and(|n| n > 0));
        let locked = count(&|b| b.verified && b.totals.is_some_and(|t| t.unreadable > 0));
        let mut parts = vec![table::counted(backups.len() as u64, "backup", "backups")];
        for (n, what) in [
            (unread, "could not be read, or not as a whole"),
            (sealed, "age-encrypted and not examined"),
            (plain, "with plaintext"),
            (residue, "with residue"),
            (locked, "with entries that no given key reads"),
        ] {
            if n > 0 {
                parts.push(format!("{} {what}", table::count(n)));
            }
        }
        if !self.missing.is_empty() {
            parts.push(format!("not judged: {}", self.not_judged()));
        }
        let mark = if unread + sealed + locked > 0 || !self.missing.is_empty() {
            Mark::Bad
        } else if plain + residue > 0 {
            Mark::Warn
        } else {
            Mark::Good
        };
        (mark, parts.join("; "))
    }

    /// The parts that are missing, in words.
    #[must_use]
    pub fn not_judged(&self) -> String {
        let names: Vec<_> = self.missing.iter().map(Shard::to_string).collect();
        format!("shard {}", names.join(", "))
    }

    fn keys(&self) -> Vec<Vec<String>> {
        let time = |t: Option<jiff::Timestamp>| t.map_or_else(dash, |t| t.to_string());
        self.outcome
            .keys
            .iter()
            .map(|n| {
                vec![
                    n.key.provider.as_str().to_owned(),
                    n.key.name.clone().unwrap_or_else(dash),
                    table::count(n.backups),
                    time(n.oldest),
                    time(n.newest),
                ]
            })
            .collect()
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let mut builder = Builder::new(color, &COLUMNS);
        for (cells, mark) in self.outcome.backups.iter().map(cells) {
            builder.row(cells, mark);
        }
        write!(out, "{builder}")?;
        if self.outcome.keys.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        let mut builder = Builder::new(color, &KEY_COLUMNS);
        for cells in self.keys() {
            builder.row(cells, Mark::Plain);
        }
        write!(out, "{builder}")
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// A backup's row in tables.
fn cells(b: &Backup) -> (Vec<String>, Mark) {
    let number = |n: Option<u64>| n.map_or_else(dash, table::count);
    let plaintext = b.totals.map(|t| t.plaintext);
    let unreadable = b.totals.filter(|_| b.verified).map(|t| t.unreadable);
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
    (cells, mark)
}
