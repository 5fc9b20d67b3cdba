//! `--results`: the report put where other runs put theirs; `--summarize`: all of them read back.

use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;
use crate::jobs::backups::saved::Document;
use crate::jobs::backups::summary::{SummaryError, summarize};
use crate::jobs::backups::{Outcome, Shard};

/// Most bytes of a report that is read.
const LARGEST: u64 = 1 << 30;
const NO_PLACE: &str = "give a directory that can be written, s3://, gs:// or az://";

/// What the report of a part is called.
fn name(shard: Option<Shard>) -> String {
    let (index, of) = shard.map_or((0, 1), |s| (s.index(), s.of()));
    format!("atrest-backups-{index}-of-{of}.json")
}

fn is_report(name: &str) -> bool {
    let middle = name.strip_prefix("atrest-backups-").and_then(|n| n.strip_suffix(".json"));
    let numbers = middle.and_then(|n| n.split_once("-of-"));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    numbers.is_some_and(|(index, of)| number(index) && number(of))
}

/// Whether reports can be put there, before anything is judged.
///
/// # Errors
/// When it is neither a directory nor an address of a store.
pub fn check(place: &Path) -> Result<(), Failure> {
    #[cfg(feature = "remote")]
    if let Some(address) = crate::remote::Address::of(place) {
        return address.and_then(|a| a.writable()).map_err(|e| Failure::from(&e));
    }
    if place.is_dir() {
        return Ok(());
    }
    Err(Failure::new(format!("{} is no directory", place.display())).hint(NO_PLACE))
}

/// Writes the report into a directory or below an address; returns where it is.
///
/// # Errors
/// When it cannot be written.
pub fn put(place: &Path, outcome: &Outcome) -> Result<String, Failure> {
    let bytes = serde_json::to_vec(&Document::from(outcome))
        .map_err(|e| Failure::new("cannot write the report").because(&e))?;
    let name = name(outcome.shard);
    #[cfg(feature = "remote")]
    if let Some(address) = crate::remote::Address::of(place) {
        let address = address.map_err(|e| Failure::from(&e))?.below(&name);
        let put = crate::cli::remote::access()?.put(&address, bytes);
        return put.map(|()| address.shown().to_owned()).map_err(|e| Failure::from(&e));
    }
    let path = place.join(name);
    crate::temporary::write(&path, &bytes, true).map_err(|e| {
        Failure::new(format!("cannot write {}", path.display())).because(&e).hint(NO_PLACE)
    })?;
    Ok(path.display().to_string())
}

/// Adds up the reports at these places; and the parts that are missing.
///
/// # Errors
/// When there is none, one cannot be read, or they are not of one run.
pub fn read(places: &[PathBuf]) -> Result<(Outcome, Vec<Shard>), Failure> {
    let mut reports = Vec::new();
    for place in places {
        for (name, bytes) in documents(place)? {
            let outcome = Document::read(&bytes).map_err(|e| {
                Failure::new(format!("{name} cannot be used"))
                    .because(&e)
                    .hint("give what `backups --results` or `backups -w json` wrote")
            })?;
            reports.push((name, outcome));
        }
    }
    if reports.is_empty() {
        return Err(Failure::new("there is no report to add up")
            .hint("give the place that --results of the runs named, or files of `-w json`"));
    }
    summarize(reports).map_err(|e| {
        Failure::new("these reports are not of one run").because(&e).hint(match e {
            SummaryError::Divided { .. } => "give those of one run: each has its own --results",
            SummaryError::Twice { .. } => "give each backup's report once",
        })
    })
}

/// Reports by what to call them: the file itself, or those in a directory or below an address.
fn documents(place: &Path) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    #[cfg(feature = "remote")]
    if let Some(address) = crate::remote::Address::of(place) {
        return fetched(&address.map_err(|e| Failure::from(&e))?);
    }
    let cannot = |path: &Path, e: &std::io::Error| {
        Failure::new(format!("cannot read {}", path.display())).because(e).hint("check the path")
    };
    let mut paths = vec![place.to_owned()];
    if place.is_dir() {
        let entries = std::fs::read_dir(place).map_err(|e| cannot(place, &e))?;
        paths = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        paths.retain(|p| p.file_name().is_some_and(|n| is_report(&n.to_string_lossy())));
        paths.sort();
    }
    let read = |path: PathBuf| {
        let file = std::fs::File::open(&path).map_err(|e| cannot(&path, &e))?;
        Ok((path.display().to_string(), bytes_of(file).map_err(|e| cannot(&path, &e))?))
    };
    paths.into_iter().map(read).collect()
}

#[cfg(feature = "remote")]
fn fetched(address: &crate::remote::Address) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    use crate::remote::Fetched;

    let remote = crate::cli::remote::access()?;
    let listed = remote.list(address).map_err(|e| Failure::from(&e))?;
    let mut found = Vec::new();
    for object in listed.iter().filter(|o| is_report(o.address.name())) {
        let shown = object.address.shown().to_owned();
        let fetched =
            remote.fetch(&object.address, &|_| true, &mut |_| ()).map_err(|e| Failure::from(&e))?;
        let Fetched::Whole(file) = fetched else { continue };
        let bytes =
            bytes_of(file).map_err(|e| Failure::new(format!("cannot read {shown}")).because(&e))?;
        found.push((shown, bytes));
    }
    Ok(found)
}

fn bytes_of(file: std::fs::File) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_told_from_backups_by_their_names() {
        assert_eq!(name(Shard::new(2, 5)), "atrest-backups-2-of-5.json");
        assert!(is_report(&name(None)));
        for other in ["atrest-backups-.json", "atrest-backups-a-of-2.json", "snapshot.db", ""] {
            assert!(!is_report(other), "{other}");
        }
    }
}
