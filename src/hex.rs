//! Bytes as hexadecimal digits: all of them, or those that a text cannot have.

/// Two lower-case digits for each byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, b| {
        // Writing to a string does not fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// As text, in which every byte that is not `plain` is a percent sign and two upper-case digits
/// (RFC 3986, 2.1). The percent sign itself must not be plain.
#[must_use]
pub fn percent(bytes: &[u8], plain: impl Fn(u8) -> bool) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len()), |mut out, &b| {
        if plain(b) {
            out.push(char::from(b));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

/// What two digits stand for, in upper or lower case.
fn byte(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// The bytes that such digits stand for; `None` for anything else.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| byte(*pair.first()?, *pair.get(1)?)).collect()
}

/// The bytes of a text with such escapes; `None` where a percent sign has no two digits.
#[must_use]
pub fn from_percent(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(if b == b'%' { byte(bytes.next()?, bytes.next()?)? } else { b });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_escapes_are_read_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&hex(&all)), Some(all.clone()));
        assert_eq!(from_percent(&percent(&all, |b| b.is_ascii_alphanumeric())), Some(all));
        assert_eq!(from_hex("aF"), Some(vec![0xaf]));
        for text in ["a", "abc", "+f", "g0", "0 "] {
            assert_eq!(from_hex(text), None, "{text}");
        }
        for text in ["%", "%4", "%+f", "a%4g"] {
            assert_eq!(from_percent(text), None, "{text}");
        }
    }
}
