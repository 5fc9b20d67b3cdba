//! Runs against a key space in memory that misbehaves on purpose.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::*;
use crate::config::ConfigSet;
use crate::kms::NoPlugins;
use crate::migrate::plan::Planner;
use crate::source::EtcdError;
use crate::source::live::Admission;
use crate::transform::Transformers;

const CONFIG: &str = "\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox:
      keys:
      - {name: new, secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=}
  - identity: {}
";

fn transformers() -> Transformers {
    let loaded = crate::config::load(CONFIG.as_bytes(), "t").unwrap();
    let set = ConfigSet::new(loaded).unwrap();
    Transformers::new(&set, Arc::new(NoPlugins)).unwrap()
}

#[derive(Default)]
struct Store {
    revision: i64,
    /// Every revision of every key: none is a deletion.
    keys: BTreeMap<Vec<u8>, Vec<(i64, Option<Vec<u8>>)>>,
}

impl Store {
    fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.revision += 1;
        let row = (self.revision, value.map(<[u8]>::to_vec));
        self.keys.entry(key.to_vec()).or_default().push(row);
    }

    fn get(&self, key: &[u8], at: i64) -> Option<Entry> {
        let (revision, value) = self.keys.get(key)?.iter().rev().find(|(r, _)| *r <= at)?;
        Some(Entry {
            key: key.to_vec(),
            value: value.clone()?,
            create_revision: 1,
            mod_revision: *revision,
            version: 1,
            lease: 0,
            bound_to: crate::entry::BoundTo::Key,
        })
    }
}

/// What goes wrong, by the number of the commit.
type Trouble = dyn Fn(usize, &mut Store, &[Put<'_>]) -> Option<KvError> + Sync;

struct Fake<'t> {
    store: Mutex<Store>,
    commits: AtomicUsize,
    most: usize,
    /// Entries of a transaction that are asked for.
    batch: usize,
    before: &'t Trouble,
    /// The answer is lost although the write happened.
    after: &'t Trouble,
}

impl Keyspace for Fake<'_> {
    fn read(
        &self,
        runs: &[&[&[u8]]],
        revision: Option<i64>,
    ) -> Result<Vec<Option<Entry>>, KvError> {
        assert!(runs.iter().all(|r| r.is_sorted() && !r.is_empty()));
        let store = self.store.lock().unwrap();
        let at = revision.unwrap_or(store.revision);
        Ok(runs.iter().copied().flatten().map(|k| store.get(k, at)).collect())
    }

    fn commit(&self, puts: &[Put<'_>]) -> Result<Commit, KvError> {
        let n = self.commits.fetch_add(1, Ordering::Relaxed);
        let mut store = self.store.lock().unwrap();
        if puts.len() > self.most {
            return Err(KvError::TooLarge("too many operations".into()));
        }
        if let Some(e) = (self.before)(n, &mut store, puts) {
            return Err(e);
        }
        let now = store.revision;
        let revs: Vec<_> =
            puts.iter().map(|p| store.get(p.key, now).map(|e| e.mod_revision)).collect();
        if revs.iter().zip(puts).any(|(r, p)| *r != Some(p.mod_revision)) {
            return Ok(Commit::Conflict(revs));
        }
        store.revision += 1;
        let revision = store.revision;
        for put in puts {
            let row = (revision, Some(put.value.to_vec()));
            store.keys.get_mut(put.key).unwrap().push(row);
        }
        match (self.after)(n, &mut store, puts) {
            Some(e) => Err(e),
            None => Ok(Commit::Done(revision)),
        }
    }

    fn commit_each(
        &self,
        puts: &[Put<'_>],
        gate: &dyn Gate,
        done: &mut dyn FnMut(usize, Result<Commit, KvError>) -> bool,
    ) {
        let mut waiting: Vec<usize> = (0..puts.len()).rev().collect();
        while let Some(index) = waiting.pop() {
            match gate.admit() {
                Admission::Go => {}
                Admission::Wait(time) => {
                    std::thread::sleep(time);
                    waiting.push(index);
                    continue;
                }
                Admission::Stop => return,
            }
            match self.commit(&puts[index..=index]) {
                Err(KvError::Busy) => {
                    gate.busy();
                    waiting.push(index);
                }
                result => {
                    gate.answered(Duration::from_millis(1));
                    if !done(index, result) {
                        return;
                    }
                }
            }
        }
    }
}

fn key(i: usize) -> Vec<u8> {
    format!("/registry/secrets/default/s{i:04}").into_bytes()
}

fn value(i: usize) -> Vec<u8> {
    object(&format!("value {i}"))
}

/// An object with some text in it.
fn object(text: &str) -> Vec<u8> {
    format!("{{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"x\":\"{text}\"}}").into_bytes()
}

const NONE: &Trouble = &|_, _, _| None;

/// A store for transactions of one entry, and one for several.
fn both<'t>(n: usize, before: &'t Trouble, after: &'t Trouble) -> [Fake<'t>; 2] {
    [1, 8].map(|batch| Fake { batch, ..fake(n, before, after) })
}

fn fake<'t>(n: usize, before: &'t Trouble, after: &'t Trouble) -> Fake<'t> {
    let mut store = Store::default();
    for i in 0..n {
        store.write(&key(i), Some(&value(i)));
    }
    Fake {
        store: Mutex::new(store),
        commits: AtomicUsize::new(0),
        most: 128,
        batch: 8,
        before,
        after,
    }
}

fn plan(t: &Transformers, fake: &Fake<'_>) -> Plan {
    let mut planner = Planner::new(t);
    let store = fake.store.lock().unwrap();
    let entries = store.keys.keys().filter_map(|k| store.get(k, store.revision));
    planner.add(&entries.map(|e| (e, "secrets".to_owned())).collect::<Vec<_>>());
    planner.finish(&HashSet::new())
}

fn run(t: &Transformers, fake: &Fake<'_>, interrupted: &AtomicBool) -> Outcome {
    let pace = Pace { concurrency: 2, qps: None, batch: fake.batch };
    apply(fake, &plan(t, fake), pace, interrupted, &|_| ())
}

/// Every value is current and decrypts to what `expected` says.
fn check(t: &Transformers, fake: &Fake<'_>, n: usize, expected: impl Fn(usize) -> Option<Vec<u8>>) {
    let store = fake.store.lock().unwrap();
    let t = t.for_resource("secrets");
    for i in 0..n {
        let entry = store.get(&key(i), store.revision);
        let plain = entry.map(|e| {
            let opened = t.read(&key(i), &e.value).unwrap();
            assert!(!opened.stale, "{i}");
            opened.plaintext.expose().to_vec()
        });
        assert!(plain == expected(i), "entry {i} has another value");
    }
}

static GO: AtomicBool = AtomicBool::new(false);

#[test]
fn all_entries_are_written_once_and_verified() {
    let t = transformers();
    for fake in both(100, NONE, NONE) {
        let done = run(&t, &fake, &GO);
        assert_eq!((done.written, done.verified, done.conflicts), (100, 100, 0));
        assert!(done.stop.is_none() && done.failed.is_empty());
        check(&t, &fake, 100, |i| Some(value(i)));
        // Nothing is left to do, so nothing is written.
        let before = fake.store.lock().unwrap().revision;
        assert_eq!(run(&t, &fake, &GO).written, 0);
        assert_eq!(fake.store.lock().unwrap().revision, before);
    }
}

#[test]
fn others_are_never_overwritten() {
    let changed = object("changed");
    let meanwhile: &Trouble = &|n, store, _| {
        if n == 0 {
            store.write(&key(3), Some(&object("changed")));
            store.write(&key(4), None);
        }
        None
    };
    let t = transformers();
    for fake in both(20, meanwhile, NONE) {
        let done = run(&t, &fake, &GO);
        assert_eq!(done.written, 19);
        assert_eq!(done.deleted, 1);
        check(&t, &fake, 20, |i| match i {
            3 => Some(changed.clone()),
            4 => None,
            i => Some(value(i)),
        });
    }
}

#[test]
fn a_key_that_never_rests_fails_alone() {
    let restless: &Trouble = &|_, store, puts| {
        if puts.iter().any(|p| p.key == key(5)) {
            store.write(&key(5), Some(&object("again")));
        }
        None
    };
    let t = transformers();
    for fake in both(20, restless, NONE) {
        let done = run(&t, &fake, &GO);
        assert_eq!(done.written, 19);
        assert_eq!(done.failed.len(), 1);
        assert_eq!(done.failed[0].key, key(5));
        assert!(done.conflicts > u64::from(MAX_TRIES) - 1);
    }
}

#[test]
fn a_lost_answer_is_resolved_by_reading() {
    let lost: &Trouble = &|n, _, _| (n < 2).then(|| KvError::Lost(EtcdError::WatchEnded.into()));
    let t = transformers();
    for fake in both(16, NONE, lost) {
        let done = run(&t, &fake, &GO);
        assert_eq!((done.written, done.verified, done.conflicts, done.already), (16, 16, 0, 0));
        check(&t, &fake, 16, |i| Some(value(i)));
        let store = fake.store.lock().unwrap();
        assert!(store.keys.values().all(|rows| rows.len() == 2), "nothing was written twice");
    }
}

#[test]
fn servers_with_smaller_limits_get_smaller_transactions() {
    let mut fake = fake(40, NONE, NONE);
    fake.most = 3;
    let t = transformers();
    assert_eq!(run(&t, &fake, &GO).verified, 40);
}

#[test]
fn a_full_database_stops_the_run_and_the_next_one_goes_on() {
    let full: &Trouble = &|n, _, _| (n == 2).then_some(KvError::NoSpace);
    let t = transformers();
    for fake in both(64, full, NONE) {
        let done = run(&t, &fake, &GO);
        assert!(matches!(done.stop, Some(Stop::NoSpace)));
        assert!(done.written < 64 && done.written == done.verified);
        let again = run(&t, &fake, &GO);
        assert_eq!(done.written + again.written, 64);
        check(&t, &fake, 64, |i| Some(value(i)));
    }
}

#[test]
fn busy_servers_are_asked_again() {
    let busy: &Trouble = &|n, _, _| (n < 2).then_some(KvError::Busy);
    let t = transformers();
    for fake in both(10, busy, NONE) {
        let done = run(&t, &fake, &GO);
        assert_eq!((done.written, done.busy), (10, 2));
    }
}

#[test]
fn an_interrupted_run_writes_nothing_more() {
    let t = transformers();
    for fake in both(30, NONE, NONE) {
        let done = run(&t, &fake, &AtomicBool::new(true));
        assert!(matches!(done.stop, Some(Stop::Interrupted)));
        assert_eq!(done.written, 0);
    }
}

#[test]
fn a_value_that_does_not_read_back_gets_its_old_one_again() {
    // Somewhere on the way the stored bytes are damaged.
    let damage: &Trouble = &|n, store, puts| {
        if n == 0 {
            let rows = store.keys.get_mut(puts[0].key).unwrap();
            rows.last_mut().unwrap().1.as_mut().unwrap().push(0);
        }
        None
    };
    let t = transformers();
    for fake in both(1, NONE, damage) {
        let done = run(&t, &fake, &GO);
        assert!(matches!(done.stop, Some(Stop::Mismatch(_))));
        assert_eq!(done.failed.len(), 1);
        let store = fake.store.lock().unwrap();
        assert!(store.get(&key(0), store.revision).unwrap().value == value(0));
    }
}

#[test]
fn a_readable_value_of_somebody_elses_is_left_alone_even_at_our_revision() {
    // An etcd that forgot our write in a crash gave its revision to another one.
    let forgot: &Trouble = &|n, store, puts| {
        if n == 0 {
            let rows = store.keys.get_mut(puts[0].key).unwrap();
            rows.last_mut().unwrap().1 = Some(object("another"));
        }
        None
    };
    let t = transformers();
    for fake in both(1, NONE, forgot) {
        let done = run(&t, &fake, &GO);
        assert!(matches!(done.stop, Some(Stop::Mismatch(_))));
        let store = fake.store.lock().unwrap();
        assert!(store.get(&key(0), store.revision).unwrap().value == object("another"));
    }
}

#[test]
fn every_damaged_value_of_a_transaction_gets_its_old_one_again() {
    let damage: &Trouble = &|n, store, puts| {
        if n == 0 {
            for put in puts {
                let rows = store.keys.get_mut(put.key).unwrap();
                rows.last_mut().unwrap().1.as_mut().unwrap().push(0);
            }
        }
        None
    };
    let (t, fake) = (transformers(), fake(3, NONE, damage));
    let done = run(&t, &fake, &GO);
    assert!(matches!(done.stop, Some(Stop::Mismatch(_))));
    assert_eq!((done.failed.len(), done.written), (3, 0));
    let store = fake.store.lock().unwrap();
    for i in 0..3 {
        assert!(store.get(&key(i), store.revision).unwrap().value == value(i), "{i}");
    }
}

#[test]
fn one_entry_a_transaction_gives_each_a_revision_of_its_own() {
    let t = transformers();
    let [alone, _] = both(300, NONE, NONE);
    assert_eq!(run(&t, &alone, &GO).verified, 300);
    let store = alone.store.lock().unwrap();
    let newest: HashSet<i64> = store.keys.values().map(|rows| rows.last().unwrap().0).collect();
    assert_eq!(newest.len(), 300);
}

#[test]
fn what_is_changed_between_writing_and_reading_back_is_verified_all_the_same() {
    let t = transformers();
    // Each write is overwritten at once.
    let after: &Trouble = &|_, store, puts| {
        for put in puts.iter().filter(|p| p.key == key(2)) {
            store.write(put.key, Some(b"k8s:enc:secretbox:v1:new:somebody else's"));
        }
        None
    };
    for fake in both(5, NONE, after) {
        let done = run(&t, &fake, &GO);
        assert_eq!((done.written, done.verified, done.conflicts), (5, 5, 0));
    }
}

#[test]
fn what_is_no_object_is_left_as_it_is() {
    let t = transformers();
    for fake in both(6, NONE, NONE) {
        let bad = [&b""[..], b"\xf3\x91", b"k8s\0\x0a\x06\x0a\x02v1"];
        for (i, value) in bad.iter().enumerate() {
            fake.store.lock().unwrap().write(&key(i + 1), Some(value));
        }
        for _ in 0..2 {
            let plan = plan(&t, &fake);
            let named: Vec<_> = plan.unreadable.iter().map(|f| f.key.clone()).collect();
            assert_eq!(named, [key(1), key(2), key(3)]);
            let written = run(&t, &fake, &GO);
            assert!(written.stop.is_none() && written.failed.is_empty());
        }
        let store = fake.store.lock().unwrap();
        for (i, value) in bad.iter().enumerate() {
            assert!(store.get(&key(i + 1), store.revision).unwrap().value == *value);
        }
        drop(store);
        assert_eq!(plan(&t, &fake).current, 3);
    }
}

#[test]
fn what_failed_before_is_not_planned_again_and_still_counted() {
    let (t, fake) = (transformers(), fake(4, NONE, NONE));
    let mut planner = Planner::new(&t);
    let store = fake.store.lock().unwrap();
    let entries = store.keys.keys().filter_map(|k| store.get(k, store.revision));
    planner.add(&entries.map(|e| (e, "secrets".to_owned())).collect::<Vec<_>>());
    let plan = planner.finish(&[key(1), b"/registry/secrets/a/gone".to_vec()].into());
    let neighbours: Vec<_> = plan.items.iter().map(|i| i.neighbour).collect();
    assert_eq!(neighbours, [false, false, true]);
    assert_eq!((plan.tried, plan.remaining(2)), (1, 3));
}
