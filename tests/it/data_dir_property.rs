//! A member that was killed: what is read of its data directory is what it serves when it starts
//! again, whatever was asked of it and whenever it died.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use atrest::source::data_dir::DataDir;
use atrest::source::snapshot::SnapshotOptions;
use atrest::source::{KeyRange, Query, Source as _};
use etcd_client::{Client, GetOptions};
use tempfile::TempDir;

use crate::support::random::{Random, from_env, seed};
use crate::support::{Etcd, Version, bin};

mod damaged_log;
mod requests;

/// Create revision, mod revision, version, lease, value.
type Row = (i64, i64, i64, i64, Vec<u8>);
/// What is stored at one revision.
type State = BTreeMap<Vec<u8>, Row>;

/// What the rounds saw, to know that they tested something.
#[derive(Default, Debug)]
struct Seen {
    lives: u64,
    requests: u64,
    revisions: i64,
    /// Lives after which the database lagged behind the log.
    lagging: u64,
    /// Lives that ended while etcd was starting.
    stillborn: u64,
    past: u64,
    torn: u64,
}

fn everything(revision: Option<i64>) -> Query {
    let ranges = vec![KeyRange { start: Vec::new(), end: None }];
    Query { ranges, revision, ordered: true }
}

struct Offline {
    revision: i64,
    compacted: i64,
    state: State,
    /// Some earlier revisions; `None` where it says that they were compacted.
    past: BTreeMap<i64, Option<State>>,
}

fn read(dir: &Path, random: &mut Random, seen: &mut Seen) -> Result<Offline, String> {
    let mut source =
        DataDir::open(dir, &SnapshotOptions::default()).map_err(|e| format!("open: {e}"))?;
    let at = |source: &DataDir, revision| {
        let mut state = State::new();
        let visit = source.entries(&everything(revision), &mut |e| {
            let row = (e.create_revision, e.mod_revision, e.version, e.lease, e.stored().to_vec());
            assert!(state.insert(e.key.to_vec(), row).is_none(), "a key twice");
            ControlFlow::Continue(())
        });
        visit.map(|v| (state, v))
    };
    let (state, visit) = at(&source, None).map_err(|e| format!("read: {e}"))?;
    if !visit.damage.is_empty() {
        return Err(format!("damage: {:?}", visit.damage));
    }
    let noted = |words: &str| u64::from(visit.notes.iter().any(|n| n.contains(words)));
    seen.lagging += noted("taken from the write-ahead log");
    seen.torn += noted("in the middle of a write");
    // What is held of the past ends in the same state.
    let mut folded = BTreeMap::new();
    let history = source.history(&everything(None), &mut |record| {
        match record {
            atrest::source::Record::Put(e) => folded.insert(e.key.to_vec(), e.mod_revision),
            atrest::source::Record::Delete { key, .. } => folded.remove(key),
        };
        ControlFlow::Continue(())
    });
    let history = history.map_err(|e| format!("history: {e}"))?;
    if history.revision != visit.revision
        || !folded.iter().eq(state.iter().map(|(k, row)| (k, &row.1)).collect::<BTreeMap<_, _>>())
    {
        return Err("its history ends in another state".to_owned());
    }
    let mut past = BTreeMap::new();
    for _ in 0..4 {
        let back = i64::try_from(random.below(200)).unwrap();
        let revision = (visit.revision - back).max(1);
        past.insert(revision, at(&source, Some(revision)).ok().map(|(state, _)| state));
    }
    Ok(Offline { revision: visit.revision, compacted: history.compacted, state, past })
}

/// All that etcd serves at a revision, 0 for the newest, and the revision it is at; `None` when
/// that revision was compacted.
async fn served(client: &Client, revision: i64) -> Result<Option<(State, i64)>, String> {
    let mut kv = client.kv_client().max_decoding_message_size(usize::MAX);
    let (mut state, mut from, mut pinned) = (State::new(), vec![0], revision);
    loop {
        let options = GetOptions::new().with_range(vec![0]).with_limit(200).with_revision(pinned);
        let answer = match kv.get(from.clone(), Some(options)).await {
            Ok(answer) => answer,
            Err(e) if e.to_string().contains("compacted") => return Ok(None),
            Err(e) => return Err(format!("get at {revision}: {e}")),
        };
        let now = answer.header().unwrap().revision();
        if pinned == 0 {
            pinned = now;
        }
        for kv in answer.kvs() {
            let numbers = (kv.create_revision(), kv.mod_revision(), kv.version(), kv.lease());
            let row = (numbers.0, numbers.1, numbers.2, numbers.3, kv.value().to_vec());
            state.insert(kv.key().to_vec(), row);
            from = [kv.key(), &[0]].concat();
        }
        if !answer.more() {
            return Ok(Some((state, now)));
        }
    }
}

/// Where two states differ, without their values.
fn difference(read: &State, served: &State) -> String {
    let keys: std::collections::BTreeSet<_> = read.keys().chain(served.keys()).collect();
    let show = |row: Option<&Row>| {
        row.map_or("nothing".to_owned(), |r| {
            format!("{:?} with {} bytes", (r.0, r.1, r.2, r.3), r.4.len())
        })
    };
    let lines = keys.into_iter().filter(|k| read.get(*k) != served.get(*k)).map(|k| {
        let key = String::from_utf8_lossy(k);
        format!("{key}: read {}, served {}", show(read.get(k)), show(served.get(k)))
    });
    lines.take(10).collect::<Vec<_>>().join("\n")
}

async fn compare(client: &Client, offline: &Offline, expiring: bool) -> Result<(), String> {
    // A lease that ran out since the start is no difference, but moves etcd on.
    let now = if expiring { offline.revision } else { 0 };
    let Some((state, revision)) = served(client, now).await? else {
        return Err(format!("revision {} is compacted", offline.revision));
    };
    if state != offline.state {
        return Err(difference(&offline.state, &state));
    }
    if !expiring && revision != offline.revision {
        return Err(format!("revision {}, but etcd is at {revision}", offline.revision));
    }
    for (at, past) in &offline.past {
        match (served(client, *at).await?, past) {
            (Some((state, _)), Some(past)) if state == *past => {}
            (None, None) => {}
            (Some((state, _)), Some(past)) => {
                return Err(format!("as of {at}: {}", difference(past, &state)));
            }
            (served, _) => {
                return Err(format!(
                    "as of {at}: etcd serves it: {}, compacted at {}",
                    served.is_some(),
                    offline.compacted
                ));
            }
        }
    }
    Ok(())
}

/// The binary's listing of the same directory.
fn check_binary(dir: &Path, offline: &Offline) -> Result<(), String> {
    let done = bin()
        .words("scan --all-resources --allow-empty --list -w json --data-dir")
        .arg(dir)
        .run()
        .ok();
    let report = done.json();
    let listed: BTreeMap<String, [i64; 4]> = report["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            let number = |name: &str| e[name].as_i64().unwrap();
            let numbers = ["create_revision", "mod_revision", "version_count", "size"].map(number);
            (e["key"].as_str().unwrap().to_owned(), numbers)
        })
        .collect();
    let expected: BTreeMap<String, [i64; 4]> = offline
        .state
        .iter()
        .filter(|(k, _)| k.starts_with(b"/registry/"))
        .map(|(k, r)| {
            let size = i64::try_from(r.4.len()).unwrap();
            (String::from_utf8(k.clone()).unwrap(), [r.0, r.1, r.2, size])
        })
        .collect();
    if report["source"]["revision"] != offline.revision || listed != expected {
        return Err("`scan --list` lists something else".to_owned());
    }
    Ok(())
}

fn round(version: Version, number: u64, seen: &mut Seen) -> Result<(), (String, Option<TempDir>)> {
    let mut random = Random::new(number);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let expiring = random.chance(20);
    let large = random.chance(12);
    let mut args = vec![format!("--snapshot-count={}", random.pick(&[7, 60, 500, 100_000]))];
    if random.chance(30) {
        args.push("--max-wals=1".to_owned());
        args.push("--max-snapshots=1".to_owned());
    }
    if random.chance(15) {
        // Reached within a life.
        args.push(format!("--quota-backend-bytes={}", 2 << 20));
    }
    let builder = |data: Option<TempDir>| {
        let mut builder = Etcd::builder(version);
        for arg in &args {
            builder = builder.arg(arg);
        }
        match data {
            Some(data) => builder.data(data),
            None => builder,
        }
    };
    let mut data = None;
    let mut offline: Option<Offline> = None;
    for life in 0..3 {
        let etcd = builder(data.take()).start();
        let connect = || async { Client::connect([etcd.endpoint()], None).await };
        let client = runtime.block_on(connect()).unwrap();
        if let Some(offline) = &offline
            && let Err(e) = runtime.block_on(compare(&client, offline, expiring))
        {
            return Err((format!("after life {life}: {e}"), Some(etcd.killed())));
        }
        let workers: Vec<_> = (0..=random.below(3))
            .map(|_| {
                let mut client = client.clone();
                let mut requests = requests::Requests::new(random.next(), expiring, large);
                runtime.spawn(async move {
                    loop {
                        requests.send(&mut client).await;
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(50 + random.next() % 900));
        let revision = etcd_revision(&runtime, &client);
        let mut dir = etcd.killed();
        for worker in workers {
            worker.abort();
        }
        seen.revisions += revision.unwrap_or(0) / 3;
        if random.chance(25) {
            // It dies again before it is ready.
            dir = builder(Some(dir)).start_and_kill(Duration::from_millis(random.next() % 250));
            seen.stillborn += 1;
        }
        seen.lives += 1;
        let path = dir.path().join("etcd");
        if std::env::var_os("ATREST_TEST_KEEP").is_some() {
            // The restarted server changes it.
            let copy = dir.path().join(format!("before-{life}"));
            let mut copying = Command::new("cp");
            copying.args(["-a", "--sparse=always"]).arg(&path).arg(copy);
            assert!(copying.status().unwrap().success());
        }
        let found = read(&path, &mut random, seen).and_then(|offline| {
            check_binary(&path, &offline)?;
            Ok(offline)
        });
        offline = match found {
            Ok(offline) => Some(offline),
            Err(e) => return Err((format!("in life {life}: {e}"), Some(dir))),
        };
        seen.past += offline.iter().flat_map(|o| o.past.values()).flatten().count() as u64;
        data = Some(dir);
    }
    let etcd = builder(data).start();
    let last = runtime.block_on(async {
        let client = Client::connect([etcd.endpoint()], None).await.unwrap();
        compare(&client, offline.as_ref().unwrap(), expiring).await
    });
    seen.requests += requests::SENT.swap(0, std::sync::atomic::Ordering::Relaxed);
    last.map_err(|e| (format!("at the end: {e}"), Some(etcd.killed())))
}

fn etcd_revision(runtime: &tokio::runtime::Runtime, client: &Client) -> Option<i64> {
    let mut kv = client.kv_client();
    let options = GetOptions::new().with_serializable();
    let answer = runtime.block_on(kv.get("x", Some(options))).ok()?;
    answer.header().map(etcd_client::ResponseHeader::revision)
}

fn rounds(version: Version, count: u64) {
    let first = seed();
    println!("{version:?}: {count} rounds from seed {first}");
    let mut seen = Seen::default();
    for seed in first..first + count {
        if let Err((what, dir)) = round(version, seed, &mut seen) {
            // Kept for whoever looks into it.
            let kept = dir.map(TempDir::keep);
            panic!("{version:?}, ATREST_TEST_SEED={seed}: {what}\nkept: {kept:?}");
        }
    }
    println!("{version:?}: {count} rounds well: {seen:?}");
    assert!(count < 3 || seen.lagging > 0, "the log was never needed: {seen:?}");
}

#[test]
fn killed_members_are_read_as_they_will_be_served() {
    rounds(Version::V35, 3);
}

#[test]
fn killed_members_of_an_older_release_are_read_as_they_will_be_served() {
    rounds(Version::V34, 2);
}

#[test]
#[ignore = "takes minutes; scripts/data-dir-property runs it"]
fn many_killed_members() {
    let count = from_env("ATREST_TEST_ROUNDS").unwrap_or(200);
    rounds(Version::V35, count);
    rounds(Version::V34, count / 4);
}
