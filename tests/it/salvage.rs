//! Damaged snapshots: what is damaged is refused; with `--salvage`, every entry whose bytes are
//! whole is read.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::time::{Duration, Instant};

use atrest::cli::failure::hint;
use atrest::entry::Entry;
use atrest::source::snapshot::{Snapshot, SnapshotOptions};
use atrest::source::{KeyRange, Query, Source as _, SourceError, Visit};
use tempfile::NamedTempFile;

use crate::support::pages::{Needs, PAGE, newest_records};
use crate::support::random::{Random, seed};
use crate::support::{Etcd, Version, bin, corpus};

const STRICT: SnapshotOptions = SnapshotOptions { skip_hash_check: false, salvage: false };
const SKIP: SnapshotOptions = SnapshotOptions { skip_hash_check: true, salvage: false };
const SALVAGE: SnapshotOptions = SnapshotOptions { skip_hash_check: false, salvage: true };
/// Reading takes milliseconds; what takes this long hangs.
const LONG: Duration = Duration::from_mins(1);

type Entries = BTreeMap<Vec<u8>, Entry>;

fn read(path: &Path, options: SnapshotOptions) -> Result<(Entries, Visit), SourceError> {
    let start = Instant::now();
    let ranges = vec![KeyRange { start: Vec::new(), end: None }];
    let query = Query { ranges, revision: None, ordered: false };
    let mut entries = Entries::new();
    let visit = Snapshot::open(path, &options)?.visit(&query, &mut |e| {
        assert!(entries.insert(e.key.to_vec(), e.to_entry()).is_none(), "a key twice");
        ControlFlow::Continue(())
    })?;
    assert!(start.elapsed() < LONG, "it hangs");
    Ok((entries, visit))
}

/// A snapshot, what it holds and where.
struct Whole {
    data: Vec<u8>,
    entries: Entries,
    needs: BTreeMap<Vec<u8>, Needs>,
}

impl Whole {
    fn new(data: Vec<u8>) -> Self {
        let file = file(&data);
        let (entries, visit) = read(file.path(), STRICT).unwrap();
        assert!(visit.damage.is_empty());
        let needs = newest_records(&data);
        let live: Vec<_> = needs.iter().filter(|(_, n)| !n.tombstone).map(|(k, _)| k).collect();
        assert_eq!(entries.keys().collect::<Vec<_>>(), live, "both readers see the same keys");
        Self { data, entries, needs }
    }

    /// Reads `damaged`, which differs only within `spans`, in every way.
    fn check(&self, damaged: &[u8], spans: &[Range<usize>], what: &str) -> Found {
        let file = file(damaged);
        match read(file.path(), STRICT) {
            Err(error) => assert!(hint(&error).is_some(), "{what}: {error}"),
            // Only the hash is cut off: it can pass for a member's own file, which is told.
            Ok((entries, visit)) => {
                assert_eq!(damaged.len() + 32, self.data.len(), "{what}: read as if whole");
                assert!(entries == self.entries, "{what}");
                assert!(visit.notes.iter().any(|n| n.contains("no SHA-256")), "{what}");
            }
        }
        let touched = |key: &[u8]| {
            let needs = &self.needs[key];
            spans.iter().any(|span| needs.touches(span))
        };
        // Without the hash: what is not told as damaged is right.
        if let Ok((entries, visit)) = read(file.path(), SKIP)
            && visit.damage.is_empty()
        {
            for (key, entry) in &self.entries {
                assert!(
                    entries.get(key) == Some(entry) || touched(key),
                    "{what}: {} is lost without a word",
                    String::from_utf8_lossy(key)
                );
            }
        }
        match read(file.path(), SALVAGE) {
            Ok((entries, visit)) => {
                let mut lost = 0;
                for (key, entry) in &self.entries {
                    if entries.get(key) == Some(entry) {
                        continue;
                    }
                    lost += 1;
                    let text = String::from_utf8_lossy(key);
                    assert!(touched(key), "{what}: {text} is whole but not salvaged");
                }
                // What is missing is told, and what may be wrong.
                let missing = self.entries.keys().filter(|k| !entries.contains_key(*k)).count();
                assert!(missing == 0 || !visit.damage.is_empty(), "{what}: {missing} missing");
                assert!(
                    visit.notes.iter().any(|n| n.contains("SHA-256")),
                    "{what}: nothing is said of the hash"
                );
                Found { lost, read: true }
            }
            Err(error) => {
                assert!(hint(&error).is_some(), "{what}: {error}");
                let whole = self.entries.keys().filter(|k| !touched(k)).count();
                assert_eq!(whole, 0, "{what}: nothing is salvaged: {error}");
                Found { lost: self.entries.len(), read: false }
            }
        }
    }

    fn pages(&self) -> usize {
        self.data.len() / PAGE
    }

    /// One page zeroed, or noise.
    fn page(&self, page: usize, noise: Option<&mut Random>) -> Found {
        let span = page * PAGE..(page + 1) * PAGE;
        let mut damaged = self.data.clone();
        let how = if let Some(random) = noise {
            random.fill(&mut damaged[span.clone()]);
            "overwritten"
        } else {
            if damaged[span.clone()].iter().all(|b| *b == 0) {
                return Found { lost: 0, read: true };
            }
            damaged[span.clone()].fill(0);
            "zeroed"
        };
        self.check(&damaged, &[span], &format!("page {page} {how}"))
    }

    fn cut(&self, len: usize) -> Found {
        self.check(&self.data[..len], &[len..usize::MAX], &format!("cut at {len}"))
    }

    /// No meta page is left, and one more page is damaged.
    fn no_metas(&self, page: usize, random: &mut Random) -> Found {
        let spans = [0..2 * PAGE, page * PAGE..(page + 1) * PAGE];
        let mut damaged = self.data.clone();
        for span in &spans {
            random.fill(&mut damaged[span.clone()]);
        }
        self.check(&damaged, &spans, &format!("no metas, page {page} overwritten"))
    }
}

struct Found {
    lost: usize,
    read: bool,
}

fn file(data: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), data).unwrap();
    file
}

/// A server's first few keys: the bucket of keys lies inside the list of buckets.
fn small() -> Whole {
    let etcd = Etcd::plain(Version::V35);
    for i in 0..5 {
        etcd.put(&format!("/registry/secrets/default/s{i}"), b"k8s\0plain");
    }
    etcd.ctl(&["del", "/registry/secrets/default/s3"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("small.db");
    etcd.snapshot(&path);
    Whole::new(std::fs::read(path).unwrap())
}

#[test]
fn a_small_database_with_any_damage() {
    let whole = small();
    let seed = seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    for page in 0..whole.pages() {
        whole.page(page, None);
        whole.page(page, Some(&mut random));
        if page > 1 {
            whole.no_metas(page, &mut random);
        }
    }
    for len in (0..whole.data.len()).step_by(512).chain([1, 15, 79, 80, 81, 4095, 4097]) {
        whole.cut(len);
    }
}

#[test]
fn any_page_damaged() {
    let seed = seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    for phase in ["p9-defragged", "p8-compacted-not-defragged"] {
        let whole = Whole::new(corpus::bytes(&format!("{phase}.db")));
        let mut lost = 0;
        // Those that hold the tree come first in a defragmented file; long values follow.
        for _ in 0..40 {
            let page = random.below(whole.pages());
            lost += whole.page(page, None).lost;
            lost += whole.page(page, Some(&mut random)).lost;
        }
        for page in 0..8 {
            lost += whole.page(page, None).lost;
        }
        assert!(lost > 0, "{phase}: no entry was hit");
        for _ in 0..5 {
            let page = 2 + random.below(whole.pages() - 2);
            assert!(whole.no_metas(page, &mut random).read);
        }
    }
}

#[test]
fn cut_anywhere() {
    let seed = seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let whole = Whole::new(corpus::bytes("p9-defragged.db"));
    for _ in 0..40 {
        whole.cut(random.below(whole.data.len()));
        whole.cut(random.below(whole.data.len() / 512) * 512);
    }
    for len in whole.data.len() - 40..whole.data.len() {
        assert_eq!(whole.cut(len).lost, 0);
    }
}

#[test]
#[ignore = "takes minutes; scripts/damage runs it"]
fn every_page_and_every_length() {
    let seed = seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    for phase in ["p9-defragged", "p0-plaintext", "p8-compacted-not-defragged"] {
        let whole = Whole::new(corpus::bytes(&format!("{phase}.db")));
        let (mut cases, mut lost, mut unread) = (0, 0, 0);
        let mut count = |found: Found| {
            cases += 1;
            lost += found.lost;
            unread += u64::from(!found.read);
        };
        for page in 0..whole.pages() {
            count(whole.page(page, None));
            count(whole.page(page, Some(&mut random)));
        }
        println!("{phase}: every page of {}", whole.pages());
        let near =
            (0..=whole.pages()).flat_map(|p| [p * PAGE + 1, p * PAGE + 17, (p + 1) * PAGE - 1]);
        for len in (0..whole.data.len()).step_by(512).chain(near).filter(|l| *l < whole.data.len())
        {
            count(whole.cut(len));
        }
        for page in 2..whole.pages() {
            count(whole.no_metas(page, &mut random));
        }
        println!(
            "{phase}: {cases} cases well; {} live entries each; {lost} lost in all, each of them hit; \
             nothing could be read in {unread}",
            whole.entries.len()
        );
    }
}

/// What a person is told.
#[test]
fn partial_results_are_called_so() {
    let whole = Whole::new(corpus::bytes("p9-defragged.db"));
    let secret =
        whole.needs.iter().find(|(k, n)| k.starts_with(b"/registry/secrets/") && !n.tombstone);
    let page = secret.unwrap().1.parts[0].start / PAGE;
    let mut damaged = whole.data.clone();
    damaged[page * PAGE..(page + 1) * PAGE].fill(0);
    let hit = file(&damaged);
    let run = |words: &str| bin().words(words).arg("--snapshot").arg(hit.path()).run();
    run("scan").fails_with_hint(1).says("SHA-256");
    let place = format!("warning: cannot read page {page}:");
    for options in ["scan -w json --skip-hash-check", "scan -w json --salvage"] {
        let done = run(options).code(4).says(&place);
        assert!(done.json()["totals"]["entries"].as_u64() > Some(0), "{options}");
    }
    run("scan --salvage").code(4).says("What follows is an estimate");
    // No meta page: only a sweep reads it.
    damaged[..2 * PAGE].fill(0xA5);
    let hit = file(&damaged);
    let run = |words: &str| bin().words(words).arg("--snapshot").arg(hit.path()).run();
    run("scan").fails_with_hint(1);
    run("scan --skip-hash-check").fails_with_hint(1);
    let done = run("scan -w json --salvage").code(4).says("What follows is an estimate");
    assert!(done.json()["totals"]["entries"].as_u64() > Some(0));
    // Nothing that looks like a page.
    let noise = file(&Random::new(7).bytes(100_000));
    let run = bin().words("scan --salvage --snapshot").arg(noise.path()).run();
    run.fails_with_hint(1);
}
