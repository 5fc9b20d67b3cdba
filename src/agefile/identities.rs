//! Secret keys of age.

use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::rc::Rc;
use std::str::FromStr as _;

use age::armor::ArmoredReader;
use age::{DecryptError, Decryptor, x25519};

use super::{IdentityError, Sealed, is_age};

/// Bytes that the header of an age file may have: 600 recipients. It is held and looked through
/// line by line, so that one made to be endless would take all memory.
const LARGEST_HEADER: u64 = 64 << 10;
/// Bytes of a line of an age file in text, which has 64; the crate reads a line at once.
const LONGEST_LINE: usize = 1 << 10;
/// What is read at once.
const CHUNK: usize = 16 << 10;

/// Secret keys that open age files.
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// Of a file as `age-keygen` writes it: one a line, comments begin with `#`.
    ///
    /// # Errors
    /// When there is none, or something else.
    pub fn parse(bytes: &[u8]) -> Result<Self, IdentityError> {
        if is_age(bytes) {
            return Err(IdentityError::Encrypted);
        }
        let mut all = Vec::new();
        for (i, line) in bytes.split(|b| *b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let wrong = |why| IdentityError::Line { line: i + 1, why };
            let text = std::str::from_utf8(line).map_err(|_| wrong("it is no text"))?;
            let identity = x25519::Identity::from_str(text).map_err(|_| {
                wrong(match text.as_bytes() {
                    [b'a', b'g', b'e', b'1', ..] => "it is the public half, a recipient",
                    t if t.starts_with(b"AGE-PLUGIN-") => "those of plugins are not supported",
                    t if t.starts_with(b"AGE-SECRET-KEY-PQ-") => {
                        "post-quantum ones are not supported"
                    }
                    t if t.starts_with(b"AGE-SECRET-KEY-1") => "a character is wrong or missing",
                    _ => "one begins with AGE-SECRET-KEY-1",
                })
            })?;
            all.push(identity);
        }
        if all.is_empty() { Err(IdentityError::None) } else { Ok(Self(all)) }
    }

    /// Adds those of another file.
    pub fn join(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// The other halves, `age1…`.
    pub(super) fn recipients(&self) -> Vec<String> {
        self.0.iter().map(|i| i.to_public().to_string()).collect()
    }

    /// See [`super::Unlock::open`].
    pub(super) fn open<'r>(
        these: Option<&Self>,
        armored: bool,
        reader: impl Read + 'r,
    ) -> Result<Box<dyn Read + 'r>, Sealed> {
        let left = Rc::new(Cell::new(Some(LARGEST_HEADER)));
        let reader = Header { reader, left: Rc::clone(&left) };
        if armored {
            let reader = ArmoredReader::new(Lines { reader, len: 0 });
            return decrypted(these, BufReader::with_capacity(CHUNK, reader), &left);
        }
        decrypted(these, BufReader::with_capacity(CHUNK, reader), &left)
    }
}

fn decrypted<'r>(
    these: Option<&Identities>,
    reader: impl io::BufRead + 'r,
    left: &Cell<Option<u64>>,
) -> Result<Box<dyn Read + 'r>, Sealed> {
    let failed = |error: DecryptError| match error {
        DecryptError::NoMatchingKeys => Sealed::NotForThese,
        _ => Sealed::Damaged,
    };
    let decryptor = Decryptor::new_buffered(reader).map_err(failed)?;
    left.set(None);
    if decryptor.is_scrypt() {
        return Err(Sealed::Passphrase);
    }
    let Some(Identities(these)) = these else { return Err(Sealed::Locked) };
    let opened =
        decryptor.decrypt(these.iter().map(|i| i as &dyn age::Identity)).map_err(failed)?;
    Ok(Box::new(opened))
}

/// Ends where a header is too large to be one.
struct Header<R> {
    reader: R,
    /// Bytes that it may still have, until it was read.
    left: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Read for Header<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        if let Some(left) = self.left.get() {
            let left = left.checked_sub(n as u64);
            self.left.set(Some(left.ok_or(io::ErrorKind::InvalidData)?));
        }
        Ok(n)
    }
}

/// Fails at a line that is too long.
struct Lines<R> {
    reader: R,
    /// Of the line so far.
    len: usize,
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        for line in buffer[..n].split_inclusive(|b| *b == b'\n') {
            self.len += line.len();
            if self.len > LONGEST_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if line.ends_with(b"\n") {
                self.len = 0;
            }
        }
        Ok(n)
    }
}
