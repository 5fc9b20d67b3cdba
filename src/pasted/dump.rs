//! Hexadecimal: dumps with offsets, and plain digits.

use zeroize::Zeroizing;

use super::{Form, NotAValue, Pasted};

type Read = Result<(Form, Vec<Pasted>), NotAValue>;

const INSTEAD: &str = "give all lines of `hexdump -C` or `xxd`, from offset 00000000 on";

/// `hexdump -C` and `xxd`: lines of an offset, bytes and what they look like as text.
pub(super) fn read(input: &[u8]) -> Option<Read> {
    let first = input.split(|b| *b == b'\n').next()?;
    if let Some((offset, bytes)) = line(first)
        && !bytes.is_empty()
    {
        return Some(if offset == 0 {
            dump(input)
        } else {
            Err(NotAValue::new(
                format!("a hex dump that begins at offset {offset}: its beginning is missing"),
                INSTEAD,
            ))
        });
    }
    // `hexdump` and `od` without options: 16-bit words in the order of the machine's bytes.
    let words = first.strip_prefix(b"0000000").filter(|rest| rest.starts_with(b" "));
    words.map(|_| {
        Err(NotAValue::new(
            "a dump by `hexdump` or `od` without options, which swaps bytes",
            "give what `hexdump -C` or `xxd` prints",
        ))
    })
}

/// Offset and bytes of one line; the last one may have no bytes.
fn line(text: &[u8]) -> Option<(u64, Vec<u8>)> {
    let text = text.trim_ascii_end();
    let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits < 8 {
        return None;
    }
    let offset = u64::from_str_radix(std::str::from_utf8(&text[..digits]).ok()?, 16).ok()?;
    let (rest, end) = match text.get(digits..)? {
        // xxd: `00000000: 6b38 733a …  k8s:…`, the text after two spaces.
        [b':', b' ', rest @ ..] => (rest, memchr::memmem::find(rest, b"  ").unwrap_or(rest.len())),
        // hexdump -C: `00000000  6b 38 …  65 6e …  |k8s:…|`.
        [b' ', b' ', rest @ ..] => (rest, memchr::memmem::find(rest, b" |").unwrap_or(rest.len())),
        // The line that says where the dump ends.
        [] => return Some((offset, Vec::new())),
        _ => return None,
    };
    let packed: Vec<u8> =
        rest[..end].iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    Some((offset, digits_of(&packed)?))
}

fn dump(input: &[u8]) -> Read {
    let mut out: Zeroizing<Vec<u8>> = Zeroizing::new(Vec::new());
    let mut row: Vec<u8> = Vec::new();
    // A `*` stands for lines equal to the one before it.
    let mut repeated = false;
    let damaged = |at: usize| {
        NotAValue::new(format!("a hex dump in which something is missing at line {at}"), INSTEAD)
    };
    for (number, text) in input.split(|b| *b == b'\n').enumerate() {
        let text = text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if text == b"*" {
            repeated = true;
            continue;
        }
        let wrong = || damaged(number + 1);
        let (offset, bytes) = line(text).ok_or_else(wrong)?;
        let offset = usize::try_from(offset).map_err(|_| wrong())?;
        if repeated {
            if row.is_empty() || offset > super::LARGEST {
                return Err(wrong());
            }
            while out.len() < offset {
                out.extend_from_slice(&row);
            }
            repeated = false;
        }
        if out.len() != offset {
            return Err(wrong());
        }
        out.extend_from_slice(&bytes);
        row = bytes;
    }
    match super::spelt(&out) {
        Some(one) => Ok((Form::HexDump, vec![one])),
        None => Err(NotAValue::new(
            format!("a hex dump of {} bytes that begin as no stored value does", out.len()),
            "give the dump of what `etcdctl get KEY` prints",
        )),
    }
}

/// Plain digits of a value, with or without `0x`, or `\x` of `PostgreSQL` and etcdctl.
pub(super) fn hex(text: &[u8]) -> Option<Pasted> {
    let bytes = match text {
        [b'\\', b'x', ..] => Zeroizing::new(escaped(text)?),
        [b'0', b'x' | b'X', rest @ ..] => Zeroizing::new(digits_of(rest)?),
        _ => Zeroizing::new(digits_of(text)?),
    };
    super::spelt(&bytes)
}

/// `\x6b\x38…` of `etcdctl get --hex`, and `\x6b38…` of `PostgreSQL`.
pub(super) fn escaped(text: &[u8]) -> Option<Vec<u8>> {
    let rest = text.strip_prefix(br"\x")?;
    if !rest.contains(&b'\\') {
        return digits_of(rest);
    }
    let mut out = Vec::with_capacity(text.len() / 4);
    for four in text.chunks(4) {
        let [b'\\', b'x', high, low] = four else { return None };
        out.extend(digits_of(&[*high, *low])?);
    }
    Some(out)
}

/// Bytes of pairs of digits; at least one.
pub(super) fn digits_of(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| (b as char).to_digit(16);
    text.chunks(2).map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()).collect()
}
