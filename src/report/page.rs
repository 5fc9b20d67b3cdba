//! What the pages have in common: they load nothing and run nothing, which their policy says to
//! the browser as well.

use std::fmt;
use std::io::{self, Write};

use super::table::{self, Mark};

const STYLE: &str = "\
:root{color-scheme:light dark}
body{font:15px/1.45 system-ui,sans-serif;max-width:75em;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1.5em}dd{margin:0;overflow-wrap:anywhere}
table{border-collapse:collapse}th{font-size:.8em}th,td{padding:.25em 1em .25em 0;text-align:left;vertical-align:top;border-bottom:1px solid #8884}
.n{text-align:right;font-variant-numeric:tabular-nums}
td{overflow-wrap:break-word}
.verdict{font-size:1.15em;border-left:.4em solid;padding-left:.8em}
.good{color:light-dark(#176f2c,#5fd07a)}.warn{color:light-dark(#8a5a00,#f0b840)}.bad{color:light-dark(#b3261e,#ff8a80)}";

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

/// Begins a page that loads nothing and runs nothing.
pub(super) fn head(what: &str, of: &str, out: &mut dyn Write) -> io::Result<()> {
    let title = Text(of);
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{what}: {title}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n\
         <h1>{what}: {title}</h1>"
    )
}

/// Ends it.
pub(super) fn foot(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "</body>\n</html>")
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

/// A section with a table; columns whose name begins with `>` hold numbers.
pub(super) fn table(
    title: &str,
    columns: &[&str],
    rows: impl Iterator<Item = (Vec<String>, Mark)>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let number = |i: usize| columns.get(i).is_some_and(|c| c.starts_with('>'));
    let open = |tag: &str, i: usize| {
        if number(i) { format!("<{tag} class=\"n\">") } else { format!("<{tag}>") }
    };
    writeln!(out, "<h2>{title}</h2>\n<table>\n<thead><tr>")?;
    for (i, name) in columns.iter().enumerate() {
        write!(out, "{}{}</th>", open("th", i), Text(name.trim_start_matches('>')))?;
    }
    writeln!(out, "</tr></thead>\n<tbody>")?;
    for (cells, mark) in rows {
        write!(out, "<tr class=\"{}\">", class(mark))?;
        for (i, cell) in cells.iter().enumerate() {
            write!(out, "{}{}</td>", open("td", i), Text(cell))?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody>\n</table>")
}
