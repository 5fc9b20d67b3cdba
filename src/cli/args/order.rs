//! Options before the command: `atrest --snapshot FILE scan` is `atrest scan --snapshot FILE`.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::Command;

/// A command line with every option behind its command.
#[derive(Debug, PartialEq, Eq)]
pub struct Arranged {
    /// All words, the program's name first.
    pub words: Vec<OsString>,
    /// The command that they name: `["config", "check"]`.
    pub command: Vec<String>,
}

/// Puts options that stand before a command behind it. Words that cannot be made out stay where
/// they are: the parser says what is wrong with them.
#[must_use]
pub fn arrange(root: &Command, words: impl IntoIterator<Item = OsString>) -> Arranged {
    let mut words = words.into_iter();
    let mut front: Vec<OsString> = words.next().into_iter().collect();
    let mut words = words.peekable();
    let known = known(root);
    let mut command = Vec::new();
    let mut moved = Vec::new();
    let mut at = root;
    while at.has_subcommands() {
        let Some(word) = words.peek() else { break };
        let text = word.to_string_lossy().into_owned();
        if let Some(sub) = at.find_subcommand(&text) {
            at = sub;
            command.push(at.get_name().to_owned());
            front.extend(words.next());
        } else if matches!(text.as_str(), "-h" | "--help" | "-V" | "--version") {
            // About the program or group itself: what else was said has nothing to do with it.
            moved.clear();
            break;
        } else if let Some(takes_next) = takes_next(&known, &text) {
            moved.extend(words.next());
            if takes_next {
                moved.extend(words.next());
            }
        } else {
            break;
        }
    }
    if at.has_subcommands() {
        // `--profile NAME` by itself asks what it finds.
        let asks = |w: &OsString| w.to_string_lossy().starts_with("--profile");
        let whole = command.is_empty() && words.peek().is_none();
        if whole && moved.iter().any(asks) && root.find_subcommand("profile").is_some() {
            command.push("profile".to_owned());
            front.push("profile".into());
        } else {
            // No command is named that the options could belong to.
            moved.clear();
        }
    }
    front.extend(moved);
    front.extend(words);
    Arranged { words: front, command }
}

/// Every option of every command, as `--long` and `-s`, and whether its value is the next word.
#[must_use]
pub fn known(root: &Command) -> BTreeMap<String, bool> {
    let mut known = BTreeMap::new();
    for sub in root.get_subcommands() {
        known.extend(self::known(sub));
    }
    for arg in root.get_arguments() {
        let takes_next = arg.get_action().takes_values() && !arg.is_require_equals_set();
        known.extend(arg.get_long().map(|long| (format!("--{long}"), takes_next)));
        known.extend(arg.get_short().map(|short| (format!("-{short}"), takes_next)));
    }
    known
}

/// Whether the value of this option, or of the last of these short ones, is the next word; `None`
/// if it is no known option.
fn takes_next(known: &BTreeMap<String, bool>, word: &str) -> Option<bool> {
    if word.starts_with("--") {
        let (name, value) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
        return known.get(name).map(|takes_next| *takes_next && value.is_none());
    }
    let mut letters = word.strip_prefix('-').filter(|l| !l.is_empty())?.chars();
    while let Some(letter) = letters.next() {
        if *known.get(&format!("-{letter}"))? {
            return Some(letters.as_str().is_empty());
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arranged(line: &str) -> String {
        let words = line.split(' ').map(OsString::from);
        let words = arrange(&crate::cli::command(), words).words;
        words.iter().map(|w| w.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn options_go_behind_their_command() {
        for (line, expected) in [
            ("a --snapshot f scan --list", "a scan --snapshot f --list"),
            ("a --snapshot=f -qn scan -wjson scan x", "a scan --snapshot=f -qn scan -wjson x"),
            ("a --insecure-transport scan", "a scan --insecure-transport"),
            (
                "a --encryption-config f config -q explain x",
                "a config explain --encryption-config f -q x",
            ),
            ("a get -- --snapshot", "a get -- --snapshot"),
            // Wrong as they are.
            ("a --snapshot f --bogus scan", "a --bogus scan"),
            ("a --snapshot f scna", "a scna"),
            ("a --snapshot f", "a"),
            ("a --snapshot f --help scan", "a --help scan"),
        ] {
            assert_eq!(arranged(line), expected, "{line}");
        }
    }

    /// Before the command is known, an option can have one shape only.
    #[test]
    fn an_option_has_the_same_shape_everywhere() {
        fn each(command: &Command, known: &BTreeMap<String, bool>) {
            for (name, takes_next) in self::known(command) {
                assert_eq!(known[&name], takes_next, "{name} of {}", command.get_name());
            }
            command.get_subcommands().for_each(|sub| each(sub, known));
        }
        let root = crate::cli::command();
        each(&root, &known(&root));
    }
}
