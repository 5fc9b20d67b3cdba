//! Pieces of Secrets in free pages whose beginning was overwritten, with their key.
//!
//! The bytes of a Secret that needed several pages stay behind when only its first page is used
//! again. Nothing in them says whose they are; but a Secret ends in its type (kubernetes/api
//! `core/v1/generated.proto`) and the end of the API server's wrapper (apimachinery
//! `pkg/runtime/generated.proto`: `Unknown`), and where its beginning is still there, that names
//! it.

use std::ops::Range;

use memchr::memmem::Finder;

use super::terrain::Pages;
use super::terrain::location;
use super::{Bytes, Finding, Place, Sink};
use crate::bolt::Db;
use crate::forensics::Targets;
use crate::forensics::carve::{Behind, LEG, Terrain};
use crate::proto::{Fields, varint};

/// `Unknown.contentEncoding` and `.contentType`, both empty and always written.
const TAIL: &[u8] = &[0x1A, 0, 0x22, 0];

/// `k8s\0`, then `Unknown.typeMeta` of a v1 Secret.
const HEAD: &[u8] = b"k8s\0\x0a\x0c\x0a\x02v1\x12\x06Secret\x12";

/// Reports pieces that nothing covers which was found: `covered`, in any order.
pub(super) fn examine(
    db: &Db<'_>,
    pages: &Pages<'_, '_>,
    targets: &Targets,
    mut covered: Vec<Range<usize>>,
    behind: &Behind<'_>,
    sink: &mut dyn Sink,
) {
    const SECRETS: &str = "secrets";
    if !targets.wants_resource(SECRETS) {
        return;
    }
    let runs = runs(pages, db.data().len(), behind);
    if runs.is_empty() {
        return;
    }
    covered.sort_unstable_by_key(|r| r.start);
    let is_covered = |at: usize| {
        let after = covered.partition_point(|r| r.start <= at);
        // Pieces of different records do not nest deeply: a few neighbours are enough.
        covered[after.saturating_sub(8)..after].iter().any(|r| r.contains(&at))
    };
    let mut told = 0;
    for run in runs {
        if run.start - told > LEG {
            behind(told..run.start);
            told = run.start;
        }
        for piece in pieces(db.data(), &run, pages) {
            let Some(last) = piece.pieces.last() else { continue };
            if is_covered(last.end - 1) || is_covered(piece.at) {
                continue;
            }
            let key = piece.name.map(|(namespace, name)| {
                format!("{}{SECRETS}/{namespace}/{name}", targets.scope().base()).into_bytes()
            });
            if key.as_deref().is_some_and(|k| targets.locate(k).is_none()) {
                continue;
            }
            let finding = Finding {
                place: Place::FreePage,
                location: location(pages.size(), piece.at),
                key,
                resource: SECRETS.to_owned(),
                revision: None,
                written: None,
                deletion: false,
                size: piece.pieces.iter().map(|p| p.len() as u64).sum(),
                partial: piece.partial,
                encrypted: false,
            };
            sink.found(finding, Bytes::new(db.data(), piece.at, &piece.pieces));
        }
    }
}

/// Runs of free pages that neither have a header nor belong to a page that has one.
fn runs(pages: &Pages<'_, '_>, len: usize, behind: &Behind<'_>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut taken = 2;
    let mut told = 0;
    for page in 2..pages.count() {
        let start = page * pages.size();
        if start - told > LEG {
            behind(told..start);
            told = start;
        }
        if pages.is_live(page) {
            continue;
        }
        if let Some(count) = pages.headed(page) {
            taken = taken.max(page.saturating_add(count));
        }
        if page < taken {
            continue;
        }
        let end = (start + pages.size()).min(len);
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

struct Piece {
    at: usize,
    pieces: Vec<Range<usize>>,
    name: Option<(String, String)>,
    partial: bool,
}

fn pieces(data: &[u8], run: &Range<usize>, pages: &Pages<'_, '_>) -> Vec<Piece> {
    let bytes = &data[run.clone()];
    let mut found = Vec::new();
    // Ends of values whose beginning was in the run.
    let mut ends = Vec::new();
    for i in Finder::new(HEAD).find_iter(bytes) {
        let at = run.start + i;
        let Some((len, raw)) = whole(&data[at..]) else { continue };
        let parts = pages.pieces(at, at + len);
        ends.push(at + len);
        found.push(Piece {
            at,
            partial: parts.iter().map(ExactSizeIterator::len).sum::<usize>() < len,
            pieces: parts,
            name: name(raw),
        });
    }
    let mut from = run.start;
    for i in Finder::new(TAIL).find_iter(bytes) {
        let tail = run.start + i;
        let end = tail + TAIL.len();
        if !ends.contains(&end) && ends_in_type(&data[from..tail]) {
            found.push(Piece {
                at: from,
                pieces: std::iter::once(from..end).collect(),
                name: None,
                partial: true,
            });
        }
        from = end;
    }
    found
}

/// Length of a wrapped object that begins here, and what is left of its `raw` bytes.
fn whole(value: &[u8]) -> Option<(usize, &[u8])> {
    let rest = &value[HEAD.len()..];
    let (len, used) = varint(rest)?;
    let len = usize::try_from(len).ok().filter(|l| *l < 64 << 20)?;
    let raw = &rest[used..];
    Some((HEAD.len() + used + len + TAIL.len(), &raw[..len.min(raw.len())]))
}

/// Namespace and name from the object's metadata, its first field.
fn name(raw: &[u8]) -> Option<(String, String)> {
    let metadata = Fields::new(raw).next()?.ok().filter(|f| f.number == 1)?.bytes()?;
    let text = |number| {
        Fields::new(metadata)
            .map_while(Result::ok)
            .find(|f| f.number == number)
            .and_then(|f| std::str::from_utf8(f.bytes()?).ok())
            .filter(|t| !t.is_empty() && !t.chars().any(|c| c.is_control() || c == '/'))
            .map(str::to_owned)
    };
    Some((text(3)?, text(1)?))
}

/// Whether bytes end as a Secret's do: field 3, a type like `Opaque` or `kubernetes.io/tls`,
/// and perhaps field 5, `immutable`.
fn ends_in_type(bytes: &[u8]) -> bool {
    let bytes = match bytes {
        [rest @ .., 0x28, 0 | 1] => rest,
        _ => bytes,
    };
    let longest = bytes.len().min(127 + 2);
    (3..=longest.saturating_sub(2)).any(|len| {
        let at = bytes.len() - len;
        let kind = &bytes[at..];
        bytes[at - 2] == 0x1A
            && usize::from(bytes[at - 1]) == len
            && (kind == b"Opaque"
                || (kind.contains(&b'/') && kind.iter().all(u8::is_ascii_graphic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_end() {
        for good in [
            &b"....\x1a\x06Opaque"[..],
            b"....\x1a\x11kubernetes.io/tls",
            b"\x1a\x06Opaque\x28\x01",
            b"....\x1a\x12helm.sh/release.v1",
        ] {
            assert!(ends_in_type(good), "{}", good.escape_ascii());
        }
        for bad in [
            &b""[..],
            b"Opaque",
            b"\x1a\x07Opaque",
            b"\x1a\x06opaque",
            b"\x12\x06Opaque",
            b"\x1a\x08\x0a\x06Active",
        ] {
            assert!(!ends_in_type(bad), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn crafted_lengths_do_no_harm() {
        let mut value = HEAD.to_vec();
        value.extend([0xFF; 9]);
        value.push(1);
        assert!(whole(&value).is_none());
        let mut value = HEAD.to_vec();
        value.push(100);
        assert_eq!(whole(&value).map(|(len, raw)| (len, raw.len())), Some((HEAD.len() + 105, 0)));
        assert_eq!(name(&[0x0A, 50, 1]), None);
    }
}
