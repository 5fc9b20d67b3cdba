//! S2, which kine compresses values with: Snappy's framing and blocks, and copies that repeat the
//! last distance (klauspost/compress `s2/README.md`, `s2/decode_other.go`; google/snappy
//! `framing_format.txt`, `format_description.txt`).

use zeroize::Zeroizing;

/// What a stream begins with: S2's own words, or Snappy's.
const BEGINS: [&[u8]; 2] = [b"\xff\x06\0\0S2sTwO", b"\xff\x06\0\0sNaPpY"];
/// Most bytes of a block (klauspost/compress `s2/s2.go`: `maxBlockSize`).
const BLOCK: usize = 4 << 20;

/// What a stream holds, at most `limit` bytes; `None` where it is none, damaged, or more.
pub(super) fn decompressed(stream: &[u8], limit: usize) -> Option<Zeroizing<Vec<u8>>> {
    if !BEGINS.iter().any(|words| stream.starts_with(words)) {
        return None;
    }
    let mut out = Zeroizing::new(Vec::new());
    let mut rest = stream;
    while let [kind, a, b, c, after @ ..] = rest {
        let length = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
        let (chunk, next) = after.split_at_checked(length)?;
        rest = next;
        match kind {
            0 | 1 => {
                let (sum, data) = chunk.split_at_checked(4)?;
                let from = out.len();
                let room = limit.checked_sub(from)?;
                if *kind == 0 {
                    block(data, room, &mut out)?;
                } else if data.len() <= room {
                    extend(&mut out, data);
                } else {
                    return None;
                }
                if masked(crc32c::crc32c(&out[from..])).to_le_bytes() != sum {
                    return None;
                }
            }
            // Unknown, and not to be skipped.
            2..=0x7f => return None,
            // Padding, an index, or another stream's beginning.
            _ => {}
        }
    }
    rest.is_empty().then_some(out)
}

/// Snappy's sums are kept so that a sum of sums is none.
fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Appends, and leaves no copy behind where the bytes have to move.
fn extend(out: &mut Zeroizing<Vec<u8>>, bytes: &[u8]) {
    grow(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Makes room for `more` bytes.
fn grow(out: &mut Zeroizing<Vec<u8>>, more: usize) {
    if out.capacity() - out.len() < more {
        let mut larger = Zeroizing::new(Vec::with_capacity((out.len() + more).max(2 * out.len())));
        larger.extend_from_slice(out);
        *out = larger;
    }
}

/// One block: literals, and copies of what came before in it.
fn block(data: &[u8], room: usize, out: &mut Zeroizing<Vec<u8>>) -> Option<()> {
    let (length, mut rest) = varint(data)?;
    if length > room.min(BLOCK) {
        return None;
    }
    grow(out, length);
    let from = out.len();
    let end = from + length;
    let mut distance = 0;
    while let Some((&tag, after)) = rest.split_first() {
        let (length, after) = match tag & 3 {
            0 => {
                let (length, after) = literal(tag >> 2, after)?;
                let (bytes, after) = after.split_at_checked(length)?;
                if length > end - out.len() {
                    return None;
                }
                out.extend_from_slice(bytes);
                rest = after;
                continue;
            }
            1 => {
                let (&low, after) = after.split_first()?;
                let code = usize::from(tag >> 2 & 7);
                let far = usize::from(tag & 0xe0) << 3 | usize::from(low);
                if far == 0 {
                    repeated(code, after)?
                } else {
                    distance = far;
                    (code + 4, after)
                }
            }
            more => {
                let (far, after) = number(if more == 2 { 2 } else { 4 }, after)?;
                distance = far;
                (usize::from(tag >> 2) + 1, after)
            }
        };
        rest = after;
        if distance == 0 || distance > out.len() - from || length > end - out.len() {
            return None;
        }
        copy(out, distance, length);
    }
    (out.len() == end).then_some(())
}

/// Copies what lies `distance` back; where that is less than `length`, it repeats itself.
fn copy(out: &mut Vec<u8>, distance: usize, mut length: usize) {
    let from = out.len() - distance;
    while length > 0 {
        let part = length.min(out.len() - from);
        out.extend_from_within(from..from + part);
        length -= part;
    }
}

/// The length of a literal whose tag says `code`.
fn literal(code: u8, rest: &[u8]) -> Option<(usize, &[u8])> {
    if code < 60 {
        return Some((usize::from(code) + 1, rest));
    }
    let (length, rest) = number(usize::from(code) - 59, rest)?;
    Some((length.checked_add(1)?, rest))
}

/// The length of a copy from the last distance.
fn repeated(code: usize, rest: &[u8]) -> Option<(usize, &[u8])> {
    let (bytes, more) = match code {
        5 => (1, 8),
        6 => (2, 4 + (1 << 8)),
        7 => (3, 4 + (1 << 16)),
        _ => return Some((code + 4, rest)),
    };
    let (length, rest) = number(bytes, rest)?;
    Some((length + more, rest))
}

/// A number of so many bytes, the lowest first.
fn number(bytes: usize, rest: &[u8]) -> Option<(usize, &[u8])> {
    let (bytes, rest) = rest.split_at_checked(bytes)?;
    Some((bytes.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b)), rest))
}

/// A length as protobuf writes numbers; none of a block needs more than five bytes.
fn varint(data: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0;
    for (i, byte) in data.iter().take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((length, &data[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is a failed test

    use super::*;

    fn stream(chunks: &[(u8, &[u8], &[u8])]) -> Vec<u8> {
        let mut out = BEGINS[0].to_vec();
        for (kind, data, plain) in chunks {
            out.push(*kind);
            let length = u32::try_from(data.len() + 4).unwrap().to_le_bytes();
            out.extend_from_slice(&length[..3]);
            out.extend_from_slice(&masked(crc32c::crc32c(plain)).to_le_bytes());
            out.extend_from_slice(data);
        }
        out
    }

    fn read(chunks: &[(u8, &[u8], &[u8])]) -> Option<Vec<u8>> {
        decompressed(&stream(chunks), 1 << 20).map(|out| out.to_vec())
    }

    #[test]
    fn every_kind_of_element() {
        // Literal "ab", copy 4 from 2, repeat 4, repeat 8 + 0, copy of two bytes' distance.
        let block = b"\x18\x04ab\x01\x02\x01\x00\x15\x00\x00\x16\x02\x00";
        let plain = b"ab".repeat(12);
        assert_eq!(read(&[(0, block, &plain)]).unwrap(), plain);
        // A long literal, and a copy of four bytes' distance.
        let long: Vec<u8> = (0..=255).cycle().take(300).collect();
        let mut block = vec![0xae, 0x02, 61 << 2, 0x2b, 0x01];
        block.extend_from_slice(&long);
        block.extend_from_slice(&[1 << 2 | 3, 0x2c, 0x01, 0, 0]);
        let plain: Vec<u8> = long.iter().copied().chain([0, 1]).collect();
        assert_eq!(read(&[(0, &block, &plain), (1, b"end", b"end")]).unwrap(), {
            let mut all = plain.clone();
            all.extend_from_slice(b"end");
            all
        });
        assert_eq!(read(&[]).unwrap(), b"");
        assert_eq!(read(&[(0xfe, b"", b"")]).unwrap(), b"", "padding");
    }

    #[test]
    fn what_is_damaged_or_too_much_is_nothing() {
        let good = stream(&[(0, b"\x06\x04ab\x01\x02", b"ababab"), (1, b"xyz", b"xyz")]);
        assert_eq!(decompressed(&good, 9).unwrap().as_slice(), b"abababxyz");
        assert_eq!(decompressed(&good, 8), None, "more than the limit");
        for cut in 0..good.len() {
            let whole = [BEGINS[0].len(), good.len() - 11].contains(&cut);
            assert_eq!(decompressed(&good[..cut], 99).is_some(), whole, "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            // The length that a stream's name has is no part of the name.
            let _ = decompressed(&bad, 99);
        }
        for block in [
            &b"\x06\x04ab\x01\x03"[..],
            b"\x06\x04ab\x01\x00",
            b"\x05\x04ab\x01\x02",
            b"\x07\x04ab\x01\x02",
            b"\xff\xff\xff\xff\x0f",
            b"\xff\xff\xff\xff\xff\x01",
            b"\x02\x04a",
        ] {
            assert_eq!(read(&[(0, block, b"ababab")]), None, "{block:?}");
        }
        assert_eq!(read(&[(2, b"", b"")]), None, "a chunk nobody knows");
        assert_eq!(decompressed(b"{}", 99), None);
    }
}
