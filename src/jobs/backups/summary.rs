//! Reports of several runs → one, as if one run had judged it all.

use std::collections::BTreeMap;

use super::{Outcome, Shard, needed};

/// Why reports cannot be added up.
#[derive(Debug, thiserror::Error)]
pub enum SummaryError {
    /// They are of runs that divided the work differently.
    #[error("{first} is a part of {of}, and {second} of {other}")]
    Divided {
        /// A report.
        first: String,
        /// In how many parts its run was divided.
        of: u32,
        /// Another one.
        second: String,
        /// The same of it.
        other: u32,
    },
    /// A backup was judged in both.
    #[error("{location} is in {first} and in {second}")]
    Twice {
        /// The backup.
        location: String,
        /// A report.
        first: String,
        /// Another one.
        second: String,
    },
}

/// Adds up reports, each with what to call it; and the parts that are missing.
///
/// # Errors
/// When they are not of one run.
pub fn summarize(reports: Vec<(String, Outcome)>) -> Result<(Outcome, Vec<Shard>), SummaryError> {
    let mut whole = Outcome::default();
    let mut parts: Option<(String, u32)> = None;
    let mut there = Vec::new();
    let mut places: BTreeMap<std::path::PathBuf, String> = BTreeMap::new();
    let mut listed = 0;
    for (name, report) in reports {
        let of = report.shard.map_or(1, Shard::of);
        if let Some((first, other)) = parts.as_ref().filter(|(_, other)| *other != of) {
            let first = first.clone();
            return Err(SummaryError::Divided { first, of: *other, second: name, other: of });
        }
        parts.get_or_insert_with(|| (name.clone(), of));
        there.push(report.shard.map_or(0, Shard::index));
        listed = report.listed.max(listed);
        whole.skipped += report.skipped;
        for backup in report.backups {
            if let Some(first) = places.insert(backup.location.clone(), name.clone()) {
                let location = backup.location.display().to_string();
                return Err(SummaryError::Twice { location, first, second: name });
            }
            whole.backups.push(backup);
        }
    }
    whole.backups.sort_by(|a, b| a.location.cmp(&b.location));
    whole.keys = needed(&whole.backups);
    let of = parts.map_or(0, |(_, of)| of);
    // Reports of runs that were not divided are of different places.
    whole.listed = if of == 1 { whole.backups.len() as u64 } else { listed };
    let missing = (0..of).filter(|index| !there.contains(index));
    let missing = missing.filter_map(|index| Shard::new(index, of)).collect();
    Ok((whole, missing))
}
