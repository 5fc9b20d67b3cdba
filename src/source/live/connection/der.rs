//! The validity period of a certificate: just enough DER to tell a user that it expired.

use std::time::{SystemTime, UNIX_EPOCH};

/// From when until when a certificate is valid, seconds since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    /// `notBefore`
    pub from: i64,
    /// `notAfter`
    pub until: i64,
}

impl Validity {
    /// Reads a certificate (RFC 5280 section 4.1); `None` for one that is malformed.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (0x30, certificate, _) = element(certificate)? else { return None };
        let (0x30, tbs, _) = element(certificate)? else { return None };
        // version [0] is optional; then serialNumber, signature, issuer.
        let (tag, _, mut rest) = element(tbs)?;
        if tag == 0xA0 {
            rest = element(rest)?.2;
        }
        for _ in 0..2 {
            rest = element(rest)?.2;
        }
        let (0x30, validity, _) = element(rest)? else { return None };
        let (tag, from, rest) = element(validity)?;
        let from = time(tag, from)?;
        let (tag, until, _) = element(rest)?;
        Some(Self { from, until: time(tag, until)? })
    }

    /// In words, if the certificate is not valid now.
    pub fn complaint(self) -> Option<&'static str> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let now = i64::try_from(now).ok()?;
        if now > self.until {
            Some("has expired")
        } else if now < self.from {
            Some("is not valid yet")
        } else {
            None
        }
    }
}

/// Tag, content and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], mut rest) = der.split_first_chunk::<2>()?;
    let mut len = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7F);
        if !(1..=4).contains(&count) {
            return None;
        }
        let (bytes, after) = rest.split_at_checked(count)?;
        len = bytes.iter().fold(0, |len, &b| len << 8 | usize::from(b));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// `UTCTime` (0x17) or `GeneralizedTime` (0x18), always in UTC.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, text.len()) {
        (0x17, 12) => {
            let year: i64 = text[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        (0x18, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let part = |i: usize| rest[i..i + 2].parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    // Days since 1970 in the proleptic Gregorian calendar, years beginning in March.
    let shifted = year - i64::from(month <= 2);
    let days = 365 * shifted + shifted.div_euclid(4) - shifted.div_euclid(100)
        + shifted.div_euclid(400)
        + (153 * ((month + 9) % 12) + 2) / 5
        + day
        - 1
        - 719_468;
    Some(days * 86400 + part(4)? * 3600 + part(6)? * 60 + part(8)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_when_it_is_valid() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1999, 12, 31);
        params.not_after = rcgen::date_time_ymd(2000, 3, 1);
        let cert = params.self_signed(&key).unwrap();
        let validity = Validity::of(cert.der()).unwrap();
        assert_eq!(validity, Validity { from: 946_598_400, until: 951_868_800 });
        assert_eq!(validity.complaint(), Some("has expired"));
        params.not_after = rcgen::date_time_ymd(4096, 1, 1);
        let cert = params.self_signed(&key).unwrap();
        assert_eq!(Validity::of(cert.der()).unwrap().complaint(), None);
        for len in 0..120 {
            assert_eq!(Validity::of(&cert.der()[..len]), None, "truncated to {len}");
        }
    }
}
