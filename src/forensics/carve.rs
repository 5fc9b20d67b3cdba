//! Structural carving: finding etcd's records in raw bytes, where no page or index vouches for
//! them any more.
//!
//! A hit is an `mvccpb.KeyValue` (etcd `api/mvccpb/kv.proto`) or an `etcdserverpb.PutRequest`
//! (etcd `api/etcdserverpb/rpc.proto`) whose key is one of those looked for and whose value is
//! an unencrypted Kubernetes object, or encrypted where that is asked for. The search is for the
//! beginning of the key; the message around it is then checked backwards and forwards.

use std::ops::Range;

use memchr::memmem::Finder;
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::{Targets, Written};
use crate::mvcc::Revision;
use crate::proto::varint;
use crate::storage::{CBOR_MAGIC, PROTOBUF_MAGIC};

/// Longest record that is believed, bytes: etcd's own limit on a request is 1.5 MiB unless
/// raised. It bounds what crafted lengths can cost.
const LONGEST: usize = 64 << 20;

/// Longest key that is believed, bytes.
const LONGEST_KEY: usize = 32 << 10;

/// `KeyValue.create_revision`, which follows the key.
const CREATE: u8 = 0x10;

/// How much one thread searches at a time, bytes: within a processor's cache, for several
/// passes.
const STRIDE: usize = 512 << 10;

/// Which message a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `mvccpb.KeyValue`, as bbolt pages hold it.
    KeyValue,
    /// `etcdserverpb.PutRequest`, as the write-ahead log holds it.
    Put,
    /// `mvccpb.KeyValue` with nothing but a key, behind the revision of a deletion.
    Tombstone,
}

/// A carved record.
#[derive(Clone, PartialEq, Eq)]
pub struct Hit<'a> {
    /// Where the record begins, bytes from the start of the data.
    pub at: usize,
    /// Which message it is.
    pub shape: Shape,
    /// The full etcd key.
    pub key: &'a [u8],
    /// `mod_revision`; a put has none.
    pub revision: Option<i64>,
    /// What the record says of its key; a put does not.
    pub written: Option<Written>,
    /// Length that the record says its value has, bytes.
    pub value_len: usize,
    /// Where the value's bytes still lie, ascending; together fewer than `value_len` when parts
    /// were overwritten.
    pub pieces: Vec<Range<usize>>,
    /// Where the value begins.
    pub value_at: usize,
    /// The value is encrypted.
    pub encrypted: bool,
}

impl Hit<'_> {
    /// Bytes of the value that are still there.
    #[must_use]
    pub fn present(&self) -> usize {
        self.pieces.iter().map(ExactSizeIterator::len).sum()
    }

    /// Parts of the value were overwritten or cut off.
    #[must_use]
    pub fn partial(&self) -> bool {
        self.present() < self.value_len
    }
}

impl std::fmt::Debug for Hit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {}, {} of {} bytes", self.shape, self.at, self.present(), self.value_len)
    }
}

/// The bytes of a value in their order, zeros where parts were overwritten. What was cut off at
/// the end is left out.
#[must_use]
pub fn assemble(data: &[u8], value_at: usize, pieces: &[Range<usize>]) -> Zeroizing<Vec<u8>> {
    let mut value = Zeroizing::new(Vec::new());
    for piece in pieces {
        let Some(bytes) = data.get(piece.clone()) else { continue };
        let offset = piece.start.saturating_sub(value_at).max(value.len());
        value.resize(offset, 0);
        value.extend_from_slice(bytes);
    }
    value
}

/// Knows which bytes can follow each other in one record.
pub trait Terrain: Sync {
    /// The parts of `start..end` that can belong to one record that begins at `start`,
    /// ascending. The first begins at `start`.
    fn pieces(&self, start: usize, end: usize) -> Vec<Range<usize>>;
}

/// Bytes in a row, to the end of the file.
#[derive(Clone, Copy, Debug)]
pub struct Flat {
    /// Length of the data, bytes.
    pub len: usize,
}

impl Terrain for Flat {
    fn pieces(&self, start: usize, end: usize) -> Vec<Range<usize>> {
        vec![start..end.min(self.len)]
    }
}

/// Is told of bytes that will not be read soon, so that their memory can be given back.
pub type Behind<'b> = dyn Fn(Range<usize>) + Sync + 'b;

/// Bytes after which [`Behind`] is told.
pub const LEG: usize = 8 << 20;

/// Legs for each thread whose records are held at once.
const LEGS: usize = 4;

/// Finds records of what is looked for.
pub struct Carver<'t> {
    targets: &'t Targets,
    finders: Vec<Finder<'static>>,
    behind: &'t Behind<'t>,
}

impl<'t> Carver<'t> {
    /// Prepares the search.
    #[must_use]
    pub fn new(targets: &'t Targets) -> Self {
        let finders = targets
            .needles()
            .iter()
            .filter(|n| !n.is_empty())
            .map(|n| Finder::new(n).into_owned())
            .collect();
        Self { targets, finders, behind: &|_| () }
    }

    /// Tells `behind` of what was searched.
    #[must_use]
    pub fn telling(self, behind: &'t Behind<'t>) -> Self {
        Self { behind, ..self }
    }

    /// Finds records whose key begins in one of `windows` (ascending, disjoint), in ascending
    /// order. Uses all threads of the current pool.
    #[must_use]
    pub fn search<'a>(
        &self,
        data: &'a [u8],
        windows: &[Range<usize>],
        terrain: &dyn Terrain,
    ) -> Vec<Hit<'a>> {
        let mut all = Vec::new();
        self.each(data, windows, terrain, &mut |hit| all.push(hit));
        all
    }

    /// As [`Carver::search`], but never more of them at once than a few stretches of the data have.
    pub fn each<'a>(
        &self,
        data: &'a [u8],
        windows: &[Range<usize>],
        terrain: &dyn Terrain,
        sink: &mut dyn FnMut(Hit<'a>),
    ) {
        // The second number is how far a key that begins in the stride may reach.
        let strides: Vec<(Range<usize>, usize)> = windows
            .iter()
            .flat_map(|w| {
                let end = w.end.min(data.len());
                (w.start..end).step_by(STRIDE).map(move |s| (s..(s + STRIDE).min(end), end))
            })
            .collect();
        let mut legs = Vec::new();
        let mut from = 0;
        for (i, (stride, _)) in strides.iter().enumerate() {
            let first = strides[from].0.start;
            if stride.end - first >= LEG || i + 1 == strides.len() {
                legs.push((first..stride.end, &strides[from..=i]));
                from = i + 1;
            }
        }
        for some in legs.chunks(LEGS * rayon::current_num_threads()) {
            let hits: Vec<_> = some
                .par_iter()
                .flat_map_iter(|(leg, strides)| {
                    let hits: Vec<_> = strides
                        .iter()
                        .flat_map(|(stride, end)| self.stride(data, stride, *end, terrain))
                        .collect();
                    (self.behind)(leg.clone());
                    hits
                })
                .collect();
            hits.into_iter().for_each(&mut *sink);
        }
    }

    fn stride<'a>(
        &self,
        data: &'a [u8],
        stride: &Range<usize>,
        end: usize,
        terrain: &dyn Terrain,
    ) -> Vec<Hit<'a>> {
        let mut hits = Vec::new();
        for finder in &self.finders {
            let reach = (stride.end + finder.needle().len() - 1).min(end);
            for i in finder.find_iter(&data[stride.start..reach]) {
                hits.extend(self.record(data, stride.start + i, terrain));
            }
        }
        hits.sort_unstable_by_key(|h| h.at);
        hits.dedup_by_key(|h| h.at);
        hits
    }

    /// Checks the message around a key that seems to begin at `key_at`.
    fn record<'a>(&self, data: &'a [u8], key_at: usize, terrain: &dyn Terrain) -> Option<Hit<'a>> {
        (1..=3).find_map(|n| {
            let length_at = key_at.checked_sub(n)?;
            let at = length_at.checked_sub(1)?;
            let (len, used) = varint(&data[length_at..key_at])?;
            let len = usize::try_from(len).ok().filter(|l| (1..=LONGEST_KEY).contains(l))?;
            if data[at] != 0x0A || used != n {
                return None;
            }
            let key = data.get(key_at..key_at + len)?;
            let text = std::str::from_utf8(key).ok()?;
            if text.chars().any(char::is_control) {
                return None;
            }
            self.targets.locate(key)?;
            if let Some(revision) = self.deletion(data, at, key_at + len) {
                return tombstone(at, key_at, key, revision, terrain);
            }
            let body = body(data, key_at + len, self.targets)?;
            let end = body.value_at.checked_add(body.value_len)?;
            let mut pieces = terrain.pieces(at, end);
            // Key, revisions and the value's beginning must be the record's own.
            let first = pieces.first_mut().filter(|p| p.start == at && p.end > body.value_at)?;
            first.start = body.value_at;
            let Body { shape, revision, written, value_at, value_len, encrypted } = body;
            Some(Hit { at, shape, key, revision, written, value_len, pieces, value_at, encrypted })
        })
    }

    /// The revision of a deletion whose record begins at `at`, if deletions are looked for: bbolt
    /// puts a value behind its key, and a deletion's key is its revision and a mark (etcd
    /// `server/storage/mvcc/revision.go`).
    fn deletion(&self, data: &[u8], at: usize, end: usize) -> Option<i64> {
        /// Two numbers, what is between them, and the mark.
        const LENGTH: usize = 8 + 1 + 8 + 1;
        // Behind the key of a write its revisions follow.
        if !self.targets.wants_deletions() || data.get(end) == Some(&CREATE) {
            return None;
        }
        let revision = Revision::parse(data.get(at.checked_sub(LENGTH)?..at)?)?;
        (revision.tombstone && revision.main > 1).then_some(revision.main)
    }
}

fn tombstone<'a>(
    at: usize,
    key_at: usize,
    key: &'a [u8],
    revision: i64,
    terrain: &dyn Terrain,
) -> Option<Hit<'a>> {
    let end = key_at + key.len();
    terrain.pieces(at, end).first().filter(|p| p.start == at && p.end == end)?;
    Some(Hit {
        at,
        shape: Shape::Tombstone,
        key,
        revision: Some(revision),
        written: None,
        value_len: 0,
        pieces: Vec::new(),
        value_at: end,
        encrypted: false,
    })
}

struct Body {
    shape: Shape,
    revision: Option<i64>,
    written: Option<Written>,
    value_at: usize,
    value_len: usize,
    encrypted: bool,
}

/// Reads what follows the key: fields in the order in which etcd writes them.
fn body(data: &[u8], mut at: usize, targets: &Targets) -> Option<Body> {
    const PUT_VALUE: u8 = 0x12;
    const KV_VALUE: u8 = 0x2A;
    let number = |at: &mut usize| {
        let (value, len) = varint(data.get(*at..)?)?;
        *at += len;
        Some(value)
    };
    let tag = *data.get(at)?;
    let (mut revision, mut written) = (None, None);
    let shape = match tag {
        PUT_VALUE => Shape::Put,
        CREATE => {
            let mut numbers = [0i64; 3];
            for (value, tag) in numbers.iter_mut().zip([CREATE, 0x18, 0x20]) {
                if *data.get(at)? != tag {
                    return None;
                }
                at += 1;
                *value = i64::try_from(number(&mut at)?).ok()?;
            }
            let [create, modified, version] = numbers;
            if create < 1 || modified < create || version < 1 || *data.get(at)? != KV_VALUE {
                return None;
            }
            revision = Some(modified);
            written = Some(Written { create_revision: create, version });
            Shape::KeyValue
        }
        _ => return None,
    };
    at += 1;
    let value_len = usize::try_from(number(&mut at)?).ok().filter(|l| (2..=LONGEST).contains(l))?;
    let value = data.get(at..)?;
    // A look at the beginning is enough, however much white space is claimed to follow.
    let encrypted = targets.sees(&value[..value.len().min(value_len).min(64)])?;
    Some(Body { shape, revision, written, value_at: at, value_len, encrypted })
}

/// Whether bytes begin as the API server's serializers write objects: protobuf
/// (apimachinery `pkg/runtime/serializer/protobuf`), JSON, CBOR, or YAML, whose first line is a
/// field's name (`--storage-media-type=application/yaml`).
#[must_use]
pub fn is_plain_object(value: &[u8]) -> bool {
    if value.starts_with(PROTOBUF_MAGIC) || value.starts_with(CBOR_MAGIC) {
        return true;
    }
    let mut text = value.iter().filter(|b| !b.is_ascii_whitespace());
    if text.next() == Some(&b'{') {
        return matches!(text.next(), Some(b'"' | b'}'));
    }
    let yaml = value.strip_prefix(b"---\n").unwrap_or(value);
    let name = yaml.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
    (3..40).contains(&name)
        && yaml[0].is_ascii_lowercase()
        && matches!(yaml[name..], [b':', b' ' | b'\n', ..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Scope, Selector};

    fn secrets() -> Targets {
        Targets::new(Scope::new("/registry/"), vec![Selector::parse("secrets").unwrap()], vec![])
    }

    fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        let mut len = bytes.len();
        while len > 127 {
            out.push(u8::try_from(len & 127).unwrap() | 128);
            len >>= 7;
        }
        out.push(u8::try_from(len).unwrap());
        out.extend_from_slice(bytes);
        out
    }

    fn key_value(key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut out = field(0x0A, key);
        out.extend([0x10, 5, 0x18, 0xAC, 0x02, 0x20, 1]);
        out.extend(field(0x2A, value));
        out
    }

    fn carve(data: &[u8]) -> Vec<Hit<'_>> {
        let targets = secrets();
        let all = 0..data.len();
        Carver::new(&targets).search(data, &[all], &Flat { len: data.len() })
    }

    const KEY: &[u8] = b"/registry/secrets/ns/name";

    #[test]
    fn records_are_found_whatever_surrounds_them() {
        let mut data = vec![0xAA; 1000];
        data.extend(key_value(KEY, b"k8s\0abc"));
        data.extend(field(0x0A, KEY));
        data.extend(field(0x12, br#"{"kind":"Secret"}"#));
        data.extend([0x55; 9]);
        let hits = carve(&data);
        assert_eq!(hits.len(), 2);
        assert_eq!((hits[0].at, hits[0].key, hits[0].revision), (1000, KEY, Some(300)));
        assert_eq!((hits[0].shape, hits[1].shape), (Shape::KeyValue, Shape::Put));
        assert_eq!(hits[1].revision, None);
        assert_eq!(&**assemble(&data, hits[0].value_at, &hits[0].pieces), b"k8s\0abc");
        assert!(!hits[0].partial());
    }

    #[test]
    fn long_keys_and_values_are_found() {
        let key = [KEY, &[b'x'; 300]].concat();
        let value = [&b"k8s\0"[..], &vec![7; 100_000]].concat();
        let data = key_value(&key, &value);
        assert_eq!(carve(&data)[0].present(), value.len());
        let hits = carve(&data[..50_000]);
        assert!(hits[0].partial(), "cut off at the end");
        assert_eq!(hits[0].value_len, value.len());
    }

    #[test]
    fn records_across_strides_are_found_once() {
        let record = key_value(KEY, b"k8s\0abc");
        for back in [0, 1, 10, KEY.len(), record.len()] {
            let mut data = vec![0; STRIDE - back];
            data.extend(&record);
            data.resize(3 * STRIDE, 0);
            assert_eq!(carve(&data).len(), 1, "{back}");
        }
    }

    #[test]
    fn only_unencrypted_objects_of_what_is_looked_for() {
        let put = |value: &[u8]| [field(0x0A, KEY), field(0x12, value)].concat();
        let none: Vec<(&str, Vec<u8>)> = vec![
            ("encrypted", key_value(KEY, b"k8s:enc:aescbc:v1:k:0123456789abcdef")),
            ("encrypted put", put(b"k8s:enc:secretbox:v1:k:0123456789abcdef")),
            ("a range", put(b"/registry/secrets/ns0")),
            ("another resource", key_value(b"/registry/configmaps/ns/n", b"k8s\0abc")),
            ("key without message", [KEY, b"k8s\0abc"].concat()),
            ("wrong key length", {
                let mut record = key_value(KEY, b"k8s\0abc");
                record[1] += 1;
                record
            }),
            ("revisions out of order", {
                let mut record = key_value(KEY, b"k8s\0abc");
                let create = 2 + KEY.len() + 1;
                record[create] = 0x7F;
                record[create + 2] = 0x05;
                record[create + 3] = 0x00;
                record
            }),
            ("no value", field(0x0A, KEY)),
            ("empty value", put(b"")),
            ("control character", key_value(b"/registry/secrets/n\0s/name", b"k8s\0abc")),
        ];
        for (what, data) in none {
            assert_eq!(carve(&data).len(), 0, "{what}");
        }
    }

    #[test]
    fn encrypted_values_are_found_where_they_are_asked_for() {
        let targets = secrets().with_encrypted();
        let data = [
            key_value(KEY, b"k8s:enc:aescbc:v1:k:0123456789abcdef"),
            key_value(KEY, b"k8s\0abc"),
            key_value(KEY, b"k8s:en"),
        ]
        .concat();
        let hits = Carver::new(&targets).search(&data, &[0..data.len()], &Flat { len: data.len() });
        assert_eq!(hits.iter().map(|h| h.encrypted).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn crafted_lengths_do_no_harm() {
        let mut data = field(0x0A, KEY);
        data.extend([0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]);
        data.extend(b"k8s\0");
        assert_eq!(carve(&data).len(), 0);
        let record = key_value(KEY, b"k8s\0abc");
        for end in 0..record.len() {
            carve(&record[..end]);
        }
    }
}
