//! What `kms needs` prints.

use std::io::{self, Write};

use serde::Serialize;

use crate::hex::hex;
use crate::jobs::backups::Backup;
use crate::jobs::kms::needs::{Key, Outcome, Plugin};
use crate::jobs::kms::uses::{ByResource, Tally, Wrapped, sum};
use crate::report::table::{self, Builder, Mark};
use crate::report::{Format, wire};

/// Data keys that a table shows when not all are asked for.
const SHOWN: usize = 20;
/// Bytes of a digest that a table shows.
const DIGEST_SHOWN: usize = 8;

/// Finished counts.
pub struct Report<'a> {
    /// What was found.
    pub outcome: &'a Outcome,
    /// The configurations.
    pub config: Option<wire::Config>,
    /// Backups that were looked at; `None` where none were asked for.
    pub backups: Option<&'a Vec<Backup>>,
    /// Every data key is shown.
    pub list: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    source: wire::Source,
    config: &'a Option<wire::Config>,
    providers: Vec<Provider<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backups: Option<Vec<Judged<'a>>>,
    /// Records of which parts were overwritten.
    broken_residue: Option<u64>,
    not_examined: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<wire::Damage>,
}

#[derive(Serialize)]
struct Provider<'a> {
    name: &'a str,
    version: &'static str,
    configured: Option<bool>,
    writes: &'a [String],
    #[serde(flatten)]
    counts: Counts,
    malformed: Counts,
    keys: Vec<Wire<'a>>,
}

#[derive(Serialize)]
struct Counts {
    entries: u64,
    history_entries: Option<u64>,
    residue_entries: Option<u64>,
}

#[derive(Serialize)]
struct Wire<'a> {
    key_id: Option<&'a str>,
    current: Option<bool>,
    #[serde(flatten)]
    counts: Counts,
    resources: Vec<OfResource<'a>>,
    data_keys: usize,
    /// Of v2; v1 has one for each value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<DataKey<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backups: Option<Vec<InBackup>>,
    only_residue: bool,
    if_destroyed: String,
}

#[derive(Serialize)]
struct OfResource<'a> {
    resource: &'a str,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Serialize)]
struct DataKey<'a> {
    sha256: String,
    kind: Option<&'static str>,
    bytes: usize,
    annotations: Vec<&'a str>,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Serialize)]
struct InBackup {
    location: String,
    taken: Option<String>,
    entries: u64,
}

#[derive(Serialize)]
struct Judged<'a> {
    location: String,
    kind: &'static str,
    taken: Option<String>,
    error: Option<&'a str>,
}

impl<'a> From<&'a Backup> for Judged<'a> {
    fn from(b: &'a Backup) -> Self {
        Self {
            location: b.location.display().to_string(),
            kind: b.kind.as_str(),
            taken: b.taken.map(|t| t.to_string()),
            error: b.error.as_deref(),
        }
    }
}

fn annotations(wrapped: &Wrapped) -> Vec<&str> {
    wrapped.annotations.iter().map(|(name, _)| name.as_str()).collect()
}

impl Report<'_> {
    /// Writes the report.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        if format != Format::Json {
            return self.table(color, out);
        }
        let Outcome { source, reading, plugins, left, .. } = self.outcome;
        let document = Document {
            schema: "atrest.kms-needs/v1",
            source: wire::Source::new(source, &reading.visit),
            config: &self.config,
            providers: plugins.iter().map(|p| self.provider(p)).collect(),
            backups: self.backups.map(|all| all.iter().map(Judged::from).collect()),
            broken_residue: left.searched.then_some(left.broken),
            not_examined: self.not_examined(),
            damage: reading.visit.damage.iter().map(Into::into).collect(),
        };
        wire::document(&document, out)
    }

    fn counts(&self, tally: Tally) -> Counts {
        Counts {
            entries: tally.entries,
            history_entries: self.outcome.reading.with_history.then_some(tally.history),
            residue_entries: self.outcome.left.searched.then_some(tally.residue),
        }
    }

    fn not_examined(&self) -> Vec<&'static str> {
        self.outcome.left.not_examined.iter().map(|part| part.words()).collect()
    }

    fn provider<'a>(&self, p: &'a Plugin) -> Provider<'a> {
        let mut all = Tally::default();
        for key in &p.keys {
            all.add(key.tally());
        }
        Provider {
            name: &p.name.name,
            version: p.name.version.as_str(),
            configured: p.configured,
            writes: &p.writes,
            counts: self.counts(all),
            malformed: self.counts(sum(&p.malformed)),
            keys: p.keys.iter().map(|key| self.key(p, key)).collect(),
        }
    }

    fn key<'a>(&self, p: &Plugin, key: &'a Key) -> Wire<'a> {
        let source = |(wrapped, tally): &'a (Wrapped, Tally)| DataKey {
            sha256: hex(&wrapped.digest()),
            kind: wrapped.kind.map(crate::transform::kms_v2::SourceType::as_str),
            bytes: wrapped.source.len(),
            annotations: annotations(wrapped),
            counts: self.counts(*tally),
        };
        let of_backup = |b: &crate::jobs::kms::needs::InBackup| InBackup {
            location: b.location.display().to_string(),
            taken: b.taken.map(|t| t.to_string()),
            entries: b.entries,
        };
        Wire {
            key_id: key.id.as_deref(),
            current: key.current,
            counts: self.counts(key.tally()),
            resources: self.resources(&key.resources),
            data_keys: key.data_keys.len(),
            sources: key.data_keys.iter().filter(|(w, _)| w.kind.is_some()).map(source).collect(),
            backups: self.backups.map(|_| key.backups.iter().map(of_backup).collect()),
            only_residue: key.only_left(),
            if_destroyed: key.breaks(&p.writes),
        }
    }

    fn resources<'a>(&self, by: &'a ByResource) -> Vec<OfResource<'a>> {
        let wire = |(resource, tally): (&'a String, &Tally)| OfResource {
            resource,
            counts: self.counts(*tally),
        };
        by.iter().map(wire).collect()
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let Outcome { source, reading, plugins, left, .. } = self.outcome;
        table::heading(source, &reading.visit, self.config.as_ref(), out)?;
        writeln!(out)?;
        if plugins.is_empty() {
            writeln!(out, "nothing here depends on a KMS plugin")?;
        } else {
            self.plugins(color, out)?;
        }
        if left.broken > 0 {
            let records = table::counted(left.broken, "record", "records");
            let what = "overwritten in part: whose key they needed cannot be told, and no key brings them back";
            writeln!(out, "\nalso left: {records}, {what}")?;
        }
        for (i, part) in self.not_examined().iter().enumerate() {
            let gap = if i == 0 { "\n" } else { "" };
            writeln!(out, "{gap}not examined: {part}")?;
        }
        Ok(())
    }

    fn plugins(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let mut columns =
            vec!["PROVIDER", "VERSION", "KEY ID", "CURRENT", ">DATA KEYS", ">ENTRIES", ">HISTORY"];
        columns.push(">RESIDUE");
        columns.extend(self.backups.map(|_| ">BACKUPS"));
        columns.push("RESOURCES");
        let mut rows = Builder::new(color, &columns);
        for (plugin, key) in self.keys() {
            rows.row(self.row(plugin, key), mark(plugin, key));
        }
        writeln!(out, "{rows}")?;
        writeln!(out, "if it is destroyed:")?;
        for (plugin, key) in self.keys() {
            let name = table::visible(&plugin.name.name);
            let id = key.id.as_deref().map(table::visible);
            let what = id.map_or_else(|| name.clone(), |id| format!("{name} {id}"));
            writeln!(out, "  {what}: {}", table::visible(&key.breaks(&plugin.writes)))?;
        }
        self.data_keys(color, out)
    }

    fn keys(&self) -> impl Iterator<Item = (&Plugin, &Key)> {
        self.outcome.plugins.iter().flat_map(|p| p.keys.iter().map(move |key| (p, key)))
    }

    fn past(&self, tally: Tally) -> String {
        let told = self.outcome.reading.with_history;
        if told { table::count(tally.history) } else { "?".to_owned() }
    }

    fn residue(&self, tally: Tally) -> String {
        let told = self.outcome.left.searched;
        if told { table::count(tally.residue) } else { "?".to_owned() }
    }

    fn row(&self, plugin: &Plugin, key: &Key) -> Vec<String> {
        let tally = key.tally();
        let mut row = vec![
            plugin.name.name.clone(),
            plugin.name.version.as_str().to_owned(),
            key.id.clone().unwrap_or_else(|| "-".to_owned()),
            match (plugin.configured, key.current) {
                (Some(false), _) => "not configured",
                (_, Some(true)) => "yes",
                (_, Some(false)) => "no",
                (_, None) if key.id.is_none() => "-",
                (_, None) => "?",
            }
            .to_owned(),
            table::count(key.data_keys.len() as u64),
            table::count(tally.entries),
            self.past(tally),
            self.residue(tally),
        ];
        row.extend(self.backups.map(|_| table::count(key.backups.len() as u64)));
        let names: Vec<&str> = key.resources.keys().map(String::as_str).collect();
        row.push(if names.is_empty() { "-".to_owned() } else { names.join(",") });
        row
    }

    /// Of v2: those of v1 are as many as there are values.
    fn all_data_keys(&self) -> Vec<(&Plugin, &(Wrapped, Tally))> {
        self.keys()
            .flat_map(|(plugin, key)| key.data_keys.iter().map(move |d| (plugin, d)))
            .filter(|(_, (wrapped, _))| wrapped.kind.is_some())
            .collect()
    }

    /// Whether a table leaves data keys out.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        !self.list && self.all_data_keys().len() > SHOWN
    }

    fn data_keys(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let all = self.all_data_keys();
        if all.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        let columns = [
            "DATA KEY",
            "PROVIDER",
            "KEY ID",
            "KIND",
            ">BYTES",
            "ANNOTATIONS",
            ">ENTRIES",
            ">HISTORY",
            ">RESIDUE",
        ];
        let mut rows = Builder::new(color, &columns);
        let shown = if self.list { all.len() } else { SHOWN };
        for (plugin, (wrapped, tally)) in all.iter().take(shown) {
            let names = annotations(wrapped).join(",");
            let cells = vec![
                hex(&wrapped.digest()[..DIGEST_SHOWN]),
                plugin.name.name.clone(),
                wrapped.key_id.clone().unwrap_or_default(),
                wrapped.kind.map_or("-", |k| k.as_str()).to_owned(),
                table::count(wrapped.source.len() as u64),
                if names.is_empty() { "-".to_owned() } else { names },
                table::count(tally.entries),
                self.past(*tally),
                self.residue(*tally),
            ];
            rows.row(cells, Mark::Plain);
        }
        write!(out, "{rows}")?;
        if let Some(more) = all.len().checked_sub(shown).filter(|more| *more > 0) {
            writeln!(out, "and {} more", table::count(more as u64))?;
        }
        Ok(())
    }
}

fn mark(plugin: &Plugin, key: &Key) -> Mark {
    match (plugin.configured, key.current) {
        (Some(false), _) => Mark::Bad,
        (_, Some(false)) => Mark::Warn,
        (_, Some(true)) => Mark::Good,
        (_, None) => Mark::Plain,
    }
}
