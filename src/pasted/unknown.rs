//! Words for input that is no value in any known form.

use super::{NotAValue, Whole, dump, text};
use crate::envelope::ENCRYPTED_PREFIX;

const INSTEAD: &str = "give a stored value, or what `etcdctl get KEY -w json` prints; `atrest decode --help` lists the forms";

/// How much of the input is searched for a value that does not stand at the start.
const SEARCHED: usize = 4096;

/// What the input looks like and what to give instead.
pub(super) fn describe(input: &[u8]) -> NotAValue {
    let packed: Vec<u8> = input.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let has = |start: &[u8]| input.starts_with(start);
    if has(b"SQLite format 3\0") {
        return NotAValue::whole("an SQLite database", Whole::Sqlite);
    }
    if input.get(16..20).is_some_and(|m| m == [0xED, 0xDA, 0x0C, 0xED]) {
        return NotAValue::whole("an etcd database", Whole::Database);
    }
    for (magic, what) in [
        (&[0x1F, 0x8B][..], "gzip"),
        (&[0x28, 0xB5, 0x2F, 0xFD], "zstd"),
        (b"\xFD7zXZ\0", "xz"),
        (b"PK\x03\x04", "zip"),
        (b"age-encryption.org/", "age"),
    ] {
        if has(magic) {
            return NotAValue::whole(format!("a file packed by {what}"), Whole::Packed);
        }
    }
    if let Some(at) = memchr::memmem::find(&input[..input.len().min(SEARCHED)], ENCRYPTED_PREFIX) {
        return NotAValue::new(
            format!("an encrypted value that begins at byte {at} only: something stands before it"),
            "give what `etcdctl get KEY -w json` prints",
        );
    }
    if let Some(bytes) = dump::digits_of(&packed) {
        return spells("hexadecimal digits", bytes.len());
    }
    if has(b"Error:") || has(b"{\"level\"") {
        return NotAValue::new("an error message", "give what the command prints when it succeeds");
    }
    if packed.len() >= 16
        && let Some(bytes) = text::decoded(&packed)
    {
        return spells("base64", bytes.len());
    }
    match std::str::from_utf8(input) {
        Ok(_) => NotAValue::new(
            format!("text of {} bytes in no form that is known", input.len()),
            INSTEAD,
        ),
        Err(_) => NotAValue::new(
            format!("{} bytes that begin as no stored value does", input.len()),
            INSTEAD,
        ),
    }
}

fn spells(how: &str, len: usize) -> NotAValue {
    NotAValue::new(format!("{how} of {len} bytes that begin as no stored value does"), INSTEAD)
}
