//! What `kms escrow` says of the file that it wrote.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::jobs::kms::escrow::{Outcome, Plugin};
use crate::jobs::kms::uses::Tally;
use crate::report::table::{self, Builder, Mark};
use crate::report::{Format, wire};

/// A file that was written.
pub struct Report<'a> {
    /// What was kept.
    pub outcome: &'a Outcome,
    /// To how many it is encrypted.
    pub recipients: usize,
    /// Written as text.
    pub armor: bool,
    /// Where it is.
    pub out: Option<&'a Path>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    source: wire::Source,
    out: Option<String>,
    recipients: usize,
    armor: bool,
    checked: bool,
    providers: Vec<Provider<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<wire::Damage>,
}

#[derive(Serialize)]
struct Provider<'a> {
    name: &'a str,
    version: &'static str,
    kept: Counts,
    missing: Vec<Missing<'a>>,
    malformed: u64,
}

#[derive(Serialize)]
struct Counts {
    data_keys: u64,
    entries: u64,
    history_entries: Option<u64>,
}

#[derive(Serialize)]
struct Missing<'a> {
    reason: &'a str,
    #[serde(flatten)]
    counts: Counts,
}

impl Report<'_> {
    /// Writes the report. It holds no key.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        if format != Format::Json {
            return self.table(color, out);
        }
        let Outcome { source, reading, plugins, checked, .. } = self.outcome;
        let document = Document {
            schema: "atrest.kms-escrow-report/v1",
            source: wire::Source::new(source, &reading.visit),
            out: self.out.map(|path| path.display().to_string()),
            recipients: self.recipients,
            armor: self.armor,
            checked: *checked,
            providers: plugins.iter().map(|p| self.provider(p)).collect(),
            damage: reading.visit.damage.iter().map(Into::into).collect(),
        };
        wire::document(&document, out)
    }

    fn counts(&self, (data_keys, tally): (u64, Tally)) -> Counts {
        let history_entries = self.outcome.reading.with_history.then_some(tally.history);
        Counts { data_keys, entries: tally.entries, history_entries }
    }

    fn provider<'a>(&self, plugin: &'a Plugin) -> Provider<'a> {
        Provider {
            name: &plugin.name.name,
            version: plugin.name.version.as_str(),
            kept: self.counts(plugin.kept),
            missing: plugin
                .missing
                .iter()
                .map(|(reason, counts)| Missing { reason, counts: self.counts(*counts) })
                .collect(),
            malformed: plugin.malformed.entries,
        }
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let Outcome { source, reading, plugins, checked, .. } = self.outcome;
        table::heading(source, &reading.visit, None, out)?;
        writeln!(out)?;
        let columns = ["PROVIDER", "VERSION", ">DATA KEYS", ">ENTRIES", ">HISTORY", ">MISSING"];
        let mut rows = Builder::new(color, &columns);
        for plugin in plugins {
            let (keys, tally) = plugin.kept;
            let missing: u64 = plugin.missing.values().map(|(keys, _)| keys).sum();
            let past = reading.with_history.then(|| table::count(tally.history));
            let cells = vec![
                plugin.name.name.clone(),
                plugin.name.version.as_str().to_owned(),
                table::count(keys),
                table::count(tally.entries),
                past.unwrap_or_else(|| "?".to_owned()),
                table::count(missing),
            ];
            rows.row(cells, if missing == 0 { Mark::Good } else { Mark::Bad });
        }
        writeln!(out, "{rows}")?;
        let name = self.out.map(|path| table::visible(&path.display().to_string()));
        writeln!(
            out,
            "{}: written for {}{}",
            name.unwrap_or_default(),
            table::counted(self.recipients as u64, "recipient", "recipients"),
            if *checked { ", opened again and compared" } else { "" }
        )
    }
}
