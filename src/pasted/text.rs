//! Quoted strings and base64.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::{Form, NotAValue, Pasted};

type Read = Result<(Form, Vec<Pasted>), NotAValue>;

/// `"…"`: Go's quoting of a value, or base64 in quotes, several of them on lines of their own.
pub(super) fn quoted(input: &[u8]) -> Option<Read> {
    if input.first() != Some(&b'"') {
        return None;
    }
    let one = |line: &[u8]| {
        let bytes = go_unquoted(line.trim_ascii())?;
        if let Some(value) = super::spelt(&bytes) {
            return Some((Form::Quoted, value));
        }
        base64(&bytes).map(|value| (Form::QuotedBase64, value))
    };
    let lines = input.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty());
    match lines.map(one).collect::<Option<Vec<_>>>() {
        Some(all) => {
            let form = all.first().map_or(Form::Quoted, |(form, _)| *form);
            Some(Ok((form, all.into_iter().map(|(_, value)| value).collect())))
        }
        None if go_unquoted(input).is_none() => Some(Err(NotAValue::new(
            "a string in quotes that is cut, wrapped or not closed",
            "give what `etcdctl get KEY -w json` prints, whole",
        ))),
        None => Some(Err(NotAValue::new(
            "a string in quotes that spells no stored value",
            "give what `etcdctl get KEY -w json` prints",
        ))),
    }
}

/// Hexadecimal digits or base64 without quotes, wrapped or one value a line.
pub(super) fn unquoted(input: &[u8]) -> Option<Read> {
    for (form, read) in [(Form::Hex, super::dump::hex as fn(&[u8]) -> _), (Form::Base64, base64)] {
        let lines = input.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty());
        // Several values before one wrapped value: a line inside of one begins as none.
        if let Some(all) = lines.map(|line| read(line.trim_ascii())).collect::<Option<Vec<_>>>() {
            return Some(Ok((form, all)));
        }
        let whole: Zeroizing<Vec<u8>> =
            Zeroizing::new(input.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect());
        if let Some(one) = read(&whole) {
            return Some(Ok((form, vec![one])));
        }
    }
    None
}

/// Base64 of a value or of what `etcdctl get KEY` prints, in either alphabet.
pub(super) fn base64(text: &[u8]) -> Option<Pasted> {
    let bytes = Zeroizing::new(decoded(text)?);
    super::spelt(&bytes)
}

/// What base64 text in any of the usual alphabets spells.
pub(super) fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD]
        .into_iter()
        .find_map(|alphabet| alphabet.decode(text).ok())
}

/// The bytes of a string as Go's `strconv.Quote` writes it; JSON's strings are of the same kind.
/// `None` unless it is one such string and nothing else.
pub(super) fn go_unquoted(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut rest = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut out = Zeroizing::new(Vec::with_capacity(rest.len()));
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'"' | b'\n' => return None,
            b'\\' => rest = escape(after, &mut out)?,
            byte => out.push(byte),
        }
    }
    Some(out)
}

/// What follows a backslash; the rest after it.
fn escape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let number = |digits: &[u8], radix| {
        let digits = std::str::from_utf8(digits).ok()?;
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(())?;
        u32::from_str_radix(digits, radix).ok()
    };
    let (&kind, rest) = text.split_first()?;
    let plain = match kind {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0B,
        b'\\' | b'\'' | b'"' | b'/' => kind,
        b'x' => {
            out.push(u8::try_from(number(rest.get(..2)?, 16)?).ok()?);
            return rest.get(2..);
        }
        b'0'..=b'7' => {
            out.push(u8::try_from(number(text.get(..3)?, 8)?).ok()?);
            return text.get(3..);
        }
        b'u' | b'U' => {
            let len = if kind == b'u' { 4 } else { 8 };
            let character = char::from_u32(number(rest.get(..len)?, 16)?)?;
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return rest.get(len..);
        }
        _ => return None,
    };
    out.push(plain);
    Some(rest)
}
