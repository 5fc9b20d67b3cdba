//! What `scrub` prints, and the receipt of each member.

#[cfg(feature = "kine")]
pub mod database;
mod findings;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::table::{self, Builder, Mark, visible};
use super::{Format, page, wire};
use crate::forensics::residue::Place;
use crate::jobs::scrub::{Found, Member, Outcome, Progress};

/// What nobody looks at who only has the databases.
pub const NOT_EXAMINED: [&str; 2] = [
    "the write-ahead logs and leftover files of the members",
    "backups and snapshots taken before this, and what disks keep of deleted files",
];

/// A finished look, or a finished run.
pub struct Report<'a> {
    /// What was found and done.
    pub outcome: &'a Outcome,
    /// Steps were taken, or were to be.
    pub applied: bool,
    /// What was looked for, in words.
    pub resources: &'a [String],
    /// What is to be done about each member's write-ahead log, in the order of the members.
    pub wal: &'a [Vec<String>],
    /// Where the receipts are.
    pub receipts: Option<&'a str>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    applied: bool,
    resources: &'a [String],
    members: Vec<WireMember<'a>>,
    compaction: Compaction,
    steps: Vec<String>,
    wal: Vec<Wal<'a>>,
    receipts: Option<&'a str>,
    stopped: Option<String>,
    verdict: &'static str,
    not_examined: [&'static str; 2],
}

#[derive(Serialize)]
struct Compaction {
    needed: Option<i64>,
    done: bool,
    apiserver_compacts: bool,
}

#[derive(Serialize)]
struct Wal<'a> {
    member: &'a str,
    commands: &'a [String],
}

#[derive(Serialize)]
struct WireMember<'a> {
    name: &'a str,
    id: String,
    endpoint: &'a str,
    leader: bool,
    learner: bool,
    version: &'a str,
    size: u64,
    in_use: u64,
    free: Option<u64>,
    status: &'static str,
    before: Option<WireFound<'a>>,
    after: Option<WireFound<'a>>,
}

#[derive(Serialize)]
struct WireFound<'a> {
    at: &'a str,
    revision: i64,
    size: u64,
    live_plaintext: u64,
    totals: BTreeMap<&'static str, u64>,
    findings: Vec<Finding<'a>>,
    damage: &'a [String],
}

#[derive(Serialize)]
struct Finding<'a> {
    #[serde(rename = "where")]
    place: &'static str,
    location: &'a str,
    #[serde(flatten)]
    key: Option<wire::Key>,
    resource: &'a str,
    size: u64,
}

#[derive(Serialize)]
struct Receipt<'a> {
    schema: &'static str,
    resources: &'a [String],
    member: WireMember<'a>,
    not_examined: [&'static str; 2],
}

impl<'a> From<&'a Found> for WireFound<'a> {
    fn from(f: &'a Found) -> Self {
        Self {
            at: &f.at,
            revision: f.revision,
            size: f.size,
            live_plaintext: f.live,
            totals: Place::ALL.iter().map(|p| (p.as_str(), f.totals.get(*p))).collect(),
            findings: f
                .listed
                .iter()
                .map(|l| Finding {
                    place: l.place.as_str(),
                    location: &l.location,
                    key: l.key.as_deref().map(wire::Key::new),
                    resource: &l.resource,
                    size: l.size,
                })
                .collect(),
            damage: &f.damage,
        }
    }
}

impl<'a> From<&'a Member> for WireMember<'a> {
    fn from(m: &'a Member) -> Self {
        Self {
            name: &m.name,
            id: format!("{:x}", m.id),
            endpoint: &m.endpoint,
            leader: m.leader,
            learner: m.learner,
            version: &m.version,
            size: m.size,
            in_use: m.in_use,
            free: m.free,
            status: m.progress.as_str(),
            before: m.before.as_ref().map(WireFound::from),
            after: m.after.as_ref().map(WireFound::from),
        }
    }
}

fn mark(progress: Progress) -> Mark {
    match progress {
        Progress::Clean | Progress::Scrubbed => Mark::Good,
        Progress::Pending => Mark::Warn,
        Progress::Unknown | Progress::Left => Mark::Bad,
    }
}

fn places(found: Option<&Found>) -> String {
    found.map_or_else(|| "-".to_owned(), |f| table::count(f.totals.sum()))
}

impl Report<'_> {
    fn verdict(&self) -> &'static str {
        let members = &self.outcome.members;
        if self.outcome.is_clean() {
            "clean"
        } else if members.iter().any(|m| m.progress == Progress::Unknown) {
            "unknown"
        } else {
            "residue"
        }
    }

    /// What is left to be done, in order.
    fn steps(&self) -> Vec<String> {
        let mut steps = Vec::new();
        let outcome = self.outcome;
        if let Some(revision) = outcome.compaction.filter(|_| !outcome.compacted) {
            let by = if outcome.compactor {
                ": the API server's compactor comes to it within about ten minutes, or it is done now if asked for"
            } else {
                ""
            };
            steps.push(format!("compact to revision {revision}{by}"));
        }
        let pending = |leader| {
            let all = outcome.members.iter();
            all.filter(move |m| m.progress == Progress::Pending && m.leader == leader)
        };
        for member in pending(false).chain(pending(true)) {
            let last = if member.leader { ", the leader, last" } else { "" };
            steps.push(format!("defragment {} ({}){last}", member.name, member.endpoint));
        }
        steps
    }

    /// Writes the report.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Json => wire::document(&self.document(), out),
            _ => self.table(color, out),
        }
    }

    fn document(&self) -> Document<'_> {
        let outcome = self.outcome;
        let wal = outcome.members.iter().zip(self.wal);
        Document {
            schema: "atrest.scrub/v1",
            applied: self.applied,
            resources: self.resources,
            members: outcome.members.iter().map(WireMember::from).collect(),
            compaction: Compaction {
                needed: outcome.compaction,
                done: outcome.compacted,
                apiserver_compacts: outcome.compactor,
            },
            steps: self.steps(),
            wal: wal.map(|(m, commands)| Wal { member: &m.name, commands }).collect(),
            receipts: self.receipts,
            stopped: outcome.stop.as_ref().map(ToString::to_string),
            verdict: self.verdict(),
            not_examined: NOT_EXAMINED,
        }
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let outcome = self.outcome;
        writeln!(
            out,
            "plaintext of {} in the databases of etcd's members\n",
            self.resources.join(", ")
        )?;
        let columns =
            ["MEMBER", "ENDPOINT", "ROLE", ">SIZE", ">IN USE", ">BEFORE", ">AFTER", "STATUS"];
        let mut rows = Builder::new(color, &columns);
        for m in &outcome.members {
            let role = match (m.leader, m.learner) {
                (true, _) => "leader",
                (_, true) => "learner",
                _ => "follower",
            };
            let cells = vec![
                m.name.clone(),
                m.endpoint.clone(),
                role.to_owned(),
                table::bytes(m.size),
                table::bytes(m.in_use),
                places(m.before.as_ref()),
                places(m.after.as_ref()),
                m.progress.as_str().to_owned(),
            ];
            rows.row(cells, mark(m.progress));
        }
        writeln!(out, "{rows}")?;
        let steps = self.steps();
        if !steps.is_empty() {
            let head = if self.applied { "still to do:" } else { "to do:" };
            writeln!(out, "{head}")?;
            for (i, step) in steps.iter().enumerate() {
                writeln!(out, "  {}. {}", i + 1, visible(step))?;
            }
            writeln!(out)?;
        }
        writeln!(out, "the write-ahead log of each member, by you, one member after the other:")?;
        for (member, commands) in outcome.members.iter().zip(self.wal) {
            writeln!(out, "  {}:", visible(&member.name))?;
            commands.iter().try_for_each(|c| writeln!(out, "    {}", visible(c)))?;
        }
        writeln!(out)?;
        if let Some(receipts) = self.receipts {
            writeln!(out, "receipts: {}", visible(receipts))?;
        }
        for part in NOT_EXAMINED {
            writeln!(out, "not examined: {part}")?;
        }
        writeln!(out, "verdict: {}, in the databases", self.verdict())
    }
}

/// The receipt of a member, as JSON.
///
/// # Errors
/// When `out` cannot be written.
pub fn receipt(member: &Member, resources: &[String], out: &mut dyn Write) -> io::Result<()> {
    let receipt = Receipt {
        schema: "atrest.scrub-receipt/v1",
        resources,
        member: member.into(),
        not_examined: NOT_EXAMINED,
    };
    wire::document(&receipt, out)
}

/// The receipt of a member, as a page.
///
/// # Errors
/// When `out` cannot be written.
pub fn receipt_page(member: &Member, resources: &[String], out: &mut dyn Write) -> io::Result<()> {
    page::head("Old plaintext removed", &member.name, out)?;
    let last = member.after.as_ref().or(member.before.as_ref());
    let sentence = match member.progress {
        Progress::Clean => "Nothing was found in this member's database.".to_owned(),
        Progress::Scrubbed => "Nothing is found any more in this member's database.".to_owned(),
        Progress::Unknown => "This member's database was not searched.".to_owned(),
        Progress::Pending | Progress::Left => {
            format!("Plaintext lies in {} places of this member's database.", places(last))
        }
    };
    page::verdict_line(mark(member.progress), &sentence, out)?;
    let mut facts = vec![
        ("Member", format!("{} ({:x})", member.name, member.id)),
        ("Endpoint", member.endpoint.clone()),
        ("etcd", member.version.clone()),
        ("Looked for", resources.join(", ")),
    ];
    facts.extend(findings::facts(member.before.as_ref(), member.after.as_ref()));
    facts.extend(NOT_EXAMINED.map(|part| ("Not examined", part.to_owned())));
    page::facts(&facts, out)?;
    findings::tables(member.before.as_ref(), member.after.as_ref(), out)?;
    page::foot(out)
}
