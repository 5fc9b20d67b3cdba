//! What became of every object that an API server was to store anew → table, JSON, HTML.

use std::io::{self, Write};

use serde::Serialize;

use super::migrate::Migration;
use super::table::Mark;
use super::{Format, page, table, wire};
use crate::jobs::migrate::whole::{Outcome, Share};

/// Everything that such a run has to say.
pub struct Report<'a> {
    /// What was planned and done.
    pub outcome: &'a Outcome,
    /// The server's address.
    pub server: &'a str,
    /// The configuration, where it was given.
    pub config: Option<wire::Config>,
    /// It was not only planned.
    pub applied: bool,
    /// The cluster's own controller does it, which counts nothing.
    pub by_cluster: bool,
    /// What would have it written, as the user says it.
    pub apply: &'a str,
    /// Objects a second, at most.
    pub qps: Option<f64>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    source: Source<'a>,
    config: Option<&'a wire::Config>,
    applied: bool,
    interrupted: bool,
    all_objects: bool,
    planned: u64,
    written: Option<u64>,
    verified: u64,
    conflicts: u64,
    deleted: u64,
    already_current: Option<u64>,
    before: u64,
    /// Nobody knows.
    remaining: Option<u64>,
    failed: Vec<Failed<'a>>,
    not_examined: Vec<Unexamined<'a>>,
    groups: Vec<Row<'a>>,
    estimated_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    storage_version_migrations: Vec<Migration<'a>>,
}

#[derive(Serialize)]
struct Source<'a> {
    kind: &'static str,
    location: &'a str,
    revision: Option<i64>,
}

#[derive(Serialize)]
struct Failed<'a> {
    resource: &'a str,
    object: String,
    reason: &'a str,
}

#[derive(Serialize)]
struct Unexamined<'a> {
    what: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct Row<'a> {
    resource: &'a str,
    entries: u64,
    before: u64,
    written: u64,
    already_current: u64,
}

impl<'a> From<&'a Share> for Row<'a> {
    fn from(share: &'a Share) -> Self {
        Self {
            resource: &share.resource,
            entries: share.objects,
            before: share.before,
            written: share.written,
            already_current: share.current,
        }
    }
}

impl Report<'_> {
    /// Writes the report.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Json => wire::document(&self.document(), out),
            Format::Html => self.html(out),
            _ => self.table(color, out),
        }
    }

    fn document(&self) -> Document<'_> {
        let o = self.outcome;
        let failed = o.failed.iter().map(|f| Failed {
            resource: &f.resource,
            object: String::from_utf8_lossy(&f.key).into_owned(),
            reason: &f.reason,
        });
        let silent = o.silent.iter().map(|(what, reason)| Unexamined { what, reason });
        Document {
            schema: "atrest.migrate/v1",
            source: Source { kind: "apiserver", location: self.server, revision: None },
            config: self.config.as_ref(),
            applied: self.applied,
            interrupted: matches!(o.stop, Some(crate::migrate::apply::Stop::Interrupted)),
            all_objects: true,
            planned: o.planned(),
            written: (!self.by_cluster).then(|| o.written()),
            verified: 0,
            conflicts: o.conflicts,
            deleted: o.deleted,
            already_current: (!self.by_cluster).then(|| o.current()),
            before: o.before(),
            remaining: None,
            failed: failed.collect(),
            not_examined: silent.collect(),
            groups: o.shares.iter().map(Row::from).collect(),
            estimated_seconds: self.seconds(),
            storage_version_migrations: o.migrations.iter().map(Migration::from).collect(),
        }
    }

    fn seconds(&self) -> Option<u64> {
        wire::seconds(self.outcome.planned(), self.qps)
    }

    /// What was written is known here, not only to the cluster.
    fn is_counted(&self) -> bool {
        self.applied && !self.by_cluster
    }

    fn columns(&self) -> Vec<&'static str> {
        let mut columns = vec!["RESOURCE", ">OBJECTS"];
        if self.is_counted() {
            columns.extend([">STORED ANEW", ">AS BEFORE"]);
        }
        columns
    }

    fn rows(&self) -> impl Iterator<Item = (Vec<String>, Mark)> {
        self.outcome.shares.iter().map(|share| {
            let mut row = vec![share.resource.clone(), table::count(share.objects)];
            if self.is_counted() {
                row.extend([table::count(share.written), table::count(share.current)]);
            }
            (row, Mark::Plain)
        })
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        if !self.outcome.shares.is_empty() {
            let mut rows = table::Builder::new(color, &self.columns());
            self.rows().for_each(|(cells, mark)| rows.row(cells, mark));
            writeln!(out, "{rows}")?;
        }
        self.lines().iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    /// What there is to say, a line each.
    fn lines(&self) -> Vec<String> {
        let o = self.outcome;
        let objects = table::counted(o.planned(), "object", "objects");
        let mut lines = Vec::new();
        if o.before() > 0 {
            lines.push(format!("{} dealt with by an earlier run", table::count(o.before())));
        }
        lines.extend(o.migrations.iter().map(|m| Migration::from(m).line()));
        if self.is_counted() {
            lines.push(format!(
                "of {objects} the API server stored {} anew; {} were current to it",
                table::count(o.written()),
                table::count(o.current())
            ));
            let others = [
                (o.conflicts, "changed by others meanwhile and tried again"),
                (o.deleted, "deleted by others meanwhile"),
                (o.failed.len() as u64, "failed"),
            ];
            let others = others.into_iter().filter(|(n, _)| *n > 0);
            lines.extend(others.map(|(n, what)| format!("{} {what}", table::count(n))));
        } else if !self.applied {
            lines.push(format!("{objects} to store anew: without etcd nobody knows which need it"));
            let took = self.seconds().map(|s| format!("at the given rate this takes about {s} s"));
            lines.extend(took);
        }
        if !o.silent.is_empty() {
            lines.push(format!("{} not examined", table::count(o.silent.len() as u64)));
        }
        lines.push(if self.applied {
            "what lies in etcd now was not looked at: remaining is unknown".to_owned()
        } else {
            format!("nothing was written; {} does it", self.apply)
        });
        lines
    }

    fn html(&self, out: &mut dyn Write) -> io::Result<()> {
        let o = self.outcome;
        let what = if self.applied { "Migration" } else { "Plan of a migration" };
        page::head(what, self.server, out)?;
        // Without etcd nobody knows what is stored, so that nothing is called well.
        let mark = if o.failed.is_empty() { Mark::Warn } else { Mark::Bad };
        for line in self.lines() {
            page::verdict_line(mark, &line, out)?;
        }
        let failed = o.failed.iter().map(|f| {
            let key = String::from_utf8_lossy(&f.key).into_owned();
            (vec![key, f.resource.clone(), f.reason.clone()], Mark::Bad)
        });
        let silent =
            o.silent.iter().map(|(what, why)| (vec![what.clone(), why.clone()], Mark::Bad));
        if !o.failed.is_empty() {
            page::table("Failed", &["OBJECT", "RESOURCE", "REASON"], failed, out)?;
        }
        if !o.silent.is_empty() {
            page::table("Not examined", &["WHAT", "REASON"], silent, out)?;
        }
        page::table("Objects", &self.columns(), self.rows(), out)?;
        page::foot(out)
    }
}
