//! What `keys` prints.

use std::io::{self, Write};

use serde::Serialize;

use super::table::{self, Builder, Mark};
use super::text::cell;
use super::{Format, page, wire};
use crate::envelope::{Provider, Version};
use crate::forensics::keys::KeyRow;
use crate::source::{SourceInfo, Visit};

/// A finished count.
pub struct Report<'a> {
    /// Where the entries came from.
    pub source: &'a SourceInfo,
    /// Its revision and damage.
    pub visit: &'a Visit,
    /// The configuration that decides what is written.
    pub config: Option<wire::Config>,
    /// The keys.
    pub keys: &'a [KeyRow],
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    source: wire::Source,
    config: &'a Option<wire::Config>,
    keys: Vec<Row<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<wire::Damage>,
}

#[derive(Serialize)]
struct Row<'a> {
    provider: &'static str,
    version: Option<&'static str>,
    key: Option<&'a str>,
    kms_key_id: Option<&'a str>,
    configured: Option<bool>,
    write_key_for: &'a [String],
    entries: u64,
    history_entries: Option<u64>,
    safe_to_remove: bool,
    key_id_needed: Option<bool>,
    reason: &'a str,
}

impl<'a> From<&'a KeyRow> for Row<'a> {
    fn from(r: &'a KeyRow) -> Self {
        Self {
            provider: r.name.provider.as_str(),
            version: r.name.version.map(Version::as_str),
            key: r.name.key.as_deref(),
            kms_key_id: r.name.kms_key_id.as_deref(),
            configured: r.configured,
            write_key_for: &r.write_key_for,
            entries: r.entries,
            history_entries: r.history_entries,
            safe_to_remove: r.safe_to_remove,
            key_id_needed: r.key_id_needed,
            reason: &r.reason,
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
            Format::Json => {
                let document = Document {
                    schema: "atrest.keys/v1",
                    source: wire::Source::new(self.source, self.visit),
                    config: &self.config,
                    keys: self.keys.iter().map(Row::from).collect(),
                    damage: self.visit.damage.iter().map(Into::into).collect(),
                };
                wire::document(&document, out)
            }
            Format::Jsonl => wire::lines(self.keys.iter().map(Row::from), out),
            Format::Csv => self.csv(out),
            Format::Html => self.html(out),
            _ => self.table(color, out),
        }
    }

    fn csv(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record([
            "provider",
            "version",
            "key",
            "kms_key_id",
            "configured",
            "write_key_for",
            "entries",
            "history_entries",
            "safe_to_remove",
            "reason",
        ])?;
        for r in self.keys.iter().map(Row::from) {
            csv.write_record([
                r.provider,
                r.version.unwrap_or_default(),
                &cell(r.key.unwrap_or_default()),
                &cell(r.kms_key_id.unwrap_or_default()),
                &r.configured.map(|c| c.to_string()).unwrap_or_default(),
                &cell(&r.write_key_for.join(" ")),
                &r.entries.to_string(),
                &r.history_entries.map(|n| n.to_string()).unwrap_or_default(),
                if r.safe_to_remove { "true" } else { "false" },
                &cell(r.reason),
            ])?;
        }
        csv.flush()
    }

    fn columns(&self) -> Vec<&'static str> {
        let mut columns = vec!["PROVIDER", "VERSION", "KEY"];
        columns.extend(self.with_id().then_some("KMS KEY ID"));
        columns.extend(["CONFIGURED", "WRITES", ">ENTRIES", ">HISTORY", "REMOVE", "REASON"]);
        columns
    }

    fn with_id(&self) -> bool {
        self.keys.iter().any(|k| k.name.kms_key_id.is_some())
    }

    fn row(&self, k: &KeyRow) -> (Vec<String>, Mark) {
        let dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let mut row = vec![
            k.name.provider.to_string(),
            dash(k.name.version.map(Version::as_str)),
            dash(k.name.key.as_deref()),
        ];
        row.extend(self.with_id().then(|| dash(k.name.kms_key_id.as_deref())));
        let writes = k.write_key_for.join(",");
        row.extend([
            k.configured.map_or_else(|| "-".to_owned(), yes),
            if writes.is_empty() { "-".to_owned() } else { writes },
            table::count(k.entries),
            k.history_entries.map_or_else(|| "?".to_owned(), table::count),
            if k.safe_to_remove { "safe" } else { "no" }.to_owned(),
            k.reason.clone(),
        ]);
        let mark = match (is_missing(k), k.safe_to_remove) {
            (true, _) => Mark::Bad,
            (_, true) => Mark::Good,
            _ => Mark::Plain,
        };
        (row, mark)
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        table::heading(self.source, self.visit, self.config.as_ref(), out)?;
        writeln!(out)?;
        let mut rows = Builder::new(color, &self.columns());
        for k in self.keys {
            let (row, mark) = self.row(k);
            rows.row(row, mark);
        }
        write!(out, "{rows}")
    }

    fn html(&self, out: &mut dyn Write) -> io::Result<()> {
        page::head("Keys of encryption at rest", &self.source.location, out)?;
        for (mark, sentence) in self.verdict() {
            page::verdict_line(mark, &sentence, out)?;
        }
        let entries = |is: &dyn Fn(&KeyRow) -> bool| {
            self.keys.iter().filter(|k| is(k)).map(|k| k.entries).sum::<u64>()
        };
        let shares = [
            ("entries need a key that is not configured", entries(&is_missing), Mark::Bad),
            ("entries stored unencrypted", entries(&|k| !is_missing(k) && is_plain(k)), Mark::Warn),
            ("entries under keys", entries(&|k| !is_missing(k) && !is_plain(k)), Mark::Good),
        ];
        page::shares(&shares, out)?;
        page::facts(&page::read(self.source, self.visit, self.config.as_ref()), out)?;
        page::damage(&self.visit.damage, out)?;
        let mut rows: Vec<_> = self.keys.iter().map(|k| self.row(k)).collect();
        page::worst_first(&mut rows);
        page::table("Keys", &self.columns(), rows.into_iter(), out)?;
        page::foot(out)
    }

    /// The sentences that matter most, worst first.
    fn verdict(&self) -> Vec<(Mark, String)> {
        let keys = |n: usize| table::counted(n as u64, "key", "keys");
        let mut out: Vec<_> = page::incomplete(&self.visit.damage).into_iter().collect();
        let missing = self.keys.iter().filter(|k| is_missing(k)).count();
        if missing > 0 {
            let sentence =
                format!("{} that live entries need: in no configuration given.", keys(missing));
            out.push((Mark::Bad, sentence));
        }
        let plain = self.keys.iter().filter(|k| is_plain(k) && k.write_key_for.is_empty());
        let plain = plain.map(|k| k.entries).sum::<u64>();
        if plain > 0 {
            out.push((Mark::Warn, format!("{} stored unencrypted.", table::entries(plain))));
        }
        let may_go = self.keys.iter().filter(|k| k.safe_to_remove).count();
        let of = self.keys.iter().filter(|k| k.configured == Some(true)).count();
        out.push(match (self.config.is_some(), may_go) {
            (false, _) => (Mark::Plain, format!("{} in use.", keys(self.keys.len()))),
            (true, 0) => {
                (Mark::Plain, format!("None of {} in the configuration may be removed.", keys(of)))
            }
            (true, n) => (Mark::Good, format!("{} in the configuration may be removed.", keys(n))),
        });
        out
    }
}

/// Live entries need it, and it is in no configuration.
fn is_missing(k: &KeyRow) -> bool {
    k.configured == Some(false) && k.entries > 0
}

fn is_plain(k: &KeyRow) -> bool {
    k.name.provider == Provider::Identity
}
