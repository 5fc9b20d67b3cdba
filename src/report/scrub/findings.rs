//! What was found before and after, as parts of a receipt's page.

use std::io::{self, Write};

use crate::jobs::scrub::Found;
use crate::report::page;
use crate::report::table::{self, Mark};

/// When it was looked for, and how much was found.
pub(super) fn facts(before: Option<&Found>, after: Option<&Found>) -> Vec<(&'static str, String)> {
    let fact = |(name, found): (_, Option<&Found>)| {
        let f = found?;
        let size = table::bytes(f.size);
        let places = table::counted(f.totals.sum(), "place", "places");
        Some((name, format!("{}, revision {}, {size}: {places}", f.at, f.revision)))
    };
    [("Before", before), ("After", after)].into_iter().filter_map(fact).collect()
}

/// Each finding, without any of its bytes.
pub(super) fn tables(
    before: Option<&Found>,
    after: Option<&Found>,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (title, found) in [("Found before", before), ("Found after", after)] {
        let Some(found) = found else { continue };
        let rows = found.listed.iter().map(|l| {
            let key = l.key.as_deref().map_or("(overwritten)".into(), String::from_utf8_lossy);
            let cells = vec![
                l.place.as_str().to_owned(),
                l.location.clone(),
                key.into_owned(),
                table::bytes(l.size),
            ];
            (cells, Mark::Bad)
        });
        page::table(title, &["Where", "Location", "etcd key", ">Size"], rows, out)?;
    }
    Ok(())
}
