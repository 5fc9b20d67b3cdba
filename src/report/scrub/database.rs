//! What `scrub` prints of kine's database, and its receipt.

use std::io::{self, Write};

use serde::Serialize;

use super::{WireFound, findings, mark, places};
use crate::jobs::scrub::Progress;
use crate::jobs::scrub::database::Outcome;
use crate::report::table::{self, Builder, visible};
use crate::report::{Format, page, wire};

/// What nobody looks at who only has the database and the files beside it.
const NOT_EXAMINED: [&str; 1] =
    ["backups and copies of the database from before, and what disks keep of deleted files"];

/// A finished look, or a finished run.
pub struct Report<'a> {
    /// What was found and done.
    pub outcome: &'a Outcome,
    /// Steps were taken, or were to be.
    pub applied: bool,
    /// What was looked for, in words.
    pub resources: &'a [String],
    /// Where the receipts are.
    pub receipts: Option<&'a str>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    applied: bool,
    resources: &'a [String],
    database: Wire<'a>,
    steps: Vec<&'static str>,
    receipts: Option<&'a str>,
    stopped: Option<String>,
    verdict: &'static str,
    not_examined: [&'static str; 1],
}

#[derive(Serialize)]
struct Receipt<'a> {
    schema: &'static str,
    resources: &'a [String],
    database: Wire<'a>,
    not_examined: [&'static str; 1],
}

#[derive(Serialize)]
struct Wire<'a> {
    location: String,
    status: &'static str,
    forgotten: Option<Forgotten>,
    before: WireFound<'a>,
    after: Option<WireFound<'a>>,
}

#[derive(Serialize)]
struct Forgotten {
    revision: i64,
    rows: usize,
    old_values: usize,
}

impl<'a> From<&'a Outcome> for Wire<'a> {
    fn from(o: &'a Outcome) -> Self {
        let forgotten = o.forgotten.map(|f| Forgotten {
            revision: f.revision,
            rows: f.rows,
            old_values: f.copies,
        });
        Self {
            location: o.path.display().to_string(),
            status: o.progress.as_str(),
            forgotten,
            before: (&o.before).into(),
            after: o.after.as_ref().map(WireFound::from),
        }
    }
}

impl Report<'_> {
    /// What is left to be done, in order.
    fn steps(&self) -> Vec<&'static str> {
        if self.outcome.progress != Progress::Pending {
            return Vec::new();
        }
        let forget = "delete superseded rows and deletions, as kine compacts, and its copies of old values: revisions before the newest can be asked for no more";
        let forget =
            (self.outcome.has_past() && self.outcome.forgotten.is_none()).then_some(forget);
        let rebuild = ["write the file anew (VACUUM)", "empty the write-ahead log"];
        forget.into_iter().chain(rebuild).collect()
    }

    fn verdict(&self) -> &'static str {
        match self.outcome.progress {
            Progress::Clean | Progress::Scrubbed => "clean",
            Progress::Unknown | Progress::Pending | Progress::Left => "residue",
        }
    }

    /// Writes the report.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Json => wire::document(&self.document(), out),
            _ => self.table(color, out),
        }
    }

    fn document(&self) -> Document<'_> {
        Document {
            schema: "atrest.scrub/v1",
            applied: self.applied,
            resources: self.resources,
            database: self.outcome.into(),
            steps: self.steps(),
            receipts: self.receipts,
            stopped: self.outcome.stop.as_ref().map(ToString::to_string),
            verdict: self.verdict(),
            not_examined: NOT_EXAMINED,
        }
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let outcome = self.outcome;
        let path = outcome.path.display().to_string();
        writeln!(out, "plaintext of {} in {}\n", self.resources.join(", "), visible(&path))?;
        let mut rows = Builder::new(color, &["WHERE", ">BEFORE", ">AFTER"]);
        for place in crate::forensics::residue::Place::ALL {
            let before = outcome.before.totals.get(place);
            let after = outcome.after.as_ref().map(|f| f.totals.get(place));
            if before + after.unwrap_or_default() == 0 {
                continue;
            }
            let after = after.map_or_else(|| "-".to_owned(), table::count);
            rows.row(
                vec![place.as_str().to_owned(), table::count(before), after],
                mark(outcome.progress),
            );
        }
        let all =
            vec!["all".to_owned(), places(Some(&outcome.before)), places(outcome.after.as_ref())];
        rows.row(all, mark(outcome.progress));
        writeln!(out, "{rows}")?;
        let steps = self.steps();
        if !steps.is_empty() {
            writeln!(out, "{}", if self.applied { "still to do:" } else { "to do:" })?;
            for (i, step) in steps.iter().enumerate() {
                writeln!(out, "  {}. {step}", i + 1)?;
            }
            writeln!(out)?;
        }
        if let Some(receipts) = self.receipts {
            writeln!(out, "receipts: {}", visible(receipts))?;
        }
        for part in NOT_EXAMINED {
            writeln!(out, "not examined: {part}")?;
        }
        writeln!(out, "verdict: {}, in the database and the files beside it", self.verdict())
    }
}

/// The receipt, as JSON.
///
/// # Errors
/// When `out` cannot be written.
pub fn receipt(outcome: &Outcome, resources: &[String], out: &mut dyn Write) -> io::Result<()> {
    let receipt = Receipt {
        schema: "atrest.scrub-receipt/v1",
        resources,
        database: outcome.into(),
        not_examined: NOT_EXAMINED,
    };
    wire::document(&receipt, out)
}

/// The receipt, as a page.
///
/// # Errors
/// When `out` cannot be written.
pub fn receipt_page(
    outcome: &Outcome,
    resources: &[String],
    out: &mut dyn Write,
) -> io::Result<()> {
    let path = outcome.path.display().to_string();
    page::head("Old plaintext removed", &path, out)?;
    let last = outcome.after.as_ref().unwrap_or(&outcome.before);
    let sentence = match outcome.progress {
        Progress::Clean => "Nothing was found in this database.".to_owned(),
        Progress::Scrubbed => "Nothing is found any more in this database.".to_owned(),
        Progress::Unknown | Progress::Pending | Progress::Left => {
            format!("Plaintext lies in {} places of this database.", places(Some(last)))
        }
    };
    page::verdict_line(mark(outcome.progress), &sentence, out)?;
    let mut facts = vec![("Database", path), ("Looked for", resources.join(", "))];
    if let Some(f) = outcome.forgotten {
        facts.push(("Compacted to", f.revision.to_string()));
    }
    facts.extend(findings::facts(Some(&outcome.before), outcome.after.as_ref()));
    facts.extend(NOT_EXAMINED.map(|part| ("Not examined", part.to_owned())));
    page::facts(&facts, out)?;
    findings::tables(Some(&outcome.before), outcome.after.as_ref(), out)?;
    page::foot(out)
}
