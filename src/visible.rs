//! Text that others wrote, made safe to show.

/// Escapes control characters, and those that change the order in which text is shown: names of
/// roles, for one, may hold any of them.
#[must_use]
pub fn visible(text: &str) -> String {
    let escaped = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if escaped(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// The first `most` characters of foreign words, fit for a line of text.
#[must_use]
pub fn shortened(text: &str, most: usize) -> String {
    let mut out: String = text.chars().take(most).flat_map(char::escape_debug).collect();
    if text.chars().count() > most {
        out.push('…');
    }
    out
}

/// A label's value in Prometheus' text formats, without its quotes: backslash, quote and line feed
/// as these have them (prometheus/docs `content/docs/instrumenting/exposition_formats.md`), and
/// what [`visible`] escapes as it does, since a terminal may show it.
#[must_use]
pub fn label(text: &str) -> String {
    let lines: Vec<String> = text
        .split('\n')
        .map(|line| visible(line).replace('\\', "\\\\").replace('"', "\\\""))
        .collect();
    lines.join("\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_names_stay_inside_their_label() {
        assert_eq!(label("a\"} 1\nevil 2\\"), r#"a\"} 1\nevil 2\\"#);
        assert_eq!(label("\x1b[2J"), r"\\u{1b}[2J");
    }
}
