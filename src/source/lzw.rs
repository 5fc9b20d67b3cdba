//! LZW as Go's `compress/lzw` writes it (least significant bits first, literals of eight bits),
//! which Gardener's etcd-backup-restore may be told to use (`pkg/compressor/compressor.go`).
//!
//! Such a stream has nothing that it could be known by, so what it unpacks to is looked at.

use std::io::{self, BufRead, BufReader, Read};

use weezl::decode::Decoder;
use weezl::{BitOrder, LzwStatus};

use super::magic::{EVENTS, is_database};

/// Bytes that are unpacked to see what they are: the second meta page is in it where pages are as
/// small as anybody has them.
const LOOK: u64 = 9 << 10;

/// Whether bytes begin as a database or a list of events in this compression.
pub(super) fn is_lzw(head: &[u8]) -> bool {
    // Go's writer sends a clear code first, 256 in nine bits.
    let [0, second, ..] = head else { return false };
    if second & 1 == 0 {
        return false;
    }
    let mut out = zeroize::Zeroizing::new(Vec::with_capacity(10 << 10));
    // What is cut has shown enough.
    let _ = Unpacked::new(head).take(LOOK).read_to_end(&mut out);
    is_database(&out) || out.starts_with(EVENTS)
}

/// Unpacks a stream.
pub(super) struct Unpacked<R> {
    reader: BufReader<R>,
    decoder: Decoder,
    ended: bool,
}

impl<R: Read> Unpacked<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader: BufReader::new(reader),
            decoder: Decoder::new(BitOrder::Lsb, 8),
            ended: false,
        }
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !buffer.is_empty() {
            let input = self.reader.fill_buf()?;
            let at_end = input.is_empty();
            let done = self.decoder.decode_bytes(input, buffer);
            self.reader.consume(done.consumed_in);
            match done.status {
                Ok(LzwStatus::Done) => self.ended = true,
                Ok(_) if at_end && done.consumed_out == 0 => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(_) => {}
                Err(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "damaged LZW")),
            }
            if done.consumed_out > 0 {
                return Ok(done.consumed_out);
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Unpacked::new(bytes).read_to_end(&mut out).map(|_| out)
    }

    /// golang/go `src/compress/lzw/reader_test.go`: `tobe;LSB;8`, and one byte of its own kind.
    #[test]
    fn what_go_writes_is_read() {
        let tobe =
            b"\x54\x9e\x08\x29\xf2\x44\x8a\x93\x27\x54\x04\x12\x34\xb8\xb0\xe0\xc1\x84\x01\x01";
        assert_eq!(unpacked(tobe).unwrap(), b"TOBEORNOTTOBEORTOBEORNOT");
        assert!(unpacked(&tobe[..10]).is_err());
    }

    #[test]
    fn long_streams_are_read_and_known_by_what_they_hold() {
        let mut plain = EVENTS.to_vec();
        let mut state = 1u32;
        plain.extend((0..300_000).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'a' + (state >> 28).to_le_bytes()[0]
        }));
        let packed = weezl::encode::Encoder::new(BitOrder::Lsb, 8).encode(&plain).unwrap();
        assert!(is_lzw(&packed));
        assert_eq!(unpacked(&packed).unwrap(), plain);
        assert!(unpacked(&packed[..packed.len() / 2]).is_err());
        let other = weezl::encode::Encoder::new(BitOrder::Lsb, 8).encode(b"something").unwrap();
        assert!(!is_lzw(&other) && !is_lzw(&plain) && !is_lzw(b""));
    }
}
