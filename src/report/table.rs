//! Tables for people: no borders, columns two spaces apart, readable when piped.

pub use crate::visible::visible;
use std::io::{self, Write};

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width,
    presets,
};
use unicode_width::UnicodeWidthStr as _;

use super::wire::Config;
use crate::source::{SourceInfo, Visit};

/// What was read, at which revision, without a line feed.
///
/// # Errors
/// When `out` cannot be written.
pub fn source(source: &SourceInfo, visit: &Visit, out: &mut dyn Write) -> io::Result<()> {
    let location = visible(&source.location);
    write!(out, "{} {location}", source.kind.as_str())?;
    if source.kind.is_archive() {
        return Ok(());
    }
    write!(out, " at revision {}", visit.revision)
}

/// The lines above a table: what was read, with which configurations.
///
/// # Errors
/// When `out` cannot be written.
pub fn heading(
    source: &SourceInfo,
    visit: &Visit,
    config: Option<&Config>,
    out: &mut dyn Write,
) -> io::Result<()> {
    self::source(source, visit, out)?;
    writeln!(out)?;
    let also = config.iter().flat_map(|c| &c.also).map(|c| ("reading also with", c));
    for (word, c) in config.map(|c| ("configuration", c)).into_iter().chain(also) {
        let digest = c.sha256.get(..12).unwrap_or_default();
        writeln!(out, "{word} {} (sha256 {digest})", visible(&c.location))?;
    }
    Ok(())
}

/// A table under construction.
pub struct Builder {
    table: Table,
    color: bool,
}

impl Builder {
    /// Starts a table. Columns whose name begins with `>` hold numbers, aligned right.
    #[must_use]
    pub fn new(color: bool, columns: &[&str]) -> Self {
        let mut table = Table::new();
        // Never wrapped: a wrapped key cannot be copied or grepped.
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|c| {
            let cell = Cell::new(c.trim_start_matches('>'));
            if color { cell.add_attribute(Attribute::Bold) } else { cell }
        }));
        for (i, name) in columns.iter().enumerate() {
            if let Some(column) = table.column_mut(i) {
                column.set_padding((0, 2));
                if name.starts_with('>') {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        if color {
            table.enforce_styling();
        }
        Self { table, color }
    }

    /// Makes columns at least as wide as `widths`.
    fn at_least(&mut self, widths: &[usize]) {
        for (i, width) in widths.iter().enumerate() {
            // The two spaces that follow a column belong to it.
            let width = u16::try_from(width + 2).unwrap_or(u16::MAX);
            if let Some(column) = self.table.column_mut(i) {
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
            }
        }
    }

    /// Adds a row; control characters in cells are escaped, so that a stored name cannot drive
    /// the terminal.
    pub fn row(&mut self, cells: Vec<String>, mark: Mark) {
        self.table.add_row(cells.into_iter().map(|text| {
            let cell = Cell::new(visible(&text));
            match mark.color() {
                Some(c) if self.color => cell.fg(c),
                _ => cell,
            }
        }));
    }
}

impl std::fmt::Display for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in self.table.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Rows laid out at a time by [`long`].
const BLOCK: usize = 1024;
/// Columns of text beyond which a cell no longer makes its column wider, but for its own block.
const WIDEST: usize = 240;

/// A table of any length, of which only a block is in memory at a time. The rows are asked for
/// twice: for their widths first.
///
/// # Errors
/// When `out` cannot be written.
pub fn long<R: Iterator<Item = (Vec<String>, Mark)>>(
    color: bool,
    columns: &[&str],
    rows: impl Fn() -> R,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut widths: Vec<_> = columns.iter().map(|c| c.trim_start_matches('>').width()).collect();
    for (row, _) in rows() {
        for (width, cell) in widths.iter_mut().zip(&row) {
            *width = (*width).max(visible(cell).width().min(WIDEST));
        }
    }
    let mut rows = rows().peekable();
    let mut first = true;
    while first || rows.peek().is_some() {
        let mut block = Builder::new(color, columns);
        block.at_least(&widths);
        for (row, mark) in rows.by_ref().take(BLOCK) {
            block.row(row, mark);
        }
        let skip = usize::from(!first);
        for line in block.table.lines().skip(skip) {
            writeln!(out, "{}", line.trim_end())?;
        }
        first = false;
    }
    Ok(())
}

/// What a row is to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing special.
    Plain,
    /// As it should be.
    Good,
    /// Wants attention.
    Warn,
    /// Bad.
    Bad,
}

impl Mark {
    fn color(self) -> Option<Color> {
        match self {
            Self::Plain => None,
            Self::Good => Some(Color::Green),
            Self::Warn => Some(Color::Yellow),
            Self::Bad => Some(Color::Red),
        }
    }
}

/// Bytes for people: `912 B`, `1.4 KiB`.
#[must_use]
#[allow(clippy::cast_precision_loss)] // one decimal is shown
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count for people: `12,345`.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 entry`, `2 entries`.
#[must_use]
pub fn entries(n: u64) -> String {
    counted(n, "entry", "entries")
}

/// A count with its noun: `1 value`, `2 values`.
#[must_use]
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(entries(1), "1 entry");
        assert_eq!(counted(1000, "value", "values"), "1,000 values");
    }

    /// Laid out in blocks, a table looks as it does in one piece.
    #[test]
    fn long_tables_are_like_others() {
        let row = |i: usize| {
            let name = if i == 2 * BLOCK { "é".repeat(30) } else { format!("name-{}", i % 7) };
            (vec![name, i.to_string(), "why\n".repeat(i % 2)], Mark::Plain)
        };
        for n in [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let columns = ["NAME", ">N", "REASON"];
            let mut whole = Builder::new(false, &columns);
            (0..n).map(row).for_each(|(cells, mark)| whole.row(cells, mark));
            let mut out = Vec::new();
            long(false, &columns, || (0..n).map(row), &mut out).unwrap();
            assert!(String::from_utf8(out).unwrap() == whole.to_string(), "{n} rows");
        }
    }

    #[test]
    fn rows_are_plain_text_without_colour_and_escape_controls() {
        let mut t = Builder::new(false, &["NAME", ">N"]);
        t.row(vec!["a\u{1b}[31m".into(), "10".into()], Mark::Bad);
        t.row(vec!["x\u{202e}é".into(), "1".into()], Mark::Bad);
        assert_eq!(t.to_string(), "NAME          N\na\\u{1b}[31m  10\nx\\u{202e}é    1\n");
    }
}
