//! Pages: one design for every command, to keep, print or send. A page holds everything it needs
//! and loads nothing; what it runs is its own script, for sorting and filtering tables, and all can
//! be read without. Its policy says so to the browser as well, by the digests of both.

use std::fmt;
use std::io::{self, Write};

use base64::Engine as _;
use sha2::{Digest as _, Sha256};

use super::table::{self, Mark};
use super::wire::Config;
use crate::source::{Damage, SourceInfo, Visit};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Text of a page: what has a meaning in HTML is escaped, and so are control characters.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for c in table::visible(self.0).chars() {
            match c {
                '&' => f.write_str("&amp;"),
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '"' => f.write_str("&quot;"),
                '\'' => f.write_str("&#39;"),
                c => f.write_char(c),
            }?;
        }
        Ok(())
    }
}

fn class(mark: Mark) -> &'static str {
    match mark {
        Mark::Plain => "",
        Mark::Good => "good",
        Mark::Warn => "warn",
        Mark::Bad => "bad",
    }
}

/// A source of a content security policy: what has this digest.
fn source(text: &str) -> String {
    let digest = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text));
    format!("'sha256-{digest}'")
}

/// Begins a page about `of`, of the sort `what`.
pub(super) fn head(what: &str, of: &str, out: &mut dyn Write) -> io::Result<()> {
    let title = Text(of);
    let (style, script) = (source(STYLE), source(SCRIPT));
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{what}: {title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1><small>{what}</small>{title}</h1>"
    )
}

/// Ends it.
pub(super) fn foot(out: &mut dyn Write) -> io::Result<()> {
    const PROGRAM: &str = concat!("atrest ", env!("CARGO_PKG_VERSION"));
    writeln!(
        out,
        "<footer>Written by {PROGRAM}. No value of a Secret is in this page.</footer>\n\
         <script>{SCRIPT}</script>\n</body>\n</html>"
    )
}

/// A sentence that matters more than the rest.
pub(super) fn verdict_line(mark: Mark, sentence: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<p class=\"verdict {}\">{}</p>", class(mark), Text(sentence))
}

/// Names and what they stand for.
pub(super) fn facts(facts: &[(&str, String)], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<dl>")?;
    for (name, value) in facts {
        writeln!(out, "<dt>{name}</dt><dd>{}</dd>", Text(value))?;
    }
    writeln!(out, "</dl>")
}

/// What was read, at which revision, with which configurations.
pub(super) fn read(
    source: &SourceInfo,
    visit: &Visit,
    config: Option<&Config>,
) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Source", format!("{} {}", source.kind.as_str(), source.location))];
    // An archive of objects has none.
    if !source.kind.is_archive() {
        facts.push(("Revision", visit.revision.to_string()));
    }
    let also = config.iter().flat_map(|c| &c.also).map(|c| ("Reading also with", c));
    for (name, c) in config.iter().map(|c| ("Configuration", *c)).chain(also) {
        facts.push((name, format!("{}, SHA-256 {}", c.location, c.sha256)));
    }
    facts
}

/// What is said first where parts could not be read.
pub(super) fn incomplete(damage: &[Damage]) -> Option<(Mark, String)> {
    let (noun, verb) = if damage.len() == 1 { ("part", "was") } else { ("parts", "were") };
    let parts = table::count(damage.len() as u64);
    (!damage.is_empty()).then(|| {
        let what = format!(
            "Incomplete: {parts} {noun} of the source could not be read and {verb} not judged."
        );
        (Mark::Bad, what)
    })
}

/// The parts that could not be read.
pub(super) fn damage(damage: &[Damage], out: &mut dyn Write) -> io::Result<()> {
    if damage.is_empty() {
        return Ok(());
    }
    let rows = damage.iter().map(|d| (vec![d.location.clone(), d.what.clone()], Mark::Bad));
    table("What could not be read", &["WHERE", "WHAT"], rows, out)
}

/// A bar of shares of a whole, with what each part is and how much; parts of nothing are left out.
pub(super) fn shares(parts: &[(&str, u64, Mark)], out: &mut dyn Write) -> io::Result<()> {
    /// Parts that would be too thin to see are this wide, of 1000.
    const LEAST: u64 = 4;
    let parts: Vec<_> = parts.iter().filter(|(_, n, _)| *n > 0).collect();
    let whole: u64 = parts.iter().map(|(_, n, _)| n).sum();
    if whole == 0 {
        return Ok(());
    }
    let words: Vec<_> =
        parts.iter().map(|(name, n, _)| format!("{} {name}", table::count(*n))).collect();
    let width = |n: u64| (u128::from(n) * 1000 / u128::from(whole)).max(LEAST.into());
    let total: u128 = parts.iter().map(|(_, n, _)| width(*n)).sum();
    writeln!(
        out,
        "<div class=\"shares\">\n<svg viewBox=\"0 0 {total} 1\" preserveAspectRatio=\"none\" \
         role=\"img\" aria-label=\"{}\">",
        Text(&words.join(", "))
    )?;
    let mut at = 0;
    for (_, n, mark) in &parts {
        let width = width(*n);
        writeln!(
            out,
            "<rect class=\"{}\" x=\"{at}\" width=\"{width}\" height=\"1\"/>",
            class(*mark)
        )?;
        at += width;
    }
    writeln!(out, "</svg>\n<ul>")?;
    for ((_, _, mark), words) in parts.iter().zip(&words) {
        writeln!(out, "<li class=\"{}\">{}</li>", class(*mark), Text(words))?;
    }
    writeln!(out, "</ul>\n</div>")
}

/// What is to be done, in order.
pub(super) fn steps(title: &str, steps: &[String], out: &mut dyn Write) -> io::Result<()> {
    if steps.is_empty() {
        return Ok(());
    }
    writeln!(out, "<h2>{title}</h2>\n<ol>")?;
    steps.iter().try_for_each(|step| writeln!(out, "<li>{}</li>", Text(step)))?;
    writeln!(out, "</ol>")
}

/// What stands in a cell.
pub(super) enum Cell {
    Text(String),
    /// One below the other.
    Lines(Vec<String>),
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// The worst first, in their order otherwise.
pub(super) fn worst_first<T>(rows: &mut [(T, Mark)]) {
    rows.sort_by_key(|(_, mark)| match mark {
        Mark::Bad => 0,
        Mark::Warn => 1,
        Mark::Plain | Mark::Good => 2,
    });
}

/// A section with a table; columns whose name begins with `>` hold numbers.
pub(super) fn table<C: Into<Cell>>(
    title: &str,
    columns: &[&str],
    rows: impl Iterator<Item = (Vec<C>, Mark)>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let number = |i: usize| columns.get(i).is_some_and(|c| c.starts_with('>'));
    let open = |tag: &str, i: usize| {
        if number(i) { format!("<{tag} class=\"n\">") } else { format!("<{tag}>") }
    };
    writeln!(out, "<h2>{title}</h2>\n<div class=\"wide\">\n<table>\n<thead><tr>")?;
    for (i, name) in columns.iter().enumerate() {
        write!(out, "{}{}</th>", open("th", i), Text(name.trim_start_matches('>')))?;
    }
    writeln!(out, "</tr></thead>\n<tbody>")?;
    for (cells, mark) in rows {
        write!(out, "<tr class=\"{}\">", class(mark))?;
        for (i, cell) in cells.into_iter().enumerate() {
            write!(out, "{}", open("td", i))?;
            match cell.into() {
                Cell::Text(text) => write!(out, "{}", Text(&text))?,
                Cell::Lines(lines) => {
                    lines.iter().try_for_each(|line| write!(out, "<div>{}</div>", Text(line)))?;
                }
            }
            write!(out, "</td>")?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody>\n</table>\n</div>")
}
