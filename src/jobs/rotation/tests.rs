//! Steps by what was seen.

use super::*;
use crate::apiserver::metrics::{Encryption, Loaded as OfMetrics};
use crate::envelope::Provider;
use crate::jobs::confirm::{Answered, Loaded, Outcome};
use crate::migrate::servers::{Server, Servers};
use crate::source::Damage;

fn state(roles: &[Role]) -> State {
    let file = |role: Role| File {
        file: role.as_str().to_owned(),
        sha256: format!("sha256:{}", role.as_str()),
    };
    let keys =
        (Key::new(Provider::Secretbox, Some("new")), Key::new(Provider::AesCbc, Some("old")));
    let mut state = State::new("t".to_owned(), file(Role::Start), keys, Vec::new());
    for role in roles {
        state.wrote(*role, file(*role));
    }
    state
}

/// Servers that answer, with what each has loaded, and what etcd knows of.
fn servers(loaded: &[(&str, &str)], known: usize) -> ApiServers {
    let answered = |(host, file): &(&str, &str)| Answered {
        address: format!("https://{host}"),
        host: Some((*host).to_owned()),
        loaded: Loaded::Untold,
        metrics: Encryption {
            loaded: file
                .split(',')
                .filter(|f| !f.is_empty())
                .map(|f| OfMetrics { server: None, file: format!("sha256:{f}") })
                .collect(),
            ..Encryption::default()
        },
    };
    let server = |i| Server { key: format!("k{i}"), name: format!("cp-{i}"), until: None };
    let marks = Servers { leases: (0..known).map(server).collect(), ..Servers::default() };
    let answered = loaded.iter().map(answered).collect();
    ApiServers { marks: Some(Ok(marks)), asked: Some(Outcome { answered, ..Outcome::default() }) }
}

fn judged(state: &State, looked: &Looked) -> Vec<StepSeen> {
    steps(&Seen { state: Some(state), given: &[], looked })
}

fn statuses(all: &[StepSeen]) -> Vec<&'static str> {
    all.iter().map(|s| s.status.as_str()).collect()
}

/// The first step that is not done.
fn first(all: Vec<StepSeen>) -> (Step, Status) {
    let found = all.into_iter().find(|s| s.status != Status::Done).unwrap();
    (found.step, found.status)
}

fn with(servers: ApiServers) -> Looked {
    Looked { servers, ..Looked::default() }
}

#[test]
fn before_the_beginning_everything_is_later_but_the_first() {
    let looked = Looked::default();
    let all = steps(&Seen { state: None, given: &[], looked: &looked });
    assert_eq!(all[0].status, Status::Next);
    assert!(all[1..].iter().all(|s| s.status == Status::Later), "{all:?}");
}

#[test]
fn all_servers_must_have_said_it() {
    let state = state(&[Role::Added]);
    let both = |a: &str, b: &str| servers(&[("a", a), ("b", b)], 2);
    let is = |servers, status: Status, words: &str| {
        let all = judged(&state, &with(servers));
        let step = &all[1];
        let said = [step.facts.clone(), step.unknown.clone()].concat().join("; ");
        assert_eq!(step.status, status, "{said}");
        assert!(said.contains(words), "{said}");
        let may = if status == Status::Done { Status::Next } else { Status::Later };
        assert_eq!(all[2].status, may, "{said}");
    };
    is(both("added", "added"), Status::Done, "loaded by a, b");
    is(both("added", "start"), Status::Next, "b has loaded the start file");
    // The old one may still be in use.
    is(both("added", "start,added"), Status::Next, "b has loaded the start file");
    is(both("added", "other"), Status::Wrong, "none of this rotation's files");
    is(both("added", ""), Status::Unknown, "does not say");
    is(servers(&[("a", "added")], 2), Status::Unknown, "1 of 2 API servers");
    is(servers(&[], 0), Status::Unknown, "no API server answered");
    is(ApiServers::default(), Status::Unknown, "none was asked");
    let mut blind = both("added", "added");
    blind.marks = Some(Err("denied".to_owned()));
    is(blind, Status::Unknown, "how many API servers there are: denied");
    let mut torn = both("added", "added");
    if let Some(Ok(marks)) = &mut torn.marks {
        marks.unreadable.push("x".to_owned());
    }
    is(torn, Status::Unknown, "1 Leases");
}

#[test]
fn a_word_counts_where_nothing_speaks_against_it() {
    let mut state = state(&[Role::Added]);
    state.said.push(Said { sha256: "sha256:added".to_owned(), at: "noon".to_owned() });
    let is = |servers, given: &[&str]| {
        let given: Vec<_> =
            given.iter().map(|h| ("cp-1.yaml".to_owned(), format!("sha256:{h}"))).collect();
        first(steps(&Seen { state: Some(&state), given: &given, looked: &with(servers) }))
    };
    assert_eq!(is(ApiServers::default(), &[]), (Step::Promote, Status::Next));
    assert_eq!(is(servers(&[("a", "")], 3), &[]), (Step::Promote, Status::Next));
    assert_eq!(is(servers(&[("a", "start")], 1), &[]), (Step::LoadAdded, Status::Next));
    assert_eq!(is(ApiServers::default(), &["start"]), (Step::LoadAdded, Status::Next));
    assert_eq!(is(ApiServers::default(), &["changed"]), (Step::LoadAdded, Status::Wrong));
    // Who answers is believed more than a file that may lie anywhere; a changed one is a warning.
    let all = || servers(&[("a", "added")], 1);
    assert_eq!(is(all(), &["start"]), (Step::Promote, Status::Next));
    assert_eq!(is(all(), &["changed"]), (Step::LoadAdded, Status::Wrong));
}

#[test]
fn what_was_seen_once_is_remembered_until_something_else_is_seen() {
    let state = state(&[Role::Added, Role::Promoted]);
    let blind = judged(&state, &Looked::default());
    assert_eq!(statuses(&blind)[..4], ["done", "done", "done", "unknown"]);
    // A server that cannot read what others write.
    let behind = judged(&state, &with(servers(&[("a", "promoted"), ("b", "start")], 2)));
    assert_eq!(statuses(&behind)[..4], ["done", "next", "done", "later"]);
}

/// Everything is rewritten, and `change` happened to what verifying found.
fn rewritten(host: &str, change: impl Fn(&mut Verified)) -> Looked {
    let mut verified = Verified { read: 5, history: Some(3), ..Verified::default() };
    change(&mut verified);
    Looked {
        servers: servers(&[("a", host)], 1),
        stored: Some(Ok(Stored { new: 5, ..Stored::default() })),
        verified: Some(Ok(verified)),
    }
}

#[test]
fn the_key_goes_only_when_nothing_needs_it() {
    let state = state(&[Role::Added, Role::Promoted]);
    let free = |change: fn(&mut Verified)| first(judged(&state, &rewritten("promoted", change)));
    assert_eq!(free(|_| ()), (Step::Retire, Status::Next));
    assert_eq!(free(|v| v.failed = 1), (Step::Verify, Status::Wrong));
    assert_eq!(free(|v| v.under_old.push(("x".into(), 1))), (Step::Verify, Status::Wrong));
    let torn = |v: &mut Verified| {
        let damage = Damage { location: "page 1".into(), what: "torn".into() };
        v.visit.damage.push(damage);
    };
    assert_eq!(free(torn), (Step::Verify, Status::Unknown));
    let migrated = |stored| {
        let looked = Looked { stored: Some(stored), ..rewritten("promoted", |_| ()) };
        first(judged(&state, &looked))
    };
    let of = |stale, unreadable, unknown| {
        migrated(Ok(Stored { new: 5, stale, unreadable, unknown, ..Stored::default() }))
    };
    assert_eq!(of(1, 0, 0), (Step::Migrate, Status::Next));
    assert_eq!(of(0, 1, 0), (Step::Migrate, Status::Wrong));
    assert_eq!(of(0, 0, 1), (Step::Migrate, Status::Unknown));
    assert_eq!(migrated(Err("away".into())), (Step::Migrate, Status::Unknown));
}

#[test]
fn the_end() {
    let state = state(&[Role::Added, Role::Promoted, Role::Retired]);
    let before = judged(&state, &rewritten("promoted", |_| ()));
    assert_eq!(first(before), (Step::LoadRetired, Status::Next));
    let all = judged(&state, &rewritten("retired", |_| ()));
    assert!(all.iter().all(|s| s.status == Status::Done), "{all:?}");
}

/// Servers before 1.34 say nothing; what they can read is about the added file only.
#[test]
fn a_canary_shows_who_has_the_new_key() {
    let added = state(&[Role::Added]);
    let promoted = state(&[Role::Added, Role::Promoted]);
    let old = |loaded: [Loaded; 2]| {
        let mut seen = servers(&[("a", ""), ("b", "")], 2);
        let asked = seen.asked.as_mut().unwrap();
        asked.answered.iter_mut().zip(loaded).for_each(|(a, l)| a.loaded = l);
        seen
    };
    let is = |state: &State, seen, step: usize| {
        let all = judged(state, &with(seen));
        (all[step].status, [all[step].facts.clone(), all[step].unknown.clone()].concat().join("; "))
    };
    let reads = || old([Loaded::Reads, Loaded::Reads]);
    assert_eq!(is(&added, reads(), 1).0, Status::Done);
    let (status, words) = is(&promoted, reads(), 3);
    assert_eq!(status, Status::Unknown, "reading is not writing");
    assert!(words.contains("does not say which configuration"), "{words}");
    let (status, words) = is(&added, old([Loaded::Reads, Loaded::Cannot("no".to_owned())]), 1);
    assert_eq!(status, Status::Next);
    assert!(words.contains("cannot read what the new key writes: no"), "{words}");
    let (status, words) = is(&added, old([Loaded::Reads, Loaded::Absent]), 1);
    assert_eq!(status, Status::Unknown);
    assert!(words.contains("it reads another etcd"), "{words}");

    let untold = || old([Loaded::Untold, Loaded::Untold]);
    assert!(untold().wants_canary(&added));
    assert!(!untold().wants_canary(&promoted) && !untold().wants_canary(&state(&[])));
    assert!(!servers(&[("a", ""), ("b", "start")], 2).wants_canary(&added), "b cannot read it");
    assert!(servers(&[("a", ""), ("b", "added")], 2).wants_canary(&added));
    assert!(!servers(&[("a", "added"), ("b", "added")], 2).wants_canary(&added));
    assert!(!servers(&[("a", "")], 2).wants_canary(&added), "one is missing");
}
