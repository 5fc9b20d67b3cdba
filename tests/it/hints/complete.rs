//! Every hint of the source has a row in these files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Hints that name a command or an option and are not followed, with the reason.
const EXCUSED: [(&str, &str); 7] = [
    (
        "say the quota that etcd was started with",
        "an etcd that tells no quota and has 2 GiB is none that tests can have",
    ),
    ("--from-key=true {}", "no command asks for all keys from one on"),
    (
        "etcd's --cipher-suites and --tls-max-version must allow",
        "no etcd of the tests can be told to speak less than TLS 1.2 with ECDHE",
    ),
    ("decrypt it with `age -d` first", "age is not installed where the tests run"),
    ("`sqlite3 FILE .recover` rebuilds", "sqlite3 is not installed where the tests run"),
    (
        "copy it here, or build with the feature `remote`",
        "a build without the feature says it, and the tests are built with it",
    ),
    ("sqlite3 … .backup", "two programs that race for one file are no certain test"),
];

/// What makes a text name a command or an option.
fn names_something(text: &str) -> bool {
    const PROGRAMS: [&str; 8] = [
        "atrest ", "etcdctl ", "etcdutl ", "kubectl ", "openssl ", "sqlite3 ", "TMPDIR", "ETCDCTL_",
    ];
    // Names of options alone are parts that others are made of.
    if !text.contains(' ') {
        return false;
    }
    let option = |word: &str| {
        let bare = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let name =
            bare.strip_prefix("--").or_else(|| bare.strip_prefix('-').filter(|n| n.len() == 1));
        name.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    text.contains('`')
        || PROGRAMS.iter().any(|program| text.contains(program))
        || text.split_whitespace().any(option)
}

#[derive(Clone, PartialEq)]
enum Token {
    /// A string, its escapes as they stand.
    Text(String),
    Word(String),
    Sign(char),
}

/// Strings, words and signs of Rust source; no comments, numbers count as words.
fn tokens(source: &str) -> Vec<Token> {
    let text: Vec<char> = source.chars().collect();
    let at = |i: usize| text.get(i).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut all, mut i) = (Vec::new(), 0);
    while i < text.len() {
        let start = i;
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < text.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '"' => {
                i += 1;
                while at(i) != '"' {
                    i += 1 + usize::from(at(i) == '\\');
                }
                all.push(Token::Text(joined(&text[start + 1..i])));
                i += 1;
            }
            // A character; a lifetime has no second quote.
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' if at(i + 2) == '\'' => i += 3,
            c if is_word(c) => {
                while is_word(at(i)) {
                    i += 1;
                }
                let word: String = text[start..i].iter().collect();
                // A raw string, of which hints have none.
                let hashes = (i..text.len()).take_while(|j| at(*j) == '#').count();
                if matches!(&*word, "r" | "br") && at(i + hashes) == '"' {
                    let end = format!("\"{}", "#".repeat(hashes));
                    let rest: String = text[i + hashes + 1..].iter().collect();
                    let len = rest.find(&end).unwrap_or(rest.len());
                    i += hashes + 1 + rest[..len].chars().count() + end.len();
                } else {
                    all.push(Token::Word(word));
                }
            }
            c => {
                i += 1;
                if !c.is_whitespace() {
                    all.push(Token::Sign(c));
                }
            }
        }
    }
    all
}

/// A string that goes on in the next line, as the compiler has it.
fn joined(text: &[char]) -> String {
    let text: String = text.iter().collect();
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |all, line| all + line.trim_start())
}

/// Where the bracket at `open` is closed.
fn closed(tokens: &[Token], open: usize) -> usize {
    1 + open + end(tokens.get(open + 1..).unwrap_or_default(), false)
}

/// Where what begins here ends: at the bracket that was open before, or behind a statement or field.
fn end(tokens: &[Token], statement: bool) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') if depth == 0 => return i,
            Token::Sign(')' | ']' | '}') => depth -= 1,
            Token::Sign(';' | ',') if depth == 0 && statement => return i,
            _ => {}
        }
    }
    tokens.len()
}

fn sources(below: &str) -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(below)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Texts that become hints: what is given to `hint(…)`, what `hint` or `hints` is, what functions
/// of that name return, and everything in the files that turn errors into hints. Constants count
/// where they are named.
fn hints() -> BTreeMap<String, PathBuf> {
    let mut files: Vec<(PathBuf, Vec<Token>)> = Vec::new();
    for path in sources("src/cli").into_iter().chain(sources("src/pasted")) {
        let text = fs::read_to_string(&path).unwrap();
        files.push((path, tokens(text.split("#[cfg(test)]").next().unwrap_or_default())));
    }
    let word = |token: Option<&Token>, is: &str| token == Some(&Token::Word(is.to_owned()));
    let sign = |token: Option<&Token>, is: char| token == Some(&Token::Sign(is));
    let mut constants: BTreeMap<String, String> = BTreeMap::new();
    for (_, tokens) in &files {
        for i in 0..tokens.len() {
            if let (true, Some(Token::Word(name))) =
                (word(tokens.get(i), "const"), tokens.get(i + 1))
            {
                let value = tokens[i..i + end(&tokens[i..], true)].iter().find_map(|t| match t {
                    Token::Text(text) => Some(text.clone()),
                    _ => None,
                });
                constants.extend(value.map(|value| (name.clone(), value)));
            }
        }
    }
    let mut found = BTreeMap::new();
    for (path, tokens) in &files {
        let mut regions = Vec::new();
        let next = |i: usize| tokens.get(i + 1);
        for i in 0..tokens.len() {
            let hint = word(tokens.get(i), "hint") || word(tokens.get(i), "hints");
            let give = word(tokens.get(i), "NotAValue") && word(tokens.get(i + 3), "new");
            let after_fn = i > 0 && word(tokens.get(i - 1), "fn");
            if after_fn && hint
                || path.components().any(|c| c.as_os_str() == "failure")
                    && after_fn
                    && !word(tokens.get(i), "words")
            {
                let body = (i..tokens.len()).find(|j| sign(tokens.get(*j), '{')).unwrap_or(i);
                regions.push(body..closed(tokens, body));
            } else if give || hint && sign(next(i), '(') && i > 0 && sign(tokens.get(i - 1), '.') {
                let open = (i..tokens.len()).find(|j| sign(tokens.get(*j), '(')).unwrap_or(i);
                // What the input looks like comes before what to give.
                let first = if give { 1 + end(&tokens[open + 1..], true) } else { 0 };
                regions.push(open + first..closed(tokens, open));
            } else if hint && sign(next(i), '=') && !sign(tokens.get(i + 2), '=') {
                regions.push(i..i + end(&tokens[i..], true));
            } else if hint && sign(next(i), '.') && word(tokens.get(i + 2), "push") {
                regions.push(i + 3..closed(tokens, i + 3));
            } else if hint && sign(next(i), ':') && !sign(tokens.get(i + 2), ':') {
                regions.push(i..i + end(&tokens[i..], true));
            }
        }
        for token in regions.into_iter().flat_map(|region| &tokens[region]) {
            let text = match token {
                Token::Text(text) => Some(text),
                Token::Word(name) => constants.get(name),
                Token::Sign(_) => None,
            };
            found.extend(text.map(|text| (text.clone(), path.clone())));
        }
    }
    found
}

/// The pieces that are given to `says(…)` in these files.
fn rows() -> Vec<String> {
    let mut all = Vec::new();
    for path in sources("tests/it/hints") {
        let tokens = tokens(&fs::read_to_string(path).unwrap());
        for three in tokens.windows(3) {
            if let [Token::Word(name), Token::Sign('('), Token::Text(text)] = three
                && name == "says"
            {
                all.push(text.clone());
            }
        }
    }
    all
}

#[test]
fn every_hint_that_names_a_command_or_an_option_is_followed() {
    let (hints, rows) = (hints(), rows());
    assert!(hints.len() > 150 && rows.len() > 120, "{} hints, {} rows", hints.len(), rows.len());
    let all: Vec<&String> = hints.keys().collect();
    // A piece is a row of the one text that it is part of, or of the text that it is.
    let is_of = |piece: &str, text: &str| {
        piece == text
            || text.contains(piece) && all.iter().filter(|other| other.contains(piece)).count() == 1
    };
    let missing: Vec<_> = hints
        .iter()
        .filter(|(text, _)| names_something(text))
        .filter(|(text, _)| !rows.iter().any(|piece| is_of(piece, text)))
        .filter(|(text, _)| !EXCUSED.iter().any(|(piece, _)| text.contains(piece)))
        .map(|(text, path)| format!("{}: {text}", path.display()))
        .collect();
    assert!(
        missing.is_empty(),
        "{} hints name a command or an option and are followed by no test. For each, cause what \
         prints it in a file of tests/it/hints, and follow it: says(\"a piece of it\").helps(…):\n{}",
        missing.len(),
        missing.join("\n")
    );
    let idle: Vec<_> =
        EXCUSED.iter().filter(|(piece, _)| !all.iter().any(|text| text.contains(piece))).collect();
    assert!(idle.is_empty(), "no hint is excused by {idle:?}");
}
