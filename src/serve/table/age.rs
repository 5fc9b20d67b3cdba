//! How long ago something was (apimachinery `pkg/util/duration/duration.go`).

use jiff::Timestamp;

/// The time since an RFC 3339 time; `<unknown>` for none.
pub(super) fn since(text: &str, now: Timestamp) -> String {
    text.parse::<Timestamp>().map_or_else(|_| "<unknown>".to_owned(), |time| ago(time, now))
}

/// The time since another.
pub(super) fn ago(time: Timestamp, now: Timestamp) -> String {
    human(now.as_second() - time.as_second())
}

/// Seconds for people: two units where the first alone says little.
pub(super) fn human(seconds: i64) -> String {
    let two = |a: i64, x: &str, b: i64, y: &str| {
        if b == 0 { format!("{a}{x}") } else { format!("{a}{x}{b}{y}") }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(hours / 24, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => two(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_kubectl_prints_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (195, "3m15s"),
            (3600, "60m"),
            (179 * 60, "179m"),
            (3 * 3600, "3h"),
            (4 * 3600 + 300, "4h5m"),
            (38 * 3600, "38h"),
            (48 * 3600, "2d"),
            (51 * 3600, "2d3h"),
            (20 * 86_400, "20d"),
            (729 * 86_400, "729d"),
            (731 * 86_400, "2y1d"),
            (3000 * 86_400, "8y"),
        ] {
            assert_eq!(human(seconds), text);
        }
        assert_eq!(since("", Timestamp::UNIX_EPOCH), "<unknown>");
    }
}
