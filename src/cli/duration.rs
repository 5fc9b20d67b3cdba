//! Durations as Go writes them (`5s`, `1m30s`, `300ms`), because etcdctl's options use them.

use std::time::Duration;

/// The longest that Go knows: 2⁶³ − 1 nanoseconds, about 292 years. What is longer than clocks
/// count would end in a panic where it is added to a time.
const LONGEST: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

/// Reads a Go duration (`time.ParseDuration`), without sign.
///
/// # Errors
/// With a sentence for the user when the text is no duration.
pub fn parse(text: &str) -> Result<Duration, String> {
    let err = || format!("`{text}` is not a duration such as `5s`, `1m30s` or `300ms`");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(err());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(err)?;
        let number: f64 = rest[..digits].parse().map_err(|_| err())?;
        let after = &rest[digits..];
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let seconds = match &after[..unit_len] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(err()),
        };
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| err())?;
        total = total.checked_add(part).filter(|t| *t <= LONGEST).ok_or_else(err)?;
        rest = &after[unit_len..];
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        assert_eq!(parse("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(parse("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse("1.5h").unwrap(), Duration::from_mins(90));
        assert_eq!(parse("300ms").unwrap(), Duration::from_millis(300));
        assert_eq!(parse("0").unwrap(), Duration::ZERO);
        assert_eq!(parse("2562047h").unwrap(), Duration::from_hours(2_562_047));
        let twice = ["10000000000000000000s"; 2].concat();
        for bad in ["", "5", "s", "-5s", "5x", "5 s", "1m30", "2562048h", &twice] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
