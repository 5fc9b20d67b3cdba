//! Object names → file names.

use ring::digest::{SHA256, digest};

use crate::hex::{hex, percent};
use crate::resource::group_of;

/// Longest file name that common file systems take, bytes.
const LONGEST: usize = 255;

/// A file name for an object name: lowercase letters, digits, `-`, `_` and inner dots stand for
/// themselves, every other byte becomes `%XX`. Names that differ only by case therefore stay
/// apart on file systems that ignore it, and no name is special to any system. Names too long
/// for a file are cut and told apart by a hash of the whole name.
#[must_use]
pub fn file_name(name: impl AsRef<[u8]>, extension: &str) -> String {
    let name = name.as_ref();
    let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    // A file that begins with a dot is hidden.
    let (first, rest) = name.split_at(name.len().min(1));
    let mut out = percent(first, |b| b != b'.' && inner(b)) + &percent(rest, inner);
    if out.is_empty() {
        // Nothing else encodes to a lone percent sign.
        out.push('%');
    }
    if out.len() + extension.len() > LONGEST {
        let hash = format!("%~{}", hex(&digest(&SHA256, name).as_ref()[..16]));
        out.truncate(LONGEST - extension.len() - hash.len());
        out.push_str(&hash);
    }
    out.push_str(extension);
    out
}

/// The two topmost directories of an object's file: the group, `core` for the one without a
/// name, and the resource.
#[must_use]
pub fn top(resource: &str) -> (&str, &str) {
    let name = resource.split('.').next().unwrap_or_default();
    match group_of(resource) {
        "" => ("core", name),
        group => (group, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stand_for_themselves() {
        assert_eq!(
            file_name("sh.helm.release.v1.app.v1", ".yaml"),
            "sh.helm.release.v1.app.v1.yaml"
        );
        assert_eq!(file_name("system:node", ""), "system%3Anode");
        assert_eq!(file_name("..", ""), "%2E.");
        assert_eq!(file_name("Foo", ""), "%46oo");
        assert_eq!(file_name("a%41", ""), "a%2541");
        assert_eq!(file_name(b"\xFFa", ""), "%FFa");
    }

    #[test]
    fn long_names_fit_and_differ() {
        let a = file_name("x".repeat(300), ".yaml");
        let b = file_name("x".repeat(301), ".yaml");
        assert_eq!((a.len(), b.len()), (255, 255));
        assert_ne!(a, b);
    }
}
