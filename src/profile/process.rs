//! What runs, by `/proc`.

use std::collections::BTreeMap;
use std::path::Path;

use super::flags::{self, Flags};

/// A program that runs. No `Debug`: its words may hold a password.
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its command line.
    pub words: Vec<String>,
    /// Its environment, as far as it may be read.
    pub environment: BTreeMap<String, String>,
}

impl Process {
    /// The flags of `program`, which it runs.
    #[must_use]
    pub fn flags(&self, program: &str) -> Flags {
        Flags::of(flags::after(&self.words, program).unwrap_or_default())
    }
}

/// The processes that run `program` themselves, by number. None where there is no such `/proc`.
#[must_use]
pub fn running(proc: &Path, program: &str) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir(proc) else { return Vec::new() };
    let mut found: Vec<Process> = entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let words = strings(&line);
            runs(&words, program).then(|| Process {
                pid,
                words,
                environment: std::fs::read(entry.path().join("environ"))
                    .map(|bytes| strings(&bytes))
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|v| v.split_once('='))
                    .map(|(n, v)| (n.to_owned(), v.to_owned()))
                    .collect(),
            })
        })
        .collect();
    found.sort_by_key(|p| p.pid);
    found
}

/// An editor with the program's file is not the program: it has to stand first.
fn runs(words: &[String], program: &str) -> bool {
    // k3s sets one string as its whole command line.
    let first = words.first().and_then(|w| w.split_whitespace().next()).unwrap_or_default();
    let name = Path::new(first).file_name().unwrap_or_default();
    name == program || name == "hyperkube" && flags::after(words, program).is_some()
}

fn strings(bytes: &[u8]) -> Vec<String> {
    let text = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect()
}
