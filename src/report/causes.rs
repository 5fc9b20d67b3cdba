//! Many entries with one cause make one line: how many, and the first by name.

use std::collections::BTreeMap;

use super::table;

/// Names that a line gives; what lists everything names them all.
const NAMED: usize = 3;
/// Lines that are told.
const TOLD: usize = 20;
/// Different causes that are remembered. Causes that name one entry each are no cause of many.
const REMEMBERED: usize = 1000;

/// Entries by what is wrong with them.
#[derive(Debug, Default)]
pub struct Causes {
    causes: BTreeMap<String, Cause>,
    /// Entries of causes that are too many to remember.
    others: u64,
}

#[derive(Debug, Default)]
struct Cause {
    entries: u64,
    /// The first in the order of keys, whatever order they come in.
    first: Vec<Vec<u8>>,
}

impl Causes {
    /// Notes an entry.
    pub fn add(&mut self, key: &[u8], cause: &str) {
        if !self.causes.contains_key(cause) && self.causes.len() >= REMEMBERED {
            self.others += 1;
            return;
        }
        let found = match self.causes.get_mut(cause) {
            Some(found) => found,
            None => self.causes.entry(cause.to_owned()).or_default(),
        };
        found.entries += 1;
        let place = found.first.partition_point(|k| k.as_slice() < key);
        if place < NAMED {
            found.first.insert(place, key.to_vec());
            found.first.truncate(NAMED);
        }
    }

    /// Whether nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    /// Whether one of the causes is such a one.
    #[must_use]
    pub fn any(&self, is: impl Fn(&str) -> bool) -> bool {
        self.causes.keys().any(|cause| is(cause))
    }

    /// A sentence for each cause, by the first key that has it: `<what> <key>: <cause>`, or for
    /// several entries `<what> <n> entries: <cause>: <key>, …`.
    #[must_use]
    pub fn lines(&self, what: &str) -> Vec<String> {
        let mut causes: Vec<_> = self.causes.iter().collect();
        causes.sort_by(|a, b| a.1.first.cmp(&b.1.first));
        let mut lines: Vec<String> =
            causes.iter().take(TOLD).map(|(text, cause)| line(what, text, cause)).collect();
        let more: u64 = causes.iter().skip(TOLD).map(|(_, c)| c.entries).sum::<u64>() + self.others;
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
        assert!(causes.causes.len() <= REMEMBERED);
    }
}
