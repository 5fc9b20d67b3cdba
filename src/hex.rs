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
