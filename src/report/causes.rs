//! Many entries with one cause make one line: how many, and the first by name.

use super::table;
use crate::scan::{Cause, Causes};

/// Lines that are told.
const TOLD: usize = 20;

impl Causes {
    /// A sentence for each cause, by the first key that has it: `<what> <key>: <cause>`, or for
    /// several entries `<what> <n> entries: <cause>: <key>, …`.
    #[must_use]
    pub fn lines(&self, what: &str) -> Vec<String> {
        let causes = self.sorted();
        let mut lines: Vec<String> =
            causes.iter().take(TOLD).map(|(text, cause)| line(what, text, cause)).collect();
        let more: u64 =
            causes.iter().skip(TOLD).map(|(_, c)| c.entries).sum::<u64>() + self.others();
        if more > 0 {
            lines.push(format!("{what} {} more, for other reasons", table::entries(more)));
        }
        lines
    }
}

fn line(what: &str, text: &str, cause: &Cause) -> String {
    let names: Vec<_> =
        cause.first.iter().map(|k| table::visible(&String::from_utf8_lossy(k))).collect();
    let text = table::visible(text);
    if cause.entries == 1 {
        return format!("{what} {}: {text}", names.join(""));
    }
    let more = cause.entries - names.len() as u64;
    let more = if more > 0 { format!(" and {} more", table::count(more)) } else { String::new() };
    format!("{what} {}: {text}: {}{more}", table::entries(cause.entries), names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cause_is_one_line_with_the_first_names() {
        let mut causes = Causes::default();
        for i in (10..30).rev() {
            causes.add(format!("/k{i}").as_bytes(), "socket away");
        }
        causes.add(b"/a", "damaged");
        causes.add(b"/x\x1b[2J", "other\nerror: forged");
        assert_eq!(
            causes.lines("unreadable:"),
            [
                "unreadable: /a: damaged",
                "unreadable: 20 entries: socket away: /k10, /k11, /k12 and 17 more",
                "unreadable: /x\\u{1b}[2J: other\\nerror: forged",
            ]
        );
    }

    #[test]
    fn as_many_causes_as_entries_end_somewhere() {
        let mut causes = Causes::default();
        for i in 0..3000 {
            causes.add(format!("/k{i:04}").as_bytes(), &format!("cause {i}"));
        }
        let lines = causes.lines("unreadable:");
        assert_eq!(lines.len(), 21);
        assert_eq!(lines[20], "unreadable: 2,980 entries more, for other reasons");
    }
}
