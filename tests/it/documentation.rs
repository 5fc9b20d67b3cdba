//! What the README and `docs/` show is what the program does.
//!
//! Every ```` ```console ```` block is run: lines that begin with `$ ` are commands, what follows is
//! what they print, on stdout and stderr. `scripts/examples` writes what they print now into the
//! files.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::corpus;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README, the changelog and all of `docs/`.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    pages.extend(below(&root().join("docs")));
    pages.sort();
    pages
}

/// The pages in a folder and in those below it.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for path in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if path.is_dir() {
            pages.extend(below(&path));
        } else if path.extension().is_some_and(|e| e == "md") {
            pages.push(path);
        }
    }
    pages
}

/// What a page links to, as it is written there.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The files that the examples name, in a folder of their own.
fn sandbox() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: Vec<u8>| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    put("snapshot.db", corpus::bytes("p1b-partial-migration.db"));
    put("compacted.db", corpus::bytes("p8-compacted-not-defragged.db"));
    let data = corpus::data_dir();
    fs::create_dir(dir.path().join("etcd")).unwrap();
    fs::rename(data.path().join("member"), dir.path().join("etcd/member")).unwrap();
    put("encryption.yaml", fs::read(corpus::config("p1-secretbox")).unwrap());
    put("rotated.yaml", fs::read(corpus::config("p2-aescbc")).unwrap());
    dir
}

/// Runs one command as a person in that folder would; its output and status.
fn shell(dir: &Path, line: &str, before: i32) -> (String, i32) {
    let bin = Path::new(env!("CARGO_BIN_EXE_atrest")).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let done = Command::new("bash")
        .arg("-c")
        .arg(format!("exec 2>&1; (exit {before}); {line}"))
        .env_clear()
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("LC_ALL", "C.UTF-8")
        .env("RUST_BACKTRACE", "0")
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let output = String::from_utf8(done.stdout).unwrap();
    assert!(!output.contains("panicked at"), "{line}: a panic");
    (output, done.status.code().unwrap_or(-1))
}

/// The page with every example's output as it is now.
fn rerun(text: &str) -> String {
    let dir = sandbox();
    let mut new = String::new();
    let mut lines = text.lines();
    let mut status = 0;
    while let Some(line) = lines.next() {
        let _ = writeln!(new, "{line}");
        if line != "```console" {
            continue;
        }
        for line in lines.by_ref() {
            if line == "```" {
                let _ = writeln!(new, "{line}");
                break;
            }
            if let Some(command) = line.strip_prefix("$ ") {
                let (output, code) = shell(dir.path(), command, status);
                status = code;
                let _ = writeln!(new, "{line}");
                for printed in output.lines() {
                    let _ = writeln!(new, "{}", printed.trim_end());
                }
            }
        }
    }
    new
}

#[test]
fn examples_show_what_the_program_prints() {
    let write = std::env::var_os("ATREST_WRITE_EXAMPLES").is_some();
    let mut wrong = Vec::new();
    for page in pages() {
        let old = fs::read_to_string(&page).unwrap();
        let new = rerun(&old);
        if old == new {
            continue;
        }
        if write {
            fs::write(&page, &new).unwrap();
        } else {
            let differing = old.lines().zip(new.lines()).find(|(o, n)| o != n);
            let (was, is) = differing.unwrap_or(("(the end)", "(more lines)"));
            wrong.push(format!("{}:\n  shown: {was}\n  now:   {is}", page.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "examples differ from what the program prints; scripts/examples rewrites them:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_readme_has_examples() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let examples = text.lines().filter(|l| l.starts_with("$ atrest ")).count();
    assert!(examples >= 5, "{examples}");
}

#[test]
fn the_demo_runs_the_first_example() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let first = text.lines().find_map(|l| l.strip_prefix("$ ")).unwrap();
    let demo = fs::read_to_string(root().join("scripts/demo")).unwrap();
    assert!(demo.lines().any(|l| l == format!("run {first}")), "{first}");
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = page.parent().unwrap().join(file);
            assert!(target.exists(), "{} links to {link}", page.display());
        }
    }
}

/// The book is made of what its table of contents names, and of nothing else.
#[test]
fn every_page_is_in_the_table_of_contents() {
    let docs = root().join("docs");
    let contents = docs.join("SUMMARY.md");
    let text = fs::read_to_string(&contents).unwrap();
    let mut named: Vec<PathBuf> = links(&text).map(|link| docs.join(link)).collect();
    let mut there = below(&docs);
    there.retain(|page| *page != contents);
    named.sort();
    there.sort();
    assert_eq!(named, there);
}

/// A page of the book that links out of it leads nowhere once it is a site.
#[test]
fn pages_of_the_book_link_to_pages_of_the_book() {
    let docs = root().join("docs").canonicalize().unwrap();
    for page in below(&docs) {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text).filter(|l| !l.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file).canonicalize().unwrap()
            };
            assert!(target.starts_with(&docs), "{} links to {link}", page.display());
            let known = heading.is_empty() || headings(&target).iter().any(|h| h == heading);
            assert!(known, "{} links to {link}, which has no such heading", page.display());
        }
    }
}

/// The headings of a page as links name them.
fn headings(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let titles = text.lines().filter(|l| l.starts_with('#')).map(|l| l.trim_start_matches('#'));
    titles
        .map(|title| {
            let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
            title.trim().chars().filter(kept).collect::<String>().to_lowercase().replace(' ', "-")
        })
        .collect()
}

/// What needs a cluster is shown and not run; its options are still those of the program.
#[test]
fn commands_that_are_not_run_are_taken() {
    let mut commands = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap().replace("\\\n", " ");
        let blocks = text.split("\n```sh\n").skip(1).filter_map(|b| b.split("\n```").next());
        for line in blocks.flat_map(str::lines).map(|line| line.trim_start_matches("$ ")) {
            if !line.starts_with("atrest ") {
                continue;
            }
            let taken = atrest::cli::command().try_get_matches_from(words(line));
            assert!(taken.is_ok(), "{}: {line}\n{}", page.display(), taken.unwrap_err());
            commands += 1;
        }
    }
    assert!(commands >= 40, "{commands}");
}

/// The words that a shell would call the program with. What is redirected stays where it is,
/// brackets are around what may be left out, and `…` is what the reader knows.
fn words(line: &str) -> Vec<String> {
    let call = line.split(" > ").next().unwrap().replace(['[', ']'], "").replace('…', "1");
    let script = format!("atrest() {{ printf '%s\\n' atrest \"$@\"; }}; {call}");
    let done = Command::new("bash").arg("-c").arg(script).output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{line}: {done:?}");
    String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn commands_of_the_readme_exist() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    for script in text.split_whitespace().filter(|w| w.starts_with("scripts/")) {
        let path = root().join(script.trim_end_matches([',', '.', '`', ')']));
        assert!(path.is_file(), "{}", path.display());
    }
}

#[test]
fn exit_codes_are_documented() {
    use atrest::cli::failure::Exit;
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    for exit in [Exit::Ok, Exit::Failed, Exit::Usage, Exit::Found, Exit::Partial, Exit::Interrupted]
    {
        let row = format!("| {} | ", exit.code());
        assert!(text.contains(&row), "no row {row}");
    }
}
