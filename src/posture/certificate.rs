//! Certificates as far as they say whose they are and when they end (RFC 5280).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The common name of its subject, or `?`.
    pub subject: String,
    /// When it ends.
    pub ends: Timestamp,
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates in PEM text; none for anything else.
pub(super) fn all(bytes: &[u8]) -> Vec<Certificate> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
    let mut found = Vec::new();
    for part in text.split(BEGIN).skip(1) {
        let Some((body, _)) = part.split_once(END) else { continue };
        let packed: String = body.chars().filter(|c| !c.is_whitespace()).collect();
        found.extend(STANDARD.decode(packed).ok().and_then(|der| read(&der)));
    }
    found
}

/// Tag, content and rest of a DER value.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(first & 0x7F);
        if count > 4 {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(count)?;
        (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((*tag, content, rest))
}

fn read(der: &[u8]) -> Option<Certificate> {
    let (_, certificate, _) = value(der)?;
    let (_, mut tbs, _) = value(certificate)?;
    let (tag, _, rest) = value(tbs)?;
    // The version is optional.
    if tag == 0xA0 {
        tbs = rest;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        tbs = value(tbs)?.2;
    }
    let (_, validity, rest) = value(tbs)?;
    let (_, subject, _) = value(rest)?;
    let (_, _, after) = value(validity)?;
    let (tag, ends, _) = value(after)?;
    Some(Certificate { subject: common_name(subject), ends: time(tag, ends)? })
}

/// `UTCTime` (tag 23) or `GeneralizedTime`, always in UTC.
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let full = match (tag, text.len()) {
        (23, 12) => {
            let century = if text[..2].parse::<u8>().ok()? < 50 { "20" } else { "19" };
            format!("{century}{text}")
        }
        (24, 14) => text.to_owned(),
        _ => return None,
    };
    let number = |from: usize| full[from..from + 2].parse::<i8>().ok();
    let year = full[..4].parse().ok()?;
    let date = DateTime::new(year, number(4)?, number(6)?, number(8)?, number(10)?, number(12)?, 0);
    Offset::UTC.to_timestamp(date.ok()?).ok()
}

/// The last common name (2.5.4.3) of a name.
fn common_name(mut name: &[u8]) -> String {
    const ID: &[u8] = &[0x55, 0x04, 0x03];
    let mut found = "?".to_owned();
    while let Some((_, set, rest)) = value(name) {
        name = rest;
        let Some((_, attribute, _)) = value(set) else { continue };
        let Some((_, id, after)) = value(attribute) else { continue };
        if let Some((_, text, _)) = value(after).filter(|_| id == ID) {
            found = String::from_utf8_lossy(text).into_owned();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_implementation_made() {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a.example");
        params.not_after = rcgen::date_time_ymd(2031, 5, 17);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let ends = "2031-05-17T00:00:00Z".parse().unwrap();
        let one = Certificate { subject: "a.example".to_owned(), ends };
        assert_eq!(all(format!("{pem}\n{pem}").as_bytes()), [one.clone(), one]);
        assert_eq!(all(key.serialize_pem().as_bytes()), []);
        assert_eq!(all(format!("{BEGIN}MII={END}{BEGIN}").as_bytes()), []);
    }
}
