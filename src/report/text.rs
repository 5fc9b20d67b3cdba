//! Cells of CSV that no program takes for anything but text.

use std::borrow::Cow;

use super::table::visible;

/// A cell as text: control characters are escaped, and what a spreadsheet would take for a formula
/// (it begins with `=`, `+`, `-` or `@`) begins with an apostrophe. JSON has the text exactly.
#[must_use]
pub fn cell(text: &str) -> Cow<'_, str> {
    let shown = visible(text);
    if shown.starts_with(['=', '+', '-', '@']) {
        return Cow::Owned(format!("'{shown}"));
    }
    if shown == text { Cow::Borrowed(text) } else { Cow::Owned(shown) }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn no_cell_is_a_formula_or_moves_the_cursor() {
        for (text, shown) in [
            ("/registry/secrets/a/b", "/registry/secrets/a/b"),
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("\t=1", "\\t=1"),
            ("", ""),
        ] {
            assert_eq!(cell(text), shown);
        }
    }
}
