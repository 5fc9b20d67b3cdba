//! The commands of a step, as a person would type them.

use std::fmt::Write as _;

use super::{Args, Files, Step, StepSeen};
use crate::jobs::rotation::Status;

/// Options of this invocation that the next one has not.
const DROPPED: [(&str, bool); 4] =
    [("--apply", false), ("--dry-run", false), ("--loaded", true), ("--wait", true)];
/// Options that hold a password: they are not repeated.
const SECRET: [&str; 2] = ["--user", "--password"];

/// What takes a step that is not done.
#[must_use]
pub fn commands(step: &StepSeen, hosts: &[String], files: &Files, args: &Args) -> Vec<String> {
    if step.status == Status::Done {
        return Vec::new();
    }
    let Some(role) = step.step.role().filter(|_| step.step.is_for_people()) else {
        return vec![again(std::env::args(), &["--apply"])];
    };
    let from = quoted(&files.place(role).display().to_string());
    let hosts = if hosts.is_empty() { vec!["HOST".to_owned()] } else { hosts.to_vec() };
    let mut commands = Vec::new();
    for host in hosts {
        let to = quoted(&format!("root@{host}:{}", files.target()));
        commands.push(format!("scp -p {from} {to}"));
        commands.push(format!(
            "ssh {} 'crictl stop $(crictl ps --name kube-apiserver -q)'",
            quoted(&format!("root@{host}"))
        ));
    }
    let confirm = if args.confirm_apiserver {
        vec!["--apply"]
    } else {
        vec!["--apply", "--confirm-apiserver"]
    };
    commands.push(again(std::env::args(), &confirm));
    commands
}

/// What may be done where a step is not as it should be.
#[must_use]
pub fn advice(step: Step) -> &'static str {
    match step {
        Step::Migrate | Step::Verify => {
            "`atrest scan --verify --list` names the entries; an entry that no key reads keeps the old key needed"
        }
        _ => {
            "find out who changed the file; to take the change over, begin a new rotation from it with another --state"
        }
    }
}

/// This command line, with other last words.
fn again(words: impl Iterator<Item = String>, last: &[&str]) -> String {
    let mut line = "atrest".to_owned();
    let mut hidden = Vec::new();
    let mut words = words.skip(1);
    while let Some(word) = words.next() {
        let name = word.split('=').next().unwrap_or_default();
        let whole = name.len() == word.len();
        if let Some(secret) = SECRET.iter().find(|s| **s == name) {
            hidden.push(*secret);
            if whole {
                words.next();
            }
            continue;
        }
        if let Some((_, has_value)) = DROPPED.iter().find(|(dropped, _)| *dropped == name) {
            if whole && *has_value {
                words.next();
            }
            continue;
        }
        if last.contains(&word.as_str()) {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = write!(line, " {}", quoted(&word));
    }
    for word in last {
        let _ = write!(line, " {word}");
    }
    if !hidden.is_empty() {
        let _ = write!(line, "    # with {} as before", hidden.join(" and "));
    }
    line
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_command_repeats_this_one_without_secrets() {
        let line = |words: &[&str]| again(words.iter().map(|w| (*w).to_owned()), &["--apply"]);
        assert_eq!(
            line(&["/x/atrest", "rotate", "--state", "my state", "--dry-run"]),
            "atrest rotate --state 'my state' --apply"
        );
        assert_eq!(
            line(&[
                "atrest",
                "rotate",
                "--apply",
                "--loaded",
                "abc",
                "--wait=1m",
                "--password=x",
                "--user",
                "a:b",
                "-w",
                "json"
            ]),
            "atrest rotate -w json --apply    # with --password and --user as before"
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
