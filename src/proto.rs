//! protobuf's wire format: a bounded reader, shared by the rooms that read stored messages, and
//! what little is written.
//!
//! The reader borrows, never allocates, and reports damage as a value: lengths are checked against the
//! bytes left before they are used.

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Field number, 1 or more.
    pub number: u32,
    /// The value.
    pub value: Wire<'a>,
    /// Offset of the field's tag in the message, in bytes.
    pub offset: usize,
}

/// A field's value as it lies on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wire<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl std::fmt::Debug for Wire<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Varint(_) => f.write_str("varint"),
            Self::Fixed64(_) => f.write_str("fixed64"),
            Self::Bytes(b) => write!(f, "<{} bytes>", b.len()),
            Self::Fixed32(_) => f.write_str("fixed32"),
        }
    }
}

impl<'a> Field<'a> {
    /// The bytes of a length-delimited field.
    #[must_use]
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self.value {
            Wire::Bytes(b) => Some(b),
            _ => None,
        }
    }

    /// The number in a varint field.
    #[must_use]
    pub fn varint(&self) -> Option<u64> {
        match self.value {
            Wire::Varint(v) => Some(v),
            _ => None,
        }
    }

    /// A varint field as `int64` (protobuf's plain, not zigzag, form).
    #[must_use]
    pub fn int64(&self) -> Option<i64> {
        self.varint().map(u64::cast_signed)
    }
}

/// The bytes are not a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf at byte {offset}")]
pub struct Malformed {
    /// Offset of the field that could not be read.
    pub offset: usize,
}

/// Iterates over the fields of one message; stops after the first error.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Reads `message`.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    /// Offset of the next field, in bytes.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    #[inline]
    fn read(&mut self) -> Option<Field<'a>> {
        let offset = self.at;
        let tag = self.read_varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| (1..1 << 29).contains(n))?;
        let value = match tag & 7 {
            0 => Wire::Varint(self.read_varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let len = usize::try_from(self.read_varint()?).ok()?;
                Wire::Bytes(self.take(len)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some(Field { number, value, offset })
    }

    #[inline]
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let bytes = self.message.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    #[inline]
    fn read_varint(&mut self) -> Option<u64> {
        let (value, len) = varint(self.message.get(self.at..)?)?;
        self.at += len;
        Some(value)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.message.len() {
            return None;
        }
        let offset = self.at;
        Some(self.read().ok_or_else(|| {
            self.at = self.message.len();
            Malformed { offset }
        }))
    }
}

/// Reads a varint of at most 10 bytes: value and length in bytes.
#[must_use]
#[inline]
pub fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, &b) in bytes.iter().take(10).enumerate() {
        if i == 9 && b > 1 {
            return None;
        }
        value |= u64::from(b & 0x7F) << (7 * i);
        if b < 0x80 {
            return Some((value, i + 1));
        }
    }
    None
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[allow(clippy::cast_possible_truncation)] // Seven bits.
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    #[allow(clippy::cast_possible_truncation)] // Below 0x80.
    out.push(value as u8);
}

/// Appends a field of bytes: a string, bytes or a message.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_bounded_by_what_is_left() {
        for bad in [
            &[0x0a, 5, 1, 2][..],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x00, 1],
            &[0x0b],
            &[0x0f],
            &[0x08],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        ] {
            assert!(Fields::new(bad).last().unwrap().is_err(), "{bad:x?}");
            assert_eq!(Fields::new(bad).count(), 1, "stops after the error");
        }
    }

    #[test]
    fn negative_int64_takes_ten_bytes() {
        let minus_one = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let f = Fields::new(&minus_one).next().unwrap().unwrap();
        assert_eq!(f.int64(), Some(-1));
    }
}
