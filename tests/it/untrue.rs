//! A server that lies: each lie ends in an error that names it, never in a result.

use crate::support::bin::{Bin, bin};
use crate::support::fake_etcd::{
    Create, Event, FakeEtcd, Header, KeyValue, PREFIX, Page, RangeRequest, Store, Watched,
};

fn at(endpoints: &str, words: &str) -> Bin {
    // Long enough for a machine that does much else.
    let patient = ["--dial-timeout=60s", "--command-timeout=60s"];
    bin().words(words).args(["--endpoints", endpoints]).args(patient)
}

fn entry(key: &str, written: i64) -> KeyValue {
    let key = format!("{PREFIX}{key}").into_bytes();
    KeyValue { key, create_revision: 2, mod_revision: written, version: 1, value: b"{}".to_vec() }
}

#[test]
fn a_server_that_says_the_truth_is_believed() {
    let server = FakeEtcd::honest(Store::of(1_000));
    let report = at(&server.endpoint(), "scan -w json").run().ok().json();
    assert_eq!(report["totals"]["entries"], 1_000);
    assert_eq!(report["source"]["revision"], 1_001);
    let done = at(&server.endpoint(), "history secrets/default/s-00007 -w jsonl").run().ok();
    assert_eq!(done.jsonl().len(), 1);
}

/// What a page says, what of it, and the words of the error.
type Lie = (fn(&RangeRequest, &mut Page), &'static str);

const PAGES: [Lie; 17] = [
    (|_, page| page.kvs.reverse(), "follows \"/registry/secrets/default/"),
    (|_, page| page.kvs.swap(3, 4), "follows \"/registry/secrets/default/s-00004\""),
    (
        |_, page| page.kvs = vec![page.kvs[0].clone(); 50],
        "key \"/registry/secrets/default/s-00000\" is there twice",
    ),
    // The first page again and again.
    (
        |request, page| {
            let first = RangeRequest { key: PREFIX.into(), ..request.clone() };
            *page = Store::of(1_000).page(&first);
        },
        "key \"/registry/secrets/default/s-00000\" was not asked for",
    ),
    (|_, page| page.kvs.push(entry("../configmaps/a", 2)), "follows \"/registry/secrets/default/"),
    (
        |request, page| {
            if request.is_later() {
                page.kvs.clear();
                page.more = true;
            }
        },
        "more keys are said to follow a page that has none",
    ),
    (|_, page| page.count = -1, "-1 keys are counted where 100 were sent"),
    (|_, page| page.count = 99, "99 keys are counted where 100 were sent"),
    (|_, page| *page = Page::default(), "the store's revision is given as 0"),
    (
        |_, page| {
            page.kvs.clear();
            (page.more, page.count) = (false, 0);
            page.header().revision = 0;
        },
        "the store's revision is given as 0",
    ),
    (
        |request, page| page.header().revision -= i64::from(request.is_later()) * 900,
        "the store's revision went back from 1001 to 101",
    ),
    (
        |_, page| page.kvs[0].mod_revision = 5_000,
        "was written at revision 5000, later than revision 1001, which was read",
    ),
    (|_, page| page.kvs[0].create_revision = 3, "was created at revision 3 and last written at 2"),
    (
        |request, page| page.header().cluster_id += u64::from(request.is_later()),
        "belonged to cluster c1 before, and to c2 now",
    ),
    // Keys for ever.
    (
        |request, page| {
            let next = [request.key.trim_ascii_end(), b"0"].concat();
            let next: Vec<u8> = next.into_iter().filter(|b| *b != 0).collect();
            page.kvs = vec![KeyValue { key: next, ..entry("", 2) }];
            (page.more, page.count) = (true, 1_000);
        },
        "1000 keys are counted where 999 can be left",
    ),
    (
        |request, page| {
            let all = RangeRequest { limit: 0, ..request.clone() };
            page.kvs = Store::of(1_000).page(&all).kvs;
        },
        "keys were sent where 100 were asked for",
    ),
    // The last pages are left out.
    (
        |request, page| {
            if request.is_later() {
                page.kvs.clear();
                (page.more, page.count) = (false, 0);
            }
        },
        "the server counts 1000 keys but sent 100",
    ),
];

#[test]
fn pages_that_no_etcd_sends_are_no_result() {
    for (lie, words) in PAGES {
        let server = FakeEtcd::paging(Store::of(1_000), move |request, page| {
            // What exists at all is asked for beside the pages.
            if request.limit > 1 && !request.count_only {
                lie(request, page);
            }
        });
        for command in ["scan", "scan -w json", "export"] {
            at(&server.endpoint(), command).run().fails(1).says(words);
        }
    }
}

fn event(key: &str, written: i64) -> Event {
    Event { kind: 0, kv: Some(entry(key, written)) }
}

type WatchLie = (fn(&Create, &mut Vec<Watched>), &'static str);

const HISTORIES: [WatchLie; 7] = [
    (|_, said| said[1].events.swap(3, 4), "goes from revision 4 to 6 without what is between"),
    (|_, said| said[1].events.push(event("a/a", 5)), "has come to revision 21 tells of revision 5"),
    (
        |_, said| {
            said[1].events.remove(7);
        },
        "goes from revision 8 to 10 without what is between",
    ),
    (
        |_, said| {
            let twice = said[1].events[0].clone();
            said[1].events.insert(1, twice);
        },
        "is there twice",
    ),
    (
        |_, said| said[1].header = Some(Header { cluster_id: 0xC1, revision: 3 }),
        "later than revision 3",
    ),
    (
        |_, said| said[1].header = Some(Header { cluster_id: 0xC2, revision: 21 }),
        "belonged to cluster c1 before, and to c2 now",
    ),
    (
        |create, said| {
            said.truncate(1);
            let compact_revision = create.start_revision - 1;
            let header = said[0].header.clone();
            said.push(Watched { header, canceled: true, compact_revision, ..Watched::default() });
        },
        "revision 2 is said to be compacted by a compaction of revision 1",
    ),
];

#[test]
fn a_history_that_no_etcd_tells_is_no_result() {
    for (lie, words) in HISTORIES {
        let server = FakeEtcd::watching(Store::of(20), lie);
        at(&server.endpoint(), "history secrets").run().fails(1).says(words);
        at(&server.endpoint(), "keys").run().fails(1).says(words);
    }
}

#[test]
fn what_a_watch_makes_up_ends_it() {
    let news: [WatchLie; 3] = [
        (
            |_, said| {
                let mut event = event("", 22);
                event.kv.get_or_insert_default().key = b"/registry/pods/a/a".to_vec();
                said.push(Watched { events: vec![event], created: false, ..said[0].clone() });
            },
            "key \"/registry/pods/a/a\" was not asked for",
        ),
        (
            |_, said| {
                let events = vec![event("a/a", 3)];
                said.push(Watched { events, created: false, ..said[0].clone() });
            },
            "tells of revision 3",
        ),
        (
            |_, said| said[0].header = Some(Header { cluster_id: 0xC2, revision: 21 }),
            "belonged to cluster c1 before, and to c2 now",
        ),
    ];
    for (lie, words) in news {
        let server = FakeEtcd::watching(Store::of(20), lie);
        at(&server.endpoint(), "scan --watch --no-progress").run().code(1).says(words);
    }
}

/// The counts of the old store are no longer true, and nothing would ever tell.
#[test]
fn a_restored_cluster_ends_a_watch() {
    let server = std::sync::Arc::new(std::sync::OnceLock::<FakeEtcd>::new());
    let own = std::sync::Arc::clone(&server);
    let fake = FakeEtcd::watching(Store::of(20), move |_, said| {
        // By the time of the watch, the store is one from before.
        if let Some(server) = own.get() {
            server.replace(Store::of(5));
        }
        said[0].header = Some(Store::of(5).header());
        said.truncate(1);
    });
    let endpoint = fake.endpoint();
    assert!(server.set(fake).is_ok());
    let done = at(&endpoint, "scan --watch --no-progress").run().code(1);
    done.says("the store's revision went back from 21 to 6").says("hint: the cluster was restored");
}

#[test]
fn endpoints_of_two_clusters_are_refused() {
    let one = FakeEtcd::honest(Store::of(300));
    let other = FakeEtcd::honest(Store { cluster: 0xC2, ..Store::of(300) });
    let both = format!("{},{}", one.endpoint(), other.endpoint());
    let words = format!(
        "error: the endpoints belong to different clusters: {} to c1, {} to c2\n\
         hint: name the members of one cluster with --endpoints\n",
        one.url(),
        other.url()
    );
    let swapped = format!(
        "error: the endpoints belong to different clusters: {} to c2, {} to c1\n\
         hint: name the members of one cluster with --endpoints\n",
        other.url(),
        one.url()
    );
    for command in ["scan", "keys", "history secrets", "export"] {
        let done = at(&both, command).run().fails(1);
        assert!(done.stderr == words || done.stderr == swapped, "{done}");
    }
    let twin = FakeEtcd::honest(Store::of(300));
    at(&format!("{},{}", one.endpoint(), twin.endpoint()), "scan").run().ok();
}
