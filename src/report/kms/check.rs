//! What `kms check` prints.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::jobs::kms::check::{Checked, KeyId, Outcome};
use crate::jobs::kms::uses::PluginName;
use crate::kms::Times;
use crate::report::table::{self, Builder, Mark};
use crate::report::{Format, wire};

/// Finished checks.
pub struct Report<'a> {
    /// What was found.
    pub outcome: &'a Outcome,
    /// The configurations that name the plugins.
    pub config: wire::Config,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    source: Option<wire::Source>,
    config: &'a wire::Config,
    providers: Vec<Provider<'a>>,
    unconfigured: Vec<Named<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    malformed: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<wire::Damage>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it so
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[derive(Serialize)]
struct Provider<'a> {
    name: &'a str,
    version: &'static str,
    endpoint: &'a str,
    config: &'a str,
    writes: &'a [String],
    result: &'static str,
    error: Option<String>,
    protocol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'a str>,
    healthz: Option<&'a str>,
    key_id: Option<&'a str>,
    encrypt_key_id: Option<&'a str>,
    annotations: &'a [String],
    round_trip: Option<bool>,
    latency_ms: Latency,
    key_ids: Option<Vec<Used<'a>>>,
}

#[derive(Serialize)]
struct Latency {
    connect: Option<f64>,
    status: Option<f64>,
    encrypt: Option<f64>,
    decrypt: Option<f64>,
}

#[derive(Serialize)]
struct Used<'a> {
    key_id: Option<&'a str>,
    entries: u64,
    current: Option<bool>,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    version: &'static str,
    key_ids: Vec<Used<'a>>,
}

impl<'a> From<&'a KeyId> for Used<'a> {
    fn from(k: &'a KeyId) -> Self {
        Self { key_id: k.key_id.as_deref(), entries: k.entries, current: k.current }
    }
}

fn used(key_ids: &[KeyId]) -> Vec<Used<'_>> {
    key_ids.iter().map(Used::from).collect()
}

impl From<Times> for Latency {
    fn from(times: Times) -> Self {
        // Thousandths are as much as a clock is worth.
        let ms = |t: Option<Duration>| t.map(|t| (t.as_secs_f64() * 1e6).round() / 1e3);
        Self {
            connect: ms(times.connect),
            status: ms(times.status),
            encrypt: ms(times.encrypt),
            decrypt: ms(times.decrypt),
        }
    }
}

impl<'a> From<&'a Checked> for Provider<'a> {
    fn from(c: &'a Checked) -> Self {
        let p = &c.probe;
        Self {
            name: &c.name.name,
            version: c.name.version.as_str(),
            endpoint: &c.endpoint,
            config: &c.location,
            writes: &c.writes,
            result: if p.is_usable() { "ok" } else { "failed" },
            error: c.why(),
            protocol: p.protocol.as_deref(),
            runtime: p.runtime.as_deref(),
            healthz: p.healthz.as_deref(),
            key_id: p.key_id.as_deref(),
            encrypt_key_id: p.encrypt_key_id.as_deref(),
            annotations: &p.annotations,
            round_trip: p.round_trip,
            latency_ms: p.times.into(),
            key_ids: c.key_ids.as_deref().map(used),
        }
    }
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
        let outcome = self.outcome;
        let source = outcome.source.as_ref().map(|(info, reading)| (info, &reading.visit));
        let document = Document {
            schema: "atrest.kms-check/v1",
            source: source.map(|(info, visit)| wire::Source::new(info, visit)),
            config: &self.config,
            providers: outcome.plugins.iter().map(Provider::from).collect(),
            unconfigured: outcome
                .unconfigured
                .iter()
                .map(|u| Named {
                    name: &u.name.name,
                    version: u.name.version.as_str(),
                    key_ids: used(&u.key_ids),
                })
                .collect(),
            malformed: outcome.malformed,
            damage: source.iter().flat_map(|(_, visit)| &visit.damage).map(Into::into).collect(),
        };
        wire::document(&document, out)
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        if let Some((info, reading)) = &self.outcome.source {
            table::heading(info, &reading.visit, Some(&self.config), out)?;
            writeln!(out)?;
        }
        let mut rows = Builder::new(
            color,
            &[
                "PROVIDER", "VERSION", "RESULT", "HEALTH", "PROTOCOL", "KEY ID", ">STATUS",
                ">ENCRYPT", ">DECRYPT", "WRITES", "ENDPOINT",
            ],
        );
        for c in &self.outcome.plugins {
            let p = &c.probe;
            let word = |text: Option<&str>| text.unwrap_or("-").to_owned();
            let writes = c.writes.join(",");
            let cells = vec![
                c.name.name.clone(),
                c.name.version.as_str().to_owned(),
                if p.is_usable() { "ok" } else { "failed" }.to_owned(),
                word(p.healthz.as_deref()),
                word(p.protocol.as_deref()),
                word(p.key_id.as_deref()),
                took(p.times.status),
                took(p.times.encrypt),
                took(p.times.decrypt),
                if writes.is_empty() { "-".to_owned() } else { writes },
                c.endpoint.clone(),
            ];
            rows.row(cells, if p.is_usable() { Mark::Good } else { Mark::Bad });
        }
        write!(out, "{rows}")?;
        self.entries(color, out)
    }

    /// Key IDs that live entries name.
    fn entries(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let of_configured = self
            .outcome
            .plugins
            .iter()
            .map(|c| (&c.name, c.key_ids.as_deref().unwrap_or_default(), true));
        let others = self.outcome.unconfigured.iter();
        let all: Vec<(&PluginName, &KeyId, bool)> = of_configured
            .chain(others.map(|u| (&u.name, u.key_ids.as_slice(), false)))
            .flat_map(|(name, ids, known)| ids.iter().map(move |id| (name, id, known)))
            .collect();
        if self.outcome.source.is_none() {
            return Ok(());
        }
        writeln!(out)?;
        if all.is_empty() {
            return writeln!(out, "no live entry names a KMS provider");
        }
        let mut rows =
            Builder::new(color, &["PROVIDER", "VERSION", "KEY ID", ">ENTRIES", "CURRENT"]);
        for (name, id, configured) in all {
            let (current, mark) = match (configured, id.current) {
                (false, _) => ("not configured", Mark::Bad),
                (true, Some(true)) => ("yes", Mark::Good),
                (true, Some(false)) => ("no", Mark::Warn),
                // Values of v1 name no key ID.
                (true, None) if id.key_id.is_none() => ("-", Mark::Plain),
                (true, None) => ("?", Mark::Warn),
            };
            let cells = vec![
                name.name.clone(),
                name.version.as_str().to_owned(),
                id.key_id.clone().unwrap_or_else(|| "-".to_owned()),
                table::count(id.entries),
                current.to_owned(),
            ];
            rows.row(cells, mark);
        }
        write!(out, "{rows}")
    }
}

fn took(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |t| format!("{:.1} ms", t.as_secs_f64() * 1e3))
}
