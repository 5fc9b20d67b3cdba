//! What is published: one state of the counts, written as Prometheus or `OpenMetrics` text.

use std::fmt::{self, Write};

use crate::envelope::Version;
use crate::scan::{GroupKey, Status, Totals};
use crate::visible::label;

/// One group of entries.
#[derive(Clone, Debug)]
pub struct Series {
    /// Resource, provider, key and status.
    pub group: GroupKey,
    /// Number of entries.
    pub entries: u64,
    /// The lowest modification revision in the group at the last full scan.
    pub oldest_revision: Option<i64>,
}

/// One state of everything that is published.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Counts by group.
    pub series: Vec<Series>,
    /// Sums.
    pub totals: Totals,
    /// Whether statuses are relative to a configuration.
    pub with_status: bool,
    /// The etcd revision that the counts hold.
    pub revision: i64,
    /// When the last full scan ended, seconds since the epoch.
    pub scanned_at: Option<u64>,
    /// How long it took, seconds.
    pub scan_seconds: f64,
    /// Full scans that ended well, since the start.
    pub scans: u64,
    /// Scans and watches that failed, since the start.
    pub failures: u64,
    /// Changes that the watch has told, since the start.
    pub changes: u64,
    /// The watch stands: the counts are those of now.
    pub watching: bool,
}

/// How the text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Form {
    /// The content type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Metrics {
    /// Everything, as text.
    #[must_use]
    pub fn text(&self, form: Form) -> String {
        let mut page = Page { form, text: String::new() };
        // Writing to a String cannot fail.
        let _ = self.write(&mut page);
        page.text
    }

    fn write(&self, page: &mut Page) -> fmt::Result {
        page.family("atrest_entries", "gauge", "Stored entries by how they are stored.")?;
        for series in &self.series {
            page.sample("atrest_entries", &labels(&series.group), series.entries)?;
        }
        page.one("atrest_entries_plaintext", "Entries stored unencrypted.", self.totals.plaintext)?;
        if self.with_status {
            page.one(
                "atrest_entries_stale",
                "Entries that the API server would rewrite.",
                self.totals.stale,
            )?;
            page.one(
                "atrest_entries_unreadable",
                "Entries that no configured provider reads.",
                self.totals.unreadable,
            )?;
            page.one(
                "atrest_entries_unknown",
                "Entries whose status could not be decided.",
                self.totals.unknown,
            )?;
        }
        self.write_keys(page)?;
        page.one("atrest_scan_revision", "The etcd revision that the counts hold.", self.revision)?;
        if let Some(at) = self.scanned_at {
            page.one("atrest_scan_timestamp_seconds", "When the last full scan ended.", at)?;
            page.one(
                "atrest_scan_duration_seconds",
                "How long the last full scan took.",
                self.scan_seconds,
            )?;
        }
        page.one(
            "atrest_watch_up",
            "1 while changes are followed, 0 while the counts may be old.",
            u8::from(self.watching),
        )?;
        page.counter("atrest_scans", "Full scans since the start.", self.scans)?;
        page.counter("atrest_failures", "Scans and watches that failed.", self.failures)?;
        page.counter("atrest_changes", "Changes that the watch has told.", self.changes)?;
        page.family("atrest_build_info", "gauge", "Which program this is.")?;
        page.sample(
            "atrest_build_info",
            &[("version", env!("CARGO_PKG_VERSION")), ("commit", env!("ATREST_COMMIT"))],
            1,
        )?;
        if page.form == Form::OpenMetrics {
            writeln!(page.text, "# EOF")?;
        }
        Ok(())
    }

    fn write_keys(&self, page: &mut Page) -> fmt::Result {
        let with_id = self.series.iter().filter(|s| s.group.kms_key_id.is_some());
        page.family(
            "atrest_entries_kms_key_id",
            "gauge",
            "Entries under KMS v2 by the key ID that encrypted them.",
        )?;
        for series in with_id {
            let group = &series.group;
            let mut labels = labels(group).to_vec();
            labels.push(("kms_key_id", group.kms_key_id.as_deref().unwrap_or_default()));
            page.sample("atrest_entries_kms_key_id", &labels, series.entries)?;
        }
        page.family(
            "atrest_oldest_entry_revision",
            "gauge",
            "The oldest modification revision under each key at the last full scan.",
        )?;
        for series in &self.series {
            if let Some(revision) = series.oldest_revision {
                let mut labels = labels(&series.group).to_vec();
                labels.push(("kms_key_id", series.group.kms_key_id.as_deref().unwrap_or_default()));
                page.sample("atrest_oldest_entry_revision", &labels, revision)?;
            }
        }
        Ok(())
    }
}

fn labels(group: &GroupKey) -> [(&str, &str); 5] {
    [
        ("resource", &group.resource),
        ("provider", group.provider.as_str()),
        ("version", group.version.map_or("", Version::as_str)),
        ("key", group.key_name.as_deref().unwrap_or_default()),
        ("status", group.status.map_or("", Status::as_str)),
    ]
}

struct Page {
    form: Form,
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}")
    }

    fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl fmt::Display,
    ) -> fmt::Result {
        self.text.push_str(name);
        for (i, (name, text)) in labels.iter().enumerate() {
            self.text.push(if i == 0 { '{' } else { ',' });
            write!(self.text, "{name}=\"{}\"", label(text))?;
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        writeln!(self.text, " {value}")
    }

    fn one(&mut self, name: &str, help: &str, value: impl fmt::Display) -> fmt::Result {
        self.family(name, "gauge", help)?;
        self.sample(name, &[], value)
    }

    /// `OpenMetrics` names a counter's family without `_total`.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let total = format!("{name}_total");
        let family = if self.form == Form::OpenMetrics { name } else { &total };
        self.family(family, "counter", help)?;
        self.sample(&total, &[], value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_forms_differ_where_their_rules_do() {
        let metrics = Metrics::default();
        let (plain, open) = (metrics.text(Form::Prometheus), metrics.text(Form::OpenMetrics));
        assert!(plain.contains("# TYPE atrest_scans_total counter\natrest_scans_total 0\n"));
        assert!(open.contains("# TYPE atrest_scans counter\natrest_scans_total 0\n"));
        assert!(open.ends_with("# EOF\n") && !plain.contains("EOF"));
        assert!(plain.contains("atrest_watch_up 0\n"));
        assert!(!plain.contains("atrest_scan_timestamp_seconds"), "nothing was scanned yet");
    }
}
