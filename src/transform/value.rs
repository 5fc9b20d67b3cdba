//! Recognising an object that no tag vouches for.

use crate::storage::{self, is_kubernetes_value};

/// Whether decrypted bytes that no tag vouches for are a stored object. Stricter than
/// [`is_kubernetes_value`], because one random value in 256 begins with a brace: JSON must go on
/// with a name or end, and end with a brace; CBOR must be a map. YAML is text that says its type.
pub(super) fn is_plausible_object(bytes: &[u8]) -> bool {
    if !is_kubernetes_value(bytes) {
        return storage::is_object(bytes);
    }
    match bytes {
        [0xD9, 0xD9, 0xF7, rest @ ..] => matches!(rest.first(), Some(0xA0..=0xBF)),
        [b'k', ..] => true,
        json => {
            let mut inner = json.trim_ascii().iter().skip_while(|b| **b != b'{').skip(1);
            matches!(inner.find(|b| !b.is_ascii_whitespace()), Some(b'"' | b'}'))
                && json.trim_ascii_end().last() == Some(&b'}')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognised_at_offset_zero_only() {
        for yes in [&b"k8s\0"[..], b"{}", b" \t\r\n{", b"\xd9\xd9\xf7\xa0"] {
            assert!(is_kubernetes_value(yes), "{}", yes.escape_ascii());
        }
        for no in [&b""[..], b"k8s", b"k8s:enc:x", b" k8s\0", b"[]", b"\xd9\xd9", b"x{", b"  "] {
            assert!(!is_kubernetes_value(no), "{}", no.escape_ascii());
        }
    }

    #[test]
    fn what_no_tag_vouches_for_is_looked_at_more_closely() {
        for yes in [
            &b"k8s\0"[..],
            b"{}",
            b" {\n} \n",
            b"{\"a\":1}\n",
            b"{ \"a\":{}}",
            b"\xd9\xd9\xf7\xa0",
            b"apiVersion: v1\nkind: Secret\n",
        ] {
            assert!(is_plausible_object(yes), "{}", yes.escape_ascii());
        }
        for no in [&b"{"[..], b"{garbage}", b"{\"a\"", b"\xd9\xd9\xf7", b"\xd9\xd9\xf7\x01", b""] {
            assert!(!is_plausible_object(no), "{}", no.escape_ascii());
        }
    }
}
