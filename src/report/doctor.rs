//! What `doctor` prints.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

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

    fn html(&self, out: &mut dyn Write) -> io::Result<()> {
        let text = |raw: &str| {
            let shown = table::visible(raw);
            shown
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;")
        };
        writeln!(
            out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>atrest doctor: {0}</title>\n<style>\n\
             body{{font:15px/1.45 system-ui,sans-serif;max-width:80em;margin:2em auto;padding:0 1em}}\
             th,td{{text-align:left;vertical-align:top;padding:.25em 1em .25em 0;border-bottom:1px solid #8884;overflow-wrap:anywhere}}\
             .pass{{color:#176f2c}}.warn,.unknown{{color:#8a5a00}}.fail{{color:#b3261e}}\n\
             </style>\n</head>\n<body>\n<h1>Encryption at rest: {0}</h1>\n<p>{1}</p>\n<table>\n\
             <tr><th>Result</th><th>Layer</th><th>Check</th><th>CIS</th><th>Evidence</th><th>To do</th></tr>",
            text(self.profile),
            self.sentence()
        )?;
        for c in self.checks {
            let evidence: Vec<_> = c.evidence.iter().map(|e| text(e)).collect();
            writeln!(
                out,
                "<tr><td class=\"{0}\">{0}</td><td>{1}</td><td>{2}</td><td>{3}</td><td>{4}</td><td>{5}</td></tr>",
                c.result.as_str(),
                c.layer.as_str(),
                c.id,
                c.cis.join(", "),
                evidence.join("<br>"),
                text(c.remedy.as_deref().unwrap_or_default())
            )?;
        }
        writeln!(out, "</table>\n</body>\n</html>")
    }
}
