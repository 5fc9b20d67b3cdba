//! What `diff` prints.

use std::io::{self, Write};

use serde::Serialize;

use super::table::{self, Builder, Mark};
use super::{Format, wire};
use crate::jobs::diff::{Changed, Outcome, Single};

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    sources: Vec<wire::Source>,
    added: Vec<Row<'a>>,
    removed: Vec<Row<'a>>,
    changed: Vec<Row<'a>>,
    equal: u64,
    rewritten: Vec<Rewritten<'a>>,
    unknown: Vec<Unknown<'a>>,
    left_out: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damage: Vec<wire::Damage>,
}

/// How an object is stored: in one of the sources, or in both.
#[derive(Serialize)]
#[serde(untagged)]
enum Stored<'a> {
    One(&'a str),
    Both(&'a [String; 2]),
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    key: wire::Key,
    resource: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<&'a str>>,
    stored: Stored<'a>,
}

#[derive(Serialize)]
struct Rewritten<'a> {
    stored: &'a [String; 2],
    entries: u64,
}

#[derive(Serialize)]
struct Unknown<'a> {
    #[serde(flatten)]
    key: wire::Key,
    reason: &'a str,
}

fn single(object: &Single) -> Row<'_> {
    Row {
        key: wire::Key::new(&object.key),
        resource: &object.name.resource,
        namespace: object.name.namespace.as_deref(),
        name: &object.name.name,
        fields: None,
        stored: Stored::One(&object.stored),
    }
}

fn changed(object: &Changed) -> Row<'_> {
    Row {
        key: wire::Key::new(&object.key),
        resource: &object.name.resource,
        namespace: object.name.namespace.as_deref(),
        name: &object.name.name,
        fields: Some(object.fields.iter().map(|f| f.path.as_str()).collect()),
        stored: Stored::Both(&object.stored),
    }
}

/// Writes what a comparison found.
///
/// # Errors
/// When `out` cannot be written.
pub fn write(
    outcome: &Outcome,
    format: Format,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    if format != Format::Json {
        return table(outcome, color, out);
    }
    let document = Document {
        schema: "atrest.diff/v1",
        sources: outcome.sides.iter().map(|(i, v)| wire::Source::new(i, v)).collect(),
        added: outcome.added.iter().map(single).collect(),
        removed: outcome.removed.iter().map(single).collect(),
        changed: outcome.changed.iter().map(changed).collect(),
        equal: outcome.equal,
        rewritten: outcome
            .rewritten
            .iter()
            .map(|(stored, entries)| Rewritten { stored, entries: *entries })
            .collect(),
        unknown: outcome
            .unknown
            .iter()
            .map(|(key, reason)| Unknown { key: wire::Key::new(key), reason })
            .collect(),
        left_out: outcome.left_out,
        damage: outcome.sides.iter().flat_map(|(_, v)| &v.damage).map(Into::into).collect(),
    };
    wire::document(&document, out)
}

/// One line that says it all, and never calls what was not compared equal.
#[must_use]
pub fn sum(outcome: &Outcome) -> String {
    let mut parts = Vec::new();
    for (n, word) in [
        (outcome.added.len(), "added"),
        (outcome.removed.len(), "removed"),
        (outcome.changed.len(), "changed"),
    ] {
        if n > 0 {
            parts.push(format!("{} {word}", table::count(n as u64)));
        }
    }
    parts.push(format!("{} equal", table::count(outcome.equal)));
    let rewritten: u64 = outcome.rewritten.values().sum();
    for (n, words) in [
        (rewritten, "of them stored differently"),
        (outcome.left_out, "that a restore leaves out"),
        (outcome.unknown.len() as u64, "that could not be compared"),
    ] {
        if n > 0 {
            parts.push(format!("{} {words}", table::count(n)));
        }
    }
    parts.join(", ")
}

fn table(outcome: &Outcome, color: bool, out: &mut dyn Write) -> io::Result<()> {
    for (mark, (source, visit)) in ["-", "+"].into_iter().zip(&outcome.sides) {
        write!(out, "{mark} ")?;
        table::source(source, visit, out)?;
        writeln!(out)?;
    }
    writeln!(out, "{}", sum(outcome))?;
    let visible = |key: &[u8]| table::visible(&String::from_utf8_lossy(key));
    if outcome.differs() {
        writeln!(out)?;
        let columns = ["", "ETCD KEY", "FIELD", "FROM", "TO"];
        let rows = || {
            let whole = |sign: &str, s: &Single, from: &str, to: &str| {
                let cells = [sign, &visible(&s.key), "", from, to];
                cells.map(str::to_owned).to_vec()
            };
            let removed =
                outcome.removed.iter().map(move |s| (whole("-", s, &s.stored, "-"), Mark::Bad));
            let added =
                outcome.added.iter().map(move |s| (whole("+", s, "-", &s.stored), Mark::Good));
            let changed = outcome.changed.iter().flat_map(|c| {
                let dash = |v: &Option<String>| v.clone().unwrap_or_else(|| "-".to_owned());
                c.fields.iter().map(move |f| {
                    let key = String::from_utf8_lossy(&c.key).into_owned();
                    let cells =
                        vec!["~".to_owned(), key, f.path.clone(), dash(&f.from), dash(&f.to)];
                    (cells, Mark::Warn)
                })
            });
            removed.chain(added).chain(changed)
        };
        table::long(color, &columns, rows, out)?;
    }
    if !outcome.rewritten.is_empty() {
        writeln!(out)?;
        let mut rows = Builder::new(color, &["EQUAL, STORED AS", "AND AS", ">OBJECTS"]);
        for ([from, to], n) in &outcome.rewritten {
            rows.row(vec![from.clone(), to.clone(), table::count(*n)], Mark::Plain);
        }
        write!(out, "{rows}")?;
    }
    Ok(())
}
