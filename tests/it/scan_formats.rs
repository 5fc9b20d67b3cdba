//! `scan`: its output formats say the same, and what goes to stderr.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::Digest as _;

use crate::support::{bin, corpus};

const PHASE: &str = "p6-mixed";

fn run(words: &str) -> crate::support::bin::Done {
    bin().arg("scan").arg("--snapshot").arg(corpus::db(PHASE)).words(words).run().ok()
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn csv_rows(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().clone();
    let row = |r: csv::StringRecord| {
        header.iter().map(str::to_owned).zip(r.iter().map(str::to_owned)).collect()
    };
    reader.records().map(|r| row(r.unwrap())).collect()
}

/// As CSV writes it: null is nothing.
fn flat(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[test]
fn csv_has_the_groups() {
    let json = run("--all-resources -w json").json();
    let csv = csv_rows(run("--all-resources -w csv").text());
    let groups = json["groups"].as_array().unwrap();
    assert_eq!(csv.len(), groups.len());
    for (row, group) in csv.iter().zip(groups) {
        for (name, value) in group.as_object().unwrap() {
            assert_eq!(row[name], flat(value), "{name} of {group}");
        }
    }
}

#[test]
fn csv_and_jsonl_have_the_entries() {
    let json = run("-w json --list").json();
    let entries = json["entries"].as_array().unwrap();
    assert_eq!(&run("-w jsonl").jsonl(), entries);
    assert_eq!(&run("-w jsonl --list").jsonl(), entries);
    let csv = csv_rows(run("-w csv --list").text());
    assert_eq!(csv.len(), entries.len());
    for (row, entry) in csv.iter().zip(entries) {
        for (name, value) in entry.as_object().unwrap() {
            assert_eq!(row[name], flat(value), "{name} of {entry}");
        }
    }
}

#[test]
fn entries_come_in_the_order_of_their_keys() {
    for words in ["-w jsonl", "-w jsonl --all-resources"] {
        let keys: Vec<_> = run(words).jsonl().iter().map(|e| flat(&e["key"])).collect();
        assert!(keys.is_sorted(), "{words}");
    }
}

#[test]
fn groups_are_sorted() {
    let json = run("-w json --all-resources").json();
    let names: Vec<_> = json["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| ["resource", "provider", "version", "key"].map(|n| flat(&g[n])))
        .collect();
    assert!(names.is_sorted(), "{names:?}");
}

/// Prometheus' text format, version 0.0.4: families with help and type, series once each.
#[test]
fn prometheus_has_every_group_once() {
    let config = corpus::config("p6-sb2");
    let words = format!("--all-resources --encryption-config {}", config.display());
    let text = run(&format!("-w prometheus {words}"));
    let mut series: BTreeMap<&str, u64> = BTreeMap::new();
    let mut family = "";
    for line in text.text().lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut parts = comment.split(' ');
            let word = parts.next().unwrap();
            assert!(word == "HELP" || word == "TYPE", "{line}");
            family = parts.next().unwrap();
            if word == "TYPE" {
                assert_eq!(parts.next(), Some("gauge"));
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert_eq!(name.split('{').next(), Some(family), "{line}: outside its family");
        assert!(series.insert(name, number(value)).is_none(), "{line}: twice");
    }
    assert!(text.text().ends_with('\n'));

    let json = run(&format!("-w json {words}")).json();
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for g in json["groups"].as_array().unwrap() {
        let labels = ["resource", "provider", "version", "key", "status"];
        let labels = labels.map(|n| format!("{n}=\"{}\"", flat(&g[n]))).join(",");
        let name = format!("atrest_entries{{{labels}}}");
        *expected.entry(name).or_default() += g["entries"].as_u64().unwrap();
    }
    let timestamp = series.remove("atrest_scan_timestamp_seconds").unwrap();
    assert!(timestamp > 1_700_000_000);
    assert_eq!(series.remove("atrest_scan_revision"), json["source"]["revision"].as_u64());
    assert_eq!(series.remove("atrest_entries_plaintext"), json["totals"]["plaintext"].as_u64());
    let found: BTreeMap<String, u64> = series.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
    assert_eq!(found, expected);
}

/// The cells of every table of a page, a list for each row, headings left out.
fn html_rows(page: &str) -> Vec<Vec<String>> {
    let rows = page.split("<tr class=").skip(1).map(|r| r.split("</tr>").next().unwrap());
    let cell = |c: &str| c.split_once('>').unwrap().1.split("</td>").next().unwrap().to_owned();
    rows.map(|r| r.split("<td").skip(1).map(cell).collect()).collect()
}

/// Every group and every entry of the document is in the page, and nothing else; the page loads
/// nothing and runs its own script alone.
#[test]
fn the_page_has_the_groups_and_the_entries() {
    let config = corpus::config("p6-sb2");
    let words = format!("--list --encryption-config {}", config.display());
    let json = run(&format!("-w json {words}")).json();
    let done = run(&format!("-w html {words}"));
    let page = done.text();
    let rows = html_rows(page);
    let groups = json["groups"].as_array().unwrap();
    let entries = json["entries"].as_array().unwrap();
    assert_eq!(rows.len(), groups.len() + entries.len());
    let or_dash = |v: &Value| if v.is_null() { "-".to_owned() } else { flat(v) };
    // The page has the worst first.
    let worst = |row: &&Vec<String>| {
        let status = row.iter().find_map(|c| ["unreadable", "stale"].iter().position(|s| c == s));
        status.unwrap_or(2)
    };
    let (group_rows, entry_rows) = rows.split_at(groups.len());
    for rows in [group_rows, entry_rows] {
        assert!(rows.iter().is_sorted_by_key(|row| worst(&row)));
    }
    for group in groups {
        let names = ["resource", "provider", "version", "key", "kms_key_id", "status", "entries"];
        let wanted = names.map(|n| or_dash(&group[n]));
        assert!(group_rows.iter().any(|row| row[..7] == wanted), "{group}");
    }
    for entry in entries {
        let row = entry_rows.iter().find(|row| row[0] == flat(&entry["key"])).unwrap();
        let names = ["key", "provider", "version", "key_name", "status", "mod_revision"];
        assert_eq!(row[..6], names.map(|n| or_dash(&entry[n])), "{entry}");
        let reason = row[7].replace("&#39;", "'").replace("&quot;", "\"");
        assert_eq!(reason, flat(&entry["reason"]), "{entry}");
    }
    let totals = &json["totals"];
    assert!(page.contains(&format!("{} current, {} stale", totals["current"], totals["stale"])));
    assert!(page.contains(&flat(&json["config"]["sha256"])));
    for loads in ["http:", "https:", "src=", "href=", "url(", "import("] {
        assert!(!page.contains(loads), "{loads}");
    }
    assert_eq!(page.matches("<script").count(), 1);
    for tag in ["table", "tr", "td", "th", "dl", "dd", "p", "body", "html"] {
        let opened =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn the_table_has_the_numbers() {
    let table = run("");
    let json = run("-w json").json();
    let text = table.text();
    for g in json["groups"].as_array().unwrap() {
        let line = text.lines().find(|l| {
            let words: Vec<_> = l.split_whitespace().collect();
            let has = |name: &str| g[name].is_null() || words.contains(&flat(&g[name]).as_str());
            words.first() == Some(&"secrets")
                && ["provider", "version", "key", "kms_key_id", "entries"].iter().all(|n| has(n))
        });
        assert!(line.is_some(), "no line for {g} in\n{text}");
    }
    assert_eq!(text, run("-w table").text());
    assert_eq!(text, run("-w simple").text());
    let totals = &json["totals"];
    let sum = format!(
        "{} entries: {} plaintext, {} encrypted",
        totals["entries"], totals["plaintext"], totals["encrypted"]
    );
    assert!(text.lines().any(|l| l == sum), "{text}");
    assert!(text.lines().all(|l| l.trim_end() == l), "white space at the end of a line");
}

#[test]
fn a_table_lists_entries_too() {
    let text = run("--list -n team-a");
    for e in run("-w jsonl -n team-a").jsonl() {
        let line = text.text().lines().find(|l| l.starts_with(&format!("{} ", flat(&e["key"]))));
        assert!(line.is_some_and(|l| l.contains(&flat(&e["mod_revision"]))), "{e}");
    }
}

#[test]
fn a_report_names_its_source_and_configuration() {
    let config = corpus::config("p6-sb2");
    let json = run(&format!("-w json --encryption-config {}", config.display())).json();
    assert_eq!(json["schema"], "atrest.scan/v1");
    assert_eq!(json["source"]["kind"], "snapshot");
    assert_eq!(json["source"]["location"], corpus::db(PHASE).to_str().unwrap());
    assert_eq!(json["config"]["location"], config.to_str().unwrap());
    let digest = corpus::hex(&sha2::Sha256::digest(std::fs::read(&config).unwrap()));
    assert_eq!(json["config"]["sha256"], digest);
    let totals = &json["totals"];
    let sum: u64 =
        ["current", "stale", "unreadable"].iter().map(|n| totals[*n].as_u64().unwrap()).sum();
    assert_eq!(totals["entries"], sum);
}

#[test]
fn nothing_found_is_an_empty_result() {
    for (format, expected) in [("jsonl", ""), ("csv", "header"), ("json", "document")] {
        let done = run(&format!("-w {format} --resource nosuch.example.com --allow-empty"));
        match expected {
            "" => assert_eq!(done.text(), ""),
            "header" => assert_eq!(done.text().lines().count(), 1),
            _ => assert_eq!(done.json()["groups"], serde_json::json!([])),
        }
        done.says("note: no entry");
    }
}

#[test]
fn quiet_leaves_notes_out_and_errors_in() {
    let loud = run("--resource nosuch.example.com --allow-empty");
    assert!(loud.stderr.starts_with("note: "), "{loud}");
    let quiet = run("--resource nosuch.example.com --allow-empty -q");
    assert_eq!(quiet.stderr, "");
    assert_eq!(quiet.text(), loud.text());
    bin().words("scan -q --snapshot /nonexistent").run().fails_with_hint(1);
}

#[test]
fn colour_only_where_it_is_wanted() {
    let escape = |done: &crate::support::bin::Done| done.text().contains('\x1b');
    assert!(!escape(&run("")), "no terminal, no colour");
    assert!(!escape(&run("--color never")));
    assert!(escape(&run("--color always")));
    for format in ["json", "jsonl", "csv", "prometheus", "html"] {
        assert!(!escape(&run(&format!("--color always -w {format}"))), "{format}");
    }
    let failed = bin().words("scan --color always --snapshot /nonexistent").run().code(1);
    assert!(failed.stderr.contains("\x1b["), "{failed}");
}

#[test]
fn nothing_but_results_without_a_terminal() {
    for words in ["", "-w json", "--no-progress"] {
        assert_eq!(run(words).stderr, "", "{words}");
    }
}
