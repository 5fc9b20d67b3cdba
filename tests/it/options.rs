//! An option is honoured or refused, before the command as behind it.

use std::process::{Command, Output};

use crate::support::bin::{Bin, bin};
use crate::support::corpus;

const CONNECTION: &str = "cacert cert key user password password-file insecure-skip-tls-verify \
    insecure-transport dial-timeout command-timeout keepalive-time keepalive-timeout";
/// How fast a live etcd is read.
const TEMPO: &str = "gentle fast qps";
const PROFILE: &str = "profile manifest root";
/// What unwraps KMS data keys, of commands that decrypt.
const UNWRAP: &str = "kms-exec kms-timeout kms-escrow identity";
/// What opens a configuration inside the source, which takes decrypting.
const INSIDE: &str = "token token-file kms-exec kms-timeout kms-escrow identity";
const OUTPUT: &str = "quiet no-progress color";
const ANY_SOURCE: &str = "endpoints snapshot data-dir kine skip-hash-check salvage";
const SELECTION: &str = "prefix proxy-namespace resource all-resources namespace";

/// Every command, with what it needs to be parsed, and the shared options that it honours.
fn table() -> Vec<(&'static str, &'static str, String)> {
    let all = |parts: &[&str]| parts.join(" ");
    let read = [ANY_SOURCE, CONNECTION, PROFILE, "encryption-config", OUTPUT].join(" ");
    let past = [INSIDE, "prefix proxy-namespace namespace revision lost write-out"].join(" ");
    let mut rows = vec![
        ("scan", "", all(&[&read, TEMPO, INSIDE, SELECTION, "allow-empty revision write-out"])),
        ("get", "x", all(&[&read, &past])),
        (
            "decode",
            "",
            all(&[
                PROFILE,
                OUTPUT,
                UNWRAP,
                "key prefix proxy-namespace encryption-config write-out",
            ]),
        ),
        (
            "encode",
            "",
            all(&[
                PROFILE,
                OUTPUT,
                UNWRAP,
                "key prefix proxy-namespace namespace encryption-config",
            ]),
        ),
        (
            "export",
            "",
            all(&[&read, TEMPO, INSIDE, SELECTION, "allow-empty revision lost write-out"]),
        ),
        (
            "diff",
            "snapshot:x snapshot:y",
            all(&[
                CONNECTION,
                PROFILE,
                OUTPUT,
                SELECTION,
                UNWRAP,
                "endpoints skip-hash-check encryption-config write-out",
            ]),
        ),
        ("backups", "x", all(&[OUTPUT, SELECTION, UNWRAP, "encryption-config write-out"])),
        ("posture", "", all(&[&read, UNWRAP, "prefix proxy-namespace revision write-out"])),
        ("serve", "", all(&[&read, UNWRAP, "prefix proxy-namespace revision"])),
        ("restore plan", "", all(&[&read, UNWRAP, SELECTION, "allow-empty revision write-out"])),
        (
            "rewrite",
            "--out x --write-config x",
            all(&[
                PROFILE,
                OUTPUT,
                INSIDE,
                "snapshot skip-hash-check prefix proxy-namespace encryption-config write-out",
            ]),
        ),
        ("history", "x", all(&[&read, &past, "allow-empty"])),
        ("keys", "", all(&[&read, INSIDE, SELECTION, "allow-empty revision write-out"])),
        (
            "migrate",
            "",
            all(&[
                CONNECTION,
                PROFILE,
                OUTPUT,
                SELECTION,
                INSIDE,
                "allow-empty endpoints encryption-config write-out qps",
            ]),
        ),
        (
            "exporter",
            "",
            all(&[CONNECTION, TEMPO, PROFILE, OUTPUT, SELECTION, "endpoints encryption-config"]),
        ),
        ("residue", "", all(&[&read, INSIDE, SELECTION, "allow-empty write-out"])),
        ("config check", "", all(&[PROFILE, OUTPUT, "encryption-config write-out"])),
        ("config explain", "x", all(&[PROFILE, OUTPUT, "encryption-config write-out"])),
        ("config new", "--provider aesgcm", all(&[OUTPUT, "resource all-resources write-out"])),
        ("config rotate", "--step add", all(&[&read, "identity prefix proxy-namespace resource"])),
        ("profile", "", all(&[PROFILE, OUTPUT, "write-out"])),
        ("doctor", "", all(&[PROFILE, OUTPUT, "write-out"])),
        ("completion", "bash", String::new()),
        ("man", "", String::new()),
        ("version", "", String::new()),
    ];
    rows.extend(upkeep());
    rows.extend(kms());
    rows
}

/// The commands for the day when a key is gone.
fn kms() -> Vec<(&'static str, &'static str, String)> {
    let read = [ANY_SOURCE, CONNECTION, PROFILE, "encryption-config", OUTPUT].join(" ");
    let with = |parts: &[&str]| format!("{read} {}", parts.join(" "));
    let selected = "prefix proxy-namespace revision write-out";
    vec![
        ("kms check", "", with(&["identity allow-empty", selected])),
        ("kms needs", "", with(&[INSIDE, "allow-empty", selected])),
        ("kms escrow", "--to x", with(&[INSIDE, selected])),
        ("delete-unreadable", "", with(&[INSIDE, SELECTION, "allow-empty write-out"])),
    ]
}

/// The commands that change a cluster over several runs.
fn upkeep() -> Vec<(&'static str, &'static str, String)> {
    let all = |parts: &[&str]| parts.join(" ");
    vec![
        (
            "rotate",
            "--state x",
            all(&[
                CONNECTION,
                PROFILE,
                OUTPUT,
                UNWRAP,
                "prefix proxy-namespace resource endpoints encryption-config write-out qps",
            ]),
        ),
        (
            "scrub",
            "",
            all(&[
                CONNECTION,
                PROFILE,
                OUTPUT,
                INSIDE,
                "prefix proxy-namespace resource all-resources endpoints kine encryption-config write-out",
            ]),
        ),
    ]
}

/// A word on the command line that gives the option.
fn give(option: &str) -> String {
    match option {
        "quiet"
        | "no-progress"
        | "skip-hash-check"
        | "salvage"
        | "lost"
        | "allow-empty"
        | "all-resources"
        | "gentle"
        | "fast"
        | "insecure-skip-tls-verify"
        | "insecure-transport" => format!("--{option}"),
        "dial-timeout" | "command-timeout" | "keepalive-time" | "keepalive-timeout" => {
            format!("--{option}=1s")
        }
        "kms-exec" => "--kms-exec=p=cat".to_owned(),
        "kms-timeout" => "--kms-timeout=1s".to_owned(),
        "color" => "--color=never".to_owned(),
        "qps" => "--qps=5".to_owned(),
        "revision" => "--revision=1".to_owned(),
        "profile" => "--profile=k3s".to_owned(),
        "write-out" => "--write-out=json".to_owned(),
        _ => format!("--{option}=/nowhere"),
    }
}

fn run(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atrest"));
    command.env_clear().stdin(std::process::Stdio::null());
    command.args(words.iter().filter(|w| !w.is_empty())).output().unwrap()
}

#[test]
fn every_command_refuses_what_it_does_not_honour() {
    let mut options: Vec<String> = table()
        .iter()
        .flat_map(|(_, _, honoured)| honoured.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .filter(|o| !o.is_empty())
        .collect();
    options.sort();
    options.dedup();
    assert_eq!(options.len(), 43);
    for (command, needs, honoured) in table() {
        let honoured: Vec<&str> = honoured.split(' ').collect();
        let words: Vec<&str> = command.split(' ').chain(needs.split(' ')).collect();
        let listed = run(&[&command.split(' ').collect::<Vec<_>>()[..], &["--help"]].concat());
        let help = String::from_utf8(listed.stdout).unwrap();
        for option in &options {
            let given = give(option);
            let honours = honoured.contains(&option.as_str());
            // What is honoured gets as far as a mistake behind it, and opens nothing.
            let end = if honours { "--no-such-option" } else { "" };
            let before = run(&[&[given.as_str()], &words[..], &[end]].concat());
            let behind = run(&[&words[..], &[given.as_str(), end]].concat());
            for done in [before, behind] {
                let stderr = String::from_utf8_lossy(&done.stderr);
                assert_eq!(done.status.code(), Some(2), "{command} {given}: {stderr}");
                let said = if honours {
                    "'--no-such-option'".to_owned()
                } else {
                    format!("`atrest {command}` does not take --{option}\n")
                };
                assert!(stderr.contains(&said), "{command} {given}: {stderr}");
            }
            let mut lines = help.lines().map(str::trim_start);
            let helped = lines.any(|line| {
                let line = line
                    .get(..4)
                    .filter(|short| short.ends_with(", "))
                    .map_or(line, |_| &line[4..]);
                line.strip_prefix("--")
                    .and_then(|l| l.strip_prefix(option.as_str()))
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '[']))
            });
            let itself = command == "migrate" && option == "snapshot";
            if !itself {
                assert_eq!(
                    helped,
                    honoured.contains(&option.as_str()),
                    "{command} --help: {option}"
                );
            }
        }
    }
}

/// No command is left out of the table.
#[test]
fn every_command_is_in_the_table() {
    fn leaves(command: &clap::Command, path: &str, all: &mut Vec<String>) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name());
            if sub.has_subcommands() {
                leaves(sub, &path, all);
            } else {
                all.push(path.trim_start().to_owned());
            }
        }
    }
    let mut all = Vec::new();
    leaves(&atrest::cli::command(), "", &mut all);
    let mut told: Vec<_> = table().iter().map(|(command, ..)| (*command).to_owned()).collect();
    all.sort();
    told.sort();
    assert_eq!(told, all);
}

#[test]
fn an_option_that_the_source_does_not_honour_is_refused() {
    for (words, what) in [
        (&["scan", "--kine", "x", "--salvage"][..], "--salvage goes with --snapshot or --data-dir"),
        (&["scan", "--salvage"], "--salvage goes with --snapshot or --data-dir"),
        (&["get", "x", "--lost", "--revision", "2"], "--lost goes with --snapshot, --data-dir"),
        (
            &["keys", "--data-dir", "x", "--skip-hash-check"],
            "--skip-hash-check goes with --snapshot",
        ),
        (&["get", "x", "--snapshot", "x", "--cacert", "x"], "--cacert says how to connect"),
        (&["history", "x", "--kine", "x", "--user", "a:b"], "--user says how to connect"),
        (&["scan", "--snapshot", "x", "--endpoints", "x"], "--endpoints cannot be used"),
        (
            &["config", "rotate", "--step", "add", "--snapshot", "x", "--out", "y"],
            "--snapshot goes with --step retire",
        ),
        (&["scan", "--watch", "-w", "csv"], "--watch does not write `csv`"),
    ] {
        let done = run(words);
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{words:?}: {stderr}");
        assert!(stderr.starts_with(&format!("error: {what}")), "{words:?}: {stderr}");
    }
}

#[test]
fn the_environment_asks_for_nothing() {
    let environment = [
        ("ETCDCTL_ENDPOINTS", "https://127.0.0.1:1"),
        ("ETCDCTL_CACERT", "/nowhere"),
        ("ETCDCTL_USER", "root:throwaway"),
        ("ETCDCTL_COMMAND_TIMEOUT", "9s"),
    ];
    let run =
        |bin: Bin| environment.iter().fold(bin, |bin, (name, value)| bin.env(name, value)).run();
    let done = run(bin().args(["scan", "--snapshot"]).arg(corpus::db("p0-plaintext"))).ok();
    assert!(done.text().contains("secrets"));
    for words in [&["completion", "bash"][..], &["config", "check", "--help"]] {
        run(bin().args(words)).ok();
    }
}

#[test]
fn stdin_is_read_once() {
    for words in [
        &["config", "check", "-", "-"][..],
        &["config", "check", "-", "--encryption-config", "-"],
        &["decode", "--encryption-config", "-"],
        &["encode", "-", "--encryption-config", "-", "--key", "/x"],
        &["migrate", "--encryption-config", "-", "--confirm-config", "-"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atrest"));
        command.args(words).stdin(std::fs::File::open(corpus::config("p1-secretbox")).unwrap());
        let done = command.output().unwrap();
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{words:?}: {stderr}");
        assert!(stderr.contains("give `-` once"), "{words:?}: {stderr}");
    }
}

/// The formats that `--help` lists are those that the error lists, and the first is the default.
#[test]
fn help_lists_the_formats() {
    for (command, needs, honoured) in table() {
        if !honoured.contains("write-out") {
            continue;
        }
        let words: Vec<&str> = command.split(' ').collect();
        let help = String::from_utf8(run(&[&words[..], &["-h"]].concat()).stdout).unwrap();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let after = help.split_once("--write-out <FORMAT> Output format [default: ").unwrap().1;
        let (default, after) = after.split_once("] [possible values: ").unwrap();
        let formats = after.split_once(']').unwrap().0;
        assert_eq!(formats.split(", ").next(), Some(default), "{command}");
        let needs: Vec<&str> = needs.split(' ').collect();
        let done = run(&[&words[..], &needs, &["-w", "nonsense"]].concat());
        let error = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{command}");
        assert!(error.contains(&format!("[possible values: {formats}]")), "{command}: {error}");
    }
}

/// A variable stands for its option, the option wins, an empty one is none, and no variable of ours
/// names a source.
#[test]
fn options_have_variables() {
    let scan = || bin().words("scan -w json --snapshot").arg(corpus::db("p1b-partial-migration"));
    let config = corpus::private_config("p1-secretbox");
    let said = |run: Bin| run.run().ok().json()["config"].clone();
    assert!(said(scan()).is_null());
    assert!(said(scan().env("ATREST_ENCRYPTION_CONFIG", "")).is_null());
    let set = || scan().env("ATREST_ENCRYPTION_CONFIG", &config);
    assert_eq!(said(set())["location"], config.to_str().unwrap());
    let other = corpus::private_config("p2-aescbc");
    let given = set().arg("--encryption-config").arg(&other);
    assert_eq!(said(given)["location"], other.to_str().unwrap());
    scan().env("ATREST_PREFIX", "/tenant").run().fails(1).says("under /tenant/");
    let coloured = bin().words("scan --snapshot").arg(corpus::db("p1b-partial-migration"));
    assert!(coloured.env("ATREST_COLOR", "always").run().ok().text().contains('\u{1b}'));
    scan().env("ATREST_SNAPSHOT", "/nowhere").env("ATREST_ENDPOINTS", "https://[::1]:1").run().ok();
}

/// Every command's `-h` fits a screen; everything else is in `--help`.
#[test]
fn short_help_is_short() {
    for words in ["scan", "get", "keys", "export", "residue", "migrate", "doctor", "serve"] {
        let help = |flag: &str| bin().words(words).arg(flag).run().ok().text().to_owned();
        let (short, long) = (help("-h"), help("--help"));
        let lines = short.lines().count();
        assert!(lines <= 56, "{words}: {lines} lines");
        assert!(!short.contains("--keepalive-time") && long.contains("Examples:"), "{words}");
    }
}
