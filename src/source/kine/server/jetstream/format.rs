//! What kine writes into a bucket, and under which subjects.
//!
//! A message is a revision, its sequence the revision's number. Its subject is the etcd key, each
//! part between slashes in base58, after `meta` where the key does not begin with a slash
//! (k3s-io/kine `pkg/drivers/nats/codec.go`: `keyCodec`). Its body is JSON that is compressed with
//! S2 (`valueCodec`; `pkg/drivers/nats/backend.go`: `natsData`), the same since 0.9.0 (there
//! `pkg/drivers/nats/kv/etcd_encoder.go` and `nats.go`: `JSValue`). A deletion writes the key's last value once more, marked
//! `Delete`, and then the bucket's own mark of a deletion, which takes a revision without a value
//! (`Backend.Delete`).

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::Raw;
use super::s2;

/// Of keys that do not begin with a slash (`noRootPrefix`).
const NO_ROOT: &str = "meta";
/// Bitcoin's (shengdoushi/base58 `base58.go`: `BitcoinAlphabet`).
const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// Of each byte, one more than its place in [`ALPHABET`]; 0 for none.
const DIGITS: [u8; 256] = {
    let mut digits = [0; 256];
    let (mut i, mut value) = (0, 1);
    while i < ALPHABET.len() {
        digits[ALPHABET[i] as usize] = value;
        i += 1;
        value += 1;
    }
    digits
};
/// Most bytes of a message's JSON: NATS carries no more than 64 MiB, and etcd's values are at
/// most a few.
const JSON: usize = 64 << 20;
/// Header of the bucket's own marks (nats-io/nats.go `kv.go`: `kvop`).
pub(super) const OPERATION: &str = "KV-Operation";

/// kine's own key: its value says which revision was last compacted to
/// (k3s-io/kine `pkg/drivers/nats/backend.go`: `compactRevAPI`).
const COMPACT_KEY: &[u8] = b"compact_rev_key_apiserver";

/// `natsData`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data<'a> {
    #[serde(rename = "KV", borrow)]
    kv: Option<KeyValue<'a>>,
    #[serde(default)]
    prev_revision: i64,
    #[serde(default)]
    create: bool,
    #[serde(default)]
    delete: bool,
}

/// `server.KeyValue` (k3s-io/kine `pkg/server/types.go`); `ModRevision` is that of the write before.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyValue<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
    #[serde(default)]
    create_revision: i64,
    #[serde(default)]
    lease: i64,
}

/// A message of a bucket.
#[derive(Clone, Copy)]
pub(super) struct Message<'m> {
    /// Its sequence.
    pub sequence: i64,
    /// What follows `$KV.BUCKET.` in its subject.
    pub subject: &'m str,
    /// Whether it is the bucket's own mark of a deletion.
    pub is_mark: bool,
    pub body: &'m [u8],
}

/// Why a message is no revision.
pub(super) type Unread = &'static str;

impl Message<'_> {
    /// The etcd key.
    pub fn key(&self) -> Result<Vec<u8>, Unread> {
        key(self.subject).ok_or("its subject is no key that kine writes")
    }

    /// As a row of kine's table: values as they are wanted. What a deletion holds is a copy of the
    /// value before it.
    pub fn row(&self, name: Vec<u8>, values: bool) -> Result<Raw, Unread> {
        let id = Some(self.sequence);
        if self.is_mark {
            return Ok(Raw { id, name: Some(name), deleted: 1, ..Raw::default() });
        }
        let json = s2::decompressed(self.body, JSON).ok_or("its body is not compressed by kine")?;
        let data: Data<'_> =
            serde_json::from_slice(&json).map_err(|_| "its body is not what kine writes")?;
        let kv = data.kv.ok_or("its body has no value")?;
        // JSON has no bytes that are not UTF-8; before 0.11.0 a key without a slash got one in its
        // subject.
        let subject = String::from_utf8_lossy(&name);
        if kv.key != subject && Some(&*kv.key) != subject.strip_prefix('/') {
            return Err("its body is of another key than its subject");
        }
        let value = match kv.value.filter(|_| values) {
            Some(text) => {
                BASE64_STANDARD.decode(text.as_bytes()).map_err(|_| "its value is cut")?
            }
            None => Vec::new(),
        };
        let (value, old_value) =
            if data.delete { (Vec::new(), value) } else { (value, Vec::new()) };
        Ok(Raw {
            id,
            name: Some(name),
            created: i64::from(data.create),
            deleted: i64::from(data.delete),
            create_revision: kv.create_revision,
            prev_revision: data.prev_revision,
            lease: kv.lease,
            value: Zeroizing::new(value),
            old_value: Zeroizing::new(old_value),
        })
    }
}

/// The subject of kine's own key, without what buckets put before it.
pub(super) fn compact_subject() -> String {
    format!("{NO_ROOT}.{}", encoded(COMPACT_KEY))
}

/// The revision that the value of kine's own key says
/// (k3s-io/kine `pkg/server/compact.go`: `EncodeVersion`).
pub(super) fn compacted(value: &[u8]) -> Option<i64> {
    let (_, revision) = std::str::from_utf8(value).ok()?.split_once('|')?;
    revision.parse().ok()
}

/// The etcd key that a subject is.
fn key(subject: &str) -> Option<Vec<u8>> {
    let (mut key, parts) = match subject.split_once('.') {
        Some((NO_ROOT, parts)) => (Vec::new(), parts),
        _ => (b"/".to_vec(), subject),
    };
    for (i, part) in parts.split('.').enumerate() {
        if i > 0 {
            key.push(b'/');
        }
        let part = decoded(part)?;
        // What stands for nothing: a subject has no empty parts.
        if part != b"/" {
            key.extend_from_slice(&part);
        }
    }
    Some(key)
}

/// The bytes that base58 digits are; a leading `1` is a zero byte.
fn decoded(digits: &str) -> Option<Vec<u8>> {
    if digits.is_empty() {
        return None;
    }
    // The lowest first.
    let mut limbs: Vec<u32> = Vec::with_capacity(digits.len() / 5 + 1);
    for part in digits.as_bytes().chunks(5) {
        let (mut value, mut factor) = (0, 1);
        for digit in part {
            value = value * 58 + u64::from(DIGITS[usize::from(*digit)].checked_sub(1)?);
            factor *= 58;
        }
        for limb in &mut limbs {
            value += u64::from(*limb) * factor;
            // What does not fit is carried.
            *limb = u32::try_from(value & u64::from(u32::MAX)).ok()?;
            value >>= 32;
        }
        if value > 0 {
            limbs.push(u32::try_from(value).ok()?);
        }
    }
    let number = limbs.iter().rev().flat_map(|limb| limb.to_be_bytes()).skip_while(|b| *b == 0);
    let zeros = digits.bytes().take_while(|d| *d == ALPHABET[0]).map(|_| 0);
    Some(zeros.chain(number).collect())
}

/// The base58 digits of bytes.
fn encoded(bytes: &[u8]) -> String {
    // The lowest first.
    let mut digits: Vec<u8> = Vec::new();
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = u8::try_from(carry % 58).unwrap_or_default();
            carry /= 58;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % 58).unwrap_or_default());
            carry /= 58;
        }
    }
    let zeros = bytes.iter().take_while(|b| **b == 0).map(|_| 0);
    let all = zeros.chain(digits.iter().rev().copied());
    all.map(|digit| char::from(ALPHABET[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is a failed test

    use super::*;

    #[test]
    fn subjects_are_keys() {
        // As shengdoushi/base58 and Bitcoin write them.
        for (bytes, digits) in [
            (&b"hello world"[..], "StV1DL6CwTryKyV"),
            (b"\0\0\x28\x7f\xb4\xcd", "11233QC4"),
            (b"a", "2g"),
            (b"/", "p"),
            (b"\0", "1"),
        ] {
            assert_eq!(encoded(bytes), digits);
            assert_eq!(decoded(digits).unwrap(), bytes);
        }
        let bytes: Vec<u8> = (0..=255).cycle().step_by(7).take(300).collect();
        for length in 1..bytes.len() {
            let bytes = &bytes[bytes.len() - length..];
            assert_eq!(decoded(&encoded(bytes)).unwrap(), bytes, "{length}");
        }
        let part = |text: &str| encoded(text.as_bytes());
        let subject = format!("{}.{}.{}", part("registry"), part("secrets"), part("a.b"));
        assert_eq!(key(&subject).unwrap(), b"/registry/secrets/a.b");
        assert_eq!(key(&format!("meta.{}", part("x"))).unwrap(), b"x");
        // An empty part.
        assert_eq!(key(&format!("{}.p.{}.p", part("a"), part("b"))).unwrap(), b"/a//b/");
        for none in ["", ".", "a..b", "0", "meta.", "a.O", "é"] {
            assert_eq!(key(none), None, "{none}");
        }
        assert_eq!(compact_subject(), format!("meta.{}", part("compact_rev_key_apiserver")));
        for (value, revision) in
            [("3|120", Some(120)), ("0|0", Some(0)), ("120", None), ("1|", None), ("", None)]
        {
            assert_eq!(compacted(value.as_bytes()), revision, "{value}");
        }
    }
}
