//! Every reader of bytes from outside, given mutated real ones: it ends in time, by itself, and
//! without a panic.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use atrest::bolt::Db;
use atrest::config::{ConfigSet, load};
use atrest::envelope::Envelope;
use atrest::forensics::Targets;
use atrest::forensics::residue::{
    Bytes, Finding, KineFile, KnownRows, Place, examine, examine_bytes, examine_kine,
};
use atrest::kms::NoPlugins;
use atrest::mvcc::Store;
use atrest::profile::{openshift_config, pod, program, shell_words};
use atrest::resource::{Scope, Selector};
use atrest::source::kine::Kine;
use atrest::source::{KeyRange, Query, Source as _};
use atrest::storage;
use atrest::transform::Transformers;
use atrest::wal::replay::Machine;
use atrest::wal::{Log, Segment, request};

use crate::support::corpus;
use crate::support::random::{Random, from_env, seed};
use crate::support::snapshot::Crafted;

/// Unoptimized, one execution takes milliseconds; one that takes this long hangs.
const LONG: Duration = Duration::from_mins(1);

struct Target {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    /// Words that mean something to this reader.
    words: &'static [&'static [u8]],
    /// Makes checksums hold again.
    mend: fn(&mut [u8]),
    run: Box<dyn Fn(&[u8])>,
}

fn secrets() -> Targets {
    let selectors = vec![Selector::parse("secrets").unwrap()];
    Targets::new(Scope::new("/registry/"), selectors, vec![])
}

/// Values that API servers stored, some plain and some encrypted, and their keys.
fn values(phase: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let data = corpus::bytes(&format!("{phase}.db"));
    let store = Store::open(Db::open(&data).unwrap());
    let mut all = Vec::new();
    store.records(&mut |stored| {
        if let Ok(entry) = atrest::mvcc::key_value(stored.record)
            && entry.stored().len() < 4000
            && !stored.revision.tombstone
        {
            all.push((entry.key.to_vec(), entry.stored().to_vec()));
        }
    });
    all
}

fn bolt() -> Target {
    let mut crafted = Crafted::new().put("/registry/secrets/default/long", vec![b'x'; 9000]);
    for (key, value) in values("p0-plaintext").into_iter().take(60) {
        crafted = crafted.put(key, value);
    }
    for i in 0..20 {
        crafted = crafted.put(format!("/registry/secrets/default/s{i}"), "k8s\0plain".repeat(30));
    }
    let seed = std::fs::read(crafted.file().path()).unwrap();
    let targets = secrets();
    Target {
        name: "bbolt, etcd's records, residue",
        seeds: vec![seed],
        words: &[],
        mend: |data| {
            for page in [0, 4096] {
                if let Some(meta) = data.get_mut(page + 16..page + 80) {
                    let sum = meta[..56].iter().fold(0xCBF2_9CE4_8422_2325u64, |h, b| {
                        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01B3)
                    });
                    meta[56..].copy_from_slice(&sum.to_le_bytes());
                }
            }
        },
        run: Box::new(move |data| {
            let Ok(db) = Db::salvage(data) else { return };
            let store = Store::open(db.clone());
            let read = store.read(&mut |stored| {
                let _ = atrest::mvcc::key_value(stored.record);
            });
            store.sweep(&read, &mut |stored| {
                let _ = atrest::mvcc::record_key(stored.record);
            });
            store.rows(b"members");
            examine(&db, &targets, &|_| None, &|_| (), &mut |found: Finding, bytes: Bytes<'_>| {
                assert!(found.size <= data.len() as u64);
                drop(bytes.value());
            });
        }),
    }
}

fn log() -> Target {
    let data = corpus::bytes("p8-0000000000000000-0000000000000000.wal");
    let targets = secrets();
    Target {
        name: "write-ahead log",
        seeds: vec![data[..16_384].to_vec(), data[..2048].to_vec()],
        words: &[&[0; 512], &[0xFF; 8], &[0, 0, 0, 0, 0, 0, 0, 0x80]],
        mend: |_| {},
        run: Box::new(move |data| {
            let (first, second) = data.split_at(data.len() / 2);
            let names =
                ["0000000000000000-0000000000000000.wal", "0000000000000001-0000000000000009.wal"];
            let both = [(names[0], first), (names[1], second)];
            let both = both.map(|(name, data)| Segment { name, data });
            for segments in [&[Segment { name: names[0], data }][..], &both] {
                let log = Log::read(segments);
                for entry in log.effective() {
                    let _ = request::decode(entry.data);
                }
            }
            examine_bytes("x", Place::Wal, data, &targets, &mut |_: Finding, bytes: Bytes<'_>| {
                drop(bytes.value());
            });
        }),
    }
}

/// Requests behind the log's checksums.
fn requests() -> Target {
    let name = "0000000000000000-0000000000000000.wal";
    let data = corpus::bytes(&format!("p8-{name}"));
    let log = Log::read(&[Segment { name, data: &data }]);
    let seeds: Vec<_> =
        log.effective().map(|e| e.data.to_vec()).filter(|d| d.len() < 2000).collect();
    assert!(seeds.len() > 100);
    Target {
        name: "requests and their effect",
        seeds,
        words: &[&[0x1a], &[0x22, 0x02], &[0x12, 0x00], &[0x80, 0x80, 0x80, 0x80]],
        mend: |_| {},
        run: Box::new(|data| {
            let mut machine = Machine::new(5, -1);
            for part in [data, &data[..data.len() / 2], data] {
                if let Ok(request) = request::decode(part) {
                    machine.apply(&request);
                }
            }
        }),
    }
}

fn envelopes() -> Target {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for phase in ["p1-secretbox", "p2-aescbc", "p3-aesgcm", "p4-kmsv1", "p5-kmsv2"] {
        seeds.extend(
            values(phase).into_iter().map(|(_, v)| v).filter(|v| v.starts_with(b"k8s:enc:")),
        );
    }
    let config = std::fs::read(corpus::config("p6-sb2")).unwrap();
    let set = ConfigSet::new(load(&config, "p6").unwrap()).unwrap();
    let transformers = Transformers::new(&set, Arc::new(NoPlugins)).unwrap();
    Target {
        name: "encrypted values",
        seeds,
        words: &[b"k8s:enc:", b"aescbc:v1:", b"kms:v2:", b"kms:v1:", b"key1:", b":", &[0xFF; 10]],
        mend: |_| {},
        run: Box::new(move |data| {
            let envelope = Envelope::of(data);
            if let Some((_, payload)) = envelope.split(["key1", "a:b"]) {
                let _ = envelope.kms_key_id(payload);
            }
            let list = transformers.for_resource("secrets");
            let _ = list.classify(data);
            let _ = list.read(b"/registry/secrets/default/x", data);
        }),
    }
}

fn objects() -> Target {
    let mut seeds: Vec<_> = values("p9-defragged").into_iter().map(|(_, v)| v).collect();
    seeds.retain(|v| !v.starts_with(b"k8s:enc:"));
    Target {
        name: "stored objects",
        seeds,
        words: &[
            b"k8s\0",
            b"{",
            b"[[[[[[[[[[[[[[[[",
            &[0xD9, 0xD9, 0xF7],
            &[0x9F; 40],
            &[0xA1, 0x41, 0x61],
            &[0xBB, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0x0A; 12],
        ],
        mend: |_| {},
        run: Box::new(|data| {
            let _ = storage::decode(data);
        }),
    }
}

fn configurations() -> Target {
    let names = ["p1-secretbox", "p2-aescbc", "p3-aesgcm", "p4-kmsv1", "p5-kmsv2", "p6-sb2"];
    let read = |name: &&str| std::fs::read(corpus::config(name)).unwrap();
    Target {
        name: "configurations and manifests",
        seeds: names.iter().map(read).collect(),
        words: &[
            b"&a [x]",
            b"*a",
            b"- &b [*a,*a,*a,*a,*a,*a]",
            b"<<: *a",
            b"!!binary ",
            b"---\n",
            b"\n  ",
            b"{",
            b"[",
            b"[[[[[[[[[[[[",
            b"? ",
            b"resources: ['*.*']",
            b"'",
            b"\"",
            b"|\n",
            b"secret: ",
            b"\x1f\x8b\x08",
            b"1e999",
            b"-1",
            b"timeout: 99999999999999h",
            b"command: [--",
        ],
        mend: |_| {},
        run: Box::new(|data| {
            if let Ok(loaded) = load(data, "x")
                && let Some(set) = ConfigSet::new(loaded)
            {
                let _ = set.resources();
                if let Ok(transformers) = Transformers::new(&set, Arc::new(NoPlugins)) {
                    let list = transformers.for_resource("secrets");
                    let _ = list.classify(b"k8s:enc:aescbc:v1:a:b");
                }
            }
            if let Ok(text) = std::str::from_utf8(data) {
                let _ = pod(text);
                let _ = openshift_config(text);
                let _ = program(text, "etcd");
                let _ = shell_words(text);
            }
        }),
    }
}

fn sqlite() -> Target {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let c = rusqlite::Connection::open(&path).unwrap();
    c.execute_batch(
        "PRAGMA page_size = 1024;
         CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER,
            deleted INTEGER, create_revision INTEGER, prev_revision INTEGER, lease INTEGER,
            value BLOB, old_value BLOB);
         CREATE INDEX kine_name_index ON kine (name);",
    )
    .unwrap();
    for i in 0..30 {
        c.execute(
            "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value, old_value)
             VALUES (?, 1, 0, 0, 0, 0, ?, ?)",
            (format!("/registry/secrets/default/s{}", i % 9), "k8s\0plain".repeat(i), "k8s\0before"),
        )
        .unwrap();
    }
    c.execute("DELETE FROM kine WHERE id % 3 = 0", ()).unwrap();
    drop(c);
    let seed = std::fs::read(&path).unwrap();
    let targets = secrets();
    Target {
        name: "kine databases",
        seeds: vec![seed],
        words: &[b"/registry/secrets/default/s1", b"k8s\0", &[0xFF; 9]],
        mend: |_| {},
        run: Box::new(move |data| {
            for file in [KineFile::Database, KineFile::Wal, KineFile::Other] {
                let known = KnownRows::default();
                examine_kine(
                    file,
                    "x",
                    &data,
                    &targets,
                    &known,
                    &mut |_: Finding, bytes: Bytes<'_>| {
                        drop(bytes.value());
                    },
                )
                .unwrap();
            }
            // SQLite itself, a few times.
            if data.iter().fold(0u8, |h, b| h.wrapping_mul(31).wrapping_add(*b)) % 8 == 0 {
                let path = dir.path().join("mutated.db");
                std::fs::write(&path, data).unwrap();
                if let Ok(mut kine) = Kine::open(&path) {
                    let ranges = vec![KeyRange { start: Vec::new(), end: None }];
                    let query = Query { ranges, revision: None, ordered: true };
                    let _ = kine.visit(&query, &mut |_| ControlFlow::Continue(()));
                    let _ = kine.history(&query, &mut |_| ControlFlow::Continue(()));
                }
            }
        }),
    }
}

fn mutate(data: &mut Vec<u8>, other: &[u8], words: &[&[u8]], random: &mut Random) {
    for _ in 0..random.pick(&[1, 1, 2, 4, 8, 32]) {
        if data.is_empty() {
            data.push(0);
        }
        let at = random.below(data.len());
        let longest = random.pick(&[4, 16, 64, 512, 4096]);
        let len = random.below((data.len() - at).min(longest) + 1);
        match random.below(12) {
            0 => data[at] ^= random.pick(&[1, 2, 4, 8, 16, 32, 64, 128]),
            1 => data[at] = random.pick(&[0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF]),
            2 => data[at] = random.next().to_le_bytes()[0],
            // Numbers of 2, 4 and 8 bytes, at their limits or nearly what they were.
            3 | 4 => {
                let width = random.pick(&[2, 4, 8]);
                let number = random.pick(&[
                    0,
                    1,
                    2,
                    3,
                    0xFFFF,
                    0xFFFF_FFFF,
                    u64::MAX,
                    1 << 63,
                    1 << 31,
                    4096,
                ]);
                for (to, from) in data[at..].iter_mut().zip(&number.to_le_bytes()[..width]) {
                    *to = *from;
                }
            }
            5 => data[at] = data[at].wrapping_add(1),
            6 => data[at..at + len].fill(0),
            7 => random.fill(&mut data[at..at + len]),
            8 => {
                let from = random.below(data.len() - len + 1);
                data.copy_within(from..from + len, at);
            }
            9 => drop(data.drain(at..at + len)),
            10 => {
                let from = random.below(other.len().max(1));
                let part = &other[from.min(other.len())..(from + len).min(other.len())];
                data.splice(at..at, part.iter().copied());
            }
            _ if !words.is_empty() => {
                let word = random.pick(words);
                data.splice(at..at, word.iter().copied());
            }
            _ => data.truncate(at),
        }
    }
    data.truncate(200_000);
}

fn fuzz(time: Duration) {
    let seed = seed();
    println!("seed {seed}, {time:?} for each reader");
    let targets = [bolt(), log(), requests(), envelopes(), objects(), configurations(), sqlite()];
    for target in targets {
        let mut random = Random::new(seed);
        let start = Instant::now();
        let (mut executions, mut slowest) = (0u64, Duration::ZERO);
        while start.elapsed() < time {
            let mut data = target.seeds[random.below(target.seeds.len())].clone();
            let other = &target.seeds[random.below(target.seeds.len())];
            mutate(&mut data, other, target.words, &mut random);
            if random.chance(80) {
                (target.mend)(&mut data);
            }
            let begun = Instant::now();
            let ended = catch_unwind(AssertUnwindSafe(|| (target.run)(&data)));
            slowest = slowest.max(begun.elapsed());
            if ended.is_err() || begun.elapsed() > LONG {
                let path = std::env::temp_dir().join(format!("atrest-fuzz-{seed}-{executions}"));
                std::fs::write(&path, &data).unwrap();
                let how = if ended.is_err() { "panics" } else { "hangs" };
                panic!("{}: {how} with {}", target.name, path.display());
            }
            executions += 1;
        }
        println!("{}: {executions} executions, the slowest took {slowest:?}", target.name);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or("VmHWM: unknown");
    println!("most memory in use at once, {peak}");
}

#[test]
fn mutated_input_is_survived() {
    fuzz(Duration::from_millis(1500));
}

#[test]
#[ignore = "takes minutes; scripts/fuzz runs it"]
fn mutated_input_for_long() {
    let seconds = from_env("ATREST_TEST_SECONDS").unwrap_or(600);
    fuzz(Duration::from_secs(seconds) / 7);
}
