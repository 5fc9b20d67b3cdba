//! Logs that were cut or changed: what is read without a complaint is what etcd serves, and where
//! etcd refuses to start, there is one.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};

use atrest::cli::failure::hint;

use super::{
    Client, ControlFlow, DataDir, Etcd, Path, Random, SnapshotOptions, State, TempDir, Version,
    difference, everything, from_env, requests, seed, served,
};

const SEGMENT: &str = "member/wal/0000000000000000-0000000000000000.wal";

/// A database, and a log that goes far beyond it.
struct Member {
    db: Vec<u8>,
    log: Vec<u8>,
}

fn member(version: Version, random: &mut Random) -> Member {
    let builder = || Etcd::builder(version).arg("--snapshot-count=100000");
    let etcd = builder().start();
    for i in 0..30 {
        etcd.put(&format!("other/{i}"), b"early");
    }
    let dir = etcd.stop();
    let db = fs::read(dir.path().join("etcd/member/snap/db")).unwrap();
    let etcd = builder().data(dir).start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = Client::connect([etcd.endpoint()], None).await.unwrap();
        let mut requests = requests::Requests::new(random.next(), false, false);
        for _ in 0..120 {
            requests.send(&mut client).await;
        }
    });
    let dir = etcd.killed();
    let mut log = fs::read(dir.path().join("etcd").join(SEGMENT)).unwrap();
    let used = log.iter().rposition(|b| *b != 0).unwrap() + 1;
    log.truncate(used);
    Member { db, log }
}

/// How a log is damaged, at an offset.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// The file ends there.
    Cut,
    /// From there on it is as preallocated.
    Blank,
    /// One sector was not written.
    Sector,
    /// One bit changed.
    Bit,
}

impl Member {
    fn write(&self, damage: Damage, at: usize) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("etcd");
        fs::create_dir_all(root.join("member/snap")).unwrap();
        fs::create_dir_all(root.join("member/wal")).unwrap();
        fs::write(root.join("member/snap/db"), &self.db).unwrap();
        let mut log = self.log.clone();
        match damage {
            Damage::Cut | Damage::Blank => log.truncate(at),
            Damage::Sector => {
                let end = log.len().min(at / 512 * 512 + 512);
                log[at / 512 * 512..end].fill(0);
            }
            Damage::Bit => log[at] ^= 1 << (at % 8),
        }
        let mut file = File::create(root.join(SEGMENT)).unwrap();
        file.write_all(&log).unwrap();
        if !matches!(damage, Damage::Cut) {
            file.set_len(64_000_000).unwrap();
        }
        file.seek(SeekFrom::Start(0)).unwrap();
        dir
    }
}

/// What is read, and the first complaint about it.
fn read(dir: &Path) -> (Option<(State, i64)>, Option<String>) {
    let mut state = State::new();
    let visit = DataDir::open(dir, &SnapshotOptions::default()).and_then(|source| {
        source.entries(&everything(None), &mut |e| {
            let row = (e.create_revision, e.mod_revision, e.version, e.lease, e.stored().to_vec());
            state.insert(e.key.to_vec(), row);
            ControlFlow::Continue(())
        })
    });
    match visit {
        Err(e) => {
            assert!(hint(&e).is_some(), "{e}");
            (None, Some(e.to_string()))
        }
        Ok(visit) => {
            let complaint = visit.damage.first().map(|d| format!("{}: {}", d.location, d.what));
            (Some((state, visit.revision)), complaint)
        }
    }
}

fn cases(version: Version, count: u64) {
    let seed = seed();
    println!("{version:?}: {count} damaged logs, seed {seed}");
    let mut random = Random::new(seed);
    let member = member(version, &mut random);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut same, mut lost, mut refused) = (0, 0, 0);
    for case in 0..count {
        let damage = [Damage::Cut, Damage::Blank, Damage::Sector, Damage::Bit]
            [usize::try_from(case % 4).unwrap()];
        let end = member.log.len();
        let at = match random.below(10) {
            // The first records say whose log it is.
            0..2 => random.below(400),
            // The last writes are where a crash leaves its mark.
            2..6 => end - 1 - random.below(2000),
            _ => random.below(end),
        };
        let dir = member.write(damage, at);
        let what = format!("{version:?} {damage:?} at {at} of {} (seed {seed})", member.log.len());
        let read = read(&dir.path().join("etcd"));
        let builder = Etcd::builder(version).arg("--snapshot-count=100000").data(dir);
        match (builder.start_once(), read) {
            (Ok(etcd), (Some((state, revision)), complaint)) => {
                let (live, now) = runtime.block_on(async {
                    let client = Client::connect([etcd.endpoint()], None).await.unwrap();
                    served(&client, 0).await.unwrap().unwrap()
                });
                match complaint {
                    None => same += 1,
                    // etcd does not notice that.
                    Some(c) if c.contains("has lost its end") => lost += 1,
                    // etcd may cut the log off there without a word to its clients; what lies
                    // behind is read nevertheless.
                    Some(c) if c.contains("a record cannot be decoded") => {
                        lost += 1;
                        continue;
                    }
                    Some(c) => panic!("{what}: etcd serves it, but: {c}"),
                }
                assert!(live == state, "{what}:\n{}", difference(&state, &live));
                assert_eq!(now, revision, "{what}");
            }
            (Err(_), (_, Some(_))) => refused += 1,
            (Ok(_), (None, complaint)) => panic!("{what}: etcd serves it, but: {complaint:?}"),
            (Err(log), (_, None)) => panic!("{what}: read without a word, but etcd: {log}"),
        }
    }
    println!(
        "{version:?}: {same} served and read the same, {lost} with a warning, {refused} refused by both"
    );
}

#[test]
fn a_damaged_log_is_read_as_it_will_be_served_or_complained_of() {
    cases(Version::V35, 12);
}

#[test]
#[ignore = "takes minutes; scripts/data-dir-property runs it"]
fn many_damaged_logs() {
    let count = from_env("ATREST_TEST_ROUNDS").unwrap_or(200);
    cases(Version::V35, count);
    cases(Version::V34, count / 4);
}

#[test]
#[ignore = "writes several segments of 64 MB; scripts/data-dir-property runs it"]
fn a_missing_segment_is_never_passed_over() {
    let etcd = Etcd::builder(Version::V35).arg("--snapshot-count=100000").start();
    let value = seed().to_le_bytes().repeat(160_000);
    for i in 0..120 {
        etcd.put(&format!("other/{}", i % 3), &value[..1_200_000 + i]);
    }
    let dir = etcd.killed();
    let (whole, complaint) = read(&dir.path().join("etcd"));
    assert_eq!(complaint, None);
    let whole = whole.unwrap();
    let mut segments: Vec<_> = fs::read_dir(dir.path().join("etcd/member/wal"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "wal"))
        .collect();
    segments.sort();
    assert!(segments.len() > 2, "{segments:?}");
    for (i, segment) in segments.iter().enumerate() {
        let aside = segment.with_extension("aside");
        fs::rename(segment, &aside).unwrap();
        let (read, complaint) = read(&dir.path().join("etcd"));
        println!("without segment {i} of {}: {complaint:?}", segments.len());
        match complaint {
            Some(complaint) => {
                let words = ["a segment is missing", "has lost its end", "do not belong together"];
                assert!(words.iter().any(|w| complaint.contains(w)), "{i}: {complaint}");
            }
            // What the database has already is not missed.
            None => assert!(read == Some(whole.clone()), "{i}: read without a word"),
        }
        fs::rename(&aside, segment).unwrap();
    }
}
