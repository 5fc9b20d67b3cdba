//! What `delete-unreadable` prints.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::jobs::unreadable::apply::Done;
use crate::jobs::unreadable::plan::{BODY, Outcome, Unread};
use crate::posture::deleters::VERB;
use crate::report::table::{self, Builder, Mark};
use crate::report::{Format, wire};

/// What was found, and what was done.
pub struct Report<'a> {
    /// What was found.
    pub outcome: &'a Outcome,
    /// The configurations.
    pub config: wire::Config,
    /// What became of which entries, where some were to be deleted.
    pub done: Option<&'a Vec<(Vec<u8>, Done)>>,
    /// Where they were saved.
    pub backup: Option<&'a Path>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    source: wire::Source,
    config: &'a wire::Config,
    applied: bool,
    backup: Option<String>,
    totals: Totals,
    entries: Vec<Entry<'a>>,
    rights_unknown: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<wire::Damage>,
}

#[derive(Serialize)]
struct Totals {
    entries: u64,
    unreadable: u64,
    certain: u64,
    unknown: u64,
    other_name: u64,
    deleted: u64,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    key: wire::Key,
    resource: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
    mod_revision: i64,
    size: u64,
    why: &'static str,
    certain: bool,
    reason: &'a str,
    request: Request<'a>,
    who: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
}

#[derive(Serialize)]
struct Request<'a> {
    method: &'static str,
    path: &'a str,
    body: serde_json::Value,
}

fn word(done: &Done) -> &'static str {
    match done {
        Done::Deleted(_) => "deleted",
        Done::Changed(_) => "changed",
        Done::Gone => "gone",
        Done::Failed(_) => "failed",
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
        let (found, results) = (self.outcome, self.results());
        let document = Document {
            schema: "atrest.delete-unreadable/v1",
            source: wire::Source::new(&found.source, &found.visit),
            config: &self.config,
            applied: self.done.is_some(),
            backup: self.backup.map(|path| path.display().to_string()),
            totals: Totals {
                entries: found.entries,
                unreadable: found.unread.len() as u64,
                certain: self.certain(),
                unknown: found.unknown.entries(),
                other_name: found.other_name.entries(),
                deleted: self.deleted(),
            },
            entries: found.unread.iter().map(|unread| Self::entry(unread, &results)).collect(),
            rights_unknown: found.rights.as_deref(),
            damage: found.visit.damage.iter().map(Into::into).collect(),
        };
        wire::document(&document, out)
    }

    fn certain(&self) -> u64 {
        self.outcome.unread.iter().filter(|u| u.why.is_certain()).count() as u64
    }

    fn deleted(&self) -> u64 {
        let all = self.done.into_iter().flatten();
        all.filter(|(_, done)| matches!(done, Done::Deleted(_))).count() as u64
    }

    /// What became of each entry.
    fn results(&self) -> HashMap<&[u8], &'static str> {
        let all = self.done.into_iter().flatten();
        all.map(|(key, done)| (key.as_slice(), word(done))).collect()
    }

    fn entry<'a>(unread: &'a Unread, results: &HashMap<&[u8], &'static str>) -> Entry<'a> {
        Entry {
            key: wire::Key::new(&unread.key),
            resource: &unread.resource,
            namespace: unread.namespace.as_deref(),
            name: &unread.name,
            mod_revision: unread.mod_revision,
            size: unread.size,
            why: unread.why.as_str(),
            certain: unread.why.is_certain(),
            reason: &unread.reason,
            request: Request {
                method: "DELETE",
                path: &unread.path,
                body: serde_json::from_str(BODY).unwrap_or_default(),
            },
            who: &unread.who,
            result: results.get(unread.key.as_slice()).copied(),
        }
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        let (found, results) = (self.outcome, self.results());
        table::heading(&found.source, &found.visit, Some(&self.config), out)?;
        writeln!(out)?;
        if found.unread.is_empty() {
            let read = table::entries(found.entries);
            return writeln!(out, "{read} looked at, none of them is known to be unreadable");
        }
        let mut columns = vec!["KEY", "WHY", "CERTAIN", ">REVISION"];
        columns.extend(self.done.map(|_| "RESULT"));
        columns.push("REASON");
        let mut rows = Builder::new(color, &columns);
        for unread in &found.unread {
            let certain = if unread.why.is_certain() { "yes" } else { "no" };
            let mut cells = vec![
                String::from_utf8_lossy(&unread.key).into_owned(),
                unread.why.as_str().to_owned(),
                certain.to_owned(),
                unread.mod_revision.to_string(),
            ];
            let result = results.get(unread.key.as_slice()).copied().unwrap_or("-");
            cells.extend(self.done.map(|_| result.to_owned()));
            cells.push(unread.reason.clone());
            rows.row(cells, if unread.why.is_certain() { Mark::Bad } else { Mark::Warn });
        }
        writeln!(out, "{rows}")?;
        if self.done.is_some() {
            let (n, backup) =
                (table::entries(self.deleted()), self.backup.unwrap_or(Path::new("")));
            return writeln!(
                out,
                "{n} deleted; saved before in {}",
                table::visible(&backup.display().to_string())
            );
        }
        self.requests(out)
    }

    /// What deletes them through the API, and who may.
    fn requests(&self, out: &mut dyn Write) -> io::Result<()> {
        let found = self.outcome;
        writeln!(
            out,
            "of {} of {} it is certain that no key reads them",
            table::count(self.certain()),
            table::count(found.unread.len() as u64)
        )?;
        writeln!(
            out,
            "\nthrough the API server (Kubernetes 1.32 or later, feature gate AllowUnsafeMalformedObjectDeletion):"
        )?;
        for unread in &found.unread {
            let path = table::visible(&unread.path).replace('\'', "'\\''");
            writeln!(out, "  echo '{BODY}' | kubectl delete --raw '{path}' -f -")?;
        }
        writeln!(out, "\nwho may, by RBAC (verbs delete and {VERB}), beside system:masters:")?;
        let mut who: BTreeMap<&str, usize> = BTreeMap::new();
        for subject in found.unread.iter().flat_map(|u| &u.who) {
            *who.entry(subject).or_default() += 1;
        }
        if who.is_empty() {
            let known = if found.rights.is_none() { "nobody" } else { "nobody that is known" };
            return writeln!(out, "  {known}");
        }
        let all = found.unread.len();
        for (subject, may) in who {
            let how_many =
                if may == all { "all of them".to_owned() } else { format!("{may} of {all}") };
            writeln!(out, "  {}: {how_many}", table::visible(subject))?;
        }
        Ok(())
    }
}
