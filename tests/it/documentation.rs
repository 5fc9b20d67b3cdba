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
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|e| e.unwrap().path());
    pages.extend(docs.filter(|p| p.extension().is_some_and(|e| e == "md")));
    pages.sort();
    pages
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
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let target = page.parent().unwrap().join(file);
            assert!(target.exists(), "{} links to {link}", page.display());
        }
    }
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
