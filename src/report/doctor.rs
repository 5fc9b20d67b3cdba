//! What `doctor` prints.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::page::{self, Cell};
use super::table::{self, Builder, Mark};
use super::{Format, wire};
use crate::jobs::doctor::{Check, Outcome};

/// Finished checks.
pub struct Report<'a> {
    /// The distribution.
    pub profile: &'a str,
    /// The checks, by layer.
    pub checks: &'a [Check],
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    profile: &'a str,
    checks: Vec<Row<'a>>,
    totals: Totals,
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'static str,
    layer: &'static str,
    result: &'static str,
    evidence: &'a [String],
    remedy: Option<&'a str>,
    cis: &'static [&'static str],
}

#[derive(Serialize)]
struct Totals {
    pass: usize,
    warn: usize,
    fail: usize,
    unknown: usize,
}

impl<'a> From<&'a Check> for Row<'a> {
    fn from(c: &'a Check) -> Self {
        Self {
            id: c.id,
            layer: c.layer.as_str(),
            result: c.result.as_str(),
            evidence: &c.evidence,
            remedy: c.remedy.as_deref(),
            cis: c.cis,
        }
    }
}

fn mark(result: Outcome) -> Mark {
    match result {
        Outcome::Pass => Mark::Good,
        Outcome::Unknown | Outcome::Warn => Mark::Warn,
        Outcome::Fail => Mark::Bad,
    }
}

impl Report<'_> {
    fn count(&self, result: Outcome) -> usize {
        self.checks.iter().filter(|c| c.result == result).count()
    }

    fn totals(&self) -> Totals {
        Totals {
            pass: self.count(Outcome::Pass),
            warn: self.count(Outcome::Warn),
            fail: self.count(Outcome::Fail),
            unknown: self.count(Outcome::Unknown),
        }
    }

    /// Writes the report.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Json => {
                let document = Document {
                    schema: "atrest.doctor/v1",
                    profile: self.profile,
                    checks: self.checks.iter().map(Row::from).collect(),
                    totals: self.totals(),
                };
                wire::document(&document, out)
            }
            Format::Sarif => wire::document(&self.sarif(), out),
            Format::Html => self.html(out),
            _ => self.table(color, out),
        }
    }

    fn sentence(&self) -> String {
        let t = self.totals();
        format!(
            "{} checks: {} pass, {} warn, {} fail, {} unknown",
            self.checks.len(),
            t.pass,
            t.warn,
            t.fail,
            t.unknown
        )
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "profile {}\n", self.profile)?;
        let mut rows = Builder::new(color, &["RESULT", "LAYER", "CHECK", "CIS", "EVIDENCE"]);
        for c in self.checks {
            let first = c.evidence.first().cloned().unwrap_or_default();
            let more = c.evidence.len().saturating_sub(1);
            let evidence = if more == 0 { first } else { format!("{first} (and {more} more)") };
            let cis = if c.cis.is_empty() { "-".to_owned() } else { c.cis.join(",") };
            let cells = vec![
                c.result.as_str().to_owned(),
                c.layer.as_str().to_owned(),
                c.id.to_owned(),
                cis,
                evidence,
            ];
            rows.row(cells, mark(c.result));
        }
        writeln!(out, "{rows}")?;
        writeln!(out, "{}", self.sentence())?;
        let mut to_do = self.checks.iter().filter(|c| c.remedy.is_some()).peekable();
        if to_do.peek().is_some() {
            writeln!(out, "\nto do:")?;
        }
        for c in to_do {
            writeln!(
                out,
                "  {}: {}",
                c.id,
                table::visible(c.remedy.as_deref().unwrap_or_default())
            )?;
        }
        Ok(())
    }

    /// SARIF 2.1.0, as code scanning reads it.
    fn sarif(&self) -> Value {
        let rules: Vec<Value> = self
            .checks
            .iter()
            .map(|c| {
                json!({
                    "id": c.id,
                    "properties": {"layer": c.layer.as_str(), "cis": c.cis},
                })
            })
            .collect();
        let results: Vec<Value> = self
            .checks
            .iter()
            .map(|c| {
                let (kind, level) = match c.result {
                    Outcome::Pass => ("pass", "none"),
                    Outcome::Unknown => ("open", "note"),
                    Outcome::Warn => ("fail", "warning"),
                    Outcome::Fail => ("fail", "error"),
                };
                let mut text = format!("{}: {}", c.id, c.evidence.join("; "));
                if let Some(remedy) = &c.remedy {
                    text.push_str(". To do: ");
                    text.push_str(remedy);
                }
                json!({"ruleId": c.id, "kind": kind, "level": level, "message": {"text": text}})
            })
            .collect();
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": {"driver": {
                    "name": "atrest",
                    "version": env!("CARGO_PKG_VERSION"),
                    "rules": rules,
                }},
                "results": results,
            }],
        })
    }

    /// The whole in a sentence, worst first.
    fn verdict(&self) -> (Mark, String) {
        let said = |n: usize, what: &str| format!("{} {what}", table::count(n as u64));
        let t = self.totals();
        let parts: Vec<_> = [(t.fail, "failed"), (t.warn, "to look at"), (t.unknown, "unknown")]
            .into_iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| said(n, what))
            .collect();
        let of = table::counted(self.checks.len() as u64, "check", "checks");
        match parts.is_empty() {
            true if self.checks.is_empty() => (Mark::Warn, "Nothing was checked.".to_owned()),
            true => (Mark::Good, format!("All of {of} passed.")),
            false if t.fail > 0 => (Mark::Bad, format!("{} of {of}.", parts.join(", "))),
            false => (Mark::Warn, format!("{} of {of}.", parts.join(", "))),
        }
    }

    fn html(&self, out: &mut dyn Write) -> io::Result<()> {
        page::head("Encryption at rest, this machine", self.profile, out)?;
        let (sort, sentence) = self.verdict();
        page::verdict_line(sort, &sentence, out)?;
        let t = self.totals();
        let shares = [
            ("failed", t.fail as u64, Mark::Bad),
            ("to look at", t.warn as u64, Mark::Warn),
            ("unknown", t.unknown as u64, Mark::Plain),
            ("passed", t.pass as u64, Mark::Good),
        ];
        page::shares(&shares, out)?;
        let mut checks: Vec<_> = self.checks.iter().map(|c| (c, mark(c.result))).collect();
        page::worst_first(&mut checks);
        let row = |(c, mark): (&Check, Mark)| {
            let text = |text: &str| Cell::Text(text.to_owned());
            let cells = vec![
                text(c.result.as_str()),
                text(c.layer.as_str()),
                text(c.id),
                Cell::Lines(c.evidence.clone()),
                text(c.remedy.as_deref().unwrap_or_default()),
                text(&c.cis.join(", ")),
            ];
            (cells, mark)
        };
        let columns = ["RESULT", "LAYER", "CHECK", "EVIDENCE", "TO DO", "CIS"];
        page::table("Checks", &columns, checks.into_iter().map(row), out)?;
        page::foot(out)
    }
}
