//! `--lost`: what was compacted away and still lies in a file.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::support::bin::Done;
use crate::support::{Etcd, Version, bin, corpus};

/// A snapshot from which 60 encrypted Secrets were deleted and compacted away, and its throwaway
/// key.
struct Gone(tempfile::TempDir);

impl Gone {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let packed = std::fs::read(corpus::fixtures("lost/after.db.gz")).unwrap();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        std::fs::write(dir.path().join("after.db"), bytes).unwrap();
        Self(dir)
    }

    fn run(&self, words: &str) -> Done {
        bin()
            .words(words)
            .arg("--snapshot")
            .arg(self.0.path().join("after.db"))
            .arg("--encryption-config")
            .arg(corpus::fixtures("lost/enc.yaml"))
            .run()
    }
}

#[test]
fn a_deleted_secret_is_history_again() {
    let gone = Gone::new();
    let hint = gone.run("history secrets/default/a07").fails_with_hint(1);
    hint.says("`history --lost` shows it");
    let done = gone.run("history secrets/default/a07 --lost -w jsonl --reveal").ok();
    let rows = done.jsonl();
    assert_eq!(rows.len(), 2, "{rows:?}");
    let (written, deleted) = (&rows[0], &rows[1]);
    assert_eq!((&written["revision"], &written["version_count"]), (&9.into(), &1.into()));
    assert_eq!((&written["held_in"], &written["status"]), (&"free-page".into(), &"current".into()));
    assert!(written["location"].as_str().unwrap().starts_with("page "));
    assert!(written["data"]["x"].as_str().unwrap().len() > 1000, "its data can be read");
    assert_eq!((&deleted["deleted"], &deleted["held_in"]), (&true.into(), &"free-page".into()));
    let hidden = gone.run("history secrets/default/a07 --lost -w jsonl").ok();
    assert!(hidden.jsonl()[0].get("data").is_none());
    assert!(!hidden.text().contains(written["data"]["x"].as_str().unwrap()));
    let table = gone.run("history secrets/default/a07 --lost").ok();
    assert!(table.text().contains("2 of them outside the key space"), "{table}");
    // All of them, in the order in which they were written.
    let all = gone.run("history secrets/ --lost -w jsonl").ok().jsonl();
    let revisions: Vec<_> = all.iter().map(|r| r["revision"].as_i64().unwrap()).collect();
    assert!(revisions.is_sorted() && revisions.len() == 120, "{revisions:?}");
    assert!(gone.run("history secrets/ --lost --revision 9 -w jsonl").ok().jsonl().len() < 10);
    // Encrypted records are no residue, wherever they are read.
    let residue = gone.run("residue --resource secrets --allow-empty -w json").ok().json();
    assert_eq!(
        (&residue["verdict"], residue["findings"].as_array().unwrap().len()),
        (&"clean".into(), 0)
    );
}

#[test]
fn a_state_that_was_compacted_is_put_together_and_called_a_part() {
    let gone = Gone::new();
    let hint = gone.run("get secrets/default/a07 --revision 50").fails_with_hint(1);
    hint.says("--lost reads what is left of that state");
    let done = gone.run("get secrets/default/a07 --revision 50 --lost -w json --reveal").code(4);
    let object = done.json();
    assert_eq!(
        (&object["metadata"]["name"], &object["metadata"]["resourceVersion"]),
        (&"a07".into(), &"9".into())
    );
    let done = done.says("/registry/secrets/default/a07 is read from page ").says("free-page");
    done.says("may have changed or deleted /registry/secrets/default/a07 once more");
    // What stands at the revision itself is certain.
    gone.run("get secrets/default/a07 --revision 9 --lost").ok().says("as revision 9 wrote it");
    // It was not yet there, and not any more.
    for revision in [8, 150] {
        gone.run(&format!("get secrets/default/a07 --revision {revision} --lost")).fails(1);
    }
    let export = |revision: i64| {
        gone.run(&format!("export --resource secrets -w json --revision {revision} --lost"))
    };
    let names = |done: &Done| -> Vec<String> {
        let list = done.json();
        let items = list["items"].as_array().unwrap().iter();
        items.map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let some = export(20).code(4).says("the whole state at revision 20");
    let expected: Vec<_> = (0..19).map(|i| format!("a{i:02}")).collect();
    assert_eq!(names(&some), expected);
    assert_eq!(names(&export(100).code(4)).len(), 60);
    assert_eq!(names(&export(129).code(4)).len(), 60 - 8, "some are deleted by then");
    let out = gone.0.path().join("out");
    let done = gone
        .run(&format!("export --resource secrets --revision 100 --lost --out {}", out.display()));
    done.code(4).says("60 entries are read from outside the key space: 60 free-page");
    assert_eq!(std::fs::read_dir(out.join("core/secrets/default")).unwrap().count(), 60);
}

#[test]
fn only_files_have_what_is_lost() {
    let gone = Gone::new();
    for words in ["get secrets/default/a07 --lost", "export --lost --resource secrets"] {
        gone.run(words).fails_with_hint(2).says("give --revision N");
    }
    gone.run("export --restore --out x --lost --revision 9").code(2);
    for words in ["get x/y --revision 2", "export --revision 2", "history x/y"] {
        let live = bin().words(words).words("--lost --endpoints 127.0.0.1:1").run();
        live.fails_with_hint(2).says("--lost goes with");
    }
    // A state that is there is whole.
    let path = corpus::db("p7-migrated-uncompacted");
    let with = |lost: &str| {
        let words = format!("export -w json --resource namespaces --revision 600 {lost}");
        bin().words(&words).arg("--snapshot").arg(&path).run().ok()
    };
    let whole = with("--lost").says("revision 600 is not compacted");
    assert_eq!(whole.stdout, with("").stdout);
}

/// A Secret as an API server stores it under a throwaway key.
fn secret(key: &str, word: &str) -> Vec<u8> {
    let (namespace, name) =
        key.strip_prefix("/registry/secrets/").unwrap().split_once('/').unwrap();
    let manifest = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         stringData: {{p: {word}}}\n"
    );
    let done = bin()
        .words("encode --encryption-config")
        .arg(corpus::fixtures("lost/enc.yaml"))
        .arg("--key")
        .arg(key)
        .stdin(manifest)
        .run();
    done.ok().stdout
}

/// What the data of a revealed history are, with what holds them.
fn shown(rows: &[Value]) -> BTreeMap<String, String> {
    use base64::Engine as _;
    let text = |row: &Value| {
        let value = row["data"]["p"].as_str()?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(value).unwrap();
        Some((String::from_utf8(bytes).unwrap(), row["held_in"].as_str().unwrap().to_owned()))
    };
    rows.iter().filter_map(text).collect()
}

fn history(source: &str, path: &Path, words: &str) -> Done {
    bin()
        .words("history -w jsonl --reveal")
        .words(words)
        .arg(source)
        .arg(path)
        .arg("--encryption-config")
        .arg(corpus::fixtures("lost/enc.yaml"))
        .run()
}

/// The log of a restored member tells no revisions, and what it wrote can be read all the same.
#[test]
fn records_of_a_log_that_is_not_whole_are_read() {
    const KEY: &str = "/registry/secrets/ns/lost";
    let etcd = Etcd::builder(Version::V35).restore(corpus::db("p7-migrated-uncompacted")).start();
    for word in ["first", "second"] {
        etcd.put(KEY, &secret(KEY, word));
    }
    etcd.ctl(&["del", KEY]);
    etcd.put("/registry/secrets/ns/other", &secret("/registry/secrets/ns/other", "third"));
    etcd.ctl(&["compact", "680", "--physical"]);
    let dir = etcd.stop();
    let path = dir.path().join("etcd");
    history("--data-dir", &path, KEY).fails_with_hint(1);
    let rows = history("--data-dir", &path, &format!("{KEY} --lost")).ok().jsonl();
    let found = shown(&rows);
    let words: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(words, ["first", "second"], "{rows:?}");
    for row in &rows {
        let place = row["held_in"].as_str().unwrap();
        assert!(["wal", "free-page", "page-slack"].contains(&place), "{row}");
        assert!(row["location"].is_string(), "{row}");
    }
    // A record whose revision no page tells has none.
    let unknown = rows.iter().filter(|r| r["held_in"] == "wal").all(|r| r["revision"].is_null());
    assert!(unknown, "{rows:?}");
    // What is live is told once, as what it is.
    let rows = history("--data-dir", &path, "secrets/ns/other --lost").ok().jsonl();
    assert_eq!(shown(&rows), [("third".to_owned(), "key-space".to_owned())].into());
    assert_eq!(rows.len(), 1, "{rows:?}");
}

/// A log that is whole tells every state, and nothing of it is a part.
#[test]
fn a_log_that_is_whole_gives_back_every_state() {
    let plugs = crate::support::plugs::Plugs::start("kek-2026-02");
    let config = plugs.config("p6-sb2");
    let dir = corpus::data_dir();
    let run = |source: &str, path: &Path, words: &str| {
        let run = bin().words("export -w json --resource secrets,configmaps --revision 600");
        run.words(words).arg(source).arg(path).arg("--encryption-config").arg(&config).run()
    };
    let items = |done: Done| done.json()["items"].as_array().unwrap().clone();
    let whole = items(run("--snapshot", &corpus::db("p7-migrated-uncompacted"), "").ok());
    run("--data-dir", dir.path(), "").fails_with_hint(1).says("compacted");
    let done = run("--data-dir", dir.path(), "--lost").ok();
    assert!(items(done.says(" wal")) == whole, "the log has all of it");
    // A snapshot has no log: what its pages have is right, and called a part.
    let path = corpus::db("p8-compacted-not-defragged");
    let part = items(run("--snapshot", &path, "--lost").code(4).says("the whole state"));
    let by_uid = |items: &[Value]| -> HashMap<String, Value> {
        let uid = |i: &Value| i["metadata"]["uid"].as_str().unwrap().to_owned();
        items.iter().map(|i| (uid(i), i.clone())).collect()
    };
    let (whole, part) = (by_uid(&whole), by_uid(&part));
    assert!(part.len() > 10, "{}", part.len());
    let same = part.iter().filter(|(uid, item)| whole.get(*uid) == Some(item)).count();
    assert!(same * 10 >= part.len() * 9, "{same} of {}", part.len());
}

/// What kine compacted away lies in freed cells, in freed pages, and in later rows.
#[test]
fn rows_that_kine_compacted_away_are_read() {
    use crate::residue_kine::Database;
    const KEY: &str = "/registry/secrets/ns/lost";
    for journal in ["DELETE", "WAL"] {
        let db = Database::new(journal);
        let mut ids = Vec::new();
        for word in ["first", "second", "third"] {
            ids.push(db.put(KEY, &secret(KEY, word)));
        }
        for i in 0..20 {
            db.put(&format!("/registry/configmaps/ns/c{i}"), b"k8s\0 nothing");
        }
        let last = db.c.last_insert_rowid();
        // In this order, the mark takes no place of what is deleted.
        db.c.execute_batch(&format!(
            "UPDATE kine SET prev_revision = {last} WHERE name = 'compact_rev_key';
             DELETE FROM kine WHERE id IN ({}, {});",
            ids[0], ids[1]
        ))
        .unwrap();
        let before = shown(&history("--kine", &db.path(), KEY).ok().jsonl());
        let held = |word: &str, place: &str| (word.to_owned(), place.to_owned());
        assert_eq!(
            before,
            [held("second", "kine-old-value"), held("third", "key-space")].into(),
            "{journal}"
        );
        let rows = history("--kine", &db.path(), &format!("{KEY} --lost")).ok().jsonl();
        let after = shown(&rows);
        assert_eq!(after.len(), 3, "{journal}: {rows:?}");
        assert_eq!((&after["second"], &after["third"]), (&before["second"], &before["third"]));
        let first = rows.iter().find(|r| r["location"].is_string()).unwrap();
        assert_eq!(first["revision"], ids[0], "what was freed names it: {rows:?}");
        let get = bin()
            .words("get -w json --reveal --lost --revision")
            .args([ids[0].to_string(), KEY.to_owned()])
            .arg("--kine")
            .arg(db.path())
            .arg("--encryption-config")
            .arg(corpus::fixtures("lost/enc.yaml"))
            .run();
        let object = get.ok().json();
        assert_eq!(object["data"]["p"], "Zmlyc3Q=");
    }
}
