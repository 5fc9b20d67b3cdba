//! A plan as one page, to decide over or to keep beside the backup.

use std::io::{self, Write};

use super::super::page::{self, Text};
use super::super::table::Mark;
use super::{
    ALWAYS, OBJECT_COLUMNS, REASON_COLUMNS, Report, STEP_COLUMNS, reason_rows, sections, step_rows,
};

pub(super) fn write(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    page::head("Restore plan", &report.source.location, out)?;
    let outcome = report.outcome;
    let (mark, word) =
        if outcome.is_whole() { (Mark::Good, "") } else { (Mark::Bad, "Incomplete: ") };
    page::verdict_line(mark, &format!("{word}{}", report.sum()), out)?;
    let mut facts = page::read(report.source, &outcome.visit, None);
    facts.push(("For", format!("Kubernetes {}", report.target)));
    page::facts(&facts, out)?;
    page::damage(&outcome.visit.damage, out)?;
    let plain = |row: Vec<String>| (row, Mark::Plain);
    page::table("Steps", &STEP_COLUMNS, step_rows(outcome).map(plain), out)?;
    page::table("Reasons", &REASON_COLUMNS, reason_rows(outcome).map(plain), out)?;
    writeln!(out, "<p>{}</p>", Text(ALWAYS))?;
    for (title, mark, rows) in sections(outcome) {
        page::table(title, &OBJECT_COLUMNS, rows.into_iter().map(|row| (row, mark)), out)?;
    }
    page::foot(out)
}
