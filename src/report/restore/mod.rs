//! What `restore plan` prints, and `export --restore --explain`.

mod html;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::table::{self, Builder, Mark};
use super::{Format, wire};
use crate::jobs::restore::{Name, Outcome};
use crate::restore::{Minor, REASONS, Reason, Step};
use crate::source::SourceInfo;

/// A finished plan.
pub struct Report<'a> {
    /// Where the objects came from.
    pub source: &'a SourceInfo,
    /// The release that the plan is for.
    pub target: Minor,
    /// What becomes of the objects.
    pub outcome: &'a Outcome,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    source: wire::Source,
    r#for: String,
    totals: Totals,
    steps: Vec<StepRow<'a>>,
    left_out: Vec<Row<'a>>,
    changed: Vec<Row<'a>>,
    converted: Vec<Row<'a>>,
    cannot_convert: Vec<Row<'a>>,
    lost: Vec<Row<'a>>,
    unreadable: Vec<Row<'a>>,
    incomplete: Vec<Row<'a>>,
    reasons: Vec<ReasonRow>,
    needs_enabling: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<wire::Damage>,
}

#[derive(Serialize)]
struct Totals {
    written: u64,
    left_out: u64,
    changed: u64,
    converted: u64,
    cannot_convert: u64,
    unreadable: u64,
}

#[derive(Serialize)]
struct StepRow<'a> {
    step: &'static str,
    why: &'static str,
    objects: u64,
    resources: BTreeMap<&'a str, u64>,
}

#[derive(Serialize)]
struct ReasonRow {
    reason: &'static str,
    objects: u64,
    sentence: &'static str,
}

#[derive(Default, Serialize)]
struct Row<'a> {
    resource: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<&'a [String]>,
}

impl<'a> Row<'a> {
    fn new(name: &'a Name) -> Self {
        let Name { resource, namespace, name } = name;
        Self { resource, namespace: namespace.as_deref(), name, ..Self::default() }
    }
}

fn count<T>(list: &[T]) -> u64 {
    list.len() as u64
}

impl Report<'_> {
    /// Writes it.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write(&self, format: Format, color: bool, out: &mut dyn Write) -> io::Result<()> {
        match format {
            Format::Json => {
                serde_json::to_writer_pretty(&mut *out, &self.document())?;
                writeln!(out)
            }
            Format::Html => html::write(self, out),
            _ => self.table(color, out),
        }
    }

    fn document(&self) -> Document<'_> {
        let o = self.outcome;
        Document {
            schema: "atrest.restore/v1",
            source: wire::Source::new(self.source, &o.visit),
            r#for: self.target.to_string(),
            totals: Totals {
                written: o.objects(),
                left_out: count(&o.left_out),
                changed: count(&o.changed),
                converted: count(&o.converted),
                cannot_convert: count(&o.impossible),
                unreadable: count(&o.unreadable),
            },
            steps: steps(o),
            left_out: o.left_out.iter().map(|(n, r)| because(n, r.id())).collect(),
            changed: o
                .changed
                .iter()
                .map(|(n, r)| {
                    let reasons = Some(r.iter().map(|r| r.id()).collect());
                    Row { reasons, ..Row::new(n) }
                })
                .collect(),
            converted: o
                .converted
                .iter()
                .map(|c| Row { from: Some(&c.from), to: Some(&c.to), ..Row::new(&c.name) })
                .collect(),
            cannot_convert: o.impossible.iter().map(|(n, w)| because(n, w)).collect(),
            lost: o.lost.iter().map(|(n, f)| fields(n, f)).collect(),
            unreadable: o.unreadable.iter().map(|(n, w)| because(n, w)).collect(),
            incomplete: o.incomplete.iter().map(|(n, f)| fields(n, f)).collect(),
            reasons: by_reason(o)
                .into_iter()
                .map(|(r, objects)| ReasonRow { reason: r.id(), objects, sentence: r.sentence() })
                .collect(),
            needs_enabling: o.needs_enabling.keys().map(String::as_str).collect(),
            damage: o.visit.damage.iter().map(Into::into).collect(),
        }
    }

    /// One sentence on all of it.
    pub(super) fn sum(&self) -> String {
        let o = self.outcome;
        let mut parts = vec![format!(
            "{} to be written in {}",
            table::counted(o.objects(), "object", "objects"),
            table::counted(count(&o.steps()), "step", "steps"),
        )];
        for (n, words) in [
            (count(&o.left_out), "left out"),
            (count(&o.changed), "changed"),
            (count(&o.converted), "converted"),
            (count(&o.impossible), "that cannot be converted"),
            (count(&o.unreadable), "that could not be read"),
        ] {
            if n > 0 {
                parts.push(format!("{} {words}", table::count(n)));
            }
        }
        format!("for Kubernetes {}: {}", self.target, parts.join(", "))
    }

    fn table(&self, color: bool, out: &mut dyn Write) -> io::Result<()> {
        table::heading(self.source, &self.outcome.visit, None, out)?;
        writeln!(out, "{}", self.sum())?;
        writeln!(out)?;
        let mut rows = Builder::new(color, &STEP_COLUMNS);
        step_rows(self.outcome).for_each(|row| rows.row(row, Mark::Plain));
        write!(out, "{rows}")?;
        explain(self.outcome, color, out)
    }
}

fn because<'a>(name: &'a Name, why: &str) -> Row<'a> {
    Row { reason: Some(why.to_owned()), ..Row::new(name) }
}

fn fields<'a>(name: &'a Name, fields: &'a [String]) -> Row<'a> {
    Row { fields: Some(fields), ..Row::new(name) }
}

fn steps(outcome: &Outcome) -> Vec<StepRow<'_>> {
    let mut rows: BTreeMap<Step, BTreeMap<&str, u64>> = BTreeMap::new();
    for ((step, resource), n) in &outcome.written {
        rows.entry(*step).or_default().insert(resource, *n);
    }
    rows.into_iter()
        .map(|(step, resources)| StepRow {
            step: step.directory(),
            why: step.why(),
            objects: resources.values().sum(),
            resources,
        })
        .collect()
}

/// How often each reason applies, of those that do.
fn by_reason(outcome: &Outcome) -> Vec<(Reason, u64)> {
    let mut counts: BTreeMap<Reason, u64> = BTreeMap::new();
    let left = outcome.left_out.iter().map(|(_, r)| *r);
    for reason in left.chain(outcome.changed.iter().flat_map(|(_, r)| r.iter().copied())) {
        *counts.entry(reason).or_default() += 1;
    }
    REASONS.iter().filter_map(|r| counts.get(r).map(|n| (*r, *n))).collect()
}

const STEP_COLUMNS: [&str; 4] = ["STEP", ">OBJECTS", "RESOURCE", "WHY THEN"];

fn step_rows(outcome: &Outcome) -> impl Iterator<Item = Vec<String>> {
    let mut last = None;
    outcome.written.iter().map(move |((step, resource), n)| {
        let first = last.replace(*step) != Some(*step);
        let once = |text: &str| if first { text.to_owned() } else { String::new() };
        vec![once(step.directory()), table::count(*n), resource.clone(), once(step.why())]
    })
}

const REASON_COLUMNS: [&str; 3] = ["REASON", ">OBJECTS", "WHAT AND WHY"];
const OBJECT_COLUMNS: [&str; 4] = ["RESOURCE", "NAMESPACE", "NAME", "REASON"];

fn reason_rows(outcome: &Outcome) -> impl Iterator<Item = Vec<String>> {
    by_reason(outcome)
        .into_iter()
        .map(|(r, n)| vec![r.id().to_owned(), table::count(n), r.sentence().to_owned()])
}

fn object_row(name: &Name, reason: String) -> Vec<String> {
    let namespace = name.namespace.clone().unwrap_or_else(|| "-".to_owned());
    vec![name.resource.clone(), namespace, name.name.clone(), reason]
}

/// Titles and rows of the lists of objects, of those that are not empty.
fn sections(o: &Outcome) -> Vec<(&'static str, Mark, Vec<Vec<String>>)> {
    let ids = |reasons: &[Reason]| reasons.iter().map(|r| r.id()).collect::<Vec<_>>().join(", ");
    let said = |list: &[(Name, String)]| -> Vec<Vec<String>> {
        list.iter().map(|(n, why)| object_row(n, why.clone())).collect()
    };
    let listed = |list: &[(Name, Vec<String>)]| -> Vec<Vec<String>> {
        list.iter().map(|(n, fields)| object_row(n, fields.join(", "))).collect()
    };
    let mut sections = vec![
        ("Cannot be converted", Mark::Bad, said(&o.impossible)),
        ("Could not be read", Mark::Bad, said(&o.unreadable)),
        ("Lost in conversion", Mark::Bad, listed(&o.lost)),
        ("Fields newer than this program, missing", Mark::Bad, listed(&o.incomplete)),
        (
            "Converted",
            Mark::Plain,
            o.converted
                .iter()
                .map(|c| object_row(&c.name, format!("{} → {}", c.from, c.to)))
                .collect(),
        ),
        (
            "Left out",
            Mark::Plain,
            o.left_out.iter().map(|(n, r)| object_row(n, r.id().to_owned())).collect(),
        ),
        ("Changed", Mark::Plain, o.changed.iter().map(|(n, r)| object_row(n, ids(r))).collect()),
    ];
    sections.retain(|(_, _, rows)| !rows.is_empty());
    sections
}

/// What of all written objects goes, which would otherwise be a reason for each.
const ALWAYS: &str = "From every object goes what the server fills in: uid, resourceVersion, \
    creationTimestamp, generation, selfLink, managedFields, status, and the copy that client-side \
    apply keeps in an annotation.";

/// Each reason with its count and sentence, then each object that is converted, left out or
/// changed.
///
/// # Errors
/// When `out` cannot be written.
pub fn explain(outcome: &Outcome, color: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut reasons = Builder::new(color, &REASON_COLUMNS);
    let mut any = false;
    for row in reason_rows(outcome) {
        any = true;
        reasons.row(row, Mark::Plain);
    }
    if any {
        writeln!(out)?;
        write!(out, "{reasons}")?;
    }
    writeln!(out, "\n{ALWAYS}")?;
    for (title, mark, rows) in sections(outcome) {
        writeln!(out, "\n{title}:")?;
        let rows = || rows.iter().map(|row| (row.clone(), mark));
        table::long(color, &OBJECT_COLUMNS, rows, out)?;
    }
    Ok(())
}
