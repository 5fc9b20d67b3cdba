//! Writes a snapshot file of many secrets, for benchmarks: `make_snapshot FILE COUNT [prefix]`.
//!
//! Values are 600 to 900 bytes, stored under a throwaway secretbox key name; their payload is
//! noise, so they cannot be decrypted.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write as _};

use atrest::bolt::write::Writer;
use atrest::proto::{put_bytes, put_varint};
use sha2::{Digest as _, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: make_snapshot FILE COUNT [PREFIX]")?;
    let count: u64 = args.next().ok_or("how many secrets?")?.parse()?;
    let prefix = args.next().unwrap_or_else(|| "k8s:enc:secretbox:v1:key1:".to_owned());
    let mut noise = 0x2545_F491_4F6C_DD1Du64;
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    let mut writer = Writer::new(BufWriter::with_capacity(1 << 20, file), 4096)?;
    let mut bucket = writer.bucket(b"key");
    for i in 0..count {
        let revision = i + 2;
        let mut value = prefix.clone().into_bytes();
        let len = usize::try_from(600 + i * 7919 % 301)?;
        while value.len() < len {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            value.extend(noise.to_le_bytes());
        }
        let mut record = Vec::with_capacity(len + 100);
        let key = format!("/registry/secrets/ns-{:03}/secret-{i:07}", i % 200);
        put_bytes(&mut record, 1, key.as_bytes());
        for (number, n) in [(2u8, revision), (3, revision), (4, 1)] {
            record.push(number << 3);
            put_varint(&mut record, n);
        }
        put_bytes(&mut record, 5, &value);
        let mut bolt_key = revision.to_be_bytes().to_vec();
        bolt_key.push(b'_');
        bolt_key.extend([0; 8]);
        bucket.put(&bolt_key, &record)?;
    }
    bucket.finish()?;
    writer.bucket(b"meta").finish()?;
    writer.finish(2)?.into_inner()?.sync_all()?;
    let digest = Sha256::digest(std::fs::read(&path)?);
    File::options().append(true).open(&path)?.write_all(&digest)?;
    Ok(())
}
