//! What `posture` prints.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::Format;
use super::page;
use super::table::{self, Builder, Mark};
use super::wire;
use crate::jobs::posture::Outcome;
use crate::posture::{FINDINGS, Name, Secret, Severity};
use crate::source::SourceInfo;

/// Findings that a table shows of one sort before it says how many more there are.
const SHOWN: usize = 5;

/// A finished look.
pub struct Report<'a> {
    /// Where it was read.
    pub source: &'a SourceInfo,
    /// What was found.
    pub outcome: &'a Outcome,
    /// One row a Secret, besides the summary.
    pub list: bool,
}

/// A Secret with all that is told of it.
#[derive(Serialize)]
struct Row<'a> {
    namespace: &'a str,
    name: &'a str,
    r#type: &'a str,
    origin: &'a str,
    provider: &'a str,
    key: Option<&'a str>,
    created: &'a str,
    size: u64,
    used_as: Vec<&'a str>,
    used_by: Vec<&'a str>,
    readers: Vec<&'a str>,
    certificates: Vec<Value>,
    findings: Vec<&'a str>,
}

impl Report<'_> {
    /// Writes it.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Json => self.json(out),
            Format::Csv => self.csv(out),
            Format::Html => self.html(out),
            _ => self.table(color, out),
        }
    }

    fn rows(&self, mut give: impl FnMut(&Row<'_>) -> io::Result<()>) -> io::Result<()> {
        let posture = &self.outcome.posture;
        let readers = posture.access.readers();
        for (name, secret) in &posture.secrets {
            give(&self.row(name, secret, readers.of(name)))?;
        }
        Ok(())
    }

    fn row<'r>(&'r self, name: &'r Name, secret: &'r Secret, readers: Vec<&'r str>) -> Row<'r> {
        let uses = self.outcome.posture.used(name);
        let mut used_as: Vec<&str> = uses.iter().map(|u| u.how).collect();
        let mut used_by: Vec<&str> = uses.iter().map(|u| u.by.as_str()).collect();
        for list in [&mut used_as, &mut used_by] {
            list.sort_unstable();
            list.dedup();
        }
        let certificate = |c: &_| {
            let (subject, ends, key) = certificate_words(c);
            json!({"subject": subject, "ends": ends, "key": key})
        };
        Row {
            namespace: &name.0,
            name: &name.1,
            r#type: &secret.kind,
            origin: secret.origin,
            provider: &secret.provider,
            key: secret.key.as_deref(),
            created: &secret.created,
            size: secret.size,
            used_as,
            used_by,
            readers,
            certificates: secret.certificates.iter().map(certificate).collect(),
            findings: secret.findings.iter().copied().collect(),
        }
    }

    fn totals(&self) -> Value {
        let posture = &self.outcome.posture;
        let mut origins: BTreeMap<&str, u64> = BTreeMap::new();
        let mut providers: BTreeMap<&str, u64> = BTreeMap::new();
        for secret in posture.secrets.values() {
            *origins.entry(secret.origin).or_default() += 1;
            *providers.entry(&secret.provider).or_default() += 1;
        }
        json!({
            "secrets": posture.secrets.len(), "entries": self.outcome.entries,
            "unread": self.outcome.unread.len(), "origins": origins, "providers": providers,
            "delivery": posture.delivery.ways, "findings": self.by_id(),
        })
    }

    fn by_id(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for finding in &self.outcome.posture.findings {
            *counts.entry(finding.id).or_default() += 1;
        }
        counts
    }

    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        let posture = &self.outcome.posture;
        let source = wire::Source::new(self.source, &self.outcome.visit);
        write!(
            out,
            "{{\"schema\":\"atrest.posture/v1\",\"source\":{},\"secrets\":[",
            json!(source)
        )?;
        let mut first = true;
        self.rows(|row| {
            if !std::mem::replace(&mut first, false) {
                out.write_all(b",")?;
            }
            serde_json::to_writer(&mut *out, row).map_err(io::Error::from)
        })?;
        let full = |name: &Name| format!("{}/{}", name.0, name.1);
        let keys: Vec<Value> = posture
            .sealed
            .keys
            .iter()
            .map(|k| {
                json!({"name": full(&k.name), "created": k.created, "active": k.active,
                       "opens": k.opens.iter().map(full).collect::<Vec<_>>()})
            })
            .collect();
        let unsealable: Vec<String> = posture.sealed.unsealable.iter().map(full).collect();
        let findings: Vec<Value> = posture
            .findings
            .iter()
            .map(|f| json!({"id": f.id, "severity": f.severity.as_str(), "where": f.place, "what": f.what}))
            .collect();
        let grants: Vec<Value> = posture
            .access
            .grants()
            .iter()
            .map(|g| {
                json!({"subject": g.subject, "by": g.by.as_str(), "namespace": g.namespace,
                       "names": g.names, "binding": format!("{} {}", g.binding_kind, g.binding),
                       "role": g.role, "default": g.is_default})
            })
            .collect();
        let unread: Vec<Value> = self
            .outcome
            .unread
            .iter()
            .filter(|(key, _)| !key.is_empty())
            .map(|(key, why)| json!({"key": key, "reason": why}))
            .collect();
        let rest = json!({
            "sealing_keys": keys, "unsealable": unsealable, "findings": findings, "grants": grants,
            "vault_paths": posture.delivery.vault_paths, "unread": unread, "totals": self.totals(),
        });
        let rest = rest.to_string();
        writeln!(out, "],{}", rest.trim_start_matches('{'))
    }

    fn csv(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        let columns = [
            "namespace",
            "name",
            "type",
            "origin",
            "provider",
            "key",
            "created",
            "size",
            "used_as",
            "used_by",
            "readers",
            "findings",
        ];
        csv.write_record(columns)?;
        self.rows(|row| {
            let size = row.size.to_string();
            csv.write_record([
                row.namespace,
                row.name,
                row.r#type,
                row.origin,
                row.provider,
                row.key.unwrap_or_default(),
                row.created,
                &size,
                &row.used_as.join(" "),
                &row.used_by.join(", "),
                &row.readers.join(", "),
                &row.findings.join(" "),
            ])
            .map_err(io::Error::other)
        })?;
        csv.flush()
    }

    /// What the summary says, one fact a line.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let posture = &self.outcome.posture;
        let totals = self.totals();
        let words = |part: &str| -> String {
            let pairs = totals[part].as_object().into_iter().flatten();
            let words: Vec<String> = pairs.map(|(name, n)| format!("{n} {name}")).collect();
            if words.is_empty() { "none".to_owned() } else { words.join(", ") }
        };
        let mut facts = vec![
            ("Secrets", posture.secrets.len().to_string()),
            ("Stored", words("providers")),
            ("Origin", words("origins")),
        ];
        if !posture.delivery.ways.is_empty() {
            facts.push(("Delivery", words("delivery")));
        }
        if !posture.sealed.keys.is_empty() {
            let active = posture.sealed.keys.iter().filter(|k| k.active).count();
            facts.push(("Sealing keys", format!("{}, {active} active", posture.sealed.keys.len())));
        }
        if !self.outcome.unread.is_empty() {
            facts.push((
                "Unknown",
                format!("{} could not be read", table::entries(self.outcome.unread.len() as u64)),
            ));
        }
        facts
    }

    /// One row for each sort of finding: severity, id, how many, what it means, examples.
    fn sorts(&self) -> Vec<(Severity, Vec<String>)> {
        let counts = self.by_id();
        let mut rows = Vec::new();
        for (id, severity, means) in FINDINGS {
            let Some(count) = counts.get(id) else { continue };
            let of = self.outcome.posture.findings.iter().filter(|f| f.id == id);
            let mut places: Vec<String> =
                of.take(SHOWN).map(|f| table::visible(&f.place)).collect();
            if *count > SHOWN as u64 {
                places.push("…".to_owned());
            }
            let row = vec![
                severity.as_str().to_owned(),
                id.to_owned(),
                count.to_string(),
                means.to_owned(),
                places.join(", "),
            ];
            rows.push((severity, row));
        }
        rows.sort_by_key(|(severity, _)| std::cmp::Reverse(*severity));
        rows
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        for (name, value) in self.facts() {
            writeln!(out, "{name:<13}{value}")?;
        }
        let sorts = self.sorts();
        writeln!(out)?;
        if sorts.is_empty() {
            writeln!(out, "No findings.")?;
        } else {
            let mut rows = Builder::new(color, &["SEVERITY", "FINDING", ">COUNT", "WHAT", "WHERE"]);
            for (severity, row) in sorts {
                rows.row(row, mark(severity));
            }
            write!(out, "{rows}")?;
        }
        if self.list {
            writeln!(out)?;
            let mut rows = Builder::new(color, &LIST);
            self.rows(|row| {
                rows.row(list_row(row), Mark::Plain);
                Ok(())
            })?;
            write!(out, "{rows}")?;
        }
        Ok(())
    }

    fn html(&self, out: &mut dyn Write) -> io::Result<()> {
        page::head("Secrets", &self.source.location, out)?;
        let (sort, sentence) = self.verdict();
        page::verdict_line(sort, &sentence, out)?;
        let stored = |is: fn(&str) -> bool| {
            let all = self.outcome.posture.secrets.values();
            all.filter(|s| is(&s.provider)).count() as u64
        };
        let shares = [
            ("stored unencrypted", stored(|p| p == "identity"), Mark::Warn),
            ("stored encrypted", stored(|p| p != "identity"), Mark::Good),
        ];
        page::shares(&shares, out)?;
        page::facts(&self.facts(), out)?;
        let sorts = self.sorts().into_iter().map(|(severity, row)| (row, mark(severity)));
        page::table("Findings", &["SEVERITY", "FINDING", ">COUNT", "WHAT", "WHERE"], sorts, out)?;
        let all = self.outcome.posture.findings.iter().map(|f| {
            let row = vec![
                f.severity.as_str().to_owned(),
                f.id.to_owned(),
                f.place.clone(),
                f.what.clone(),
            ];
            (row, mark(f.severity))
        });
        page::table("Each finding", &["SEVERITY", "FINDING", "WHERE", "WHAT"], all, out)?;
        if self.list {
            let mut rows = Vec::new();
            self.rows(|row| {
                rows.push((list_row(row), Mark::Plain));
                Ok(())
            })?;
            page::table("Secrets", &LIST, rows.into_iter(), out)?;
        }
        page::foot(out)
    }

    /// The findings in a sentence, worst first.
    fn verdict(&self) -> (Mark, String) {
        let findings = &self.outcome.posture.findings;
        let mut parts = Vec::new();
        for (severity, word) in
            [(Severity::High, "high"), (Severity::Medium, "medium"), (Severity::Low, "low")]
        {
            let n = findings.iter().filter(|f| f.severity == severity).count() as u64;
            parts.extend((n > 0).then(|| format!("{} {word}", table::count(n))));
        }
        let unread = match self.outcome.unread.len() as u64 {
            0 => String::new(),
            n => format!("; nothing is known of {} that could not be read", table::entries(n)),
        };
        let worst = findings.iter().map(|f| f.severity).max();
        match worst {
            Some(worst) => {
                let all = table::counted(findings.len() as u64, "finding", "findings");
                (mark(worst), format!("{all}: {}{unread}.", parts.join(", ")))
            }
            None if unread.is_empty() => (Mark::Good, "No findings.".to_owned()),
            None => (Mark::Warn, format!("No findings{unread}.")),
        }
    }
}

const LIST: [&str; 8] =
    ["NAMESPACE", "NAME", "TYPE", "ORIGIN", "PROVIDER", "USED AS", ">READERS", "FINDINGS"];

fn list_row(row: &Row<'_>) -> Vec<String> {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    vec![
        table::visible(row.namespace),
        table::visible(row.name),
        table::visible(row.r#type),
        row.origin.to_owned(),
        row.provider.to_owned(),
        or_dash(row.used_as.join(",")),
        row.readers.len().to_string(),
        or_dash(row.findings.join(",")),
    ]
}

fn mark(severity: Severity) -> Mark {
    match severity {
        Severity::High => Mark::Bad,
        Severity::Medium => Mark::Warn,
        Severity::Low => Mark::Plain,
    }
}

fn certificate_words(certificate: &crate::posture::Certificate) -> (String, String, String) {
    (certificate.subject.clone(), certificate.ends.to_string(), certificate.key.to_string())
}
