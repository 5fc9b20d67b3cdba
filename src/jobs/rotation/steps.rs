//! What the things seen mean for each step. Nothing is taken for done that nobody saw or said.

use super::{Role, State, Stored, Verified};
use crate::chain::chain;
use crate::jobs::confirm::{self, Answered, Loaded};
use crate::migrate::servers::Servers;
use crate::visible::visible;

/// A step of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The file with the new key is written.
    Add,
    /// Every API server reads it.
    LoadAdded,
    /// The file in which the new key writes is written.
    Promote,
    /// Every API server writes with the new key.
    LoadPromoted,
    /// Everything is rewritten.
    Migrate,
    /// Everything is read without the old key.
    Verify,
    /// The file without the old key is written.
    Retire,
    /// Every API server does without it.
    LoadRetired,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Add,
        Self::LoadAdded,
        Self::Promote,
        Self::LoadPromoted,
        Self::Migrate,
        Self::Verify,
        Self::Retire,
        Self::LoadRetired,
    ];

    /// The word in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::LoadAdded => "load-added",
            Self::Promote => "promote",
            Self::LoadPromoted => "load-promoted",
            Self::Migrate => "migrate",
            Self::Verify => "verify",
            Self::Retire => "retire",
            Self::LoadRetired => "load-retired",
        }
    }

    /// The file that it writes, or that API servers are to load.
    #[must_use]
    pub fn role(self) -> Option<Role> {
        match self {
            Self::Add | Self::LoadAdded => Some(Role::Added),
            Self::Promote | Self::LoadPromoted => Some(Role::Promoted),
            Self::Retire | Self::LoadRetired => Some(Role::Retired),
            Self::Migrate | Self::Verify => None,
        }
    }

    /// Only a person can take it: copy a file, and restart what reads it.
    #[must_use]
    pub fn is_for_people(self) -> bool {
        matches!(self, Self::LoadAdded | Self::LoadPromoted | Self::LoadRetired)
    }
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done, as far as was seen, or said.
    Done,
    /// To be taken now.
    Next,
    /// Whether it is done cannot be seen; nothing goes on.
    Unknown,
    /// Something is not as it should be; nothing goes on.
    Wrong,
    /// Others come first.
    Later,
}

impl Status {
    /// The word in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Next => "next",
            Self::Unknown => "unknown",
            Self::Wrong => "wrong",
            Self::Later => "later",
        }
    }
}

/// A step, and why it is thought to be that far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSeen {
    /// The step.
    pub step: Step,
    /// How far it is.
    pub status: Status,
    /// What was seen.
    pub facts: Vec<String>,
    /// What was not, and is needed.
    pub unknown: Vec<String>,
}

/// What is known of API servers.
#[derive(Debug, Default)]
pub struct ApiServers {
    /// The marks that they leave in etcd, or why they cannot be read; none where nobody looked.
    pub marks: Option<Result<Servers, String>>,
    /// What they said, where they were asked.
    pub asked: Option<confirm::Outcome>,
}

/// Everything that was looked at.
#[derive(Debug, Default)]
pub struct Looked {
    /// The API servers.
    pub servers: ApiServers,
    /// How entries are stored, or why that is not known; none where nobody looked.
    pub stored: Option<Result<Stored, String>>,
    /// Whether the key may go, or why that is not known; none where nobody looked.
    pub verified: Option<Result<Verified, String>>,
}

/// Everything that is known.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What is remembered; none before the first step.
    pub state: Option<&'a State>,
    /// Configuration files that were given, as they lie on machines, and their hashes.
    pub given: &'a [(String, String)],
    /// What was looked at.
    pub looked: &'a Looked,
}

/// Decides about every step. The first that is not done is the one to take; those behind it wait.
#[must_use]
pub fn steps(seen: &Seen<'_>) -> Vec<StepSeen> {
    let mut all: Vec<StepSeen> = Vec::new();
    let mut blocked = false;
    for step in Step::ALL {
        let mut judged = seen.judge(step);
        if blocked && judged.status != Status::Done {
            judged.status = Status::Later;
        }
        // What was done once must not look so where something before it is not any more.
        let depends = matches!(step, Step::Migrate | Step::Verify);
        if blocked && depends {
            judged.status = Status::Later;
        }
        blocked |= judged.status != Status::Done;
        all.push(judged);
    }
    all
}

impl Seen<'_> {
    fn judge(&self, step: Step) -> StepSeen {
        let mut judged =
            StepSeen { step, status: Status::Next, facts: Vec::new(), unknown: Vec::new() };
        match (step, step.role()) {
            (Step::Migrate, _) => self.migrated(&mut judged),
            (Step::Verify, _) => self.free(&mut judged),
            (Step::Add | Step::Promote | Step::Retire, Some(role)) => {
                if let Some(file) = self.state.and_then(|s| s.file(role)) {
                    judged.status = Status::Done;
                    judged.facts.push(format!("{} ({})", file.file, short(&file.sha256)));
                }
            }
            (_, Some(role)) => self.loaded(role, &mut judged),
            (_, None) => {}
        }
        judged
    }

    /// Whether all API servers have loaded the file of this step, or a later one.
    fn loaded(&self, target: Role, judged: &mut StepSeen) {
        let Some(state) = self.state.filter(|s| s.file(target).is_some()) else {
            judged.status = Status::Later;
            return;
        };
        let mut wrong = false;
        let mut waiting = Vec::new();
        let mut have = Vec::new();
        for server in self.looked.servers.asked.iter().flat_map(|o| &o.answered) {
            let name = visible(server.name());
            let files: Vec<&str> = server.metrics.loaded.iter().map(|l| l.file.as_str()).collect();
            let roles: Vec<Option<Role>> = files.iter().map(|f| state.role_of(f)).collect();
            if files.is_empty() {
                match untold(server, target, &name) {
                    Untold::Has => have.push(name),
                    Untold::Waiting(why) => waiting.push(why),
                    Untold::Unknown(why) => judged.unknown.push(why),
                }
            } else if let Some(at) = roles.iter().position(Option::is_none) {
                wrong = true;
                judged.facts.push(format!(
                    "the API server {name} has loaded {}, which is none of this rotation's files",
                    short(files[at])
                ));
            } else if let Some(role) = roles.iter().flatten().min().filter(|r| **r < target) {
                waiting
                    .push(format!("the API server {name} has loaded the {} file", role.as_str()));
            } else {
                have.push(name);
            }
        }
        judged.unknown.extend(self.looked.servers.unseen());
        let seen = waiting.is_empty() && !wrong && judged.unknown.is_empty() && !have.is_empty();
        if seen {
            judged.status = Status::Done;
            judged.unknown.clear();
            judged.facts.push(format!("loaded by {}", have.join(", ")));
            self.foreign(state, judged);
            return;
        }
        if !have.is_empty() {
            judged.facts.push(format!("loaded by {}", have.join(", ")));
        }
        for (location, sha256) in self.given {
            match state.role_of(sha256) {
                Some(role) if role < target => waiting.push(format!(
                    "{} is still the {} file",
                    visible(location),
                    role.as_str()
                )),
                _ => {}
            }
        }
        let idle = waiting.is_empty() && !wrong;
        judged.facts.extend(waiting);
        if wrong {
            judged.status = Status::Wrong;
        } else if idle {
            on_word(state, target, judged);
        }
        self.foreign(state, judged);
    }

    /// A file on a machine that somebody else changed: distributing the next one would undo that.
    fn foreign(&self, state: &State, judged: &mut StepSeen) {
        for (location, sha256) in self.given {
            if state.role_of(sha256).is_none() {
                judged.status = Status::Wrong;
                judged.facts.push(format!(
                    "{} ({}) is none of this rotation's files",
                    visible(location),
                    short(sha256)
                ));
            }
        }
    }

    fn migrated(&self, judged: &mut StepSeen) {
        let stored = match &self.looked.stored {
            None => {
                judged.unknown.push("how the entries are stored was not looked at".to_owned());
                judged.status = Status::Unknown;
                return;
            }
            Some(Err(why)) => {
                judged.unknown.push(format!("how the entries are stored: {why}"));
                judged.status = Status::Unknown;
                return;
            }
            Some(Ok(stored)) => stored,
        };
        let entries = stored.entries();
        judged.facts.push(format!("{} of {entries} entries under the new key", stored.new));
        if stored.old > 0 {
            judged.facts.push(format!("{} under the old one", stored.old));
        }
        if stored.other > 0 {
            judged.facts.push(format!("{} stored otherwise", stored.other));
        }
        let damage = stored.visit.damage.iter().map(|d| format!("{}: {}", d.location, d.what));
        judged.unknown.extend(damage);
        if stored.unknown > 0 {
            judged.unknown.push(format!("whether {} entries are to be rewritten", stored.unknown));
        }
        if stored.unreadable > 0 {
            judged.facts.push(format!("{} that no configured key reads", stored.unreadable));
        }
        judged.status = if stored.is_migrated() {
            Status::Done
        } else if stored.stale > 0 {
            Status::Next
        } else if stored.unreadable > 0 {
            Status::Wrong
        } else {
            Status::Unknown
        };
    }

    fn free(&self, judged: &mut StepSeen) {
        let verified = match &self.looked.verified {
            None => return,
            Some(Err(why)) => {
                judged.unknown.push(format!("whether the old key is needed: {why}"));
                judged.status = Status::Unknown;
                return;
            }
            Some(Ok(verified)) => verified,
        };
        judged.facts.push(format!("{} entries read without the old key", verified.read));
        for (resource, n) in &verified.under_old {
            judged.facts.push(format!("{n} of {resource} are stored under it"));
        }
        if verified.failed > 0 {
            judged
                .facts
                .push(format!("{} cannot be read without it, or are not current", verified.failed));
        }
        match verified.history {
            Some(0) => judged.facts.push("no superseded revision needs it".to_owned()),
            Some(n) => judged
                .facts
                .push(format!("{n} superseded revisions under it are held until compaction")),
            None => judged.facts.push("superseded revisions were not seen".to_owned()),
        }
        let damage = verified.visit.damage.iter().map(|d| format!("{}: {}", d.location, d.what));
        judged.unknown.extend(damage);
        judged.status = if verified.is_free() {
            Status::Done
        } else if verified.failed > 0 || !verified.under_old.is_empty() {
            Status::Wrong
        } else {
            Status::Unknown
        };
    }
}

/// What is known of a server that does not say what it has loaded.
enum Untold {
    Has,
    Waiting(String),
    Unknown(String),
}

/// Whether it has the file, by the canary that it was shown: one under the new key, which only the
/// added file and later ones read.
fn untold(server: &Answered, target: Role, name: &str) -> Untold {
    match &server.loaded {
        Loaded::Reads if target == Role::Added => Untold::Has,
        Loaded::Cannot(why) if target == Role::Added => Untold::Waiting(format!(
            "the API server {name} cannot read what the new key writes: {}",
            visible(why)
        )),
        Loaded::Absent => Untold::Unknown(format!(
            "the API server {name} does not find what was put into etcd: it reads another etcd, or under another prefix"
        )),
        _ => {
            let version = server.metrics.version.as_deref().unwrap_or("of unknown version");
            Untold::Unknown(format!(
                "the API server {name} ({version}) does not say which configuration it has loaded"
            ))
        }
    }
}

/// Where nothing speaks against it, what was said and what was seen before counts.
fn on_word(state: &State, target: Role, judged: &mut StepSeen) {
    judged.status = Status::Unknown;
    let said = state.said.iter().rev();
    let mut said = said.filter(|s| state.role_of(&s.sha256).is_some_and(|r| r >= target));
    if let Some(said) = said.next() {
        judged.status = Status::Done;
        judged.facts.push(format!("said on {}, not seen", said.at));
        return;
    }
    // The file behind it was only written when all had this one.
    let after = Role::ALL.into_iter().find(|role| *role > target);
    if after.is_some_and(|role| state.file(role).is_some()) {
        judged.status = Status::Done;
        judged.facts.push("seen before the next file was written".to_owned());
    }
}

impl ApiServers {
    /// Whether servers that do not say what they have loaded are all that keeps the added file from
    /// being loaded everywhere: a canary under the new key shows it, and would only keep those from
    /// listing who are known not to have the key.
    #[must_use]
    pub fn wants_canary(&self, state: &State) -> bool {
        let Some(asked) = self.asked.as_ref().filter(|_| self.unseen().is_empty()) else {
            return false;
        };
        let now = state.file(Role::Added).is_some() && state.file(Role::Promoted).is_none();
        let has = |file: &str| state.role_of(file).is_some_and(|role| role >= Role::Added);
        let untold = |a: &Answered| a.metrics.loaded.is_empty() && a.loaded == Loaded::Untold;
        let mut others = asked.answered.iter().flat_map(|a| &a.metrics.loaded);
        now && asked.answered.iter().any(untold) && others.all(|l| has(&l.file))
    }

    /// Why an answer of those that answered would not be one of all.
    fn unseen(&self) -> Vec<String> {
        let mut unseen = Vec::new();
        let Some(asked) = &self.asked else {
            return vec![
                "which configuration the API servers have loaded: none was asked".to_owned(),
            ];
        };
        for (address, error) in &asked.failed {
            unseen.push(format!("{} was not asked: {}", visible(address), chain(error)));
        }
        for host in &asked.silent {
            unseen.push(format!(
                "the API server on {}, which etcd knows of, was not reached",
                visible(host)
            ));
        }
        match &self.marks {
            None => unseen.push("how many API servers there are was not looked at".to_owned()),
            Some(Err(why)) => unseen.push(format!("how many API servers there are: {why}")),
            Some(Ok(marks)) => {
                if !marks.unreadable.is_empty() {
                    unseen.push(format!(
                        "how many API servers there are: {} Leases of theirs cannot be read",
                        marks.unreadable.len()
                    ));
                }
                let (count, answered) = (marks.count(), asked.answered.len());
                if unseen.is_empty() && count > answered {
                    unseen.push(format!(
                        "{answered} of {count} API servers that etcd knows of were reached"
                    ));
                }
            }
        }
        if unseen.is_empty() && asked.answered.is_empty() {
            unseen.push("no API server answered".to_owned());
        }
        unseen
    }
}

/// As much of a hash as people compare.
fn short(sha256: &str) -> String {
    sha256.chars().take("sha256:".len() + 12).collect()
}
