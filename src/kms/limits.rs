//! What the API server takes from a plugin of KMS v2 (kubernetes/apiserver
//! `pkg/storage/value/encrypt/envelope/kmsv2/envelope.go`).

/// Longest key ID in bytes.
const MAX_KEY_ID: usize = 1024;
/// Longest wrapped data key in bytes.
const MAX_SOURCE: usize = 1024;
/// Most bytes of annotations, keys and values together.
const MAX_ANNOTATIONS: usize = 32 * 1024;

/// Checks a plugin's key ID; says what is wrong.
pub(crate) fn validate_key_id(key_id: &str) -> Result<(), &'static str> {
    match key_id.len() {
        0 => Err("the KMS key ID is empty"),
        1..=MAX_KEY_ID => Ok(()),
        _ => Err("the KMS key ID is over 1024 bytes"),
    }
}

/// Checks a wrapped data key; says what is wrong.
pub(crate) fn validate_source(source: &[u8]) -> Result<(), &'static str> {
    match source.len() {
        0 => Err("the wrapped KMS data key is empty"),
        1..=MAX_SOURCE => Ok(()),
        _ => Err("the wrapped KMS data key is over 1024 bytes"),
    }
}

/// Checks a plugin's annotations; says what is wrong.
pub(crate) fn validate_annotations(annotations: &[(&str, &[u8])]) -> Result<(), &'static str> {
    if annotations.iter().any(|(name, _)| !is_fully_qualified(name)) {
        return Err("a KMS annotation's name is not a fully qualified domain name");
    }
    let size: usize = annotations.iter().map(|(n, v)| n.len() + v.len()).sum();
    if size > MAX_ANNOTATIONS {
        return Err("the KMS annotations are over 32 KiB");
    }
    Ok(())
}

/// A DNS-1123 subdomain of two labels or more, with or without a final dot
/// (apimachinery `pkg/util/validation/validation.go`: `IsFullyQualifiedDomainName`).
fn is_fully_qualified(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |l: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(inner)
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(label)
}
