//! A scan as one page: for the records of an audit, to print or to send.

use std::io::{self, Write};

use super::{GroupRows, Report};
use crate::envelope::Provider;
use crate::report::page::{self, facts, foot, head, shares, table, verdict_line, worst_first};
use crate::report::table::{self, Mark};
use crate::scan::{Status, Totals};

pub(super) fn write(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    head("Encryption at rest", &report.source.location, out)?;
    let totals = report.counts.totals();
    for (mark, sentence) in verdict(report, &totals) {
        verdict_line(mark, &sentence, out)?;
    }
    shares(&parts(report, &totals), out)?;
    scan_facts(report, &totals, out)?;
    page::damage(&report.visit.damage, out)?;

    let with_status = report.config.is_some();
    let groups = report.counts.groups();
    if !groups.is_empty() {
        let rows = GroupRows::new(&groups, with_status);
        let mut cells: Vec<_> = groups.iter().map(|(k, t)| rows.row(k, *t)).collect();
        worst_first(&mut cells);
        table("How they are stored", &rows.columns(), cells.into_iter(), out)?;
    }
    if report.config.as_ref().is_some_and(|c| !c.also.is_empty()) && !report.reads.is_empty() {
        let rows = report.reads.iter().map(|r| {
            let key = r.key.clone().unwrap_or_else(|| "-".to_owned());
            (vec![r.config.clone(), r.provider.clone(), key, table::count(r.entries)], Mark::Plain)
        });
        table("Which file's key read them", &["FILE", "PROVIDER", "KEY", ">ENTRIES"], rows, out)?;
    }
    if let Some(entries) = report.entries.filter(|e| !e.is_empty()) {
        // Rows are made one by one: there may be hundreds of thousands.
        let mut order: Vec<_> = entries.iter().map(|f| (f, super::entry_mark(f))).collect();
        worst_first(&mut order);
        let rows = order.into_iter().map(|(f, _)| super::entry_row(f, with_status));
        table("Entries", &super::entry_columns(with_status), rows, out)?;
    }
    foot(out)
}

/// The sentences that matter most, worst first. What is partial never reads as a clean result.
fn verdict(report: &Report<'_>, totals: &Totals) -> Vec<(Mark, String)> {
    let mut out: Vec<_> = page::incomplete(&report.visit.damage).into_iter().collect();
    let are = |n: u64| format!("{} {}", table::entries(n), if n == 1 { "is" } else { "are" });
    if totals.unreadable > 0 {
        let what = are(totals.unreadable);
        out.push((Mark::Bad, format!("{what} unreadable with the configuration.")));
    }
    if totals.misplaced > 0 {
        let (noun, key) =
            if totals.misplaced == 1 { ("entry holds", "its") } else { ("entries hold", "their") };
        let n = table::count(totals.misplaced);
        out.push((Mark::Bad, format!("{n} {noun} another object than {key} key says.")));
    }
    if totals.unknown > 0 {
        let what = are(totals.unknown);
        out.push((Mark::Warn, format!("{what} undecided: current or stale is not known.")));
    }
    let groups = report.counts.groups();
    let unknown = groups.iter().filter(|(k, _)| k.provider == Provider::Unknown);
    let unknown = unknown.map(|(_, t)| t.entries).sum();
    if report.config.is_none() && unknown > 0 {
        out.push((Mark::Bad, format!("{} under no provider that is known.", are(unknown))));
    }
    let intended = intended(report);
    let plaintext = totals.plaintext.saturating_sub(intended);
    if plaintext > 0 {
        out.push((Mark::Warn, format!("{} stored unencrypted.", are(plaintext))));
    }
    if totals.stale > 0 {
        let what = are(totals.stale);
        out.push((Mark::Warn, format!("{what} stale: the API server would rewrite them.")));
    }
    if totals.entries == 0 {
        out.push((Mark::Warn, "No entries were found.".to_owned()));
    } else if out.is_empty() {
        let all = if report.config.is_none() {
            "Every entry found is encrypted."
        } else if report.verified {
            "Every entry found is current; the encrypted ones were decrypted to make sure."
        } else {
            "Every entry found is current, by its prefix."
        };
        out.push((Mark::Good, all.to_owned()));
    }
    if intended > 0 {
        let what = format!("{} stored unencrypted, as the configuration says.", are(intended));
        out.push((Mark::Plain, what));
    }
    out
}

/// The whole by state: judged by the configuration, or by how it is stored where there is none.
fn parts(report: &Report<'_>, totals: &Totals) -> Vec<(&'static str, u64, Mark)> {
    if report.config.is_none() {
        return vec![
            ("plaintext", totals.plaintext, Mark::Warn),
            ("encrypted", totals.encrypted, Mark::Good),
        ];
    }
    let intended = intended(report);
    vec![
        ("unreadable", totals.unreadable, Mark::Bad),
        ("unknown", totals.unknown, Mark::Warn),
        ("stale", totals.stale, Mark::Warn),
        ("current", totals.current.saturating_sub(intended), Mark::Good),
        ("current, stored unencrypted as configured", intended, Mark::Plain),
    ]
}

/// Entries that are stored unencrypted because the configuration says so.
fn intended(report: &Report<'_>) -> u64 {
    let groups = report.counts.groups();
    let intended = groups
        .iter()
        .filter(|(k, _)| k.provider == Provider::Identity && k.status == Some(Status::Current));
    intended.map(|(_, t)| t.entries).sum()
}

/// What was looked at, with what, when.
fn scan_facts(report: &Report<'_>, totals: &Totals, out: &mut dyn Write) -> io::Result<()> {
    let mut facts = page::read(report.source, report.visit, report.config.as_ref());
    facts.extend(report.also.iter().map(|also| ("Also", super::also_read(also))));
    facts.push(("Looked for", report.looked_for.clone()));
    let how = if report.verified { "decrypting every entry" } else { "the prefixes of the values" };
    facts.push(("Judged by", how.to_owned()));
    facts.push(("Found", super::sum(totals, report.config.is_some())));
    if report.counts.internal > 0 {
        let besides = table::entries(report.counts.internal);
        facts.push(("Besides", format!("{besides} that the API server never encrypts")));
    }
    let time =
        i64::try_from(report.timestamp).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    facts.extend(time.map(|t| ("Time", t.to_string())));
    self::facts(&facts, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::wire;
    use crate::scan::{Counts, Judged};
    use crate::source::{Damage, SourceInfo, SourceKind, Visit};

    /// The page of entries that are each judged so, and the words of its verdict.
    fn page(
        entries: &[(Provider, Option<Status>)],
        damage: usize,
        verified: bool,
    ) -> (String, Vec<String>) {
        let mut counts = Counts::default();
        for (provider, status) in entries {
            let judged =
                Judged { status: *status, provider: *provider, ..Judged::by_prefix(b"", []) };
            counts.add("se<crets", &judged, 10);
        }
        let part = Damage { location: "page 17".into(), what: "a <b>& c\u{1b}".into() };
        let visit = Visit { revision: 9, damage: vec![part; damage], ..Visit::default() };
        let source = SourceInfo { kind: SourceKind::Snapshot, location: "\"a\".db".into() };
        let config = wire::Config { location: "ec.yaml".into(), sha256: "ab".into(), also: vec![] };
        let report = Report {
            source: &source,
            visit: &visit,
            config: entries.iter().any(|(_, s)| s.is_some()).then_some(config),
            reads: Vec::new(),
            counts: &counts,
            also: &[],
            left_behind: &std::collections::BTreeMap::new(),
            looked_for: "secrets under /registry/".into(),
            verified,
            entries: None,
            timestamp: 1_800_000_000,
        };
        let mut out = Vec::new();
        write(&report, &mut out).unwrap();
        let words = verdict(&report, &counts.totals()).into_iter().map(|(_, s)| s).collect();
        (String::from_utf8(out).unwrap(), words)
    }

    #[test]
    fn only_what_is_whole_and_current_is_called_so() {
        use Provider::{Identity, Secretbox, Unknown};
        let current = (Secretbox, Some(Status::Current));
        let all = |entries: &[_], damage, verified| page(entries, damage, verified).1.join(" ");
        assert_eq!(all(&[], 0, false), "No entries were found.");
        assert_eq!(all(&[(Secretbox, None)], 0, false), "Every entry found is encrypted.");
        assert_eq!(all(&[current], 0, false), "Every entry found is current, by its prefix.");
        assert_eq!(
            all(&[current], 0, true),
            "Every entry found is current; the encrypted ones were decrypted to make sure."
        );
        assert_eq!(
            all(&[current, (Identity, Some(Status::Current))], 0, false),
            "Every entry found is current, by its prefix. \
             1 entry is stored unencrypted, as the configuration says."
        );
        assert_eq!(
            all(&[current], 1, true),
            "Incomplete: 1 part of the source could not be read and was not judged."
        );
        assert_eq!(
            all(&[(Secretbox, None), (Unknown, None)], 0, false),
            "1 entry is under no provider that is known."
        );
        assert_eq!(
            all(
                &[
                    current,
                    (Identity, Some(Status::Stale)),
                    (Identity, Some(Status::Stale)),
                    (Secretbox, Some(Status::Unreadable)),
                ],
                2,
                false
            ),
            "Incomplete: 2 parts of the source could not be read and were not judged. \
             1 entry is unreadable with the configuration. 2 entries are stored unencrypted. \
             2 entries are stale: the API server would rewrite them."
        );
    }

    #[test]
    fn stored_text_is_text() {
        let (page, _) = page(&[(Provider::Identity, None)], 1, false);
        assert!(page.contains("<td>se&lt;crets</td>"), "{page}");
        assert!(page.contains("<td>a &lt;b&gt;&amp; c\\u{1b}</td>"), "{page}");
        assert!(
            page.contains("<h1><small>Encryption at rest</small>&quot;a&quot;.db</h1>"),
            "{page}"
        );
        assert!(page.contains("<dd>2027-01-15T08:00:00Z</dd>"), "{page}");
    }
}
