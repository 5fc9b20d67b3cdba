//! A live cluster, searched in a snapshot of every member: what its members serve is the least of
//! what their files hold.

use std::ops::ControlFlow;
use std::path::Path;

use super::search::{Hunt, Searched, of_snapshot};
use super::{Error, Opened, Unexamined};
use crate::chain::chain;
use crate::forensics::Targets;
use crate::forensics::residue::{Bytes, Finding, Place, Sink};
use crate::jobs::{Observer, members};
use crate::source::live::{Live, LiveOptions};
use crate::source::{Query, Source as _, SourceError};

/// A member that nobody looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsearched {
    /// Its name and where it should answer.
    pub member: String,
    /// Why.
    pub why: String,
}

/// Findings of one member after another.
struct OfMember<'f> {
    found: &'f mut dyn Hunt,
    /// What to call it; `None` where it is the only one.
    name: Option<&'f str>,
    /// No other was searched before.
    first: bool,
    /// Superseded revisions that were found already: each member has them.
    superseded: &'f mut hashbrown::HashSet<(Vec<u8>, i64)>,
    /// Something is live.
    lives: bool,
}

impl Sink for OfMember<'_> {
    fn found(&mut self, mut finding: Finding, bytes: Bytes<'_>) {
        if let (Place::SupersededRevision, Some(key), Some(revision)) =
            (finding.place, &finding.key, finding.revision)
            && !self.superseded.insert((key.clone(), revision))
        {
            return;
        }
        if let Some(name) = self.name {
            finding.location = format!("{name}: {}", finding.location);
        }
        self.found.found(finding, bytes);
    }

    fn live(&mut self, key: &[u8], value: &[u8]) {
        self.lives = true;
        if self.first {
            self.found.live(key, value);
        }
    }
}

impl Hunt for OfMember<'_> {}

/// Searches every member that can be reached; names the others. `None` where the files of the
/// members are not what is served, as behind a proxy with a namespace.
///
/// # Errors
/// When no member can be searched.
pub(super) fn search(
    connection: &LiveOptions,
    targets: &Targets,
    found: &mut dyn Hunt,
    observer: &mut dyn Observer,
) -> Result<(Option<Searched>, Vec<Unsearched>), Error> {
    let mut served = Live::connect(connection)?;
    let listed = members::list(connection, &served)?;
    let mut unsearched = Vec::new();
    let mut whole: Option<Searched> = None;
    let mut failure: Option<SourceError> = None;
    let mut superseded = hashbrown::HashSet::new();
    observer.begin("members", &mut || Some(listed.len() as u64));
    for member in &listed {
        let at = format!("{} ({})", member.name, member.endpoint);
        let taken = members::connect(connection, &member.endpoint)
            .and_then(|live| members::snapshot(&live, Path::new(&at)));
        observer.advance(1);
        let file = match taken {
            Ok(file) => file,
            Err(e) => {
                unsearched.push(Unsearched { member: at, why: chain(&e) });
                failure.get_or_insert(e);
                continue;
            }
        };
        let name = (listed.len() > 1).then_some(member.name.as_str());
        let first = whole.is_none();
        let mut of = OfMember { found, name, first, superseded: &mut superseded, lives: false };
        let mut searched = of_snapshot(file, false, targets, &mut of)?;
        if first && !of.lives && is_served(&mut served, targets)? {
            observer.end();
            let why = "its keys are not those that are served here, as behind a proxy with a \
                namespace: search it at its own address, under the proxy's namespace";
            unsearched.push(Unsearched { member: at, why: why.to_owned() });
            return Ok((None, unsearched));
        }
        if let Some(name) = name {
            for damage in &mut searched.visit.damage {
                damage.location = format!("{name}: {}", damage.location);
            }
        }
        whole = Some(match whole {
            None => searched,
            Some(before) => both(before, searched),
        });
    }
    observer.end();
    let Some(searched) = whole else {
        let none = || SourceError::from(crate::source::EtcdError::Closed);
        return Err(failure.unwrap_or_else(none).into());
    };
    let searched = Searched {
        info: served.info(),
        not_examined: &[Unexamined::LogsAndLeftovers],
        opened: Some(Opened::Served(Box::new(served))),
        ..searched
    };
    Ok((Some(searched), unsearched))
}

/// The first, with what only the second knows.
fn both(mut first: Searched, second: Searched) -> Searched {
    first.visit.revision = first.visit.revision.max(second.visit.revision);
    first.visit.damage.extend(second.visit.damage);
    for note in second.visit.notes {
        if !first.visit.notes.contains(&note) {
            first.visit.notes.push(note);
        }
    }
    first
}

/// Whether etcd serves an entry of what is looked for.
fn is_served(served: &mut Live, targets: &Targets) -> Result<bool, SourceError> {
    let mut any = false;
    let query = Query { ordered: false, ..targets.query().clone() };
    served.visit(&query, &mut |entry| {
        any |= targets.takes(entry.stored()).is_some() && targets.locate(entry.key).is_some();
        if any { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(any)
}
