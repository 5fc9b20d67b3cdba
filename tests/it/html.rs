//! The pages of `-w html`, looked at in a real browser.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::doctor;
use crate::support::bin::Done;
use crate::support::browser::Browser;
use crate::support::certs::Certs;
use crate::support::snapshot::Crafted;
use crate::support::{Etcd, Version, bin, corpus};

/// What every page is asked: whether it is wider than its frame, what comes after the heading,
/// how many rows there are, and the same after a filter that nothing matches.
const ASKED: &str = r#"
const root = document.documentElement;
const rows = () => [...document.querySelectorAll("tbody tr")].filter((r) => !r.hidden).length;
const said = () => [...document.querySelectorAll(".verdict")].map((v) => v.textContent).join(" ");
const found = {
  wide: root.scrollWidth > window.innerWidth,
  after: document.querySelector("h1").nextElementSibling.className.split(" ")[0],
  rows: rows(), verdict: said(), text: document.body.innerText,
};
const input = document.querySelector("input[type=search]");
if (input) {
  input.value = "no-row-has-this";
  input.dispatchEvent(new window.Event("input"));
  found.left = rows();
  found.shown = document.querySelector(".some").textContent;
  found.kept = said() === found.verdict;
  found.fragment = window.location.hash;
}
return found;
"#;

fn corpus(words: &str, db: &str, config: bool) -> Done {
    let run = bin().arg("--snapshot").arg(corpus::db(db)).words(words).words("-w html");
    let run =
        if config { run.arg("--encryption-config").arg(corpus::config("p6-sb2")) } else { run };
    run.run()
}

/// A page of each command that writes one.
fn pages() -> BTreeMap<&'static str, String> {
    let text = |done: &Done| done.text().to_owned();
    let mut pages = BTreeMap::from([
        ("scan", text(&corpus("scan --verify --list", "p6-mixed", true))),
        ("scan without a configuration", text(&corpus("scan", "p6-mixed", false))),
        ("residue", text(&corpus("residue", "p8-compacted-not-defragged", false))),
        ("keys", text(&corpus("keys", "p6-mixed", true))),
        ("posture", text(&corpus("posture --list", "p9-defragged", true))),
        ("restore plan", text(&corpus("restore plan", "p9-defragged", true))),
    ]);
    let etcd = Etcd::restored(Version::V35, &corpus::db("p1b-partial-migration"));
    let plan = bin().words("migrate -w html").args(etcd.args()).arg("--encryption-config");
    pages.insert("migrate", text(&plan.arg(corpus::config("p1-secretbox")).run().ok()));
    let backups = bin().words("backups -w html").arg(corpus::db("p6-mixed").parent().unwrap());
    pages.insert("backups", text(&backups.run()));
    let (root, certs) = (tempfile::tempdir().unwrap(), Certs::new());
    let etcd = Etcd::builder(Version::V35).tls(&certs).start();
    doctor::machine(root.path(), &etcd, &certs);
    let doctor = bin().words("doctor -w html --profile kubeadm --root").arg(root.path());
    pages.insert("doctor", text(&doctor.run()));
    pages
}

/// The verdict is first, nothing is wider than a telephone, the browser has nothing to complain
/// of, and a filter hides rows, says so, and changes no verdict.
#[test]
fn every_page_is_whole_in_a_browser() {
    let Some(browser) = Browser::new() else { return };
    for (name, page) in pages() {
        assert!(page.ends_with("</html>\n"), "{name}: {page}");
        for width in [400, 1400] {
            let looked = browser.look(&page, "", width, ASKED);
            let found = &looked.found;
            assert_eq!(looked.console, [""; 0], "{name}");
            assert_eq!(found["wide"], false, "{name} at {width}");
            assert_eq!(found["after"], "verdict", "{name}");
            let rows = found["rows"].as_u64().unwrap();
            assert!(rows > 0, "{name}");
            if rows > 1 {
                assert_eq!((&found["left"], &found["kept"]), (&json!(0), &json!(true)), "{name}");
                assert!(found["shown"].as_str().unwrap().starts_with("0 of "), "{name}");
                assert_eq!(found["fragment"], "#find=no-row-has-this", "{name}");
            }
        }
    }
}

/// The browser's console is heard: what a page is not allowed to do is told there.
#[test]
fn a_page_with_something_foreign_is_complained_of() {
    let Some(browser) = Browser::new() else { return };
    let page = corpus("scan", "p6-mixed", false).text().to_owned();
    let foreign = page.replace("<footer>", "<script>document.title = 'foreign'</script><footer>");
    let looked = browser.look(&foreign, "", 400, "return document.title;");
    assert_ne!(looked.found, "foreign");
    assert!(looked.console.iter().any(|l| l.contains("Content Security Policy")));
}

/// The sizes that are shown, after a click on their heading.
const SIZES: &str = r#"
const table = [...document.querySelectorAll("table")].at(-1);
const rows = [...table.tBodies[0].rows].filter((r) => !r.hidden);
const column = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent === "SIZE");
const sizes = rows.map((r) => r.cells[column].textContent);
const before = rows[0].cells[0].textContent;
table.tHead.rows[0].cells[column].querySelector("button").click();
const sort = table.tHead.rows[0].cells[column].ariaSort;
return { sizes, before, sort, hash: window.location.hash,
         some: document.querySelectorAll(".some")[1].textContent };
"#;

/// Ten thousand entries: sorted by a number, filtered by the address, as somebody would send it.
#[test]
fn ten_thousand_entries_sort_and_filter() {
    let Some(browser) = Browser::new() else { return };
    let mut crafted = Crafted::new();
    for n in 0..10_000 {
        let value = format!("k8s:enc:secretbox:v1:key-{}:{}", n % 3, "x".repeat(n % 2000));
        crafted = crafted.put(format!("/registry/secrets/ns-{}/name-{n}", n % 10), value);
    }
    let snapshot = crafted.put("/registry/secrets/ns-0/plain", "k8s\0\n").file();
    let page = bin().words("scan --list -w html --snapshot").arg(snapshot.path()).run().ok();
    let looked = browser.look(page.text(), "find=ns-3%20key-1&sort=2.6.down", 1400, SIZES);
    assert_eq!(looked.console, [""; 0]);
    let found = looked.found;
    let bytes = |size: &Value| -> f64 {
        let (number, unit) = size.as_str().unwrap().split_once(' ').unwrap();
        number.parse::<f64>().unwrap() * if unit == "KiB" { 1024.0 } else { 1.0 }
    };
    let sizes: Vec<f64> = found["sizes"].as_array().unwrap().iter().map(bytes).collect();
    let wanted = (0..10_000).filter(|n| n % 10 == 3 && n % 3 == 1).count();
    assert_eq!(sizes.len(), wanted);
    assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    assert_eq!(found["some"], format!("{wanted} of 10001 rows"));
    // A third click on a heading takes the order away again.
    assert_eq!((&found["sort"], &found["hash"]), (&Value::Null, &json!("#find=ns-3+key-1")));
    let first = browser.look(page.text(), "", 400, SIZES).found;
    assert_eq!(first["before"], "/registry/secrets/ns-0/plain", "what is wrong comes first");
}
