//! What `rotate` prints.

use std::io::{self, Write};

use serde::Serialize;

use super::migrate::Asked;
use super::table::{self, Builder, Mark, visible};
use super::{Format, wire};
use crate::jobs::rotation::{Chain, Key, Looked, Role, Status, StepSeen, Stored, Verified};

/// Which backups need the old key.
#[derive(Clone, Debug, Serialize)]
pub struct Backups {
    /// Files and directories that were looked at.
    pub looked_at: usize,
    /// Those that could not be read, or not wholly: they may need it too.
    pub unread: usize,
    /// Where those are that need it.
    pub need: Vec<String>,
    /// When the newest of them was taken.
    pub newest: Option<String>,
}

/// How far a rotation is.
pub struct Report<'a> {
    /// Where it is remembered.
    pub state: &'a str,
    /// When it began.
    pub begun: Option<&'a str>,
    /// Steps were taken.
    pub applied: bool,
    /// The commands of all steps are shown.
    pub all: bool,
    /// Its keys.
    pub chain: &'a Chain,
    /// Names and hashes of its files, in the order of [`Role::ALL`].
    pub files: &'a [(String, Option<String>)],
    /// The resources that it is restricted to.
    pub resources: &'a [String],
    /// The steps.
    pub steps: &'a [StepSeen],
    /// What takes each of them.
    pub commands: &'a [Vec<String>],
    /// What was looked at.
    pub looked: &'a Looked,
    /// Backups, where they were looked at.
    pub backups: Option<&'a Backups>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    state: &'a str,
    begun: Option<&'a str>,
    applied: bool,
    done: bool,
    next: Option<&'static str>,
    resources: &'a [String],
    new: WireKey<'a>,
    old: WireKey<'a>,
    files: Vec<WireFile<'a>>,
    steps: Vec<WireStep<'a>>,
    apiservers: Option<WireServers<'a>>,
    stored: Option<WireStored<'a>>,
    verified: Option<WireVerified<'a>>,
    backups: Option<&'a Backups>,
    unknown: Vec<&'a str>,
}

#[derive(Serialize)]
struct WireKey<'a> {
    provider: &'static str,
    key: Option<&'a str>,
}

#[derive(Serialize)]
struct WireFile<'a> {
    role: &'static str,
    file: &'a str,
    sha256: Option<&'a str>,
}

#[derive(Serialize)]
struct WireStep<'a> {
    step: &'static str,
    by: &'static str,
    status: &'static str,
    facts: &'a [String],
    unknown: &'a [String],
    commands: &'a [String],
}

#[derive(Serialize)]
struct WireServers<'a> {
    seen: Option<usize>,
    names: Vec<&'a str>,
    asked: Option<Vec<Asked>>,
}

#[derive(Serialize)]
struct WireStored<'a> {
    revision: Option<i64>,
    new: u64,
    old: u64,
    other: u64,
    stale: u64,
    unreadable: u64,
    unknown: u64,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct WireVerified<'a> {
    revision: Option<i64>,
    read: u64,
    failed: Vec<WireFailed<'a>>,
    history: Option<u64>,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct WireFailed<'a> {
    #[serde(flatten)]
    key: wire::Key,
    reason: &'a str,
}

impl<'a> From<&'a Key> for WireKey<'a> {
    fn from(key: &'a Key) -> Self {
        Self { provider: key.provider.as_str(), key: key.name.as_deref() }
    }
}

fn by(step: &StepSeen) -> &'static str {
    if step.step.is_for_people() { "person" } else { "atrest" }
}

fn stored(found: &Result<Stored, String>) -> WireStored<'_> {
    let nothing = Stored::default();
    let (s, error) = match found {
        Ok(stored) => (stored, None),
        Err(why) => (&nothing, Some(why.as_str())),
    };
    WireStored {
        revision: error.is_none().then_some(s.visit.revision),
        new: s.new,
        old: s.old,
        other: s.other,
        stale: s.stale,
        unreadable: s.unreadable,
        unknown: s.unknown,
        error,
    }
}

fn verified(found: &Result<Verified, String>) -> WireVerified<'_> {
    match found {
        Ok(v) => WireVerified {
            revision: Some(v.visit.revision),
            read: v.read,
            failed: v
                .named
                .iter()
                .map(|(key, reason)| WireFailed { key: wire::Key::new(key), reason })
                .collect(),
            history: v.history,
            error: None,
        },
        Err(why) => WireVerified {
            revision: None,
            read: 0,
            failed: Vec::new(),
            history: None,
            error: Some(why),
        },
    }
}

impl Report<'_> {
    fn next(&self) -> Option<(&StepSeen, &[String])> {
        let mut all = self.steps.iter().zip(self.commands);
        all.find(|(step, _)| step.status != Status::Done).map(|(s, c)| (s, c.as_slice()))
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
        let marks = self.looked.servers.marks.as_ref().and_then(|m| m.as_ref().ok());
        let asked = self.looked.servers.asked.as_ref();
        let next = self.next().map(|(step, _)| step);
        Document {
            schema: "atrest.rotate/v1",
            state: self.state,
            begun: self.begun,
            applied: self.applied,
            done: next.is_none(),
            next: next.map(|s| s.step.as_str()),
            resources: self.resources,
            new: (&self.chain.new).into(),
            old: (&self.chain.old).into(),
            files: Role::ALL
                .iter()
                .zip(self.files)
                .map(|(role, (file, sha256))| WireFile {
                    role: role.as_str(),
                    file,
                    sha256: sha256.as_deref(),
                })
                .collect(),
            steps: self
                .steps
                .iter()
                .zip(self.commands)
                .map(|(s, commands)| WireStep {
                    step: s.step.as_str(),
                    by: by(s),
                    status: s.status.as_str(),
                    facts: &s.facts,
                    unknown: &s.unknown,
                    commands,
                })
                .collect(),
            apiservers: (marks.is_some() || asked.is_some()).then(|| WireServers {
                seen: marks.map(crate::migrate::servers::Servers::count),
                names: marks.map(crate::migrate::servers::Servers::names).unwrap_or_default(),
                asked: asked.map(|o| o.answered.iter().map(Asked::from).collect()),
            }),
            stored: self.looked.stored.as_ref().map(stored),
            verified: self.looked.verified.as_ref().map(verified),
            backups: self.backups,
            unknown: next.iter().flat_map(|s| &s.unknown).map(String::as_str).collect(),
        }
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let resources = match self.resources {
            [] => String::new(),
            some => format!(", for {}", visible(&some.join(", "))),
        };
        writeln!(
            out,
            "rotation from {} to {}{resources}",
            visible(&self.chain.old.to_string()),
            visible(&self.chain.new.to_string())
        )?;
        let begun = self.begun.map_or("not begun".to_owned(), |t| format!("begun {}", visible(t)));
        writeln!(out, "state {}, {begun}\n", visible(self.state))?;
        let mut rows = Builder::new(color, &["STEP", "STATUS", "BY", "WHAT WAS SEEN"]);
        for s in self.steps {
            let mark = match s.status {
                Status::Done => Mark::Good,
                Status::Next | Status::Unknown => Mark::Warn,
                Status::Wrong => Mark::Bad,
                Status::Later => Mark::Plain,
            };
            let facts = if s.status == Status::Later { String::new() } else { s.facts.join("; ") };
            let cells = vec![s.step.as_str().into(), s.status.as_str().into(), by(s).into(), facts];
            rows.row(cells, mark);
        }
        writeln!(out, "{rows}")?;
        self.of_backups(out)?;
        let Some((next, commands)) = self.next() else {
            writeln!(
                out,
                "the rotation is done; keep the file before the last one, {}, for as long as you keep backups from its time",
                visible(&self.files[Role::Promoted as usize].0)
            )?;
            return Ok(());
        };
        if !next.unknown.is_empty() {
            writeln!(out, "not known:")?;
            for text in &next.unknown {
                writeln!(out, "  {}", visible(text))?;
            }
            writeln!(out)?;
        }
        if self.all {
            for (step, commands) in self.steps.iter().zip(self.commands) {
                if step.status != Status::Done {
                    self::commands(step, commands, out)?;
                }
            }
            return Ok(());
        }
        write!(out, "next: ")?;
        self::commands(next, commands, out)
    }

    fn of_backups(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some(b) = self.backups else { return Ok(()) };
        let newest = b.newest.as_ref().map_or(String::new(), |t| format!(", the newest from {t}"));
        writeln!(
            out,
            "backups: {} of {} need the old key{newest}",
            b.need.len(),
            table::count(b.looked_at as u64)
        )?;
        for location in &b.need {
            writeln!(out, "  {}", visible(location))?;
        }
        if b.unread > 0 {
            writeln!(out, "  and {} could not be read, and may need it", b.unread)?;
        }
        writeln!(out)
    }
}

/// A step and the commands that take it.
fn commands(step: &StepSeen, commands: &[String], out: &mut dyn Write) -> io::Result<()> {
    let by = if step.step.is_for_people() {
        "you: copy the file to every control plane machine and restart its kube-apiserver, one after the other (it reloads by itself with --encryption-provider-config-automatic-reload)"
    } else {
        "atrest"
    };
    writeln!(out, "{}, by {by}", step.step.as_str())?;
    commands.iter().try_for_each(|c| writeln!(out, "  {}", visible(c)))
}
