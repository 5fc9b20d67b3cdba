//! What `residue` prints.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine as _;
use serde::Serialize;

use super::table::{self, Builder, Mark};
use super::{Format, page, wire};
use crate::forensics::residue::{Finding, Place};
use crate::jobs::residue::{Outcome, Unexamined};

/// A finished search.
pub struct Report<'a> {
    /// What was found.
    pub outcome: &'a Outcome,
    /// What was looked for, in words.
    pub resources: &'a [String],
    /// What removes it, in order.
    pub remedy: &'a [String],
    /// One row per finding, not per object.
    pub list: bool,
}

impl Unexamined {
    /// What was not searched, and how it is.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Logs => "the write-ahead logs of the members: search the data directory of each",
            Self::Members => "the other members: search each of them",
            Self::Pages => {
                "free pages and page slack: search a snapshot of each member (etcdctl snapshot save)"
            }
            Self::LogsAndLeftovers => {
                "write-ahead logs and leftover files: search the data directory of each member, stopped"
            }
            Self::DeadTuples => {
                "dead tuples and free space in the table's files: VACUUM FULL kine rewrites them"
            }
            Self::ServerLog => {
                "PostgreSQL's write-ahead log and its archive: checkpoints remove old segments, what archive_command copied is removed by hand"
            }
            Self::DeletedRows => {
                "deleted rows and free pages in InnoDB's files: OPTIMIZE TABLE kine rewrites the table"
            }
            Self::BinaryLogs => {
                "binary, redo and undo logs: PURGE BINARY LOGS removes old binary logs, redo and undo logs are overwritten in time"
            }
            Self::StreamFiles => {
                "messages that JetStream removed and has not overwritten in its block files: it rewrites a block in time; a new bucket, with the old one's files destroyed, is sure"
            }
            Self::StreamCopies => {
                "replicas and mirrors of the stream, and backups of it: delete those from before, and make them anew"
            }
            Self::Copies => {
                "replicas, dumps and backups of the database: delete those from before, and make them anew"
            }
        }
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    source: wire::Source,
    resources: &'a [String],
    head: Head,
    findings: Vec<Row<'a>>,
    totals: BTreeMap<&'static str, u64>,
    /// What was not asked for, and counts for the verdict all the same.
    elsewhere: Elsewhere,
    objects: u64,
    verdict: &'static str,
    remedy: &'a [String],
    not_examined: Vec<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<wire::Damage>,
}

#[derive(Serialize)]
struct Head {
    plaintext: u64,
}

#[derive(Serialize)]
struct Elsewhere {
    plaintext: u64,
    findings: u64,
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(rename = "where")]
    place: &'static str,
    location: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_b64: Option<String>,
    #[serde(skip_serializing_if = "skip_key")]
    key: Key<'a>,
    resource: &'a str,
    revision: Option<i64>,
    size: u64,
    partial: bool,
}

/// A key that is no text stands in `key_b64` alone; a lost one is `null`.
#[derive(Serialize)]
#[serde(untagged)]
enum Key<'a> {
    Text(&'a str),
    Lost(()),
    #[serde(skip)]
    Bytes,
}

fn skip_key(key: &Key<'_>) -> bool {
    matches!(key, Key::Bytes)
}

impl<'a> From<&'a Finding> for Row<'a> {
    fn from(f: &'a Finding) -> Self {
        let (key, key_b64) = match f.key.as_deref().map(|k| (k, std::str::from_utf8(k))) {
            None => (Key::Lost(()), None),
            Some((_, Ok(text))) => (Key::Text(text), None),
            Some((bytes, Err(_))) => {
                (Key::Bytes, Some(base64::engine::general_purpose::STANDARD.encode(bytes)))
            }
        };
        Self {
            place: f.place.as_str(),
            location: &f.location,
            key_b64,
            key,
            resource: &f.resource,
            revision: f.revision,
            size: f.size,
            partial: f.partial,
        }
    }
}

const COLUMNS: [&str; 6] = ["WHERE", "LOCATION", "ETCD KEY", ">REVISION", ">SIZE", ">COPIES"];

/// Copies of one write in one kind of place.
struct Copies<'a> {
    first: &'a Finding,
    count: u64,
}

impl Copies<'_> {
    fn row(&self) -> (Vec<String>, Mark) {
        let f = self.first;
        let key = f.key.as_deref().map_or("(overwritten)".into(), String::from_utf8_lossy);
        let size = table::bytes(f.size);
        let cells = vec![
            f.place.as_str().to_owned(),
            f.location.clone(),
            key.into_owned(),
            f.revision.map_or_else(|| "-".to_owned(), |r| r.to_string()),
            if f.partial { format!("{size} partial") } else { size },
            table::count(self.count),
        ];
        (cells, Mark::Bad)
    }
}

impl Report<'_> {
    /// `clean` or `residue`, of everything that is looked for.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        if self.outcome.all.sum() == 0 { "clean" } else { "residue" }
    }

    fn findings(&self) -> &[Finding] {
        &self.outcome.findings
    }

    /// Findings beside what was asked for.
    fn elsewhere(&self) -> u64 {
        self.outcome.all.sum() - self.outcome.totals.sum()
    }

    fn not_examined(&self) -> impl Iterator<Item = Cow<'static, str>> {
        #[cfg(feature = "live")]
        let members = self.outcome.unsearched.iter();
        #[cfg(feature = "live")]
        let members = members.map(|m| Cow::Owned(format!("member {}: {}", m.member, m.why)));
        #[cfg(not(feature = "live"))]
        let members = std::iter::empty();
        let parts = self.outcome.not_examined.iter().map(|part| Cow::Borrowed(part.words()));
        members.chain(parts)
    }

    /// Writes the report.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Json => wire::document(&self.document(), out),
            Format::Jsonl => wire::lines(self.findings().iter().map(Row::from), out),
            Format::Html => self.html(out),
            _ => self.table(color, out),
        }
    }

    fn document(&self) -> Document<'_> {
        let head = self.outcome.head;
        Document {
            schema: "atrest.residue/v1",
            source: wire::Source::new(&self.outcome.info, &self.outcome.visit),
            resources: self.resources,
            head: Head { plaintext: head.listed },
            findings: self.findings().iter().map(Row::from).collect(),
            totals: Place::ALL.iter().map(|p| (p.as_str(), self.outcome.totals.get(*p))).collect(),
            elsewhere: Elsewhere { plaintext: head.elsewhere, findings: self.elsewhere() },
            objects: self.objects(),
            verdict: self.verdict(),
            remedy: self.remedy,
            not_examined: self.not_examined().collect(),
            damage: self.outcome.visit.damage.iter().map(Into::into).collect(),
        }
    }

    /// How many different objects, by key; pieces without one count each.
    fn objects(&self) -> u64 {
        let keys: std::collections::BTreeSet<_> =
            self.findings().iter().filter_map(|f| f.key.as_deref()).collect();
        keys.len() as u64 + self.findings().iter().filter(|f| f.key.is_none()).count() as u64
    }

    /// Copies of the same write, in order of first appearance.
    fn copies(&self) -> Vec<Copies<'_>> {
        let mut index = BTreeMap::new();
        let mut all: Vec<Copies<'_>> = Vec::new();
        for f in self.findings() {
            let place = *index
                .entry((f.place, f.key.as_deref(), f.revision, f.size, f.partial))
                .or_insert(all.len());
            match all.get_mut(place).filter(|_| f.key.is_some()) {
                Some(copies) => copies.count += 1,
                None => all.push(Copies { first: f, count: 1 }),
            }
        }
        all
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let Outcome { info, visit, head, .. } = self.outcome;
        table::source(info, visit, out)?;
        writeln!(out, ", plaintext of {}", self.resources.join(", "))?;
        writeln!(out)?;
        self.rows(color, out)?;
        for part in self.not_examined() {
            writeln!(out, "not examined: {}", table::visible(&part))?;
        }
        for (n, which) in [(head.listed, ""), (head.elsewhere, " that were not asked for")] {
            if n > 0 {
                writeln!(out, "live: {} stored unencrypted{which}", table::entries(n))?;
            }
        }
        writeln!(out, "verdict: {}", self.sentence())?;
        if !self.remedy.is_empty() {
            writeln!(out, "\nto remove it, in this order:")?;
            for (i, step) in self.remedy.iter().enumerate() {
                writeln!(out, "  {}. {step}", i + 1)?;
            }
        }
        Ok(())
    }

    /// The findings and how many there are.
    fn rows(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        /// Rows before a reader is sent to `--list`.
        const TOP: usize = 20;
        if self.findings().is_empty() {
            return Ok(());
        }
        let copies = self.copies();
        let shown = if self.list { copies.len() } else { TOP.min(copies.len()) };
        table::long(color, &COLUMNS, || copies[..shown].iter().map(Copies::row), out)?;
        writeln!(out)?;
        if shown < copies.len() {
            let more = table::counted((copies.len() - shown) as u64, "more row", "more rows");
            writeln!(out, "and {more}; --list shows all\n")?;
        }
        let mut sums = Builder::new(color, &["WHERE", ">FINDINGS"]);
        for place in Place::ALL {
            let n = self.outcome.totals.get(place);
            if n > 0 {
                sums.row(vec![place.as_str().to_owned(), table::count(n)], Mark::Bad);
            }
        }
        writeln!(out, "{sums}")
    }

    fn html(&self, out: &mut dyn Write) -> io::Result<()> {
        let Outcome { info, visit, totals, .. } = self.outcome;
        page::head("Plaintext left behind", &info.location, out)?;
        for (mark, sentence) in self.verdict_lines() {
            page::verdict_line(mark, &sentence, out)?;
        }
        page::shares(&Place::ALL.map(|p| (p.as_str(), totals.get(p), Mark::Bad)), out)?;
        let mut facts = page::read(info, visit, None);
        facts.push(("Plaintext of", self.resources.join(", ")));
        page::facts(&facts, out)?;
        page::steps("To remove it, in this order", self.remedy, out)?;
        page::damage(&visit.damage, out)?;
        let copies = self.copies();
        if !copies.is_empty() {
            page::table("Findings", &COLUMNS, copies.iter().map(Copies::row), out)?;
        }
        page::foot(out)
    }

    /// The verdict and what it is not about: a clean result says what nobody looked at.
    fn verdict_lines(&self) -> Vec<(Mark, String)> {
        let head = self.outcome.head;
        let whole = self.outcome.visit.damage.is_empty() && head.sum() == 0;
        let mark = match (self.verdict(), whole) {
            ("clean", true) => Mark::Good,
            ("clean", false) => Mark::Warn,
            _ => Mark::Bad,
        };
        let mut out = vec![(mark, format!("Verdict: {}.", self.sentence()))];
        for (n, which) in [(head.listed, ""), (head.elsewhere, " that were not asked for")] {
            if n > 0 {
                let live = format!("Live: {} stored unencrypted{which}.", table::entries(n));
                out.push((Mark::Warn, live));
            }
        }
        out.extend(self.not_examined().map(|part| (Mark::Warn, format!("Not examined: {part}."))));
        out
    }

    /// The verdict in words, with what it is not about.
    fn sentence(&self) -> String {
        let places = |n| table::counted(n, "place", "places");
        let verdict = match (self.findings().len(), self.elsewhere()) {
            (0, 0) if self.outcome.head.sum() > 0 => "clean beside the live entries".to_owned(),
            (0, 0) => "clean".to_owned(),
            (0, n) => format!(
                "residue, nothing of what was asked for, but in {} of what was not",
                places(n)
            ),
            (_, elsewhere) => {
                let objects = table::counted(self.objects(), "object", "objects");
                let more = match elsewhere {
                    0 => String::new(),
                    n => format!(", and in {} of what was not asked for", places(n)),
                };
                let sum = places(self.outcome.totals.sum());
                format!("residue, plaintext of {objects} in {sum}{more}")
            }
        };
        match self.outcome.visit.damage.len() as u64 {
            0 => verdict,
            n => format!(
                "{verdict}; nothing is known of {} that could not be read",
                table::counted(n, "part", "parts")
            ),
        }
    }
}
