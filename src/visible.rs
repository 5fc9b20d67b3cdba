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
