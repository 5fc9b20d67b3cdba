//! Flags of a Kubernetes program.

use std::path::Path;

/// Flags in the order in which they were given, names with `-` for `_` (component-base
/// `cli/flag/flags.go`). No `Debug`: a flag may hold a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Flags(Vec<(String, String)>);

impl Flags {
    /// Reads the words after a program's name.
    #[must_use]
    pub fn of(words: &[String]) -> Self {
        let mut flags = Self::default();
        let mut words = words.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                continue;
            };
            if let Some((name, value)) = flag.split_once('=') {
                flags.push(name, value);
            } else if let Some(value) = words.next_if(|next| !next.starts_with('-')) {
                flags.push(flag, value);
            } else {
                flags.push(flag, "true");
            }
        }
        flags
    }

    /// Adds one.
    pub fn push(&mut self, name: &str, value: &str) {
        self.0.push((name.replace('_', "-"), value.to_owned()));
    }

    /// The value that counts: of several, the last (pflag).
    #[must_use]
    pub fn last(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All values, in order.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }

    /// The parts of all values, as of a list flag.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<&str> {
        let values = self.0.iter().filter(|(n, _)| n == name);
        values.flat_map(|(_, v)| v.split(',')).map(str::trim).filter(|s| !s.is_empty()).collect()
    }

    /// Whether a switch is on; `None` where it is not given.
    #[must_use]
    pub fn on(&self, name: &str) -> Option<bool> {
        self.last(name).map(|v| matches!(v, "1" | "t" | "T" | "true" | "TRUE" | "True"))
    }

    /// The names of flags that differ in another command line of the same program.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let mut names: Vec<&String> = self.0.iter().chain(&other.0).map(|(n, _)| n).collect();
        names.sort();
        names.dedup();
        names.into_iter().filter(|n| self.all(n) != other.all(n)).cloned().collect()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The words after a program's name, wherever that stands: behind runners, `exec`, paths. `None`
/// where no word is the program.
#[must_use]
pub fn after<'w>(words: &'w [String], program: &str) -> Option<&'w [String]> {
    let is = |word: &String, name: &str| {
        Path::new(word).file_name().is_some_and(|n| n == name) && !word.starts_with('-')
    };
    let at = words.iter().position(|w| is(w, program)).or_else(|| {
        // One binary with all programs, which are its first argument.
        let at = words.iter().position(|w| is(w, "hyperkube"))?;
        let short = program.strip_prefix("kube-").unwrap_or(program);
        let next = words.get(at + 1)?;
        (next == short).then_some(at + 1)
    })?;
    words.get(at + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_program_is_found_behind_its_runner() {
        let found = |line: &str| after(&words(line), "kube-apiserver").map(|w| w.join(" "));
        let args = Some("--a --b=1".to_owned());
        assert_eq!(found("kube-apiserver --a --b=1"), args);
        assert_eq!(
            found("/go-runner --log-file=/x --also /usr/local/bin/kube-apiserver --a --b=1"),
            args
        );
        assert_eq!(found("hyperkube apiserver --a --b=1"), args);
        assert_eq!(found("hyperkube kube-apiserver --a --b=1"), args);
        assert_eq!(found("kube-apiserver-healthcheck --a"), None);
        assert_eq!(found("kms --for=kube-apiserver"), None);
    }

    #[test]
    fn the_last_counts_and_lists_grow() {
        let flags = Flags::of(&words("--a=1 --b --a_c 2 --a=3,4 -d=5 --b=false"));
        assert_eq!(flags.last("a"), Some("3,4"));
        assert_eq!(flags.list("a"), ["1", "3", "4"]);
        assert_eq!((flags.on("b"), flags.on("z")), (Some(false), None));
        assert_eq!((flags.last("a-c"), flags.last("d")), (Some("2"), Some("5")));
    }
}
