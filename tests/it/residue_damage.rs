//! A damaged file is searched without a panic or a hang, and what the damage does not touch is
//! found as before.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use atrest::bolt::Db;
use atrest::forensics::Targets;
use atrest::forensics::residue::{Bytes, Finding, Place, examine, examine_bytes};
use atrest::resource::{Scope, Selector};
use proptest::prelude::*;

use crate::support::corpus;

const PAGE: usize = 4096;
/// A search takes milliseconds; one that takes this long hangs.
const LONG: Duration = Duration::from_mins(1);

fn secrets() -> Targets {
    let selectors = vec![Selector::parse("secrets").unwrap()];
    Targets::new(Scope::new("/registry/"), selectors, vec![])
}

/// A finding: key, revision and where its value lies.
type Found = (Option<Vec<u8>>, Option<i64>, Vec<Range<usize>>);

/// Everything found; `None` when nothing can be made of the file.
fn search(data: &[u8]) -> Option<Vec<Found>> {
    let start = Instant::now();
    let db = Db::salvage(data).ok()?;
    let mut all = Vec::new();
    examine(&db, &secrets(), &|_| None, &|_| (), &mut |f: Finding, bytes: Bytes<'_>| {
        assert!(f.size <= data.len() as u64, "no more than there is");
        assert!(bytes.pieces().iter().all(|p| p.end <= data.len()));
        all.push((f.key, f.revision, bytes.pieces().to_vec()));
    });
    assert!(start.elapsed() < LONG, "it hangs");
    Some(all)
}

fn overlaps(pieces: &[Range<usize>], damage: &Range<usize>) -> bool {
    // A record begins before its value, with its key.
    pieces.iter().any(|p| p.start.saturating_sub(400) < damage.end && damage.start < p.end)
}

/// What is found of the undamaged file outside of `damage` is found in `data` too.
fn agree(whole: &[Found], data: &[u8], damage: &Range<usize>, what: &str) {
    let found = search(data).unwrap_or_else(|| panic!("{what}: nothing is read"));
    let found: BTreeSet<_> =
        found.into_iter().map(|(k, _, p)| (k, p.first().map(|r| r.start))).collect();
    for (key, _, pieces) in whole.iter().filter(|(_, _, p)| !overlaps(p, damage)) {
        // Pieces without their beginning are known by what surrounds them.
        if key.is_some() {
            let wanted = (key.clone(), pieces.first().map(|r| r.start));
            assert!(found.contains(&wanted), "{what}: a finding is lost");
        }
    }
}

/// Reproducible noise.
fn noise(page: &mut [u8], mut state: u64) {
    for byte in page {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_le_bytes()[3];
    }
}

#[test]
fn one_damaged_page_costs_what_it_held() {
    for phase in ["p7-migrated-uncompacted", "p8-compacted-not-defragged"] {
        let data = corpus::bytes(&format!("{phase}.db"));
        let whole = search(&data).unwrap();
        assert!(whole.len() >= 36);
        let pages = data.len() / PAGE;
        // Every page of the part that has small records, and samples of the long values.
        for page in (0..pages).filter(|p| *p < 70 || p % 61 == 0) {
            let span = page * PAGE..(page + 1) * PAGE;
            let mut damaged = data.clone();
            damaged[span.clone()].fill(0);
            agree(&whole, &damaged, &span, &format!("{phase} page {page} zeroed"));
            noise(&mut damaged[span.clone()], page as u64 + 1);
            agree(&whole, &damaged, &span, &format!("{phase} page {page} overwritten"));
        }
    }
}

#[test]
fn a_file_cut_at_any_length_is_searched_as_far_as_it_goes() {
    let data = corpus::bytes("p8-compacted-not-defragged.db");
    let whole = search(&data).unwrap();
    let step = data.len() / 50 + 1;
    let near = [0, 1, 63, 4095, 4096, 4097, 8191, 8192, 8193, 12_288];
    for len in near.into_iter().chain((20_000..data.len()).step_by(step)) {
        if len < 2 * PAGE {
            // Too short for both meta pages; what it says is checked elsewhere.
            let _ = search(&data[..len]);
            continue;
        }
        agree(&whole, &data[..len], &(len..data.len()), &format!("cut at {len}"));
    }
}

#[test]
fn a_cut_or_overwritten_log_is_searched_as_far_as_it_goes() {
    let data = corpus::bytes("p8-0000000000000000-0000000000000000.wal");
    // What was used of it; the rest is preallocated.
    let used = data.iter().rposition(|b| *b != 0).unwrap() + 1;
    let data = &data[..used];
    let search = |data: &[u8]| {
        let mut all = Vec::new();
        examine_bytes(
            "x.wal",
            Place::Wal,
            data,
            &secrets(),
            &mut |_: Finding, bytes: Bytes<'_>| {
                all.push(bytes.pieces().to_vec());
            },
        );
        all
    };
    let whole = search(data);
    assert_eq!(whole.len(), 32);
    for i in 0..40 {
        let cut = used / 40 * i;
        let expected = whole.iter().filter(|p| !overlaps(p, &(cut..used))).count();
        assert!(search(&data[..cut]).len() >= expected, "cut at {cut}");
        let mut damaged = data.to_vec();
        let span = cut..(cut + 700).min(used);
        noise(&mut damaged[span.clone()], i as u64 + 7);
        let found = search(&damaged);
        for pieces in whole.iter().filter(|p| !overlaps(p, &span)) {
            assert!(found.contains(pieces), "overwritten at {cut}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever bytes change, the search ends by itself.
    #[test]
    fn any_damage_is_survived(
        changes in prop::collection::vec((0usize..400_000, any::<u8>()), 1..200),
        len in 8192usize..400_000,
    ) {
        thread_local! {
            static DATA: Vec<u8> = corpus::bytes("p0-plaintext.db");
        }
        DATA.with(|whole| {
            let mut data = whole[..len.min(whole.len())].to_vec();
            for (at, byte) in changes {
                let at = at % data.len();
                data[at] = byte;
            }
            let _ = search(&data);
        });
    }
}
