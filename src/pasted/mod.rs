//! The forms in which people paste stored values: what etcdctl, hexdump, xxd, sqlite3, jq and
//! backup tools print → the stored bytes.
//!
//! A form is recognised by how the text begins, and counts only if what it spells begins as the
//! API server's values do, so no form is ever taken for another. Bytes that are a value already
//! are never touched; where a tool added to them (a line feed, a terminal's carriage returns, the
//! rest of a row), the value has several [`Reading`]s, the exact bytes first, and whoever decrypts
//! them knows which is right.

mod dump;
mod etcdctl;
mod sql;
mod text;
mod unknown;

use zeroize::Zeroizing;

use crate::entry::{BoundTo, Entry};
use crate::envelope::ENCRYPTED_PREFIX;

/// Longest dump that is unfolded, in bytes: etcd's values stay far below.
const LARGEST: usize = 64 << 20;

/// A form of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The bytes of a value as they are stored.
    Value,
    /// Key and value on lines of their own: `etcdctl get KEY`.
    Lines,
    /// `etcdctl get -w json`, its `kvs`, or entries of them.
    EtcdctlJson,
    /// `etcdctl get -w fields`, or some of its lines.
    EtcdctlFields,
    /// A string as Go quotes it.
    Quoted,
    /// `hexdump -C` or `xxd`.
    HexDump,
    /// Hexadecimal digits: `xxd -p`, `hex()`, `\x…` as `PostgreSQL` prints it, `etcdctl get --hex`.
    Hex,
    /// Base64.
    Base64,
    /// Base64 in quotes: a field of JSON, or a file of a rancher-backup archive.
    QuotedBase64,
    /// `X'…'`, alone or in a row: `SQLite`'s `quote()`, `.dump` and `-quote`.
    SqlLiteral,
    /// A row of kine's table as sqlite3 prints it.
    SqlRow,
}

/// Bytes that may be the value, and what was undone to get them.
#[derive(Clone, PartialEq, Eq)]
pub struct Reading {
    /// The bytes.
    pub value: Zeroizing<Vec<u8>>,
    /// A terminal had put carriage returns before the line feeds.
    pub carriage_returns: bool,
}

/// One value that was pasted.
#[derive(Clone, PartialEq, Eq)]
pub struct Pasted {
    /// The etcd key, if it came with the value.
    pub key: Option<Vec<u8>>,
    /// What the value may be, the likeliest first; never empty.
    pub readings: Vec<Reading>,
    /// Revision of the put that created the key; 0 if unknown.
    pub create_revision: i64,
    /// Revision of the last put; 0 if unknown.
    pub mod_revision: i64,
    /// Number of puts since creation; 0 if unknown.
    pub version: i64,
}

impl Pasted {
    /// A value that is spelt exactly.
    fn exact(key: Option<Vec<u8>>, value: Vec<u8>) -> Self {
        let reading = Reading { value: Zeroizing::new(value), carriage_returns: false };
        Self { key, readings: vec![reading], create_revision: 0, mod_revision: 0, version: 0 }
    }

    /// A value as a program printed it, perhaps on a terminal: exactly, without the line feed that
    /// programs add, and both with carriage returns undone where every line feed has one.
    fn printed(key: Option<Vec<u8>>, value: &[u8]) -> Self {
        let mut pasted = Self::exact(key, value.to_vec());
        pasted.readings.clear();
        pasted.add(value, false);
        if let Some(shorter) = value.strip_suffix(b"\n") {
            pasted.add(shorter, false);
        }
        if let Some(undone) = without_carriage_returns(value) {
            pasted.add(&undone, true);
            if let Some(shorter) = undone.strip_suffix(b"\n") {
                pasted.add(shorter, true);
            }
        }
        pasted
    }

    fn add(&mut self, value: &[u8], carriage_returns: bool) {
        self.readings.push(Reading { value: Zeroizing::new(value.to_vec()), carriage_returns });
    }

    /// The entry of one of the readings; `key` where none came with the value.
    #[must_use]
    pub fn entry(&self, reading: &Reading, key: Option<&[u8]>) -> Entry {
        Entry {
            key: self.key.as_deref().or(key).unwrap_or_default().to_vec(),
            value: reading.value.to_vec(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: 0,
            bound_to: BoundTo::Key,
        }
    }
}

/// Reads one kind of form: `None` where the text does not begin so.
type FormReader = fn(&[u8]) -> Option<Result<(Form, Vec<Pasted>), NotAValue>>;

/// What the input is instead of a value, and what to give. Never any of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{looks}")]
pub struct NotAValue {
    /// In words.
    pub looks: String,
    /// What to give instead.
    pub give: String,
    /// It is something as a whole that has many values.
    pub whole: Option<Whole>,
}

/// What has many values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// An SQLite database, perhaps kine's.
    Sqlite,
    /// A snapshot or another database file of etcd.
    Database,
    /// A packed file.
    Packed,
}

impl NotAValue {
    fn new(looks: impl Into<String>, give: impl Into<String>) -> Self {
        Self { looks: looks.into(), give: give.into(), whole: None }
    }

    fn whole(looks: impl Into<String>, whole: Whole) -> Self {
        Self { whole: Some(whole), ..Self::new(looks, "give one of its values") }
    }
}

/// The values in `input`. `key` is the etcd key if the user gave it: the simple form may begin
/// with it whatever it is.
///
/// # Errors
/// When it is in no known form, or damaged in its form.
pub fn read(input: &[u8], key: Option<&[u8]>) -> Result<(Form, Vec<Pasted>), NotAValue> {
    if begins_as_binary(input) {
        return Ok((Form::Value, vec![Pasted::printed(None, input)]));
    }
    let text = input.trim_ascii();
    match text {
        [b'{' | b'[', ..] => return etcdctl::json(input),
        // The first is the byte that JSON's recogniser calls white space and Rust does not.
        [0x0B, ..] if crate::storage::is_kubernetes_value(input) => {
            return Ok((Form::Value, vec![Pasted::printed(None, input)]));
        }
        _ => {}
    }
    if let Some(lines) = lines(input, key) {
        return lines.map(|one| (Form::Lines, vec![one]));
    }
    let readers: [FormReader; 5] =
        [etcdctl::fields, text::quoted, sql::read, dump::read, text::unquoted];
    if let Some(found) = readers.iter().find_map(|reader| reader(text)) {
        return found;
    }
    if is_yaml_object(input) {
        return Ok((Form::Value, vec![Pasted::printed(None, input)]));
    }
    Err(unknown::describe(input))
}

/// Begins as an encrypted value, as protobuf or as CBOR: bytes that no text form begins with.
fn begins_as_binary(bytes: &[u8]) -> bool {
    bytes.starts_with(ENCRYPTED_PREFIX)
        || bytes.first().is_some_and(|b| matches!(b, b'k' | 0xD9))
            && crate::storage::is_kubernetes_value(bytes)
}

/// Whether bytes are a value as the API server stores them: encrypted, or an object in one of its
/// encodings. A damaged object is still one.
#[must_use]
pub fn is_value(bytes: &[u8]) -> bool {
    begins_as_binary(bytes)
        || crate::storage::is_kubernetes_value(bytes) && etcdctl::names_a_kind(bytes)
        || is_yaml_object(bytes)
}

/// YAML text of one object (kube-apiserver `--storage-media-type=application/yaml`).
fn is_yaml_object(bytes: &[u8]) -> bool {
    !crate::storage::is_kubernetes_value(bytes) && crate::storage::is_object(bytes)
}

/// Spelt bytes → what was spelt: a value, or the output of `etcdctl get KEY`.
fn spelt(bytes: &[u8]) -> Option<Pasted> {
    if is_value(bytes) {
        return Some(Pasted::printed(None, bytes));
    }
    lines(bytes, None)
        .and_then(Result::ok)
        .filter(|one| one.readings.iter().any(|reading| is_value(&reading.value)))
}

/// `etcdctl get KEY`: the key, a line feed, the value, a line feed.
fn lines(input: &[u8], key: Option<&[u8]>) -> Option<Result<Pasted, NotAValue>> {
    let end = memchr::memchr(b'\n', input)?;
    let first = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    let is_key = first.len() > 1
        && (key == Some(first)
            || first[0] == b'/' && first.iter().all(|b| !b.is_ascii_control() && *b != b'|'));
    if !is_key || std::str::from_utf8(first).is_err() {
        return None;
    }
    let value = &input[end + 1..];
    if value.trim_ascii().is_empty() || value.starts_with(b"\n/") || value.starts_with(b"\r\n/") {
        return Some(Err(NotAValue::new(
            "keys without values",
            "leave out --keys-only: etcdctl get KEY",
        )));
    }
    let name = Some(first.to_vec());
    if first.len() == end {
        return Some(Ok(Pasted::printed(name, value)));
    }
    // No key ends in a carriage return: a terminal changed this line end, so all of them.
    let Some(undone) = without_carriage_returns(value) else {
        return Some(Err(NotAValue::new(
            "output of etcdctl in which some line ends were changed to CR LF and some were not",
            "give what `etcdctl get KEY -w json` prints: it survives terminals and editors",
        )));
    };
    let mut one = Pasted::exact(name, undone.to_vec());
    one.readings[0].carriage_returns = true;
    if let Some(shorter) = undone.strip_suffix(b"\n") {
        one.add(shorter, true);
    }
    Some(Ok(one))
}

/// Each CR LF as LF, where there is one and no LF stands alone: what a terminal did to output is
/// undone exactly.
fn without_carriage_returns(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut undone = Zeroizing::new(Vec::with_capacity(bytes.len()));
    let mut rest = bytes;
    let mut any = false;
    while let Some(at) = memchr::memchr(b'\n', rest) {
        let line = rest[..at].strip_suffix(b"\r")?;
        undone.extend_from_slice(line);
        undone.push(b'\n');
        rest = &rest[at + 1..];
        any = true;
    }
    undone.extend_from_slice(rest);
    any.then_some(undone)
}

#[cfg(test)]
mod tests;
