//! Snapshots made by hand, for keys and values that no API server writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use atrest::bolt::write::Writer;
use sha2::{Digest as _, Sha256};

/// The live state of a snapshot being put together.
#[derive(Default)]
pub struct Crafted {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(u8::try_from(n & 0x7F).unwrap() | 0x80);
        n >>= 7;
    }
    out.push(u8::try_from(n).unwrap());
}

fn bytes_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

impl Crafted {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.entries.insert(key.into(), value.into());
        self
    }

    /// Writes it as `etcdctl snapshot save` does: bbolt pages, then their SHA-256. Entry number n,
    /// counted from 0 in key order, was written once, at revision n + 2.
    pub fn write(&self, path: &Path) {
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        let mut writer = Writer::new(BufWriter::new(file), 4096).unwrap();
        let mut bucket = writer.bucket(b"key");
        for (revision, (key, value)) in (2u64..).zip(&self.entries) {
            let mut record = Vec::new();
            bytes_field(&mut record, 1, key);
            for (number, n) in [(2u8, revision), (3, revision), (4, 1)] {
                record.push(number << 3);
                varint(&mut record, n);
            }
            bytes_field(&mut record, 5, value);
            let mut bolt_key = revision.to_be_bytes().to_vec();
            bolt_key.push(b'_');
            bolt_key.extend([0; 8]);
            bucket.put(&bolt_key, &record).unwrap();
        }
        bucket.finish().unwrap();
        writer.bucket(b"meta").finish().unwrap();
        writer.finish(2).unwrap().into_inner().unwrap().sync_all().unwrap();
        let digest = Sha256::digest(std::fs::read(path).unwrap());
        File::options().append(true).open(path).unwrap().write_all(&digest).unwrap();
    }

    /// As [`Crafted::write`], to a file that goes when the value goes.
    pub fn file(&self) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        self.write(file.path());
        file
    }
}
